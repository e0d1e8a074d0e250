//! Entries as files on disk.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, chmodat, linkat, mkdirat, mknodat, symlinkat};
use rustix::io::Errno;

use super::ExtractError;
use super::entry::{Entry, Kind, read_entry};
use super::helper::{Helper, Sharing};
use super::input::Input;
use super::make::{Maker, New, Problem, is_dir, replace};
use super::names::{Below, Where};
use crate::trail::{Trail, split_leaf};

/// Makes the tar's entries below one directory.
pub(super) struct Restorer {
    below: Below,
    /// Its trail is at the directory that holds the current entry.
    maker: Maker,
    /// Makes some of the files.
    helper: Helper,
    /// For finding what hard links link to.
    targets: Trail,
    /// Directories that were made here.
    new_dirs: HashSet<Vec<u8>>,
    /// Permissions of new directories that would keep us from making what is in them.
    late_modes: BTreeMap<Vec<u8>, Mode>,
}

impl Restorer {
    pub(super) fn new(below: &Path, into: &Path, sharing: Sharing) -> Result<Self, ExtractError> {
        let maker = Maker::new(into)?;
        Ok(Self {
            below: Below::new(below),
            targets: maker.another_trail()?,
            maker,
            helper: Helper::new(sharing),
            new_dirs: HashSet::new(),
            late_modes: BTreeMap::new(),
        })
    }

    /// What was made in directories that were there before: all that was made is this, and in this.
    pub(super) fn made(&self) -> impl Iterator<Item = &[u8]> {
        self.maker.made.iter().chain(self.helper.made()).map(Vec::as_slice)
    }

    /// Restores every entry of the tar. After an error, nothing is made any more.
    pub(super) fn restore_all(&mut self, input: &mut Input<impl Read>) -> Result<(), ExtractError> {
        let restored = self.restore_each(input);
        self.helper.end().and(restored)
    }

    fn restore_each(&mut self, input: &mut Input<impl Read>) -> Result<(), ExtractError> {
        let mut entry = Entry::default();
        let mut path = Vec::new();
        while read_entry(input, &mut entry)? {
            let of_entry = |problem: Problem| problem.of(&entry.name);
            let located = self.below.locate(&entry.name, &mut path).map_err(Problem::Refused);
            match located.map_err(of_entry)? {
                Where::Below => self.restore(&entry, &path, input).map_err(of_entry)?,
                Where::Above if entry.kind == Kind::Dir => {}
                Where::Above => return Err(of_entry(Problem::Refused("in its place belongs a directory"))),
            }
        }
        Ok(())
    }

    /// Gives directories their permissions where that was put off; the deepest come first.
    pub(super) fn finish_directories(&mut self) -> Result<(), ExtractError> {
        for (path, mode) in std::mem::take(&mut self.late_modes).into_iter().rev() {
            let (parent, leaf) = split_leaf(&path);
            let changed = self.maker.trail.go_to(parent).and_then(|()| {
                let (dir, _) = self.maker.trail.current()?;
                chmodat(dir, leaf, mode, AtFlags::empty())
            });
            changed.map_err(|error| self.maker.failure("set the permissions of", &path, error))?;
        }
        Ok(())
    }

    /// Restores the entry at `path`.
    fn restore(&mut self, entry: &Entry, path: &[u8], input: &mut Input<impl Read>) -> Result<(), Problem> {
        self.helper.come_to(input.chunk_offset(), &self.maker)?;
        let (parent, leaf) = split_leaf(path);
        self.go_to(parent)?;
        let mode = Mode::from_raw_mode(entry.mode);
        let new = New { path, mode, in_new_dir: self.new_dirs.contains(parent) };
        if let Kind::File { size } = entry.kind
            && self.helper.takes_file_in(parent)
        {
            return Ok(self.hand_over(&entry.name, new, size, input)?);
        }
        self.settle_at(path)?;
        match entry.kind {
            Kind::Dir => self.make_dir(new, leaf),
            Kind::File { size } => self.make_file(new, size, input),
            Kind::Symlink => self.maker.make(new, |dir, leaf| symlinkat(&*entry.target, dir, leaf)),
            Kind::HardLink => self.make_hard_link(&entry.target, new),
            Kind::Fifo => self.maker.make(new, |dir, leaf| {
                mknodat(dir, leaf, FileType::Fifo, new.at_first(), 0)?;
                chmodat(dir, leaf, mode, AtFlags::empty())
            }),
            Kind::Device => Err(Problem::Refused("devices are not restored")),
        }
    }

    /// Leaves making a file to the helper.
    fn hand_over(
        &mut self,
        entry_name: &[u8],
        new: New<'_>,
        size: u64,
        input: &mut Input<impl Read>,
    ) -> Result<(), ExtractError> {
        self.helper.create(entry_name, new);
        input.contents(size, |piece| {
            self.helper.come_to(piece.chunk_offset, &self.maker)?;
            self.helper.write(piece);
            Ok(())
        })?;
        self.helper.finish();
        Ok(())
    }

    fn make_file(&mut self, new: New<'_>, size: u64, input: &mut Input<impl Read>) -> Result<(), Problem> {
        let file = self.maker.create_file(new)?;
        input.contents(size, |piece| {
            self.helper.come_to(piece.chunk_offset, &self.maker)?;
            self.maker.write(&file, new, &piece)
        })?;
        Ok(self.maker.finish_file(&file, new)?)
    }

    /// Waits for the helper if it is to make a file at `path`: what follows must find it there.
    fn settle_at(&mut self, path: &[u8]) -> Result<(), ExtractError> {
        if self.helper.is_pending(path) { self.helper.settle() } else { Ok(()) }
    }

    /// Goes to the directory that holds an entry, and makes it if the tar has left it out.
    fn go_to(&mut self, dir: &[u8]) -> Result<(), Problem> {
        if self.maker.trail.path() == dir {
            return Ok(());
        }
        loop {
            match self.maker.trail.go_to(dir) {
                Ok(()) => return Ok(()),
                Err(Errno::NOENT) => self.make_next_dir(dir)?,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    return Err(Problem::Refused("on the way to it is something else than a directory"));
                }
                Err(error) => return Err(self.maker.failure("open", dir, error).into()),
            }
        }
    }

    /// Makes the first directory that is missing on the way from where the trail is to `dir`.
    fn make_next_dir(&mut self, dir: &[u8]) -> Result<(), Problem> {
        let here = self.maker.trail.path();
        let from = here.len() + usize::from(!here.is_empty());
        let end = dir[from..].iter().position(|&byte| byte == b'/').map_or(dir.len(), |slash| from + slash);
        self.settle_at(&dir[..end])?;
        let everything = Mode::RWXU | Mode::RWXG | Mode::RWXO;
        let above = self.maker.trail.current();
        match above.and_then(|(above, _)| mkdirat(above, &dir[from..end], everything)) {
            Ok(()) => self.note_dir(&dir[..end]),
            // Another thread was faster, or there is what the helper has made.
            Err(Errno::EXIST) => {}
            Err(error) => return Err(self.maker.failure("create", &dir[..end], error).into()),
        }
        Ok(())
    }

    fn make_dir(&mut self, new: New<'_>, leaf: &[u8]) -> Result<(), Problem> {
        let New { path, mode, .. } = new;
        let created = Mode::RWXU | new.at_first();
        let is_new = self.maker.trail.current().and_then(|(dir, _)| {
            replace(dir, leaf, |dir| match mkdirat(dir, leaf, created) {
                Err(Errno::EXIST) if is_dir(dir, leaf) => Ok(false),
                outcome => outcome.map(|()| true),
            })
        });
        match is_new {
            Ok(true) => self.note_dir(path),
            // A file's group depends on the mode that its directory has when it is made.
            Ok(false) if self.new_dirs.contains(path) => self.helper.settle()?,
            Ok(false) => return Ok(()),
            Err(error) => return Err(self.maker.failure("create", path, error).into()),
        }
        if !mode.contains(Mode::RWXU) {
            self.late_modes.insert(path.to_vec(), mode);
            return Ok(());
        }
        self.late_modes.remove(path);
        let dir = self.maker.trail.current();
        let changed = dir.and_then(|(dir, _)| chmodat(dir, leaf, mode, AtFlags::empty()));
        changed.map_err(|error| self.maker.failure("set the permissions of", path, error).into())
    }

    fn make_hard_link(&mut self, target: &[u8], new: New<'_>) -> Result<(), Problem> {
        let mut target_path = Vec::new();
        match self.below.locate(target, &mut target_path) {
            Ok(Where::Below) if target_path == new.path => {
                return Err(Problem::Refused("it links to itself"));
            }
            Ok(Where::Below) => {}
            Ok(Where::Above) | Err(_) => return Err(Problem::Refused("it links to something outside")),
        }
        let (target_parent, target_leaf) = split_leaf(&target_path);
        self.settle_at(&target_path)?;
        let mut reached = self.targets.go_to(target_parent);
        if reached.is_err() {
            // What is in the way may be a file that the helper has not made yet.
            self.helper.settle()?;
            reached = self.targets.go_to(target_parent);
        }
        reached.map_err(|error| match error {
            Errno::NOTDIR | Errno::LOOP => {
                Problem::Refused("on the way to what it links to is something else than a directory")
            }
            error => self.maker.failure("open", target_parent, error).into(),
        })?;
        let Self { maker, targets, .. } = self;
        maker.make(new, |dir, leaf| {
            let (target_dir, _) = targets.current()?;
            linkat(target_dir, target_leaf, dir, leaf, AtFlags::empty())
        })
    }

    fn note_dir(&mut self, path: &[u8]) {
        self.maker.note(path, self.new_dirs.contains(split_leaf(path).0));
        self.new_dirs.insert(path.to_vec());
    }
}
