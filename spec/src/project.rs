//! `project-metadata.toml`: where the app's source comes from.
//!
//! Specification: `platform.md` § `project-metadata.toml`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::metadata::{Metadata, NotJson};

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProjectMetadata {
    /// The source, if anything is known of it.
    pub source: Option<Source>,
}

/// The source of an app.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// Like `git`.
    pub r#type: String,
    /// Which version.
    pub version: Metadata,
    /// Anything else.
    pub metadata: Metadata,
}

impl ProjectMetadata {
    /// As the label `io.buildpacks.project.metadata` has it. Empty fields are left out.
    pub fn to_json(&self) -> Result<Json, NotJson> {
        let mut fields = Map::new();
        if let Some(source) = &self.source {
            let mut inner = Map::new();
            if !source.r#type.is_empty() {
                inner.insert("type".into(), Json::from(source.r#type.as_str()));
            }
            for (key, table) in [("version", &source.version), ("metadata", &source.metadata)] {
                if !table.is_empty() {
                    inner.insert(key.into(), table.to_json()?);
                }
            }
            fields.insert("source".into(), Json::Object(inner));
        }
        Ok(Json::Object(fields))
    }
}
