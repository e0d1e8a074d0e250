//! Caches of layers, of two kinds that can do the same: a folder ([`volume`]) and an image in a layout ([`image`]).
//!
//! Layers are known by the digests of their tars. Specification: `platform.md` § Cache.

pub mod image;
pub mod volume;

use std::fmt::Debug;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use drydock_encode::compress::{Format, decompressed};
use drydock_io::file::TempFile;
use drydock_layout::{ImageLayer, LinkMode};
use drydock_model::digest::DiffId;
use drydock_model::reference::{LayoutDir, LayoutPath};
use drydock_spec::cache::CacheMetadata;

use self::image::{ImageCache, ImageCacheWriter};
use self::volume::VolumeCache;
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
}

/// A cache that layers come back from.
pub trait Cache: Debug + Sync {
    /// What the cache holds. A description that cannot be read is that of an empty cache, with a warning.
    fn metadata(&self, log: &dyn Log) -> CacheMetadata;

    /// A layer's tar. Whoever reads it checks its digest.
    fn tar(&self, diff_id: &DiffId) -> anyhow::Result<Box<dyn Read>>;

    /// Removes a layer that turned out to be damaged, so that the next export does not keep it.
    fn discard(&self, diff_id: &DiffId) -> anyhow::Result<()>;
}

/// A cache that is being written. Until [`CacheWriter::commit`], it stays as it was for everybody else.
pub trait CacheWriter: Debug + Sync {
    /// What the cache held before, as [`Cache::metadata`] tells it.
    fn metadata(&self, log: &dyn Log) -> CacheMetadata;

    /// Whether the cache had this layer before.
    fn has(&self, diff_id: &DiffId) -> bool;

    /// Where the tars of new layers are made.
    fn staging(&self) -> &Path;

    /// Whether a layer that the app image has too comes from there by [`CacheWriter::share`] without being copied: then
    /// no tar of it is made.
    fn shares_blobs(&self) -> bool;

    /// Keeps a layer for the cache to come; `false` if the cache did not have it.
    fn keep(&mut self, diff_id: &DiffId) -> anyhow::Result<bool>;

    /// Puts a tar that was made in [`CacheWriter::staging`] into the cache to come.
    fn add(&mut self, diff_id: &DiffId, tar: TempFile) -> anyhow::Result<()>;

    /// Puts a layer of an image into the cache to come.
    fn share(&mut self, layer: &ImageLayer) -> anyhow::Result<()>;

    /// Makes what was kept, added and shared the cache, in one step.
    fn commit(self: Box<Self>, metadata: &CacheMetadata, log: &dyn Log) -> anyhow::Result<()>;
}

/// Opens a cache to read from it. A folder must exist; an image need not, and is an empty cache then.
pub fn open(location: &CacheLocation, log: &dyn Log) -> anyhow::Result<Box<dyn Cache>> {
    Ok(match location {
        CacheLocation::Dir(dir) => Box::new(VolumeCache::open(dir, log)?),
        CacheLocation::Image(path) => Box::new(ImageCache::open(path, log)?),
    })
}

/// Opens a cache to write it. A folder must exist; an image need not. `link` tells how blobs come into an image.
pub fn open_writer(
    location: &CacheLocation,
    layout_dir: &LayoutDir,
    link: LinkMode,
    log: &dyn Log,
) -> anyhow::Result<Box<dyn CacheWriter>> {
    Ok(match location {
        CacheLocation::Dir(dir) => Box::new(VolumeCache::open(dir, log)?),
        CacheLocation::Image(path) => Box::new(ImageCacheWriter::open(layout_dir, path, link, log)?),
    })
}

/// The tar in a layer's blob, which `file` is.
fn tar_of<R: Read>(layer: &ImageLayer, file: R) -> anyhow::Result<impl Read + use<R>> {
    const BUFFER: usize = 256 << 10;
    let format = Format::of(&layer.descriptor.media_type)?;
    Ok(decompressed(BufReader::with_capacity(BUFFER, file), format)?)
}

/// What a failed removal amounts to: nothing, if there was nothing to remove.
fn ignore_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
