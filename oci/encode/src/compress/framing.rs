//! What stands around the encoded chunks of a blob.
//!
//! For gzip that is one member (RFC 1952): a header that never varies, and at the end an empty last block,
//! the CRC-32 of everything and its size. The other formats need nothing: zstd frames follow one another by
//! themselves.

use super::Format;

/// Magic number, deflate, no flags, no time, fastest encoder, unknown operating system.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];
/// A last block that is empty: form 1 and the 7-bit code of the end.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// What a blob's [`Framing`] must know of one chunk. Nothing, but for gzip.
#[derive(Debug, Default)]
pub struct Checksum {
    crc: crc32fast::Hasher,
    /// Modulo 2^32.
    size: u32,
}

impl Checksum {
    /// Of a chunk's uncompressed bytes.
    pub(super) fn of(format: Format, chunk: &[u8]) -> Self {
        let mut checksum = Self::default();
        if format == Format::Gzip {
            checksum.crc.update(chunk);
            checksum.size = u32::try_from(chunk.len()).expect("a chunk is much smaller than 4 GiB");
        }
        checksum
    }
}

/// Makes one blob of encoded chunks: [`Framing::head`], the chunks in order (each told by [`Framing::add`]),
/// [`Framing::tail`].
#[derive(Debug)]
pub struct Framing {
    format: Format,
    all: Checksum,
}

impl Framing {
    /// For one blob.
    pub fn new(format: Format) -> Self {
        Self { format, all: Checksum::default() }
    }

    /// What is before the first chunk.
    pub fn head(&self) -> &'static [u8] {
        match self.format {
            Format::Gzip => &GZIP_HEAD,
            Format::Plain | Format::Zstd => &[],
        }
    }

    /// Takes notice of the next chunk.
    pub fn add(&mut self, chunk: &Checksum) {
        self.all.crc.combine(&chunk.crc);
        self.all.size = self.all.size.wrapping_add(chunk.size);
    }

    /// What is after the last chunk.
    pub fn tail(&self) -> Vec<u8> {
        match self.format {
            Format::Gzip => [
                &LAST_BLOCK[..],
                &self.all.crc.clone().finalize().to_le_bytes(),
                &self.all.size.to_le_bytes(),
            ]
            .concat(),
            Format::Plain | Format::Zstd => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_member_of_nothing() {
        let framing = Framing::new(Format::Gzip);
        let member = [framing.head(), &framing.tail()].concat();
        assert_eq!(member, [31, 139, 8, 0, 0, 0, 0, 0, 4, 255, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn checksums_add_up() {
        let mut framing = Framing::new(Format::Gzip);
        framing.add(&Checksum::of(Format::Gzip, b"1234"));
        framing.add(&Checksum::of(Format::Gzip, b""));
        framing.add(&Checksum::of(Format::Gzip, b"56789"));
        let tail = framing.tail();
        assert_eq!(tail[2..6], 0xcbf4_3926_u32.to_le_bytes());
        assert_eq!(tail[6..], 9_u32.to_le_bytes());
    }
}
