//! SHA-256 of bytes that come in pieces.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// Hashes one stream.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// For a stream of which nothing has come yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The stream goes on with these bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The SHA-256 of the whole stream.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}
