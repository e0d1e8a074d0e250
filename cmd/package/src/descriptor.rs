//! What the executables speak: in `lifecycle.toml` for builder tools, in labels of the lifecycle image for platforms.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use drydock_spec::api::{BuildpackApi, PlatformApi};
use serde::Serialize;
use serde_json::json;

/// Of executables of one version.
#[derive(Debug, Serialize)]
pub struct Descriptor {
    apis: Apis,
    api: OldestApis,
    lifecycle: Lifecycle,
}

#[derive(Debug, Serialize)]
struct Apis {
    buildpack: Versions,
    platform: Versions,
}

#[derive(Debug, Serialize)]
struct Versions {
    deprecated: Vec<String>,
    supported: Vec<String>,
}

impl Versions {
    fn supported(versions: impl Iterator<Item = impl ToString>) -> Self {
        Self { deprecated: Vec::new(), supported: versions.map(|version| version.to_string()).collect() }
    }
}

/// What tools read that know nothing of several versions.
#[derive(Debug, Serialize)]
struct OldestApis {
    platform: String,
    buildpack: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Lifecycle {
    version: String,
    sbom_formats: [&'static str; 3],
}

impl Descriptor {
    /// Of executables of this version.
    pub fn new(version: &str) -> Self {
        Self {
            apis: Apis {
                buildpack: Versions::supported(BuildpackApi::all()),
                platform: Versions::supported(PlatformApi::all()),
            },
            api: OldestApis {
                platform: PlatformApi::OLDEST.to_string(),
                buildpack: BuildpackApi::OLDEST.to_string(),
            },
            lifecycle: Lifecycle {
                version: version.to_owned(),
                sbom_formats: [
                    "application/vnd.cyclonedx+json",
                    "application/spdx+json",
                    "application/vnd.syft+json",
                ],
            },
        }
    }

    /// The executables' version.
    pub fn version(&self) -> &str {
        &self.lifecycle.version
    }

    /// The text of `lifecycle.toml`.
    pub fn toml(&self) -> Result<String> {
        toml::to_string(self).context("write lifecycle.toml")
    }

    /// The labels of an image with the executables. The last one is for platforms that know nothing of the others.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let legacy = json!({"lifecycle": {"version": self.version()}, "api": self.api});
        [
            ("io.buildpacks.lifecycle.version", self.version().to_owned()),
            ("io.buildpacks.lifecycle.apis", json!(self.apis).to_string()),
            ("io.buildpacks.builder.metadata", legacy.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_builder_tools_read() {
        let want = r#"[apis.buildpack]
deprecated = []
supported = ["0.7", "0.8", "0.9", "0.10", "0.11", "0.12"]

[apis.platform]
deprecated = []
supported = ["0.7", "0.8", "0.9", "0.10", "0.11", "0.12", "0.13", "0.14", "0.15"]

[api]
platform = "0.7"
buildpack = "0.7"

[lifecycle]
version = "1.2.3"
sbom-formats = ["application/vnd.cyclonedx+json", "application/spdx+json", "application/vnd.syft+json"]
"#;
        assert_eq!(Descriptor::new("1.2.3").toml().unwrap(), want);
    }

    #[test]
    fn the_labels_are_what_platforms_read() {
        let labels = Descriptor::new("1.2.3").labels();
        let want = [
            (
                "io.buildpacks.builder.metadata",
                r#"{"api":{"buildpack":"0.7","platform":"0.7"},"lifecycle":{"version":"1.2.3"}}"#,
            ),
            (
                "io.buildpacks.lifecycle.apis",
                r#"{"buildpack":{"deprecated":[],"supported":["0.7","0.8","0.9","0.10","0.11","0.12"]},"platform":{"deprecated":[],"supported":["0.7","0.8","0.9","0.10","0.11","0.12","0.13","0.14","0.15"]}}"#,
            ),
            ("io.buildpacks.lifecycle.version", "1.2.3"),
        ];
        let found: Vec<_> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(found, want);
    }
}
