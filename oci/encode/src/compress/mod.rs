//! How layers are compressed, and how compressed layers are read.
//!
//! A layer is compressed in chunks of [`CHUNK`] bytes, each by itself, so that all cores can work on one
//! layer; one after the other, and with what [`Framing`] adds, the results are one blob. Its bytes depend on
//! the tar and the [`Compression`] alone.

pub mod deflate;
mod framing;
mod read;

use std::fmt;
use std::str::FromStr;

use flate2::{Compress, FlushCompress};
use zstd::zstd_safe::CParameter;

pub use framing::{Checksum, Framing};
pub use read::{Decompressed, decompressed};

use drydock_model::media;

/// How many bytes are compressed at a time. More hardly make blobs smaller (1 MiB: 0.2 % for gzip, 0.8 % for
/// zstd), fewer make them larger (128 KiB: 1.1 %); and with this many, a chunk and its tables stay in a
/// core's own cache.
pub const CHUNK: usize = 512 << 10;

/// No chunk is longer than this once it is encoded, in whatever way: zlib's bound, which is the highest.
pub const ENCODED: usize = CHUNK + CHUNK / 8 + CHUNK / 64 + 64;

/// How the bytes of a layer's blob are to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// The tar itself.
    Plain,
    /// RFC 1952; one member or several.
    Gzip,
    /// RFC 8878; one frame or several.
    Zstd,
}

/// A media type that is not one of layers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not the media type of a layer; expected an OCI or docker layer tar, plain or compressed with gzip or zstd"
)]
pub struct NotALayer(pub String);

impl Format {
    /// The media type that descriptors of such layers have.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Plain => media::LAYER,
            Self::Gzip => media::LAYER_GZIP,
            Self::Zstd => media::LAYER_ZSTD,
        }
    }

    /// What this media type says: OCI's, those of layers that may not be distributed, or docker's.
    pub fn of(media_type: &str) -> Result<Self, NotALayer> {
        match media::to_oci(media_type) {
            media::LAYER | "application/vnd.oci.image.layer.nondistributable.v1.tar" => Ok(Self::Plain),
            media::LAYER_GZIP | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip" => {
                Ok(Self::Gzip)
            }
            media::LAYER_ZSTD | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd" => {
                Ok(Self::Zstd)
            }
            _ => Err(NotALayer(media_type.to_owned())),
        }
    }
}

/// How new layers are compressed: `gzip`, `gzip:1`…`gzip:9`, `zstd`, `zstd:1`…`zstd:19` or `none`. Default is
/// `gzip:1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Compression {
    format: Format,
    level: u8,
}

/// A text that names no [`Compression`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a layer compression; expected `gzip`, `zstd` or `none`, with a level as in `gzip:6` (1 to 9) or `zstd:3` (1 to 19)"
)]
pub struct InvalidCompression(pub String);

impl Compression {
    /// The tar as it is.
    pub const NONE: Self = Self { format: Format::Plain, level: 0 };
    /// Gzip in as little time as possible.
    pub const FAST_GZIP: Self = Self { format: Format::Gzip, level: 1 };

    /// What comes out.
    pub fn format(self) -> Format {
        self.format
    }

    /// An encoder of chunks for this.
    pub fn encoder(self) -> Encoder {
        let engine = match self {
            Self { format: Format::Plain, .. } => Engine::Copy,
            Self { format: Format::Gzip, level: 1 } => Engine::Own(Box::default()),
            Self { format: Format::Gzip, .. } => Engine::Zlib,
            Self { format: Format::Zstd, level } => Engine::Zstd(zstd_compressor(level)),
        };
        Encoder { compression: self, engine }
    }

    /// What an encoder takes at most, in bytes.
    pub(crate) fn encoder_memory(self) -> usize {
        match (self.format, self.level) {
            (Format::Plain, _) => 0,
            (Format::Gzip, 1) => 320 << 10,
            (Format::Gzip, _) => 512 << 10,
            (Format::Zstd, 1..=3) => 1536 << 10,
            (Format::Zstd, _) => 5632 << 10,
        }
    }

    /// Everything at once: for what is small.
    pub fn compress(self, bytes: &[u8]) -> Vec<u8> {
        let mut encoder = self.encoder();
        let mut framing = Framing::new(self.format);
        let mut blob = framing.head().to_vec();
        let mut out = vec![0; ENCODED];
        let (mut chunk, mut rest) = bytes.split_at(bytes.len().min(CHUNK));
        loop {
            let Encoded { len, checksum } = encoder.encode(chunk, &mut out);
            blob.extend_from_slice(&out[..len]);
            framing.add(&checksum);
            if rest.is_empty() {
                break;
            }
            (chunk, rest) = rest.split_at(rest.len().min(CHUNK));
        }
        blob.extend_from_slice(&framing.tail());
        blob
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self::FAST_GZIP
    }
}

impl FromStr for Compression {
    type Err = InvalidCompression;

    fn from_str(text: &str) -> Result<Self, InvalidCompression> {
        let invalid = || InvalidCompression(text.to_owned());
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        let (format, highest) = match name {
            "none" if level.is_none() => return Ok(Self::NONE),
            "gzip" => (Format::Gzip, 9),
            // Beyond that, it looks further back than a chunk reaches.
            "zstd" => (Format::Zstd, 19),
            _ => return Err(invalid()),
        };
        // Only digits: `parse` alone takes a plus sign too.
        let digits = level.unwrap_or("1");
        let level = digits.parse().ok().filter(|level| {
            digits.starts_with(|c: char| c.is_ascii_digit()) && (1..=highest).contains(level)
        });
        Ok(Self { format, level: level.ok_or_else(invalid)? })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.format {
            Format::Plain => f.write_str("none"),
            Format::Gzip => write!(f, "gzip:{}", self.level),
            Format::Zstd => write!(f, "zstd:{}", self.level),
        }
    }
}

/// Compresses chunks. One thread has one, and uses it again and again.
#[derive(Debug)]
pub struct Encoder {
    compression: Compression,
    engine: Engine,
}

enum Engine {
    Copy,
    Own(Box<deflate::Encoder>),
    Zlib,
    Zstd(zstd::bulk::Compressor<'static>),
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Copy => "Copy",
            Self::Own(_) => "Own",
            Self::Zlib => "Zlib",
            Self::Zstd(_) => "Zstd",
        })
    }
}

impl Encoder {
    /// What it was made for.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Encodes a chunk of at most [`CHUNK`] bytes into the beginning of `out`, which has at least
    /// [`ENCODED`].
    pub fn encode(&mut self, chunk: &[u8], out: &mut [u8]) -> Encoded {
        let len = match &mut self.engine {
            Engine::Copy => {
                out[..chunk.len()].copy_from_slice(chunk);
                chunk.len()
            }
            Engine::Own(encoder) => encoder.encode(chunk, out),
            Engine::Zlib => deflate_with_zlib(chunk, self.compression.level, out),
            Engine::Zstd(encoder) => encoder
                .compress_to_buffer(chunk, out)
                .expect("it fails only where there is no space or no memory"),
        };
        Encoded { len, checksum: Checksum::of(self.compression.format, chunk) }
    }
}

/// What became of a chunk.
#[derive(Debug, Default)]
pub struct Encoded {
    /// How many bytes it has now.
    pub len: usize,
    /// What the blob's [`Framing`] must know.
    pub checksum: Checksum,
}

fn zstd_compressor(level: u8) -> zstd::bulk::Compressor<'static> {
    const VALID: &str = "zstd has these levels and parameters, and fails only without memory";
    let mut compressor = zstd::bulk::Compressor::new(level.into()).expect(VALID);
    if level >= 7 {
        // From here on its tables have more entries than a chunk has bytes: that would be 9 MiB in place of 5
        // for a little in size.
        let entries = CHUNK.ilog2();
        compressor.set_parameter(CParameter::HashLog(entries)).expect(VALID);
        compressor.set_parameter(CParameter::ChainLog(entries)).expect(VALID);
    }
    compressor
}

/// Writes the chunk as deflate blocks of which none is the last, up to a whole byte. Returns how many bytes
/// that are.
fn deflate_with_zlib(chunk: &[u8], level: u8, out: &mut [u8]) -> usize {
    // A new one each time: what comes out may not depend on what it did before.
    let mut stream = Compress::new(flate2::Compression::new(level.into()), false);
    stream.compress(chunk, out, FlushCompress::Sync).expect("nothing is asked that a stream cannot do");
    let len = usize::try_from(stream.total_out()).expect("no more than there is space for");
    let all = stream.total_in() == chunk.len() as u64 && len < out.len();
    assert!(all, "zlib stops only where there is no more space, and there was enough");
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressions_parse() {
        for (text, expected) in [
            ("gzip", "gzip:1"),
            ("gzip:1", "gzip:1"),
            ("gzip:9", "gzip:9"),
            ("zstd", "zstd:1"),
            ("zstd:19", "zstd:19"),
            ("none", "none"),
        ] {
            assert_eq!(text.parse::<Compression>().unwrap().to_string(), expected);
        }
        assert_eq!(Compression::default().to_string(), "gzip:1");
    }

    #[test]
    fn encoders_take_no_more_than_is_said() {
        for level in 1..=19 {
            let mut compressor = zstd_compressor(level);
            compressor.compress_to_buffer(&vec![7; CHUNK], &mut vec![0; ENCODED]).unwrap();
            let memory = Compression { format: Format::Zstd, level }.encoder_memory();
            assert!(compressor.context_mut().sizeof() <= memory, "zstd:{level}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "", "GZIP", "gzip:", "gzip:0", "gzip:10", "gzip:+1", "gzip:-1", "gzip: 1", "zstd:20", "zstd:x",
            "none:1", "gzip:1:1",
        ] {
            let error = text.parse::<Compression>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("zstd"), "{error}");
        }
    }

    #[test]
    fn media_types() {
        for format in [Format::Plain, Format::Gzip, Format::Zstd] {
            assert_eq!(Format::of(format.media_type()), Ok(format));
        }
        assert_eq!(Format::of("application/vnd.docker.image.rootfs.diff.tar.gzip"), Ok(Format::Gzip));
        for text in
            ["", "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+lz4"]
        {
            assert_eq!(Format::of(text), Err(NotALayer(text.to_owned())));
        }
    }
}
