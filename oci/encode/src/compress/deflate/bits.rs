//! Bits into bytes, the first bit lowest, as RFC 1951 § 3.1.1 packs them.

/// A few bits, the first one lowest; those above are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bits {
    pub(super) value: u64,
    /// How many: below 64.
    pub(super) n: u32,
}

impl Bits {
    /// These and then those, of which there is room for all. Bits that are joined first and then put need not
    /// wait for what was put before.
    #[inline(always)]
    pub(super) fn then(self, next: Self) -> Self {
        Self { value: self.value | next.value << (self.n & 63), n: self.n + next.n }
    }
}

/// So many bits can be put between two flushes.
pub(super) const ROOM: u32 = 56;

/// Appends bits to a buffer that is known to be large enough, with eight bytes to spare.
///
/// Bits gather in a word; [`BitWriter::flush`] moves the whole bytes among them out and leaves fewer than 8.
/// So between two flushes there is [`ROOM`].
pub(super) struct BitWriter<'a> {
    out: &'a mut [u8],
    /// How many bytes of `out` are complete.
    at: usize,
    bits: u64,
    /// How many bits of `bits` are in use: below 64.
    count: u32,
}

impl<'a> BitWriter<'a> {
    /// Writes from the beginning of `out`.
    pub(super) fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0, bits: 0, count: 0 }
    }

    /// Adds the `n` lowest bits of `value`, whose other bits are 0.
    #[inline(always)]
    pub(super) fn put(&mut self, value: u32, n: u32) {
        self.put_all(Bits { value: value.into(), n });
    }

    /// Adds these bits.
    #[inline(always)]
    pub(super) fn put_all(&mut self, Bits { value, n }: Bits) {
        debug_assert!(value >> n == 0 && self.count + n < 64, "{value:#x} has more than {n} bits");
        // The mask says what the compiler cannot know: that there is room.
        self.bits |= value << (self.count & 63);
        self.count += n;
    }

    /// Makes [`ROOM`].
    #[inline(always)]
    pub(super) fn flush(&mut self) {
        self.out[self.at..][..8].copy_from_slice(&self.bits.to_le_bytes());
        self.at += (self.count >> 3) as usize;
        self.bits >>= self.count & !7;
        self.count &= 7;
    }

    /// How many bits were written.
    pub(super) fn position(&self) -> u64 {
        8 * self.at as u64 + u64::from(self.count)
    }

    /// How many bits short of a whole byte the output is.
    pub(super) fn padding(&self) -> u32 {
        self.count.wrapping_neg() & 7
    }

    /// Adds zeros up to the next whole byte.
    pub(super) fn align(&mut self) {
        self.flush();
        self.count += self.padding();
        self.flush();
    }

    /// Copies bytes; the output must be aligned.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        debug_assert!(self.count == 0, "aligned before bytes are copied");
        self.out[self.at..][..bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// How many bytes were written; the output must be aligned.
    pub(super) fn len(&self) -> usize {
        debug_assert!(self.count == 0, "aligned at the end");
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bit_is_lowest() {
        let mut out = [0xff; 16];
        let mut bits = BitWriter::new(&mut out);
        bits.put(0b1, 1);
        bits.put(0b01, 2);
        bits.put(0b1_1000_0000, 9);
        assert_eq!(bits.padding(), 4);
        bits.align();
        assert_eq!(bits.padding(), 0);
        bits.bytes(b"x");
        assert_eq!(bits.len(), 3);
        assert_eq!(out[..3], [0b0000_0011, 0b0000_1100, b'x']);
    }

    #[test]
    fn fifty_six_bits_fit_after_a_flush() {
        let mut out = [0; 32];
        let mut bits = BitWriter::new(&mut out);
        bits.put(0x7f, 7);
        bits.flush();
        bits.put(0x0fff_ffff, 28);
        bits.put(0x0fff_ffff, 28);
        bits.align();
        assert_eq!(bits.len(), 8);
        assert_eq!(out[..9], [255, 255, 255, 255, 255, 255, 255, 127, 0]);
    }
}
