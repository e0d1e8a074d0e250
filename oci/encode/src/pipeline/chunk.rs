//! The pieces that a layer's tar travels in. Their memory is used again and again.

use crate::compress::{CHUNK, ENCODED, Encoded, Encoder};

/// A piece of a tar, and room for its encoding.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// The number of the job that it belongs to.
    pub(super) job: usize,
    /// Its place in the layer.
    pub(super) index: u64,
    /// Without memory until it is used for the first time: small layers need few chunks.
    tar: Box<[u8]>,
    /// How much of `tar` there is.
    filled: usize,
    encoding: Box<[u8]>,
    /// What is in `encoding`.
    pub(super) encoded: Encoded,
}

impl Chunk {
    /// How many bytes one takes.
    pub(super) const MEMORY: usize = CHUNK + ENCODED;

    /// Makes it the empty chunk at this place.
    pub(super) fn begin(&mut self, job: usize, index: u64) {
        let (mut tar, mut encoding) = (std::mem::take(&mut self.tar), std::mem::take(&mut self.encoding));
        if tar.is_empty() {
            (tar, encoding) = (vec![0; CHUNK].into(), vec![0; ENCODED].into());
        }
        *self = Self { job, index, tar, encoding, ..Self::default() };
    }

    /// What is free of it.
    pub(super) fn space(&mut self) -> &mut [u8] {
        &mut self.tar[self.filled..]
    }

    /// Makes it longer by what is at the beginning of [`Chunk::space`].
    pub(super) fn advance(&mut self, n: usize) {
        assert!(n <= CHUNK - self.filled, "more was filled than there was space");
        self.filled += n;
    }

    pub(super) fn is_full(&self) -> bool {
        self.filled == CHUNK
    }

    /// The piece of the tar, as far as it is there.
    pub(super) fn tar(&self) -> &[u8] {
        &self.tar[..self.filled]
    }

    pub(super) fn encode(&mut self, encoder: &mut Encoder) {
        self.encoded = encoder.encode(&self.tar[..self.filled], &mut self.encoding);
    }

    /// After [`Chunk::encode`].
    pub(super) fn encoding(&self) -> &[u8] {
        &self.encoding[..self.encoded.len]
    }
}
