//! Small files, made by several threads: for the system it takes longer to make one than for us to read it.
//!
//! Whoever reads the tar puts them into batches and hands these over. A batch that nobody has time for it makes itself.
//! The order in which they are made does not matter: their directories are there, and nothing is ever replaced.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, Write as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags, fchmod, fstat, openat};
use rustix::io::Errno;

use super::ExtractError;
use super::make::{failure, refused};
use super::sync::thread::{self, Scope};
use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use crate::error::ArchiveError;
use crate::trail::{Trail, split_leaf};

/// Bytes that a small file has at most.
pub(super) const SMALL: u64 = 64 << 10;

/// Bytes of names and contents of which a batch is full, and files.
const FULL: (usize, usize) = (128 << 10, 256);

/// Batches that wait at most: each thread has one more.
const WAITING: usize = 2;

/// Threads that help at most, for the memory of their batches.
const HELPERS: usize = 3;

/// Files that are to be made.
#[derive(Debug, Default)]
struct Batch {
    /// Of each file: its name in the tar, its path, what is in it.
    bytes: Vec<u8>,
    files: Vec<SmallFile>,
}

#[derive(Debug)]
struct SmallFile {
    /// Which of the tar's files it is.
    number: u64,
    mode: Mode,
    /// How long its name, its path and its contents are.
    lengths: [usize; 3],
}

/// What the threads share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Batch>,
    /// Batches that others are at.
    under_way: usize,
    is_over: bool,
    /// What went wrong, and with which file; of several, with the first in the tar.
    error: Option<(u64, ExtractError)>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what waits, until there will be no more.
    fn help(&self, mut files: Files<'_>) {
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.waiting.pop_front() {
                state.under_way += 1;
                drop(state);
                let made = files.make_batch(&batch);
                state = self.lock();
                state.under_way -= 1;
                state.note(made);
                self.changed.notify_all();
            } else if state.is_over {
                return;
            } else {
                state = self.wait(state);
            }
        }
    }
}

impl State {
    fn note(&mut self, made: Result<(), (u64, ExtractError)>) {
        if let Err((number, error)) = made
            && self.error.as_ref().is_none_or(|(first, _)| number < *first)
        {
            self.error = Some((number, error));
        }
    }
}

/// The small files of a tar, on their way to the disk.
#[derive(Debug)]
pub(super) struct SmallFiles<'a> {
    shared: &'a Shared,
    files: Files<'a>,
    batch: Batch,
    count: u64,
}

impl SmallFiles<'_> {
    /// Made by at most `helpers` other threads, and by this one.
    pub(super) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        shared: &'scope Shared,
        files: Files<'scope>,
        helpers: usize,
    ) -> rustix::io::Result<SmallFiles<'scope>> {
        // Dropped, it lets them end.
        let small = SmallFiles { shared, files, batch: Batch::default(), count: 0 };
        for _ in 0..helpers.min(HELPERS) {
            let files = small.files.another()?;
            let started = thread::Builder::new()
                .name("make files".into())
                .spawn_scoped(scope, move || shared.help(files));
            if started.is_err() {
                break;
            }
        }
        Ok(small)
    }

    /// Takes a file; its directory is there.
    pub(super) fn add(
        &mut self,
        name: &[u8],
        path: &[u8],
        mode: Mode,
        mut contents: impl BufRead,
    ) -> Result<(), ExtractError> {
        let bytes = &mut self.batch.bytes;
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(path);
        let length = contents.read_to_end(bytes).map_err(ArchiveError::Read)?;
        self.count += 1;
        let lengths = [name.len(), path.len(), length];
        self.batch.files.push(SmallFile { number: self.count, mode, lengths });
        if self.batch.bytes.len() < FULL.0 && self.batch.files.len() < FULL.1 {
            return Ok(());
        }
        self.hand_over()
    }

    /// Makes a file of any size at once.
    pub(super) fn make_now(
        &mut self,
        name: &[u8],
        path: &[u8],
        mode: Mode,
        contents: impl BufRead,
    ) -> Result<(), ExtractError> {
        self.files.make(name, path, mode, contents)
    }

    fn hand_over(&mut self) -> Result<(), ExtractError> {
        let batch = std::mem::take(&mut self.batch);
        let mut state = self.shared.lock();
        if state.waiting.len() < WAITING && state.error.is_none() {
            state.waiting.push_back(batch);
            self.shared.changed.notify_all();
            return Ok(());
        }
        drop(state);
        self.make(&batch);
        if self.shared.lock().error.is_none() { Ok(()) } else { self.finish() }
    }

    fn make(&mut self, batch: &Batch) {
        let made = self.files.make_batch(batch);
        self.shared.lock().note(made);
    }

    /// Makes what is not there yet of those that were added.
    pub(super) fn finish(&mut self) -> Result<(), ExtractError> {
        let batch = std::mem::take(&mut self.batch);
        self.make(&batch);
        let shared = self.shared;
        let next = || shared.lock().waiting.pop_front();
        while let Some(batch) = next() {
            self.make(&batch);
        }
        let mut state = shared.lock();
        while state.under_way > 0 {
            state = shared.wait(state);
        }
        state.error.take().map_or(Ok(()), |(_, error)| Err(error))
    }
}

impl Drop for SmallFiles<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        state.waiting.clear();
        self.shared.changed.notify_all();
    }
}

/// Makes files below one directory.
#[derive(Debug)]
pub(super) struct Files<'a> {
    into: &'a Path,
    trail: Trail,
}

impl<'a> Files<'a> {
    /// In `into`, which the trail begins at.
    pub(super) fn new(into: &'a Path, trail: Trail) -> Self {
        Self { into, trail }
    }

    fn another(&self) -> rustix::io::Result<Self> {
        Ok(Self { into: self.into, trail: self.trail.another()? })
    }

    fn make_batch(&mut self, batch: &Batch) -> Result<(), (u64, ExtractError)> {
        let mut rest = batch.bytes.as_slice();
        for SmallFile { number, mode, lengths } in &batch.files {
            let [name, path, contents] = lengths.map(|length| {
                let (part, others) = rest.split_at(length);
                rest = others;
                part
            });
            self.make(name, path, *mode, contents).map_err(|error| (*number, error))?;
        }
        Ok(())
    }

    /// A file, called `name` in the tar.
    fn make(
        &mut self,
        name: &[u8],
        path: &[u8],
        mode: Mode,
        mut contents: impl BufRead,
    ) -> Result<(), ExtractError> {
        let (parent, leaf) = split_leaf(path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let reached = self.trail.go_to(parent).and_then(|()| Ok(self.trail.current()?.0));
        let opened = reached.and_then(|dir| openat(dir, leaf, flags, mode)).map_err(|error| match error {
            Errno::EXIST => refused(name, "it comes twice"),
            error => failure("create", self.into, path, error),
        });
        let mut file = File::from(opened?);
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
}
