//! Writes a block in the shortest of the three forms that deflate has (RFC 1951 § 3.2.3 ff.).

use super::bits::{BitWriter, Bits, ROOM};
use super::huffman::{self, Code};
use super::symbols::{self, DISTANCES, END_OF_BLOCK, FIRST_LENGTH, LENGTHS, LITERALS_AND_LENGTHS};
use super::tokens::{Counts, DISTANCE, FIRSTS, LENGTH, SECONDS, Token, Tokens};

/// No literal and no length has a longer code: then four literals fit between two flushes.
const LITERAL_LIMIT: usize = 14;
/// The limit for the codes of code lengths is in the format.
const LENGTHS_LIMIT: usize = 7;
/// The most bytes in one stored block.
const STORED: usize = 0xffff;

/// The three forms, as the format numbers them.
const FORM_STORED: u32 = 0;
const FORM_FIXED: u32 = 1;
const FORM_DYNAMIC: u32 = 2;

/// The codes that a block's tokens are written with.
struct Codes {
    /// For each first symbol of a token: its code and, for a length, the extra bits.
    firsts: [Bits; FIRSTS],
    seconds: [Second; SECONDS],
    end: Bits,
}

/// Writes `data`, which are these tokens, as one block that is not the stream's last.
pub(super) fn write(bits: &mut BitWriter<'_>, data: &[u8], tokens: &Tokens) {
    let counts = tokens.counts();
    let literals = huffman::lengths(&counts.literals, LITERAL_LIMIT);
    let distances = huffman::lengths(&counts.distances, huffman::MAX_LENGTH);
    let header = Header::new(&literals, &distances);

    let size = |literals: &[u8; _], distances: &[u8; _]| {
        3 + cost(&counts.literals, literals) + cost(&counts.distances, distances) + extra_bits(&counts)
    };
    let dynamic = header.cost() + size(&literals, &distances);
    let fixed = size(&FIXED_LITERALS, &FIXED_DISTANCES);
    let stored = stored_cost(bits, data.len());
    let end = bits.position() + dynamic.min(fixed).min(stored);
    if stored < dynamic.min(fixed) {
        write_stored(bits, data);
    } else if fixed <= dynamic {
        bits.put(FORM_FIXED << 1, 3);
        write_tokens(bits, tokens, &Codes::new(&FIXED_LITERALS, &FIXED_DISTANCES));
    } else {
        bits.put(FORM_DYNAMIC << 1, 3);
        header.write(bits);
        write_tokens(bits, tokens, &Codes::new(&literals, &distances));
    }
    debug_assert!(bits.position() == end, "{} bits, not {end} as was calculated", bits.position());
}

/// Writes bytes as they are, in as many blocks as that takes; for none, one empty block. Afterwards the
/// output is aligned.
pub(super) fn write_stored(bits: &mut BitWriter<'_>, mut data: &[u8]) {
    loop {
        let (now, later) = data.split_at(data.len().min(STORED));
        bits.put(FORM_STORED << 1, 3);
        bits.align();
        let length = now.len() as u32;
        bits.put(length, 16);
        bits.put(!length & 0xffff, 16);
        bits.flush();
        bits.bytes(now);
        data = later;
        if data.is_empty() {
            break;
        }
    }
}

/// How many bits [`write_stored`] adds.
fn stored_cost(bits: &BitWriter<'_>, n: usize) -> u64 {
    let further = n.saturating_sub(1) as u64 / STORED as u64;
    // Three bits of form come before the first padding; the blocks after it begin at whole bytes.
    let padding = (bits.padding() + 5) % 8;
    u64::from(3 + padding + 32) + 40 * further + 8 * n as u64
}

/// The code lengths that blocks of the fixed form have (RFC 1951 § 3.2.6).
const FIXED_LITERALS: [u8; LITERALS_AND_LENGTHS] = {
    let mut lengths = [8; LITERALS_AND_LENGTHS];
    let mut symbol = 144;
    while symbol < 280 {
        lengths[symbol] = if symbol < 256 { 9 } else { 7 };
        symbol += 1;
    }
    lengths
};
const FIXED_DISTANCES: [u8; DISTANCES] = [5; DISTANCES];

/// How many bits these symbols take with codes of these lengths.
fn cost<const N: usize>(counts: &[u32; N], lengths: &[u8; N]) -> u64 {
    counts.iter().zip(lengths).map(|(&count, &length)| u64::from(count) * u64::from(length)).sum()
}

fn extra_bits(counts: &Counts) -> u64 {
    let lengths = counts.literals[FIRST_LENGTH..][..LENGTHS].iter().enumerate();
    let lengths = lengths.map(|(symbol, &n)| (n, symbols::length_extra(symbol)));
    let distances = counts.distances.iter().enumerate();
    let distances = distances.map(|(symbol, &n)| (n, symbols::distance_extra(symbol)));
    lengths.chain(distances).map(|(n, bits)| u64::from(n) * u64::from(bits)).sum()
}

/// The second symbol of a token in a code.
#[derive(Clone, Copy)]
struct Second {
    code: Code,
    /// How many bits are the code and its extra bits.
    n: u8,
}

impl Codes {
    fn new(literals: &[u8; LITERALS_AND_LENGTHS], distances: &[u8; DISTANCES]) -> Self {
        let literals = huffman::codes(literals);
        let distances = huffman::codes(distances);
        let mut firsts = [Bits { value: 0, n: 0 }; FIRSTS];
        let mut seconds = [Second { code: Code::default(), n: 0 }; SECONDS];
        for (byte, &code) in literals[..256].iter().enumerate() {
            firsts[byte] = code.into();
            seconds[byte] = Second { code, n: code.length };
        }
        for less in 0..=255 {
            let symbol = symbols::length_symbol(less);
            let extra =
                Bits { value: symbols::length_extra_bits(less).into(), n: symbols::length_extra(symbol) };
            firsts[LENGTH + usize::from(less)] = Bits::from(literals[FIRST_LENGTH + symbol]).then(extra);
        }
        for (symbol, &code) in distances.iter().enumerate() {
            let n = code.length + symbols::distance_extra(symbol) as u8;
            seconds[DISTANCE + symbol] = Second { code, n };
        }
        Self { firsts, seconds, end: literals[END_OF_BLOCK].into() }
    }

    #[inline(always)]
    fn bits(&self, token: Token) -> Bits {
        let Second { code, n } = self.seconds[token.second()];
        let second = u64::from(code.bits) | u64::from(token.extra()) << (code.length & 63);
        self.firsts[token.first()].then(Bits { value: second, n: n.into() })
    }
}

impl From<Code> for Bits {
    fn from(code: Code) -> Self {
        Self { value: code.bits.into(), n: code.length.into() }
    }
}

/// Writes the tokens and the end of the block.
fn write_tokens(bits: &mut BitWriter<'_>, tokens: &Tokens, codes: &Codes) {
    bits.flush();
    let (pairs, rest) = tokens.all().as_chunks();
    for &[a, b] in pairs {
        let (a, b) = (codes.bits(a), codes.bits(b));
        // There is room for two of nearly all: this is easy to predict.
        if a.n + b.n <= ROOM {
            bits.put_all(a.then(b));
        } else {
            bits.put_all(a);
            bits.flush();
            bits.put_all(b);
        }
        bits.flush();
    }
    for &token in rest {
        bits.put_all(codes.bits(token));
        bits.flush();
    }
    bits.put_all(codes.end);
    bits.flush();
}

/// The order in which a header gives the lengths of the codes of code lengths: the least common last.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// What tells the codes of a dynamic block: their lengths, run-length and Huffman coded (RFC 1951 § 3.2.7).
struct Header {
    literals: usize,
    distances: usize,
    /// Symbol, extra bits, and how many.
    symbols: Vec<(u8, u8, u8)>,
    lengths: [u8; 19],
    counts: [u32; 19],
    /// How many of `lengths` are given, in [`ORDER`].
    given: usize,
}

impl Header {
    fn new(literals: &[u8; LITERALS_AND_LENGTHS], distances: &[u8; DISTANCES]) -> Self {
        let without_end = |lengths: &[u8], least: usize| {
            lengths.iter().rposition(|&length| length > 0).map_or(least, |last| least.max(last + 1))
        };
        let (n_literals, n_distances) = (without_end(literals, 257), without_end(distances, 1));
        let all = [&literals[..n_literals], &distances[..n_distances]].concat();
        let symbols = run_lengths(&all);
        let mut counts = [0; 19];
        for &(symbol, ..) in &symbols {
            counts[usize::from(symbol)] += 1;
        }
        let lengths = huffman::lengths(&counts, LENGTHS_LIMIT);
        let given = ORDER.iter().rposition(|&symbol| lengths[symbol] > 0).map_or(4, |last| 4.max(last + 1));
        Self { literals: n_literals, distances: n_distances, symbols, lengths, counts, given }
    }

    /// How many bits [`Header::write`] adds.
    fn cost(&self) -> u64 {
        let extra: u64 = self.symbols.iter().map(|&(.., n)| u64::from(n)).sum();
        14 + 3 * self.given as u64 + cost(&self.counts, &self.lengths) + extra
    }

    fn write(&self, bits: &mut BitWriter<'_>) {
        bits.put(self.literals as u32 - 257, 5);
        bits.put(self.distances as u32 - 1, 5);
        bits.put(self.given as u32 - 4, 4);
        for symbol in &ORDER[..self.given] {
            bits.flush();
            bits.put(self.lengths[*symbol].into(), 3);
        }
        let codes = huffman::codes(&self.lengths);
        for &(symbol, extra, n) in &self.symbols {
            bits.flush();
            let code = codes[usize::from(symbol)];
            bits.put(code.bits.into(), code.length.into());
            bits.put(extra.into(), n.into());
        }
        bits.flush();
    }
}

/// Code lengths with repetitions written as the symbols 16 (the one before, 3–6 times), 17 and 18 (0, 3–10
/// and 11–138 times).
fn run_lengths(lengths: &[u8]) -> Vec<(u8, u8, u8)> {
    let mut symbols = Vec::with_capacity(lengths.len());
    for run in lengths.chunk_by(|a, b| a == b) {
        let length = run[0];
        let mut left = run.len();
        if length > 0 {
            symbols.push((length, 0, 0));
            left -= 1;
        }
        while left > 0 {
            let (n, symbol) = match (length, left) {
                (_, 1 | 2) => (1, (length, 0, 0)),
                (0, 3..=10) => (left, (17, left as u8 - 3, 3)),
                (0, _) => (left.min(138), (18, left.min(138) as u8 - 11, 7)),
                (_, _) => (left.min(6), (16, left.min(6) as u8 - 3, 2)),
            };
            symbols.push(symbol);
            left -= n;
        }
    }
    symbols
}

#[cfg(test)]
mod tests {
    use super::super::matches::Matcher;
    use super::*;

    #[test]
    fn run_lengths_are_those_of_the_rfc() {
        for (lengths, expected) in [
            (vec![5], vec![(5, 0, 0)]),
            (vec![5; 3], vec![(5, 0, 0), (5, 0, 0), (5, 0, 0)]),
            (vec![5; 4], vec![(5, 0, 0), (16, 0, 2)]),
            (vec![5; 9], vec![(5, 0, 0), (16, 3, 2), (5, 0, 0), (5, 0, 0)]),
            (vec![0; 2], vec![(0, 0, 0), (0, 0, 0)]),
            (vec![0; 3], vec![(17, 0, 3)]),
            (vec![0; 10], vec![(17, 7, 3)]),
            (vec![0; 11], vec![(18, 0, 7)]),
            (vec![0; 139], vec![(18, 127, 7), (0, 0, 0)]),
            (vec![1, 0, 0, 0, 1], vec![(1, 0, 0), (17, 0, 3), (1, 0, 0)]),
        ] {
            assert_eq!(run_lengths(&lengths), expected, "{lengths:?}");
        }
    }

    /// The form of the only block that these bytes become.
    fn form(data: &[u8]) -> u32 {
        let mut out = vec![0; 1 << 17];
        let mut bits = BitWriter::new(&mut out);
        write(&mut bits, data, Matcher::new().block(data, 0));
        bits.align();
        assert_eq!(out[0] & 1, 0, "not the last block");
        u32::from(out[0] >> 1 & 3)
    }

    #[test]
    fn shortest_form_is_taken() {
        let few: Vec<u8> = (0..2000_u32).map(|i| b"aab"[(i * i / 7 % 3) as usize]).collect();
        let many: Vec<u8> = (0..=255).collect();
        assert_eq!(form(b"a few letters"), FORM_FIXED);
        assert_eq!(form(&few), FORM_DYNAMIC);
        assert_eq!(form(&many), FORM_STORED);
    }

    #[test]
    fn stored_bytes_are_split() {
        for (n, blocks) in [(0, 1), (1, 1), (STORED, 1), (STORED + 1, 2), (2 * STORED, 2)] {
            for before in 0..8 {
                let data = vec![1; n];
                let mut out = vec![0; n + 100];
                let mut bits = BitWriter::new(&mut out);
                bits.put(0, before);
                let cost = stored_cost(&bits, n) + u64::from(before);
                write_stored(&mut bits, &data);
                assert_eq!(bits.len() as u64 * 8, cost, "{n} bytes after {before} bits");
                assert_eq!(
                    bits.len(),
                    n + 5 * blocks + usize::from(before > 5),
                    "{n} bytes after {before} bits"
                );
            }
        }
    }
}
