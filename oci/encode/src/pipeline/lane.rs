//! Does jobs one after the other: runs their sources, and sees to it that what they write is hashed and written.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::board::{Board, Chunk};
use super::layer::Layer;
use super::pool::{Pool, Slot};
use super::{Done, Error, Failure, Job, Source, StopOnPanic};
use crate::compress::{Checksum, Compression};
use drydock_io::sink::Sink;

/// Outcomes of jobs, with their numbers.
pub(super) type Outcomes<E> = Vec<(usize, Result<Done, Failure<E>>)>;

/// Does one job after the other, until there are no more or one has failed.
pub(super) fn run<'p, E>(
    jobs: &[Job<'_, E>],
    next: &AtomicUsize,
    pool: &'p Pool,
    board: &Board<'p, E>,
) -> Outcomes<E> {
    let _guard = StopOnPanic { board, pool };
    let mut outcomes = Vec::new();
    while !pool.is_stopped() {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(job) = jobs.get(number) else { break };
        let outcome = Lane { number, pool, board }.job(job);
        if outcome.is_err() {
            pool.stop();
        }
        outcomes.push((number, outcome));
    }
    board.leave();
    outcomes
}

/// One job in work.
struct Lane<'a, 'p, E> {
    number: usize,
    pool: &'p Pool,
    board: &'a Board<'p, E>,
}

impl<E> Lane<'_, '_, E> {
    fn job(&self, job: &Job<'_, E>) -> Result<Done, Failure<E>> {
        if let Some(known) = job.known {
            let hashed = self.pass(job.source, Layer::create(None, None)?, Compression::NONE)?;
            if hashed.diff_id == known {
                return Ok(hashed);
            }
        }
        let compression = job.blob.map_or(Compression::NONE, |(_, compression)| compression);
        self.pass(job.source, Layer::create(job.blob, job.copy)?, compression)
    }

    /// Runs the source once, with these outputs.
    fn pass(
        &self,
        source: &Source<'_, E>,
        layer: Layer,
        compression: Compression,
    ) -> Result<Done, Failure<E>> {
        self.board.begin(self.number, layer);
        match self.produce(source, compression) {
            Ok(chunks) => {
                let layer = self.board.end(self.number, chunks).ok_or(Failure::Elsewhere)??;
                Ok(layer.finish()?)
            }
            // If writing failed, that is why the source did.
            Err(failure) => Err(self.board.abandon(self.number).map_or(failure, Failure::Own)),
        }
    }

    /// Lets the source fill chunks. Returns how many: at least one.
    fn produce(&self, source: &Source<'_, E>, compression: Compression) -> Result<u64, Failure<E>> {
        let mut sink = ChunkSink { lane: self, compression, slot: None, passed_on: 0, refused: false };
        let written = source(&mut sink);
        if sink.refused {
            // Whatever the source made of it.
            return Err(Failure::Elsewhere);
        }
        written.map_err(Error::Source)?;
        if sink.passed_on == 0 {
            sink.slot().map_err(|_| Failure::Elsewhere)?;
        }
        sink.pass_on();
        Ok(sink.passed_on)
    }
}

/// Puts what the source writes into chunks.
struct ChunkSink<'a, 'p, E> {
    lane: &'a Lane<'a, 'p, E>,
    compression: Compression,
    slot: Option<Slot<'p>>,
    /// How many chunks were passed on.
    passed_on: u64,
    /// The source was told to stop.
    refused: bool,
}

impl<'p, E> ChunkSink<'_, 'p, E> {
    fn slot(&mut self) -> io::Result<&mut Slot<'p>> {
        let slot = self.slot.take().or_else(|| self.lane.pool.take());
        self.refused = slot.is_none();
        let slot = slot.ok_or_else(|| io::Error::other("stopped, because something else failed"))?;
        Ok(self.slot.insert(slot))
    }

    fn pass_on(&mut self) {
        if let Some(slot) = self.slot.take() {
            let index = self.passed_on;
            self.passed_on += 1;
            let chunk =
                Chunk { job: self.lane.number, index, slot, encoded: 0, checksum: Checksum::default() };
            self.lane.board.add(chunk, self.compression);
        }
    }
}

impl<E> Sink for ChunkSink<'_, '_, E> {
    fn space(&mut self) -> io::Result<&mut [u8]> {
        // A full slot is passed on at once: there is space.
        Ok(self.slot()?.space())
    }

    fn advance(&mut self, n: usize) {
        let slot = self.slot.as_mut().expect("there was a `space` before");
        slot.advance(n);
        if slot.is_full() {
            self.pass_on();
        }
    }
}
