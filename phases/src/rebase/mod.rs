//! The rebaser: puts an app image on another run image. The app's own layers stay as they are.
//!
//! Everything that can be refused is refused before a blob is written; the image then appears in one step.
//! Specification: `platform.md` § Rebaser.

mod checks;
mod config;
mod names;

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use drydock_layout::{BlobSource, Early, Image, Layout, LayoutError, NewImage, NewLayer, Transaction};
use drydock_model::platform::Platform;
use drydock_model::reference::LayoutPath;
use drydock_spec::analyzed::LayersMetadata;
use drydock_spec::api::PlatformApi;
use drydock_spec::label;
use drydock_spec::report::Report;

pub use crate::app_image::Output;
use crate::app_image::{bring_base, check_apart, log_base};
use crate::threads::beside;
use crate::timer::timed;
use crate::{Error, Kind, Log, run_image};

/// Everything that the rebaser needs to know.
#[derive(Debug)]
pub struct Inputs {
    /// The Platform API that the platform speaks.
    pub platform_api: PlatformApi,
    /// Where the rebased image goes.
    pub output: Output,
    /// The app image to rebase: by default the one that is replaced.
    pub previous_image: LayoutPath,
    /// The new run image; otherwise the app image's label names it.
    pub run_image: Option<String>,
    /// Whether to rebase what is not known to be safe.
    pub force: bool,
    /// Files of images that were opened as root.
    pub early: Early,
}

impl Inputs {
    /// The folders of the images that may be read.
    pub fn reads(&self) -> Vec<PathBuf> {
        let app = Layout::open(&self.previous_image).and_then(|apps| apps.image(&Platform::host()));
        let named = || Some(names::run_image_paths(&metadata(&app.ok()?).ok()?, self));
        let run_images = match &self.run_image {
            Some(name) => self.output.layout_dir.resolve(name).into_iter().collect(),
            None => named().unwrap_or_default(),
        };
        // What lies elsewhere only the image may have named.
        let is_inside = |path: &PathBuf| path.starts_with(self.output.layout_dir.path());
        let paths = run_images.iter().chain([&self.previous_image]).map(|path| path.path().to_owned());
        paths.filter(is_inside).collect()
    }
}

/// Rebases, and writes `report.toml`.
pub fn rebase(inputs: &Inputs, log: &dyn Log) -> Result<Report, Error> {
    timed(log, "Rebaser", || rebase_image(inputs, log))
}

fn rebase_image(inputs: &Inputs, log: &dyn Log) -> Result<Report, Error> {
    // Locked before anything is read: what is read stays as it is until the new image is there.
    let transaction = inputs.output.begin(log)?;
    let (app, base) = images(inputs)?;
    check_apart(&inputs.output.names, base.layout())?;
    log.info(&format!("Rebasing {} onto {}", app.identifier(), base.identifier()));
    checks::check(&app.config, &base.config, inputs.force, log)?;

    let before = metadata(&app)?;
    let base_layers = config::base_layers(&app.config.rootfs.diff_ids, &before).ok_or_else(|| {
        Error::from(anyhow!("rebase app image: could not find base layer in image")).with_help(format!(
            "layer `{}`, of which the label `{}` says that it is the run image's last, is not in the app image: \
             build the app again",
            before.run_image.top_layer,
            label::LIFECYCLE_METADATA
        ))
    })?;
    let after = names::rebased(&before, &base, inputs, log)?;
    let config = config::rebased(&app.config, &base.config, base_layers, &after, inputs.platform_api)?;

    let (own, brought) = beside(
        || own_layers(&app, base_layers, &transaction),
        || bring_base(&base, &transaction).map_err(|error| not_brought("run image", &base, error)),
    );
    let (mut layers, shared) = brought?;
    log_base(&layers, shared, log);
    layers.extend(own.map_err(|error| not_brought("app image", &app, error))?);
    let annotations = app.manifest.annotations.clone();
    let image = NewImage { config, layers, annotations, replaces: Some(app.digest()) };
    inputs.output.publish(transaction, image, None, log).map(|(report, _)| report)
}

/// The app image and the new run image, which belong together by their platform: where one of the two layouts holds
/// several images, the other one's decides; where both do, this machine's platform does.
fn images(inputs: &Inputs) -> Result<(Image, Image), Error> {
    let no_app = |error| no_app_image(&inputs.previous_image, error);
    let apps = Layout::open_early(&inputs.previous_image, &inputs.early).map_err(no_app)?;
    let likely = apps.image(&Platform::host());
    let platform = likely.as_ref().map_or_else(|_| Platform::host(), |app| app.config.platform());
    let base_path = match &inputs.run_image {
        Some(name) => {
            inputs.output.layout_dir.resolve(name).map_err(|error| Error::new(Kind::Arguments, error))?
        }
        None => names::run_image_path(&metadata(&likely.map_err(no_app)?)?, inputs)?,
    };
    let base = Layout::open_early(&base_path, &inputs.early)
        .and_then(|layout| layout.image(&platform))
        .map_err(|error| run_image::not_usable(&base_path, error))?;
    let app = apps.image(&base.config.platform()).map_err(no_app)?;
    Ok((app, base))
}

/// What the app image says of its layers.
fn metadata(app: &Image) -> Result<LayersMetadata, Error> {
    let read = || -> anyhow::Result<LayersMetadata> {
        let text = app.config.label(label::LIFECYCLE_METADATA).context("there is no such label")?;
        Ok(label::lifecycle_metadata_from_json(text)?)
    };
    read().map_err(|error| {
        let what =
            format!("get image metadata: label `{}` of {}", label::LIFECYCLE_METADATA, app.identifier());
        Error::from(error.context(what)).with_help("only images that buildpacks built can be rebased")
    })
}

/// The layers above the old run image's.
fn own_layers(
    app: &Image,
    base_layers: usize,
    transaction: &Transaction,
) -> Result<Vec<NewLayer>, LayoutError> {
    let layers = app.layers().skip(base_layers).map(|layer| {
        transaction.bring(&layer)?;
        Ok(NewLayer { diff_id: layer.diff_id, descriptor: layer.descriptor, blob: BlobSource::Placed })
    });
    layers.collect()
}

fn no_app_image(path: &LayoutPath, error: LayoutError) -> Error {
    let help = match &error {
        LayoutError::NotFound(_) => format!(
            "build the app first, or put its image there as an OCI image layout, for example: \
             skopeo copy docker://<app image> oci:{path}:{}",
            path.ref_name()
        ),
        LayoutError::NoPlatform { .. } | LayoutError::Ambiguous { .. } => {
            "give with -run-image a run image for the platform of one of them".to_owned()
        }
        _ => format!("check the permissions of `{path}` and that it is an OCI image layout"),
    };
    Error::from(anyhow!(error).context(format!("app image `{path}`"))).with_help(help)
}

/// Why layers of an image did not come into the new one.
fn not_brought(what: &str, image: &Image, error: LayoutError) -> Error {
    let help = if let LayoutError::Io { .. } = error {
        "check that the layout directory can be written, and that there is room for the image".to_owned()
    } else {
        format!("put the {what} at `{}` again: a part of it is missing or damaged", image.layout().display())
    };
    Error::from(anyhow!(error).context(format!("{what} `{}`", image.identifier()))).with_help(help)
}
