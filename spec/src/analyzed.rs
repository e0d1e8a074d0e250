//! `analyzed.toml`: what the analyzer found out about the run image and the previous app image.
//!
//! Specification: `platform.md` § `analyzed.toml`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::metadata::Metadata;

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Analyzed {
    /// The previous app image.
    #[serde(default)]
    pub image: ImageIdentifier,
    /// The image that the build runs in, where extensions take part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_image: Option<ImageIdentifier>,
    /// What the previous app image says of its layers.
    #[serde(default)]
    pub metadata: LayersMetadata,
    /// The run image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_image: Option<RunImage>,
}

/// Exactly one image: `<path>@<digest>`; empty where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageIdentifier {
    /// The text.
    #[serde(default)]
    pub reference: String,
}

/// The run image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunImage {
    /// `<path>@<digest>`.
    #[serde(default)]
    pub reference: String,
    /// Its name, or its path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Whether extensions add layers to it.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub extend: bool,
    /// What it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

/// What an image runs on. Specification: `platform.md` § Targets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Target {
    /// The vendor's name for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Operating system, like `linux`.
    #[serde(default)]
    pub os: String,
    /// Architecture, like `amd64`.
    #[serde(default)]
    pub arch: String,
    /// Variant of the architecture, like `v8`.
    #[serde(default, alias = "variant", skip_serializing_if = "String::is_empty")]
    pub arch_variant: String,
    /// Distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distro: Option<Distro>,
}

/// A distribution of the operating system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distro {
    /// Like `debian`.
    #[serde(default)]
    pub name: String,
    /// Like `12`.
    #[serde(default)]
    pub version: String,
}

/// What an app image's label `io.buildpacks.lifecycle.metadata` says, in the form that `analyzed.toml` has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct LayersMetadata {
    /// The app's layers, slices first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub app: Vec<Sha>,
    /// The layer of SBOM files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sbom: Option<Sha>,
    /// The buildpacks' layers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub buildpacks: Vec<BuildpackLayers>,
    /// The layer of the launcher's configuration.
    pub config: Sha,
    /// The launcher's layer.
    pub launcher: Sha,
    /// The layer of process types.
    pub process_types: Sha,
    /// The run image that it was built on.
    pub run_image: RunImageForRebase,
    /// Where newer run images are found, for old platforms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<Stack>,
}

/// A layer, by its diff ID; empty where there is no such layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sha {
    /// `sha256:…`.
    #[serde(default)]
    pub sha: String,
}

impl<D: std::fmt::Display> From<D> for Sha {
    fn from(diff_id: D) -> Self {
        Self { sha: diff_id.to_string() }
    }
}

/// One buildpack's layers in an image or a cache.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildpackLayers {
    /// The buildpack's ID.
    pub key: String,
    /// The buildpack's version.
    pub version: String,
    /// Layers by name.
    pub layers: BTreeMap<String, Layer>,
    /// What the buildpack wants to keep from build to build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<Store>,
}

/// A buildpack's layer in an image or a cache.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Layer {
    /// Its diff ID.
    pub sha: String,
    /// Whether later buildpacks see it.
    pub build: bool,
    /// Whether it is in the app image.
    pub launch: bool,
    /// Whether it is kept in the cache.
    pub cache: bool,
    /// What the buildpack wrote down about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
}

/// `store.toml`. Specification: `buildpack.md` § `store.toml`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Store {
    /// The buildpack's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
}

/// What a rebase has to know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RunImageForRebase {
    /// The run image's last layer, by its diff ID.
    pub top_layer: String,
    /// The run image's identifier.
    pub reference: String,
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Other names of it, on other registries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
}

/// The stack, as far as an app image remembers it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Stack {
    /// Where its run image is found.
    pub run_image: StackRunImage,
}

/// A run image's names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StackRunImage {
    /// The first.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Other names, on other registries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
}

impl LayersMetadata {
    /// The layers of the buildpack of this ID, whatever its version.
    pub fn buildpack(&self, id: &str) -> Option<&BuildpackLayers> {
        self.buildpacks.iter().find(|buildpack| buildpack.key == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_build_is_written_with_every_field_that_readers_expect() {
        let text = toml::to_string(&Analyzed::default()).unwrap();
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["image"]["reference"].as_str(), Some(""));
        assert_eq!(table["metadata"]["run-image"]["top-layer"].as_str(), Some(""));
        assert!(!table.contains_key("run-image"));
    }

    #[test]
    fn reads_what_it_writes() {
        let text = "[image]\nreference='/l/a@sha256:1'\n[metadata.config]\nsha='s'\n[[metadata.buildpacks]]\nkey='b'\n\
            version='1'\n[metadata.buildpacks.layers.l]\nsha='x'\nlaunch=true\nmetadata={n=3}\n\
            [run-image]\nreference='r'\nextend=true\n[run-image.target]\nos='linux'\narch='arm64'\nvariant='v8'\n";
        let analyzed: Analyzed = toml::from_str(text).unwrap();
        assert_eq!(analyzed.run_image.as_ref().unwrap().target.as_ref().unwrap().arch_variant, "v8");
        assert!(analyzed.metadata.buildpack("b").unwrap().layers["l"].launch);
        assert_eq!(toml::from_str::<Analyzed>(&toml::to_string(&analyzed).unwrap()).unwrap(), analyzed);
    }
}
