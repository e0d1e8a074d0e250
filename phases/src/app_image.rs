//! What exporter and rebaser have in common: an app image on its way into layouts.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use drydock_io::lock::Identity;
use drydock_layout::{
    BlobSource, Committed, Durability, Image, LayoutError, LinkMode, NewImage, NewLayer, Shared, Transaction,
};
use drydock_model::config::History;
use drydock_model::reference::{LayoutDir, LayoutPath};
use drydock_spec::report::{BuildReport, ImageReport, Report};

use crate::file::stage_toml;
use crate::{Error, Kind, Log, kept_log};

/// Where an app image goes, and how.
#[derive(Debug)]
pub struct Output {
    /// Where images lie.
    pub layout_dir: LayoutDir,
    /// The names of the app image, the first one foremost.
    pub names: Vec<LayoutPath>,
    /// How blobs come from one layout into another.
    pub link: LinkMode,
    /// Whether the image must outlive a power failure.
    pub durability: Durability,
    /// Where `report.toml` is written, absolute.
    pub report_path: PathBuf,
}

impl Output {
    /// Locks the layouts of all names.
    pub(crate) fn begin(&self, log: &dyn Log) -> Result<Transaction, Error> {
        let waiting = |path: &LayoutPath| log.info(&format!("Waiting for another export to '{path}'"));
        Transaction::begin(&self.layout_dir, &self.names, self.link, self.durability, &waiting).map_err(
            |error| {
                let help = match &error {
                    LayoutError::Io { .. } => "check that the layout directory can be written",
                    LayoutError::NamedByDigest(_) => "name the app image by a tag",
                    _ => "nothing was written: what is there would be lost; repair it, or remove the folder",
                };
                Error::from(anyhow!(error)).with_help(help)
            },
        )
    }

    /// Writes the image under all its names, and `report.toml`, for which room is made before the first name is
    /// switched.
    pub(crate) fn publish(
        &self,
        transaction: Transaction,
        image: NewImage,
        build: Option<BuildReport>,
        log: &dyn Log,
    ) -> Result<(Report, Committed), Error> {
        let first = &self.names[0];
        log.info(&format!("Saving {first}..."));
        let build_log = kept_log::take(log, &transaction.beside_blobs());
        let (prepared, failed) =
            transaction.prepare_image_and_log(image, build_log).map_err(|error| anyhow!(error))?;
        if let Some(error) = failed {
            kept_log::warn(log, &anyhow!(error));
        }
        let committed = prepared.committed().expect("an image was prepared").clone();
        let report = Report { build, image: self.report(&committed) };
        let staged = stage_toml(&self.report_path, &report)?;
        if let Some(left) = prepared.publish().map_err(|error| anyhow!(error))? {
            log.warn(&format!(
                "The image is saved, but what is of no use any more is left: {:#}",
                anyhow!(left)
            ));
        }
        staged
            .publish()
            .with_context(|| format!("the image is saved ({}), but not its report", committed.digest))?;
        log.info(&format!("*** Images ({first}@{}):", committed.digest));
        for name in &self.names {
            log.info(&format!("      {name}"));
        }
        log.debug(&format!("\n*** Digest: {}", committed.digest));
        log.debug(&format!("\n*** Manifest Size: {}", committed.manifest_size));
        Ok((report, committed))
    }

    fn report(&self, committed: &Committed) -> ImageReport {
        ImageReport {
            tags: self.names.iter().map(ToString::to_string).collect(),
            digest: committed.digest.to_string(),
            manifest_size: committed.manifest_size,
        }
    }
}

/// Says so if the run image, whose layout is in this folder, has one of the names that the app image gets, however they are
/// spelled: it would be lost.
pub(crate) fn check_apart(names: &[LayoutPath], run_image: &Path) -> Result<(), Error> {
    let Ok(place) = Identity::of(run_image) else { return Ok(()) };
    match names.iter().find(|name| Identity::of(name.path()).is_ok_and(|other| other == place)) {
        Some(name) => {
            let error = anyhow!("`{name}` cannot be the app image: it is the run image");
            Err(Error::new(Kind::Arguments, error).with_help("give the app image a name of its own"))
        }
        None => Ok(()),
    }
}

/// Brings the run image's layers into the new image: those whose blobs are there. Those of a sparse image stay absent,
/// unless the layout has them already, undamaged.
pub(crate) fn bring_base(
    base: &Image,
    transaction: &Transaction,
) -> Result<(Vec<NewLayer>, Shared), LayoutError> {
    let mut shared = Shared::default();
    let mut layers = Vec::new();
    for layer in base.layers() {
        let found = if layer.is_absent() {
            transaction.find(&layer.descriptor)?
        } else {
            Some(transaction.bring(&layer)?)
        };
        shared += found.unwrap_or_default();
        let blob = if found.is_some() { BlobSource::Placed } else { BlobSource::Absent };
        layers.push(NewLayer { diff_id: layer.diff_id, descriptor: layer.descriptor, blob });
    }
    Ok((layers, shared))
}

/// Says what of the run image is missing in the app image, and how the rest came there.
pub(crate) fn log_base(layers: &[NewLayer], shared: Shared, log: &dyn Log) {
    let absent: Vec<_> = layers.iter().filter(|layer| matches!(layer.blob, BlobSource::Absent)).collect();
    if !absent.is_empty() {
        log.info(&format!(
            "The run image is sparse: {} of its {} layers are absent in the app image too",
            absent.len(),
            layers.len()
        ));
        for layer in absent {
            log.info(&format!("  missing {} ({} bytes)", layer.descriptor.digest, layer.descriptor.size));
        }
    }
    log.info(&format!("Run image: {} bytes shared, {} bytes copied", shared.shared, shared.copied));
}

/// One entry of a history for each layer of its image: those of steps that made no layer are left out. If the rest does
/// not fit the layers, all are blank.
pub(crate) fn one_for_each_layer(mut history: Vec<History>, layers: usize) -> Vec<History> {
    history.retain(|entry| !entry.empty_layer);
    if history.len() == layers { history } else { vec![History::default(); layers] }
}
