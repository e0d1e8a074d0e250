//! The analyzer: looks at the run image and at the previous app image, and writes what it found to `analyzed.toml`.
//!
//! Specification: `platform.md` § Analyzer.

use std::path::PathBuf;

use drydock_oci::reference::{LayoutDir, LayoutPath};
use drydock_spec::api::PlatformApi;

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
    /// Whether the previous image's SBOM layer and metadata are left alone.
    pub skip_layers: bool,
}
