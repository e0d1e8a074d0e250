//! Writes layers in one pass: tar, diff ID, compression, digest and blob at the same time, on all cores.
//!
//! ```text
//! source ──▶ chunk ──▶ compress ──▶ in order ──▶ hash tar and encoding ──▶ write blob and copy
//!            in a slot                           (diff ID)    (digest)
//! ```
//! For each layer in work, one thread runs the source. All else is done by workers, as many as there are cores, for whichever layer there is
//! something to do. Several layers are in work at once, begun in the order of the jobs.
//!
//! **Memory is bounded.** A chunk and its encoding travel in one slot, and there is a fixed number of slots: about four MiB for each thread,
//! whatever the layers are. A source waits for a slot.
//!
//! **Nothing waits in a circle.** Only a source waits for a slot, and when it does it holds none. Every slot that
//! it has passed on has all the room that the rest of its way needs, and workers wait for nothing but something to do: so it comes
//! back. That holds for a single slot too.
//!
//! **Bytes do not depend on threads.** Chunks end where the tar says, each is encoded by itself, and they are written in order.
//!
//! The first failure stops all: no source gets space any more, what is on its way is dropped, temporary files are removed.

mod board;
mod lane;
mod layer;
mod pool;
mod worker;

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::{panic, thread};

use crate::compress::Compression;
use board::Board;
use drydock_io::file::TempFile;
use drydock_io::sink::Sink;
use drydock_model::digest::{DiffId, Digest};
use lane::Outcomes;
use pool::Pool;

/// Writes a layer's tar. The same bytes each time: it may be called twice.
///
/// When the sink fails, it should end; what it returns then is not looked at.
pub type Source<'a, E> = dyn Fn(&mut dyn Sink) -> Result<(), E> + Sync + 'a;

/// What to do with one layer. Without `blob` and `copy`: find out its diff ID.
pub struct Job<'a, E> {
    /// Its tar.
    pub source: &'a Source<'a, E>,
    /// The diff ID that it had before. It is hashed first then, and if it still has that one, nothing is written.
    pub known: Option<DiffId>,
    /// Compress it like this, into a temporary file in this folder.
    pub blob: Option<(&'a Path, Compression)>,
    /// Write the tar itself into a temporary file in this folder, in the same pass. It is not kept in memory: it should not be what
    /// is read next.
    pub copy: Option<&'a Path>,
}

impl<E> fmt::Debug for Job<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { known, blob, copy, .. } = self;
        write!(f, "Job {{ known: {known:?}, blob: {blob:?}, copy: {copy:?} }}")
    }
}

/// A layer that is done.
#[derive(Debug)]
pub struct Done {
    /// Of its tar.
    pub diff_id: DiffId,
    /// Bytes in its tar.
    pub size: u64,
    /// None where none was asked for, or where the layer is the known one.
    pub blob: Option<Blob>,
    /// The tar; likewise.
    pub copy: Option<TempFile>,
}

/// A compressed layer, in a file that has no name yet.
#[derive(Debug)]
pub struct Blob {
    /// Of the file's bytes.
    pub digest: Digest,
    /// Bytes in the file.
    pub size: u64,
    /// For the descriptor.
    pub media_type: &'static str,
    /// In the folder that was asked for.
    pub file: TempFile,
}

/// Why layers could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error<E> {
    /// A source failed.
    #[error(transparent)]
    Source(E),
    /// A blob or a copy could not be written.
    #[error("cannot write a layer to `{}`", path.display())]
    Write {
        /// The folder or the temporary file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Why one job ended early.
enum Failure<E> {
    /// It failed.
    Own(Error<E>),
    /// Another one did.
    Elsewhere,
}

impl<E> From<Error<E>> for Failure<E> {
    fn from(error: Error<E>) -> Self {
        Self::Own(error)
    }
}

/// Ends the run if a thread panics: others would wait for it.
struct StopOnPanic<'a, 'p, E> {
    board: &'a Board<'p, E>,
    pool: &'a Pool,
}

impl<E> Drop for StopOnPanic<'_, '_, E> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.board.break_off();
            self.pool.stop();
        }
    }
}

/// So many layers at once are enough: beyond that, more threads are better used within them.
const MOST_LANES: usize = 16;

/// Does all jobs. The results are in the order of the jobs; the error is that of the first job that failed by itself.
///
/// `threads` is how many chunks are worked on at a time, and how many layers are in work: the number of cores.
pub fn run<E: Send>(jobs: &[Job<'_, E>], threads: NonZeroUsize) -> Result<Vec<Done>, Error<E>> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let threads = threads.get();
    let lanes = jobs.len().min(threads).min(MOST_LANES);
    // One in work and one waiting, for each worker; one being filled and one waiting for its turn, for each layer.
    let pool = Pool::new(2 * threads + 2 * lanes);
    let board = Board::new(lanes);
    let next = AtomicUsize::new(0);

    let mut outcomes: Outcomes<E> = thread::scope(|scope| {
        let lanes: Vec<_> =
            (0..lanes).map(|_| scope.spawn(|| lane::run(jobs, &next, &pool, &board))).collect();
        for _ in 0..threads {
            scope.spawn(|| worker::work(&board, &pool));
        }
        let join = |lane: thread::ScopedJoinHandle<'_, _>| {
            lane.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
        };
        lanes.into_iter().flat_map(join).collect()
    });

    outcomes.sort_unstable_by_key(|&(number, _)| number);
    let mut done = Vec::with_capacity(jobs.len());
    for (_, outcome) in outcomes {
        match outcome {
            Ok(layer) => done.push(layer),
            Err(Failure::Own(error)) => return Err(error),
            Err(Failure::Elsewhere) => {}
        }
    }
    assert!(done.len() == jobs.len(), "a job ends early only when one has failed");
    Ok(done)
}

#[cfg(test)]
mod tests;
