//! The removal of what is of no use in a layout that nobody writes to: for who cleans a whole repository.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use drydock_io::dir::{Dir, Place};
use drydock_io::lock::{Identity, Lock};
use drydock_model::digest::Digest;
use drydock_model::reference::{LayoutDir, LayoutPath};
use rustix::fs::{FileType, Stat, fstat};

use super::collect::{GRACE, changed, digest_of, in_use, is, list, remove_file, size};
use super::error::{IoContext as _, LayoutError};
use super::folders::open_layout_dir;
use super::read::Layout;
use super::running::is_left;

/// What is of no use in a layout, and was removed unless that was not wanted.
#[derive(Debug, Default)]
pub struct Swept {
    /// Files that killed processes left.
    pub temporary: Vec<PathBuf>,
    /// Blobs that nothing leads to.
    pub blobs: Vec<Unused>,
    /// The whole folder goes: nothing is left in it.
    pub folder: bool,
    /// For so long nothing but temporary files goes: something was changed within [`GRACE`], and whoever read or wrote
    /// it then may still be at it.
    pub wait: Option<Duration>,
}

/// A blob that nothing leads to.
#[derive(Debug)]
pub struct Unused {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Which file it is.
    pub file: Identity,
    /// How many names that file has, in this and in other layouts.
    pub links: u64,
}

/// Removes what is of no use in a layout: temporary files of killed processes; blobs that neither the index nor what
/// refers to it leads to, once nothing in the layout has been changed for [`GRACE`]; and then, if there is no index, the
/// layout's folder, with those above it that are empty. With `dry_run` it only says what that would be.
///
/// None: somebody is writing to the layout. Blobs behind a symlink are not the layout's own, and left alone. A folder that
/// somebody else has removed meanwhile is in order.
pub fn sweep(dir: &LayoutDir, path: &LayoutPath, dry_run: bool) -> Result<Option<Swept>, LayoutError> {
    sweep_at(dir, path, dry_run, SystemTime::now())
}

pub(super) fn sweep_at(
    dir: &LayoutDir,
    path: &LayoutPath,
    dry_run: bool,
    now: SystemTime,
) -> Result<Option<Swept>, LayoutError> {
    let layout = path.path();
    let lock = match Lock::try_acquire(layout) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(Swept::default())),
        Err(error) => return Err(error).at("lock", layout),
    };
    let Some(dirs) = own_dirs(dir, layout)? else { return Ok(Some(Swept::default())) };
    let [.., own, _, blobs] = &*dirs else { return Ok(Some(Swept::default())) };
    if own.identity().at("look at", layout)? != lock.identity() {
        // Somebody has put another folder there.
        return Ok(None);
    }
    let mut newest = SystemTime::UNIX_EPOCH;
    for dir in &dirs[dirs.len() - 3..] {
        newest = newest.max(changed(&fstat(dir).map_err(Into::into).at("look at", dir.path())?));
    }
    let index = match Layout::read_index(path) {
        Ok(index) => Some(index),
        Err(LayoutError::NotFound(_)) => None,
        Err(error) => return Err(error),
    };
    let mut swept = Swept::default();
    let mut candidates = Vec::new();
    let mut temporary = Vec::new();
    for (folder, is_blobs) in [(own, false), (blobs, true)] {
        for (name, file) in list(folder)? {
            if is(FileType::Directory, &file) {
                continue;
            }
            let place = folder.place(&name);
            if is_left(&place) {
                temporary.push(place);
                continue;
            }
            newest = newest.max(changed(&file));
            if let Some(digest) = digest_of(&name).filter(|_| is_blobs) {
                candidates.push((digest, file));
            }
        }
    }
    swept.temporary = temporary.iter().map(|place| place.path().to_owned()).collect();
    let age = now.duration_since(newest).unwrap_or_default();
    if age > GRACE {
        let kept = in_use(layout, &index.iter().map(|index| &index.manifests).collect::<Vec<_>>())?;
        candidates.retain(|(digest, _)| !kept.contains(digest));
        #[expect(clippy::useless_conversion, reason = "other machines count links with 32 bits")]
        let unused = |(digest, file): (Digest, Stat)| Unused {
            digest,
            size: size(&file),
            file: Identity::from(&file),
            links: file.st_nlink.into(),
        };
        swept.blobs = candidates.into_iter().map(unused).collect();
        swept.folder = index.is_none();
    } else {
        swept.wait = Some(GRACE.saturating_sub(age));
    }
    if !dry_run {
        let unused = swept.blobs.iter().map(|blob| blobs.place(blob.digest.hex()));
        for file in temporary.into_iter().chain(unused) {
            remove_file(&file)?;
        }
        swept.folder = swept.folder && remove_folder(own, &dirs)?;
    }
    Ok(Some(swept))
}

/// The folders from the layout directory down to that of the layout's blobs; none if the layout itself or one of the last is
/// behind a link, or gone.
fn own_dirs(dir: &LayoutDir, layout: &Path) -> Result<Option<Vec<Dir>>, LayoutError> {
    let mut dirs = match open_layout_dir(dir.path(), layout) {
        Err(error) if is_gone(&error) => return Ok(None),
        dirs => dirs?,
    };
    let name = layout.file_name().unwrap_or_default();
    dirs.pop();
    for name in [name, OsStr::new("blobs"), OsStr::new("sha256")] {
        let Some(above) = dirs.last() else { return Ok(None) };
        match above.enter(name).at("open", above.place(name).path()) {
            Err(error) if is_gone(&error) => return Ok(None),
            entered => dirs.push(entered?),
        }
    }
    Ok(Some(dirs))
}

/// Whether a folder is not there, or something else is in its place.
fn is_gone(error: &LayoutError) -> bool {
    let gone = [ErrorKind::NotFound, ErrorKind::NotADirectory];
    matches!(error, LayoutError::Io { source, .. } if gone.contains(&source.kind()))
}

/// Removes a name that is a link to another one; `false` if it is none.
pub fn remove_link(dir: &LayoutDir, path: &LayoutPath) -> Result<bool, LayoutError> {
    let path = path.path();
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Ok(false) };
    let above = match open_layout_dir(dir.path(), above) {
        Err(error) if is_gone(&error) => return Ok(false),
        dirs => dirs?.pop(),
    };
    let Some(link) = above.map(|above| above.place(name)) else { return Ok(false) };
    let is_link = link.look().at("look at", path)?.is_some_and(|found| is(FileType::Symlink, &found));
    if is_link {
        link.remove().at("remove", path)?;
    }
    Ok(is_link)
}

/// Removes a layout's folder unless there is something else in it, and those above it that are empty. The first of `dirs`, the
/// layout directory, stays.
fn remove_folder(layout: &Dir, dirs: &[Dir]) -> Result<bool, LayoutError> {
    remove_file(&layout.place("oci-layout"))?;
    let places = dirs.windows(2).filter_map(|pair| Some(pair[0].place(pair[1].path().file_name()?)));
    for place in places.collect::<Vec<Place>>().into_iter().rev() {
        match place.remove_dir() {
            Ok(()) => {}
            // Who removes the last name in a folder beside this one removes that, too.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => break,
            Err(error) => return Err(error).at("remove", place.path()),
        }
    }
    Ok(!layout.path().exists())
}
