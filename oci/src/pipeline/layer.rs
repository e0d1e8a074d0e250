//! One layer on its way: the source fills chunks, one thread hashes them, workers compress them, one thread writes them in order.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::panic;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use sha2::{Digest as _, Sha256};

use super::pool::{Pool, Slot};
use super::worker::{Chunk, Task};
use super::{Blob, Done, Error, Failure, Job, Source};
use crate::compress::{Checksum, Compression, Format, Framing};
use crate::digest::{DiffId, Digest};
use crate::file::TempFile;
use crate::sink::Sink;

/// Does one job.
pub(super) fn run<'p, E: Send>(
    job: &Job<'_, E>,
    pool: &'p Pool,
    workers: &Sender<Task<'p>>,
) -> Result<Done, Failure<E>> {
    if job.known.is_some() || (job.blob.is_none() && job.copy.is_none()) {
        let (hash, size) = only_hash(job.source, pool)?;
        let diff_id = DiffId::from_hash(hash);
        if job.known.is_none_or(|known| known == diff_id) {
            return Ok(Done { diff_id, size, blob: None, copy: None });
        }
    }
    hash_and_write(job, pool, workers)
}

fn only_hash<E: Send>(source: &Source<'_, E>, pool: &Pool) -> Result<(Sha256, u64), Failure<E>> {
    thread::scope(|scope| {
        let (chunks, filled) = mpsc::channel();
        let hashing = scope.spawn(|| hash(filled, |_, slot| drop(slot)));
        let produced = produce(source, pool, chunks);
        let hashed = hashing.join().unwrap_or_else(|cause| panic::resume_unwind(cause));
        produced.map(|()| hashed)
    })
}

fn hash_and_write<'p, E: Send>(
    job: &Job<'_, E>,
    pool: &'p Pool,
    workers: &Sender<Task<'p>>,
) -> Result<Done, Failure<E>> {
    let compression = job.blob.map_or(Compression::NONE, |(_, compression)| compression);
    let blob = job.blob.map(|(dir, _)| BlobFile::create(dir, compression.format())).transpose()?;
    let copy = job.copy.map(Output::create).transpose()?;

    thread::scope(|scope| {
        let (chunks, filled) = mpsc::channel();
        let (collector, compressed) = mpsc::channel();
        let hashing = scope.spawn(move || {
            hash(filled, |index, slot| {
                let chunk = Chunk { index, slot, encoded: 0, checksum: Checksum::default() };
                if compression == Compression::NONE {
                    // A collector that could not write is gone; the run is about to end.
                    drop(collector.send(chunk));
                } else {
                    let task = Task { chunk, compression, collector: collector.clone() };
                    workers.send(task).expect("the receiver lives as long as the run");
                }
            })
        });
        let collecting = scope.spawn(move || {
            let collected = collect(&compressed, blob, copy);
            if collected.is_err() {
                // The source would go on for long.
                pool.stop();
            }
            collected
        });
        let produced = produce(job.source, pool, chunks);
        let (hash, size) = hashing.join().unwrap_or_else(|cause| panic::resume_unwind(cause));
        let collected = collecting.join().unwrap_or_else(|cause| panic::resume_unwind(cause));
        // If writing failed, that is why the source did.
        let (blob, copy) = collected?;
        produced?;
        let blob = blob.map(|blob| blob.finish(&hash));
        Ok(Done { diff_id: DiffId::from_hash(hash), size, blob, copy: copy.map(|copy| copy.file) })
    })
}

/// Lets the source fill chunks, of which there is at least one.
fn produce<'p, E>(
    source: &Source<'_, E>,
    pool: &'p Pool,
    chunks: Sender<Slot<'p>>,
) -> Result<(), Failure<E>> {
    let mut sink = ChunkSink { pool, slot: None, chunks, empty: true, refused: false };
    let written = source(&mut sink);
    if sink.refused {
        // Whatever the source made of it.
        return Err(Failure::Elsewhere);
    }
    written.map_err(Error::Source)?;
    if sink.empty {
        sink.slot().map_err(|_| Failure::Elsewhere)?;
    }
    sink.pass_on();
    Ok(())
}

/// Puts what the source writes into chunks.
struct ChunkSink<'p> {
    pool: &'p Pool,
    slot: Option<Slot<'p>>,
    chunks: Sender<Slot<'p>>,
    /// No chunk was passed on.
    empty: bool,
    /// The source was told to stop.
    refused: bool,
}

impl<'p> ChunkSink<'p> {
    fn slot(&mut self) -> io::Result<&mut Slot<'p>> {
        let slot = self.slot.take().or_else(|| self.pool.take());
        self.refused = slot.is_none();
        let slot = slot.ok_or_else(|| io::Error::other("stopped, because something else failed"))?;
        Ok(self.slot.insert(slot))
    }

    fn pass_on(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.empty = false;
            self.chunks.send(slot).expect("the hasher takes chunks for as long as there is a sender");
        }
    }
}

impl Sink for ChunkSink<'_> {
    fn space(&mut self) -> io::Result<&mut [u8]> {
        // A full slot is passed on at once: there is space.
        Ok(self.slot()?.space())
    }

    fn advance(&mut self, n: usize) {
        let slot = self.slot.as_mut().expect("there was a `space` before");
        slot.advance(n);
        if slot.is_full() {
            self.pass_on();
        }
    }
}

/// Hashes and counts all chunks, and hands each on with its number.
fn hash<'p>(filled: Receiver<Slot<'p>>, hand_on: impl Fn(u64, Slot<'p>)) -> (Sha256, u64) {
    let mut hash = Sha256::new();
    let mut size = 0;
    for (index, slot) in (0..).zip(filled) {
        hash.update(slot.chunk());
        size += slot.chunk().len() as u64;
        hand_on(index, slot);
    }
    (hash, size)
}

type Written = (Option<BlobFile>, Option<Output>);

/// Writes chunks in the order of their numbers, whatever order they come in.
fn collect<E>(
    compressed: &Receiver<Chunk<'_>>,
    mut blob: Option<BlobFile>,
    mut copy: Option<Output>,
) -> Result<Written, Error<E>> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    for chunk in compressed {
        early.insert(chunk.index, chunk);
        while let Some(chunk) = early.remove(&next) {
            next += 1;
            if let Some(copy) = &mut copy {
                copy.write(chunk.slot.chunk())?;
            }
            if let Some(blob) = &mut blob {
                blob.add(&chunk)?;
            }
        }
    }
    if let Some(blob) = &mut blob {
        blob.write(&blob.framing.tail())?;
    }
    Ok((blob, copy))
}

/// A file that is being written, without a name yet.
struct Output {
    file: TempFile,
    size: u64,
}

impl Output {
    fn create<E>(dir: &Path) -> Result<Self, Error<E>> {
        let file =
            TempFile::create_in(dir).map_err(|source| Error::Write { path: dir.to_owned(), source })?;
        Ok(Self { file, size: 0 })
    }

    fn write<E>(&mut self, bytes: &[u8]) -> Result<(), Error<E>> {
        let written = self.file.file().write_all(bytes);
        written.map_err(|source| Error::Write { path: self.file.path().to_owned(), source })?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

/// A blob that is being written.
struct BlobFile {
    output: Output,
    format: Format,
    framing: Framing,
    hash: Sha256,
}

impl BlobFile {
    fn create<E>(dir: &Path, format: Format) -> Result<Self, Error<E>> {
        let framing = Framing::new(format);
        let head = framing.head();
        let mut blob = Self { output: Output::create(dir)?, format, framing, hash: Sha256::new() };
        blob.write(head)?;
        Ok(blob)
    }

    fn add<E>(&mut self, chunk: &Chunk<'_>) -> Result<(), Error<E>> {
        if self.format == Format::Plain {
            return self.output.write(chunk.slot.chunk());
        }
        self.framing.add(&chunk.checksum);
        self.write(&chunk.slot.output()[..chunk.encoded])
    }

    fn write<E>(&mut self, bytes: &[u8]) -> Result<(), Error<E>> {
        self.hash.update(bytes);
        self.output.write(bytes)
    }

    /// `tar` is the hash of what is in it: it is the blob's own, if the blob is the tar.
    fn finish(self, tar: &Sha256) -> Blob {
        let hash = if self.format == Format::Plain { tar.clone() } else { self.hash };
        Blob {
            digest: Digest::from_hash(hash),
            size: self.output.size,
            file: self.output.file,
            media_type: self.format.media_type(),
        }
    }
}
