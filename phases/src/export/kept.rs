//! A layer's tar in the cache, compared with the layer while that is hashed: where they are the same it can
//! be kept.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};

use drydock_io::read::ReadAt;
use drydock_io::sink::Sink;
use drydock_layout::seen::Seen;
use drydock_model::digest::DiffId;

/// A tar that the cache has already.
#[derive(Debug)]
pub(super) struct CachedTar {
    /// What the cache says that it is.
    pub(super) diff_id: DiffId,
    file: File,
    is_same: AtomicBool,
}

impl CachedTar {
    pub(super) fn new(diff_id: DiffId, file: File) -> Self {
        Self { diff_id, file, is_same: AtomicBool::new(false) }
    }

    /// Writes a layer to `out` by `write`, and compares the bytes.
    pub(super) fn compare<T, E>(
        &self,
        out: &mut dyn Sink,
        write: impl FnOnce(&mut dyn Sink) -> Result<T, E>,
    ) -> Result<T, E> {
        let tar = BufReader::with_capacity(256 << 10, ReadAt { file: &self.file, at: 0 });
        let mut comparison = Comparison { out, tar, differs: false };
        let written = write(&mut comparison)?;
        self.is_same.store(comparison.finish(), Ordering::Relaxed);
        Ok(written)
    }

    /// Whether it looks as it did when it had its digest. Then it counts as compared.
    pub(super) fn is_known(&self, seen: &Seen) -> bool {
        let is_known = seen.knows_file(&self.file, self.diff_id.of_plain_blob());
        self.is_same.fetch_or(is_known, Ordering::Relaxed);
        is_known
    }

    /// Whether the tar has the very bytes that were written last. Then the digest of these is its own.
    pub(super) fn is_same(&self) -> bool {
        self.is_same.load(Ordering::Relaxed)
    }
}

/// Passes on what is written, and compares it with a tar.
struct Comparison<'a> {
    out: &'a mut dyn Sink,
    tar: BufReader<ReadAt<&'a File>>,
    differs: bool,
}

impl Comparison<'_> {
    /// After the last byte: whether all were the same, and the tar has no more.
    fn finish(mut self) -> bool {
        !self.differs && self.tar.fill_buf().is_ok_and(<[u8]>::is_empty)
    }
}

impl Sink for Comparison<'_> {
    fn space(&mut self) -> io::Result<&mut [u8]> {
        self.out.space()
    }

    fn advance(&mut self, n: usize) {
        if !self.differs {
            self.differs = !self.out.space().is_ok_and(|space| goes_on_with(&mut self.tar, &space[..n]));
        }
        self.out.advance(n);
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.differs = self.differs || !goes_on_with(&mut self.tar, bytes);
        self.out.write_all(bytes)
    }
}

fn goes_on_with(tar: &mut BufReader<ReadAt<&File>>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let n = match tar.fill_buf() {
            Ok(next) => {
                let n = next.len().min(bytes.len());
                if n == 0 || next[..n] != bytes[..n] {
                    return false;
                }
                n
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return false,
        };
        tar.consume(n);
        bytes = &bytes[n..];
    }
    true
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use drydock_io::sink::{MemorySink, WriterSink};

    use super::*;

    /// In pieces that have nothing to do with those in which the tar is read, copied and filled in turns.
    fn write(bytes: &[u8], out: &mut dyn Sink) -> io::Result<()> {
        for (number, mut piece) in bytes.chunks(10_007).enumerate() {
            if number % 2 == 0 {
                out.write_all(piece)?;
                continue;
            }
            while !piece.is_empty() {
                let space = out.space()?;
                let n = space.len().min(piece.len());
                space[..n].copy_from_slice(&piece[..n]);
                out.advance(n);
                piece = &piece[n..];
            }
        }
        Ok(())
    }

    #[test]
    fn only_the_very_bytes_are_the_same() {
        let layer: Vec<u8> = (0..700_000_u32).map(|i| (i % 251) as u8).collect();
        let changed = |at: usize| {
            let mut tar = layer.clone();
            tar[at] ^= 1;
            tar
        };
        for (tar, is_same) in [
            (layer.clone(), true),
            (changed(0), false),
            (changed(15_000), false),
            (changed(layer.len() - 1), false),
            (layer[..layer.len() - 1].to_vec(), false),
            ([&layer[..], b"\0"].concat(), false),
            (Vec::new(), false),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&tar).unwrap();
            let cached = CachedTar::new(DiffId::of(&layer), file);
            for _ in 0..2 {
                assert!(!cached.is_same() || is_same);
                let mut memory = MemorySink::default();
                cached.compare(&mut memory, |out| write(&layer, out)).unwrap();
                assert_eq!(cached.is_same(), is_same, "{}", tar.len());
                assert!(memory.into_bytes() == layer);
                let mut writer = WriterSink::new(Vec::new());
                cached.compare(&mut writer, |out| write(&layer, out)).unwrap();
                assert_eq!(cached.is_same(), is_same, "{}", tar.len());
                assert!(writer.finish().unwrap() == layer);
            }
        }
    }

    #[test]
    fn a_layer_that_cannot_be_written_is_not_the_same() {
        let cached = CachedTar::new(DiffId::of(b""), tempfile::tempfile().unwrap());
        let mut memory = MemorySink::default();
        assert!(cached.compare(&mut memory, |_| Err::<(), _>(ErrorKind::Other)).is_err());
        assert!(!cached.is_same());
    }
}
