//! Layers as streams: decompressed, and checked against blob digest and diff ID when they are read to their end.

use std::io::{self, BufReader, ErrorKind, Read};

use anyhow::{Context as _, Result};
use drydock_encode::compress::{Format, NotALayer, decompressed};
use drydock_layout::{BlobReader, ImageLayer, LayoutError};
use drydock_model::digest::{DiffId, Digest};
use drydock_model::hash::Hasher;
use drydock_tar::{Archive, ArchiveError, Member};

use crate::watch::Watch;

/// Bytes that are read at a time.
const BUFFER: usize = 256 << 10;

/// What is wrong with a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Its blob cannot be had, or is not what its digest says.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Its media type is not one of layers.
    #[error(transparent)]
    NotALayer(#[from] NotALayer),
    /// It cannot be decompressed.
    #[error("layer {blob} cannot be decompressed")]
    Compression {
        /// The blob.
        blob: Digest,
        /// What the decoder says.
        source: io::Error,
    },
    /// It holds another tar than the configuration says.
    #[error("layer {blob} is damaged: its diff ID is {found}, the configuration says {expected}")]
    WrongDiffId {
        /// The blob.
        blob: Digest,
        /// What the configuration says.
        expected: DiffId,
        /// Of what is in the blob.
        found: DiffId,
    },
    /// It holds no tar that is understood.
    #[error("layer {blob} cannot be read")]
    Archive {
        /// The blob.
        blob: Digest,
        /// What is wrong with it.
        source: ArchiveError,
    },
    /// An entry is not one that a layer may have.
    #[error("layer {blob} is refused: its entry `{entry:.300}` {reason}")]
    Refused {
        /// The blob.
        blob: Digest,
        /// The entry's name.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A blob that is hashed while it is read.
struct Hashed<'a> {
    blob: BlobReader,
    hash: Hasher,
    watch: &'a dyn Watch,
    /// What failed that is not the decoder's: the disk, or that the work was stopped.
    failure: Option<io::Error>,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.blob.read(buffer).and_then(|n| self.watch.advance(n as u64).map(|()| n));
        match n {
            Ok(n) => {
                self.hash.update(&buffer[..n]);
                Ok(n)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failure = Some(error);
                Err(kind.into())
            }
        }
    }
}

/// A layer's tar, as its entries are read from.
pub type TarReader<'r> = BufReader<&'r mut dyn Read>;

/// Gives the tar of a layer to `consume`, and checks blob and tar when it is through; what it does not read is read for
/// it. Nothing that comes of it counts if this is an error: what was read may be anything.
pub fn read<T>(
    layer: &ImageLayer,
    watch: &dyn Watch,
    consume: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> Result<T> {
    let digest = layer.descriptor.digest;
    let format = Format::of(&layer.descriptor.media_type).map_err(LayerError::from)?;
    let opened = layer.open_unchecked().map_err(LayerError::from)?;
    let mut blob = Hashed { blob: opened, hash: Hasher::new(), watch, failure: None };
    let consumed = consume_tar(&mut blob, format, consume);
    // Whatever went wrong: if the blob is another one, that is why.
    let rest = if blob.failure.is_none() { io::copy(&mut blob, &mut io::sink()) } else { Ok(0) };
    if let Some(failure) = blob.failure {
        return Err(failure).with_context(|| format!("failed to read `{}`", layer.path().display()));
    }
    rest.with_context(|| format!("failed to read `{}`", layer.path().display()))?;
    let found = Digest::from_hash(blob.hash);
    if found != digest {
        return Err(LayerError::Layout(LayoutError::Corrupt { path: layer.path(), found }).into());
    }
    let (consumed, tar) = consumed.map_err(|source| LayerError::Compression { blob: digest, source })?;
    let consumed = consumed?;
    let found = tar.map_err(|source| LayerError::Compression { blob: digest, source })?;
    if found != layer.diff_id {
        return Err(LayerError::WrongDiffId { blob: digest, expected: layer.diff_id, found }.into());
    }
    Ok(consumed)
}

/// What the consumer gives, and the hash of the whole tar.
type Consumed<T> = (Result<T>, io::Result<DiffId>);

fn consume_tar<T>(
    blob: &mut Hashed<'_>,
    format: Format,
    consume: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> io::Result<Consumed<T>> {
    let input = decompressed(BufReader::with_capacity(BUFFER, blob), format)?;
    let mut tar = Tar { input, hash: Hasher::new() };
    let consumed = consume(&mut tar);
    // After a failure, there is no use in it.
    let rest = if consumed.is_ok() { drain(&mut tar) } else { Ok(()) };
    Ok((consumed, rest.map(|()| DiffId::from_hash(tar.hash))))
}

pub(crate) fn drain(reader: &mut dyn Read) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The bytes of a tar, hashed as they go by.
struct Tar<R> {
    input: R,
    hash: Hasher,
}

impl<R: Read> Read for Tar<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

/// Gives every entry of a layer to `visit`, with its number, from 0 on; then checks blob and tar as [`read`] does.
pub fn entries(
    layer: &ImageLayer,
    watch: &dyn Watch,
    visit: &mut dyn FnMut(u64, Member<'_, TarReader<'_>>) -> Result<()>,
) -> Result<()> {
    let blob = layer.descriptor.digest;
    read(layer, watch, |tar| {
        let mut archive = Archive::new(BufReader::with_capacity(BUFFER, tar));
        let mut number = 0;
        let malformed = |source| LayerError::Archive { blob, source };
        while let Some(member) = archive.read_next().map_err(malformed)? {
            visit(number, member)?;
            number += 1;
        }
        Ok(())
    })
}

/// That the contents of a file cannot be read: the tar, or the compressed stream, ends within them.
pub(crate) fn unreadable(layer: &ImageLayer) -> impl Fn(io::Error) -> LayerError {
    let blob = layer.descriptor.digest;
    move |error| LayerError::Archive { blob, source: ArchiveError::Read(error) }
}

/// That an entry is not one that a layer may have.
pub(crate) fn refused(layer: &ImageLayer, entry: &[u8], reason: &'static str) -> anyhow::Error {
    let entry = String::from_utf8_lossy(entry).into_owned();
    LayerError::Refused { blob: layer.descriptor.digest, entry, reason }.into()
}
