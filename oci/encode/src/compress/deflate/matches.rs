//! Finds repetitions: turns bytes into literals and references to earlier bytes (LZ77).

use super::symbols::WINDOW;
use super::tokens::Tokens;

/// So many places in the hash table; at two bytes each, they take half of the first-level cache. Twice as
/// many make blobs 0.9 % shorter and take 4 % longer.
const PLACES: usize = 1 << 13;
/// How many bytes must be equal for a repetition to be found. Shorter ones are hardly worth their reference,
/// and cost time.
const LEAST: usize = 6;
/// How many positions one step of the search looks at: all that have [`LEAST`] bytes in a word of eight.
/// Where among them a repetition begins decides no branch, for that is hard to predict.
const POSITIONS: usize = 8 - LEAST + 1;
/// The search stops where there are fewer bytes than that.
const MARGIN: usize = 16;
/// By so many bits a word is shifted so that only its first [`LEAST`] bytes count.
const UNUSED: u32 = 64 - 8 * LEAST as u32;
/// After so many literals without a reference (as a power of two), positions are skipped, more and more of
/// them.
const PATIENCE: u32 = 5;

/// Remembers where in a chunk bytes were seen.
pub(super) struct Matcher {
    /// By hash: the last position that had it, of which only the low 16 bits are kept. That is enough, as
    /// references reach back half as far; a position that is older, or was never there, is found out by
    /// comparing the bytes.
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

    /// The bytes from `start` to the end of `data` as tokens. They may refer to what is before `start`, which
    /// this has seen since it was last reset.
    pub(super) fn block(&mut self, data: &[u8], start: usize) -> &Tokens {
        let Self { table, tokens } = self;
        tokens.clear();
        let mut copied = start; // up to here there are tokens
        let mut at = start;
        while let Some(word) = load(data, at).filter(|_| at + MARGIN <= data.len()) {
            let mut distances = [0; POSITIONS];
            let mut found = 0_u32;
            for (i, distance) in distances.iter_mut().enumerate() {
                let word = word >> (8 * i);
                *distance = place(table, word, at + i);
                found |= u32::from(repeats(data, at + i, word, *distance)) << i;
            }
            if found == 0 {
                at += POSITIONS + ((at - copied) >> PATIENCE);
                continue;
            }
            let first = found.trailing_zeros() as usize;
            let (from, distance) = (at + first, distances[first]);
            let end = from + LEAST + common_length(&data[from + LEAST..], &data[from + LEAST - distance..]);
            let from = from - common_ending(&data[..from], &data[..from - distance], from - copied);
            tokens.add_literals(data, copied, from);
            tokens.add_reference(end - from, distance);
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
    let bytes = word << UNUSED;
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
fn repeats(data: &[u8], at: usize, word: u64, distance: usize) -> bool {
    let old = load(data, at - distance);
    // Whether a position is too old is hard to predict: no branch.
    (distance.wrapping_sub(1) < WINDOW) & old.is_some_and(|old| (old ^ word) << UNUSED == 0)
}

/// With how many equal bytes these begin.
#[inline(always)]
fn common_length(data: &[u8], old: &[u8]) -> usize {
    // Most are shorter than 16 bytes: that is one step, and no loop whose end would have to be predicted.
    let (words, _) = data.as_chunks();
    let (old_words, _) = old.as_chunks();
    let mut length = 0;
    for (word, old_word) in words.iter().zip(old_words) {
        let difference = u128::from_le_bytes(*word) ^ u128::from_le_bytes(*old_word);
        if difference != 0 {
            return length + (difference.trailing_zeros() / 8) as usize;
        }
        length += 16;
    }
    length + data[length..].iter().zip(&old[length..]).take_while(|(a, b)| a == b).count()
}

/// With how many equal bytes these end; it need not look at more than `most`, which `data` has.
#[inline(always)]
fn common_ending(data: &[u8], old: &[u8], most: usize) -> usize {
    // Here too, one word decides nearly always.
    if let (Some(word), Some(old_word)) = (data.last_chunk(), old.last_chunk()) {
        let difference = u64::from_le_bytes(*word) ^ u64::from_le_bytes(*old_word);
        let equal = (difference.leading_zeros() / 8) as usize;
        if equal < 8 || most <= 8 {
            return equal.min(most);
        }
    }
    data.iter().rev().zip(old.iter().rev()).take(most).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::super::tokens::tests::{Item, items};
    use super::*;

    /// The last block of `data`: each reference as (literals before it, length, distance), and the number of
    /// literals after them.
    fn tokens(data: &[u8], start: usize) -> (Vec<(usize, usize, usize)>, usize) {
        let mut matcher = Matcher::new();
        if start > 0 {
            matcher.block(&data[..start], 0);
        }
        let (mut references, mut literals) = (Vec::new(), 0);
        for item in items(matcher.block(data, start)) {
            match item {
                Item::Literal(_) => literals += 1,
                Item::Reference { length, distance } => {
                    references.push((std::mem::take(&mut literals), length, distance));
                }
            }
        }
        (references, literals)
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
            let (references, rest) = tokens(&vec![7; n], 0);
            let found: Vec<usize> = references.iter().map(|&(_, length, _)| length).collect();
            let literals: usize = references.iter().map(|&(literals, ..)| literals).sum();
            assert_eq!(literals + found.iter().sum::<usize>() + rest, n);
            assert!(references.iter().all(|&(.., distance)| distance == 1));
            assert_eq!(found, lengths, "{n} bytes");
        }
    }
}
