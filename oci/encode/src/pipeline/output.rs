//! One layer on its way out: what was hashed and written of it so far.

use std::fs::File;
use std::io::{self, Write as _};

use super::chunk::Chunk;
use super::{Blob, Done, Error, Job, Settings, WriteError};
use crate::compress::{Format, Framing};
use drydock_io::dir::Place;
use drydock_io::file::TempFile;
use drydock_model::digest::{DiffId, Digest};
use drydock_model::hash::Hasher;

/// A layer that is being hashed, and written if that is wanted.
#[derive(Debug)]
pub(super) struct Output {
    hasher: Hasher,
    /// Bytes in its tar.
    size: u64,
    blob: Option<BlobFile>,
    copy: Option<TempFile>,
}

/// A blob that is being written.
#[derive(Debug)]
struct BlobFile {
    file: TempFile,
    /// Bytes in the file.
    size: u64,
    format: Format,
    framing: Framing,
    hasher: Hasher,
    /// Up to here the bytes are on their way to the disk. `None`: they need not be.
    sent: Option<u64>,
}

/// So many bytes are sent to the disk at a time.
const SENT_AT_A_TIME: u64 = 8 << 20;

impl Output {
    /// For the diff ID alone.
    pub(super) fn hashing() -> Self {
        Self { hasher: Hasher::new(), size: 0, blob: None, copy: None }
    }

    /// With the files that the job wants.
    pub(super) fn create<E>(job: &Job<'_, E>, settings: Settings) -> Result<Self, Error<E>> {
        let blob = job.blob.map(|dir| BlobFile::create(dir, settings)).transpose()?;
        let copy = job.copy.map(|dir| create(&Place::by_path(&dir.join("layer")))).transpose()?;
        Ok(Self { blob, copy, ..Self::hashing() })
    }

    /// Whether chunks must be encoded before they are written.
    pub(super) fn is_encoded(&self) -> bool {
        self.blob.as_ref().is_some_and(|blob| blob.format != Format::Plain)
    }

    /// Hashes and writes the next chunk.
    pub(super) fn write<E>(&mut self, chunk: &Chunk) -> Result<(), Error<E>> {
        let tar = chunk.tar();
        self.hasher.update(tar);
        self.size += tar.len() as u64;
        if let Some(copy) = &mut self.copy {
            copy.file().write_all(tar).map_err(failure(copy))?;
        }
        if let Some(blob) = &mut self.blob {
            blob.framing.add(&chunk.encoded.checksum);
            match blob.format {
                // Its digest is the diff ID.
                Format::Plain => blob.write_unhashed(tar)?,
                Format::Gzip | Format::Zstd => blob.write(chunk.encoding())?,
            }
        }
        Ok(())
    }

    /// Ends the layer, of which all chunks are written.
    pub(super) fn finish<E>(self) -> Result<Done, Error<E>> {
        let diff_id = DiffId::from_hash(self.hasher);
        let blob = self.blob.map(|blob| blob.finish(diff_id)).transpose()?;
        Ok(Done { diff_id, size: self.size, blob, copy: self.copy })
    }
}

impl BlobFile {
    fn create<E>(beside: &Place, settings: Settings) -> Result<Self, Error<E>> {
        let format = settings.compression.format();
        let framing = Framing::new(format);
        let head = framing.head();
        let sent = settings.write_out.then_some(0);
        let mut blob = Self { file: create(beside)?, size: 0, format, framing, hasher: Hasher::new(), sent };
        blob.write(head)?;
        Ok(blob)
    }

    fn write<E>(&mut self, bytes: &[u8]) -> Result<(), Error<E>> {
        self.hasher.update(bytes);
        self.write_unhashed(bytes)
    }

    fn write_unhashed<E>(&mut self, bytes: &[u8]) -> Result<(), Error<E>> {
        let written = self.file.file().write_all(bytes);
        written.map_err(failure(&self.file))?;
        self.size += bytes.len() as u64;
        if let Some(sent) = &mut self.sent
            && self.size - *sent >= SENT_AT_A_TIME
        {
            send_to_disk(self.file.file(), *sent);
            *sent = self.size;
        }
        Ok(())
    }

    /// Ends the blob of a tar with this diff ID.
    fn finish<E>(mut self, diff_id: DiffId) -> Result<Blob, Error<E>> {
        self.write(&self.framing.tail())?;
        let digest = match self.format {
            Format::Plain => diff_id.of_plain_blob(),
            Format::Gzip | Format::Zstd => Digest::from_hash(self.hasher),
        };
        Ok(Blob { digest, size: self.size, file: self.file, media_type: self.format.media_type() })
    }
}

/// Has the system begin to write to the disk what is new from `start` on, without waiting for it.
fn send_to_disk(file: &File, start: u64) {
    // This asks to take it out of memory too, but what is not on the disk yet stays. A refusal does no harm.
    let _ = rustix::fs::fadvise(file, start, None, rustix::fs::Advice::DontNeed);
}

fn create<E>(beside: &Place) -> Result<TempFile, Error<E>> {
    TempFile::create_beside(beside)
        .map_err(|source| Error::Write(WriteError { path: beside.folder().to_owned(), source }))
}

/// That a file could not be written.
fn failure<E>(file: &TempFile) -> impl FnOnce(io::Error) -> Error<E> {
    |source| Error::Write(WriteError { path: file.path().to_owned(), source })
}
