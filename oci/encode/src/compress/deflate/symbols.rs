//! The alphabets of deflate: how lengths and distances become symbols and extra bits (RFC 1951 § 3.2.5).

/// Ends a block, in the alphabet of literals and lengths.
pub(super) const END_OF_BLOCK: usize = 256;
/// The symbol of the shortest length.
pub(super) const FIRST_LENGTH: usize = 257;
/// Symbols for literals, end of block and lengths. The last two never occur, but have codes in the fixed
/// code.
pub(super) const LITERALS_AND_LENGTHS: usize = 288;
/// Symbols for lengths.
pub(super) const LENGTHS: usize = LITERALS_AND_LENGTHS - 2 - FIRST_LENGTH;
/// Symbols for distances.
pub(super) const DISTANCES: usize = 30;

/// The shortest match that deflate can express.
pub(super) const MIN_MATCH: usize = 3;
/// The longest.
pub(super) const MAX_MATCH: usize = 258;
/// How far back a match may be.
pub(super) const WINDOW: usize = 1 << 15;

/// For each length symbol: the shortest length that it stands for, less [`MIN_MATCH`].
const LENGTH_BASE: [u8; LENGTHS] = {
    let mut base = [0; LENGTHS];
    let mut symbol = 1;
    while symbol < LENGTHS - 1 {
        base[symbol] = base[symbol - 1] + (1 << length_extra(symbol - 1));
        symbol += 1;
    }
    base[LENGTHS - 1] = (MAX_MATCH - MIN_MATCH) as u8; // the longest has a symbol of its own
    base
};

const LENGTH_SYMBOL: [u8; 256] = {
    let mut symbols = [0; 256];
    let mut symbol = 0;
    let mut length = 0;
    while length < 256 {
        if symbol + 1 < LENGTHS && length >= LENGTH_BASE[symbol + 1] as usize {
            symbol += 1;
        }
        symbols[length] = symbol as u8;
        length += 1;
    }
    symbols
};

/// How many extra bits follow a length symbol (counted from 0).
pub(super) const fn length_extra(symbol: usize) -> u32 {
    if symbol < 8 || symbol == LENGTHS - 1 { 0 } else { symbol as u32 / 4 - 1 }
}

/// How many extra bits follow a distance symbol.
pub(super) const fn distance_extra(symbol: usize) -> u32 {
    if symbol < 4 { 0 } else { symbol as u32 / 2 - 1 }
}

/// The symbol (counted from 0) of a length, given less [`MIN_MATCH`].
#[inline(always)]
pub(super) fn length_symbol(length: u8) -> usize {
    usize::from(LENGTH_SYMBOL[usize::from(length)])
}

/// The value of the extra bits of a length, given less [`MIN_MATCH`].
pub(super) fn length_extra_bits(length: u8) -> u32 {
    u32::from(length - LENGTH_BASE[length_symbol(length)])
}

/// The symbol of a distance, given less 1. It consists of the position of its highest bit, and the bit below
/// that.
#[inline(always)]
pub(super) fn distance_symbol(distance: u16) -> usize {
    if distance < 2 {
        return usize::from(distance);
    }
    let high = distance.ilog2();
    (2 * high + u32::from(distance >> (high - 1) & 1)) as usize
}

/// The value of the extra bits of a distance, given less 1.
#[inline(always)]
pub(super) fn distance_extra_bits(distance: u16, symbol: usize) -> u32 {
    u32::from(distance) & ((1 << distance_extra(symbol)) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of the tables in RFC 1951 § 3.2.5: symbol, extra bits, first and last length.
    #[test]
    fn lengths_are_those_of_the_rfc() {
        for (symbol, extra, first, last) in [
            (257, 0, 3, 3),
            (264, 0, 10, 10),
            (265, 1, 11, 12),
            (268, 1, 17, 18),
            (269, 2, 19, 22),
            (272, 2, 31, 34),
            (273, 3, 35, 42),
            (280, 4, 115, 130),
            (281, 5, 131, 162),
            (284, 5, 227, 257),
            (285, 0, 258, 258),
        ] {
            for length in first..=last {
                let less = u8::try_from(length - MIN_MATCH).unwrap();
                assert_eq!(length_symbol(less) + FIRST_LENGTH, symbol, "length {length}");
                assert_eq!(length_extra(length_symbol(less)), extra, "length {length}");
                assert_eq!(length_extra_bits(less) as usize, length - first, "length {length}");
            }
        }
    }

    #[test]
    fn distances_are_those_of_the_rfc() {
        for (symbol, extra, first, last) in [
            (0, 0, 1, 1),
            (1, 0, 2, 2),
            (2, 0, 3, 3),
            (3, 0, 4, 4),
            (4, 1, 5, 6),
            (5, 1, 7, 8),
            (6, 2, 9, 12),
            (10, 4, 33, 48),
            (19, 8, 769, 1024),
            (28, 13, 16385, 24576),
            (29, 13, 24577, 32768),
        ] {
            for distance in first..=last {
                let less = u16::try_from(distance - 1).unwrap();
                assert_eq!(distance_symbol(less), symbol, "distance {distance}");
                assert_eq!(distance_extra(symbol), extra, "distance {distance}");
                assert_eq!(distance_extra_bits(less, symbol), distance - first, "distance {distance}");
            }
        }
    }
}
