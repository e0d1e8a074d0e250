//! `report.toml`: what an export or a rebase made.
//!
//! Specification: `platform.md` § `report.toml`.

use serde::{Deserialize, Serialize};

use crate::launch::BomEntry;

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What the build used (before Platform API 0.9), if anything is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildReport>,
    /// The app image.
    pub image: ImageReport,
}

/// What the build used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BuildReport {
    /// Bill of materials; not empty.
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
