//! `project-metadata.toml`: where the app's source comes from.
//!
//! Specification: `platform.md` § `project-metadata.toml`.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::json;
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

#[derive(Serialize)]
struct JsonProject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<JsonSource<'a>>,
}

/// With its keys in the order in which other implementations write them.
#[derive(Serialize)]
struct JsonSource<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Json>,
}

impl ProjectMetadata {
    /// The text of the label `io.buildpacks.project.metadata`. Empty fields are left out.
    pub fn to_json(&self) -> Result<String, NotJson> {
        let json = JsonProject { source: self.source.as_ref().map(Source::json).transpose()? };
        Ok(json::to_string(&json).expect("strings and JSON values make JSON"))
    }
}

impl Source {
    fn json(&self) -> Result<JsonSource<'_>, NotJson> {
        let unless_empty = |table: &Metadata| (!table.0.is_empty()).then(|| table.to_json()).transpose();
        Ok(JsonSource {
            r#type: &self.r#type,
            version: unless_empty(&self.version)?,
            metadata: unless_empty(&self.metadata)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_has_its_keys_in_order_and_nothing_empty() {
        for (text, want) in [
            ("", "{}"),
            ("[source]", r#"{"source":{}}"#),
            (
                "[source]\n[source.version]\n[source.metadata]\nb = 1\na = '<'",
                r#"{"source":{"metadata":{"a":"\u003c","b":1}}}"#,
            ),
            (
                "[source]\nmetadata.repository = 'r'\nversion.commit = 'c'\ntype = 'git'",
                r#"{"source":{"type":"git","version":{"commit":"c"},"metadata":{"repository":"r"}}}"#,
            ),
        ] {
            assert_eq!(toml::from_str::<ProjectMetadata>(text).unwrap().to_json().unwrap(), want);
        }
    }
}
