//! The removal of what is of no use in a layout that nobody writes to: for who cleans a whole repository.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use drydock_io::file::TEMPORARY_PREFIX;
use drydock_io::lock::{Identity, Lock};
use drydock_io::read::look_at_link;
use drydock_model::digest::Digest;
use drydock_model::reference::{LayoutDir, LayoutPath};

use super::collect::{GRACE, changed, digest_of, in_use, list, remove_file};
use super::error::{IoContext as _, LayoutError};
use super::read::Layout;
use super::running::is_running;
use super::{blob_path, blobs_dir};

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
    let _lock = match Lock::try_acquire(layout) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(Swept::default())),
        Err(error) => return Err(error).at("lock", layout),
    };
    let blobs = blobs_dir(layout);
    let mut newest = SystemTime::UNIX_EPOCH;
    for dir in [layout, &layout.join("blobs"), &blobs] {
        match look_at_link(dir).at("look at", dir)? {
            Some(found) if found.is_dir() => newest = newest.max(changed(&found)),
            _ => return Ok(Some(Swept::default())),
        }
    }
    let index = match Layout::read_index(path) {
        Ok(index) => Some(index),
        Err(LayoutError::NotFound(_)) => None,
        Err(error) => return Err(error),
    };
    let mut swept = Swept::default();
    let mut candidates = Vec::new();
    for folder in [layout, &blobs] {
        for (name, file) in list(folder)? {
            if file.is_dir() {
                continue;
            }
            if name.starts_with(TEMPORARY_PREFIX) {
                swept.temporary.extend(Some(folder.join(name)).filter(|path| !is_running(path)));
                continue;
            }
            newest = newest.max(changed(&file));
            if folder == blobs
                && let Some(digest) = digest_of(&name)
            {
                candidates.push((digest, file));
            }
        }
    }
    let age = now.duration_since(newest).unwrap_or_default();
    if age > GRACE {
        let kept = in_use(layout, &index.iter().map(|index| &index.manifests).collect::<Vec<_>>())?;
        candidates.retain(|(digest, _)| !kept.contains(digest));
        swept.blobs = candidates
            .into_iter()
            .map(|(digest, file)| {
                use std::os::unix::fs::MetadataExt as _;
                Unused { digest, size: file.len(), file: Identity::from(&file), links: file.nlink() }
            })
            .collect();
        swept.folder = index.is_none();
    } else {
        swept.wait = Some(GRACE.saturating_sub(age));
    }
    if !dry_run {
        let unused = swept.blobs.iter().map(|blob| blob_path(layout, &blob.digest));
        for file in swept.temporary.iter().cloned().chain(unused) {
            remove_file(&file)?;
        }
        swept.folder = swept.folder && remove_folder(dir.path(), layout)?;
    }
    Ok(Some(swept))
}

/// Removes a layout's folder unless there is something else in it.
fn remove_folder(root: &Path, layout: &Path) -> Result<bool, LayoutError> {
    remove_file(&layout.join("oci-layout"))?;
    let own = [blobs_dir(layout), layout.join("blobs")];
    let above = layout.ancestors().take_while(|dir| dir.starts_with(root) && *dir != root);
    for dir in own.iter().map(PathBuf::as_path).chain(above) {
        match fs::remove_dir(dir) {
            Ok(()) => {}
            // Who removes the last name in a folder beside this one removes that, too.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => break,
            Err(error) => return Err(error).at("remove", dir),
        }
    }
    Ok(!layout.exists())
}
