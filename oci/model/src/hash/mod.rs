//! SHA-256, also of two streams at a time.
//!
//! One block of a stream cannot be hashed before the one before it is done, and a processor with instructions for SHA-256 spends most of that
//! time waiting. Two streams fill each other's gaps: together they take about two thirds of the time.

#[cfg(target_arch = "x86_64")]
mod pair;

use std::fmt;

use sha2::block_api::compress256;

/// Bytes that are hashed at a time.
const BLOCK: usize = 64;
type Block = [u8; BLOCK];
type State = [u32; 8];

/// The hash of nothing yet: the first 32 bits of the fractions of the square roots of the first 8 primes (FIPS 180-4 § 5.3.3).
const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The hash of one stream, which comes in pieces.
pub struct Hasher {
    state: State,
    /// What is short of a block.
    begun: Block,
    /// Of the stream so far, in bytes. The remainder by [`BLOCK`] are in `begun`.
    length: u64,
}

impl Hasher {
    /// Of an empty stream.
    pub fn new() -> Self {
        Self { state: INITIAL, begun: [0; BLOCK], length: 0 }
    }

    /// The stream goes on with these bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let (blocks, rest) = self.complete(bytes).as_chunks();
        compress256(&mut self.state, blocks);
        self.begin(rest);
    }

    /// The SHA-256 of the stream.
    pub fn finish(mut self) -> [u8; 32] {
        let bits = self.length.wrapping_mul(8);
        // A one, zeros, and the length in the last 8 bytes of a block (FIPS 180-4 § 5.1.1).
        let mut padding = [0; 2 * BLOCK];
        padding[0] = 0x80;
        let used = self.used();
        let end = if used < BLOCK - 8 { BLOCK - used } else { 2 * BLOCK - used };
        padding[end - 8..end].copy_from_slice(&bits.to_be_bytes());
        self.update(&padding[..end]);
        let mut digest = [0; 32];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        digest
    }

    /// How much of `begun` counts.
    fn used(&self) -> usize {
        usize::try_from(self.length % BLOCK as u64).expect("is less than a block")
    }

    /// Counts these bytes, and completes with them what was begun. What remains of them begins with a new block.
    fn complete<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let used = self.used();
        self.length += bytes.len() as u64;
        if used == 0 {
            return bytes;
        }
        let (now, later) = bytes.split_at(bytes.len().min(BLOCK - used));
        self.begun[used..][..now.len()].copy_from_slice(now);
        if used + now.len() == BLOCK {
            compress256(&mut self.state, &[self.begun]);
        }
        later
    }

    /// Keeps what is short of a block, after [`Hasher::complete`].
    fn begin(&mut self, rest: &[u8]) {
        self.begun[..rest.len()].copy_from_slice(rest);
    }
}

/// Two streams go on, each with these bytes. Where the two are of one length, that takes the least time.
pub fn update_two(streams: [(&mut Hasher, &[u8]); 2]) {
    let [(first, first_bytes), (second, second_bytes)] = streams;
    let (first_blocks, first_rest) = first.complete(first_bytes).as_chunks();
    let (second_blocks, second_rest) = second.complete(second_bytes).as_chunks();
    let (pairs, first_alone, second_alone) = in_pairs(first_blocks, second_blocks);
    compress_pairs([&mut first.state, &mut second.state], pairs);
    compress256(&mut first.state, first_alone);
    compress256(&mut second.state, second_alone);
    first.begin(first_rest);
    second.begin(second_rest);
}

/// As many blocks as both have, and those that only one has.
fn in_pairs<'a>(first: &'a [Block], second: &'a [Block]) -> ([&'a [Block]; 2], &'a [Block], &'a [Block]) {
    let both = first.len().min(second.len());
    ([&first[..both], &second[..both]], &first[both..], &second[both..])
}

/// Changes each state by blocks of its own, equally many.
fn compress_pairs(states: [&mut State; 2], blocks: [&[Block]; 2]) {
    #[cfg(target_arch = "x86_64")]
    let (states, blocks) = match pair::compress(states, blocks) {
        Ok(()) => return,
        Err(states) => (states, blocks),
    };
    for (state, blocks) in states.into_iter().zip(blocks) {
        compress256(state, blocks);
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({} bytes)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn bytes(n: usize) -> Vec<u8> {
        (0..n).map(|i| u8::try_from(i * i / 7 % 251).unwrap()).collect()
    }

    #[test]
    fn hashes_are_those_of_sha2() {
        for n in (0..200).chain([1000, 4096, 100_003]) {
            let bytes = bytes(n);
            let mut hasher = Hasher::new();
            hasher.update(&bytes);
            assert_eq!(hasher.finish(), <[u8; 32]>::from(Sha256::digest(&bytes)), "{n} bytes");
        }
    }

    proptest! {
        /// However two streams are cut into pieces and whichever pieces come together.
        #[test]
        fn two_at_a_time_are_as_one_by_one(
            pieces in prop::collection::vec((0..3_u8, 0..400_usize, 0..400_usize), 0..20),
        ) {
            let (first, second) = (bytes(8000), bytes(8001));
            let (first, second) = (&first[..], &second[1..]);
            let mut hashers = [Hasher::new(), Hasher::new()];
            let (mut at, mut other_at) = (0, 0);
            for (which, n, other_n) in pieces {
                let [hasher, other] = &mut hashers;
                let (piece, other_piece) = (&first[at..at + n], &second[other_at..other_at + other_n]);
                match which {
                    0 => update_two([(hasher, piece), (other, other_piece)]),
                    1 => update_two([(other, other_piece), (hasher, piece)]),
                    _ => {
                        hasher.update(piece);
                        other.update(other_piece);
                    }
                }
                (at, other_at) = (at + n, other_at + other_n);
            }
            let digests = hashers.map(Hasher::finish);
            let expected = [&first[..at], &second[..other_at]].map(|all| <[u8; 32]>::from(Sha256::digest(all)));
            prop_assert_eq!(digests, expected);
        }
    }
}
