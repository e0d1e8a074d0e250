//! Caches of layers, of two kinds that can do the same: a folder ([`volume`]) and an image in a layout
//! ([`image`]).
//!
//! Layers are known by the digests of their tars, and nothing that a cache holds is believed: whoever reads a
//! layer, or keeps it for the next cache, checks its digest. Specification: `platform.md` § Cache.

pub mod image;
pub mod volume;

use std::fmt::{self, Debug};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{anyhow, bail};
use drydock_io::file::TempFile;
use drydock_io::lock::Identity;
use drydock_layout::seen::{Print, Seen};
use drydock_layout::{ImageLayer, LinkMode, blob_path};
use drydock_model::digest::DiffId;
use drydock_model::reference::{LayoutDir, LayoutPath};
use drydock_spec::cache::CacheMetadata;

use self::image::{ImageCache, ImageCacheWriter};
use self::volume::{VolumeCache, VolumeCacheWriter};
use crate::Log;

/// Where cached layers are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheLocation {
    /// A folder of the volume cache's form.
    Dir(PathBuf),
    /// A layout under the layout directory.
    Image(LayoutPath),
}

impl CacheLocation {
    /// The layout, if it is one.
    pub fn image(&self) -> Option<&LayoutPath> {
        match self {
            Self::Dir(_) => None,
            Self::Image(path) => Some(path),
        }
    }

    /// The folder whose attribute the layer index is.
    pub fn index_dir(&self) -> PathBuf {
        match self {
            Self::Dir(dir) => volume::committed(dir),
            Self::Image(path) => path.path().to_owned(),
        }
    }

    /// Where the tar of a layer lies, if the cache has it as a tar.
    pub(crate) fn tar_path(&self, diff_id: &DiffId) -> PathBuf {
        match self {
            Self::Dir(dir) => volume::tar_path(dir, diff_id),
            Self::Image(path) => blob_path(path.path(), &diff_id.of_plain_blob()),
        }
    }

    /// Says what is wrong if what is named cannot be a cache: a folder that is not there, an image of another
    /// kind.
    pub fn check(&self) -> anyhow::Result<()> {
        match self {
            Self::Dir(dir) => volume::check(dir),
            Self::Image(path) => image::check(path),
        }
    }

    /// Says so if an image is where the cache is, or one of them in the other, whatever their paths look
    /// like: each would remove what is the other's, and wait for its lock.
    pub fn check_apart_from(&self, images: &[LayoutPath]) -> anyhow::Result<()> {
        let folder = match self {
            Self::Dir(dir) => dir,
            Self::Image(path) => path.path(),
        };
        let own = match self {
            Self::Dir(dir) => volume::own_folders(dir).to_vec(),
            Self::Image(path) => vec![path.path().to_owned()],
        };
        for image in images {
            if lies_in(folder, image.path()) || own.iter().any(|own| lies_in(image.path(), own)) {
                bail!("`{}` cannot be the cache: the app image `{image}` is there", folder.display());
            }
        }
        Ok(())
    }
}

/// Whether a path is a folder or leads into it. What is not there yet counts as where it would be made.
pub(crate) fn lies_in(path: &Path, folder: &Path) -> bool {
    let Ok(folder) = Identity::of(folder) else { return false };
    let real = path.ancestors().find_map(|path| fs::canonicalize(path).ok()).unwrap_or_default();
    real.ancestors().any(|dir| Identity::of(dir).is_ok_and(|dir| dir == folder))
}

/// A cache that layers come back from.
pub trait Cache: Debug + Sync {
    /// What the cache holds. A description that cannot be read is that of an empty cache, with a warning.
    fn metadata(&self, log: &dyn Log) -> CacheMetadata;

    /// A layer's tar. Whoever reads it checks its digest.
    fn tar(&self, diff_id: &DiffId) -> anyhow::Result<StoredTar>;
}

/// The tar of a cached layer, to be read once.
pub struct StoredTar {
    /// Its bytes.
    pub tar: Box<dyn Read>,
    /// How the file looks that is the tar, if one is.
    pub print: Option<Print>,
    /// How many bytes it may have, by the size of the file that it lies in: [`layer_tar`](crate::limits::layer_tar).
    pub limit: u64,
}

impl Debug for StoredTar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredTar {{ limit: {} }}", self.limit)
    }
}

/// A cache that is being written. Until [`CacheWriter::commit`], it stays as it was for everybody else.
pub trait CacheWriter: Debug + Sync {
    /// What the cache held before, as [`Cache::metadata`] tells it.
    fn metadata(&self, log: &dyn Log) -> CacheMetadata;

    /// The file that is a layer's tar, if the cache had it before as it would be added now. Whoever keeps it
    /// checks its digest.
    fn tar(&self, diff_id: &DiffId) -> Option<File>;

    /// Where the tars of new layers are made.
    fn staging(&self) -> &Path;

    /// Whether a layer that the app image has too comes from there, by [`CacheWriter::share`] and without
    /// being copied: then no tar of it is made or kept.
    fn shares_blobs(&self) -> bool {
        false
    }

    /// Keeps a layer for the cache to come, of which [`CacheWriter::tar`] was checked.
    fn keep(&mut self, diff_id: &DiffId) -> anyhow::Result<()>;

    /// Puts a tar that was made in [`CacheWriter::staging`] into the cache to come.
    fn add(&mut self, diff_id: &DiffId, tar: TempFile) -> anyhow::Result<()>;

    /// Puts a layer of an image into the cache to come, if the cache [shares
    /// blobs](CacheWriter::shares_blobs).
    fn share(&mut self, layer: &ImageLayer) -> anyhow::Result<()> {
        Err(anyhow!("a cache of this kind cannot share layer {}", layer.diff_id))
    }

    /// Makes what was kept, added and shared the cache, in one step.
    fn commit(self: Box<Self>, metadata: &CacheMetadata, log: &dyn Log) -> anyhow::Result<()>;
}

/// Opens a cache to read from it, for which it need not be writable. A folder must exist; an image need not,
/// and is an empty cache then.
pub fn open(location: &CacheLocation, log: &dyn Log) -> anyhow::Result<Box<dyn Cache>> {
    Ok(match location {
        CacheLocation::Dir(dir) => Box::new(VolumeCache::open(dir, log)?),
        CacheLocation::Image(path) => Box::new(ImageCache::open(path, log)?),
    })
}

/// Opens a cache to write it. A folder must exist; an image need not. `link` tells how blobs come into an
/// image; those that were `seen` are not read on the way.
pub fn open_writer(
    location: &CacheLocation,
    layout_dir: &LayoutDir,
    link: LinkMode,
    seen: &Arc<Seen>,
    log: &dyn Log,
) -> anyhow::Result<Box<dyn CacheWriter>> {
    Ok(match location {
        CacheLocation::Dir(dir) => Box::new(VolumeCacheWriter::open(dir, log)?),
        CacheLocation::Image(path) => {
            Box::new(ImageCacheWriter::open(layout_dir, path, link, Arc::clone(seen), log)?)
        }
    })
}

#[cfg(test)]
mod tests;
