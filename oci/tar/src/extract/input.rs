//! The bytes of the tar: read in large chunks, given to the hasher, and lent in pieces.

use std::io::{ErrorKind, Read};
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use super::ExtractError;
use crate::write::BLOCK;
use drydock_model::digest::DiffId;
use drydock_model::hash::Hasher;

/// A whole number of blocks, so that no block is in two chunks.
const CHUNK: usize = 512 * BLOCK;

/// Bytes of which the first so many count.
type Filled = (Arc<Box<[u8]>>, usize);

/// Some of the tar's bytes, without a copy: the chunk is not filled again while anybody has a piece of it.
pub(super) struct Piece {
    chunk: Arc<Box<[u8]>>,
    range: Range<usize>,
    /// Where in the tar the chunk begins.
    pub(super) chunk_offset: u64,
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.chunk[self.range.clone()]
    }
}

/// The tar, from where reading it has come to.
pub(super) struct Input<R> {
    reader: R,
    to_hasher: SyncSender<Filled>,
    /// The current chunk.
    chunk: Filled,
    /// What has been lent of the current chunk.
    used: usize,
    /// Earlier chunks; those that nobody uses any more are filled again.
    spare: Vec<Arc<Box<[u8]>>>,
    /// Where in the tar the current chunk begins.
    offset: u64,
}

impl<R: Read> Input<R> {
    pub(super) fn new(reader: R, to_hasher: SyncSender<Filled>) -> Self {
        let empty = (Arc::new(Box::default()), 0);
        Self { reader, to_hasher, chunk: empty, used: 0, spare: Vec::new(), offset: 0 }
    }

    /// How much of the tar has been lent.
    pub(super) fn offset(&self) -> u64 {
        self.offset + self.used as u64
    }

    /// Where in the tar the current chunk begins.
    pub(super) fn chunk_offset(&self) -> u64 {
        self.offset
    }

    /// The next block; none at the end of the tar.
    pub(super) fn block(&mut self) -> Result<Option<&[u8; BLOCK]>, ExtractError> {
        let piece = self.piece(BLOCK as u64)?;
        match piece.len() {
            0 => Ok(None),
            BLOCK => Ok(Some(piece.try_into().expect("has the length of a block"))),
            _ => Err(ended_early()),
        }
    }

    /// The next bytes: at least one and at most `most` (which is not 0), as many as there are in the current chunk.
    /// Empty at the end of the tar.
    pub(super) fn piece(&mut self, most: u64) -> Result<&[u8], ExtractError> {
        if self.used == self.chunk.1 {
            self.next_chunk()?;
        }
        let start = self.used;
        let left = self.chunk.1 - start;
        let length = usize::try_from(most).map_or(left, |most| most.min(left));
        self.used += length;
        Ok(&self.chunk.0[start..start + length])
    }

    /// Passes `size` bytes piece by piece, and skips the padding after them.
    pub(super) fn contents(
        &mut self,
        size: u64,
        mut pass: impl FnMut(Piece) -> Result<(), ExtractError>,
    ) -> Result<(), ExtractError> {
        let mut left = size;
        while left > 0 {
            let length = self.piece(left)?.len();
            if length == 0 {
                return Err(ended_early());
            }
            left -= length as u64;
            pass(Piece {
                chunk: Arc::clone(&self.chunk.0),
                range: self.used - length..self.used,
                chunk_offset: self.offset,
            })?;
        }
        // Contents begin on a block, and blocks don't straddle chunks: the padding is in this chunk.
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        if padding > 0 && self.piece(padding)?.len() as u64 != padding {
            return Err(ended_early());
        }
        Ok(())
    }

    /// Reads and hashes what is left.
    pub(super) fn finish(mut self) -> Result<(), ExtractError> {
        self.used = self.chunk.1;
        while !self.piece(u64::MAX)?.is_empty() {}
        Ok(())
    }

    fn next_chunk(&mut self) -> Result<(), ExtractError> {
        let free = self.spare.iter_mut().position(|chunk| Arc::get_mut(chunk).is_some());
        let mut next = match free {
            Some(index) => self.spare.swap_remove(index),
            None => Arc::new(vec![0; CHUNK].into()),
        };
        let buffer = Arc::get_mut(&mut next).expect("nobody else has it");
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ExtractError::Read(error)),
            }
        }
        self.offset += self.chunk.1 as u64;
        self.used = 0;
        let (last, _) = std::mem::replace(&mut self.chunk, (Arc::clone(&next), filled));
        if !last.is_empty() {
            self.spare.push(last);
        }
        self.to_hasher.send((next, filled)).expect("the hasher goes on until this end is dropped");
        Ok(())
    }
}

/// Hashes all chunks that come, to the last.
pub(super) fn hash_chunks(chunks: &Receiver<Filled>) -> DiffId {
    let mut hash = Hasher::new();
    for (chunk, filled) in chunks {
        hash.update(&chunk[..filled]);
    }
    DiffId::from_hash(hash)
}

pub(super) fn ended_early() -> ExtractError {
    ExtractError::Read(ErrorKind::UnexpectedEof.into())
}
