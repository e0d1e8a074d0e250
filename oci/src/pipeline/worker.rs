//! Compresses chunks of all layers, on as many threads as there are cores.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Mutex, PoisonError};

use super::pool::Slot;
use crate::compress::{Checksum, Compression, Encoded, Encoder};

/// A chunk on its way to the collector of its layer.
#[derive(Debug)]
pub(super) struct Chunk<'p> {
    /// Its place in the layer.
    pub(super) index: u64,
    pub(super) slot: Slot<'p>,
    /// Length of the encoding, in the slot's output; 0 where none is wanted.
    pub(super) encoded: usize,
    pub(super) checksum: Checksum,
}

/// A chunk to be compressed, and where it goes then.
#[derive(Debug)]
pub(super) struct Task<'p> {
    pub(super) chunk: Chunk<'p>,
    pub(super) compression: Compression,
    pub(super) collector: Sender<Chunk<'p>>,
}

/// Takes tasks until there will be no more.
pub(super) fn work(tasks: &Mutex<Receiver<Task<'_>>>) {
    let mut encoder: Option<Encoder> = None;
    loop {
        // The lock is held while waiting, not while working.
        let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Task { mut chunk, compression, collector }) = task else { return };
        let fitting = encoder.take().filter(|encoder| encoder.compression() == compression);
        let encoder = encoder.insert(fitting.unwrap_or_else(|| compression.encoder()));
        let (bytes, out) = chunk.slot.chunk_and_output();
        Encoded { len: chunk.encoded, checksum: chunk.checksum } = encoder.encode(bytes, out);
        // A collector that could not write is gone; then the slot goes back to the pool, and the run ends.
        drop(collector.send(chunk));
    }
}
