//! An image of layers that lie elsewhere: those of a base, and new ones above them.

use std::io::{self, Read};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use drydock_io::file::TempFile;
use drydock_layout::{BlobSource, Committed, Image, LinkMode, NewImage, NewLayer, NewLog, Transaction};
use drydock_model::config::ImageConfig;
use drydock_model::digest::{DiffId, HashingWriter};
use drydock_model::manifest::{Annotations, Descriptor, Manifest};
use drydock_model::media;
use serde_json::Map;

use crate::flatten::{self, flatten_in};
use crate::repository::Name;
use crate::watch::{Watch, waiting};
use crate::write::{self, Published};

/// A layer, and the layout's folder in which its blob lies.
#[derive(Debug)]
pub struct Placed {
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// Its blob.
    pub descriptor: Descriptor,
    /// The folder that `blobs/sha256` is in.
    pub dir: PathBuf,
}

/// What an image is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The image whose layers come first.
    pub base: Option<&'a Image>,
    /// The layers above those.
    pub layers: &'a [Placed],
    /// The configuration; diff IDs are those of the layers.
    pub config: ImageConfig,
    /// Annotations of the manifest.
    pub annotations: Annotations,
}

/// What came of it.
#[derive(Debug)]
pub struct Assembled {
    /// The image.
    pub committed: Committed,
    /// What went wrong after the image was there: old blobs that could not be removed.
    pub left: Option<String>,
    /// Why the log of its build is not beside it, if there is one.
    pub unlogged: Option<String>,
}

/// Writes an image under a name, where it takes the place of the image for the same platform, and beside it the log of its build; with
/// `flatten`, as one layer.
pub fn assemble(
    parts: Parts<'_>,
    log: Option<&mut dyn Read>,
    to: &Name,
    flatten: bool,
    options: flatten::Options,
    watch: &dyn Watch,
) -> Result<Assembled> {
    let names = [to.path().clone()];
    let transaction =
        Transaction::begin(to.dir(), &names, LinkMode::Auto, options.durability, &waiting(watch))?;
    let mut layers = Vec::new();
    for layer in parts.base.iter().flat_map(|base| base.layers()) {
        watch.advance(0)?;
        transaction.bring(&layer)?;
        layers.push((layer.diff_id, layer.descriptor));
    }
    for Placed { diff_id, descriptor, dir } in parts.layers {
        watch.advance(0)?;
        transaction.bring_blob(dir, descriptor)?;
        layers.push((*diff_id, descriptor.clone()));
    }
    let log = log.map(|log| new_log(log, &transaction)).transpose();
    let (log, failed) = log.map_or_else(|error| (None, Some(format!("{error:#}"))), |log| (log, None));
    let Parts { config, annotations, .. } = parts;
    let (committed, left, unlogged) = if flatten {
        let root = put_manifest(&transaction, config, &layers, annotations)?;
        let image = Image::read(to.path().path(), &root)?;
        let flat = flatten_in(transaction, &image, log, options, watch)?;
        (flat.committed, flat.left, flat.unlogged)
    } else {
        let placed = |(diff_id, descriptor)| NewLayer { diff_id, descriptor, blob: BlobSource::Placed };
        let layers = layers.into_iter().map(placed).collect();
        let image = NewImage { config, layers, annotations, replaces: None };
        let Published { committed, left, unlogged } = write::publish_image(transaction, image, log)?;
        (committed, left, unlogged)
    };
    Ok(Assembled { committed, left, unlogged: failed.or(unlogged) })
}

/// A manifest that nothing leads to yet.
fn put_manifest(
    transaction: &Transaction,
    mut config: ImageConfig,
    layers: &[(DiffId, Descriptor)],
    annotations: Annotations,
) -> Result<Descriptor> {
    config.rootfs.diff_ids = layers.iter().map(|(diff_id, _)| *diff_id).collect();
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::MANIFEST.to_owned(),
        config: transaction.put_bytes(media::CONFIG, &serde_json::to_vec(&config)?)?,
        layers: layers.iter().map(|(_, descriptor)| descriptor.clone().into_oci()).collect(),
        annotations,
        rest: Map::new(),
    };
    Ok(transaction.put_bytes(media::MANIFEST, &serde_json::to_vec(&manifest)?)?)
}

fn new_log(log: &mut dyn Read, transaction: &Transaction) -> Result<NewLog> {
    let mut copy = || -> io::Result<NewLog> {
        let mut file = TempFile::create_beside(&transaction.beside_blobs())?;
        let mut writer = HashingWriter::new(file.file());
        io::copy(log, &mut writer)?;
        let (_, digest, size) = writer.finish();
        Ok(NewLog { file, digest, size })
    };
    let failed = || format!("cannot write the log of the build to `{}`", transaction.blobs_dir().display());
    copy().with_context(failed)
}
