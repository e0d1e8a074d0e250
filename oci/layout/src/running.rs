//! The log of a build that runs: a file in the layout's folder for as long as it takes, so that whoever knows the image's
//! name finds it. It is marked as being written to, by a lock that the kernel releases when the process ends, however it
//! ends: without the mark it is left over, and the next build, export or sweep removes it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;

use drydock_io::dir::{Dir, Place};
use drydock_io::file::{TEMPORARY_PREFIX, is_temporary};
use drydock_io::lock::{is_written, mark_written};
use drydock_model::reference::{LayoutDir, LayoutPath};
use rustix::fs::{FileType, OFlags, Stat};

use super::collect::{is, list};
use super::error::{IoContext as _, LayoutError};
use super::folders::{Unlocked, make_blobs_dir, make_layout_dir, while_folders_go};

/// What the file's name begins with; numbers follow.
const PREFIX: &str = "log-";

/// The file of the build that this process runs. Dropped, it is gone.
#[derive(Debug)]
pub struct Spool {
    place: Place,
    file: File,
    _made: Unlocked,
}

impl Spool {
    /// In the layout's folder, which is made if need be, and goes with the file if there is nothing else in it.
    pub fn create(dir: &LayoutDir, layout: &LayoutPath) -> Result<Self, LayoutError> {
        let (made, place, file) = while_folders_go(|| {
            let mut made = Unlocked::new(layout.path());
            let dir = make_layout_dir(dir.path(), layout.path(), &mut made.undo)?;
            make_blobs_dir(&dir, &mut made.undo)?;
            for place in spools(&dir)? {
                if !is_running(&place) {
                    // Another build may be faster, or it is not ours to remove.
                    let _ = place.remove();
                }
            }
            let (place, file) = create_in(&dir)?;
            Ok((made, place, file))
        })?;
        let spool = Self { place, file, _made: made };
        if !mark_written(&spool.file) {
            let source = io::Error::other("another program has it locked");
            return Err(LayoutError::Io { action: "lock", path: spool.path().to_owned(), source });
        }
        Ok(spool)
    }

    /// The file, which is written at its end.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.place.path()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // An export may have removed it; what is left is removed by the next one.
        let _ = self.place.remove();
    }
}

/// Processes of several containers may have the same number.
fn create_in(dir: &Dir) -> Result<(Place, File), LayoutError> {
    for serial in 0_u32.. {
        let place = dir.place(format!("{TEMPORARY_PREFIX}{PREFIX}{}-{serial}", std::process::id()));
        match place.create_new(0o644, OFlags::APPEND) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return opened.at("create", place.path()).map(|file| (place, file)),
        }
    }
    unreachable!("no folder has as many files")
}

fn spools(layout: &Dir) -> Result<Vec<Place>, LayoutError> {
    let is_wanted = |name: &str, file: &Stat| is(FileType::RegularFile, file) && is_spool(OsStr::new(name));
    let files = list(layout)?.into_iter().filter(|(name, file)| is_wanted(name, file));
    Ok(files.map(|(name, _)| layout.place(name)).collect())
}

fn is_spool(name: &OsStr) -> bool {
    is_temporary(name, PREFIX)
}

/// Whether it is the log of a build that runs.
fn is_running(place: &Place) -> bool {
    is_spool(place.name()) && place.open().and_then(|file| is_written(&file)).unwrap_or(false)
}

/// Whether it is a temporary file of ours, and not the log of a build that runs.
pub(super) fn is_left(place: &Place) -> bool {
    is_temporary(place.name(), "") || is_spool(place.name()) && !is_running(place)
}

/// Opens the log of the build of this name that runs; of several, that of the last to begin. None if none does.
pub fn running(layout: &LayoutPath) -> Result<Option<File>, LayoutError> {
    let layout = layout.path();
    if !layout.is_dir() {
        return Ok(None);
    }
    let mut newest = None;
    for place in spools(&Dir::open(layout).at("open", layout)?)?.into_iter().filter(is_running) {
        // Its build may end meanwhile.
        let Ok(file) = place.open() else { continue };
        let begun = file
            .metadata()
            .and_then(|file| file.created().or_else(|_| file.modified()))
            .at("look at", place.path())?;
        if newest.as_ref().is_none_or(|(other, _)| *other < begun) {
            newest = Some((begun, file));
        }
    }
    Ok(newest.map(|(_, file)| file))
}
