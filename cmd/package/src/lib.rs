//! The executables as they ship: in the archive that builder tools (`pack builder create`, for one) put into builder
//! images, and in the image that platforms run beside builders that they do not trust.
//!
//! [`compile`] builds static executables, [`dependencies`] finds out what is in them, [`sbom`] says so in three formats,
//! [`descriptor`] tells which APIs they speak, and [`archive`] and [`image`] pack all of it: the same bytes for the same
//! sources and toolchain.

pub mod archive;
pub mod cargo;
pub mod compile;
pub mod dependencies;
pub mod descriptor;
pub mod image;
pub mod sbom;

use std::path::{Path, PathBuf};

/// The folder of the workspace that this package belongs to.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
