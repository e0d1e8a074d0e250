//! One layer on its way out: what was hashed and written of it so far.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use super::board::Chunk;
use super::{Blob, Done, Error};
use crate::compress::{Compression, Format, Framing};
use crate::digest::{DiffId, Digest};
use crate::file::{TempFile, write_unread};
use crate::hash::{Hasher, update_two};

/// A layer that is being hashed, and written if that is wanted.
#[derive(Debug)]
pub(super) struct Layer {
    hasher: Hasher,
    /// Bytes in its tar.
    size: u64,
    blob: Option<BlobFile>,
    copy: Option<Output>,
}

/// A blob that is being written.
#[derive(Debug)]
struct BlobFile {
    output: Output,
    format: Format,
    framing: Framing,
    hasher: Hasher,
}

/// A file that is being written, without a name yet.
#[derive(Debug)]
struct Output {
    file: TempFile,
    size: u64,
}

/// A stream, and the bytes that it goes on with.
type Stream<'a> = (&'a mut Hasher, &'a [u8]);

impl Layer {
    /// With these outputs, in these folders.
    pub(super) fn create<E>(
        blob: Option<(&Path, Compression)>,
        copy: Option<&Path>,
    ) -> Result<Self, Error<E>> {
        let blob = blob.map(|(dir, compression)| BlobFile::create(dir, compression.format())).transpose()?;
        let copy = copy.map(Output::create).transpose()?;
        Ok(Self { hasher: Hasher::new(), size: 0, blob, copy })
    }

    /// Writes the next chunk, which has been hashed.
    pub(super) fn write<E>(&mut self, chunk: &Chunk<'_>) -> Result<(), Error<E>> {
        let tar = chunk.slot.chunk();
        self.size += tar.len() as u64;
        if let Some(copy) = &mut self.copy {
            // It is read by the next build.
            copy.write(tar, write_unread)?;
        }
        if let Some(blob) = &mut self.blob {
            blob.framing.add(&chunk.checksum);
            let bytes = encoding(blob.format, chunk);
            blob.output.write(bytes, File::write_all)?;
        }
        Ok(())
    }

    /// Ends the blob.
    pub(super) fn finish<E>(self) -> Result<Done, Error<E>> {
        let diff_id = DiffId::from_hash(self.hasher);
        let blob = self.blob.map(|blob| blob.finish(diff_id)).transpose()?;
        Ok(Done { diff_id, size: self.size, blob, copy: self.copy.map(|copy| copy.file) })
    }

    /// What of the next chunk is hashed, and by whom: tar, and blob if it is another.
    fn hashed<'a>(&'a mut self, chunk: &'a Chunk<'_>) -> (Stream<'a>, Option<Stream<'a>>) {
        let encoded = self.blob.as_mut().filter(|blob| blob.format != Format::Plain);
        let encoded = encoded.map(|blob| (&mut blob.hasher, encoding(blob.format, chunk)));
        ((&mut self.hasher, chunk.slot.chunk()), encoded)
    }
}

/// Hashes the next chunk of each of these layers: two streams of bytes at a time, the most alike in length.
pub(super) fn hash(layers: &mut [(Layer, Chunk<'_>)]) {
    let mut streams = Vec::with_capacity(4);
    for (layer, chunk) in layers {
        let (tar, encoded) = layer.hashed(chunk);
        streams.push(tar);
        streams.extend(encoded);
    }
    streams.sort_by_key(|(_, bytes)| bytes.len());
    while let Some(stream) = streams.pop() {
        match streams.pop() {
            Some(other) => update_two([stream, other]),
            None => stream.0.update(stream.1),
        }
    }
}

/// What of a chunk goes into the blob.
fn encoding<'a>(format: Format, chunk: &'a Chunk<'_>) -> &'a [u8] {
    match format {
        Format::Plain => chunk.slot.chunk(),
        Format::Gzip | Format::Zstd => &chunk.slot.output()[..chunk.encoded],
    }
}

impl Output {
    fn create<E>(dir: &Path) -> Result<Self, Error<E>> {
        let file =
            TempFile::create_in(dir).map_err(|source| Error::Write { path: dir.to_owned(), source })?;
        Ok(Self { file, size: 0 })
    }

    fn write<E>(
        &mut self,
        bytes: &[u8],
        write: fn(&mut File, &[u8]) -> io::Result<()>,
    ) -> Result<(), Error<E>> {
        let written = write(self.file.file(), bytes);
        written.map_err(|source| Error::Write { path: self.file.path().to_owned(), source })?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

impl BlobFile {
    fn create<E>(dir: &Path, format: Format) -> Result<Self, Error<E>> {
        let framing = Framing::new(format);
        let head = framing.head();
        let mut blob = Self { output: Output::create(dir)?, format, framing, hasher: Hasher::new() };
        blob.write(head)?;
        Ok(blob)
    }

    fn write<E>(&mut self, bytes: &[u8]) -> Result<(), Error<E>> {
        self.hasher.update(bytes);
        self.output.write(bytes, File::write_all)
    }

    /// Ends the blob of a tar with this diff ID.
    fn finish<E>(mut self, diff_id: DiffId) -> Result<Blob, Error<E>> {
        self.write(&self.framing.tail())?;
        let digest = match self.format {
            Format::Plain => diff_id.of_plain_blob(),
            Format::Gzip | Format::Zstd => Digest::from_hash(self.hasher),
        };
        Ok(Blob {
            digest,
            size: self.output.size,
            file: self.output.file,
            media_type: self.format.media_type(),
        })
    }
}
