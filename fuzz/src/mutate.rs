//! Makes inputs of others: a few changes at random places.

use crate::targets::Target;

/// Numbers that look random, the same for each seed (xorshift).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 32).expect("32 bits fit") % n
    }

    fn byte(&mut self) -> u8 {
        self.below(256).to_le_bytes()[0]
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }

    /// A range within `length` bytes, mostly a short one.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let most = self.of(&[&4, &16, &64, &1024, &usize::MAX]).min(&(length - start)).to_owned();
        start..start + self.below(most + 1)
    }
}

/// Numbers at which something may go wrong.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "00",
    "0.1",
    "1e308",
    "1e-400",
    "255",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775808",
    "18446744073709551616",
];

/// An input with some changes, and with parts of another one.
pub(crate) fn mutate(base: &[u8], other: &[u8], target: &Target, random: &mut Random) -> Vec<u8> {
    let mut input = base.to_vec();
    for _ in 0..1 << random.below(5) {
        change(&mut input, other, target.words, random);
        input.truncate(target.longest);
    }
    input
}

fn change(input: &mut Vec<u8>, other: &[u8], words: &[&[u8]], random: &mut Random) {
    let range = random.range(input.len());
    let at = range.start;
    match random.below(12) {
        0..3 if at < input.len() => input[at] ^= 1 << random.below(8),
        3 if at < input.len() => input[at] = random.byte(),
        4 if at < input.len() => input[at] = *random.of(&[&0, &1, &0x7f, &0x80, &0xff, &b'/', &b'"', &b'\n']),
        5 => drop(input.drain(range)),
        6 => {
            let bytes = [random.byte()].repeat(1 + random.below(8));
            drop(input.splice(at..at, bytes));
        }
        7 => {
            // A part once more, some of the time many times.
            let times = 1 << random.below(8);
            let part = input[range].repeat(times);
            drop(input.splice(at..at, part));
        }
        8 => {
            let part = other[random.range(other.len())].to_vec();
            let end = if random.below(2) == 0 { at } else { (at + part.len()).min(input.len()) };
            drop(input.splice(at..end, part));
        }
        9 => {
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        10 if !words.is_empty() => drop(input.splice(at..at, random.of(words).iter().copied())),
        _ => {
            // Another number in place of the next one.
            let digits = |byte: &u8| byte.is_ascii_digit();
            if let Some(start) = input[at..].iter().position(digits).map(|n| at + n) {
                let length = input[start..].iter().take_while(|byte| digits(byte)).count();
                drop(input.splice(start..start + length, random.of(&NUMBERS).bytes()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(words: &'static [&'static [u8]]) -> Target {
        Target { name: "", longest: 40, words, can_use: |_, _| false, run: |_| String::new() }
    }

    /// How many mutations it takes until one is as wanted.
    fn until(target: &Target, base: &[u8], other: &[u8], wanted: impl Fn(&[u8]) -> bool) -> usize {
        let mut random = Random::new(1);
        let made = || mutate(base, other, target, &mut random);
        std::iter::repeat_with(made).take(1_000_000).position(|input| wanted(&input)).expect("never made")
    }

    #[test]
    fn everything_is_tried_soon() {
        let (plain, words) = (target(&[]), target(&[b"word"]));
        assert!(until(&plain, b"abc", b"", |input| input == b"abb") < 10_000);
        assert!(until(&plain, b"abc", b"", |input| input == b"ac") < 10_000);
        assert!(until(&plain, b"abc", b"", <[u8]>::is_empty) < 10_000);
        assert!(until(&plain, b"abc", b"", |input| input == b"abcabc") < 10_000);
        assert!(until(&plain, b"abcd", b"1234", |input| input == b"ab34") < 10_000);
        assert!(until(&plain, b"a = 12;", b"", |input| input == b"a = 4294967296;") < 10_000);
        assert!(until(&words, b"abcd", b"", |input| input == b"abwordcd") < 10_000);
    }

    #[test]
    fn inputs_do_not_grow_without_end() {
        let mut random = Random::new(2);
        let mut input = Vec::new();
        for _ in 0..10_000 {
            input = mutate(&input, b"0123456789", &target(&[b"word"]), &mut random);
            assert!(input.len() <= 40);
        }
    }
}
