//! From the names of run image and previous image to exactly which images these are, and what they say.
//!
//! That is the analyzer's work. A platform may show the layouts to later phases only: then the analyzer leaves the names
//! in `analyzed.toml`, and the restorer does the work, or else the exporter.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use drydock_layout::{Early, Image, Layout, LayoutError};
use drydock_model::platform::Platform;
use drydock_model::reference::{LayoutDir, LayoutPath};
use drydock_spec::analyzed::{Analyzed, LayersMetadata};
use drydock_spec::api::PlatformApi;
use drydock_spec::label;

use crate::file::read_toml_if_exists;
use crate::layers::tell_layers;
use crate::{Error, Kind, Log, run_image, sbom};

/// Whether the folder of all layouts is there: a platform that shows no layout to a phase shows no such folder.
pub(crate) fn is_in_sight(layout_dir: &LayoutDir) -> bool {
    layout_dir.path().try_exists().unwrap_or(true)
}

/// Replaces names in `analyzed` by identifiers, and adds what the images say. Images that are identified are left alone.
///
/// Gives the previous image, if it was only named and is there.
pub(crate) fn identify(
    analyzed: &mut Analyzed,
    layout_dir: &LayoutDir,
    early: &Early,
    api: PlatformApi,
    log: &dyn Log,
) -> Result<Option<Image>, Error> {
    let mut platform = Platform::host();
    if let Some(run_image) = &mut analyzed.run_image
        && let Some(path) = named(&run_image.reference, layout_dir)?
    {
        let image = run_image::open(&path, early)?;
        run_image.target = if api.has_targets() { Some(run_image::target(&image)?) } else { None };
        run_image.reference = image.identifier();
        log.debug(&format!("Found image with identifier \"{}\"", run_image.reference));
        let shown = drydock_spec::json::to_string(run_image).expect("strings and booleans make JSON");
        log.debug(&format!("Run image info in analyzed metadata is: {shown}"));
        platform = image.config.platform();
    }
    let Some(path) = named(&analyzed.image.reference, layout_dir)? else { return Ok(None) };
    analyzed.image.reference.clear();
    let Some(previous) = previous_image(&path, &platform, early, log)? else { return Ok(None) };
    log.debug(&format!("Found image with identifier \"{}\"", previous.identifier()));
    if let Some(metadata) = layers_metadata(&previous, log) {
        analyzed.image.reference = previous.identifier();
        tell_layers("The previous image", &metadata.buildpacks, log);
        analyzed.metadata = metadata;
    }
    Ok(Some(previous))
}

/// Brings back the SBOM files of the previous image, of whose layers `metadata` tells.
pub(crate) fn restore_sbom(
    previous: &Image,
    metadata: &LayersMetadata,
    layers_dir: &Path,
    log: &dyn Log,
) -> Result<(), Error> {
    let Some(sbom) = metadata.sbom.as_ref().filter(|sbom| !sbom.sha.is_empty()) else { return Ok(()) };
    log.info("Restoring data for SBOM from previous image");
    sbom::restore_from_image(previous, &sbom.sha, layers_dir).map_err(|error| {
        Error::from(error)
            .context("failed to restore the SBOM files of the previous image")
            .with_help(without_previous(previous.layout()))
    })
}

/// The folders of the images that `analyzed.toml` names, as far as it can be read.
pub(crate) fn reads(analyzed_path: &Path, layout_dir: &LayoutDir) -> Vec<PathBuf> {
    let Ok(Some(analyzed)) = read_toml_if_exists::<Analyzed>(analyzed_path) else { return Vec::new() };
    let run_image = analyzed.run_image.map(|image| image.reference);
    let references = run_image.into_iter().chain([analyzed.image.reference]);
    let places = references.filter_map(|reference| run_image::locate(&reference, layout_dir).ok());
    // What lies elsewhere only the user of the buildpacks may have named.
    let places = places.map(|(path, _)| path.path().to_owned());
    places.filter(|path| path.starts_with(layout_dir.path())).collect()
}

/// Where the image lies, if it is only named.
fn named(reference: &str, layout_dir: &LayoutDir) -> Result<Option<LayoutPath>, Error> {
    if reference.is_empty() {
        return Ok(None);
    }
    let (path, digest) = run_image::locate(reference, layout_dir)
        .map_err(|error| Error::new(Kind::Arguments, anyhow!(error).context("image in analyzed metadata")))?;
    Ok(digest.is_none().then_some(path))
}

/// The image for the same platform at the previous image's place.
fn previous_image(
    path: &LayoutPath,
    platform: &Platform,
    early: &Early,
    log: &dyn Log,
) -> Result<Option<Image>, Error> {
    match Layout::open_early(path, early).and_then(|layout| layout.predecessor(platform)) {
        Ok(Some(image)) => Ok(Some(image)),
        Ok(None) => {
            log.info(&format!(
                "Image with name \"{path}\" is not for platform {platform}: nothing of it is reused"
            ));
            Ok(None)
        }
        Err(LayoutError::NotFound(_)) => {
            log.info(&format!("Image with name \"{path}\" not found"));
            Ok(None)
        }
        Err(error) => {
            let error = anyhow!(error).context(format!("previous image `{path}`"));
            Err(Error::from(error).with_help(without_previous(path.path())))
        }
    }
}

fn without_previous(layout: &Path) -> String {
    format!("remove `{}` to build without a previous image", layout.display())
}

/// What the image says of its layers; `None` if it cannot be understood.
fn layers_metadata(image: &Image, log: &dyn Log) -> Option<LayersMetadata> {
    let Some(text) = image.config.label(label::LIFECYCLE_METADATA) else {
        return Some(LayersMetadata::default());
    };
    match label::lifecycle_metadata_from_json(text) {
        Ok(metadata) => Some(metadata),
        Err(error) => {
            let key = label::LIFECYCLE_METADATA;
            log.warn(&format!(
                "Label '{key}' of {} is ignored, it cannot be read: {error}",
                image.identifier()
            ));
            None
        }
    }
}
