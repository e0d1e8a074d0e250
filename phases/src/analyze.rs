//! The analyzer: looks at the run image and at the previous app image, and writes what it found to `analyzed.toml`.
//!
//! Specification: `platform.md` § Analyzer.

use std::path::PathBuf;

use anyhow::Context as _;
use drydock_layout::{Image, Layout, LayoutError};
use drydock_model::platform::Platform;
use drydock_model::reference::{LayoutDir, LayoutPath};
use drydock_spec::analyzed::{Analyzed, ImageIdentifier, LayersMetadata, RunImage};
use drydock_spec::api::PlatformApi;
use drydock_spec::label;

use crate::file::write_toml;
use crate::run_image::{self, RunImageFiles};
use crate::timer::timed;
use crate::{Error, Kind, Log, sbom};

/// Everything that the analyzer needs to know.
#[derive(Debug)]
pub struct Inputs {
    /// The Platform API that the platform speaks.
    pub platform_api: PlatformApi,
    /// Where images lie.
    pub layout_dir: LayoutDir,
    /// The app image to come.
    pub output_image: LayoutPath,
    /// The image whose layers may be reused: by default the app image's predecessor.
    pub previous_image: LayoutPath,
    /// The run image as named by the platform; otherwise `run.toml` or `stack.toml` names it.
    pub run_image: Option<String>,
    /// `run.toml`, read from Platform API 0.12 on.
    pub run_path: PathBuf,
    /// `stack.toml`, read before Platform API 0.12.
    pub stack_path: PathBuf,
    /// The layers directory, absolute.
    pub layers_dir: PathBuf,
    /// Where `analyzed.toml` is written.
    pub analyzed_path: PathBuf,
    /// Whether the previous image's SBOM layer is left alone.
    pub skip_layers: bool,
}

/// Analyzes, restores the previous image's SBOM files, and writes `analyzed.toml`.
pub fn analyze(inputs: &Inputs, log: &dyn Log) -> Result<Analyzed, Error> {
    timed(log, "Analyzer", || look(inputs, log))
}

fn look(inputs: &Inputs, log: &dyn Log) -> Result<Analyzed, Error> {
    let api = inputs.platform_api;
    let run_image_path = run_image_path(inputs, log)?;
    let run_image = run_image::open(&run_image_path)?;
    let target = run_image::target(&run_image)?;

    let mut analyzed = Analyzed {
        run_image: Some(RunImage {
            reference: run_image.identifier(),
            image: if api.has_targets() { run_image_path.to_string() } else { String::new() },
            extend: false,
            target: api.has_targets().then_some(target),
        }),
        ..Analyzed::default()
    };
    if let Some(previous) = previous_image(inputs, &run_image.config.platform(), log)? {
        if let Some(metadata) = layers_metadata(&previous, log) {
            analyzed.image = ImageIdentifier { reference: previous.identifier() };
            analyzed.metadata = metadata;
        }
        let sbom = analyzed.metadata.sbom.as_ref().map_or("", |sbom| sbom.sha.as_str());
        if api.has_sbom_layer() && !inputs.skip_layers && !sbom.is_empty() {
            log.info("Restoring data for SBOM from previous image");
            sbom::restore_from_image(&previous, sbom, &inputs.layers_dir).map_err(|error| {
                Error::from(error)
                    .context("failed to restore the SBOM files of the previous image")
                    .with_help(format!(
                        "remove `{}` to build without a previous image",
                        inputs.previous_image
                    ))
            })?;
        }
    }
    write_toml(&inputs.analyzed_path, &analyzed)?;
    Ok(analyzed)
}

fn run_image_path(inputs: &Inputs, log: &dyn Log) -> Result<LayoutPath, Error> {
    if let Some(name) = &inputs.run_image {
        return inputs.layout_dir.resolve(name).map_err(|error| Error::new(Kind::Arguments, error));
    }
    let (file, missing) = if inputs.platform_api.has_targets() {
        (&inputs.run_path, "-run-image is required when there is no run metadata available")
    } else {
        (&inputs.stack_path, "missing run image metadata (-run-image)")
    };
    let files = RunImageFiles { run: &inputs.run_path, stack: &inputs.stack_path };
    match files.read(inputs.platform_api, log)?.first() {
        Some(image) => run_image::by_mirrors(image, &inputs.output_image, &inputs.layout_dir)
            .map_err(|error| error.context(format!("run image in `{}`", file.display()))),
        None => Err(Error::new(Kind::Arguments, anyhow::anyhow!(missing))
            .with_help(format!("give -run-image, or name an image in `{}`", file.display()))),
    }
}

/// The image for the same platform at the previous image's place.
fn previous_image(inputs: &Inputs, platform: &Platform, log: &dyn Log) -> Result<Option<Image>, Error> {
    let path = &inputs.previous_image;
    let not_found = || log.info(&format!("Image with name \"{path}\" not found"));
    match Layout::open(path).and_then(|layout| layout.predecessor(platform)) {
        Ok(Some(image)) => Ok(Some(image)),
        Ok(None) => {
            log.info(&format!(
                "Image with name \"{path}\" is not for platform {platform}: nothing of it is reused"
            ));
            Ok(None)
        }
        Err(LayoutError::NotFound(_)) => {
            not_found();
            Ok(None)
        }
        Err(error) => {
            let error = Err::<(), _>(error).with_context(|| format!("previous image `{path}`"));
            let error = Error::from(error.expect_err("it was made as an error"));
            Err(error.with_help(format!("remove `{path}` to build without a previous image")))
        }
    }
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
