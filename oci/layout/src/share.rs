//! One blob in two layouts: without a copy where the file system can, and never unchecked.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::str::FromStr;

use super::error::{IoContext as _, LayoutError};
use super::read::hash;
use drydock_io::file::TempFile;
use drydock_model::digest::Digest;

/// How a blob may come from one layout into another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LinkMode {
    /// The first of the others that works.
    #[default]
    Auto,
    /// As a clone that shares its blocks; otherwise as a copy.
    Reflink,
    /// As a second name of one file; otherwise as a copy.
    HardLink,
    /// As a file of its own.
    Copy,
}

impl FromStr for LinkMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "reflink" => Ok(Self::Reflink),
            "hardlink" => Ok(Self::HardLink),
            "copy" => Ok(Self::Copy),
            other => Err(format!("`{other}` is none of auto, reflink, hardlink, copy")),
        }
    }
}

/// How many bytes came how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shared {
    /// Without new blocks: already there, as a clone, or as a second name.
    pub shared: u64,
    /// As a copy.
    pub copied: u64,
}

impl std::ops::AddAssign for Shared {
    fn add_assign(&mut self, other: Self) {
        self.shared += other.shared;
        self.copied += other.copied;
    }
}

/// Puts the blob at `from` to `to`, after its digest was checked. What `to` holds already counts if it is whole.
pub(super) fn share(from: &Path, to: &Path, digest: Digest, mode: LinkMode) -> Result<Shared, LayoutError> {
    if let Ok(metadata) = fs::symlink_metadata(to)
        && is_ours(&metadata)
        && hash(&mut File::open(to).at("open", to)?).at("read", to)? == digest
    {
        return Ok(Shared { shared: metadata.len(), copied: 0 });
    }
    let metadata = fs::symlink_metadata(from).at("read", from)?;
    let mut source = File::open(from).at("open", from)?;
    if matches!(mode, LinkMode::Auto | LinkMode::Reflink) {
        let dir = to.parent().expect("a blob lies in a folder");
        let mut clone = TempFile::create_in(dir).at("create a file in", dir)?;
        if rustix::fs::ioctl_ficlone(clone.file(), &source).is_ok() {
            check(clone.file(), from, digest)?;
            clone.persist(to).at("rename a file to", to)?;
            return Ok(Shared { shared: metadata.len(), copied: 0 });
        }
    }
    // A second name shares owner and mode too: only a file that is just as it would be made here will do.
    if matches!(mode, LinkMode::Auto | LinkMode::HardLink) && is_ours(&metadata) {
        check(&mut source, from, digest)?;
        match link_over(from, to) {
            Ok(()) => return Ok(Shared { shared: metadata.len(), copied: 0 }),
            Err(_another_file_system_or_not_allowed) => io::Seek::rewind(&mut source).at("read", from)?,
        }
    }
    let dir = to.parent().expect("a blob lies in a folder");
    let mut copy = TempFile::create_in(dir).at("create a file in", dir)?;
    let size = io::copy(&mut source, copy.file()).at("copy", from)?;
    io::Seek::rewind(copy.file()).at("read", to)?;
    check(copy.file(), from, digest)?;
    copy.persist(to).at("rename a file to", to)?;
    Ok(Shared { shared: 0, copied: size })
}

/// Whether a file has the owner and the mode that this process gives to blobs.
pub(super) fn is_ours(metadata: &fs::Metadata) -> bool {
    metadata.is_file()
        && metadata.permissions().mode() & 0o7777 == 0o644
        && metadata.uid() == rustix::process::geteuid().as_raw()
        && metadata.gid() == rustix::process::getegid().as_raw()
}

fn check(file: &mut File, path: &Path, digest: Digest) -> Result<(), LayoutError> {
    let found = hash(file).at("read", path)?;
    if found == digest { Ok(()) } else { Err(LayoutError::Corrupt { path: path.to_owned(), found }) }
}

/// Makes `to` a second name of `from`. What `to` named before was not the blob, so nothing is lost between the steps.
fn link_over(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(to)?;
            fs::hard_link(from, to)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, b"blob").unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o644)).unwrap();
        (dir, from, to)
    }

    #[test]
    fn every_mode_brings_the_whole_blob() {
        for mode in ["auto", "reflink", "hardlink", "copy"] {
            let (_dir, from, to) = files();
            let shared = share(&from, &to, Digest::of(b"blob"), mode.parse().unwrap()).unwrap();
            assert_eq!(shared.shared + shared.copied, 4, "{mode}");
            assert_eq!(fs::read(&to).unwrap(), b"blob");
            assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o644);
            if mode == "copy" {
                assert_ne!(fs::metadata(&to).unwrap().ino(), fs::metadata(&from).unwrap().ino());
            }
        }
        assert!("symlink".parse::<LinkMode>().is_err());
    }

    #[test]
    fn a_file_of_another_mode_is_not_linked() {
        let (_dir, from, to) = files();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o600)).unwrap();
        share(&from, &to, Digest::of(b"blob"), LinkMode::HardLink).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o644);
        assert_eq!(fs::metadata(&from).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_corrupt_source_is_refused_and_a_corrupt_target_replaced() {
        let (_dir, from, to) = files();
        for mode in [LinkMode::Auto, LinkMode::Copy] {
            assert!(matches!(
                share(&from, &to, Digest::of(b"other"), mode),
                Err(LayoutError::Corrupt { .. })
            ));
            assert!(!to.exists());
        }
        fs::write(&to, b"torn").unwrap();
        share(&from, &to, Digest::of(b"blob"), LinkMode::Auto).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"blob");
    }
}
