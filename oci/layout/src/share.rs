//! One blob in two layouts: without a copy where the file system can, and never unchecked.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::str::FromStr;

use drydock_io::dir::Place;
use drydock_io::file::TempFile;
use drydock_io::lock::Identity;
use drydock_io::way::{self, Links};
use drydock_model::digest::Digest;
use rustix::fs::{AtFlags, CWD, statat};

use super::error::{IoContext as _, LayoutError};
use super::files::{BlobReader, hash};
use super::seen::Seen;

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

/// Puts a blob that was opened at `from` to `to`, and checks its digest on the way, unless that was `seen`. What `to` holds already
/// counts if it is the blob.
pub(super) fn share(
    source: BlobReader,
    from: &Path,
    to: &Place,
    digest: Digest,
    mode: LinkMode,
    seen: &Seen,
) -> Result<Shared, LayoutError> {
    let path = to.path();
    // Who asks for copies wants no file with two names.
    let will_do = |file: &fs::Metadata| is_ours(file) && (mode != LinkMode::Copy || file.nlink() == 1);
    if fs::symlink_metadata(path).is_ok_and(|file| will_do(&file))
        && let Some(size) = whole(path, digest, seen)?
    {
        return Ok(Shared { shared: size, copied: 0 });
    }
    let create = || TempFile::create_beside(to).at("create a file in", to.folder());
    let metadata = source.file().metadata().at("read", from)?;
    if matches!(mode, LinkMode::Auto | LinkMode::Reflink) {
        let mut clone = create()?;
        if rustix::fs::ioctl_ficlone(clone.file(), source.file()).is_ok() {
            check(source, from, digest, seen)?;
            clone.persist_at(to).at("write", path)?;
            return Ok(Shared { shared: metadata.len(), copied: 0 });
        }
    }
    let mut source = source;
    if matches!(mode, LinkMode::Auto | LinkMode::HardLink) && can_be_ours(&metadata) {
        source = check(source, from, digest, seen)?;
        match link_over(from, to, source.file()) {
            Ok(()) => return Ok(Shared { shared: metadata.len(), copied: 0 }),
            Err(_another_file_system_or_not_allowed) => source = source.rewound(),
        }
    }
    let mut copy = create()?;
    let mut failed_to_write = None;
    let found = hash(&mut source, |bytes| {
        copy.file().write_all(bytes).map_err(|error| {
            let kind = error.kind();
            failed_to_write = Some(error);
            kind.into()
        })
    });
    if let Some(error) = failed_to_write {
        return Err(error).at("write", path);
    }
    let found = found.at("read", from)?;
    if found != digest {
        return Err(LayoutError::Corrupt { path: from.to_owned(), found });
    }
    copy.persist_at(to).at("write", path)?;
    Ok(Shared { shared: 0, copied: metadata.len() })
}

/// The size of the blob at a path, if it is a file there and holds what it should.
pub(super) fn whole(path: &Path, digest: Digest, seen: &Seen) -> Result<Option<u64>, LayoutError> {
    let file = match fs::symlink_metadata(path) {
        Ok(file) if file.is_file() => file,
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("look at", path),
    };
    let blob = way::open_file(path).map(BlobReader::new).at("open", path)?;
    match check(blob, path, digest, seen) {
        Ok(_) => Ok(Some(file.len())),
        Err(LayoutError::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a file has the owner and the mode that this process gives to blobs.
fn is_ours(metadata: &fs::Metadata) -> bool {
    can_be_ours(metadata) && metadata.permissions().mode() & 0o7777 == 0o644
}

/// Whether a file has the owner that this process gives to blobs: then it can be given the mode too.
fn can_be_ours(metadata: &fs::Metadata) -> bool {
    metadata.is_file()
        && metadata.uid() == rustix::process::geteuid().as_raw()
        && metadata.gid() == rustix::process::getegid().as_raw()
}

fn check(mut blob: BlobReader, path: &Path, digest: Digest, seen: &Seen) -> Result<BlobReader, LayoutError> {
    if seen.knows_file(blob.file(), digest) {
        return Ok(blob);
    }
    let found = hash(&mut blob, |_| Ok(())).at("read", path)?;
    if found == digest { Ok(blob) } else { Err(LayoutError::Corrupt { path: path.to_owned(), found }) }
}

/// Makes `to` a second name of `from`, which is open as `file`. A second name shares owner and mode. What `to` named
/// before was not the blob, so nothing is lost between the steps.
fn link_over(from: &Path, to: &Place, file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if metadata.permissions().mode() & 0o7777 != 0o644 {
        // What has another name is not the layout's alone: a link may have led to any file or folder.
        let dir = way::open(CWD, from.parent().unwrap_or(Path::new("/")), Links::OfRoot, None)?;
        let here = statat(&dir, from.file_name().unwrap_or_default(), AtFlags::SYMLINK_NOFOLLOW)?;
        if metadata.nlink() != 1 || Identity::from(&here) != Identity::from(&metadata) {
            return Err(io::Error::other("the file has another name"));
        }
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    let is_it = || -> io::Result<bool> {
        let identity = Identity::from(&file.metadata()?);
        Ok(to.look()?.is_some_and(|found| Identity::from(&found) == identity))
    };
    match to.link(from) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if is_it()? {
                return Ok(());
            }
            to.remove()?;
            to.link(from)?;
        }
        result => result?,
    }
    // Between opening and linking, somebody may have put another file there.
    if is_it()? {
        Ok(())
    } else {
        to.remove()?;
        Err(io::Error::other("the file was replaced while it was linked"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{lchown, symlink};

    use drydock_io::dir::Dir;

    use super::*;

    fn share(from: &Path, to: &Path, digest: Digest, mode: LinkMode) -> Result<Shared, LayoutError> {
        let source = BlobReader::new(File::open(from).unwrap());
        let dir = Dir::open(to.parent().unwrap()).unwrap();
        let to = dir.place(to.file_name().unwrap());
        super::share(source, from, &to, digest, mode, &Seen::default())
    }

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
    fn a_file_of_another_mode_is_given_ours_and_linked() {
        let (_dir, from, to) = files();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o600)).unwrap();
        share(&from, &to, Digest::of(b"blob"), LinkMode::HardLink).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o644);
        assert_eq!(fs::metadata(&to).unwrap().ino(), fs::metadata(&from).unwrap().ino());
    }

    #[test]
    fn a_blob_is_brought_onto_itself() {
        for mode in [0o644, 0o600] {
            let (_dir, from, _) = files();
            fs::set_permissions(&from, fs::Permissions::from_mode(mode)).unwrap();
            share(&from, &from, Digest::of(b"blob"), LinkMode::HardLink).unwrap();
            assert_eq!(fs::read(&from).unwrap(), b"blob");
            assert_eq!(fs::metadata(&from).unwrap().mode() & 0o777, 0o644);
        }
    }

    #[test]
    fn a_symlink_is_read_and_not_linked() {
        let (dir, from, to) = files();
        let link = dir.path().join("link");
        symlink(&from, &link).unwrap();
        share(&link, &to, Digest::of(b"blob"), LinkMode::HardLink).unwrap();
        assert!(fs::symlink_metadata(&to).unwrap().is_file());
    }

    /// Who may plant names in a layout must not have modes changed elsewhere.
    #[test]
    fn the_mode_of_a_file_with_another_name_stays() {
        for plant in ["link", "hard link", "link to the folder"] {
            let (dir, from, to) = files();
            fs::set_permissions(&from, fs::Permissions::from_mode(0o4711)).unwrap();
            let mut planted = dir.path().join("planted");
            match plant {
                "link" => symlink(&from, &planted).unwrap(),
                "hard link" => fs::hard_link(&from, &planted).unwrap(),
                _ => {
                    symlink(dir.path(), &planted).unwrap();
                    // Root's would be followed.
                    if rustix::process::geteuid().is_root() {
                        lchown(&planted, Some(1234), None).unwrap();
                    }
                    planted = planted.join("from");
                }
            }
            let shared = share(&planted, &to, Digest::of(b"blob"), LinkMode::Auto).unwrap();
            assert_eq!(fs::metadata(&from).unwrap().mode() & 0o7777, 0o4711);
            assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o644);
            assert_eq!(shared.shared + shared.copied, 4);
        }
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
