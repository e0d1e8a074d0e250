//! The extended run image on its way to `<extended>/run`: a sparse layout, with the new layers alone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use drydock_extend::in_place::{Layer, Made};
use drydock_layout::{BlobSource, Durability, Image, ImageLayer, LinkMode, NewImage, NewLayer, Transaction};
use drydock_model::config::{History, ImageConfig};
use drydock_model::manifest::Descriptor;
use drydock_model::reference::{LayoutDir, LayoutPath};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::MadeLayer;
use crate::app_image::one_for_each_layer;

/// An image that is being made in a folder of its own.
pub(super) struct NewRunImage {
    work: PathBuf,
    path: LayoutPath,
    transaction: Transaction,
}

impl NewRunImage {
    pub(super) fn begin(work: &Path) -> anyhow::Result<Self> {
        let dir = LayoutDir::new(work)?;
        let name = work.join("image");
        let path = dir.resolve(name.to_str().context("the folder of extended images is not UTF-8")?)?;
        let names = std::slice::from_ref(&path);
        let transaction = Transaction::begin(&dir, names, LinkMode::Auto, Durability::InMemory, &|_| {})?;
        Ok(Self { work: work.to_owned(), path, transaction })
    }

    pub(super) fn blobs_dir(&self) -> PathBuf {
        self.transaction.blobs_dir()
    }

    /// Writes the image, and puts it in place of what was there; where it is then.
    pub(super) fn publish(
        self,
        base: &Image,
        mut config: ImageConfig,
        made: Vec<MadeLayer>,
        created: &str,
        extended_dir: &Path,
    ) -> anyhow::Result<PathBuf> {
        let mut layers: Vec<NewLayer> = base
            .layers()
            .map(|layer| NewLayer {
                diff_id: layer.diff_id,
                descriptor: layer.descriptor,
                blob: BlobSource::Absent,
            })
            .collect();
        config.history = one_for_each_layer(std::mem::take(&mut config.history), layers.len());
        config.created = Some(created.to_owned());
        for MadeLayer { extension, made } in made {
            let (text, layer) = match made {
                Made::New(Layer { text, diff_id, blob }) => {
                    let descriptor = Descriptor::new(blob.media_type, blob.digest, blob.size);
                    (text, NewLayer { diff_id, descriptor, blob: BlobSource::Temporary(blob.file) })
                }
                Made::Kept { text, layer } => {
                    self.transaction.bring(&layer)?;
                    let ImageLayer { diff_id, descriptor, .. } = *layer;
                    (text, NewLayer { diff_id, descriptor, blob: BlobSource::Placed })
                }
            };
            config.history.push(History {
                created: Some(created.to_owned()),
                created_by: format!("Layer: '{text}', Created by extension: {extension}"),
                ..History::default()
            });
            layers.push(layer);
        }
        let Self { work, path, transaction } = self;
        let annotations = base.manifest.annotations.clone();
        let prepared = transaction.prepare_image(NewImage { config, layers, annotations, replaces: None })?;
        let digest = prepared.committed().context("an image was prepared")?.digest;
        if let Some(left) = prepared.publish()? {
            return Err(anyhow!(left).context("failed to write the extended run image"));
        }
        let new = work.join("run");
        let put = || -> anyhow::Result<()> {
            fs::create_dir(&new)?;
            fs::rename(path.path(), new.join(digest.to_string()))?;
            replace(&new, &extended_dir.join("run"))
        };
        let run_dir = extended_dir.join("run");
        put().with_context(|| format!("failed to write `{}`", run_dir.display()))?;
        Ok(run_dir.join(digest.to_string()))
    }
}

/// Puts a folder in the place of another, which is then where that was; in one step, where the file system can.
fn replace(new: &Path, place: &Path) -> anyhow::Result<()> {
    match renameat_with(CWD, new, CWD, place, RenameFlags::EXCHANGE) {
        Ok(()) => return Ok(()),
        Err(Errno::NOENT) => {}
        Err(Errno::INVAL | Errno::NOSYS) => drydock_tar::remove_all(place)?,
        Err(error) => return Err(error.into()),
    }
    Ok(fs::rename(new, place)?)
}
