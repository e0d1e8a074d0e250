//! Buildpacks and extensions as those see them who hand them on: what stands in their descriptors goes, field by field, into
//! the labels of packages and builders.
//!
//! Specification: `distribution.md` § Buildpackage, § Builder. What it leaves open is as `pack` has it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::analyzed::{Distro, StackRunImage, Target};
use crate::buildpack::{BuildpackToml, ExecEnv, Mismatch, ModuleKind, ModuleTarget, StackId};
use crate::order::OrderGroup;
use crate::toml_text::{self, TomlError};

/// What a builder is: [`BuilderMetadata`].
pub const BUILDER_METADATA: &str = "io.buildpacks.builder.metadata";
/// Which buildpack a package is: [`PackageMetadata`].
pub const PACKAGE_METADATA: &str = "io.buildpacks.buildpackage.metadata";
/// Which buildpack is in which layer: [`ModuleLayers`].
pub const BUILDPACK_LAYERS: &str = "io.buildpacks.buildpack.layers";
/// Which extension is in which layer: [`ModuleLayers`].
pub const EXTENSION_LAYERS: &str = "io.buildpacks.extension.layers";
/// A builder's order.
pub const ORDER: &str = "io.buildpacks.buildpack.order";
/// A builder's order of extensions.
pub const ORDER_EXTENSIONS: &str = "io.buildpacks.buildpack.order-extensions";
/// Buildpacks that a builder adds to each group.
pub const SYSTEM: &str = "io.buildpacks.buildpack.system";
/// The version of an image's lifecycle.
pub const LIFECYCLE_VERSION: &str = "io.buildpacks.lifecycle.version";
/// What an image's lifecycle speaks: [`Apis`].
pub const LIFECYCLE_APIS: &str = "io.buildpacks.lifecycle.apis";

/// An ID or a version that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} `{text}` {reason}")]
pub struct InvalidModule {
    /// `id` or `version`.
    pub key: &'static str,
    /// What it is.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Who a buildpack or an extension is. Its text is `<id>@<version>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleName {
    id: String,
    version: String,
}

impl ModuleName {
    /// An ID of letters, digits, `.`, `-` and `/`, and a version that is one name of a folder.
    ///
    /// Specification: `buildpack.md` § `buildpack.toml`.
    pub fn new(id: &str, version: &str) -> Result<Self, InvalidModule> {
        let invalid = |key, text: &str, reason| Err(InvalidModule { key, text: text.to_owned(), reason });
        let is_dots = |text: &str| text.bytes().all(|byte| byte == b'.');
        if id.is_empty() {
            return invalid("id", id, "is missing");
        }
        if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./-".contains(&byte)) || id.len() > 200 {
            return invalid("id", id, "may have letters, digits, `.`, `/` and `-` only, at most 200");
        }
        if id.split('/').any(is_dots) {
            return invalid("id", id, "has a part that is empty or leads elsewhere");
        }
        if ["app", "config", "generated", "sbom"].contains(&id) {
            return invalid("id", id, "is reserved");
        }
        if version.is_empty() {
            return invalid("version", version, "is missing");
        }
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".+-_~".contains(&byte);
        if !version.bytes().all(is_allowed) || is_dots(version) || version.len() > 200 {
            return invalid("version", version, "cannot be the name of a folder");
        }
        Ok(Self { id: id.to_owned(), version: version.to_owned() })
    }

    /// Its ID.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The folder of all versions, in an image: without a slash at the beginning.
    pub fn parent_dir(&self, kind: ModuleKind) -> String {
        format!("{}/{}", kind.dir(), dir_name(&self.id))
    }

    /// Its own folder, likewise.
    pub fn dir(&self, kind: ModuleKind) -> String {
        format!("{}/{}", self.parent_dir(kind), self.version)
    }
}

/// The name of the folder of a buildpack or an extension, whose ID may have slashes; unchecked.
pub fn dir_name(id: &str) -> String {
    id.replace('/', "_")
}

impl fmt::Display for ModuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.version)
    }
}

impl ModuleKind {
    /// Where an image has those of its kind, without a slash at the beginning.
    pub fn dir(self) -> &'static str {
        match self {
            Self::Buildpack => "cnb/buildpacks",
            Self::Extension => "cnb/extensions",
        }
    }

    /// The label that says which of its kind is in which layer.
    pub fn layers_label(self) -> &'static str {
        match self {
            Self::Buildpack => BUILDPACK_LAYERS,
            Self::Extension => EXTENSION_LAYERS,
        }
    }
}

/// What a buildpack or an extension says of itself: in its descriptor, and in labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ModuleFacts {
    /// Its ID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Its name for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// What it does, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its home page.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub homepage: String,
    /// What it is found by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keywords: Vec<String>,
    /// The execution environments that it is for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exec_env: Vec<ExecEnv>,
    /// How it may be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<License>,
    /// Whether it does without the variables that users give.
    #[serde(skip_serializing_if = "crate::is_false")]
    pub clear_env: bool,
}

/// A licence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct License {
    /// Its SPDX identifier.
    pub r#type: String,
    /// Where its text is.
    pub uri: String,
}

/// A stack that a buildpack is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModuleStack {
    /// Its ID; `*` stands for all.
    pub id: String,
    /// What it must have besides.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub mixins: Vec<String>,
}

/// What a buildpack is made for, as labels have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LabelTarget {
    /// Operating system.
    pub os: String,
    /// Architecture.
    pub arch: String,
    /// Variant of the architecture.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Distributions.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub distros: Vec<Distro>,
}

impl From<ModuleTarget> for LabelTarget {
    fn from(target: ModuleTarget) -> Self {
        let ModuleTarget { os, arch, arch_variant, distros } = target;
        Self { os, arch, variant: arch_variant, distros }
    }
}

/// `buildpack.toml` or `extension.toml` as far as it is handed on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModuleToml {
    /// The Buildpack API that it speaks.
    pub api: String,
    /// What it is.
    pub facts: ModuleFacts,
    /// What it consists of; empty unless it is a composite buildpack.
    pub order: Vec<OrderGroup>,
    /// What it is made for.
    pub targets: Vec<ModuleTarget>,
    /// What buildpacks had before there were targets.
    pub stacks: Vec<ModuleStack>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ModuleTomlForm {
    api: String,
    buildpack: ModuleFacts,
    extension: ModuleFacts,
    order: Vec<OrderGroup>,
    targets: Vec<ModuleTarget>,
    stacks: Vec<ModuleStack>,
}

impl ModuleToml {
    /// Reads a descriptor.
    pub fn parse(kind: ModuleKind, text: &str) -> Result<Self, TomlError> {
        let ModuleTomlForm { api, buildpack, extension, order, targets, stacks } = toml_text::from_str(text)?;
        Ok(match kind {
            ModuleKind::Buildpack => Self { api, facts: buildpack, order, targets, stacks },
            ModuleKind::Extension => Self { api, facts: extension, targets, ..Self::default() },
        })
    }

    /// Why it fits no image like this one, if it does not. What the image does not tell, fits.
    pub fn mismatch(&self, has_build: bool, image: &Target) -> Option<Mismatch> {
        if !self.order.is_empty() {
            return None;
        }
        let stacks = self.stacks.iter().map(|stack| StackId { id: stack.id.clone() }).collect();
        let (api, targets) = (self.api.clone(), self.targets.clone());
        let toml = BuildpackToml { api, targets, stacks, ..BuildpackToml::default() };
        first_mismatch(&toml.effective_targets(has_build), image)
    }

    /// What a label says of it, if it is in the layer with this diff ID.
    pub fn layer(&self, diff_id: String) -> ModuleLayer {
        ModuleLayer {
            api: self.api.clone(),
            stacks: self.stacks.clone(),
            targets: self.targets.iter().cloned().map(LabelTarget::from).collect(),
            order: self.order.clone(),
            layer_diff_id: diff_id,
            homepage: self.facts.homepage.clone(),
            name: self.facts.name.clone(),
        }
    }
}

/// Why none of several targets fits an image; none if one does, or if there are none.
pub fn first_mismatch(targets: &[ModuleTarget], image: &Target) -> Option<Mismatch> {
    let why =
        |target: &ModuleTarget| target.mismatch(image).filter(|mismatch| *mismatch != Mismatch::NoDistro);
    let mut first = None;
    for target in targets {
        first = first.or(Some(why(target)?));
    }
    first
}

/// What is in which layer: by ID and version.
pub type ModuleLayers = BTreeMap<String, BTreeMap<String, ModuleLayer>>;

/// What the labels say of one buildpack or extension.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModuleLayer {
    /// The Buildpack API that it speaks.
    #[serde(deserialize_with = "null_as_default")]
    pub api: String,
    /// Stacks that it is for.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub stacks: Vec<ModuleStack>,
    /// Targets that it is for.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub targets: Vec<LabelTarget>,
    /// What it consists of.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub order: Vec<OrderGroup>,
    /// The layer.
    #[serde(rename = "layerDiffID")]
    pub layer_diff_id: String,
    /// Its home page.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub homepage: String,
    /// Its name for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// Which buildpack or extension a package is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PackageMetadata {
    /// What it says of itself.
    #[serde(flatten)]
    pub facts: ModuleFacts,
    /// Stacks that it is for, with all that it consists of.
    #[serde(deserialize_with = "null_as_default")]
    pub stacks: Vec<ModuleStack>,
}

/// What a builder is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BuilderMetadata {
    /// What it is for, for people.
    pub description: String,
    /// Its buildpacks.
    #[serde(deserialize_with = "null_as_default")]
    pub buildpacks: Vec<ModuleFacts>,
    /// Its extensions.
    #[serde(deserialize_with = "null_as_default")]
    pub extensions: Vec<ModuleFacts>,
    /// The run image, for programs that know one.
    pub stack: BuilderStack,
    /// What runs the buildpacks.
    pub lifecycle: LifecycleFacts,
    /// What made it.
    pub created_by: Creator,
    /// Run images, the one to use first.
    #[serde(rename = "images", deserialize_with = "null_as_default")]
    pub run_images: Vec<LabelRunImage>,
}

/// `stack` of [`BuilderMetadata`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BuilderStack {
    /// The run image.
    pub run_image: LabelRunImage,
}

/// A run image in a label.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LabelRunImage {
    /// Its name.
    pub image: String,
    /// Other names.
    #[serde(deserialize_with = "null_as_default")]
    pub mirrors: Vec<String>,
}

impl From<StackRunImage> for LabelRunImage {
    fn from(StackRunImage { image, mirrors }: StackRunImage) -> Self {
        Self { image, mirrors }
    }
}

/// Who made a builder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Creator {
    /// The program.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What a builder has for a lifecycle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LifecycleFacts {
    /// Its version.
    #[serde(deserialize_with = "null_as_default")]
    pub version: String,
    /// One version of each API, for programs that know nothing of several.
    pub api: OneApi,
    /// What it speaks.
    pub apis: Apis,
}

/// One version of each API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OneApi {
    /// Of the Buildpack API.
    #[serde(deserialize_with = "null_as_default")]
    pub buildpack: String,
    /// Of the Platform API.
    #[serde(deserialize_with = "null_as_default")]
    pub platform: String,
}

/// What a lifecycle speaks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Apis {
    /// Versions of the Buildpack API.
    pub buildpack: ApiVersions,
    /// Versions of the Platform API.
    pub platform: ApiVersions,
}

/// Versions of an API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ApiVersions {
    /// Those that a warning is given for.
    #[serde(deserialize_with = "null_as_default")]
    pub deprecated: Vec<String>,
    /// The others.
    #[serde(deserialize_with = "null_as_default")]
    pub supported: Vec<String>,
}

impl ApiVersions {
    /// Whether a version is one of these.
    pub fn have(&self, version: &str) -> bool {
        self.supported.iter().chain(&self.deprecated).any(|known| known == version)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LifecycleTomlForm {
    lifecycle: LifecycleVersion,
    api: OneApi,
    apis: Apis,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LifecycleVersion {
    version: String,
}

impl LifecycleFacts {
    /// Reads `lifecycle.toml`.
    pub fn parse(text: &str) -> Result<Self, TomlError> {
        let LifecycleTomlForm { lifecycle, api, apis } = toml_text::from_str(text)?;
        Ok(Self { version: lifecycle.version, api, apis }.completed())
    }

    /// With what old descriptors say only once as the only version.
    #[must_use]
    pub fn completed(mut self) -> Self {
        let Apis { buildpack, platform } = &mut self.apis;
        for (versions, one) in [(buildpack, &self.api.buildpack), (platform, &self.api.platform)] {
            if versions.supported.is_empty() && versions.deprecated.is_empty() && !one.is_empty() {
                versions.supported.push(one.clone());
            }
        }
        self
    }
}

/// Other programs write `null` for what is empty.
pub(crate) fn null_as_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(from).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn ids_and_versions_stay_in_their_folder() {
        for (id, version, key) in [
            ("acme/a", "1.0.0", None),
            ("google.node-js", "1.0.0-rc.1+x_y", None),
            ("", "1", Some("id")),
            ("..", "1", Some("id")),
            ("../a", "1", Some("id")),
            ("a/../b", "1", Some("id")),
            ("a//b", "1", Some("id")),
            ("/a", "1", Some("id")),
            ("a_b", "1", Some("id")),
            ("a b", "1", Some("id")),
            ("config", "1", Some("id")),
            ("a", "", Some("version")),
            ("a", "..", Some("version")),
            ("a", "1/../2", Some("version")),
            ("a", "1\n", Some("version")),
        ] {
            let found = ModuleName::new(id, version).err().map(|error| error.key);
            assert_eq!(found, key, "{id} {version}");
        }
        let name = ModuleName::new("acme/a", "1").unwrap();
        assert_eq!(name.dir(ModuleKind::Buildpack), "cnb/buildpacks/acme_a/1");
        assert_eq!(name.to_string(), "acme/a@1");
    }

    #[test]
    fn a_descriptor_goes_into_a_label() {
        let text = "api = '0.10'\n[buildpack]\nid = 'a/b'\nversion = '1'\nname = 'n'\nkeywords = ['k']\nexec-env = ['test']\n\
            [[buildpack.licenses]]\ntype = 'MIT'\n[[targets]]\nos = 'linux'\nvariant = 'v8'\n[[stacks]]\nid = '*'\n";
        let module = ModuleToml::parse(ModuleKind::Buildpack, text).unwrap();
        assert_eq!(
            json::to_string(&module.layer("sha256:x".into())).unwrap(),
            r#"{"api":"0.10","stacks":[{"id":"*"}],"targets":[{"os":"linux","arch":"","variant":"v8"}],"layerDiffID":"sha256:x","name":"n"}"#
        );
        let metadata = PackageMetadata { facts: module.facts, stacks: module.stacks };
        assert_eq!(
            json::to_string(&metadata).unwrap(),
            r#"{"id":"a/b","name":"n","version":"1","keywords":["k"],"exec-env":["test"],"licenses":[{"type":"MIT","uri":""}],"stacks":[{"id":"*"}]}"#
        );
    }

    #[test]
    fn labels_of_others_are_read() {
        let text = r#"{"description":"d","buildpacks":[{"id":"a","version":"1"}],"extensions":null,
            "stack":{"runImage":{"image":"r","mirrors":null}},"lifecycle":{"version":"0.20.0",
            "api":{"buildpack":"0.7","platform":"0.7"},"apis":{"buildpack":{"deprecated":null,"supported":["0.7","0.10"]},
            "platform":{"deprecated":[],"supported":["0.12"]}}},"createdBy":{"name":"Pack CLI","version":"1"},"images":null}"#;
        let metadata: BuilderMetadata = json::from_str(text).unwrap();
        assert!(
            metadata.lifecycle.apis.buildpack.have("0.10") && !metadata.lifecycle.apis.buildpack.have("0.1")
        );
        let layers = r#"{"a":{"1":{"api":"0.2","order":[{"group":[{"id":"b","version":"2","optional":true}]}],"layerDiffID":"sha256:x"}}}"#;
        let layers: ModuleLayers = json::from_str(layers).unwrap();
        assert!(layers["a"]["1"].order[0].group[0].optional);
    }

    #[test]
    fn old_lifecycles_speak_one_version() {
        let text = "[api]\nbuildpack = '0.4'\nplatform = '0.5'\n[lifecycle]\nversion = '0.10.0'\n";
        let facts = LifecycleFacts::parse(text).unwrap();
        assert_eq!(facts.version, "0.10.0");
        assert!(facts.apis.buildpack.have("0.4") && facts.apis.platform.have("0.5"));
    }

    #[test]
    fn one_target_that_fits_is_enough() {
        let target =
            |arch: &str| ModuleTarget { os: "linux".into(), arch: arch.into(), ..ModuleTarget::default() };
        let image = Target { os: "linux".into(), arch: "amd64".into(), ..Target::default() };
        for (targets, fits) in [
            (vec![], true),
            (vec![target("arm64")], false),
            (vec![target("arm64"), target("amd64")], true),
            (vec![target("")], true),
        ] {
            assert_eq!(first_mismatch(&targets, &image).is_none(), fits, "{targets:?}");
        }
    }
}
