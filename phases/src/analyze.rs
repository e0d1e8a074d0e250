//! The analyzer: looks at the run image and at the previous app image, and writes what it found to `analyzed.toml`.
//!
//! Specification: `platform.md` § Analyzer.

use std::path::PathBuf;
use std::slice;

use drydock_layout::Early;
use drydock_model::reference::{LayoutDir, LayoutPath};
use drydock_spec::analyzed::{Analyzed, ImageIdentifier, RunImage};
use drydock_spec::api::PlatformApi;

use crate::app_image::check_apart;
use crate::file::write_toml;
use crate::identify::{identify, is_in_sight, restore_sbom};
use crate::layers::clear_up;
use crate::run_image::{self, RunImageFiles};
use crate::timer::timed;
use crate::{Error, Kind, Log};

/// Everything that the analyzer needs to know.
#[derive(Debug)]
pub struct Inputs {
    /// The Platform API that the platform speaks.
    pub platform_api: PlatformApi,
    /// Where images lie.
    pub layout_dir: LayoutDir,
    /// The app image to come.
    pub output_image: LayoutPath,
    /// The name of the image whose layers may be reused: by default the app image's predecessor.
    pub previous_image: String,
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
    /// Files of images that were opened as root.
    pub early: Early,
}

impl Inputs {
    /// The folders of the images that may be read.
    pub fn reads(&self) -> Vec<PathBuf> {
        let files = RunImageFiles { run: &self.run_path, stack: &self.stack_path };
        let mut names =
            self.run_image.clone().map_or_else(|| files.names(self.platform_api), |name| vec![name]);
        names.push(self.previous_image.clone());
        let places = names.iter().filter_map(|name| self.layout_dir.resolve(name).ok());
        places.map(|path| path.path().to_owned()).collect()
    }
}

/// Analyzes, restores the previous image's SBOM files, and writes `analyzed.toml`. Where the layouts are out of sight,
/// the images' names are all that is written.
pub fn analyze(inputs: &Inputs, log: &dyn Log) -> Result<(), Error> {
    clear_up(&inputs.layers_dir, log);
    if is_in_sight(&inputs.layout_dir) {
        return analyze_layouts(inputs, log).map(drop);
    }
    log.warn(&format!(
        "The layout directory `{}` does not exist here: the restorer looks at the images, or else the exporter",
        inputs.layout_dir.path().display()
    ));
    Ok(write_toml(&inputs.analyzed_path, &named(inputs, log)?)?)
}

/// The same where no later phase would look at the images: the layouts must be in sight.
pub fn analyze_layouts(inputs: &Inputs, log: &dyn Log) -> Result<Analyzed, Error> {
    timed(log, "Analyzer", || look(inputs, log))
}

fn look(inputs: &Inputs, log: &dyn Log) -> Result<Analyzed, Error> {
    let api = inputs.platform_api;
    let mut analyzed = named(inputs, log)?;
    let previous = identify(&mut analyzed, &inputs.layout_dir, &inputs.early, api, log)?;
    if let Some(run_image) = analyzed.run_image.as_mut().filter(|_| api.has_targets()) {
        let path = inputs.layout_dir.resolve(&run_image.image);
        run_image.image = path.map_err(|error| Error::new(Kind::Arguments, error))?.to_string();
    }
    if let Some(previous) = previous.filter(|_| api.has_sbom_layer() && !inputs.skip_layers) {
        restore_sbom(&previous, &analyzed.metadata, &inputs.layers_dir, log)?;
    }
    write_toml(&inputs.analyzed_path, &analyzed)?;
    Ok(analyzed)
}

/// The images by their names.
fn named(inputs: &Inputs, log: &dyn Log) -> Result<Analyzed, Error> {
    let name = run_image_name(inputs, log)?;
    if let Ok(path) = inputs.layout_dir.resolve(&name) {
        check_apart(slice::from_ref(&inputs.output_image), path.path())?;
    }
    let image = if inputs.platform_api.has_targets() { name.clone() } else { String::new() };
    Ok(Analyzed {
        image: ImageIdentifier { reference: inputs.previous_image.clone() },
        run_image: Some(RunImage { reference: name, image, ..RunImage::default() }),
        ..Analyzed::default()
    })
}

fn run_image_name(inputs: &Inputs, log: &dyn Log) -> Result<String, Error> {
    if let Some(name) = &inputs.run_image {
        return Ok(name.clone());
    }
    let (file, missing) = if inputs.platform_api.has_targets() {
        (&inputs.run_path, "-run-image is required when there is no run metadata available")
    } else {
        (&inputs.stack_path, "missing run image metadata (-run-image)")
    };
    let files = RunImageFiles { run: &inputs.run_path, stack: &inputs.stack_path };
    match files.read(inputs.platform_api, log)?.first() {
        Some(image) => run_image::by_mirrors(image, &inputs.output_image, &inputs.layout_dir, &inputs.early)
            .map(|(name, _)| name.to_owned())
            .map_err(|error| error.context(format!("run image in `{}`", file.display()))),
        None => Err(Error::new(Kind::Arguments, anyhow::anyhow!(missing))
            .with_help(format!("give -run-image, or name an image in `{}`", file.display()))),
    }
}
