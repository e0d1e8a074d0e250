//! The bytes of the tar: read in large chunks, which another thread hashes meanwhile, if one can be started.

use std::io::{self, BufRead, ErrorKind, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Scope, ScopedJoinHandle};

use drydock_model::digest::DiffId;
use drydock_model::hash::Hasher;

/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;

/// Chunks that wait to be hashed, at most.
const QUEUE: usize = 4;

/// Bytes of which the first so many count.
pub(super) type Chunk = (Arc<Box<[u8]>>, usize);

/// A tar that is hashed while it is read.
pub(super) struct HashedInput<'scope, R> {
    reader: R,
    limit: u64,
    /// Bytes that were read.
    length: u64,
    /// The current chunk.
    chunk: Chunk,
    /// What has been consumed of it.
    used: usize,
    /// Earlier chunks; those that are hashed are filled again.
    spare: Vec<Arc<Box<[u8]>>>,
    hashing: Hashing<'scope>,
}

/// Who hashes.
pub(super) enum Hashing<'scope> {
    Thread(SyncSender<Chunk>, ScopedJoinHandle<'scope, DiffId>),
    Here(Hasher),
}

impl<'scope> Hashing<'scope> {
    /// In a thread, unless the process may have no more of them.
    pub(super) fn start(scope: &'scope Scope<'scope, '_>) -> Self {
        let (to_hasher, chunks) = sync_channel(QUEUE);
        let thread = thread::Builder::new().name("hash tar".into());
        match thread.spawn_scoped(scope, move || hash_chunks(&chunks)) {
            Ok(thread) => Self::Thread(to_hasher, thread),
            Err(_) => Self::Here(Hasher::new()),
        }
    }
}

impl<'scope, R: Read> HashedInput<'scope, R> {
    /// What `reader` gives; more than `limit` bytes are an error ([`ErrorKind::FileTooLarge`]).
    pub(super) fn new(reader: R, limit: u64, hashing: Hashing<'scope>) -> Self {
        let chunk = (Arc::new(Box::default()), 0);
        Self { reader, limit, length: 0, chunk, used: 0, spare: Vec::new(), hashing }
    }

    /// Reads what is left, and tells the hash of all.
    pub(super) fn finish(mut self) -> io::Result<DiffId> {
        self.used = self.chunk.1;
        while !self.fill_buf()?.is_empty() {
            self.used = self.chunk.1;
        }
        Ok(match self.hashing {
            Hashing::Thread(to_hasher, thread) => {
                drop(to_hasher);
                thread.join().expect("hashing does not panic")
            }
            Hashing::Here(hash) => DiffId::from_hash(hash),
        })
    }

    fn next_chunk(&mut self) -> io::Result<()> {
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
                Err(error) => return Err(error),
            }
        }
        self.length += filled as u64;
        if self.length > self.limit {
            let message = format!("it has more than {} bytes", self.limit);
            return Err(io::Error::new(ErrorKind::FileTooLarge, message));
        }
        match &mut self.hashing {
            Hashing::Thread(to_hasher, _) => {
                let sent = to_hasher.send((Arc::clone(&next), filled));
                sent.expect("the hasher goes on until this end is dropped");
            }
            Hashing::Here(hash) => hash.update(&next[..filled]),
        }
        let (last, _) = std::mem::replace(&mut self.chunk, (next, filled));
        if !last.is_empty() {
            self.spare.push(last);
        }
        self.used = 0;
        Ok(())
    }
}

impl<R: Read> BufRead for HashedInput<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.chunk.1 {
            self.next_chunk()?;
        }
        Ok(&self.chunk.0[self.used..self.chunk.1])
    }

    fn consume(&mut self, n: usize) {
        self.used += n;
    }
}

impl<R: Read> Read for HashedInput<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

/// Hashes all chunks that come, to the last.
fn hash_chunks(chunks: &Receiver<Chunk>) -> DiffId {
    let mut hash = Hasher::new();
    for (chunk, filled) in chunks {
        hash.update(&chunk[..filled]);
    }
    DiffId::from_hash(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_all_with_a_thread_and_without() {
        let bytes: Vec<u8> = (0..1_000_003_u32).map(|i| (i % 251) as u8).collect();
        thread::scope(|scope| {
            for hashing in [Hashing::start(scope), Hashing::Here(Hasher::new())] {
                let mut input = HashedInput::new(&bytes[..], bytes.len() as u64, hashing);
                let mut some = vec![0; 600_000];
                input.read_exact(&mut some).unwrap();
                assert!(some == bytes[..600_000]);
                assert_eq!(input.finish().unwrap(), DiffId::of(&bytes));
            }
        });
    }

    #[test]
    fn reads_no_more_than_the_limit() {
        let input = HashedInput::new(io::repeat(0), 1_000_000, Hashing::Here(Hasher::new()));
        assert_eq!(input.finish().unwrap_err().kind(), ErrorKind::FileTooLarge);
    }
}
