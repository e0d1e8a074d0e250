//! Reads layers, whoever compressed them.

use std::fmt;
use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

use super::Format;

/// The uncompressed bytes of a blob. Damaged or cut off input is an error of [`Read::read`].
pub struct Decompressed<R: BufRead>(Decoder<R>);

enum Decoder<R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(zstd::Decoder<'static, R>),
}

/// Decompresses what a reader gives; an error means that there is no memory for it.
pub fn decompressed<R: BufRead>(reader: R, format: Format) -> io::Result<Decompressed<R>> {
    Ok(Decompressed(match format {
        Format::Plain => Decoder::Plain(reader),
        Format::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(reader))),
        Format::Zstd => Decoder::Zstd(zstd::Decoder::with_buffer(reader)?),
    }))
}

impl<R: BufRead> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Decoder::Plain(reader) => reader.read(buffer),
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

impl<R: BufRead> fmt::Debug for Decompressed<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Decoder::Plain(_) => "Decompressed(plain)",
            Decoder::Gzip(_) => "Decompressed(gzip)",
            Decoder::Zstd(_) => "Decompressed(zstd)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::{CHUNK, Compression};

    fn read(blob: &[u8], format: Format) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        decompressed(blob, format)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Neither constant nor random, of a length that no chunk ends at.
    fn sample() -> Vec<u8> {
        let numbers = (0_u32..).flat_map(|i| u64::from(i).pow(2).to_string().into_bytes());
        numbers.take(2 * CHUNK + 12_345).collect()
    }

    #[test]
    fn every_compression_reads_back() {
        let sample = sample();
        for text in ["none", "gzip:1", "gzip:2", "gzip:6", "gzip:9", "zstd:1", "zstd:3", "zstd:19"] {
            let compression: Compression = text.parse().unwrap();
            for bytes in [&sample[..], &sample[..CHUNK], &sample[..1], &[]] {
                let blob = compression.compress(bytes);
                assert!(read(&blob, compression.format()).unwrap() == bytes, "{text}, {} bytes", bytes.len());
                assert!(compression.compress(bytes) == blob, "{text} gives other bytes the second time");
            }
            let less = compression.compress(&sample).len() < sample.len();
            assert_eq!(less, compression != Compression::NONE, "{text}");
        }
    }

    #[test]
    fn several_members_are_one() {
        for text in ["gzip:1", "zstd:1"] {
            let compression: Compression = text.parse().unwrap();
            let blob = [compression.compress(b"one"), compression.compress(b"two")].concat();
            assert_eq!(read(&blob, compression.format()).unwrap(), b"onetwo");
        }
    }

    #[test]
    fn damage_is_an_error() {
        for text in ["gzip:1", "zstd:1"] {
            let compression: Compression = text.parse().unwrap();
            let mut blob = compression.compress(&sample());
            assert!(read(&blob[..blob.len() - 1], compression.format()).is_err(), "{text} cut off");
            assert!(read(b"plain text", compression.format()).is_err(), "{text} from plain text");
            blob[0] ^= 1;
            assert!(read(&blob, compression.format()).is_err(), "{text} with a wrong magic number");
        }
        let mut blob = Compression::FAST_GZIP.compress(&sample());
        let crc = blob.len() - 8;
        blob[crc] ^= 1;
        assert!(read(&blob, Format::Gzip).is_err(), "gzip with a wrong checksum");
    }
}
