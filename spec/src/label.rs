//! The labels of an app image, and the JSON inside them.
//!
//! Specification: `platform.md` § Labels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::analyzed::{
    BuildpackLayers, Layer, LayersMetadata, RunImageForRebase, Sha, Stack, StackRunImage, Store,
};
use crate::api::PlatformApi;
use crate::group::GroupElement;
use crate::json::{self, JsonError};
use crate::launch::{BomEntry, BuildMetadata, Command};
use crate::metadata::{Metadata, NotJson};

/// What the lifecycle remembers of an app image's layers.
pub const LIFECYCLE_METADATA: &str = "io.buildpacks.lifecycle.metadata";
/// Who built an app image, and what it can start.
pub const BUILD_METADATA: &str = "io.buildpacks.build.metadata";
/// Where the source of an app came from.
pub const PROJECT_METADATA: &str = "io.buildpacks.project.metadata";
/// The execution environment that an app image was built for.
pub const EXEC_ENV: &str = "io.buildpacks.exec-env";
/// Whether an app image can be rebased.
pub const REBASABLE: &str = "io.buildpacks.rebasable";
/// A run image's stack.
pub const STACK_ID: &str = "io.buildpacks.stack.id";
/// The mixins of a run image's stack, or those that an app image needs of it: a JSON list.
pub const STACK_MIXINS: &str = "io.buildpacks.stack.mixins";
/// What the keys of all labels about stacks begin with.
pub const STACK_PREFIX: &str = "io.buildpacks.stack.";
/// What the keys of all labels about targets begin with.
pub const BASE_PREFIX: &str = "io.buildpacks.base.";
/// A run image's identifier of its target.
pub const BASE_ID: &str = "io.buildpacks.base.id";
/// A run image's distribution.
pub const BASE_DISTRO_NAME: &str = "io.buildpacks.base.distro.name";
/// The version of a run image's distribution.
pub const BASE_DISTRO_VERSION: &str = "io.buildpacks.base.distro.version";

/// A layer's diff ID in JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct JsonSha {
    pub(crate) sha: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct JsonLayer {
    sha: String,
    data: Json,
    build: bool,
    launch: bool,
    cache: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct JsonStore {
    metadata: Json,
}

/// A buildpack's layers in JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct JsonBuildpackLayers {
    key: String,
    version: String,
    layers: BTreeMap<String, JsonLayer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<JsonStore>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JsonRunImage {
    top_layer: String,
    reference: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    image: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mirrors: Vec<String>,
}

impl From<RunImageForRebase> for JsonRunImage {
    fn from(RunImageForRebase { top_layer, reference, image, mirrors }: RunImageForRebase) -> Self {
        Self { top_layer, reference, image, mirrors }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JsonStack {
    run_image: StackRunImage,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct JsonLayersMetadata {
    app: Option<Vec<JsonSha>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sbom: Option<JsonSha>,
    buildpacks: Option<Vec<JsonBuildpackLayers>>,
    config: JsonSha,
    launcher: JsonSha,
    #[serde(rename = "process-types")]
    process_types: JsonSha,
    #[serde(rename = "runImage")]
    run_image: JsonRunImage,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack: Option<JsonStack>,
}

impl From<Sha> for JsonSha {
    fn from(Sha { sha }: Sha) -> Self {
        Self { sha }
    }
}

impl From<JsonSha> for Sha {
    fn from(JsonSha { sha }: JsonSha) -> Self {
        Self { sha }
    }
}

fn optional_json(metadata: Option<&Metadata>) -> Result<Json, NotJson> {
    metadata.map_or(Ok(Json::Null), Metadata::to_json)
}

impl TryFrom<&BuildpackLayers> for JsonBuildpackLayers {
    type Error = NotJson;

    fn try_from(from: &BuildpackLayers) -> Result<Self, NotJson> {
        let layer = |(name, layer): (&String, &Layer)| {
            let Layer { sha, build, launch, cache, metadata } = layer;
            let data = optional_json(metadata.as_ref())?;
            Ok((
                name.clone(),
                JsonLayer { sha: sha.clone(), data, build: *build, launch: *launch, cache: *cache },
            ))
        };
        Ok(Self {
            key: from.key.clone(),
            version: from.version.clone(),
            layers: from.layers.iter().map(layer).collect::<Result<_, NotJson>>()?,
            store: match &from.store {
                Some(store) => Some(JsonStore { metadata: optional_json(store.metadata.as_ref())? }),
                None => None,
            },
        })
    }
}

impl From<JsonBuildpackLayers> for BuildpackLayers {
    fn from(from: JsonBuildpackLayers) -> Self {
        let layer = |(name, JsonLayer { sha, data, build, launch, cache })| {
            (name, Layer { sha, build, launch, cache, metadata: Metadata::from_json(&data) })
        };
        Self {
            key: from.key,
            version: from.version,
            layers: from.layers.into_iter().map(layer).collect(),
            store: from.store.map(|store| Store { metadata: Metadata::from_json(&store.metadata) }),
        }
    }
}

/// The label [`LIFECYCLE_METADATA`].
pub fn lifecycle_metadata_to_json(metadata: &LayersMetadata) -> Result<String, NotJson> {
    let LayersMetadata { app, sbom, buildpacks, config, launcher, process_types, run_image, stack } =
        metadata.clone();
    let json = JsonLayersMetadata {
        app: Some(app.into_iter().map(Into::into).collect()),
        sbom: sbom.map(Into::into),
        buildpacks: Some(buildpacks.iter().map(TryInto::try_into).collect::<Result<_, _>>()?),
        config: config.into(),
        launcher: launcher.into(),
        process_types: process_types.into(),
        run_image: run_image.into(),
        stack: stack.map(|Stack { run_image }| JsonStack { run_image }),
    };
    Ok(json::to_string(&json).expect("strings, booleans and JSON values make JSON"))
}

/// What the label [`LIFECYCLE_METADATA`] has under `runImage`.
pub fn run_image_to_json(run_image: &RunImageForRebase) -> String {
    json::to_string(&JsonRunImage::from(run_image.clone())).expect("strings make JSON")
}

/// Reads the label [`LIFECYCLE_METADATA`].
pub fn lifecycle_metadata_from_json(text: &str) -> Result<LayersMetadata, JsonError> {
    let json: JsonLayersMetadata = json::from_str(text)?;
    let JsonRunImage { top_layer, reference, image, mirrors } = json.run_image;
    Ok(LayersMetadata {
        app: json.app.unwrap_or_default().into_iter().map(Into::into).collect(),
        sbom: json.sbom.map(Into::into),
        buildpacks: json.buildpacks.unwrap_or_default().into_iter().map(Into::into).collect(),
        config: json.config.into(),
        launcher: json.launcher.into(),
        process_types: json.process_types.into(),
        run_image: RunImageForRebase { top_layer, reference, image, mirrors },
        stack: json.stack.map(|JsonStack { run_image }| Stack { run_image }),
    })
}

/// Which launcher is in an app image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LauncherMetadata {
    /// Its version.
    pub version: String,
    /// Where its source is.
    pub source: LauncherSource,
}

/// Where a launcher's source is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LauncherSource {
    /// In a git repository.
    pub git: GitSource,
}

/// A commit in a git repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GitSource {
    /// The repository.
    pub repository: String,
    /// The commit.
    pub commit: String,
}

#[derive(Debug, Serialize)]
struct JsonElement<'a> {
    id: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    homepage: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct JsonProcess {
    r#type: String,
    command: Command,
    args: Option<Vec<String>>,
    direct: bool,
    #[serde(skip_serializing_if = "crate::is_false")]
    default: bool,
    #[serde(rename = "buildpackID")]
    buildpack_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    working_dir: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exec_env: Vec<String>,
}

#[derive(Debug, Serialize)]
struct JsonBomEntry<'a> {
    name: &'a str,
    metadata: Json,
    buildpack: JsonElement<'a>,
}

/// `null` if there are no entries.
#[derive(Debug, Serialize)]
struct JsonBom<'a>(Option<Vec<JsonBomEntry<'a>>>);

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct JsonBuildMetadata<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    bom: Option<JsonBom<'a>>,
    buildpacks: Vec<JsonElement<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extensions: Vec<JsonElement<'a>>,
    launcher: &'a LauncherMetadata,
    processes: Option<Vec<JsonProcess>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    buildpack_default_process_type: &'a str,
}

fn element(from: &GroupElement) -> JsonElement<'_> {
    JsonElement { id: &from.id, version: &from.version, homepage: &from.homepage }
}

/// A bill of materials as JSON text: `null` if there is none.
pub fn bom_to_json(bom: &[BomEntry]) -> Result<String, NotJson> {
    Ok(json::to_string(&bom_json(bom)?).expect("strings and JSON values make JSON"))
}

fn bom_json(bom: &[BomEntry]) -> Result<JsonBom<'_>, NotJson> {
    let mut entries = Vec::new();
    for BomEntry { name, metadata, buildpack } in bom {
        let metadata = optional_json(metadata.as_ref())?;
        entries.push(JsonBomEntry { name, metadata, buildpack: element(buildpack) });
    }
    Ok(JsonBom((!entries.is_empty()).then_some(entries)))
}

/// The label [`BUILD_METADATA`].
pub fn build_metadata_to_json(
    metadata: &BuildMetadata,
    launcher: &LauncherMetadata,
    api: PlatformApi,
) -> Result<String, NotJson> {
    let process = |process: &crate::launch::Process| {
        let process = process.clone().for_platform(api);
        JsonProcess {
            r#type: process.r#type,
            command: process.command,
            args: process.args,
            direct: process.direct,
            default: process.default,
            buildpack_id: process.buildpack_id,
            working_dir: process.working_dir,
            exec_env: process.exec_env,
        }
    };
    let json = JsonBuildMetadata {
        bom: if api.has_legacy_bom() { Some(bom_json(&metadata.bom)?) } else { None },
        buildpacks: metadata.buildpacks.iter().map(element).collect(),
        extensions: metadata.extensions.iter().map(element).collect(),
        launcher,
        processes: (!metadata.processes.is_empty()).then(|| metadata.processes.iter().map(process).collect()),
        buildpack_default_process_type: &metadata.buildpack_default_process_type,
    };
    Ok(json::to_string(&json).expect("strings, booleans and JSON values make JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: &str = r#"{"app":[{"sha":"a"}],"sbom":{"sha":"b"},"buildpacks":[{"key":"k","version":"1","layers":{"l":{"sha":"s","data":{"n":1},"build":false,"launch":true,"cache":false}},"store":{"metadata":{"x":"y"}}}],"config":{"sha":"c"},"launcher":{"sha":"d"},"process-types":{"sha":""},"runImage":{"topLayer":"t","reference":"r","image":"i","mirrors":["m"]},"stack":{"runImage":{}}}"#;

    #[test]
    fn the_lifecycle_label_round_trips_to_the_byte() {
        let metadata = lifecycle_metadata_from_json(LABEL).unwrap();
        assert_eq!(metadata.run_image.top_layer, "t");
        assert_eq!(lifecycle_metadata_to_json(&metadata).unwrap(), LABEL);
    }

    #[test]
    fn the_run_image_alone() {
        let metadata = lifecycle_metadata_from_json(LABEL).unwrap();
        let json = run_image_to_json(&metadata.run_image);
        assert!(LABEL.contains(&format!(r#""runImage":{json},"#)), "{json}");
        assert_eq!(run_image_to_json(&RunImageForRebase::default()), r#"{"topLayer":"","reference":""}"#);
    }

    #[test]
    fn nulls_of_the_other_implementation_are_read() {
        let metadata = lifecycle_metadata_from_json(
            r#"{"app":null,"buildpacks":null,"stack":{"runImage":{"image":""}}}"#,
        );
        assert!(metadata.unwrap().buildpacks.is_empty());
        assert!(lifecycle_metadata_from_json("[]1").is_err());
    }

    #[test]
    fn a_bill_of_materials_keeps_its_order_of_keys() {
        let metadata: BuildMetadata = toml::from_str(
            "[[bom]]\nname='n'\nmetadata={v='1'}\nbuildpack={id='a', version='1'}\n[[bom]]\nname='bare'",
        )
        .unwrap();
        assert_eq!(
            bom_to_json(&metadata.bom).unwrap(),
            r#"[{"name":"n","metadata":{"v":"1"},"buildpack":{"id":"a","version":"1"}},{"name":"bare","metadata":null,"buildpack":{"id":"","version":""}}]"#
        );
        assert_eq!(bom_to_json(&[]).unwrap(), "null");
    }

    #[test]
    fn the_build_label_depends_on_the_platform_api() {
        let metadata: BuildMetadata = toml::from_str(
            "[[buildpacks]]\nid='a'\nversion='1'\napi='0.9'\n[[processes]]\ntype='w'\ncommand=['x','y']\nbuildpack-id='a'",
        )
        .unwrap();
        let label = |minor| {
            build_metadata_to_json(&metadata, &LauncherMetadata::default(), PlatformApi::minor(minor))
                .unwrap()
        };
        let launcher = r#""launcher":{"version":"","source":{"git":{"repository":"","commit":""}}}"#;
        assert_eq!(
            label(8),
            format!(
                r#"{{"bom":null,"buildpacks":[{{"id":"a","version":"1"}}],{launcher},"processes":[{{"type":"w","command":"x","args":["y"],"direct":false,"buildpackID":"a"}}]}}"#
            )
        );
        assert_eq!(
            label(12),
            format!(
                r#"{{"buildpacks":[{{"id":"a","version":"1"}}],{launcher},"processes":[{{"type":"w","command":["x","y"],"args":null,"direct":false,"buildpackID":"a"}}]}}"#
            )
        );
    }
}
