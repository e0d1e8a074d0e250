//! What exporter and rebaser have in common: an app image on its way into layouts.

use std::collections::BTreeSet;

use anyhow::anyhow;
use drydock_layout::{
    BlobSource, Committed, Image, LayoutError, LayoutWriter, LinkMode, NewImage, NewLayer, Shared,
};
use drydock_model::config::History;
use drydock_model::reference::{LayoutDir, LayoutPath};
use drydock_spec::report::ImageReport;

use crate::{Error, Log};

/// Locks all output layouts; the first one's writer comes first. Two names of one place are one.
pub(crate) fn open_writers(
    layout_dir: &LayoutDir,
    output_images: &[LayoutPath],
    log: &dyn Log,
) -> Result<Vec<LayoutWriter>, Error> {
    let first = &output_images[0];
    let mut seen = BTreeSet::new();
    let mut paths: Vec<&LayoutPath> = output_images.iter().filter(|path| seen.insert(path.path())).collect();
    // In one order, so that two exports to the same names cannot wait for each other.
    paths.sort_by_key(|path| path.path());
    let mut writers = Vec::new();
    for path in paths {
        let waiting = || log.info(&format!("Waiting for another export to '{path}'"));
        let writer = LayoutWriter::open(layout_dir, path, &waiting).map_err(|error| {
            Error::from(anyhow!(error)).with_help("check that the layout directory can be written")
        })?;
        writers.push(writer);
    }
    writers.sort_by_key(|writer| writer.path() != first);
    Ok(writers)
}

/// Brings the run image's layers into the new image: those whose blobs are there. Those of a sparse image stay absent,
/// unless the layout has them already.
pub(crate) fn bring_base(
    base: &Image,
    writer: &LayoutWriter,
    link: LinkMode,
) -> Result<(Vec<NewLayer>, Shared), LayoutError> {
    let mut shared = Shared::default();
    let mut layers = Vec::new();
    for layer in base.layers() {
        let is_absent = layer.is_absent();
        if !is_absent {
            layer.check_present()?;
        }
        let blob = if is_absent && !writer.has(&layer.descriptor) {
            BlobSource::Absent
        } else {
            shared += writer.bring(&layer, link)?;
            BlobSource::Placed
        };
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

/// Writes the image under all its names.
pub(crate) fn save(
    image: NewImage,
    first: LayoutWriter,
    others: Vec<LayoutWriter>,
    output_images: &[LayoutPath],
    link: LinkMode,
    log: &dyn Log,
) -> anyhow::Result<Committed> {
    log.info(&format!("Saving {}...", output_images[0]));
    let (committed, left) = first.commit(image, others, link)?;
    if let Some(error) = left {
        log.warn(&format!("The image is saved, but blobs of the one before are left: {:#}", anyhow!(error)));
    }
    log.info(&format!("*** Images ({}@{}):", output_images[0], committed.digest));
    for name in output_images {
        log.info(&format!("      {name}"));
    }
    log.debug(&format!("\n*** Digest: {}", committed.digest));
    log.debug(&format!("\n*** Manifest Size: {}", committed.manifest_size));
    Ok(committed)
}

/// What `report.toml` says of an image that was written.
pub(crate) fn report(output_images: &[LayoutPath], committed: &Committed) -> ImageReport {
    ImageReport {
        tags: output_images.iter().map(ToString::to_string).collect(),
        digest: committed.digest.to_string(),
        manifest_size: committed.manifest_size,
    }
}
