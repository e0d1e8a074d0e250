//! Compresses, hashes and writes chunks of all layers, on as many threads as there are cores.

use super::StopOnPanic;
use super::board::{Board, Step};
use super::pool::Pool;
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
            Step::Finish(mut layer, chunk) => {
                let job = chunk.job;
                let written = layer.write(&chunk).map(|()| layer);
                // Its slot is free now: a source may wait for it.
                drop(chunk);
                let failed = written.is_err();
                board.give_back(job, written);
                if failed {
                    // The sources would go on for long. When they see that, the reason must be known.
                    pool.stop();
                }
            }
        }
    }
}
