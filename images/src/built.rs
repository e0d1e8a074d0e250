//! What the labels of buildpacks say of an image, and which layer is what.
//!
//! Specification: `platform.md` § Labels.

use std::collections::BTreeMap;
use std::path::Path;

use drydock_layout::{Image, blob_path};
use drydock_model::config::{History, ImageConfig};
use drydock_model::digest::DiffId;
use drydock_model::manifest::Descriptor;
use drydock_model::media;
use drydock_spec::analyzed::LayersMetadata;
use drydock_spec::built::build_metadata_from_json;
use drydock_spec::json::{self, JsonError};
use drydock_spec::label;
use drydock_spec::launch::BuildMetadata;
use serde_json::Value as Json;

/// The annotation that names the image that another one was built on.
const BASE_NAME: &str = "org.opencontainers.image.base.name";

/// What labels say. A label that is not there says nothing.
#[derive(Debug, Default)]
pub struct Built {
    /// Which layer is what, and the run image.
    pub layers: Option<LayersMetadata>,
    /// Buildpacks and processes.
    pub build: Option<BuildMetadata>,
    /// Where the app's source came from.
    pub source: Option<Json>,
}

impl Built {
    /// Reads the labels; beside what could be read, the label that could not, and why.
    pub fn read(config: &ImageConfig) -> (Self, Vec<(&'static str, JsonError)>) {
        let mut wrong = Vec::new();
        let layers =
            parse(config, label::LIFECYCLE_METADATA, label::lifecycle_metadata_from_json, &mut wrong);
        let build = parse(config, label::BUILD_METADATA, build_metadata_from_json, &mut wrong);
        let project: Option<Json> = parse(config, label::PROJECT_METADATA, json::from_str, &mut wrong);
        let source = project.and_then(|mut project| project.get_mut("source").map(Json::take));
        (Self { layers, build, source }, wrong)
    }

    /// The reference of the run image that an image was built on.
    pub fn run_image(&self) -> Option<&str> {
        let run_image = &self.layers.as_ref()?.run_image;
        let of_stack = self.layers.as_ref()?.stack.as_ref().map_or("", |stack| &stack.run_image.image);
        [run_image.image.as_str(), of_stack, run_image.reference.as_str()]
            .into_iter()
            .find(|text| !text.is_empty())
    }
}

fn parse<T>(
    config: &ImageConfig,
    label: &'static str,
    parser: impl Fn(&str) -> Result<T, JsonError>,
    wrong: &mut Vec<(&'static str, JsonError)>,
) -> Option<T> {
    parser(config.label(label)?).map_err(|error| wrong.push((label, error))).ok()
}

/// What an image was built on, as a name.
pub fn base(image: &Image) -> Option<String> {
    let (built, _) = Built::read(&image.config);
    let annotated = || image.manifest.annotations.get(BASE_NAME).cloned();
    built.run_image().map(str::to_owned).or_else(annotated)
}

/// Which layer is what by the labels: `app`, `buildpack acme/a: lib`, … by diff ID. Those of the run image are not among
/// them.
pub fn purposes(layers: &LayersMetadata) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut add = |sha: &str, purpose: String| {
        if !sha.is_empty() {
            found.entry(sha.to_owned()).or_insert(purpose);
        }
    };
    for (number, slice) in layers.app.iter().enumerate() {
        let of = if layers.app.len() > 1 { format!(", slice {}", number + 1) } else { String::new() };
        add(&slice.sha, format!("app{of}"));
    }
    for (sha, purpose) in [
        (&layers.config.sha, "buildpacks' configuration"),
        (&layers.launcher.sha, "launcher"),
        (&layers.process_types.sha, "process types"),
    ] {
        add(sha, purpose.to_owned());
    }
    if let Some(sbom) = &layers.sbom {
        add(&sbom.sha, "SBOM".to_owned());
    }
    for buildpack in &layers.buildpacks {
        for (name, layer) in &buildpack.layers {
            add(&layer.sha, format!("{}:{name}", buildpack.key));
        }
    }
    found
}

/// Which layers' blobs an image in a layout's folder may lack, by their numbers: those of the run image that an app image stands on,
/// all of a run image of which no layer is there, and those that may not be distributed.
pub(crate) fn may_lack(dir: &Path, config: &ImageConfig, layers: &[Descriptor]) -> Vec<bool> {
    let ids = &config.rootfs.diff_ids;
    let is_there = |layer: &Descriptor| blob_path(dir, &layer.digest).symlink_metadata().is_ok();
    let mut labels = config.config.labels.keys();
    let is_told = |key: &String| key.starts_with(label::BASE_PREFIX) || key.starts_with(label::STACK_PREFIX);
    let run_layers = match Built::read(config).0.layers {
        // Empty layers have one diff ID: the last of them is meant.
        Some(of_app) => {
            let top = &of_app.run_image.top_layer;
            ids.iter().rposition(|id| id.to_string() == *top).map_or(0, |top| top + 1)
        }
        None if labels.any(is_told) && !layers.iter().any(is_there) => layers.len(),
        None => 0,
    };
    layers.iter().enumerate().map(|(number, layer)| number < run_layers || is_elsewhere(layer)).collect()
}

/// Whether it is a layer that may not be distributed: it is where its URLs say.
pub(crate) fn is_elsewhere(blob: &Descriptor) -> bool {
    let media_type = blob.oci_media_type();
    media_type.starts_with(media::LAYERS) && media_type.contains(".nondistributable.")
}

/// What made each layer of an image, lowest first: by the labels if they know it, else by the history.
pub fn makers(config: &ImageConfig, built: &Built) -> Vec<String> {
    let purposes = built.layers.as_ref().map(purposes).unwrap_or_default();
    let top = built.layers.as_ref().map_or("", |layers| &layers.run_image.top_layer);
    let ids = &config.rootfs.diff_ids;
    let run_layers = ids.iter().position(|id| id.to_string() == top).map_or(0, |top| top + 1);
    let made: Vec<&History> = config.history.iter().filter(|history| !history.empty_layer).collect();
    let is_told = made.len() == ids.len();
    let maker = |(number, id): (usize, &DiffId)| {
        let history = if is_told { made[number].created_by.as_str() } else { "" };
        match purposes.get(&id.to_string()) {
            Some(purpose) => purpose.clone(),
            None if number < run_layers && history.is_empty() => "run image".to_owned(),
            None if number < run_layers => format!("run image: {history}"),
            None => history.to_owned(),
        }
    };
    ids.iter().enumerate().map(maker).collect()
}
