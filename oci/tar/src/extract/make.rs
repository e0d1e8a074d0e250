//! Entries as files on disk.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, chmodat, fchmod, fstat, linkat, mkdirat, mknodat, openat, symlinkat,
};
use rustix::io::Errno;

use super::ExtractError;
use super::late::LateModes;
use super::names::{Below, Where};
use crate::entry::{Entry, Kind};
use crate::error::ArchiveError;
use crate::read::{Archive, Contents, Member};
use crate::trail::{Trail, split_leaf};

/// Makes files below one directory.
pub(super) struct Maker<'a> {
    below: Below,
    into: &'a Path,
    /// At the directory that holds the current entry.
    trail: Trail,
    /// For finding what hard links link to.
    targets: Trail,
    /// Permissions of directories that would keep us from making what is in them.
    late_modes: LateModes,
    /// Those of the directory itself, which may come at any place, and again.
    own_mode: Option<Mode>,
}

impl<'a> Maker<'a> {
    /// Below the directory `into`; in the archive, it is called `named`.
    pub(super) fn new(named: &Path, into: &'a Path) -> Result<Self, ExtractError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let trails = openat(CWD, into, flags, Mode::empty()).and_then(|root| {
            let trail = Trail::reaching(root);
            Ok((trail.another()?, trail))
        });
        let (targets, trail) = trails.map_err(|error| failure("open", into, b"", error))?;
        Ok(Self {
            below: Below::new(named),
            into,
            trail,
            targets,
            late_modes: LateModes::default(),
            own_mode: None,
        })
    }

    /// Makes every entry of the archive.
    pub(super) fn make_all(&mut self, archive: &mut Archive<impl BufRead>) -> Result<(), ExtractError> {
        let mut path = Vec::new();
        while let Some(Member { entry, contents }) = archive.read_next()? {
            let mode = permissions(&entry);
            match self.below.locate(entry.name, &mut path) {
                Ok(Where::Below) => self.make(&entry, &path, contents)?,
                Ok(Where::Itself) if entry.kind == Kind::Dir => self.own_mode = Some(mode),
                Ok(Where::Above) if entry.kind == Kind::Dir => {}
                Ok(Where::Above | Where::Itself) => {
                    return Err(refused(&entry, "in its place belongs a directory"));
                }
                Err(reason) => return Err(refused(&entry, reason)),
            }
        }
        Ok(())
    }

    /// Gives directories their permissions where that was put off; the deepest come first.
    pub(super) fn finish_directories(&mut self) -> Result<(), ExtractError> {
        while let Some((path, mode)) = self.late_modes.take_last() {
            self.change_mode(&path, mode)?;
        }
        self.own_mode.map_or(Ok(()), |mode| self.change_mode(b"", mode))
    }

    fn make(
        &mut self,
        entry: &Entry<'_>,
        path: &[u8],
        contents: Contents<'_, impl BufRead>,
    ) -> Result<(), ExtractError> {
        let Self { into, trail, .. } = self;
        let (parent, leaf) = split_leaf(path);
        let dir = trail.go_to(parent).and_then(|()| Ok(trail.current()?.0));
        let dir = dir.map_err(|error| match error {
            Errno::NOENT => refused(entry, "the directory that it is in does not come before it"),
            Errno::NOTDIR | Errno::LOOP => {
                refused(entry, "on the way to it is something else than a directory")
            }
            error => failure("open", into, parent, error),
        })?;
        let not_created = |error| match error {
            Errno::EXIST => refused(entry, "it comes twice"),
            error => failure("create", into, path, error),
        };
        let mode = permissions(entry);
        match entry.kind {
            Kind::File { .. } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = openat(dir, leaf, flags, mode).map_err(not_created)?;
                self.fill(file.into(), path, mode, contents)
            }
            Kind::Dir => {
                mkdirat(dir, leaf, mode | Mode::RWXU).map_err(not_created)?;
                // It gets its permissions later if they would keep us from making what is in it.
                if mode.contains(Mode::RWXU) {
                    self.change_mode(path, mode)
                } else if self.late_modes.add(path, mode) {
                    Ok(())
                } else {
                    Err(refused(entry, "it is one of too many directories that their owner may not write to"))
                }
            }
            Kind::Symlink { target } => symlinkat(target, dir, leaf).map_err(not_created),
            Kind::HardLink { target } => {
                let mut found = Vec::new();
                if self.below.locate(target, &mut found) != Ok(Where::Below) {
                    return Err(refused(entry, "it links to something outside"));
                }
                let (found_in, found_leaf) = split_leaf(&found);
                let reached = self.targets.go_to(found_in).and_then(|()| Ok(self.targets.current()?.0));
                let linked = reached.and_then(|from| linkat(from, found_leaf, dir, leaf, AtFlags::empty()));
                linked.map_err(|error| match error {
                    Errno::NOENT | Errno::NOTDIR | Errno::LOOP => {
                        refused(entry, "what it links to is not there")
                    }
                    error => not_created(error),
                })
            }
            Kind::Fifo => {
                mknodat(dir, leaf, FileType::Fifo, mode, 0).map_err(not_created)?;
                self.change_mode(path, mode)
            }
            Kind::CharDevice(_) | Kind::BlockDevice(_) => Err(refused(entry, "devices are not restored")),
        }
    }

    /// Writes a new file's contents, and gives it its permissions whatever the umask.
    fn fill(
        &self,
        mut file: File,
        path: &[u8],
        mode: Mode,
        mut contents: Contents<'_, impl BufRead>,
    ) -> Result<(), ExtractError> {
        loop {
            let piece = contents.fill_buf().map_err(ArchiveError::Read)?;
            if piece.is_empty() {
                break;
            }
            file.write_all(piece).map_err(|error| failure("write", self.into, path, error))?;
            let length = piece.len();
            contents.consume(length);
        }
        let changed = fstat(&file).and_then(|stat| {
            // Asking is several times faster than changing, and most files are made with the right ones.
            if Mode::from_raw_mode(stat.st_mode) == mode { Ok(()) } else { fchmod(&file, mode) }
        });
        changed.map_err(|error| failure("set the permissions of", self.into, path, error))
    }

    /// Changes the permissions of something that was made here and is no symlink; an empty path is the directory itself.
    fn change_mode(&mut self, path: &[u8], mode: Mode) -> Result<(), ExtractError> {
        let (parent, leaf) = split_leaf(path);
        let leaf = if leaf.is_empty() { b"." } else { leaf };
        let Self { into, trail, .. } = self;
        let changed =
            trail.go_to(parent).and_then(|()| chmodat(trail.current()?.0, leaf, mode, AtFlags::empty()));
        changed.map_err(|error| failure("set the permissions of", into, path, error))
    }
}

/// Without setuid, setgid and sticky bits: nobody gets more rights by what was brought from elsewhere.
fn permissions(entry: &Entry<'_>) -> Mode {
    Mode::from_raw_mode(entry.mode) & (Mode::RWXU | Mode::RWXG | Mode::RWXO)
}

fn refused(entry: &Entry<'_>, reason: &'static str) -> ExtractError {
    ExtractError::Refused { entry: String::from_utf8_lossy(entry.name).into_owned(), reason }
}

fn failure(action: &'static str, into: &Path, path: &[u8], error: impl Into<io::Error>) -> ExtractError {
    let path = if path.is_empty() { into.to_owned() } else { into.join(OsStr::from_bytes(path)) };
    ExtractError::Restore { action, path, source: error.into() }
}
