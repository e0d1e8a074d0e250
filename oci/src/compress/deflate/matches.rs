//! Finds repetitions: turns bytes into literals and references to earlier bytes (LZ77).

use super::BLOCK;
use super::symbols::{self, MAX_MATCH, MIN_MATCH, WINDOW};

/// So many places in the hash table; at two bytes each, it stays in the first-level cache.
const PLACES: usize = 1 << 14;
/// How many bytes are hashed. Shorter repetitions are hardly worth their reference, and cost time.
const HASHED: u32 = 5;
/// How many bytes must be equal for a reference.
const LEAST: usize = 4;
/// Searching looks at words of eight bytes, at two positions, and stops where there is no such word.
const MARGIN: usize = 16;
/// After so many literals without a reference (as a power of two), positions are skipped, more and more of them.
const PATIENCE: u32 = 7;

/// Literals, and then a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) literals: u32,
    /// Less [`MIN_MATCH`].
    pub(super) length: u8,
    pub(super) distance_symbol: u8,
    /// Less 1.
    pub(super) distance: u16,
}

/// A block as literals and references, and how often each symbol occurs in it.
pub(super) struct Tokens {
    pub(super) sequences: Vec<Sequence>,
    /// The literals of all sequences, and after them those that no reference follows. The rest of it is arbitrary.
    literals: Box<[u8]>,
    used: usize,
    pub(super) length_counts: [u32; symbols::LENGTHS],
    pub(super) distance_counts: [u32; symbols::DISTANCES],
}

impl Tokens {
    fn new() -> Self {
        Self {
            sequences: Vec::with_capacity(BLOCK / LEAST),
            literals: vec![0; BLOCK + MARGIN].into(),
            used: 0,
            length_counts: [0; symbols::LENGTHS],
            distance_counts: [0; symbols::DISTANCES],
        }
    }

    /// All literals of the block, in order.
    pub(super) fn literals(&self) -> &[u8] {
        &self.literals[..self.used]
    }

    fn clear(&mut self) {
        self.sequences.clear();
        self.used = 0;
        self.length_counts.fill(0);
        self.distance_counts.fill(0);
    }

    #[inline(always)]
    fn add_literals(&mut self, data: &[u8], from: usize, to: usize) {
        let n = to - from;
        // Most runs are short, and copying a fixed number of bytes is much faster than copying just as many as there are.
        match data[from..].first_chunk::<MARGIN>() {
            Some(wide) if n <= MARGIN => self.literals[self.used..][..MARGIN].copy_from_slice(wide),
            _ => self.literals[self.used..][..n].copy_from_slice(&data[from..to]),
        }
        self.used += n;
    }

    /// A reference after so many literals; split, where it is longer than deflate can express.
    #[inline(always)]
    fn add_reference(&mut self, mut literals: usize, mut length: usize, distance: usize) {
        let less = (distance - 1) as u16;
        let symbol = symbols::distance_symbol(less);
        loop {
            // No rest may be too short for a reference of its own.
            let now = if length <= MAX_MATCH { length } else { MAX_MATCH.min(length - MIN_MATCH) };
            let sequence = Sequence {
                literals: literals as u32,
                length: (now - MIN_MATCH) as u8,
                distance_symbol: symbol as u8,
                distance: less,
            };
            self.length_counts[symbols::length_symbol(sequence.length)] += 1;
            self.distance_counts[symbol] += 1;
            self.sequences.push(sequence);
            length -= now;
            literals = 0;
            if length == 0 {
                break;
            }
        }
    }
}

/// Remembers where in a chunk bytes were seen.
pub(super) struct Matcher {
    /// By hash: the last position that had it, of which only the low 16 bits are kept. That is enough, as references reach back
    /// half as far; a position that is older, or was never there, is found out by comparing the bytes.
    table: Box<[u16; PLACES]>,
    tokens: Tokens,
}

impl Matcher {
    pub(super) fn new() -> Self {
        Self { table: vec![0; PLACES].try_into().expect("it has this length"), tokens: Tokens::new() }
    }

    /// Forgets everything: what comes next refers to nothing before it.
    pub(super) fn reset(&mut self) {
        self.table.fill(0);
    }

    /// The bytes from `start` to the end of `data` as tokens. They may refer to what is before `start`, which this
    /// has seen since it was last reset.
    pub(super) fn block(&mut self, data: &[u8], start: usize) -> &Tokens {
        let Self { table, tokens } = self;
        tokens.clear();
        let mut copied = start; // up to here there are tokens
        let mut at = start;
        while let Some(word) = load(data, at).filter(|_| at + MARGIN <= data.len()) {
            // Two positions per step.
            let distance = place(table, word, at);
            let next_distance = place(table, word >> 8, at + 1);
            let found = repeats(data, at, word, distance);
            let next_found = repeats(data, at + 1, word >> 8, next_distance);
            if !(found | next_found) {
                at += 2 + ((at - copied) >> PATIENCE);
                continue;
            }
            let (from, distance) = if found { (at, distance) } else { (at + 1, next_distance) };
            let end = from + LEAST + common_length(&data[from + LEAST..], &data[from + LEAST - distance..]);
            let from = from - common_ending(&data[copied..from], &data[..from - distance]);
            tokens.add_literals(data, copied, from);
            tokens.add_reference(from - copied, end - from, distance);
            if let Some(word) = load(data, end - 2) {
                place(table, word, end - 2);
            }
            copied = end;
            at = end;
        }
        tokens.add_literals(data, copied, data.len());
        tokens
    }
}

/// Notes that these bytes are at `at`, and says how far back bytes like them were seen last.
#[inline(always)]
fn place(table: &mut [u16; PLACES], word: u64, at: usize) -> usize {
    let bytes = word << (64 - 8 * HASHED);
    let hash = (bytes.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PLACES.ilog2())) as usize;
    let last = std::mem::replace(&mut table[hash], at as u16);
    usize::from((at as u16).wrapping_sub(last))
}

/// The word at `at`, if there is a whole one.
#[inline(always)]
fn load(data: &[u8], at: usize) -> Option<u64> {
    data.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Whether the first [`LEAST`] bytes of `word`, which is at `at`, are also found this far before it.
#[inline(always)]
#[expect(
    clippy::needless_bitwise_bool,
    reason = "whether a position is too old is hard to predict: no branch"
)]
fn repeats(data: &[u8], at: usize, word: u64, distance: usize) -> bool {
    let old = data[at - distance..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    (distance.wrapping_sub(1) < WINDOW) & (old == Some(word as u32))
}

/// With how many equal bytes these begin.
#[inline(always)]
fn common_length(data: &[u8], old: &[u8]) -> usize {
    let (words, _) = data.as_chunks();
    let (old_words, _) = old.as_chunks();
    let mut length = 0;
    for (word, old_word) in words.iter().zip(old_words) {
        let difference = u64::from_le_bytes(*word) ^ u64::from_le_bytes(*old_word);
        if difference != 0 {
            return length + (difference.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    length + data[length..].iter().zip(&old[length..]).take_while(|(a, b)| a == b).count()
}

/// With how many equal bytes these end.
#[inline(always)]
fn common_ending(data: &[u8], old: &[u8]) -> usize {
    data.iter().rev().zip(old.iter().rev()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last block of `data` as (literals, length, distance) and the number of literals after them.
    fn tokens(data: &[u8], start: usize) -> (Vec<(u32, usize, usize)>, usize) {
        let mut matcher = Matcher::new();
        if start > 0 {
            matcher.block(&data[..start], 0);
        }
        let tokens = matcher.block(data, start);
        let readable =
            |s: &Sequence| (s.literals, usize::from(s.length) + MIN_MATCH, usize::from(s.distance) + 1);
        let sequences: Vec<_> = tokens.sequences.iter().map(readable).collect();
        let taken: u32 = sequences.iter().map(|&(literals, ..)| literals).sum();
        assert_eq!(tokens.length_counts.iter().sum::<u32>() as usize, sequences.len());
        assert_eq!(tokens.distance_counts.iter().sum::<u32>() as usize, sequences.len());
        (sequences, tokens.literals().len() - taken as usize)
    }

    #[test]
    fn nothing_repeats() {
        assert_eq!(tokens(b"", 0), (vec![], 0));
        assert_eq!(tokens(b"abc", 0), (vec![], 3));
        assert_eq!(tokens(b"abcdefghijklmnopqrstuvwxyz", 0), (vec![], 26));
    }

    #[test]
    fn reference_is_as_long_as_the_repetition() {
        // Both ways: the search may find any place in it first.
        let text = b"-repetition+...............=repetition*................";
        assert_eq!(tokens(text, 0).0[1], (1, 10, 27));
    }

    #[test]
    fn blocks_refer_to_those_before() {
        let text = b"a text that is in both of themAa text that is in both of themB";
        assert_eq!(tokens(text, 31), (vec![(0, 30, 31)], 1));
    }

    #[test]
    fn long_repetition_is_split_without_a_short_rest() {
        // One byte first; the reference to it may overlap itself.
        for (n, lengths) in
            [(259, vec![258]), (260, vec![256, 3]), (262, vec![258, 3]), (517, vec![258, 258])]
        {
            let (sequences, rest) = tokens(&vec![7; n], 0);
            let found: Vec<usize> = sequences.iter().map(|&(_, length, _)| length).collect();
            let literals: u32 = sequences.iter().map(|&(literals, ..)| literals).sum();
            assert_eq!(literals as usize + found.iter().sum::<usize>() + rest, n);
            assert!(sequences.iter().all(|&(.., distance)| distance == 1));
            assert_eq!(found, lengths, "{n} bytes");
        }
    }
}
