//! Where layers of steps are kept: under each key a layout, with an image of one layer, or of none if the step changed nothing.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow, ensure};
use drydock_layout::{
    BlobSource, Durability, ImageLayer, Layout, LayoutError, LinkMode, NewImage, NewLayer, Transaction,
};
use drydock_model::config::{ImageConfig, RootFs, Settings};
use drydock_model::digest::Digest;
use drydock_model::manifest::{Annotations, Descriptor};
use drydock_model::platform::Platform;
use drydock_model::reference::{LayoutDir, LayoutPath};
use rustix::process::geteuid;
use serde_json::Map;

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
    Layer(ImageLayer),
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
            fs::create_dir_all(dir)?;
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
            if !self.is_young(&path) {
                drydock_tar::remove_all(&path)?;
            }
        }
        Ok(())
    }

    /// Whether a layout is there, and young enough to be used.
    fn is_young(&self, layout: &Path) -> bool {
        let modified = fs::metadata(layout.join("index.json")).and_then(|facts| facts.modified());
        // One from the future is of another clock, and is as good.
        modified.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age < self.kept))
    }

    fn path(&self, key: &Digest) -> Result<LayoutPath> {
        let path: PathBuf = self.dir.path().join(format!("step-{}", key.hex()));
        let path = path.to_str().with_context(|| format!("`{}` is not UTF-8", path.display()))?;
        Ok(self.dir.resolve(path)?)
    }

    /// What the step of this key did, if that is known. What is damaged is not.
    pub(crate) fn find(&self, key: &Digest) -> Result<Option<Known>> {
        let path = self.path(key)?;
        if !self.is_young(path.path()) {
            return Ok(None);
        }
        let found = Layout::open(&path).and_then(|layout| layout.image(&Platform::host()));
        let Ok(image) = found else { return Ok(None) };
        let mut layers = image.layers();
        Ok(match (layers.next(), layers.next()) {
            (None, _) => Some(Known::Nothing),
            (Some(layer), None) if layer.open().is_ok() => Some(Known::Layer(layer)),
            _ => None,
        })
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
        let Platform { os, architecture, .. } = Platform::host();
        let config = ImageConfig {
            created: None,
            architecture,
            variant: None,
            os,
            os_version: None,
            config: Settings::default(),
            rootfs: RootFs { r#type: "layers".to_owned(), diff_ids: Vec::new() },
            history: Vec::new(),
            rest: Map::new(),
        };
        let image = NewImage {
            config,
            layers: layers.into_iter().collect(),
            annotations: Annotations::new(),
            replaces: None,
        };
        let Self { path, transaction } = self;
        let publish = || -> Result<Known, LayoutError> {
            // What could not be removed of an older one is removed with all of it some day.
            transaction.prepare_image(image)?.publish()?;
            let image = Layout::open(&path)?.image(&Platform::host())?;
            Ok(image.layers().next().map_or(Known::Nothing, Known::Layer))
        };
        publish().map_err(|error| anyhow!(error).context("cannot write to the cache"))
    }
}
