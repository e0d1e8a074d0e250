//! Where a layer's tar goes: a writer that lends its buffer, so that file contents are read straight into it.

use std::fmt;
use std::io::{self, Write};

/// Takes bytes in order, into a buffer of its own.
///
/// The caller either copies bytes in ([`Sink::write_all`]) or fills the buffer itself: it asks for [`Sink::space`],
/// writes into its beginning, and says with [`Sink::advance`] how much of it counts.
pub trait Sink {
    /// The free part of the current buffer; never empty. What it holds before it is filled is arbitrary; asked for again
    /// before [`Sink::advance`], it is the same part with what was filled in.
    ///
    /// An error means that the bytes cannot go anywhere any more; the caller gives up and passes it on.
    fn space(&mut self) -> io::Result<&mut [u8]>;

    /// Says that the first `n` bytes of the last [`Sink::space`] are filled. At most once for each `space`.
    fn advance(&mut self, n: usize);

    /// Copies all of `bytes`.
    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let space = self.space()?;
            let n = space.len().min(bytes.len());
            let (now, later) = bytes.split_at(n);
            space[..n].copy_from_slice(now);
            self.advance(n);
            bytes = later;
        }
        Ok(())
    }
}

/// Keeps everything in memory.
#[derive(Debug, Default)]
pub struct MemorySink {
    buffer: Vec<u8>,
    filled: usize,
}

impl MemorySink {
    /// All bytes that were written.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.buffer.truncate(self.filled);
        self.buffer
    }
}

impl Sink for MemorySink {
    fn space(&mut self) -> io::Result<&mut [u8]> {
        if self.filled == self.buffer.len() {
            self.buffer.resize((2 * self.filled).max(4096), 0);
        }
        Ok(&mut self.buffer[self.filled..])
    }

    fn advance(&mut self, n: usize) {
        self.filled += n;
        assert!(self.filled <= self.buffer.len(), "more was filled than there was space");
    }
}

/// Passes everything on to a writer, in large pieces. Nothing is complete before [`WriterSink::finish`].
pub struct WriterSink<W> {
    inner: W,
    buffer: Box<[u8]>,
    filled: usize,
}

impl<W: Write> WriterSink<W> {
    /// In front of a writer, which needs no buffer of its own.
    pub fn new(inner: W) -> Self {
        Self { inner, buffer: vec![0; 128 << 10].into(), filled: 0 }
    }

    /// Writes what is left in the buffer, and gives the writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.empty()?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn empty(&mut self) -> io::Result<()> {
        self.inner.write_all(&self.buffer[..self.filled])?;
        self.filled = 0;
        Ok(())
    }
}

impl<W: Write> Sink for WriterSink<W> {
    fn space(&mut self) -> io::Result<&mut [u8]> {
        if self.filled == self.buffer.len() {
            self.empty()?;
        }
        Ok(&mut self.buffer[self.filled..])
    }

    fn advance(&mut self, n: usize) {
        self.filled += n;
        assert!(self.filled <= self.buffer.len(), "more was filled than there was space");
    }
}

impl<W> fmt::Debug for WriterSink<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriterSink({} bytes waiting)", self.filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes 1 MB, by copying and by filling, in pieces whose sizes have nothing to do with those of the buffers.
    fn fill(sink: &mut dyn Sink) -> Vec<u8> {
        let all: Vec<u8> = (0..1_000_003_u32).map(|i| (i % 251) as u8).collect();
        let mut rest = &all[..];
        for size in (1..).map(|i| i * 37) {
            let (now, later) = rest.split_at(size.min(rest.len()));
            if size % 2 == 0 {
                sink.write_all(now).unwrap();
                rest = later;
            } else {
                let space = sink.space().unwrap();
                let n = space.len().min(now.len());
                space[..n].copy_from_slice(&now[..n]);
                sink.advance(n);
                rest = &rest[n..];
            }
            if rest.is_empty() {
                break;
            }
        }
        all
    }

    #[test]
    fn memory_keeps_everything() {
        let mut sink = MemorySink::default();
        let expected = fill(&mut sink);
        assert!(sink.into_bytes() == expected);
    }

    #[test]
    fn writer_gets_everything() {
        let mut sink = WriterSink::new(Vec::new());
        let expected = fill(&mut sink);
        assert!(sink.finish().unwrap() == expected);
    }

    #[test]
    fn writer_error_comes_through() {
        let mut small = [0; 10];
        let mut sink = WriterSink::new(&mut small[..]);
        let error = (0..100).find_map(|_| sink.write_all(&[1; 10_000]).err());
        assert_eq!(error.unwrap().kind(), io::ErrorKind::WriteZero);
    }
}
