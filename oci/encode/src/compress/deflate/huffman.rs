//! Huffman codes of limited length, canonical as RFC 1951 § 3.2.2 wants them.

/// The longest code that any alphabet of deflate may have.
pub(super) const MAX_LENGTH: usize = 15;

/// The code of one symbol, as it is put into the stream: its first bit lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Code {
    pub(super) bits: u16,
    /// 0: the symbol does not occur.
    pub(super) length: u8,
}

/// Code lengths for symbols that occur this often, none above `limit`; 0 where a symbol does not occur.
///
/// The code is complete (the Kraft sum is 1), for some decoders refuse others: an alphabet in which fewer
/// than two symbols occur gets codes of one bit for two.
pub(super) fn lengths<const N: usize>(counts: &[u32; N], limit: usize) -> [u8; N] {
    debug_assert!(2 <= N && N <= 1 << limit && limit <= MAX_LENGTH, "{N} symbols have codes of {limit} bits");
    // Rarest first. A symbol's number in the low bits makes the order total, and so the same everywhere.
    let mut sorted = [0_u64; N];
    let mut used = 0;
    for (symbol, &count) in counts.iter().enumerate() {
        if count > 0 {
            sorted[used] = u64::from(count) << 16 | symbol as u64;
            used += 1;
        }
    }
    let mut lengths = [0; N];
    if used < 2 {
        let one = if used == 1 { (sorted[0] & 0xffff) as usize } else { 0 };
        lengths[one] = 1;
        lengths[usize::from(one == 0)] = 1;
        return lengths;
    }
    let sorted = &mut sorted[..used];
    sorted.sort_unstable();

    let depths = leaves_per_depth(sorted, limit);
    let mut rarest = sorted.iter();
    for (depth, &leaves) in depths.iter().enumerate().rev() {
        for symbol in rarest.by_ref().take(leaves) {
            lengths[(symbol & 0xffff) as usize] = depth as u8;
        }
    }
    lengths
}

/// How many leaves a Huffman tree has at each depth, for symbols sorted by count (which is above the lowest
/// 16 bits), at least two.
fn leaves_per_depth(sorted: &[u64], limit: usize) -> [usize; MAX_LENGTH + 1] {
    // The two rarest trees become one, until one is left. Leaves are sorted, and the joined trees come in the
    // order of their counts by themselves: two queues are enough. `parent` is by joined tree.
    let leaves = sorted.len();
    let mut joined: Vec<u64> = Vec::with_capacity(leaves);
    let mut leaf_parent = vec![0; leaves];
    let mut joined_parent = vec![0; leaves];
    let (mut next_leaf, mut next_joined) = (0, 0);
    for tree in 0..leaves - 1 {
        let mut sum = 0;
        for _ in 0..2 {
            let leaf = sorted.get(next_leaf).map(|entry| entry >> 16);
            match (leaf, joined.get(next_joined)) {
                (Some(leaf), tree_count) if tree_count.is_none_or(|&count| leaf <= count) => {
                    sum += leaf;
                    leaf_parent[next_leaf] = tree;
                    next_leaf += 1;
                }
                (_, Some(&count)) => {
                    sum += count;
                    joined_parent[next_joined] = tree;
                    next_joined += 1;
                }
                (_, None) => unreachable!("of n trees n - 1 joins leave one"),
            }
        }
        joined.push(sum);
    }

    // The last one is the root, and each tree's parent comes after it.
    let mut depth = vec![0_usize; leaves - 1];
    for tree in (0..leaves - 2).rev() {
        depth[tree] = depth[joined_parent[tree]] + 1;
    }
    let mut depths = [0; MAX_LENGTH + 1];
    for parent in leaf_parent {
        depths[(depth[parent] + 1).min(limit)] += 1;
    }
    shorten(&mut depths, limit);
    depths
}

/// Makes room for the leaves that were raised to the limit: while there are more than fit, one leaf above the
/// limit becomes an inner node with two leaves, itself and one from the limit. The deepest such leaf is the
/// rarest: it costs least.
fn shorten(depths: &mut [usize; MAX_LENGTH + 1], limit: usize) {
    let mut excess = kraft(depths, limit) - (1 << limit);
    while excess > 0 {
        let deepest = (1..limit).rev().find(|&depth| depths[depth] > 0);
        let depth = deepest.expect("there are no more symbols than codes of the longest length");
        depths[depth] -= 1;
        depths[depth + 1] += 2;
        depths[limit] -= 1;
        excess -= 1;
    }
}

/// The Kraft sum in units of a code of `limit` bits: 2^limit for a complete code.
fn kraft(depths: &[usize; MAX_LENGTH + 1], limit: usize) -> usize {
    (1..=limit).map(|depth| depths[depth] << (limit - depth)).sum()
}

/// The canonical code with these lengths.
pub(super) fn codes<const N: usize>(lengths: &[u8; N]) -> [Code; N] {
    let mut next = [0_u16; MAX_LENGTH + 2];
    for &length in lengths {
        next[usize::from(length) + 1] += u16::from(length > 0);
    }
    for length in 1..next.len() {
        next[length] += next[length - 1];
        next[length] <<= 1;
    }
    lengths.map(|length| {
        if length == 0 {
            return Code::default();
        }
        let bits = next[usize::from(length)];
        next[usize::from(length)] += 1;
        Code { bits: bits.reverse_bits() >> (16 - length), length }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The Kraft sum is 1, nothing is longer than the limit, a rarer symbol has no shorter code.
    fn check<const N: usize>(counts: &[u32; N], limit: usize) {
        let lengths = lengths(counts, limit);
        let mut depths = [0; MAX_LENGTH + 1];
        for (symbol, &length) in lengths.iter().enumerate() {
            assert!(usize::from(length) <= limit, "symbol {symbol} has {length} bits");
            assert!(length > 0 || counts[symbol] == 0, "symbol {symbol} has no code");
            depths[usize::from(length)] += 1;
        }
        assert_eq!(kraft(&depths, limit), 1 << limit);
        for (a, b) in (0..N).flat_map(|a| (0..N).map(move |b| (a, b))) {
            let shorter = lengths[a] <= lengths[b] || lengths[b] == 0;
            assert!(counts[a] <= counts[b] || shorter, "{a} is commoner than {b}, but longer");
        }
        check_codes(&lengths);
    }

    /// No code is the beginning of another one.
    fn check_codes<const N: usize>(lengths: &[u8; N]) {
        let codes: Vec<Code> = codes(lengths).into_iter().filter(|code| code.length > 0).collect();
        for (i, a) in codes.iter().enumerate() {
            for b in &codes[i + 1..] {
                let common = (1_u32 << a.length.min(b.length)) - 1;
                assert_ne!(u32::from(a.bits) & common, u32::from(b.bits) & common);
            }
        }
    }

    fn fibonacci<const N: usize>() -> [u32; N] {
        let (mut a, mut b) = (1_u32, 1_u32);
        std::array::from_fn(|_| {
            (a, b) = (b, a.saturating_add(b));
            a
        })
    }

    #[test]
    fn example_of_the_rfc() {
        let codes = codes(&[3, 3, 3, 3, 3, 2, 4, 4]);
        let expected = [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111_u16];
        for (code, expected) in codes.into_iter().zip(expected) {
            assert_eq!(code.bits.reverse_bits() >> (16 - code.length), expected);
        }
    }

    #[test]
    fn common_symbols_are_short() {
        assert_eq!(lengths(&[1, 0, 1, 2, 4], 15), [3, 0, 3, 2, 1]);
        assert_eq!(lengths(&[5, 5, 5, 5], 15), [2, 2, 2, 2]);
    }

    #[test]
    fn fewer_than_two_symbols_get_a_complete_code() {
        assert_eq!(lengths(&[0, 0, 0], 7), [1, 1, 0]);
        assert_eq!(lengths(&[9, 0, 0], 7), [1, 1, 0]);
        assert_eq!(lengths(&[0, 0, 9], 7), [1, 0, 1]);
    }

    #[test]
    fn skewed_counts_are_limited() {
        check(&fibonacci::<19>(), 7);
        check(&fibonacci::<30>(), 15);
        check(&fibonacci::<286>(), 14);
        check(&fibonacci::<286>(), 9);
        let mut reversed = fibonacci::<30>();
        reversed.reverse();
        check(&reversed, 15);
        check(&[u32::MAX; 286], 9);
    }

    proptest! {
        #[test]
        fn any_counts_give_a_valid_code(counts in prop::array::uniform32(prop_oneof![0..3_u32, 0..1000_u32, any::<u32>()])) {
            check(&counts, 5);
            check(&counts, 7);
            check(&counts, 15);
        }
    }
}
