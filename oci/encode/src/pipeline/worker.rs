//! Compresses, hashes and writes chunks of all layers, on as many threads as there are cores.

use super::board::{Board, Chunk, Step};
use super::layer::{self, Layer};
use super::pool::Pool;
use super::{Error, StopOnPanic};
use crate::compress::{Encoded, Encoder};

/// Does what there is to do until there will be no more.
pub(super) fn work<E>(board: &Board<'_, E>, pool: &Pool) {
    let _guard = StopOnPanic { board, pool };
    let mut encoder: Option<Encoder> = None;
    while let Some(step) = board.next() {
        match step {
            Step::Compress(mut chunk, compression) => {
                let fitting = encoder.take().filter(|encoder| encoder.compression() == compression);
                let encoder = encoder.insert(fitting.unwrap_or_else(|| compression.encoder()));
                let (bytes, out) = chunk.slot.chunk_and_output();
                Encoded { len: chunk.encoded, checksum: chunk.checksum } = encoder.encode(bytes, out);
                board.finish_in_turn(chunk);
            }
            Step::Finish(mut layers) => {
                layer::hash(&mut layers);
                let written: Vec<_> = layers.into_iter().map(write).collect();
                let is_over = written.iter().any(|(_, written)| written.is_err());
                board.give_back(written);
                if is_over {
                    // The sources would go on for long. When they see that, the reason must be known.
                    pool.stop();
                }
            }
        }
    }
}

/// Writes a chunk, whose slot is free then: a source may wait for it.
fn write<E>((mut layer, chunk): (Layer, Chunk<'_>)) -> (usize, Result<Layer, Error<E>>) {
    let written = layer.write(&chunk);
    (chunk.job, written.map(|()| layer))
}
