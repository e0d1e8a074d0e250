//! Making one thing at a time, by handles of the directories on the way to it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fchmod, fstat, openat, statat, unlinkat};
use rustix::io::Errno;

use super::ExtractError;
use crate::trail::{Trail, split_leaf};

/// Makes files below one directory, and remembers what it made.
pub(super) struct Maker {
    into: PathBuf,
    /// At the directory that holds what is made next.
    pub(super) trail: Trail,
    /// What was made in directories that were there before.
    pub(super) made: Vec<Vec<u8>>,
}

/// What is to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct New<'a> {
    pub(super) path: &'a [u8],
    /// With setuid, setgid and sticky bits.
    pub(super) mode: Mode,
    /// Whether the directory that holds it was made as well, and goes with all that is in it if something fails.
    pub(super) in_new_dir: bool,
}

impl New<'_> {
    /// The permissions to make it with, when it gets its mode afterwards.
    pub(super) fn at_first(&self) -> Mode {
        self.mode & (Mode::RWXU | Mode::RWXG | Mode::RWXO)
    }
}

/// Why an entry is not restored.
pub(super) enum Problem {
    /// For what it is. This is the reason.
    Refused(&'static str),
    /// It could not be done.
    Failed(ExtractError),
}

impl Problem {
    /// The error, of the entry with this name.
    pub(super) fn of(self, entry: &[u8]) -> ExtractError {
        match self {
            Self::Refused(reason) => {
                ExtractError::Refused { entry: String::from_utf8_lossy(entry).into_owned(), reason }
            }
            Self::Failed(error) => error,
        }
    }
}

impl From<ExtractError> for Problem {
    fn from(error: ExtractError) -> Self {
        Self::Failed(error)
    }
}

impl Maker {
    pub(super) fn new(into: &Path) -> Result<Self, ExtractError> {
        // The directory itself may be reached through symlinks: its path is the caller's.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(into, flags, Mode::empty()).map_err(|e| failure("open", into, e))?;
        Ok(Self { into: into.to_owned(), trail: Trail::reaching(root), made: Vec::new() })
    }

    /// One that makes files below the same directory.
    pub(super) fn another(&self) -> Result<Self, ExtractError> {
        Ok(Self { into: self.into.clone(), trail: self.another_trail()?, made: Vec::new() })
    }

    /// A trail of its own below the same directory.
    pub(super) fn another_trail(&self) -> Result<Trail, ExtractError> {
        self.trail.another().map_err(|error| failure("open", &self.into, error))
    }

    /// Makes something that is no directory with `make`, in place of what is there. The trail is where it belongs.
    pub(super) fn make<T>(
        &mut self,
        new: New<'_>,
        mut make: impl FnMut(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T, Problem> {
        let (_, leaf) = split_leaf(new.path);
        let outcome = self.trail.current().and_then(|(dir, _)| replace(dir, leaf, |dir| make(dir, leaf)));
        match outcome {
            Ok(value) => {
                self.note(new.path, new.in_new_dir);
                Ok(value)
            }
            Err(Errno::ISDIR) => Err(Problem::Refused("in its place is a directory")),
            Err(error) => Err(self.failure("create", new.path, error).into()),
        }
    }

    /// Makes an empty file.
    pub(super) fn create_file(&mut self, new: New<'_>) -> Result<File, Problem> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        self.make(new, |dir, leaf| openat(dir, leaf, flags, new.at_first())).map(File::from)
    }

    /// Appends to a file.
    pub(super) fn write(&self, mut file: &File, new: New<'_>, bytes: &[u8]) -> Result<(), ExtractError> {
        file.write_all(bytes).map_err(|error| self.failure("write", new.path, error))
    }

    /// Gives a file its permissions: after writing, which takes setuid and setgid away.
    pub(super) fn finish_file(&self, file: &File, new: New<'_>) -> Result<(), ExtractError> {
        let changed = fstat(file).and_then(|stat| {
            // Asking is several times faster than changing, and most files are made with the right ones.
            if Mode::from_raw_mode(stat.st_mode) == new.mode { Ok(()) } else { fchmod(file, new.mode) }
        });
        changed.map_err(|error| self.failure("set the permissions of", new.path, error))
    }

    /// Remembers what was made, unless it goes with the directory that holds it.
    pub(super) fn note(&mut self, path: &[u8], in_new_dir: bool) {
        if !in_new_dir {
            self.made.push(path.to_vec());
        }
    }

    pub(super) fn failure(
        &self,
        action: &'static str,
        path: &[u8],
        error: impl Into<io::Error>,
    ) -> ExtractError {
        failure(action, &self.into.join(OsStr::from_bytes(path)), error)
    }
}

fn failure(action: &'static str, path: &Path, error: impl Into<io::Error>) -> ExtractError {
    ExtractError::Restore { action, path: path.to_owned(), source: error.into() }
}

/// Makes something called `leaf` in `dir`, and if there is something, removes it first; not a directory, that is an
/// error ([`Errno::ISDIR`]).
pub(super) fn replace<T>(
    dir: BorrowedFd<'_>,
    leaf: &[u8],
    mut make: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    match make(dir) {
        Err(Errno::EXIST) if is_dir(dir, leaf) => Err(Errno::ISDIR),
        Err(Errno::EXIST) => {
            unlinkat(dir, leaf, AtFlags::empty())?;
            make(dir)
        }
        outcome => outcome,
    }
}

pub(super) fn is_dir(dir: BorrowedFd<'_>, leaf: &[u8]) -> bool {
    statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}
