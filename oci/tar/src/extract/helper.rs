//! A second thread that makes files, while the one that reads the tar makes others.
//!
//! Making a file holds a lock of its directory, so the helper gets whole directories as far as possible. That is for
//! speed alone, and depends on how fast both happen to be: what makes the outcome the same as with one thread is that
//!
//! - the helper does what it is given in the order of the tar;
//! - it is given nothing but files, in directories that are there. No entry takes a directory away again, so it finds
//!   them, whatever else happens meanwhile;
//! - whoever does something at a path that the helper still has to make a file at, waits for the helper first
//!   ([`Helper::is_pending`], [`Helper::settle`]).
//!
//! The files' contents are pieces of the tar's chunks. What is handed over is gathered until reading has come to the
//! next chunk: so few messages are sent, and each keeps only one chunk from being filled again.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use rustix::fs::Mode;

use super::ExtractError;
use super::input::Piece;
use super::make::{Maker, New};
use crate::trail::split_leaf;

/// Batches that wait for the helper, at most.
const QUEUE: usize = 8;

/// Paths that are remembered before those are forgotten at which the files are made.
const REMEMBERED: usize = 8192;

/// How work is shared. Batches that are left are those that the helper has not made yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sharing {
    /// The helper is started when so much of the tar has been read; smaller ones are not worth it.
    pub(super) from: u64,
    /// The helper gets another directory if fewer batches are left: its work must not run out meanwhile.
    pub(super) few: u64,
    /// If so many batches are left, files of its directories are made by the reading thread, which would only wait.
    pub(super) many: u64,
}

impl Default for Sharing {
    fn default() -> Self {
        Self { from: 256 << 10, few: 6, many: QUEUE as u64 }
    }
}

/// A file to make.
struct File {
    /// Of the entry.
    name: Vec<u8>,
    path: Arc<[u8]>,
    mode: Mode,
    in_new_dir: bool,
}

impl File {
    fn as_new(&self) -> New<'_> {
        New { path: &self.path, mode: self.mode, in_new_dir: self.in_new_dir }
    }
}

/// Of making a file.
enum Step {
    Create(File),
    Write(Piece),
    Finish,
}

/// What the helper is told at once.
type Batch = Vec<Step>;

/// How its thread has ended: what it made in directories that were there before, and whether something failed.
type Ended = (Vec<Vec<u8>>, Result<(), ExtractError>);

/// The helper, as the reading thread sees it.
pub(super) struct Helper {
    sharing: Sharing,
    /// While its thread runs.
    running: Option<Running>,
    batch: Batch,
    /// Where in the tar the chunk begins that reading has come to.
    chunk_offset: u64,
    /// The directory that was asked about last, and whether it is the helper's.
    dir: (Vec<u8>, bool),
    /// Files that may not be made yet, and with which batch they are.
    pending: HashMap<Arc<[u8]>, u64>,
    /// Batches sent.
    sent: u64,
    /// Batches of which all is made.
    done: u64,
    made: Vec<Vec<u8>>,
}

struct Running {
    to_helper: SyncSender<Batch>,
    from_helper: Receiver<()>,
    thread: JoinHandle<Ended>,
}

impl Helper {
    /// Its thread does not run yet.
    pub(super) fn new(sharing: Sharing) -> Self {
        Self {
            sharing,
            running: None,
            batch: Vec::new(),
            chunk_offset: 0,
            dir: (Vec::new(), false),
            pending: HashMap::new(),
            sent: 0,
            done: 0,
            made: Vec::new(),
        }
    }

    /// Told where reading the tar has come to, starts when it is time, and sends what has been gathered if this is
    /// another chunk.
    pub(super) fn come_to(&mut self, chunk_offset: u64, maker: &Maker) -> Result<(), ExtractError> {
        if self.chunk_offset != chunk_offset {
            self.chunk_offset = chunk_offset;
            self.send()?;
        }
        if self.running.is_none() && chunk_offset >= self.sharing.from {
            self.running = Some(start(maker.another()?)?);
        }
        Ok(())
    }

    /// Whether it is to make the next file, which is in `dir`.
    pub(super) fn takes_file_in(&mut self, dir: &[u8]) -> bool {
        if self.running.is_none() {
            return false;
        }
        let left = self.batches_left();
        if self.dir.0 != dir || !self.dir.1 {
            self.dir.0.clear();
            self.dir.0.extend_from_slice(dir);
            self.dir.1 = left < self.sharing.few;
        }
        self.dir.1 && left < self.sharing.many
    }

    /// Hands over a file, whose contents are given to [`write`](Self::write) next; then [`finish`](Self::finish) it.
    pub(super) fn create(&mut self, name: &[u8], new: New<'_>) {
        let path: Arc<[u8]> = new.path.into();
        self.pending.insert(Arc::clone(&path), self.sent + 1);
        let New { mode, in_new_dir, .. } = new;
        self.batch.push(Step::Create(File { name: name.to_vec(), path, mode, in_new_dir }));
    }

    pub(super) fn write(&mut self, piece: Piece) {
        self.batch.push(Step::Write(piece));
    }

    pub(super) fn finish(&mut self) {
        self.batch.push(Step::Finish);
    }

    /// Whether a file at this path is still to be made.
    pub(super) fn is_pending(&self, path: &[u8]) -> bool {
        self.pending.get(path).is_some_and(|&batch| batch > self.done)
    }

    /// Waits until everything is made that was handed over.
    pub(super) fn settle(&mut self) -> Result<(), ExtractError> {
        self.send()?;
        while self.done < self.sent {
            let Some(running) = &self.running else { break };
            if running.from_helper.recv().is_err() {
                return self.end();
            }
            self.done += 1;
        }
        self.pending.clear();
        Ok(())
    }

    /// Has everything made that was handed over, and ends the thread. Its error comes before any of the reading thread,
    /// which was further in the tar.
    pub(super) fn end(&mut self) -> Result<(), ExtractError> {
        let Some(Running { to_helper, from_helper: _until_it_ends, thread }) = self.running.take() else {
            return Ok(());
        };
        // If this fails, the thread has ended by an error.
        let _ = to_helper.send(std::mem::take(&mut self.batch));
        drop(to_helper);
        let (made, outcome) = thread.join().expect("making files does not panic");
        self.made = made;
        outcome
    }

    /// What it made in directories that were there before; known after the end.
    pub(super) fn made(&self) -> &[Vec<u8>] {
        &self.made
    }

    /// Sends what has been gathered. If the thread has ended by an error, that is returned.
    fn send(&mut self) -> Result<(), ExtractError> {
        let Some(running) = &self.running else { return Ok(()) };
        if self.batch.is_empty() {
            return if running.thread.is_finished() { self.end() } else { Ok(()) };
        }
        let room = self.batch.len();
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(room));
        if running.to_helper.send(batch).is_err() {
            return self.end();
        }
        self.sent += 1;
        if self.pending.len() > REMEMBERED {
            self.batches_left();
            self.pending.retain(|_, &mut batch| batch > self.done);
        }
        Ok(())
    }

    /// How many batches are not made yet, with the one that is being gathered.
    fn batches_left(&mut self) -> u64 {
        if let Some(running) = &self.running {
            self.done += running.from_helper.try_iter().count() as u64;
        }
        self.sent - self.done + u64::from(!self.batch.is_empty())
    }
}

fn start(mut maker: Maker) -> Result<Running, ExtractError> {
    let (to_helper, batches) = sync_channel(QUEUE);
    let (done, from_helper) = channel();
    let thread = thread::Builder::new()
        .name("make files".into())
        .spawn(move || {
            let outcome = make_all(&mut maker, &batches, &done);
            (maker.made, outcome)
        })
        .map_err(ExtractError::Thread)?;
    Ok(Running { to_helper, from_helper, thread })
}

/// Makes what comes, to the last or to the first error, and tells of every batch that is done.
fn make_all(maker: &mut Maker, batches: &Receiver<Batch>, done: &Sender<()>) -> Result<(), ExtractError> {
    const IN_ORDER: &str = "a file is created first and finished last";
    let mut current: Option<(fs::File, File)> = None;
    for batch in batches {
        for step in batch {
            match step {
                Step::Create(file) => {
                    let (dir, _) = split_leaf(&file.path);
                    maker.trail.go_to(dir).map_err(|error| maker.failure("open", dir, error))?;
                    let handle =
                        maker.create_file(file.as_new()).map_err(|problem| problem.of(&file.name))?;
                    current = Some((handle, file));
                }
                Step::Write(piece) => {
                    let (handle, file) = current.as_ref().expect(IN_ORDER);
                    maker.write(handle, file.as_new(), &piece)?;
                }
                Step::Finish => {
                    let (handle, file) = current.take().expect(IN_ORDER);
                    maker.finish_file(&handle, file.as_new())?;
                }
            }
        }
        // Nobody needs to know if the reading thread is waiting for the end.
        let _ = done.send(());
    }
    Ok(())
}
