//! SHA-256 of two streams at a time, with the instructions that x86-64 processors have for it.
//!
//! The steps are those of FIPS 180-4 § 6.2, as Intel's description of the instructions groups them: four rounds at a time, the eight
//! variables in two registers as (f, e, b, a) and (h, g, d, c), the message schedule in four registers of four words.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_cvtsi128_si64, _mm_extract_epi64, _mm_set_epi64x,
    _mm_setr_epi32, _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32,
    _mm_shuffle_epi8, _mm_shuffle_epi32,
};

use super::{Block, State};

/// Changes each state by its blocks; as many as the shorter of the two has. The states are given back if this processor cannot do it.
#[expect(
    unsafe_code,
    reason = "a function for some processors only is called where it was made sure that this is one"
)]
pub(super) fn compress<'s>(
    states: [&'s mut State; 2],
    blocks: [&[Block]; 2],
) -> Result<(), [&'s mut State; 2]> {
    if !(is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1")) {
        return Err(states);
    }
    // SAFETY: the processor has all the instructions that the function is compiled for (SSSE3 is part of SSE4.1). The function
    // itself is safe: it works on values and references.
    unsafe { compress_with_sha(states, blocks) };
    Ok(())
}

/// What each group of four rounds adds: the first 32 bits of the fractions of the cube roots of the first 64 primes
/// (FIPS 180-4 § 4.2.2).
const CONSTANTS: [[u32; 4]; 16] = {
    let mut constants = [[0; 4]; 16];
    let (mut n, mut prime) = (0, 2);
    while n < 64 {
        constants[n / 4][n % 4] = cube_root_fraction(prime);
        n += 1;
        prime = next_prime(prime);
    }
    constants
};

const fn next_prime(after: u128) -> u128 {
    let mut candidate = after + 1;
    let mut divisor = 2;
    while divisor < candidate {
        if candidate.is_multiple_of(divisor) {
            candidate += 1;
            divisor = 2;
        } else {
            divisor += 1;
        }
    }
    candidate
}

#[expect(clippy::cast_possible_truncation, reason = "the whole part of the root is cut off")]
const fn cube_root_fraction(n: u128) -> u32 {
    // The root in units of 2^-32, between bounds that come together; n is below 2^9.
    let (mut low, mut high) = (0_u128, 1 << 35);
    while high - low > 1 {
        let middle = u128::midpoint(low, high);
        if middle * middle * middle <= n << 96 {
            low = middle;
        } else {
            high = middle;
        }
    }
    low as u32
}

/// Which of the eight variables, called a to h, are in a lane's two registers.
const FEBA: [usize; 4] = [5, 4, 1, 0];
const HGDC: [usize; 4] = [7, 6, 3, 2];

/// One stream within a block.
#[derive(Clone, Copy)]
struct Lane {
    feba: __m128i,
    hgdc: __m128i,
    /// The last 16 words of the message schedule.
    words: [__m128i; 4],
}

#[target_feature(enable = "sha,sse4.1")]
fn compress_with_sha([first, second]: [&mut State; 2], [first_blocks, second_blocks]: [&[Block]; 2]) {
    let mut lanes = [load(first), load(second)];
    let [k0, k1, k2, k3, later @ ..] = &CONSTANTS;
    let (later, _) = later.as_chunks::<4>();
    for (first_block, second_block) in first_blocks.iter().zip(second_blocks) {
        let before = lanes;
        for (lane, block) in lanes.iter_mut().zip([first_block, second_block]) {
            lane.words = read(block);
        }
        for (at, constants) in [k0, k1, k2, k3].into_iter().enumerate() {
            for lane in &mut lanes {
                four_rounds(lane, at, constants);
            }
        }
        for constants in later {
            for (at, constants) in constants.iter().enumerate() {
                for lane in &mut lanes {
                    schedule(&mut lane.words, at);
                    four_rounds(lane, at, constants);
                }
            }
        }
        for (lane, before) in lanes.iter_mut().zip(before) {
            lane.feba = _mm_add_epi32(lane.feba, before.feba);
            lane.hgdc = _mm_add_epi32(lane.hgdc, before.hgdc);
        }
    }
    *first = store(lanes[0]);
    *second = store(lanes[1]);
}

#[inline]
#[target_feature(enable = "sha,sse4.1")]
fn load(state: &State) -> Lane {
    let in_order = |places: [usize; 4]| pack(places.map(|place| state[place]));
    Lane { feba: in_order(FEBA), hgdc: in_order(HGDC), words: [_mm_setzero_si128(); 4] }
}

#[inline]
#[target_feature(enable = "sha,sse4.1")]
fn store(lane: Lane) -> State {
    let mut state = [0; 8];
    for (places, words) in [(FEBA, lane.feba), (HGDC, lane.hgdc)] {
        for (place, word) in places.into_iter().zip(unpack(words)) {
            state[place] = word;
        }
    }
    state
}

/// The first word lowest.
#[inline]
#[target_feature(enable = "sha,sse4.1")]
fn pack(words: [u32; 4]) -> __m128i {
    let [a, b, c, d] = words.map(u32::cast_signed);
    _mm_setr_epi32(a, b, c, d)
}

#[inline]
#[target_feature(enable = "sha,sse4.1")]
#[expect(clippy::cast_possible_truncation, reason = "words are halves")]
fn unpack(words: __m128i) -> [u32; 4] {
    let halves = [_mm_cvtsi128_si64(words), _mm_extract_epi64::<1>(words)];
    let [[a, b], [c, d]] = halves.map(i64::cast_unsigned).map(|half| [half as u32, (half >> 32) as u32]);
    [a, b, c, d]
}

/// The words of a block, which are big-endian.
#[inline]
#[target_feature(enable = "sha,sse4.1")]
fn read(block: &Block) -> [__m128i; 4] {
    let order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let mut words = [order; 4];
    let (quarters, _) = block.as_chunks::<16>();
    for (words, quarter) in words.iter_mut().zip(quarters) {
        let (halves, _) = quarter.as_chunks();
        let [low, high] = [halves[0], halves[1]].map(i64::from_le_bytes);
        *words = _mm_shuffle_epi8(_mm_set_epi64x(high, low), order);
    }
    words
}

/// Replaces the oldest four words of the message schedule, which are those at `at`, by the next four.
#[inline]
#[target_feature(enable = "sha,sse4.1")]
fn schedule(words: &mut [__m128i; 4], at: usize) {
    let [older, old, new, newer] = [0, 1, 2, 3].map(|i| words[(at + i) % 4]);
    let across = _mm_alignr_epi8::<4>(newer, new);
    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(older, old), across);
    words[at] = _mm_sha256msg2_epu32(sum, newer);
}

/// The rounds for the four words at `at`.
#[inline]
#[target_feature(enable = "sha,sse4.1")]
fn four_rounds(lane: &mut Lane, at: usize, constants: &[u32; 4]) {
    let sums = _mm_add_epi32(lane.words[at], pack(*constants));
    lane.hgdc = _mm_sha256rnds2_epu32(lane.hgdc, lane.feba, sums);
    lane.feba = _mm_sha256rnds2_epu32(lane.feba, lane.hgdc, _mm_shuffle_epi32::<0x0e>(sums));
}
