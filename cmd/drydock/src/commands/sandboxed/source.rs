//! Files of a source, which is somebody else's: whatever paths and links say, nothing outside of it is read.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

/// A text file of the source; none if there is none.
pub(super) fn text(root: &Path, path: &str, limit: u64) -> Result<Option<String>> {
    let Some(file) = open(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)? else {
        return Ok(None);
    };
    if !file.metadata()?.is_file() {
        bail!("it is not a regular file");
    }
    let bytes = drydock_io::read::read_all(file, limit)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        anyhow!("line {}: it is not UTF-8", before.split(|byte| *byte == b'\n').count())
    });
    Ok(Some(text?))
}

/// Opens what is in the source; none if it is not there. What leads out is an error.
pub(super) fn open(root: &Path, path: &str, flags: OFlags) -> Result<Option<File>> {
    let failed = |path: &Path| format!("cannot open `{}`", path.display());
    let dir = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let dir = dir.with_context(|| failed(root))?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(file) => Ok(Some(file.into())),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(Errno::XDEV) => bail!("`{path}` leads out of the source"),
        Err(error) => Err(io::Error::from(error)).with_context(|| failed(&root.join(path))),
    }
}
