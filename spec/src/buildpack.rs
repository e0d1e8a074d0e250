//! `buildpack.toml` and `extension.toml`: what a buildpack or an extension says of itself.
//!
//! Specification: `buildpack.md` § `buildpack.toml` and § `extension.toml`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::analyzed::{Distro, Target};
use crate::api::BuildpackApi;
use crate::order::OrderGroup;

/// Which of the two it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ModuleKind {
    /// A buildpack.
    Buildpack,
    /// An image extension.
    Extension,
}

impl ModuleKind {
    /// The name of its descriptor.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Buildpack => "buildpack.toml",
            Self::Extension => "extension.toml",
        }
    }

    /// The variable that tells it where it is.
    pub fn dir_variable(self) -> &'static str {
        match self {
            Self::Buildpack => "CNB_BUILDPACK_DIR",
            Self::Extension => "CNB_EXTENSION_DIR",
        }
    }
}

impl fmt::Display for ModuleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Buildpack => "buildpack",
            Self::Extension => "extension",
        })
    }
}

/// `buildpack.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BuildpackToml {
    /// The Buildpack API that it speaks, as text: whoever runs it checks it.
    pub api: String,
    /// What it is.
    pub buildpack: ModuleInfo,
    /// What it consists of; empty unless it is a composite buildpack.
    pub order: Vec<OrderGroup>,
    /// What it builds for.
    pub targets: Vec<ModuleTarget>,
    /// What buildpacks had before there were targets.
    pub stacks: Vec<StackId>,
}

/// `extension.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ExtensionToml {
    /// The Buildpack API that it speaks, as text: whoever runs it checks it.
    pub api: String,
    /// What it is.
    pub extension: ModuleInfo,
    /// What it extends images of.
    pub targets: Vec<ModuleTarget>,
}

/// What a buildpack or an extension is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ModuleInfo {
    /// Its ID, like `acme/node`.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its home page.
    pub homepage: String,
    /// Whether it does without the variables that users give.
    pub clear_env: bool,
    /// Media types of the SBOM files that it writes.
    pub sbom_formats: Vec<String>,
    /// The execution environments that it is for; all if empty. Each is a string, or a table with a `name`.
    pub exec_env: Vec<ExecEnv>,
}

impl ModuleInfo {
    /// Whether it takes part in an execution environment.
    pub fn is_for(&self, exec_env: &str) -> bool {
        self.exec_env.is_empty() || self.exec_env.iter().any(|ExecEnv(name)| name == "*" || name == exec_env)
    }
}

/// An execution environment, like `production` or `test`; `*` stands for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ExecEnvForm", into = "String")]
pub struct ExecEnv(pub String);

/// What the specification and existing buildpacks write.
#[derive(Deserialize)]
#[serde(untagged)]
enum ExecEnvForm {
    Name(String),
    Table { name: String },
}

impl From<ExecEnvForm> for ExecEnv {
    fn from(form: ExecEnvForm) -> Self {
        match form {
            ExecEnvForm::Name(name) | ExecEnvForm::Table { name } => Self(name),
        }
    }
}

/// A stack of an old buildpack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StackId {
    /// Its ID; `*` stands for all.
    pub id: String,
}

/// What a buildpack or an extension is made for. An empty field stands for all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", from = "ModuleTargetForm")]
pub struct ModuleTarget {
    /// Operating system.
    pub os: String,
    /// Architecture.
    pub arch: String,
    /// Variant of the architecture.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub arch_variant: String,
    /// Distributions, one of which must fit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub distros: Vec<Distro>,
}

/// Why a target does not fit an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// One field is another.
    #[error("{field} is `{own}`, but the image's is `{image}`")]
    Field {
        /// Which one.
        field: &'static str,
        /// What the target has.
        own: String,
        /// What the image has.
        image: String,
    },
    /// None of the distributions is the image's.
    #[error("none of the distros is the image's, `{} {}`", .0.name, .0.version)]
    Distro(Distro),
    /// Distributions are listed, but the image does not tell its own.
    #[error("it lists distros, but the image does not tell its own")]
    NoDistro,
}

/// The specification has `variant`, existing buildpacks have `arch-variant`, some both.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct ModuleTargetForm {
    os: String,
    arch: String,
    arch_variant: String,
    variant: String,
    distros: Vec<Distro>,
}

impl From<ModuleTargetForm> for ModuleTarget {
    fn from(form: ModuleTargetForm) -> Self {
        let ModuleTargetForm { os, arch, arch_variant, variant, distros } = form;
        Self { os, arch, arch_variant: if arch_variant.is_empty() { variant } else { arch_variant }, distros }
    }
}

impl From<ExecEnv> for String {
    fn from(ExecEnv(name): ExecEnv) -> Self {
        name
    }
}

impl ModuleTarget {
    /// Any version of Linux.
    fn linux() -> Self {
        Self { os: "linux".into(), ..Self::default() }
    }

    /// Why it does not fit an image, if it does not. What either side leaves open fits; but where distributions are
    /// listed, the image must tell its own.
    pub fn mismatch(&self, image: &Target) -> Option<Mismatch> {
        let same = |a: &str, b: &str| a.is_empty() || b.is_empty() || a == b;
        for (field, own, other) in [
            ("os", &self.os, &image.os),
            ("arch", &self.arch, &image.arch),
            ("arch variant", &self.arch_variant, &image.arch_variant),
        ] {
            if !same(own, other) {
                return Some(Mismatch::Field { field, own: own.clone(), image: other.clone() });
            }
        }
        let fits = |image: &Distro| {
            self.distros.iter().any(|own| same(&own.name, &image.name) && same(&own.version, &image.version))
        };
        match &image.distro {
            _ if self.distros.is_empty() => None,
            None => Some(Mismatch::NoDistro),
            Some(distro) if fits(distro) => None,
            Some(distro) => Some(Mismatch::Distro(distro.clone())),
        }
    }
}

impl BuildpackToml {
    /// What it is made for; of old buildpacks, what their stacks and the presence of a `bin/build` mean. Empty for a
    /// buildpack that fits everything, such as one without a `bin/build`.
    pub fn effective_targets(&self, has_build: bool) -> Vec<ModuleTarget> {
        if !self.targets.is_empty() {
            return self.targets.clone();
        }
        let has_targets = self.api.parse().is_ok_and(BuildpackApi::has_targets);
        let of_stack = |stack: &StackId| match stack.id.as_str() {
            "io.buildpacks.stacks.bionic" if has_targets || self.stacks.len() == 1 => Some(ModuleTarget {
                os: "linux".into(),
                arch: "amd64".into(),
                distros: vec![Distro { name: "ubuntu".into(), version: "18.04".into() }],
                ..ModuleTarget::default()
            }),
            "*" => Some(ModuleTarget::default()),
            _ => None,
        };
        let targets: Vec<_> = self.stacks.iter().filter_map(of_stack).collect();
        if targets.is_empty() && has_build { vec![ModuleTarget::linux()] } else { targets }
    }
}

impl ExtensionToml {
    /// What it is made for: without targets, Linux if it has an executable, else everything.
    pub fn effective_targets(&self, has_executable: bool) -> Vec<ModuleTarget> {
        if self.targets.is_empty() && has_executable {
            vec![ModuleTarget::linux()]
        } else {
            self.targets.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn buildpack(text: &str) -> BuildpackToml {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_buildpack_is_read() {
        let toml = buildpack(
            "api='0.10'\n[buildpack]\nid='a/b'\nversion='1'\nname='n'\nhomepage='h'\nclear-env=true\n\
             sbom-formats=['application/spdx+json']\nkeywords=['k']\n[[order]]\n[[order.group]]\nid='c'\nversion='2'\n",
        );
        assert_eq!(toml.api, "0.10");
        assert!(toml.buildpack.clear_env);
        assert_eq!(toml.buildpack.sbom_formats, ["application/spdx+json"]);
        assert_eq!(toml.order[0].group[0].id, "c");
    }

    #[test]
    fn execution_environments_in_both_forms() {
        for (text, fits) in [
            ("", true),
            ("exec-env = []", true),
            ("exec-env = ['production']", false),
            ("exec-env = ['production', 'test']", true),
            ("exec-env = ['*']", true),
            ("[[buildpack.exec-env]]\nname = 'production'", false),
            ("[[buildpack.exec-env]]\nname = 'production'\n[[buildpack.exec-env]]\nname = 'test'", true),
        ] {
            assert_eq!(buildpack(&format!("[buildpack]\n{text}")).buildpack.is_for("test"), fits, "{text}");
        }
    }

    #[test]
    fn variants_under_both_names() {
        for text in ["arch-variant='v8'", "variant='v8'", "arch-variant='v8'\nvariant='v8'"] {
            assert_eq!(buildpack(&format!("[[targets]]\n{text}")).targets[0].arch_variant, "v8", "{text}");
        }
    }

    #[test]
    fn targets_of_those_who_do_not_tell() {
        const BIONIC: &str =
            r#"{"os":"linux","arch":"amd64","distros":[{"name":"ubuntu","version":"18.04"}]}"#;
        const LINUX: &str = r#"{"os":"linux","arch":""}"#;
        const ANY: &str = r#"{"os":"","arch":""}"#;
        let bionic = "[[stacks]]\nid='io.buildpacks.stacks.bionic'\n";
        let other = "[[stacks]]\nid='other'\n";
        let any = "[[stacks]]\nid='*'\n";
        for (text, has_build, want) in [
            (String::new(), true, vec![LINUX]),
            (String::new(), false, vec![]),
            (other.to_owned(), true, vec![LINUX]),
            (bionic.to_owned(), true, vec![BIONIC]),
            (format!("api='0.9'\n{bionic}{other}"), true, vec![LINUX]),
            (format!("api='0.10'\n{bionic}{other}"), true, vec![BIONIC]),
            (format!("api='0.9'\n{bionic}{any}"), true, vec![ANY]),
            (format!("api='0.10'\n{bionic}{any}"), false, vec![BIONIC, ANY]),
            (format!("{any}[[targets]]\nos='linux'\n"), true, vec![LINUX]),
        ] {
            let targets = buildpack(&text).effective_targets(has_build);
            let json: Vec<_> = targets.iter().map(|t| serde_json::to_string(t).unwrap()).collect();
            assert_eq!(json, want, "{text} {has_build}");
        }
        let extension = ExtensionToml::default();
        assert_eq!(extension.effective_targets(true), [ModuleTarget::linux()]);
        assert_eq!(extension.effective_targets(false), []);
    }

    #[test]
    fn what_fits_an_image() {
        let image = |text: &str| toml::from_str::<Target>(text).unwrap();
        let debian = "os='linux'\narch='arm64'\narch-variant='v8'\ndistro={name='debian', version='12'}";
        let bare = "os='linux'\narch='arm64'";
        for (target, on, mismatch) in [
            ("os=''", debian, ""),
            ("os='linux'", debian, ""),
            ("os='windows'\narch='amd64'", debian, "os is `windows`, but the image's is `linux`"),
            ("arch='arm64'", debian, ""),
            ("arch='amd64'", debian, "arch is `amd64`, but the image's is `arm64`"),
            ("arch-variant='v7'", debian, "arch variant is `v7`, but the image's is `v8`"),
            ("arch-variant='v7'", bare, ""),
            ("distros=[{name='debian'}]", debian, ""),
            (
                "distros=[{name='debian', version='11'}]",
                debian,
                "none of the distros is the image's, `debian 12`",
            ),
            (
                "distros=[{name='alpine', version='12'}]",
                debian,
                "none of the distros is the image's, `debian 12`",
            ),
            ("distros=[{name='alpine'}, {version='12'}]", debian, ""),
            ("distros=[{name='debian'}]", bare, "it lists distros, but the image does not tell its own"),
            ("os='linux'", "", ""),
        ] {
            let target: ModuleTarget = toml::from_str(target).unwrap();
            let told = target.mismatch(&image(on)).map(|mismatch| mismatch.to_string()).unwrap_or_default();
            assert_eq!(told, mismatch, "{target:?} on {on}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_there_is_read_or_refused(text in r"(\[\[(targets|stacks|order|targets\.distros|buildpack\.exec-env)\]\]|\[(buildpack|extension)\]|id|api|os|variant|exec-env| = |\[|\]|'\*'|'0\.10'|true|1|\n|\{|\}|,){0,40}", has_build: bool) {
            if let Ok(buildpack) = toml::from_str::<BuildpackToml>(&text) {
                buildpack.effective_targets(has_build);
            }
            let _: Result<ExtensionToml, _> = toml::from_str(&text);
        }
    }
}
