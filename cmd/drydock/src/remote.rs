//! Images at registries: as a store that imports read from, and as a target. The only place here that knows the network.

use std::collections::HashSet;
use std::io::{self, Cursor, Read, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};
use drydock_images::Watch;
use drydock_images::export::Exported;
use drydock_images::import::{MAX_UNPACKED, Opened, SourceError, Store, Stored};
use drydock_io::file::TempFile;
use drydock_layout::{open_blob, read_blob, refers_to};
use drydock_model::digest::Digest;
use drydock_model::manifest::Descriptor;
use drydock_model::media;
use drydock_model::reference::ImageRef;
use drydock_registry::{Error, ErrorKind, Pushed, Registry};

/// So many referrers of an image are brought with it.
const MAX_REFERRERS: usize = 1000;

/// Blobs that are sent at a time.
const AT_A_TIME: usize = 4;

/// An image at a registry.
struct Remote<'a> {
    registry: &'a Registry,
    reference: ImageRef,
    root: (Digest, Vec<u8>),
}

impl Store for Remote<'_> {
    fn blob(&self, blob: &Descriptor) -> Result<Option<Stored<'_>>> {
        let size = blob.size;
        if blob.digest == self.root.0 {
            let reader = Box::new(Cursor::new(&self.root.1));
            return Ok(Some(Stored { reader, size: self.root.1.len() as u64 }));
        }
        let stored = if is_manifest(blob) {
            let found = self.registry.manifest(&self.reference.with_digest(blob.digest));
            found.map(|(_, bytes)| Stored { size: bytes.len() as u64, reader: Box::new(Cursor::new(bytes)) })
        } else {
            let found = self.registry.blob(&self.reference, blob, 0);
            found.map(|download| Stored { reader: Box::new(download), size })
        };
        match stored {
            Err(Error { kind: ErrorKind::NotFound { .. }, .. }) => Ok(None),
            stored => Ok(Some(stored?)),
        }
    }

    fn has_broken_off(&self, failure: &anyhow::Error) -> bool {
        failure.chain().find_map(Error::find).is_some_and(|error| !error.kind.is_damage())
    }
}

/// What a reference names at its registry, and its digest there. Where the registry refuses to say what refers to it, that is
/// nothing, and `watch` is told.
pub(crate) fn open<'a>(
    registry: &'a Registry,
    reference: &ImageRef,
    watch: &dyn Watch,
) -> Result<(Opened<'a>, Digest)> {
    let (root, bytes) = registry.manifest(reference)?;
    let digest = root.digest;
    let referrers =
        registry.referrers(reference, digest, MAX_REFERRERS).or_else(|error| match error.kind {
            // One that is out of order may know some.
            ErrorKind::Status { status: 500.., .. } => Err(error),
            ErrorKind::Unauthorized { .. } | ErrorKind::Status { .. } | ErrorKind::Malformed { .. } => {
                watch.note(&format!("signatures and the like are not imported: {error}"));
                Ok(Vec::new())
            }
            _ => Err(error),
        })?;
    let store = Remote { registry, reference: reference.clone(), root: (digest, bytes) };
    Ok((Opened::stored(store, root, referrers), digest))
}

/// Reads the file at a URL into a new one in a folder, which goes when this is dropped. It has the time of its last change, if the server
/// tells that.
pub(crate) fn download(registry: &Registry, url: &str, to: &Path, watch: &dyn Watch) -> Result<TempFile> {
    let write = || format!("cannot write to `{}`", to.display());
    let mut file = TempFile::create_in(to).with_context(write)?;
    let mut download = registry.file(url)?;
    watch.begin("downloading", download.size().unwrap_or_default());
    let (mut buffer, mut size) = (vec![0; 256 << 10], 0);
    loop {
        let n = download.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        size += n as u64;
        if size > MAX_UNPACKED {
            return Err(SourceError::TooLarge { limit: MAX_UNPACKED }.into());
        }
        file.file().write_all(&buffer[..n]).with_context(write)?;
        watch.advance(n as u64)?;
    }
    if let Some(modified) = download.modified() {
        file.file().set_modified(modified).with_context(write)?;
    }
    watch.end();
    Ok(file)
}

/// Whether registries have it among manifests, not among blobs.
fn is_manifest(blob: &Descriptor) -> bool {
    matches!(blob.oci_media_type(), media::INDEX | media::MANIFEST)
}

/// Sends an image with all that it leads to: blobs first, then manifests, each after what it needs, last the one with the
/// tag. `dir` is the layout that has the blobs, `from` what the image was called at the same registry. Gives the bytes
/// that were sent.
pub(crate) fn push(
    registry: &Registry,
    to: &ImageRef,
    from: Option<&ImageRef>,
    dir: &Path,
    exported: &Exported,
    watch: &dyn Watch,
) -> Result<u64> {
    let (manifests, blobs): (Vec<_>, Vec<_>) = exported.blobs.iter().partition(|blob| is_manifest(blob));
    watch.begin("pushing", blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add));
    let sent = push_blobs(registry, to, from, dir, &blobs, watch)?;
    watch.end();
    let mut done = HashSet::from([exported.root.digest]);
    for manifest in manifests {
        push_manifest(registry, to, dir, manifest, &mut done, watch)?;
    }
    let bytes = match &exported.made {
        Some(made) => made.clone(),
        None => read_blob(dir, &exported.root)?,
    };
    registry.put_manifest(to, &exported.root.media_type, &bytes)?;
    Ok(sent)
}

fn push_blobs(
    registry: &Registry,
    to: &ImageRef,
    from: Option<&ImageRef>,
    dir: &Path,
    blobs: &[&Descriptor],
    watch: &dyn Watch,
) -> Result<u64> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Ok(0));
    let put = |blob: &Descriptor| -> Result<u64> {
        watch.advance(0)?;
        let mut open = || match open_blob(dir, blob) {
            Ok(reader) => Ok(Watched { reader, watch }),
            Err(error) => Err(io::Error::other(error)),
        };
        if registry.put_blob(to, blob, from, &mut open)? == Pushed::Sent {
            return Ok(blob.size);
        }
        watch.advance(blob.size)?;
        Ok(0)
    };
    let work = || {
        while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let put = put(blob);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *done, put) {
                (Ok(sent), Ok(size)) => *sent += size,
                (Ok(_), Err(error)) => {
                    *done = Err(error);
                    next.store(blobs.len(), Ordering::Relaxed);
                }
                (Err(_), _) => {}
            }
        }
    };
    thread::scope(|scope| {
        // Where no more threads can be had, this one does it all.
        for _ in 1..AT_A_TIME.min(blobs.len()) {
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Sends a manifest by its digest, after those that it leads to.
fn push_manifest(
    registry: &Registry,
    to: &ImageRef,
    dir: &Path,
    manifest: &Descriptor,
    done: &mut HashSet<Digest>,
    watch: &dyn Watch,
) -> Result<()> {
    if !done.insert(manifest.digest) {
        return Ok(());
    }
    watch.advance(0)?;
    for member in refers_to(dir, manifest)?.iter().filter(|member| is_manifest(member)) {
        push_manifest(registry, to, dir, member, done, watch)?;
    }
    let bytes = read_blob(dir, manifest)?;
    registry.put_manifest(&to.with_digest(manifest.digest), &manifest.media_type, &bytes)?;
    Ok(())
}

/// A blob that says how far it is.
struct Watched<'a, R> {
    reader: R,
    watch: &'a dyn Watch,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.watch.advance(n as u64)?;
        Ok(n)
    }
}
