//! Where layers of steps are kept: under each key a layout, with an image of one layer, or of none if the step changed nothing.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use drydock_layout::{
    BlobSource, Durability, ImageLayer, Layout, LayoutError, LinkMode, NewImage, NewLayer, Transaction,
};
use drydock_model::config::ImageConfig;
use drydock_model::digest::Digest;
use drydock_model::manifest::{Annotations, Descriptor};
use drydock_model::platform::Platform;
use drydock_model::reference::{LayoutDir, LayoutPath};
use rustix::process::geteuid;

use crate::in_place::Layer;

/// The folder. What is in it is done to file systems, so nobody else may write there.
#[derive(Debug)]
pub struct Store {
    dir: LayoutDir,
    kept: Duration,
}

/// What a step did.
#[derive(Debug)]
pub(crate) enum Known {
    /// It changed nothing.
    Nothing,
    /// It made this layer.
    Layer(Box<ImageLayer>),
}

/// Room for what a step does that is not known yet.
#[derive(Debug)]
pub(crate) struct Room {
    path: LayoutPath,
    transaction: Transaction,
}

impl Store {
    /// The folder `dir`, which is made if need be. What was put there longer ago than `kept` is removed.
    pub fn open(dir: &Path, kept: Duration) -> Result<Self> {
        let open = || {
            drydock_io::file::make_dirs(dir)?;
            fs::symlink_metadata(dir)
        };
        let facts = open().with_context(|| format!("cannot open the cache `{}`", dir.display()))?;
        ensure!(
            facts.is_dir() && facts.uid() == geteuid().as_raw() && facts.mode() & 0o022 == 0,
            "the cache `{}` is not used, as others could write to it; remove it",
            dir.display()
        );
        let store = Self { dir: LayoutDir::new(dir)?, kept };
        store.clean().with_context(|| format!("cannot clean the cache `{}`", dir.display()))?;
        Ok(store)
    }

    fn clean(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.dir.path())? {
            let path = entry?.path();
            // Without an index, it is one that is being made, or was.
            let facts = fs::metadata(path.join("index.json")).or_else(|_| fs::symlink_metadata(&path));
            if !facts.is_ok_and(|facts| self.is_young(&facts)) {
                drydock_tar::remove_all(&path)?;
            }
        }
        Ok(())
    }

    fn is_young(&self, facts: &Metadata) -> bool {
        let age = facts.modified().map(|time| SystemTime::now().duration_since(time).unwrap_or_default());
        age.is_ok_and(|age| age < self.kept)
    }

    fn path(&self, key: &Digest) -> Result<LayoutPath> {
        let path: PathBuf = self.dir.path().join(format!("step-{}", key.hex()));
        let path = path.to_str().with_context(|| format!("`{}` is not UTF-8", path.display()))?;
        Ok(self.dir.resolve(path)?)
    }

    /// What the step of this key did, if that is known. What is damaged is not, and is removed.
    pub(crate) fn find(&self, key: &Digest) -> Result<Option<Known>> {
        let path = self.path(key)?;
        let index = fs::metadata(path.path().join("index.json"));
        if !index.is_ok_and(|facts| self.is_young(&facts)) {
            return Ok(None);
        }
        let known = known(&path).ok();
        if known.is_none() {
            let removed = drydock_tar::remove_all(path.path());
            removed.with_context(|| format!("cannot remove the damaged `{}`", path.path().display()))?;
        }
        Ok(known)
    }

    /// Room for what the step of this key will do.
    pub(crate) fn begin(&self, key: &Digest) -> Result<Room> {
        let path = self.path(key)?;
        let begun = Transaction::begin_anew(&self.dir, &path, LinkMode::Auto, Durability::InMemory, &|_| {});
        let transaction =
            begun.with_context(|| format!("cannot write to the cache `{}`", path.path().display()))?;
        Ok(Room { path, transaction })
    }
}

impl Room {
    /// Where the file of the layer must be made.
    pub(crate) fn blobs_dir(&self) -> PathBuf {
        self.transaction.blobs_dir()
    }

    /// Keeps what the step did.
    pub(crate) fn keep(self, layer: Option<Layer>) -> Result<Known> {
        let layers = layer.map(|layer| NewLayer {
            diff_id: layer.diff_id,
            descriptor: Descriptor::new(layer.blob.media_type, layer.blob.digest, layer.blob.size),
            blob: BlobSource::Temporary(layer.blob.file),
        });
        let image = NewImage {
            config: ImageConfig::empty(&Platform::host()),
            layers: layers.into_iter().collect(),
            annotations: Annotations::new(),
            replaces: None,
        };
        let Self { path, transaction } = self;
        let publish = || {
            // What could not be removed of an older one is removed with all of it some day.
            transaction.prepare_image(image)?.publish()?;
            known(&path)
        };
        publish().context("cannot write to the cache")
    }
}

/// What a layout says that a step did; the layer is whole.
fn known(path: &LayoutPath) -> Result<Known, LayoutError> {
    let image = Layout::open(path)?.image(&Platform::host())?;
    let Some(layer) = image.layers().next() else { return Ok(Known::Nothing) };
    layer.open()?;
    Ok(Known::Layer(Box::new(layer)))
}
