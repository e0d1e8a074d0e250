//! What the label `io.buildpacks.build.metadata` of an image says that anybody may have built.
//!
//! Specification: `platform.md` § Labels.

use serde::Deserialize;

use crate::group::GroupElement;
use crate::json::{self, JsonError};
use crate::launch::{BuildMetadata, Command, Process};
use crate::module::null_as_default;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct JsonBuilt {
    #[serde(deserialize_with = "null_as_default")]
    buildpacks: Vec<JsonElement>,
    #[serde(deserialize_with = "null_as_default")]
    extensions: Vec<JsonElement>,
    #[serde(deserialize_with = "null_as_default")]
    processes: Vec<JsonProcess>,
    buildpack_default_process_type: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JsonElement {
    id: String,
    version: String,
    homepage: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct JsonProcess {
    r#type: String,
    command: Command,
    args: Option<Vec<String>>,
    direct: bool,
    default: bool,
    #[serde(rename = "buildpackID")]
    buildpack_id: String,
    working_dir: String,
    exec_env: Vec<String>,
}

/// Reads the label [`BUILD_METADATA`](crate::label::BUILD_METADATA). Bill of materials and launcher are left out.
pub fn build_metadata_from_json(text: &str) -> Result<BuildMetadata, JsonError> {
    let json: JsonBuilt = json::from_str(text)?;
    let element = |from: JsonElement| GroupElement {
        id: from.id,
        version: from.version,
        homepage: from.homepage,
        ..GroupElement::default()
    };
    let process = |from: JsonProcess| Process {
        r#type: from.r#type,
        command: from.command,
        args: from.args,
        direct: from.direct,
        default: from.default,
        buildpack_id: from.buildpack_id,
        working_dir: from.working_dir,
        exec_env: from.exec_env,
    };
    Ok(BuildMetadata {
        buildpack_default_process_type: json.buildpack_default_process_type,
        buildpacks: json.buildpacks.into_iter().map(element).collect(),
        extensions: json.extensions.into_iter().map(element).collect(),
        processes: json.processes.into_iter().map(process).collect(),
        ..BuildMetadata::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PlatformApi;
    use crate::label::{LauncherMetadata, build_metadata_to_json};

    #[test]
    fn what_is_written_is_read() {
        let built = BuildMetadata {
            buildpack_default_process_type: "web".into(),
            buildpacks: vec![GroupElement {
                id: "acme/a".into(),
                version: "1".into(),
                homepage: "https://example.com".into(),
                ..GroupElement::default()
            }],
            processes: vec![Process {
                r#type: "web".into(),
                command: Command::List(vec!["server".into(), "-v".into()]),
                args: Some(vec!["80".into()]),
                direct: true,
                buildpack_id: "acme/a".into(),
                working_dir: "/srv".into(),
                ..Process::default()
            }],
            ..BuildMetadata::default()
        };
        let text = build_metadata_to_json(&built, &LauncherMetadata::default(), PlatformApi::NEWEST).unwrap();
        assert_eq!(build_metadata_from_json(&text), Ok(built));
    }

    #[test]
    fn null_and_nothing_are_empty() {
        for text in ["{}", r#"{"bom":null,"buildpacks":null,"processes":null,"launcher":{"version":""}}"#] {
            assert_eq!(build_metadata_from_json(text), Ok(BuildMetadata::default()), "{text}");
        }
        let old = r#"{"processes":[{"type":"web","command":"server","args":null,"buildpackID":"a"}]}"#;
        let old = build_metadata_from_json(old).unwrap();
        assert_eq!(old.processes[0].command, Command::Text("server".into()));
        assert!(build_metadata_from_json("[").is_err());
    }
}
