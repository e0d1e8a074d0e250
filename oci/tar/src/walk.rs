//! All that is in a directory: each directory before what is in it, each directory's entries in the order of their names'
//! bytes.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, RawDir, statat};
use rustix::io::Errno;

use crate::ahead::{Origin, ask_for};
use crate::error::TarError;
use crate::trail::Trail;

/// Room for some hundred entries: most directories take one system call, and one that says that there is no more.
const BUFFER: usize = 32 << 10;
/// So many files are asked for ahead of their turn, and after so many that were in memory no more are.
const AHEAD: usize = 64;

/// A walk under way. However deep the tree is, this is a list of open directories, not a recursion.
#[derive(Debug)]
pub struct Walk<'p> {
    /// Where it began, for errors.
    root: &'p Path,
    trail: Trail,
    /// What is still to come in the current directory and those above it; empty at the end.
    open: Vec<Listing>,
    leaf: Vec<u8>,
    lister: Lister,
    /// So many files must be found in memory before no more are asked for.
    doubts: usize,
}

/// What a walk found next.
#[derive(Debug)]
pub struct Found<'w> {
    /// The directory that holds it; a directory is open itself.
    pub dir: BorrowedFd<'w>,
    /// That directory's path from the walk's beginning: names joined with slashes, empty for the directory where it began.
    pub path: &'w [u8],
    /// Its name in `dir`; empty for a directory that was entered, which is `dir` itself.
    pub leaf: &'w [u8],
    /// What it was when `dir` was listed.
    pub file_type: FileType,
}

/// Whether a directory is entered: told of the directory that holds it, of that one's path and of its name.
pub type Enters<'a> = dyn FnMut(BorrowedFd<'_>, &[u8], &[u8]) -> bool + 'a;

impl<'p> Walk<'p> {
    /// Through the directory at `path`, which is open as `root`. It is not found itself.
    pub fn new(path: &'p Path, root: OwnedFd) -> Result<Self, TarError> {
        let mut lister = Lister::default();
        let listing = lister.list(root.as_fd()).map_err(TarError::read("list", path))?;
        let (trail, open) = (Trail::listing(root), vec![listing]);
        Ok(Self { root: path, trail, open, leaf: Vec::new(), lister, doubts: 0 })
    }

    /// Says that files to come are probably not in memory.
    pub fn ask_ahead(&mut self) {
        self.doubts = AHEAD;
    }

    /// Goes on by one; none at the end.
    pub fn find_next(&mut self) -> Result<Option<Found<'_>>, TarError> {
        self.find_next_where(&mut |_, _, _| true)
    }

    /// The same, but only those directories are entered of which `enters` says so. One that is not is found like a file.
    pub fn find_next_where(&mut self, enters: &mut Enters<'_>) -> Result<Option<Found<'_>>, TarError> {
        let file_type = loop {
            let Some(listing) = self.open.last_mut() else { return Ok(None) };
            // If the directory cannot be opened again, that is an error below.
            if self.doubts > 0
                && let Ok((dir, _)) = self.trail.current()
            {
                self.doubts = listing.ask_ahead(dir, self.doubts);
            }
            if let Some((leaf, file_type)) = listing.next() {
                self.leaf.clear();
                self.leaf.extend_from_slice(leaf);
                break file_type;
            }
            self.trail.leave();
            self.lister.recycle(self.open.pop());
        };
        if file_type == FileType::Directory {
            let is_entered = match self.trail.current() {
                Ok((dir, path)) => enters(dir, path, &self.leaf),
                Err(error) => return Err(TarError::read("open again what is below", self.root)(error)),
            };
            if is_entered {
                self.enter()?;
                self.leaf.clear();
            }
        }
        let (dir, path) = match self.trail.current() {
            Ok(current) => current,
            Err(error) => return Err(TarError::read("open again what is below", self.root)(error)),
        };
        Ok(Some(Found { dir, path, leaf: &self.leaf, file_type }))
    }

    fn enter(&mut self) -> Result<(), TarError> {
        match self.trail.enter(&self.leaf) {
            Ok(()) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Err(TarError::Changed(self.current().join(self.leaf())));
            }
            Err(error) => return Err(TarError::read("open", &self.current().join(self.leaf()))(error)),
        }
        let Self { trail, lister, .. } = self;
        let listing = trail.current().and_then(|(dir, _)| lister.list(dir));
        self.open.push(listing.map_err(|error| TarError::read("list", &self.current())(error))?);
        Ok(())
    }

    /// The path of the directory that the walk is in.
    fn current(&self) -> PathBuf {
        self.root.join(OsStr::from_bytes(self.trail.path()))
    }

    fn leaf(&self) -> &OsStr {
        OsStr::from_bytes(&self.leaf)
    }
}

/// Lists directories, and keeps its memory for the next.
#[derive(Debug, Default)]
pub(crate) struct Lister {
    buffer: Vec<u8>,
    spare: Vec<Listing>,
}

/// Lists `dir` alone, which must have been opened for reading and not been listed yet.
pub fn list(dir: BorrowedFd<'_>) -> rustix::io::Result<Listing> {
    Lister::default().list(dir)
}

/// The entries of one directory.
#[derive(Debug, Default)]
pub struct Listing {
    /// All names, one after the other.
    names: Vec<u8>,
    entries: Vec<Entry>,
    next: usize,
    /// Up to here they were asked for.
    asked: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: usize,
    end: usize,
    file_type: FileType,
}

impl Lister {
    /// Lists `dir`, which must have been opened for reading and not been listed yet.
    pub(crate) fn list(&mut self, dir: BorrowedFd<'_>) -> rustix::io::Result<Listing> {
        let Listing { mut names, mut entries, .. } = self.spare.pop().unwrap_or_default();
        names.clear();
        entries.clear();
        self.buffer.clear();
        self.buffer.reserve(BUFFER);
        let mut raw = RawDir::new(dir.as_fd(), self.buffer.spare_capacity_mut());
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let file_type = match entry.file_type() {
                // Some file systems don't say.
                FileType::Unknown => {
                    FileType::from_raw_mode(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
                }
                known => known,
            };
            let start = names.len();
            names.extend_from_slice(name.to_bytes());
            entries.push(Entry { start, end: names.len(), file_type });
        }
        entries.sort_unstable_by(|a, b| names[a.start..a.end].cmp(&names[b.start..b.end]));
        Ok(Listing { names, entries, next: 0, asked: 0 })
    }

    /// Takes a listing back that is not needed any more.
    pub(crate) fn recycle(&mut self, listing: Option<Listing>) {
        self.spare.extend(listing);
    }
}

impl Listing {
    /// Names in the order of their bytes, and what they were when the directory was listed.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], FileType)> {
        self.entries.iter().map(|entry| (&self.names[entry.start..entry.end], entry.file_type))
    }

    /// Asks for the files that are next in the directory, as long as there are doubts; returns what is left of them.
    fn ask_ahead(&mut self, dir: BorrowedFd<'_>, mut doubts: usize) -> usize {
        self.asked = self.asked.max(self.next);
        let until = self.entries.len().min(self.next + AHEAD);
        while self.asked < until && doubts > 0 {
            let entry = self.entries[self.asked];
            self.asked += 1;
            if entry.file_type == FileType::RegularFile {
                doubts = match ask_for(dir, &self.names[entry.start..entry.end]) {
                    Origin::Disk => AHEAD,
                    Origin::Memory => doubts - 1,
                };
            }
        }
        doubts
    }

    /// The next name and what it was when the directory was listed.
    pub(crate) fn next(&mut self) -> Option<(&[u8], FileType)> {
        let entry = self.entries.get(self.next)?;
        self.next += 1;
        Some((&self.names[entry.start..entry.end], entry.file_type))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, Mode, OFlags, openat};

    use super::*;

    #[test]
    fn directories_that_are_not_wanted_are_not_entered() {
        let temp = tempfile::tempdir().unwrap();
        for path in ["a/x", "b/c/y", "d"] {
            let path = temp.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let root = openat(CWD, temp.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut walk = Walk::new(temp.path(), root).unwrap();
        let mut found = Vec::new();
        while let Some(it) = walk.find_next_where(&mut |_, path, leaf| path != b"b" && leaf != b"a").unwrap()
        {
            let [path, leaf] = [it.path, it.leaf].map(|text| String::from_utf8_lossy(text).into_owned());
            found.push((path, leaf, it.file_type == FileType::Directory));
        }
        let want = [("", "a", true), ("b", "", true), ("b", "c", true), ("", "d", false)];
        assert_eq!(found, want.map(|(path, leaf, is_dir)| (path.to_owned(), leaf.to_owned(), is_dir)));
    }
}
