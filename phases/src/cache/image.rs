//! The cache image: an image in a layout whose layers are the cached ones and whose label describes them.
//!
//! The label `io.buildpacks.lifecycle.cache.metadata` holds what the volume cache's file of that name does.
//! The image is for the platform of the machine, so that builds on different machines can share one name.
//!
//! A layer that the app image has too is the same blob, in most file systems the same bytes on disk: it is
//! written and compressed once. Layers of the cache alone are kept without compression: they are as fast to
//! write and to restore as in a folder, their blob's digest is the one that is calculated anyway, and whoever
//! copies the image to a registry compresses them on the way.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use drydock_encode::compress::{Format, decompressed};
use drydock_io::file::TempFile;
use drydock_io::lock::Lock;
use drydock_io::way;
use drydock_layout::seen::Seen;
use drydock_layout::{
    BlobSource, Durability, Image, ImageLayer, Layout, LayoutError, LinkMode, NewImage, NewLayer, Transaction,
};
use drydock_model::config::{ImageConfig, Settings};
use drydock_model::digest::DiffId;
use drydock_model::manifest::{Annotations, Descriptor};
use drydock_model::media;
use drydock_model::platform::Platform;
use drydock_model::reference::{LayoutDir, LayoutPath};
use drydock_spec::cache::{CacheMetadata, METADATA_NAME};

use super::{Cache, CacheWriter, StoredTar};
use crate::{Log, limits};

/// Says what is wrong if an image at `path` is no cache. None at all, and one that cannot be read, will do.
pub(super) fn check(path: &LayoutPath) -> anyhow::Result<()> {
    let image = Layout::open(path).and_then(|layout| layout.predecessor(&Platform::host()));
    match image {
        Ok(Some(image)) if image.config.label(METADATA_NAME).is_none() => {
            bail!("`{path}` holds an image that is no cache: give the cache image another name")
        }
        _ => Ok(()),
    }
}

/// A cache image that layers come back from.
#[derive(Debug)]
pub struct ImageCache {
    image: Option<Image>,
    /// Held so that nobody replaces the image meanwhile.
    _lock: Option<Lock>,
}

impl ImageCache {
    /// The cache in this layout; empty if there is none, or, with a warning, if it cannot be read. Waits for
    /// an export that writes it.
    pub fn open(path: &LayoutPath, log: &dyn Log) -> anyhow::Result<Self> {
        let lock = lock(path, log).with_context(|| format!("failed to lock cache image `{path}`"))?;
        Ok(Self { image: find(path, log), _lock: lock })
    }
}

impl Cache for ImageCache {
    fn metadata(&self, log: &dyn Log) -> CacheMetadata {
        metadata(self.image.as_ref(), log)
    }

    fn tar(&self, diff_id: &DiffId) -> anyhow::Result<StoredTar> {
        const BUFFER: usize = 256 << 10;
        let layer = self.image.as_ref().and_then(|image| image.layer(diff_id));
        let layer = layer.ok_or_else(|| anyhow!("failed to find cache layer with SHA '{diff_id}'"))?;
        // Not hashed beforehand: the digest of the tar tells as much.
        let format = Format::of(&layer.descriptor.media_type)?;
        let tar = decompressed(BufReader::with_capacity(BUFFER, layer.open_unchecked()?), format)?;
        Ok(StoredTar { tar: Box::new(tar), print: None, limit: limits::layer_tar(layer.descriptor.size) })
    }
}

/// A cache image that is being written.
#[derive(Debug)]
pub struct ImageCacheWriter {
    transaction: Transaction,
    staging: PathBuf,
    before: Option<Image>,
    layers: Vec<NewLayer>,
}

impl ImageCacheWriter {
    /// The cache in this layout, which is made if need be. Waits for others that use it.
    pub fn open(
        dir: &LayoutDir,
        path: &LayoutPath,
        link: LinkMode,
        seen: Arc<Seen>,
        log: &dyn Log,
    ) -> anyhow::Result<Self> {
        // What a power failure takes of a cache is made again.
        let waiting = |path: &LayoutPath| log_waiting(path, log);
        let names = std::slice::from_ref(path);
        let begin = || Transaction::begin(dir, names, link, Durability::InMemory, &waiting);
        let transaction = match begin() {
            Err(error) if error.is_damage() => {
                log.warn(&format!("The cache counts as empty: cache image `{path}`: {:#}", anyhow!(error)));
                drydock_layout::forget(dir, path).and_then(|()| begin())
            }
            transaction => transaction,
        };
        let transaction =
            transaction.with_context(|| format!("failed to open cache image `{path}`"))?.trusting(seen);
        check(path)?;
        let before = find(path, log);
        Ok(Self { staging: transaction.blobs_dir(), transaction, before, layers: Vec::new() })
    }
}

impl CacheWriter for ImageCacheWriter {
    fn metadata(&self, log: &dyn Log) -> CacheMetadata {
        metadata(self.before.as_ref(), log)
    }

    /// A blob that is compressed is none: it was shared with an app image that does not have it any more.
    fn tar(&self, diff_id: &DiffId) -> Option<File> {
        let layer = self.before.as_ref()?.layer(diff_id)?;
        let is_tar = layer.descriptor.oci_media_type() == media::LAYER
            && layer.descriptor.digest == diff_id.of_plain_blob();
        is_tar.then(|| way::open_file(&layer.path()).ok()).flatten()
    }

    fn staging(&self) -> &Path {
        &self.staging
    }

    fn shares_blobs(&self) -> bool {
        true
    }

    fn keep(&mut self, diff_id: &DiffId) -> anyhow::Result<()> {
        let layer = self.before.as_ref().and_then(|image| image.layer(diff_id));
        let ImageLayer { diff_id, descriptor, .. } =
            layer.ok_or_else(|| anyhow!("the cache has no layer {diff_id}"))?;
        self.layers.push(NewLayer { diff_id, descriptor, blob: BlobSource::Placed });
        Ok(())
    }

    fn add(&mut self, diff_id: &DiffId, mut tar: TempFile) -> anyhow::Result<()> {
        let size = tar.file().metadata().context("failed to read the size of a layer's tar")?.len();
        // The blob is the tar, so their digests are one.
        let descriptor = Descriptor::new(media::LAYER, diff_id.of_plain_blob(), size);
        self.layers.push(NewLayer { diff_id: *diff_id, descriptor, blob: BlobSource::Temporary(tar) });
        Ok(())
    }

    fn share(&mut self, layer: &ImageLayer) -> anyhow::Result<()> {
        self.transaction.bring(layer)?;
        let (diff_id, descriptor) = (layer.diff_id, layer.descriptor.clone());
        self.layers.push(NewLayer { diff_id, descriptor, blob: BlobSource::Placed });
        Ok(())
    }

    fn commit(self: Box<Self>, metadata: &CacheMetadata, log: &dyn Log) -> anyhow::Result<()> {
        let config = ImageConfig {
            config: Settings {
                labels: [(METADATA_NAME.to_owned(), metadata.to_json()?)].into(),
                ..Settings::default()
            },
            ..ImageConfig::empty(&Platform::host())
        };
        let image = NewImage { config, layers: self.layers, annotations: Annotations::new(), replaces: None };
        let left = self.transaction.prepare_image(image)?.publish()?;
        if let Some(error) = left {
            log.warn(&format!(
                "The cache is saved, but blobs of the one before are left: {:#}",
                anyhow!(error)
            ));
        }
        Ok(())
    }
}

/// The cache for this machine. One that cannot be read is as good as none, with a warning.
fn find(path: &LayoutPath, log: &dyn Log) -> Option<Image> {
    match Layout::open(path).and_then(|layout| layout.predecessor(&Platform::host())) {
        Ok(image) => image,
        Err(LayoutError::NotFound(_)) => None,
        Err(error) => {
            log.warn(&format!("The cache counts as empty: cache image `{path}`: {:#}", anyhow!(error)));
            None
        }
    }
}

fn metadata(image: Option<&Image>, log: &dyn Log) -> CacheMetadata {
    let Some(image) = image else { return CacheMetadata::default() };
    let problem = match image.config.label(METADATA_NAME).map(CacheMetadata::from_json) {
        Some(Ok(metadata)) => return metadata,
        Some(Err(error)) => format!("cannot be read: {error}"),
        None => "is missing: this is no cache image".to_owned(),
    };
    log.warn(&format!(
        "The cache counts as empty: label '{METADATA_NAME}' of {} {problem}",
        image.identifier()
    ));
    CacheMetadata::default()
}

/// A lock that any number of readers can have, but no writer beside them; `None` where there is no folder.
fn lock(path: &LayoutPath, log: &dyn Log) -> io::Result<Option<Lock>> {
    match Lock::acquire_shared(path.path(), &|| log_waiting(path, log)) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        result => result.map(Some),
    }
}

fn log_waiting(path: &LayoutPath, log: &dyn Log) {
    log.info(&format!("Waiting for another build that uses the cache image '{path}'"));
}
