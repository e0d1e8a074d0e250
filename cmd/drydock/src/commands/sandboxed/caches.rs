//! What builds leave for the next ones.
//!
//! ```text
//! <cache>/builds/<app>/image    the path of the layout of the image that is built
//! <cache>/builds/<app>/cache/   what the phases know as `/cache`, unless another folder is asked for
//! <cache>/builds/<app>/kept/    the cached layers as the last build left them
//! ```

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use drydock_images::Name;
use drydock_io::file::{make_dirs, write_atomically};
use drydock_io::lock::Lock;
use drydock_io::read::{look, read_to_string};
use drydock_model::digest::Digest;
use drydock_sandbox::roots::{KEPT, Waiting};
use drydock_sandbox::session;

use super::kept::Kept;
use crate::cli_sandboxed::Build;
use crate::exit::Usage;

const FOLDER: &str = "builds";

const IMAGE: &str = "image";

/// What is in the folder of a cache: layers and what says which, what an export writes, and what it replaces.
const PARTS: [&str; 3] = ["committed", "staging", "committed-backup"];

/// What a disk of its own has.
const DISK: &str = "lost+found";

/// Bytes that a path may have.
const MAX_PATH: u64 = 4096;

/// The folder of an app's cache and what was kept beside it, which nobody else uses until the lock is dropped. `waiting` is asked
/// while another build has it.
pub(super) fn open(
    caches: &Path,
    options: &Build,
    name: &Name,
    waiting: &Waiting<'_>,
) -> Result<(PathBuf, Kept, Lock)> {
    let key = name.path().path().display().to_string();
    let short = name.text().rsplit('/').next().unwrap_or_default().replace([':', '@'], "_");
    let own = caches.join(FOLDER).join(format!("{short}-{}", &Digest::of(key.as_bytes()).hex()[..16]));
    let make = |dir: &Path| make_dirs(dir).with_context(|| format!("cannot make `{}`", dir.display()));
    // The phases lock the cache itself.
    let lock = loop {
        make(&own)?;
        match Lock::acquire_while(&own, waiting) {
            // It was old, and somebody has removed it.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            lock => break lock.with_context(|| format!("cannot lock `{}`", own.display()))?,
        }
    };
    // This makes the folder as new as its last use.
    let image = own.join(IMAGE);
    write_atomically(&image, key.as_bytes())
        .with_context(|| format!("cannot write `{}`", image.display()))?;
    let dir = options.cache.clone().unwrap_or_else(|| own.join("cache"));
    make(&dir)?;
    let dir = fs::canonicalize(&dir).with_context(|| format!("cannot find `{}`", dir.display()))?;
    refuse_others(&dir)?;
    let kept = Kept::of(&own);
    if options.clear_cache {
        kept.clear()?;
        clear(&dir)?;
    }
    Ok((dir, kept, lock))
}

/// The phases give all that is in the folder of a cache to their user: it must be a cache, or empty.
fn refuse_others(dir: &Path) -> Result<()> {
    let read = || format!("cannot read `{}`", dir.display());
    for entry in fs::read_dir(dir).with_context(read)? {
        let name = entry.with_context(read)?.file_name().to_string_lossy().into_owned();
        if !PARTS.contains(&&*name) && name != DISK && !name.starts_with(".drydock-") {
            let dir = dir.display();
            let text = format!("`{dir}` is no cache, as it holds `{name}`: name an empty folder, or a cache");
            return Err(Usage(text).into());
        }
    }
    Ok(())
}

/// Removes what phases have put into the folder of a cache.
fn clear(dir: &Path) -> Result<()> {
    for name in PARTS {
        let path = dir.join(name);
        drydock_tar::remove_all(&path).with_context(|| format!("cannot remove `{}`", path.display()))?;
    }
    Ok(())
}

/// Removes what belongs to images that are gone, if none has used it for days, or `all`, but what a build uses; gives their number.
pub(super) fn clean(caches: &Path, all: bool) -> Result<usize> {
    let is_gone = |own: &Path| match read_to_string(&own.join(IMAGE), MAX_PATH) {
        Ok(image) => look(&Path::new(&image).join("index.json")).is_ok_and(|found| found.is_none()),
        // Whose it is nobody has noted.
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    let is_wanted = |entry: &fs::DirEntry| all || session::is_old(entry, KEPT) && is_gone(&entry.path());
    session::remove_unlocked(&caches.join(FOLDER), &is_wanted, &|_| {})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_cleared_is_the_caches() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["committed/layer", "lost+found/x", "staging/layer", "docs/letter"] {
            assert!(refuse_others(dir.path()).is_ok(), "{path}");
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "dear").unwrap();
        }
        let error = refuse_others(dir.path()).unwrap_err().to_string();
        assert!(error.contains("it holds `docs`"), "{error}");
        clear(dir.path()).unwrap();
        let left: BTreeSet<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().eq(["docs", DISK]));
        assert!(dir.path().join("docs/letter").exists());
    }
}
