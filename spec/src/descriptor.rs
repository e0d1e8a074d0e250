//! `project.toml`: what an app says of its own build.
//!
//! Specification: `extensions/project-descriptor.md`, versions 0.1 and 0.2.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::toml_text::{self, TomlError};

/// What a descriptor says of builds; both versions have it, under other names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProjectDescriptor {
    /// The builder's name.
    pub builder: Option<String>,
    /// Patterns of the files to build.
    pub include: Vec<String>,
    /// Patterns of the files not to build.
    pub exclude: Vec<String>,
    /// The buildpacks, in place of the builder's order.
    #[serde(alias = "buildpacks")]
    pub group: Vec<ProjectBuildpack>,
    /// Variables of the build, as version 0.1 has them.
    pub env: Vec<ProjectVariable>,
    /// Variables of the build, as version 0.2 has them.
    pub build: ProjectEnv,
    /// What comes before the builder's buildpacks.
    pub pre: ProjectGroup,
    /// What comes after them.
    pub post: ProjectGroup,
}

/// Buildpacks before or after the builder's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProjectGroup {
    /// The buildpacks.
    pub group: Vec<ProjectBuildpack>,
}

/// Variables of the build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProjectEnv {
    /// The variables.
    pub env: Vec<ProjectVariable>,
}

/// A buildpack of the builder's, of another place, or of a script.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProjectBuildpack {
    /// Its ID.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Where it is.
    pub uri: String,
    /// What it consists of.
    pub script: Option<ProjectScript>,
}

/// A buildpack that consists of a script.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProjectScript {
    /// The version of the Buildpack API.
    pub api: String,
    /// The script.
    pub inline: String,
    /// What runs it.
    pub shell: String,
}

/// A variable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProjectVariable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Why a descriptor cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// It is no TOML, or has other types than it should.
    #[error(transparent)]
    Toml(#[from] TomlError),
    /// It is of another version.
    #[error("its schema version is {0:.20}; 0.1 and 0.2 are known")]
    Version(String),
}

/// What says how the rest is to be read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Head {
    #[serde(rename = "_")]
    meta: Meta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Meta {
    schema_version: Option<String>,
}

/// The tables of both versions, one of which is read.
#[derive(Debug, Deserialize)]
struct Tables<Old, New> {
    #[serde(default)]
    build: Old,
    #[serde(default)]
    io: Io<New>,
}

#[derive(Debug, Default, Deserialize)]
struct Io<New> {
    #[serde(default)]
    buildpacks: New,
}

const OLD: &[&str] = &["build"];
const NEW: &[&str] = &["io", "buildpacks"];

impl ProjectDescriptor {
    /// Reads the part of `project.toml` that is about builds, and which keys there are about builds and have no meaning.
    pub fn parse(text: &str) -> Result<(Self, Vec<String>), DescriptorError> {
        let Head { meta: Meta { schema_version } } = toml_text::from_str(text)?;
        let (found, mut unknown, own, others) = match schema_version.as_deref().unwrap_or("0.1") {
            "0.1" => {
                let (tables, unknown) = toml_text::from_str_and_unknown::<Tables<Self, IgnoredAny>>(text)?;
                (tables.build, unknown, OLD, NEW)
            }
            "0.2" => {
                let (tables, unknown) = toml_text::from_str_and_unknown::<Tables<IgnoredAny, Self>>(text)?;
                (tables.io.buildpacks, unknown, NEW, OLD)
            }
            other => return Err(DescriptorError::Version(other.to_owned())),
        };
        // What other tables hold is none of ours, but for the one that another version has.
        unknown.retain(|key| key.iter().zip(own).all(|(key, own)| key == own) || key == others);
        Ok((found, unknown.into_iter().map(|key| key.join(".")).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_say_the_same() {
        let old = "[project]\nname = 'x'\n[build]\nbuilder = 'b'\nexclude = ['*.log']\n[[build.buildpacks]]\nid = 'acme/a'\n\
                   version = '1'\n[[build.env]]\nname = 'A'\nvalue = '1'\n";
        let new = "[_]\nschema-version = '0.2'\n[io.buildpacks]\nbuilder = 'b'\nexclude = ['*.log']\n[[io.buildpacks.group]]\n\
                   id = 'acme/a'\nversion = '1'\n[[io.buildpacks.build.env]]\nname = 'A'\nvalue = '1'\n";
        let parse = |text| {
            let (found, unknown) = ProjectDescriptor::parse(text).unwrap();
            assert_eq!(unknown, [""; 0], "{text}");
            found
        };
        let (old, new) = (parse(old), parse(new));
        assert_eq!((&old.builder, &old.exclude, &old.group), (&new.builder, &new.exclude, &new.group));
        assert_eq!((old.env, old.group[0].id.as_str()), (new.build.env, "acme/a"));
        assert_eq!(parse("[project]\nid = 'x'\n"), ProjectDescriptor::default());
        assert!(ProjectDescriptor::parse("[_]\nschema-version = '9'\n").is_err());
    }

    #[test]
    fn keys_without_a_meaning_are_known() {
        for (text, want) in [
            ("[build]\nbilder = 'b'\n[project]\nx = 1\n[metadata.build]\ny = 1\n", &["build.bilder"][..]),
            ("[[build.buildpacks]]\nidd.x = 1\n[[build.buildpacks]]\nidd = 2\n", &["build.buildpacks.idd"]),
            ("[[build.env]]\nname = 'A'\nvalu = '1'\n", &["build.env.valu"]),
            ("[io.buildpacks]\nbuilder = 'b'\n", &["io.buildpacks"]),
            ("[build]\nbuilder = 'b'\n[_]\nschema-version = '0.2'\nid = 'x'\n", &["build"]),
            (
                "[_]\nschema-version = '0.2'\n[io.buildpacks.pre]\nx = 1\n[io.acme]\nx = 1\n[com.acme.build]\nx = 1\n",
                &["io.buildpacks.pre.x"],
            ),
        ] {
            assert_eq!(ProjectDescriptor::parse(text).unwrap().1, want, "{text}");
        }
    }
}
