//! `report.toml`: what an export or a rebase made.
//!
//! Specification: `platform.md` § `report.toml`.

use serde::{Deserialize, Serialize};

use crate::launch::BomEntry;

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The bill of materials of the build (before Platform API 0.9).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildReport>,
    /// The app image.
    pub image: ImageReport,
}

/// What the build used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BuildReport {
    /// Bill of materials.
    #[serde(default)]
    pub bom: Vec<BomEntry>,
}

/// The app image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageReport {
    /// Its names: paths of layouts.
    pub tags: Vec<String>,
    /// The digest of its manifest.
    pub digest: String,
    /// The size of its manifest in bytes.
    pub manifest_size: u64,
}
