//! An image's configuration, with every field that these types do not know.
//!
//! Specification: OCI image-spec `config.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::digest::DiffId;
use crate::manifest::null_as_default;
use crate::platform::Platform;

/// An image's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When it was made (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The architecture that it runs on.
    #[serde(default)]
    pub architecture: String,
    /// The variant of that architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The operating system that it runs on.
    #[serde(default)]
    pub os: String,
    /// The version of that operating system.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// What a container starts with.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: Settings,
    /// Its layers.
    pub rootfs: RootFs,
    /// How it came to be.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// Whatever else is said of it.
    #[serde(flatten)]
    pub rest: Map<String, Json>,
}

/// What a container starts with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Settings {
    /// The user, and maybe the group: names or numbers.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `NAME=value`.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Its arguments.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Where it starts.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whatever else is said of it: health check, shell, volumes, …
    #[serde(flatten)]
    pub rest: Map<String, Json>,
}

/// An image's layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    pub r#type: String,
    /// The layers' diff IDs, lowest first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<DiffId>,
}

/// One step of an image's making.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// When (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Whether it made no layer.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Whatever else is said of it.
    #[serde(flatten)]
    pub rest: Map<String, Json>,
}

impl ImageConfig {
    /// Of an image without layers.
    pub fn empty(platform: &Platform) -> Self {
        let Platform { architecture, os, variant, os_version, .. } = platform.clone();
        Self {
            created: None,
            architecture,
            variant,
            os,
            os_version,
            config: Settings::default(),
            rootfs: RootFs { r#type: "layers".to_owned(), diff_ids: Vec::new() },
            history: Vec::new(),
            rest: Map::new(),
        }
    }

    /// Makes the history tell of each of so many layers, if it does not: with steps of which nothing is known.
    pub fn complete_history(&mut self, layers: usize) {
        if self.history.iter().filter(|step| !step.empty_layer).count() != layers {
            self.history = vec![History::default(); layers];
        }
    }

    /// What the image runs on.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone().filter(|text| !text.is_empty()),
            os_version: self.os_version.clone().filter(|text| !text.is_empty()),
            rest: Map::new(),
        }
    }

    /// The label's text.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.config.labels.get(key).map(String::as_str)
    }
}

impl Settings {
    /// A variable's value; of several, the last one counts.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.env
            .iter()
            .rev()
            .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, v)| v)
    }

    /// Sets a variable where it first stands, or appends it. Afterwards it is there once.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let is_it = |pair: &String| pair.split_once('=').map_or(pair.as_str(), |(key, _)| key) == name;
        let at = self.env.iter().position(is_it).unwrap_or(self.env.len());
        self.env.retain(|pair| !is_it(pair));
        self.env.insert(at, format!("{name}={value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_survive() {
        let text = r#"{"architecture":"amd64","os":"linux","os.features":["x"],"vendor":{"k":[1]},"config":{"Env":null,
            "Healthcheck":{"Test":["CMD","x"]},"Shell":["/bin/sh"],"OnBuild":["RUN x"],"Labels":{"b":"2","a":"1"}},
            "rootfs":{"type":"layers","diff_ids":null},"history":[{"created":"t","comment":"c","author":"me","empty_layer":true}]}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.label("b"), Some("2"));
        assert!(config.history[0].empty_layer);
        let json: Json = serde_json::to_value(&config).unwrap();
        let mut want: Json = serde_json::from_str(text).unwrap();
        want["config"].as_object_mut().unwrap().remove("Env");
        want["rootfs"]["diff_ids"] = Json::Array(Vec::new());
        assert_eq!(json, want);
    }

    #[test]
    fn the_same_value_gives_the_same_text() {
        let text = r#"{"z":1,"architecture":"a","os":"o","a":2,"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(
            serde_json::to_string(&config).unwrap(),
            r#"{"architecture":"a","os":"o","config":{},"rootfs":{"type":"layers","diff_ids":[]},"a":2,"z":1}"#
        );
    }

    #[test]
    fn variables_are_set_in_place() {
        let mut settings =
            Settings { env: vec!["A=1".into(), "B".into(), "A=2".into()], ..Settings::default() };
        assert_eq!(settings.env("A"), Some("2"));
        assert_eq!(settings.env("B"), None);
        settings.set_env("A", "x=y");
        settings.set_env("B", "b");
        settings.set_env("C", "c");
        assert_eq!(settings.env, ["A=x=y", "B=b", "C=c"]);
    }
}
