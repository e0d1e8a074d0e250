//! The phases of a Cloud Native Buildpacks build. Each is a function from its `Inputs` to what it found out; what it
//! writes are files under the layers directory, layouts and caches.
//!
//! Nothing here reads the process environment or the command line, prints, or exits: the executables do that.

pub mod analyze;
mod app_image;
pub mod build;
pub mod buildpacks;
pub mod cache;
pub mod create;
pub mod detect;
pub mod early;
pub mod env;
pub mod error;
pub mod experimental;
pub mod export;
pub mod extend;
pub mod file;
mod identify;
mod kept_log;
pub mod layer_index;
pub mod layer_tar;
pub mod layers;
pub mod limits;
pub mod log;
#[cfg(test)]
mod memory_log;
pub mod path;
pub mod process;
pub mod rebase;
pub mod restore;
pub mod run_image;
pub mod sbom;
pub mod target;
mod threads;
pub mod timer;

pub use error::{Error, Kind};
pub use log::{Level, Log, Output};
