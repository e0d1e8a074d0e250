//! Entries as files on disk.

use std::ffi::OsStr;
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::thread::Scope;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, linkat, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;

use super::ExtractError;
use super::late::LateModes;
use super::names::{Below, Where};
use super::small::{Files, SMALL, Shared, SmallFiles};
use crate::entry::{Entry, Kind};
use crate::own::change_mode;
use crate::read::{Archive, Contents, Member};
use crate::trail::{Trail, split_leaf};

/// Makes what an archive has below one directory.
pub(super) struct Maker<'a> {
    below: Below,
    into: &'a Path,
    /// Files: those that are small on their way, others at once.
    files: SmallFiles<'a>,
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
    /// Small files are made by so many other threads, too.
    pub(super) fn new(
        scope: &'a Scope<'a, '_>,
        shared: &'a Shared,
        named: &Path,
        into: &'a Path,
        helpers: usize,
    ) -> Result<Self, ExtractError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let begin = || {
            let trail = Trail::reaching(openat(CWD, into, flags, Mode::empty())?);
            let [targets, files] = [trail.another()?, trail.another()?];
            let files = SmallFiles::start(scope, shared, Files::new(into, files), helpers)?;
            Ok((trail, targets, files))
        };
        let (trail, targets, files) = begin().map_err(|error: Errno| failure("open", into, b"", error))?;
        Ok(Self {
            below: Below::new(named),
            into,
            files,
            trail,
            targets,
            late_modes: LateModes::default(),
            own_mode: None,
        })
    }

    /// Makes every entry of the archive. Of several that cannot be made, the first one counts.
    pub(super) fn make_all(&mut self, archive: &mut Archive<impl BufRead>) -> Result<(), ExtractError> {
        let made = self.make_each(archive);
        self.files.finish().and(made)
    }

    fn make_each(&mut self, archive: &mut Archive<impl BufRead>) -> Result<(), ExtractError> {
        let mut path = Vec::new();
        while let Some(Member { entry, contents }) = archive.read_next()? {
            let mode = permissions(&entry);
            match self.below.locate(entry.name, &mut path) {
                Ok(Where::Below) => self.make(&entry, &path, contents)?,
                Ok(Where::Itself) if entry.kind == Kind::Dir => self.own_mode = Some(mode),
                Ok(Where::Above) if entry.kind == Kind::Dir => {}
                Ok(Where::Above | Where::Itself) => {
                    return Err(refused(entry.name, "in its place belongs a directory"));
                }
                Err(reason) => return Err(refused(entry.name, reason)),
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
        let Self { into, files, trail, .. } = self;
        let (parent, leaf) = split_leaf(path);
        let mut reached = trail.go_to(parent);
        if reached.is_err() {
            // What is in the way may be a file that is not there yet.
            files.finish()?;
            reached = trail.go_to(parent);
        }
        let dir = reached.and_then(|()| Ok(trail.current()?.0));
        let dir = dir.map_err(|error| match error {
            Errno::NOENT => refused(entry.name, "the directory that it is in does not come before it"),
            Errno::NOTDIR | Errno::LOOP => {
                refused(entry.name, "on the way to it is something else than a directory")
            }
            error => failure("open", into, parent, error),
        })?;
        let not_created = |error| match error {
            Errno::EXIST => refused(entry.name, "it comes twice"),
            error => failure("create", into, path, error),
        };
        let mode = permissions(entry);
        match entry.kind {
            Kind::File { size } if size <= SMALL => files.add(entry.name, path, mode, contents),
            Kind::File { .. } => files.make_now(entry.name, path, mode, contents),
            Kind::Dir => {
                mkdirat(dir, leaf, mode | Mode::RWXU).map_err(not_created)?;
                // It gets its permissions later if they would keep us from making what is in it.
                if mode.contains(Mode::RWXU) {
                    self.change_mode(path, mode)
                } else if self.late_modes.add(path, mode) {
                    Ok(())
                } else {
                    Err(refused(
                        entry.name,
                        "it is one of too many directories that their owner may not write to",
                    ))
                }
            }
            Kind::Symlink { target } => symlinkat(target, dir, leaf).map_err(not_created),
            Kind::HardLink { target } => {
                let mut found = Vec::new();
                if self.below.locate(target, &mut found) != Ok(Where::Below) {
                    return Err(refused(entry.name, "it links to something outside"));
                }
                files.finish()?;
                let (found_in, found_leaf) = split_leaf(&found);
                let reached = self.targets.go_to(found_in).and_then(|()| Ok(self.targets.current()?.0));
                let linked = reached.and_then(|from| linkat(from, found_leaf, dir, leaf, AtFlags::empty()));
                linked.map_err(|error| match error {
                    Errno::NOENT | Errno::NOTDIR | Errno::LOOP => {
                        refused(entry.name, "what it links to is not there")
                    }
                    error => not_created(error),
                })
            }
            Kind::Fifo => {
                mknodat(dir, leaf, FileType::Fifo, mode, 0).map_err(not_created)?;
                self.change_mode(path, mode)
            }
            Kind::CharDevice(_) | Kind::BlockDevice(_) => {
                Err(refused(entry.name, "devices are not restored"))
            }
        }
    }

    /// Changes the permissions of something that was made here and is no symlink; an empty path is the directory itself.
    fn change_mode(&mut self, path: &[u8], mode: Mode) -> Result<(), ExtractError> {
        let (parent, leaf) = split_leaf(path);
        let leaf = if leaf.is_empty() { b"." } else { leaf };
        let Self { into, trail, .. } = self;
        let changed = trail.go_to(parent).and_then(|()| change_mode(trail.current()?.0, leaf, mode));
        changed.map_err(|error| failure("set the permissions of", into, path, error))
    }
}

/// Without setuid, setgid and sticky bits: nobody gets more rights by what was brought from elsewhere.
fn permissions(entry: &Entry<'_>) -> Mode {
    Mode::from_raw_mode(entry.mode) & (Mode::RWXU | Mode::RWXG | Mode::RWXO)
}

/// The entry of this name is refused.
pub(super) fn refused(name: &[u8], reason: &'static str) -> ExtractError {
    ExtractError::Refused { entry: String::from_utf8_lossy(name).into_owned(), reason }
}

/// Something cannot be done with the file at `path`.
pub(super) fn failure(
    action: &'static str,
    into: &Path,
    path: &[u8],
    error: impl Into<io::Error>,
) -> ExtractError {
    let path = if path.is_empty() { into.to_owned() } else { into.join(OsStr::from_bytes(path)) };
    ExtractError::Restore { action, path, source: error.into() }
}
