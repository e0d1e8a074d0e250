//! What `docker save` wrote before it wrote image layouts: `manifest.json`, a configuration, and a tar for each layer. The
//! configuration stays as it is, with its digest (docker's image ID); layers are compressed.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use anyhow::{Error, Result};
use drydock_encode::compress::decompressed;
use drydock_encode::pipeline::Source;
use drydock_io::sink::Sink;
use drydock_layout::Transaction;
use drydock_model::config::ImageConfig;
use drydock_model::digest::{DiffId, Digest};
use drydock_model::json;
use drydock_model::manifest::{Annotations, Descriptor, Manifest};
use drydock_model::media;
use drydock_model::platform::Platform;
use serde::Deserialize;

use super::Options;
use super::archive::{Archive, Watched, format_of_bytes};
use super::error::{Choose, SourceError};
use super::store::{Files as _, is_same_image, read_file};
use crate::watch::Watch;
use crate::write;

/// An image in such an archive.
#[derive(Debug)]
pub(super) struct DockerImage {
    archive: Archive,
    config: Vec<u8>,
    platform: Platform,
    /// The name in the archive by diff ID, in the order of the layers.
    layers: Vec<(DiffId, String)>,
    names: Vec<String>,
}

/// One of a list in `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl DockerImage {
    /// The image of this name, or the only one.
    pub(super) fn find(archive: Archive, tag: Option<&str>) -> Result<Self> {
        const LIST: &str = "manifest.json";
        let saved: Vec<Saved> = json::from_slice(&read_file(&archive, LIST)?)
            .map_err(|error| SourceError::malformed(&LIST, &error))?;
        let is_named = |name: &String| tag.is_none_or(|tag| name == tag || is_same_image(name, tag));
        let names = |saved: &Saved| saved.repo_tags.clone().unwrap_or_default();
        let there = saved.iter().flat_map(names).collect();
        let is_meant = |saved: &Saved| tag.is_none() || names(saved).iter().any(is_named);
        let mut meant: Vec<Saved> = saved.into_iter().filter(is_meant).collect();
        let (Some(Saved { config: config_name, repo_tags, layers }), true) = (meant.pop(), meant.is_empty())
        else {
            return Err(Choose { wanted: tag.map(str::to_owned), there }.into());
        };
        let bytes = read_file(&archive, &config_name)?;
        let digest = Digest::of(&bytes);
        if let Some(expected) = named_digest(&config_name).filter(|expected| *expected != digest) {
            return Err(SourceError::WrongDigest { expected, found: digest }.into());
        }
        let config: ImageConfig =
            json::from_slice(&bytes).map_err(|error| SourceError::malformed(&config_name, &error))?;
        let (ids, layers) = (config.rootfs.diff_ids.clone(), layers.unwrap_or_default());
        if ids.len() != layers.len() {
            let reason = format!("its {} diff_ids do not fit the {} layers", ids.len(), layers.len());
            return Err(SourceError::malformed(&config_name, &reason).into());
        }
        let (layers, names) = (ids.into_iter().zip(layers).collect(), repo_tags.unwrap_or_default());
        Ok(Self { archive, platform: config.platform(), config: bytes, layers, names })
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.names.first().map(String::as_str)
    }

    /// Writes all but the name.
    pub(super) fn write(
        &self,
        transaction: &Transaction,
        options: &Options,
        watch: &dyn Watch,
    ) -> Result<Descriptor> {
        let fits = |wanted: &Platform| self.platform.is_same(wanted);
        if let Some(wanted) = options.platforms.first().filter(|_| !options.platforms.iter().any(fits)) {
            return Err(super::no_platform(wanted, vec![self.platform.clone()]).into());
        }
        // The same layer may come several times.
        let once: BTreeMap<DiffId, &str> =
            self.layers.iter().map(|(id, name)| (*id, name.as_str())).collect();
        let mut total = 0;
        for name in once.values() {
            total += self.open(name)?.size;
        }
        watch.begin("importing", total);
        let sources: Vec<_> =
            once.values().map(|name| move |sink: &mut dyn Sink| self.copy(name, sink, watch)).collect();
        let sources: Vec<_> = sources.iter().map(|source| source as &Source<'_, _>).collect();
        let layers = write::layers(&sources, transaction, options.write)?;
        watch.end();
        let mut written = BTreeMap::new();
        for (layer, (expected, name)) in layers.into_iter().zip(&once) {
            if layer.diff_id != *expected {
                let (layer, expected, found) = ((*name).to_owned(), *expected, layer.diff_id);
                return Err(SourceError::WrongDiffId { layer, expected, found }.into());
            }
            written.insert(*expected, layer.put(transaction)?);
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::MANIFEST.to_owned(),
            config: transaction.put_bytes(media::CONFIG, &self.config)?,
            layers: self.layers.iter().map(|(id, _)| written[id].clone()).collect(),
            annotations: Annotations::new(),
            rest: serde_json::Map::new(),
        };
        let root = transaction.put_bytes(media::MANIFEST, &serde_json::to_vec(&manifest)?)?;
        Ok(Descriptor { platform: Some(self.platform.clone()), ..root })
    }

    fn open(&self, name: &str) -> Result<super::Stored<'_>> {
        Ok(self.archive.open(name)?.ok_or_else(|| SourceError::Missing { what: format!("`{name}`") })?)
    }

    fn copy(&self, name: &str, sink: &mut dyn Sink, watch: &dyn Watch) -> Result<()> {
        let unreadable = |source: io::Error| match source.raw_os_error() {
            // The file, and not what is in it.
            Some(_) => Error::new(source).context(format!("cannot read `{}`", self.archive.path().display())),
            None => SourceError::Compression { path: name.into(), source }.into(),
        };
        let watched = Watched { inner: self.open(name)?.reader, watch };
        let mut input = BufReader::with_capacity(256 << 10, watched);
        let format = format_of_bytes(input.fill_buf().map_err(unreadable)?);
        let mut input = BufReader::with_capacity(256 << 10, decompressed(input, format)?);
        loop {
            let piece = input.fill_buf().map_err(unreadable)?;
            if piece.is_empty() {
                return Ok(());
            }
            sink.write_all(piece)?;
            let n = piece.len();
            input.consume(n);
        }
    }
}

/// The digest that a file's name says: `<hex>.json`, or `blobs/sha256/<hex>`.
fn named_digest(name: &str) -> Option<Digest> {
    let stem = Path::new(name).file_name()?.to_str()?;
    format!("sha256:{}", stem.strip_suffix(".json").unwrap_or(stem)).parse().ok()
}
