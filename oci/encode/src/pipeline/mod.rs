//! Writes layers in one pass: tar, diff ID, compression, digest and blob at the same time, on all cores.
//!
//! ```text
//! source ──▶ chunk ──▶ compress ──▶ in order ──▶ hash tar and encoding ──▶ write blob and copy
//!                                                (diff ID)    (digest)
//! ```
//! A thread for each layer in work runs its source, which fills chunks. What is to be done with them is on a
//! `board`, for all layers together; workers do it, as many as there are cores. A source that would have to
//! wait does it too. Several layers are in work at once, begun in the order of the jobs.
//!
//! **Any number of threads will do.** The calling thread runs a source, and with it everything else if it is
//! alone. Those that cannot be started, where the system limits their number, are done without.
//!
//! **Memory is bounded.** Chunks have a fixed length, and their number and that of encoders are such that
//! together they take 56 MiB at most, however many cores, layers and bytes there are. What else a run takes
//! is a few kB for each thread.
//!
//! **Nothing waits in a circle.** A thread waits only when the board has nothing for it, and then it holds no
//! chunk. If all threads waited, every chunk in use would be on the board. Of those of one layer, the first
//! would either still have to be compressed, and an encoder for that would be free; or it would be the next
//! to be written, and its layer's output would be free. So there would be something to do. If no chunk is in
//! use, one is free, and all layers are complete: no source has anything to wait for. All this holds for a
//! single chunk too.
//!
//! **Bytes do not depend on threads.** Chunks end where the tar says, each is encoded by itself, and they are
//! written in order.
//!
//! The first failure stops all: no source gets a chunk any more, what is on the board is dropped, temporary
//! files are removed.

mod board;
mod chunk;
mod output;
mod resources;
mod source;

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::sync::{self, thread};
use crate::compress::Compression;
use board::{Board, StopOnPanic};
use drydock_io::dir::Place;
use drydock_io::file::TempFile;
use drydock_io::sink::Sink;
use drydock_model::digest::{DiffId, Digest};
pub(crate) use resources::Resources;

/// Writes a layer's tar. The same bytes each time: it may be called twice.
///
/// When the sink fails, it should end; what it returns then is not looked at.
pub type Source<'a, E> = dyn Fn(&mut dyn Sink) -> Result<(), E> + Sync + 'a;

/// What to do with one layer. Without `blob` and `copy`: find out its diff ID.
pub struct Job<'a, E> {
    /// Writes the layer's tar.
    pub source: &'a Source<'a, E>,
    /// The diff ID that the layer had before. It is hashed first then, and if it still has that one, nothing
    /// is written.
    pub known: Option<DiffId>,
    /// Beside what a temporary file with the compressed layer is made, if that is wanted.
    pub blob: Option<&'a Place>,
    /// The folder for a temporary file with the tar itself, if that is wanted. It is not kept in memory: it
    /// should not be what is read next.
    pub copy: Option<&'a Path>,
}

impl<E> fmt::Debug for Job<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { known, blob, copy, .. } = self;
        write!(f, "Job {{ known: {known:?}, blob: {blob:?}, copy: {copy:?} }}")
    }
}

/// How all jobs of a run are done.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How many chunks and layers are worked on at a time, at most: the number of cores.
    pub threads: NonZeroUsize,
    /// How blobs are compressed.
    pub compression: Compression,
    /// Whether blobs are on their way to the disk while they are made: whoever syncs their files waits the less.
    pub write_out: bool,
}

/// A layer that is done.
#[derive(Debug)]
pub struct Done {
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// Bytes in its tar.
    pub size: u64,
    /// `None` where no blob was asked for, or where the layer is the known one.
    pub blob: Option<Blob>,
    /// The tar; `None` likewise.
    pub copy: Option<TempFile>,
}

/// A compressed layer, in a file that has no name yet.
#[derive(Debug)]
pub struct Blob {
    /// The digest of the file's bytes.
    pub digest: Digest,
    /// Bytes in the file.
    pub size: u64,
    /// What the blob is, for its descriptor.
    pub media_type: &'static str,
    /// The file, beside what the job names.
    pub file: TempFile,
}

/// Why layers could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error<E> {
    /// A source failed.
    #[error(transparent)]
    Source(E),
    /// A blob or a copy could not be written.
    #[error(transparent)]
    Write(WriteError),
}

/// A blob or a copy could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write a layer to `{}`", path.display())]
pub struct WriteError {
    /// The folder or the temporary file.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

impl<E: From<WriteError>> Error<E> {
    /// As an error of the sources' kind.
    pub fn into_source(self) -> E {
        match self {
            Self::Source(error) => error,
            Self::Write(error) => error.into(),
        }
    }
}

/// Does all jobs. The results are in the order of the jobs; the error is that of the first job that failed by
/// itself.
pub fn run<E: Send>(jobs: &[Job<'_, E>], settings: Settings) -> Result<Vec<Done>, Error<E>> {
    run_with(jobs, settings, &Resources::of(jobs.len(), settings))
}

/// The same with as many threads, encoders and chunks as is said.
pub(crate) fn run_with<E: Send>(
    jobs: &[Job<'_, E>],
    settings: Settings,
    resources: &Resources,
) -> Result<Vec<Done>, Error<E>> {
    let board = &Board::new(jobs.len(), settings, resources);
    thread::scope(|scope| {
        for number in 1..resources.workers + resources.sources {
            let thread = move || {
                let _guard = StopOnPanic(board);
                if number <= resources.workers { board.work() } else { source::run(jobs, board) }
            };
            if thread::Builder::new().spawn_scoped(scope, thread).is_err() {
                break;
            }
        }
        let _guard = StopOnPanic(board);
        source::run(jobs, board);
    });
    board.outcome()
}
