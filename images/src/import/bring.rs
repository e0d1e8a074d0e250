//! Brings blobs into a layout, several at a time: from other layouts of the repository where one has them, else from where
//! they are imported from.

use std::collections::HashSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};
use drydock_io::file::TempFile;
use drydock_layout::{MAX_DESCRIPTORS, Shared, Transaction, blob_path, refers_to};
use drydock_model::digest::Digest;
use drydock_model::hash::Hasher;
use drydock_model::manifest::Descriptor;
use drydock_model::media;

use super::error::SourceError;
use super::store::{Store, Stored};
use crate::built::is_elsewhere;
use crate::watch::Watch;

/// Bytes that are copied at a time.
const BUFFER: usize = 256 << 10;

/// What came how.
#[derive(Debug, Default)]
pub struct Brought {
    /// Bytes that were there, or in another layout of the repository.
    pub shared: u64,
    /// Bytes that came from outside.
    pub fetched: u64,
    /// What is not there, and is no part of an image.
    pub lacking: Vec<Digest>,
}

/// Brings blobs.
pub(super) struct Porter<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) transaction: &'a Transaction,
    /// Folders of other layouts.
    pub(super) others: &'a [PathBuf],
    pub(super) threads: NonZeroUsize,
    pub(super) watch: &'a dyn Watch,
}

/// Where the source broke off, or somebody stopped the import: what came before is good.
#[derive(Debug, thiserror::Error)]
#[error("cannot read blob {0}")]
pub(super) struct BrokenOff(Digest);

enum Way {
    Shared(Shared),
    Fetched(u64),
    Lacking,
}

impl Porter<'_> {
    /// Brings these with all that they lead to.
    pub(super) fn bring(&self, roots: Vec<Descriptor>) -> Result<Brought> {
        let layout = self.transaction.blobs_dir();
        let layout = layout.ancestors().nth(2).context("blobs lie in a layout")?;
        let (mut followed, mut placed) = (HashSet::new(), HashSet::new());
        let mut brought = Brought::default();
        let mut to_do = roots;
        while !to_do.is_empty() {
            // What a blob refers to depends on what it is said to be.
            to_do.retain(|blob| followed.insert((blob.digest, blob.oci_media_type().to_owned())));
            let new: Vec<&Descriptor> = to_do.iter().filter(|blob| placed.insert(blob.digest)).collect();
            if placed.len() > MAX_DESCRIPTORS {
                return Err(SourceError::TooMany { limit: MAX_DESCRIPTORS }.into());
            }
            self.place_all(&new, &mut brought)?;
            let mut next = Vec::new();
            for blob in to_do.iter().filter(|blob| !brought.lacking.contains(&blob.digest)) {
                next.extend(refers_to(layout, blob)?);
            }
            to_do = next;
        }
        Ok(brought)
    }

    fn place_all(&self, blobs: &[&Descriptor], brought: &mut Brought) -> Result<()> {
        self.watch.begin("importing", blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add));
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Ok(brought));
        let lock = || done.lock().unwrap_or_else(PoisonError::into_inner);
        let work = || {
            while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let way = self.place(blob);
                let mut done = lock();
                match (&mut *done, way) {
                    (Ok(_), Err(error)) => {
                        *done = Err(error);
                        next.store(blobs.len(), Ordering::Relaxed);
                    }
                    (Ok(brought), Ok(Way::Shared(shared))) => brought.shared += shared.shared + shared.copied,
                    (Ok(brought), Ok(Way::Fetched(size))) => brought.fetched += size,
                    (Ok(brought), Ok(Way::Lacking)) => brought.lacking.push(blob.digest),
                    (Err(_), _) => {}
                }
            }
        };
        thread::scope(|scope| {
            // Where no more threads can be had, this one does it all.
            for _ in 1..self.threads.get().min(blobs.len()) {
                if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
        done.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        self.watch.end();
        Ok(())
    }

    fn place(&self, blob: &Descriptor) -> Result<Way> {
        let broken_off = || BrokenOff(blob.digest);
        self.watch.advance(0).with_context(broken_off)?;
        if let Some(shared) = self.transaction.find(blob)? {
            self.watch.advance(blob.size).with_context(broken_off)?;
            return Ok(Way::Shared(shared));
        }
        let is_there = |dir: &&PathBuf| {
            let file = fs::symlink_metadata(blob_path(dir, &blob.digest));
            file.is_ok_and(|file| file.is_file() && file.len() == blob.size)
        };
        for dir in self.others.iter().filter(is_there) {
            // One that is damaged, or gone meanwhile, is not the only one.
            if let Ok(shared) = self.transaction.bring_blob(dir, blob) {
                self.watch.advance(blob.size).with_context(broken_off)?;
                return Ok(Way::Shared(shared));
            }
        }
        match self.store.blob(blob).map_err(|error| self.unread(blob, error))? {
            Some(stored) => self.fetch(blob, stored).map(Way::Fetched),
            None if is_part_of_an_image(blob) => {
                Err(SourceError::Missing { what: format!("blob {}", blob.digest) }.into())
            }
            None => Ok(Way::Lacking),
        }
    }

    fn unread(&self, blob: &Descriptor, error: anyhow::Error) -> anyhow::Error {
        if self.store.has_broken_off(&error) {
            error.context(BrokenOff(blob.digest))
        } else {
            error.context(format!("cannot read blob {}", blob.digest))
        }
    }

    fn fetch(&self, blob: &Descriptor, stored: Stored<'_>) -> Result<u64> {
        let digest = blob.digest;
        let wrong_size = |found| SourceError::WrongSize { blob: digest, expected: blob.size, found };
        if stored.size != blob.size {
            return Err(wrong_size(stored.size).into());
        }
        let dir = self.transaction.blobs_dir();
        let write = || format!("cannot write to `{}`", dir.display());
        let mut file = TempFile::create_beside(&self.transaction.beside_blobs()).with_context(write)?;
        let mut reader = stored.reader.take(blob.size.saturating_add(1));
        let mut buffer = vec![0; BUFFER];
        let (mut hash, mut size) = (Hasher::new(), 0);
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.unread(blob, error.into())),
            };
            hash.update(&buffer[..n]);
            file.file().write_all(&buffer[..n]).with_context(write)?;
            size += n as u64;
            self.watch.advance(n as u64).context(BrokenOff(digest))?;
        }
        if size != blob.size {
            return Err(wrong_size(size).into());
        }
        let found = Digest::from_hash(hash);
        if found != digest {
            return Err(SourceError::WrongDigest { expected: digest, found }.into());
        }
        self.transaction.put_blob(file, digest)?;
        Ok(size)
    }
}

/// Whether an image cannot do without it.
fn is_part_of_an_image(blob: &Descriptor) -> bool {
    let media_type = blob.oci_media_type();
    matches!(media_type, media::INDEX | media::MANIFEST | media::CONFIG)
        || media_type.starts_with(media::LAYERS) && !is_elsewhere(blob)
}
