//! Where a layer's tree lies on disk, and what it is called in the archive.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{self, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use drydock_tar::{Owner, TarError};

use super::LeftOut;
use crate::path::clean;

/// A directory to archive under its own absolute name.
#[derive(Debug)]
pub(super) struct LayerRoot {
    /// On disk.
    pub(super) dir: PathBuf,
    /// In the archive.
    pub(super) name: Vec<u8>,
    /// The directories above it but `/`, the topmost first.
    pub(super) parents: Vec<Parent>,
    /// What was found below it, and cannot be archived.
    pub(super) left_out: LeftOut,
}

/// A directory above: it enters the archive as it is, not with the layer's owner.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) name: Vec<u8>,
    pub(super) mode: u32,
    pub(super) owner: Owner,
}

impl LayerRoot {
    /// Of `dir`, as it and its parents are on disk now.
    pub(super) fn on_disk(dir: &Path) -> Result<Self, TarError> {
        let dir = clean(&path::absolute(dir).map_err(TarError::read("find", dir))?);
        let mut parents = Vec::new();
        for parent in dir.ancestors().skip(1).filter(|parent| parent.parent().is_some()) {
            let metadata = fs::metadata(parent).map_err(TarError::read("look up", parent))?;
            parents.push(Parent {
                name: parent.as_os_str().as_bytes().to_vec(),
                mode: metadata.mode() & 0o7777,
                owner: Owner { uid: metadata.uid(), gid: metadata.gid() },
            });
        }
        parents.reverse();
        let name = dir.clone().into_os_string().into_vec();
        Ok(Self { name, dir, parents, left_out: LeftOut::default() })
    }

    /// Opens it, for listing; none if it is something else than a directory, for example a symlink.
    pub(super) fn open(&self) -> Result<Option<OwnedFd>, TarError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(&self.dir, flags, Mode::empty()) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(TarError::read("open", &self.dir)(error)),
        }
    }

    /// The directory `leaf` in it, as if it were a layer of its own.
    pub(super) fn below(&self, leaf: &[u8]) -> Self {
        let slash: &[u8] = if self.name.ends_with(b"/") { b"" } else { b"/" };
        let name = [&self.name, slash, leaf].concat();
        Self { dir: self.join(leaf), name, parents: Vec::new(), left_out: self.left_out.clone() }
    }

    /// On disk, what is called `path` below it.
    pub(super) fn join(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() { self.dir.clone() } else { self.dir.join(OsStr::from_bytes(path)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_all_but_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = LayerRoot::on_disk(&dir.path().join("missing/../x")).unwrap();
        let names: Vec<_> = root.parents.iter().map(|parent| OsStr::from_bytes(&parent.name)).collect();
        let mut expected: Vec<_> = dir.path().ancestors().map(Path::as_os_str).collect();
        expected.pop();
        expected.reverse();
        assert_eq!(names, expected);
        assert_eq!(root.dir, dir.path().join("x"));
    }
}
