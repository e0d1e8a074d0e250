//! The exporter: makes the app image from the run image, the buildpacks' layers and the app.
//!
//! Specification: `platform.md` § Exporter.

use std::path::PathBuf;

use drydock_oci::reference::{LayoutDir, LayoutPath};
use drydock_spec::api::PlatformApi;

/// Everything that the exporter needs to know.
#[derive(Debug)]
pub struct Inputs {
    /// The Platform API that the platform speaks.
    pub platform_api: PlatformApi,
    /// Where images lie.
    pub layout_dir: LayoutDir,
    /// The names of the app image, the first one foremost.
    pub output_images: Vec<LayoutPath>,
    /// The app, absolute.
    pub app_dir: PathBuf,
    /// The layers directory, absolute.
    pub layers_dir: PathBuf,
    /// What the analyzer wrote.
    pub analyzed_path: PathBuf,
    /// What the detector wrote.
    pub group_path: PathBuf,
    /// `run.toml`, read from Platform API 0.12 on.
    pub run_path: PathBuf,
    /// `stack.toml`, read before Platform API 0.12.
    pub stack_path: PathBuf,
    /// What the extender wrote.
    pub extended_dir: PathBuf,
    /// The executable that starts processes in the app image.
    pub launcher_path: PathBuf,
    /// The folder with the SBOM files of launcher and lifecycle.
    pub launcher_sbom_dir: PathBuf,
    /// `project-metadata.toml`.
    pub project_metadata_path: PathBuf,
    /// Where `report.toml` is written.
    pub report_path: PathBuf,
    /// The process type that the image starts by default.
    pub process_type: Option<String>,
    /// The cache, if there is one.
    pub cache: Option<CacheLocation>,
    /// Whether image and cache are written at the same time.
    pub parallel: bool,
    /// How layers are compressed, as it was given: `gzip`, `zstd` or `none`, and `:` and a level if need be.
    pub layer_compression: String,
    /// The owner of layers and app inside the image.
    pub uid: u32,
    /// The owner's group.
    pub gid: u32,
    /// `SOURCE_DATE_EPOCH`, as it was given.
    pub source_date_epoch: Option<String>,
    /// `CNB_EXEC_ENV`: what the app is built for (`production` unless said otherwise).
    pub exec_env: String,
    /// How many threads compress layers.
    pub threads: std::num::NonZeroUsize,
}

/// Where cached layers are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheLocation {
    /// A folder of the volume cache's form.
    Dir(PathBuf),
    /// A layout under the layout directory.
    Image(LayoutPath),
}
