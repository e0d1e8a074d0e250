//! `<layer>.toml`: what a buildpack says of one of its layers.
//!
//! Specification: `buildpack.md` § `<layer>.toml`.

use serde::{Deserialize, Serialize};

use crate::metadata::Metadata;

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerToml {
    /// What the layer is for.
    pub types: Types,
    /// The buildpack's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
}

/// What a layer is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Types {
    /// It is in the app image.
    pub launch: bool,
    /// Later buildpacks see it.
    pub build: bool,
    /// It is kept in the cache.
    pub cache: bool,
}
