//! Folders that are open, and names in them: what is done there is done in that folder, wherever its path leads meanwhile.
//!
//! Who may rename folders can put a link in the place of one between a look at a path and its use. So whoever writes where
//! others can write opens a folder once, and goes on from there.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, fchmod, fstat, linkat, mkdirat, openat, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;

use crate::file::TempFile;
use crate::lock::Identity;
use crate::read;

/// A folder that is open.
#[derive(Debug, Clone)]
pub struct Dir {
    handle: Arc<OwnedFd>,
    path: PathBuf,
}

/// A name in a folder, whether or not anything has it.
#[derive(Debug, Clone)]
pub struct Place {
    /// None: wherever the path leads each time.
    dir: Option<Arc<OwnedFd>>,
    /// In an open folder only its end counts; the rest is for messages.
    path: PathBuf,
}

impl Dir {
    /// Opens the folder at a path; links are followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Self::open_at(CWD, path, OFlags::empty(), path.to_owned())
    }

    fn open_at(at: impl AsFd, name: &Path, flags: OFlags, path: PathBuf) -> io::Result<Self> {
        let flags = flags | OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { handle: Arc::new(openat(at, name, flags, Mode::empty())?), path })
    }

    /// Opens a folder in it. A link in its place is an error ([`io::ErrorKind::NotADirectory`]).
    pub fn enter(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = Path::new(name.as_ref());
        Self::open_at(self, name, OFlags::NOFOLLOW, self.path.join(name))
    }

    /// The same, where a link may lead to a folder in `root`, at any depth. None: it leads out of that.
    pub fn enter_within(&self, name: impl AsRef<OsStr>, root: &Self) -> io::Result<Option<Self>> {
        let name = Path::new(name.as_ref());
        match self.enter(name) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
            entered => return entered.map(Some),
        }
        let entered = Self::open_at(self, name, OFlags::empty(), self.path.join(name))?;
        Ok(entered.is_within(root)?.then_some(entered))
    }

    fn is_within(&self, root: &Self) -> io::Result<bool> {
        let root = root.identity()?;
        let mut dir = self.clone();
        loop {
            let here = dir.identity()?;
            dir = dir.enter("..")?;
            if here == root || dir.identity()? == here {
                return Ok(here == root);
            }
        }
    }

    /// Which folder it is.
    pub fn identity(&self) -> io::Result<Identity> {
        Ok(Identity::from(&fstat(self)?))
    }

    /// Makes a folder in it that only its owner can use until [`Dir::set_mode`].
    pub fn make(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(mkdirat(self, name.as_ref(), Mode::RWXU)?)
    }

    /// Sets its mode, whatever the umask.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fchmod(self.readable()?, Mode::from_raw_mode(mode))?)
    }

    /// The folder, opened for listing and for locks.
    pub fn readable(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat(self, ".", flags, Mode::empty())?)
    }

    /// The names in it, in no order.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let entries = rustix::fs::Dir::new(self.readable()?)?;
        let name = |entry: rustix::fs::DirEntry| OsString::from_vec(entry.file_name().to_bytes().to_vec());
        let names = entries.map(|entry| Ok(name(entry?))).collect::<io::Result<Vec<_>>>()?;
        Ok(names.into_iter().filter(|name| name != "." && name != "..").collect())
    }

    /// Waits until its names are on the disk.
    pub fn sync(&self) -> io::Result<()> {
        File::from(self.readable()?).sync_all()
    }

    /// Its path when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name in it.
    pub fn place(&self, name: impl AsRef<OsStr>) -> Place {
        Place { dir: Some(Arc::clone(&self.handle)), path: self.path.join(name.as_ref()) }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl Place {
    /// The name at the end of a path, in a folder that is not open: where nobody else can exchange folders.
    pub fn by_path(path: &Path) -> Self {
        Self { dir: None, path: path.to_owned() }
    }

    /// Where the name is looked up, and how it is called there.
    fn at(&self) -> (BorrowedFd<'_>, &OsStr) {
        match &self.dir {
            Some(dir) => (dir.as_fd(), self.name()),
            None => (CWD, self.path.as_os_str()),
        }
    }

    /// Its path when the folder was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of its folder.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Another name in the same folder.
    pub(crate) fn beside(&self, name: &str) -> Self {
        Self { dir: self.dir.clone(), path: self.path.with_file_name(name) }
    }

    /// The name.
    pub fn name(&self) -> &OsStr {
        self.path.file_name().expect("a name was joined to the path")
    }

    /// What has the name, links not followed; none if nothing has.
    pub fn look(&self) -> io::Result<Option<Stat>> {
        let (dir, name) = self.at();
        match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            found => Ok(Some(found?)),
        }
    }

    /// Whether a link has the name.
    pub fn is_link(&self) -> io::Result<bool> {
        let found = self.look()?;
        Ok(found.is_some_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Symlink))
    }

    /// Opens the regular file of this name for reading; no link.
    pub fn open(&self) -> io::Result<File> {
        let (dir, name) = self.at();
        read::open_own_at(dir, Path::new(name))
    }

    /// Puts a file there in one step.
    pub fn write(&self, bytes: &[u8], mode: u32) -> io::Result<()> {
        let mut temporary = TempFile::create(self, mode)?;
        temporary.file().write_all(bytes)?;
        temporary.persist_at(self)
    }

    /// Makes a file there, which is open for reading and writing; nothing may have the name.
    pub fn create_new(&self, mode: u32, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let (dir, name) = self.at();
        Ok(openat(dir, name, flags, Mode::from_raw_mode(mode))?.into())
    }

    /// Gives the file at a path this name, too; nothing may have it.
    pub fn link(&self, from: &Path) -> io::Result<()> {
        let (dir, name) = self.at();
        Ok(linkat(CWD, from, dir, name, AtFlags::empty())?)
    }

    /// Gives what has this name another one, in place of whatever has that.
    pub fn rename(&self, to: &Self) -> io::Result<()> {
        let ((dir, name), (to_dir, to_name)) = (self.at(), to.at());
        Ok(renameat(dir, name, to_dir, to_name)?)
    }

    /// Removes the file.
    pub fn remove(&self) -> io::Result<()> {
        let (dir, name) = self.at();
        Ok(unlinkat(dir, name, AtFlags::empty())?)
    }

    /// Removes the folder, which must be empty.
    pub fn remove_dir(&self) -> io::Result<()> {
        let (dir, name) = self.at();
        Ok(unlinkat(dir, name, AtFlags::REMOVEDIR)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_done_in_a_folder_is_done_there_wherever_its_path_leads() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        fs::create_dir_all(path("layout/blobs")).unwrap();
        fs::create_dir(path("treasure")).unwrap();
        for name in ["layout/blobs/old", "treasure/old", "treasure/new"] {
            fs::write(path(name), name).unwrap();
        }
        let blobs = Dir::open(&path("layout")).unwrap().enter("blobs").unwrap();
        let unfinished = TempFile::create_beside(&blobs.place("layer")).unwrap();
        fs::rename(path("layout/blobs"), path("blobs")).unwrap();
        symlink("../treasure", path("layout/blobs")).unwrap();
        blobs.place("new").write(b"new", 0o644).unwrap();
        blobs.place("old").remove().unwrap();
        blobs.make("folder").unwrap();
        blobs.enter("folder").unwrap().set_mode(0o755).unwrap();
        blobs.sync().unwrap();
        assert!(blobs.place("old").look().unwrap().is_none());
        unfinished.persist_at(&blobs.place("unfinished")).unwrap();
        drop(TempFile::create_beside(&blobs.place("gone")).unwrap());
        assert_eq!(fs::read(path("blobs/new")).unwrap(), b"new");
        let names = |name| {
            let mut names: Vec<_> =
                fs::read_dir(path(name)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names("blobs"), ["folder", "new", "unfinished"]);
        assert_eq!(names("treasure"), ["new", "old"]);
        assert_eq!(fs::read(path("treasure/new")).unwrap(), b"treasure/new");
    }

    #[test]
    fn links_are_followed_within_a_root_only() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        fs::create_dir_all(path("root/a/b")).unwrap();
        fs::write(path("root/file"), "").unwrap();
        for (name, to) in [("out", ".."), ("in", "a/b"), ("self", "."), ("none", "missing")] {
            symlink(to, path("root").join(name)).unwrap();
        }
        symlink(path("root/a"), path("root/absolute")).unwrap();
        let root = Dir::open(&path("root")).unwrap();
        for (name, want) in [("a", Ok(true)), ("in", Ok(true)), ("self", Ok(true)), ("absolute", Ok(true))]
            .into_iter()
            .chain([("out", Ok(false)), ("none", Err(io::ErrorKind::NotFound))])
            .chain([("file", Err(io::ErrorKind::NotADirectory))])
        {
            let entered = root.enter_within(name, &root).map(|entered| entered.is_some());
            assert_eq!(entered.map_err(|error| error.kind()), want, "{name}");
            let is_link = path("root").join(name).is_symlink();
            assert!(
                !is_link || root.enter(name).is_err_and(|error| error.kind() == io::ErrorKind::NotADirectory)
            );
        }
    }
}
