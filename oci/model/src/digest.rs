//! Digests of blobs and of layer tars: SHA-256, as `sha256:<64 hex digits>`.
//!
//! Specification: OCI image-spec `descriptor.md` § Digests, `config.md` § Layer DiffID.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::hash::Hasher;

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest; expected `sha256:` and 64 lower-case hex digits")]
pub struct InvalidDigest(pub String);

/// Whether a text is a digest of another algorithm: `sha512:…`.
pub fn is_foreign(text: &str) -> bool {
    let is_name = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    text.split_once(':').is_some_and(|(algorithm, encoded)| {
        algorithm != "sha256"
            && algorithm.split(['+', '.', '_', '-']).all(is_name)
            && !encoded.is_empty()
            && encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"=_-".contains(&byte))
    })
}

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 32]);

        impl $name {
            /// Of these bytes.
            pub fn of(bytes: &[u8]) -> Self {
                let mut hash = Hasher::new();
                hash.update(bytes);
                Self::from_hash(hash)
            }

            /// Of all bytes that were hashed.
            pub fn from_hash(hash: Hasher) -> Self {
                Self(hash.finish())
            }

            /// The 64 hex digits, without the algorithm: the blob's file name.
            pub fn hex(&self) -> String {
                let mut text = String::with_capacity(64);
                for byte in self.0 {
                    for nibble in [byte >> 4, byte & 15] {
                        text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
                    }
                }
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "sha256:{}", self.hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidDigest;

            fn from_str(text: &str) -> Result<Self, InvalidDigest> {
                let invalid = || InvalidDigest(text.to_owned());
                let hex = text.strip_prefix("sha256:").ok_or_else(invalid)?.as_bytes();
                let nibble = |digit: u8| match digit {
                    b'0'..=b'9' => Ok(digit - b'0'),
                    b'a'..=b'f' => Ok(digit - b'a' + 10),
                    _ => Err(invalid()),
                };
                if hex.len() != 64 {
                    return Err(invalid());
                }
                let mut bytes = [0; 32];
                for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
                    *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
                }
                Ok(Self(bytes))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidDigest;
            fn try_from(text: String) -> Result<Self, InvalidDigest> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(digest: $name) -> Self {
                digest.to_string()
            }
        }
    };
}

digest_type!(
    /// The digest of a blob as it is stored: compressed, for a layer.
    Digest
);
digest_type!(
    /// The digest of a layer's uncompressed tar.
    DiffId
);

impl DiffId {
    /// The digest of a blob that is the tar itself.
    pub fn of_plain_blob(self) -> Digest {
        Digest(self.0)
    }
}

/// Passes everything on to a writer, hashes it and counts it.
pub struct HashingWriter<W> {
    inner: W,
    hash: Hasher,
    size: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Around a writer.
    pub fn new(inner: W) -> Self {
        Self { inner, hash: Hasher::new(), size: 0 }
    }

    /// The writer, what went through it, and how many bytes that was.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest::from_hash(self.hash), self.size)
    }
}

impl<W> fmt::Debug for HashingWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HashingWriter({} bytes)", self.size)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digests_of_other_algorithms() {
        for (text, want) in [
            ("sha512:00ff", true),
            ("multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8", true),
            ("sha256:00ff", false),
            ("sha512", false),
            ("sha512:", false),
            (":00", false),
            ("../x:00", false),
            ("sha512:..", false),
            ("sha512:a/b", false),
            ("SHA512:00", false),
        ] {
            assert_eq!(is_foreign(text), want, "{text}");
        }
    }

    #[test]
    fn parses_what_it_prints() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
    }

    #[test]
    fn refuses_anything_else() {
        let upper = EMPTY.to_uppercase();
        for text in ["", "sha256:", "sha512:00", &EMPTY[..70], &EMPTY[7..], &upper, &format!("{EMPTY}0")] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn hashing_writer_hashes_what_was_taken() {
        let mut writer = HashingWriter::new(Vec::new());
        writer.write_all(b"abc").unwrap();
        assert_eq!(writer.finish(), (b"abc".to_vec(), Digest::of(b"abc"), 3));
    }
}
