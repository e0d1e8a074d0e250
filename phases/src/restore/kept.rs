//! Layers that a platform has kept as an earlier build left them, so that they need not be extracted.
//!
//! A platform may put the folders of an earlier build's cached layers into `<layers>/.kept`, each called by its diff ID in the cache
//! (the 64 digits). One takes its place among the layers if nobody could tell it from a fresh extraction, but by times:
//!
//! - the cache's tar is known to have that diff ID, and the tree to make that very tar, by [the index](crate::layer_index): neither
//!   has changed since it was read;
//! - there is nothing in the tree that a tar does not bring back, or not to this user ([`is_plain`]); the index knows that of trees that were
//!   given back before.
//!
//! All others are removed, and extracted as ever. So it does not matter who has had the folder meanwhile.

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use drydock_model::digest::DiffId;
use drydock_spec::cache::KEPT_LAYERS;
use drydock_tar::{Found, Owner, Walk, remove_all};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, llistxattr, statat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use crate::cache::Cache;
use crate::layer_index::LayerIndex;
use crate::layer_tar::{DirLayer, LayerSource as _, Outline};

/// The folder with what was kept; it need not be there.
pub(super) struct Kept(PathBuf);

impl Kept {
    /// That of a layers directory.
    pub(super) fn of(layers_dir: &Path) -> Self {
        Self(layers_dir.join(KEPT_LAYERS))
    }

    /// Puts a layer's folder to `path`, and gives its outline; none if it has to be extracted, whatever is there then.
    pub(super) fn give_back(
        &self,
        (diff_id, path): (&DiffId, &Path),
        owner: Owner,
        cache: &dyn Cache,
        index: &LayerIndex,
    ) -> Option<Outline> {
        let knows_tar = || {
            let print = cache.tar(diff_id).ok().and_then(|tar| tar.print);
            print.is_some_and(|print| index.seen().knows(&print, diff_id.of_plain_blob()))
        };
        // A rename leaves the times of all that is in the folder.
        let from = self.0.join(diff_id.hex());
        if !from.is_dir() || !knows_tar() || std::fs::rename(from, path).is_err() {
            return None;
        }
        let outline = DirLayer::new(path, owner).look().ok().flatten()?;
        let is_given =
            index.knows(&outline, diff_id) && is_plain(path, &outline, index).is_ok_and(|is_plain| is_plain);
        is_given.then_some(outline)
    }

    /// Removes what was not given back: nobody after the restorer is to see it.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        remove_all(&self.0).with_context(|| format!("failed to remove `{}`", self.0.display()))
    }
}

/// Whether a tree has only what extraction makes of its tar: folders, files, symlinks and FIFOs of this user; no file with two
/// names, no extended attributes and access lists, no modes that are left out or put off.
fn is_plain(path: &Path, outline: &Outline, index: &LayerIndex) -> anyhow::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root: OwnedFd = rustix::fs::open(path, flags, Mode::empty())?;
    // A rename changes the root's times, so that nothing is known of it.
    if !is_entry_plain(&root, b"", FileType::Directory)? {
        return Ok(false);
    }
    if index.is_plain(outline) {
        return Ok(true);
    }
    let mut walk = Walk::new(path, root)?;
    while let Some(Found { dir, path, leaf, file_type }) = walk.find_next()? {
        if path.len() + leaf.len() >= LONGEST || !is_entry_plain(dir, leaf, file_type)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Bytes of a path that are extracted in any case.
const LONGEST: usize = 4096;

fn is_entry_plain(dir: impl std::os::fd::AsFd, leaf: &[u8], file_type: FileType) -> anyhow::Result<bool> {
    let dir: BorrowedFd<'_> = dir.as_fd();
    let stat = if leaf.is_empty() { fstat(dir)? } else { statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW)? };
    let mode = Mode::from_raw_mode(stat.st_mode);
    let special = Mode::SUID | Mode::SGID | Mode::SVTX;
    let is_of_its_kind = match file_type {
        FileType::Directory => mode.contains(Mode::RWXU),
        FileType::RegularFile | FileType::Symlink | FileType::Fifo => stat.st_nlink == 1,
        _ => false,
    };
    let is_own = stat.st_uid == geteuid().as_raw() && stat.st_gid == getegid().as_raw();
    if !is_of_its_kind || !is_own || mode.intersects(special) {
        return Ok(false);
    }
    // There is no call that takes a folder's handle and a name.
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(if leaf.is_empty() { b"." } else { leaf });
    let mut names = [0; 64];
    match llistxattr(std::ffi::OsStr::from_bytes(&path), &mut names) {
        // The system has labelled it, and would do so again.
        Ok(length) => Ok(matches!(&names[..length], b"" | b"security.selinux\0")),
        Err(Errno::NOTSUP) => Ok(true),
        Err(Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
