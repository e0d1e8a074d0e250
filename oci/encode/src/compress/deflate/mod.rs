//! The encoder for gzip's level 1: made for layers, where time counts more than the last percent of size.
//!
//! It takes about 60 % of the time of the fastest level of zlib-rs. Its output is 3 to 4 % longer than that
//! of `gzip -1`, and shorter than that of Go's level 1. It uses no instructions that only some processors
//! have, and no number that depends on addresses, threads or earlier chunks: the same chunk has the same
//! encoding everywhere.
//!
//! # The format
//! Deflate (RFC 1951) is a row of blocks of bits. A block holds literal bytes and references (so many bytes,
//! from so far back, at most 32 KiB), in a Huffman code that it tells first; or in a code that needs no
//! telling; or bytes as they are. A chunk here becomes blocks that refer to nothing before the chunk, none of
//! them marked as the last, and then an empty block of stored bytes, which ends at a whole byte. So encoded
//! chunks can be put one after the other.
//!
//! # The choices
//! - `matches`: takes the first repetition that it finds (greedy), at the one position that a small hash
//!   table remembers (one probe). Repetitions of fewer than 6 bytes are not looked for: they gain little.
//!   Where nothing repeats, it skips ahead.
//! - `tokens`: what was found is kept in words of one form, which are counted and written without a decision
//!   for each.
//! - `block`: 128 KiB share a code, which adapts to changing contents for a price of about 80 bytes each. The
//!   exact length of all three forms is known before one is written.
//! - `huffman`: codes are limited to 14 bits for literals, so that four fit into a word between two flushes.
#![forbid(unsafe_code)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "positions, symbols and lengths are packed into few bits"
)]
#![expect(clippy::inline_always, reason = "a call per token costs a tenth of the time")]

mod bits;
mod block;
mod huffman;
mod matches;
mod symbols;
mod tokens;

use std::fmt;

use bits::BitWriter;
use matches::Matcher;

/// How many bytes share a Huffman code.
const BLOCK: usize = 128 << 10;

/// Encodes chunks, one at a time.
pub struct Encoder {
    matcher: Matcher,
}

impl Encoder {
    /// Allocates the tables: about 0.3 MiB.
    pub fn new() -> Self {
        Self { matcher: Matcher::new() }
    }

    /// Writes `chunk` into the beginning of `out`, as deflate blocks of which none is the last, up to a whole
    /// byte. Returns how many bytes that are; `out` must have [`bound`] bytes.
    pub fn encode(&mut self, chunk: &[u8], out: &mut [u8]) -> usize {
        let mut bits = BitWriter::new(out);
        self.matcher.reset();
        for start in (0..chunk.len()).step_by(BLOCK) {
            let end = chunk.len().min(start + BLOCK);
            let tokens = self.matcher.block(&chunk[..end], start);
            block::write(&mut bits, &chunk[start..end], tokens);
        }
        block::write_stored(&mut bits, &[]);
        bits.len()
    }
}

/// No chunk of `n` bytes becomes longer than this.
///
/// No block is longer than if it were stored. That takes 5 bytes for each 64 KiB that were begun; so does the
/// empty block at the end; and the bit writer wants 8 to spare.
pub const fn bound(n: usize) -> usize {
    n + 5 * (3 * n.div_ceil(BLOCK) + 1) + 8
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deflate::Encoder")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    /// Encodes, checks the length, decodes with another implementation, compares. Returns the encoding's
    /// length.
    fn check(encoder: &mut Encoder, chunk: &[u8]) -> usize {
        let mut out = vec![0x55; bound(chunk.len())];
        let length = encoder.encode(chunk, &mut out);
        assert!(length + 8 <= out.len(), "{} bytes became {length}", chunk.len());
        out.truncate(length);
        assert!(out.ends_with(&[0, 0, 0xff, 0xff]), "no empty stored block at the end");

        let mut again = vec![0xaa; bound(chunk.len())];
        assert_eq!(Encoder::new().encode(chunk, &mut again), length);
        assert!(again[..length] == out, "the encoding depends on what was encoded before");

        out.extend([3, 0]);
        let mut decoded = Vec::new();
        flate2::read::DeflateDecoder::new(&out[..]).read_to_end(&mut decoded).unwrap();
        assert!(decoded == chunk, "{} bytes came back as others", chunk.len());
        length
    }

    /// Bytes without any pattern, the same every time.
    fn noise(n: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let step = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(step).take(n).collect()
    }

    const SIZES: [usize; 14] =
        [0, 1, 2, 3, 15, 16, 17, 300, 65_535, 65_536, BLOCK - 1, BLOCK, BLOCK + 1, 512 << 10];

    #[test]
    fn constant_and_periodic() {
        let mut encoder = Encoder::new();
        for n in SIZES {
            for period in [1, 2, 3, 7, 258, 4096, 32_768, 32_769, 40_000] {
                let pattern = noise(period);
                let chunk: Vec<u8> = pattern.iter().copied().cycle().take(n).collect();
                let length = check(&mut encoder, &chunk);
                assert!(
                    period > 4096 || length < 2 * period + n / 100 + 100,
                    "{n} bytes of period {period}: {length}"
                );
            }
        }
    }

    #[test]
    fn noise_is_stored() {
        let mut encoder = Encoder::new();
        for n in SIZES {
            let noise = noise(n);
            let stored: usize = noise.chunks(BLOCK).map(|block| block.len().div_ceil(0xffff)).sum();
            let length = check(&mut encoder, &noise);
            // A block of a few bytes may be shorter in the fixed code.
            assert!(length <= n + 5 * (stored + 1), "{n} became {length}");
        }
    }

    #[test]
    fn few_symbols_take_few_bits() {
        let mut encoder = Encoder::new();
        let three: Vec<u8> = noise(512 << 10).into_iter().map(|byte| byte % 3).collect();
        // log2(3) = 1.58 of 8 bits would be the best.
        let length = check(&mut encoder, &three);
        assert!(length < three.len() * 28 / 100, "{length} bytes");
    }

    #[test]
    fn rare_symbols_have_long_codes() {
        // Each symbol 1.6 times as common as the one before: without a limit, the rarest would have 25 bits.
        let mut chunk = Vec::new();
        let (mut a, mut b) = (1, 1);
        for symbol in 0..25 {
            chunk.extend(std::iter::repeat_n(symbol, a));
            (a, b) = (b, a + b);
        }
        // Shuffled, so that nothing is left to refer to.
        let mut random = noise(8 * chunk.len()).into_iter();
        for i in (1..chunk.len()).rev() {
            let number = random.by_ref().take(8).fold(0_u64, |all, byte| all << 8 | u64::from(byte));
            chunk.swap(i, usize::try_from(number % (i as u64 + 1)).unwrap());
        }
        check(&mut Encoder::new(), &chunk);
    }

    #[test]
    fn references_reach_back_a_whole_window() {
        let mut encoder = Encoder::new();
        for (gap, reached) in [(32_768 - 1000, true), (32_768 + 1, false)] {
            let text = noise(1000);
            let zeros = vec![0; gap];
            let chunk = [&text[..], &zeros, &text].concat();
            let length = check(&mut encoder, &chunk);
            assert_eq!(length < 1500, reached, "{length} bytes with {gap} between the two");
        }
    }

    #[test]
    fn matches_that_wrap_around_the_table_are_right() {
        // Positions are kept modulo 65536: the same text at that distance must not be taken for one nearby.
        let mut chunk = noise(512 << 10);
        for at in (0..chunk.len() - 64).step_by(65_536) {
            chunk[at..at + 64].fill(b'x');
        }
        check(&mut Encoder::new(), &chunk);
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(chunk in prop::collection::vec(any::<u8>(), 0..5000)) {
            check(&mut Encoder::new(), &chunk);
        }

        /// Pieces of noise, of few symbols and of repetitions, as they follow one another in real files.
        #[test]
        fn any_mixture_comes_back(pieces in prop::collection::vec((0..4_u8, 1..40_000_usize, any::<u8>()), 0..12)) {
            let mut chunk: Vec<u8> = Vec::new();
            for (kind, n, byte) in pieces {
                match kind {
                    0 => chunk.extend(noise(n)),
                    1 => chunk.extend(std::iter::repeat_n(byte, n)),
                    2 => chunk.extend(noise(n).into_iter().map(|noise| byte.wrapping_add(noise % 3))),
                    _ => {
                        let from = usize::from(byte) * chunk.len() / 256;
                        let to = chunk.len().min(from + n);
                        chunk.extend_from_within(from..to);
                    }
                }
            }
            chunk.truncate(512 << 10);
            check(&mut Encoder::new(), &chunk);
        }
    }
}
