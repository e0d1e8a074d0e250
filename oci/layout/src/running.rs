//! The log of a build that runs: a file in the layout's folder for as long as it takes, so that whoever knows the image's
//! name finds it. It is marked as being written to, by a lock that the kernel releases when the process ends, however it
//! ends: without the mark it is left over, and the next build, export or sweep removes it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use drydock_io::file::TEMPORARY_PREFIX;
use drydock_io::lock::{is_written, mark_written};
use drydock_io::read;
use drydock_model::reference::{LayoutDir, LayoutPath};

use super::collect::list;
use super::error::{IoContext as _, LayoutError};
use super::folders::{Unlocked, make_blobs_dir, make_layout_dir, while_folders_go};

/// What the file's name begins with; a process's number follows.
const PREFIX: &str = "log-";

/// The file of the build that this process runs. Dropped, it is gone.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    file: File,
    _made: Unlocked,
}

impl Spool {
    /// In the layout's folder, which is made if need be, and goes with the file if there is nothing else in it.
    pub fn create(dir: &LayoutDir, layout: &LayoutPath) -> Result<Self, LayoutError> {
        let (made, path, file) = while_folders_go(|| {
            let mut made = Unlocked::new(layout.path());
            make_layout_dir(dir.path(), layout.path(), &mut made.undo)?;
            make_blobs_dir(layout.path(), &mut made.undo)?;
            for path in spools(layout)? {
                if !is_running(&path) {
                    // Another build may be faster, or it is not ours to remove.
                    let _ = fs::remove_file(&path);
                }
            }
            let (path, file) = create_in(layout.path())?;
            Ok((made, path, file))
        })?;
        let spool = Self { path, file, _made: made };
        if !mark_written(&spool.file) {
            let source = io::Error::other("another program has it locked");
            return Err(LayoutError::Io { action: "lock", path: spool.path.clone(), source });
        }
        Ok(spool)
    }

    /// The file, which is written at its end.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // An export may have removed it; what is left is removed by the next one.
        let _ = fs::remove_file(&self.path);
    }
}

/// Processes of several containers may have the same number.
fn create_in(dir: &Path) -> Result<(PathBuf, File), LayoutError> {
    for serial in 0_u32.. {
        let path = dir.join(format!("{TEMPORARY_PREFIX}{PREFIX}{}-{serial}", std::process::id()));
        match OpenOptions::new().read(true).append(true).create_new(true).mode(0o644).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return opened.at("create", &path).map(|file| (path, file)),
        }
    }
    unreachable!("no folder has as many files")
}

fn spools(layout: &LayoutPath) -> Result<Vec<PathBuf>, LayoutError> {
    let layout = layout.path();
    let is_spool =
        |name: &str| name.strip_prefix(TEMPORARY_PREFIX).is_some_and(|rest| rest.starts_with(PREFIX));
    let files = list(layout)?.into_iter().filter(|(name, file)| file.is_file() && is_spool(name));
    Ok(files.map(|(name, _)| layout.join(name)).collect())
}

/// Whether a temporary file is the log of a build that runs.
pub(super) fn is_running(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()?.strip_prefix(TEMPORARY_PREFIX));
    name.is_some_and(|rest| rest.starts_with(PREFIX))
        && path.symlink_metadata().is_ok_and(|file| file.is_file())
        && read::open(path).and_then(|file| is_written(&file)).unwrap_or(false)
}

/// Opens the log of the build of this name that runs; of several, that of the last to begin. None if none does.
pub fn running(layout: &LayoutPath) -> Result<Option<File>, LayoutError> {
    if !layout.path().is_dir() {
        return Ok(None);
    }
    let mut newest = None;
    for path in spools(layout)?.into_iter().filter(|path| is_running(path)) {
        // Its build may end meanwhile.
        let Ok(file) = read::open(&path) else { continue };
        let begun = file
            .metadata()
            .and_then(|file| file.created().or_else(|_| file.modified()))
            .at("look at", &path)?;
        if newest.as_ref().is_none_or(|(other, _)| *other < begun) {
            newest = Some((begun, file));
        }
    }
    Ok(newest.map(|(_, file)| file))
}
