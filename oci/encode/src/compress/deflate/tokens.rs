//! A block as literals and references, in words that are all of one form.
//!
//! Whether a literal or a reference comes next, and how many literals there are in a row, is hard to predict.
//! So what reads tokens does the same for each, and decides nothing.

use super::BLOCK;
use super::symbols::{
    self, DISTANCES, END_OF_BLOCK, FIRST_LENGTH, LITERALS_AND_LENGTHS, MAX_MATCH, MIN_MATCH,
};

/// Two literals, or one, or a reference: a first symbol, a second one, and the extra bits of a distance, from
/// the lowest bit on.
///
/// The first symbol is a literal (below 256), or a length, less [`MIN_MATCH`]. The second one is a literal,
/// or nothing, or a distance's symbol.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token(u32);

/// How many values first and second symbols may have.
pub(super) const FIRSTS: usize = 1 << SYMBOL_BITS;
/// See [`FIRSTS`].
pub(super) const SECONDS: usize = 1 << SYMBOL_BITS;
const SYMBOL_BITS: u32 = 9;

/// The first symbol of the shortest length.
pub(super) const LENGTH: usize = 256;
/// The second symbol that stands for nothing.
const NOTHING: usize = 256;
/// The second symbol of the shortest distances.
pub(super) const DISTANCE: usize = 257;

impl Token {
    fn new(first: usize, second: usize, extra: u32) -> Self {
        Self(first as u32 | (second as u32) << SYMBOL_BITS | extra << (2 * SYMBOL_BITS))
    }

    #[inline(always)]
    fn one(literal: u8) -> Self {
        Self::new(literal.into(), NOTHING, 0)
    }

    #[inline(always)]
    fn two(literals: [u8; 2]) -> Self {
        Self::new(literals[0].into(), literals[1].into(), 0)
    }

    /// Below [`FIRSTS`].
    #[inline(always)]
    pub(super) fn first(self) -> usize {
        self.0 as usize % FIRSTS
    }

    /// Below [`SECONDS`].
    #[inline(always)]
    pub(super) fn second(self) -> usize {
        (self.0 >> SYMBOL_BITS) as usize % SECONDS
    }

    /// The value of a distance's extra bits.
    #[inline(always)]
    pub(super) fn extra(self) -> u32 {
        self.0 >> (2 * SYMBOL_BITS)
    }
}

/// How often each symbol occurs in a block.
#[derive(Debug)]
pub(super) struct Counts {
    /// With one end of the block.
    pub(super) literals: [u32; LITERALS_AND_LENGTHS],
    pub(super) distances: [u32; DISTANCES],
}

/// The tokens of a block.
pub(super) struct Tokens {
    /// What is behind those in use is arbitrary.
    tokens: Box<[Token]>,
    used: usize,
}

/// So many literals become tokens at a time.
const RUN: usize = 16;

impl Tokens {
    pub(super) fn new() -> Self {
        // A reference stands for three bytes at least, and a literal before it without a partner for one
        // more: two tokens. So no block has more than half as many as it has bytes, and one for its end.
        Self { tokens: vec![Token(0); BLOCK / 2 + 1 + RUN].into(), used: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.used = 0;
    }

    pub(super) fn all(&self) -> &[Token] {
        &self.tokens[..self.used]
    }

    /// The bytes from `from` to `to`, as they are.
    #[inline(always)]
    pub(super) fn add_literals(&mut self, data: &[u8], from: usize, to: usize) {
        let n = to - from;
        // Most runs are short, and it is much faster to make a fixed number of tokens than just as many as
        // are wanted.
        match data[from..].first_chunk::<RUN>() {
            Some(run) if n <= RUN => {
                let tokens = &mut self.tokens[self.used..][..=RUN / 2];
                let pairs: [_; RUN / 2] = std::array::from_fn(|i| Token::two([run[2 * i], run[2 * i + 1]]));
                tokens[..RUN / 2].copy_from_slice(&pairs);
                // The last one, if it has no partner. Else this token does not count.
                tokens[n / 2] = Token::one(run[n.wrapping_sub(1) % RUN]);
                self.used += n.div_ceil(2);
            }
            _ => self.add_many(&data[from..to]),
        }
    }

    fn add_many(&mut self, literals: &[u8]) {
        let (pairs, rest) = literals.as_chunks();
        for (token, &pair) in self.tokens[self.used..].iter_mut().zip(pairs) {
            *token = Token::two(pair);
        }
        self.used += pairs.len();
        for &literal in rest {
            self.tokens[self.used] = Token::one(literal);
            self.used += 1;
        }
    }

    /// A reference; split, where it is longer than deflate can express.
    #[inline(always)]
    pub(super) fn add_reference(&mut self, mut length: usize, distance: usize) {
        let less = (distance - 1) as u16;
        let symbol = symbols::distance_symbol(less);
        let extra = symbols::distance_extra_bits(less, symbol);
        loop {
            // No rest may be too short for a reference of its own.
            let now = if length <= MAX_MATCH { length } else { MAX_MATCH.min(length - MIN_MATCH) };
            self.tokens[self.used] = Token::new(LENGTH + now - MIN_MATCH, DISTANCE + symbol, extra);
            self.used += 1;
            length -= now;
            if length == 0 {
                break;
            }
        }
    }

    /// How often each symbol occurs.
    pub(super) fn counts(&self) -> Counts {
        // Two tables each, so that one symbol in a row does not wait for one counter.
        let mut firsts = [[0_u32; FIRSTS]; 2];
        let mut seconds = [[0_u32; SECONDS]; 2];
        let mut count = |table: usize, token: Token| {
            firsts[table][token.first()] += 1;
            seconds[table][token.second()] += 1;
        };
        let (pairs, rest) = self.all().as_chunks();
        for &[a, b] in pairs {
            count(0, a);
            count(1, b);
        }
        for &token in rest {
            count(0, token);
        }
        let first = |symbol: usize| firsts[0][symbol] + firsts[1][symbol];
        let second = |symbol: usize| seconds[0][symbol] + seconds[1][symbol];

        let mut literals = [0; LITERALS_AND_LENGTHS];
        for (byte, count) in literals[..256].iter_mut().enumerate() {
            *count = first(byte) + second(byte);
        }
        literals[END_OF_BLOCK] = 1;
        for less in 0..=255 {
            literals[FIRST_LENGTH + symbols::length_symbol(less)] += first(LENGTH + usize::from(less));
        }
        Counts { literals, distances: std::array::from_fn(|symbol| second(DISTANCE + symbol)) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a token stands for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(in super::super) enum Item {
        Literal(u8),
        Reference { length: usize, distance: usize },
    }

    /// What tokens stand for, in order.
    pub(in super::super) fn items(tokens: &Tokens) -> Vec<Item> {
        let mut items = Vec::new();
        for token in tokens.all() {
            if let Some(length) = token.first().checked_sub(LENGTH) {
                let symbol = token.second() - DISTANCE;
                let base =
                    if symbol < 2 { symbol } else { (2 + symbol % 2) << symbols::distance_extra(symbol) };
                let distance = base + token.extra() as usize + 1;
                items.push(Item::Reference { length: length + MIN_MATCH, distance });
            } else {
                let literals = [token.first(), token.second()];
                items.extend(literals.iter().filter(|&&n| n != NOTHING).map(|&n| Item::Literal(n as u8)));
            }
        }
        items
    }

    #[test]
    fn runs_of_any_length_are_literals() {
        let data: Vec<u8> = (0..100).collect();
        for at in [0, 1, 60, 90] {
            for n in 0..=data.len() - at {
                let mut tokens = Tokens::new();
                tokens.add_literals(&data, at, at + n);
                tokens.add_reference(4, 9);
                tokens.add_literals(&data, 0, 1);
                let mut expected: Vec<_> = data[at..at + n].iter().copied().map(Item::Literal).collect();
                expected.extend([Item::Reference { length: 4, distance: 9 }, Item::Literal(0)]);
                assert_eq!(items(&tokens), expected, "{n} from {at}");
            }
        }
    }

    #[test]
    fn symbols_are_counted_wherever_they_are() {
        let mut tokens = Tokens::new();
        tokens.add_literals(b"aba", 0, 3);
        tokens.add_reference(258, 1);
        tokens.add_reference(258, 32_768);
        tokens.add_reference(258 + 3, 32_768);
        let Counts { literals, distances } = tokens.counts();
        let counted =
            |counts: &[u32]| counts.iter().copied().enumerate().filter(|&(_, n)| n > 0).collect::<Vec<_>>();
        assert_eq!(counted(&literals), [(97, 2), (98, 1), (END_OF_BLOCK, 1), (257, 1), (285, 3)]);
        assert_eq!(counted(&distances), [(0, 1), (29, 3)]);
    }

    #[test]
    fn there_is_room_for_a_block_of_the_most_tokens() {
        let mut tokens = Tokens::new();
        for _ in 0..BLOCK / 4 {
            tokens.add_literals(&[0; 2 * RUN], 0, 1);
            tokens.add_reference(3, 1);
        }
        tokens.add_literals(&[0; 2 * RUN], 0, 1);
        assert_eq!(tokens.all().len(), BLOCK / 2 + 1);
    }
}
