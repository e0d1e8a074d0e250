//! `lifecycle.toml`, from which builder tools learn what the executables beside it speak.

use anyhow::{Context as _, Result};
use drydock_spec::api::{BuildpackApi, PlatformApi};
use serde::Serialize;

#[derive(Serialize)]
struct Descriptor {
    apis: Apis,
    api: OldestApis,
    lifecycle: Lifecycle,
}

#[derive(Serialize)]
struct Apis {
    buildpack: Versions,
    platform: Versions,
}

#[derive(Serialize)]
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
#[derive(Serialize)]
struct OldestApis {
    platform: String,
    buildpack: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Lifecycle {
    version: String,
    sbom_formats: [&'static str; 3],
}

/// The file's text, for executables of this version.
pub fn text(version: &str) -> Result<String> {
    let descriptor = Descriptor {
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
    };
    toml::to_string(&descriptor).context("write lifecycle.toml")
}

#[cfg(test)]
mod tests {
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
        assert_eq!(super::text("1.2.3").unwrap(), want);
    }
}
