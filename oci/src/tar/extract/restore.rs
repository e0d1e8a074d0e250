//! Entries as files on disk.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, chmodat, fchmod, linkat, mkdirat, mknodat, openat, statat, symlinkat,
    unlinkat,
};
use rustix::io::{Errno, retry_on_intr, write};

use super::ExtractError;
use super::entry::{Entry, Kind, read_entry};
use super::input::Input;
use super::names::{Below, Where};
use crate::tar::trail::{Trail, split_leaf};

/// Makes files below one directory.
pub(super) struct Restorer<'a> {
    below: Below,
    into: &'a Path,
    /// At the directory that holds the current entry.
    trail: Trail,
    /// For finding what hard links link to.
    targets: Trail,
    /// Directories that were made here.
    new_dirs: HashSet<Vec<u8>>,
    /// What was made in directories that were there before.
    made: Vec<Vec<u8>>,
    /// Permissions of new directories that would keep us from making what is in them.
    late_modes: BTreeMap<Vec<u8>, Mode>,
}

/// Why an entry is not restored.
enum Problem {
    /// For what it is. This is the reason.
    Refused(&'static str),
    /// It could not be done.
    Failed(ExtractError),
}

impl From<ExtractError> for Problem {
    fn from(error: ExtractError) -> Self {
        Self::Failed(error)
    }
}

impl<'a> Restorer<'a> {
    pub(super) fn new(below: &Path, into: &'a Path) -> Result<Self, ExtractError> {
        // The directory itself may be reached through symlinks: its path is the caller's.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open =
            || rustix::fs::open(into, flags, Mode::empty()).map_err(|error| failure("open", into, error));
        Ok(Self {
            below: Below::new(below),
            into,
            trail: Trail::reaching(open()?),
            targets: Trail::reaching(open()?),
            new_dirs: HashSet::new(),
            made: Vec::new(),
            late_modes: BTreeMap::new(),
        })
    }

    /// What was made in directories that were there before: all that was made is this, and in this.
    pub(super) fn made(&self) -> &[Vec<u8>] {
        &self.made
    }

    /// Restores every entry of the tar.
    pub(super) fn restore_all(&mut self, input: &mut Input<impl Read>) -> Result<(), ExtractError> {
        let mut entry = Entry::default();
        let mut path = Vec::new();
        while read_entry(input, &mut entry)? {
            let refused = |reason| ExtractError::Refused {
                entry: String::from_utf8_lossy(&entry.name).into_owned(),
                reason,
            };
            match self.below.locate(&entry.name, &mut path).map_err(refused)? {
                Where::Below => self.restore(&entry, &path, input).map_err(|problem| match problem {
                    Problem::Refused(reason) => refused(reason),
                    Problem::Failed(error) => error,
                })?,
                Where::Above if entry.kind == Kind::Dir => {}
                Where::Above => return Err(refused("in its place belongs a directory")),
            }
        }
        Ok(())
    }

    /// Gives directories their permissions where that was put off; the deepest come first.
    pub(super) fn finish_directories(&mut self) -> Result<(), ExtractError> {
        for (path, mode) in std::mem::take(&mut self.late_modes).into_iter().rev() {
            let (parent, leaf) = split_leaf(&path);
            let changed = self.trail.go_to(parent).and_then(|()| {
                let (dir, _) = self.trail.current()?;
                chmodat(dir, leaf, mode, AtFlags::empty())
            });
            changed.map_err(|error| self.failure("set the permissions of", &path, error))?;
        }
        Ok(())
    }

    /// Restores the entry at `path`.
    fn restore(&mut self, entry: &Entry, path: &[u8], input: &mut Input<impl Read>) -> Result<(), Problem> {
        let (parent, leaf) = split_leaf(path);
        self.go_to(parent)?;
        let mode = Mode::from_raw_mode(entry.mode);
        let created = mode & (Mode::RWXU | Mode::RWXG | Mode::RWXO);
        match entry.kind {
            Kind::Dir => self.make_dir(path, leaf, mode),
            Kind::File { size } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = self.make(path, leaf, |dir| openat(dir, leaf, flags, created))?;
                input.contents(size, |piece| {
                    write_all(&file, piece).map_err(|error| self.failure("write", path, error))
                })?;
                // After writing, which takes setuid and setgid away.
                fchmod(&file, mode)
                    .map_err(|error| self.failure("set the permissions of", path, error).into())
            }
            Kind::Symlink => {
                self.make(path, leaf, |dir| symlinkat(&*entry.target, dir, leaf))?;
                Ok(())
            }
            Kind::HardLink => self.make_hard_link(&entry.target, path, leaf),
            Kind::Fifo => {
                self.make(path, leaf, |dir| {
                    mknodat(dir, leaf, FileType::Fifo, created, 0)?;
                    chmodat(dir, leaf, mode, AtFlags::empty())
                })?;
                Ok(())
            }
            Kind::Device => Err(Problem::Refused("devices are not restored")),
        }
    }

    /// Goes to the directory that holds an entry, and makes it if the tar has left it out.
    fn go_to(&mut self, dir: &[u8]) -> Result<(), Problem> {
        if self.trail.path() == dir {
            return Ok(());
        }
        loop {
            match self.trail.go_to(dir) {
                Ok(()) => return Ok(()),
                Err(Errno::NOENT) => self.make_next_dir(dir)?,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    return Err(Problem::Refused("on the way to it is something else than a directory"));
                }
                Err(error) => return Err(self.failure("open", dir, error).into()),
            }
        }
    }

    /// Makes the first directory that is missing on the way from where the trail is to `dir`.
    fn make_next_dir(&mut self, dir: &[u8]) -> Result<(), Problem> {
        let from = self.trail.path().len() + usize::from(!self.trail.path().is_empty());
        let end = dir[from..].iter().position(|&byte| byte == b'/').map_or(dir.len(), |slash| from + slash);
        let everything = Mode::RWXU | Mode::RWXG | Mode::RWXO;
        let made = self.trail.current().and_then(|(above, _)| mkdirat(above, &dir[from..end], everything));
        match made {
            Ok(()) => self.note_dir(&dir[..end]),
            // Another thread was faster.
            Err(Errno::EXIST) => {}
            Err(error) => return Err(self.failure("create", &dir[..end], error).into()),
        }
        Ok(())
    }

    fn make_dir(&mut self, path: &[u8], leaf: &[u8], mode: Mode) -> Result<(), Problem> {
        let created = Mode::RWXU | (mode & (Mode::RWXG | Mode::RWXO));
        let is_new = self.trail.current().and_then(|(dir, _)| {
            replace(dir, leaf, |dir| match mkdirat(dir, leaf, created) {
                Err(Errno::EXIST) if is_dir(dir, leaf) => Ok(false),
                outcome => outcome.map(|()| true),
            })
        });
        match is_new {
            Ok(true) => self.note_dir(path),
            Ok(false) if self.new_dirs.contains(path) => {}
            Ok(false) => return Ok(()),
            Err(error) => return Err(self.failure("create", path, error).into()),
        }
        if !mode.contains(Mode::RWXU) {
            self.late_modes.insert(path.to_vec(), mode);
            return Ok(());
        }
        self.late_modes.remove(path);
        let changed = self.trail.current().and_then(|(dir, _)| chmodat(dir, leaf, mode, AtFlags::empty()));
        changed.map_err(|error| self.failure("set the permissions of", path, error).into())
    }

    fn make_hard_link(&mut self, target: &[u8], path: &[u8], leaf: &[u8]) -> Result<(), Problem> {
        let mut target_path = Vec::new();
        match self.below.locate(target, &mut target_path) {
            Ok(Where::Below) if target_path == path => return Err(Problem::Refused("it links to itself")),
            Ok(Where::Below) => {}
            Ok(Where::Above) | Err(_) => return Err(Problem::Refused("it links to something outside")),
        }
        let (target_parent, target_leaf) = split_leaf(&target_path);
        self.targets.go_to(target_parent).map_err(|error| match error {
            Errno::NOTDIR | Errno::LOOP => {
                Problem::Refused("on the way to what it links to is something else than a directory")
            }
            error => self.failure("open", target_parent, error).into(),
        })?;
        let Self { trail, targets, .. } = self;
        let linked = targets.current().and_then(|(target_dir, _)| {
            let (dir, _) = trail.current()?;
            replace(dir, leaf, |dir| linkat(target_dir, target_leaf, dir, leaf, AtFlags::empty()))
        });
        self.noted(path, linked)
    }

    /// Makes something that is no directory with `make`, in place of what is there.
    fn make<T>(
        &mut self,
        path: &[u8],
        leaf: &[u8],
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T, Problem> {
        let outcome = self.trail.current().and_then(|(dir, _)| replace(dir, leaf, make));
        self.noted(path, outcome)
    }

    fn noted<T>(&mut self, path: &[u8], outcome: rustix::io::Result<T>) -> Result<T, Problem> {
        match outcome {
            Ok(value) => {
                self.note(path);
                Ok(value)
            }
            Err(Errno::ISDIR) => Err(Problem::Refused("in its place is a directory")),
            Err(error) => Err(self.failure("create", path, error).into()),
        }
    }

    /// Remembers what was made, unless it is in a directory that was made.
    fn note(&mut self, path: &[u8]) {
        if !self.new_dirs.contains(split_leaf(path).0) {
            self.made.push(path.to_vec());
        }
    }

    fn note_dir(&mut self, path: &[u8]) {
        self.note(path);
        self.new_dirs.insert(path.to_vec());
    }

    fn failure(&self, action: &'static str, path: &[u8], error: Errno) -> ExtractError {
        failure(action, &self.into.join(OsStr::from_bytes(path)), error)
    }
}

fn failure(action: &'static str, path: &Path, error: Errno) -> ExtractError {
    ExtractError::Restore { action, path: path.to_owned(), source: error.into() }
}

/// Makes something called `leaf` in `dir`, and if there is something, removes it first; not a directory, that is an
/// error ([`Errno::ISDIR`]).
fn replace<T>(
    dir: BorrowedFd<'_>,
    leaf: &[u8],
    make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
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

fn is_dir(dir: BorrowedFd<'_>, leaf: &[u8]) -> bool {
    statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        let n = retry_on_intr(|| write(file, bytes))?;
        bytes = &bytes[n..];
    }
    Ok(())
}
