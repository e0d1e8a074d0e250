//! `group.toml`: the buildpacks and extensions that take part, in order.
//!
//! Specification: `platform.md` § `group.toml`.

use serde::{Deserialize, Serialize};

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Group {
    /// Buildpacks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group: Vec<GroupElement>,
    /// Extensions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group_extensions: Vec<GroupElement>,
}

/// A buildpack or an extension in a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupElement {
    /// Its ID, like `acme/node`.
    pub id: String,
    /// Its version.
    pub version: String,
    /// The Buildpack API that it speaks, as text: whoever runs it checks it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api: String,
    /// Its home page.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub homepage: String,
}

impl GroupElement {
    /// `<id>@<version>`.
    pub fn full_name(&self) -> String {
        format!("{}@{}", self.id, self.version)
    }
}
