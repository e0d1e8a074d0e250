//! The extended run image: what an extender made of the run image.
//!
//! `<extended>/run` holds one folder, a sparse layout: manifest, configuration, and of the layers only those above the
//! run image's. Specification: `platform.md` § Extender, § Exporter.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use drydock_layout::{BlobSource, Image, ImageLayer, Layout, LayoutError, NewLayer, Transaction};
use drydock_model::config::ImageConfig;
use drydock_model::reference::LayoutDir;
use drydock_spec::analyzed::Analyzed;

use super::Inputs;
use crate::{Error, Level, Log};

/// A run image with layers that extensions added.
#[derive(Debug)]
pub(super) struct ExtendedRunImage {
    image: Image,
    /// How many of its layers are the run image's.
    base_layers: usize,
}

impl ExtendedRunImage {
    /// What the extender made of `base`, if it made anything.
    pub(super) fn open(
        inputs: &Inputs,
        analyzed: &Analyzed,
        base: &Image,
        log: &dyn Log,
    ) -> Result<Option<Self>, Error> {
        let Some(dir) = inputs.files.extended.as_ref().filter(|_| inputs.platform_api.has_run_extension())
        else {
            return Ok(None);
        };
        let run_dir = dir.join("run");
        let Some(dir) = only_entry(&run_dir)? else {
            if analyzed.run_image.as_ref().is_some_and(|run_image| run_image.extend) {
                let error = anyhow!(
                    "the run image is to be extended, but `{}` holds no extended image",
                    run_dir.display()
                );
                return Err(Error::from(error).with_help("run the extender first, or give -extended"));
            }
            return Ok(None);
        };
        if !inputs.platform_api.has_stable_extensions() {
            inputs.experimental.guard("Dockerfiles", Level::Info, log)?;
        }
        let extended = Self::read(&run_dir, &dir, base).map_err(|error| unusable(&dir, error))?;
        let count = extended.layers().count();
        log.info(&format!("Using extended run image: {} ({count} more layers)", dir.display()));
        Ok(Some(extended))
    }

    fn read(run_dir: &Path, dir: &Path, base: &Image) -> anyhow::Result<Self> {
        let name = dir.to_str().context("its path is not UTF-8")?;
        let path = LayoutDir::new(run_dir)?.resolve(name)?;
        let image = Layout::open(&path)?.image(&base.config.platform())?;
        let below = &base.config.rootfs.diff_ids;
        if !image.config.rootfs.diff_ids.starts_with(below) {
            bail!("it does not stand on run image {}", base.identifier());
        }
        Ok(Self { image, base_layers: below.len() })
    }

    /// Its configuration, in which extensions may have changed more than layers.
    pub(super) fn config(&self) -> &ImageConfig {
        &self.image.config
    }

    /// Brings the layers of extensions into the new image.
    pub(super) fn bring(&self, transaction: &Transaction) -> Result<Vec<NewLayer>, Error> {
        let bring = |layer: ImageLayer| {
            transaction.bring(&layer)?;
            let ImageLayer { diff_id, descriptor, .. } = layer;
            Ok(NewLayer { diff_id, descriptor, blob: BlobSource::Placed })
        };
        let layers: Result<_, LayoutError> = self.layers().map(bring).collect();
        layers.map_err(|error| unusable(self.image.layout(), error.into()))
    }

    fn layers(&self) -> impl Iterator<Item = ImageLayer> {
        self.image.layers().skip(self.base_layers)
    }
}

fn unusable(dir: &Path, error: anyhow::Error) -> Error {
    Error::from(error.context(format!("extended run image `{}`", dir.display())))
        .with_help("run the extender again")
}

/// The one entry of a folder, which need not be there.
fn only_entry(dir: &Path) -> anyhow::Result<Option<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        result => {
            result.and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>())
        }
    };
    let mut entries = entries.with_context(|| format!("failed to list `{}`", dir.display()))?;
    if entries.len() > 1 {
        bail!("`{}` holds {} extended run images: leave only one there", dir.display(), entries.len());
    }
    Ok(entries.pop())
}
