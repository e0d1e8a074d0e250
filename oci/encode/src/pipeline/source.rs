//! Runs the sources of jobs, one job after the other, and sees to it that what they write is hashed and
//! written.

use std::io;

use super::board::Board;
use super::chunk::Chunk;
use super::output::Output;
use super::{Done, Error, Job};
use drydock_io::sink::Sink;

/// Does jobs until there are no more or one has failed.
pub(super) fn run<E>(jobs: &[Job<'_, E>], board: &Board<E>) {
    while let Some(number) = board.next_job() {
        if let Some(outcome) = do_job(number, &jobs[number], board).transpose() {
            board.finish(number, outcome);
        }
    }
}

/// Does one job. `None`: something else has failed.
fn do_job<E>(number: usize, job: &Job<'_, E>, board: &Board<E>) -> Result<Option<Done>, Error<E>> {
    if let Some(known) = job.known {
        let hashed = pass(number, job, Output::hashing(), board)?;
        if hashed.as_ref().is_none_or(|hashed| hashed.diff_id == known) {
            return Ok(hashed);
        }
    }
    pass(number, job, Output::create(job, board.settings)?, board)
}

/// Runs the source once.
fn pass<E>(
    number: usize,
    job: &Job<'_, E>,
    output: Output,
    board: &Board<E>,
) -> Result<Option<Done>, Error<E>> {
    board.begin(number, output);
    let mut sink = ChunkSink { board, job: number, chunk: None, passed_on: 0, refused: false };
    let written = (job.source)(&mut sink);
    if sink.refused {
        // Whatever the source made of it.
        return Ok(None);
    }
    written.map_err(Error::Source)?;
    // A layer has one chunk at least.
    if sink.passed_on == 0 && sink.chunk().is_err() {
        return Ok(None);
    }
    sink.pass_on();
    let output = board.end(number, sink.passed_on);
    output.map(|output| output.finish()).transpose()
}

/// Puts what a source writes into chunks.
struct ChunkSink<'a, E> {
    board: &'a Board<E>,
    job: usize,
    chunk: Option<Chunk>,
    /// How many chunks were passed on.
    passed_on: u64,
    /// The source was told to stop.
    refused: bool,
}

impl<E> ChunkSink<'_, E> {
    /// The chunk that is being filled, which has space: a full one is passed on at once.
    fn chunk(&mut self) -> io::Result<&mut Chunk> {
        let chunk = self.chunk.take().or_else(|| {
            let mut chunk = self.board.free_chunk()?;
            chunk.begin(self.job, self.passed_on);
            Some(chunk)
        });
        self.refused = chunk.is_none();
        let chunk = chunk.ok_or_else(|| io::Error::other("stopped, because something else failed"))?;
        Ok(self.chunk.insert(chunk))
    }

    fn pass_on(&mut self) {
        if let Some(chunk) = self.chunk.take() {
            self.passed_on += 1;
            self.board.add(chunk);
        }
    }
}

impl<E> Sink for ChunkSink<'_, E> {
    fn space(&mut self) -> io::Result<&mut [u8]> {
        Ok(self.chunk()?.space())
    }

    fn advance(&mut self, n: usize) {
        let chunk = self.chunk.as_mut().expect("there was a `space` before");
        chunk.advance(n);
        if chunk.is_full() {
            self.pass_on();
        }
    }
}
