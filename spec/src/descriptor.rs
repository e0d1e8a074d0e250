//! `project.toml`: what an app says of its own build.
//!
//! Specification: `extensions/project-descriptor.md`, versions 0.1 and 0.2.

use serde::Deserialize;

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

/// Version 0.1.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Old {
    build: ProjectDescriptor,
}

/// Version 0.2.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct New {
    io: Io,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Io {
    buildpacks: ProjectDescriptor,
}

impl ProjectDescriptor {
    /// Reads the part of `project.toml` that is about builds.
    pub fn parse(text: &str) -> Result<Self, DescriptorError> {
        let Head { meta: Meta { schema_version } } = toml_text::from_str(text)?;
        Ok(match schema_version.as_deref().unwrap_or("0.1") {
            "0.1" => toml_text::from_str::<Old>(text)?.build,
            "0.2" => toml_text::from_str::<New>(text)?.io.buildpacks,
            other => return Err(DescriptorError::Version(other.to_owned())),
        })
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
        let (old, new) = (ProjectDescriptor::parse(old).unwrap(), ProjectDescriptor::parse(new).unwrap());
        assert_eq!((&old.builder, &old.exclude, &old.group), (&new.builder, &new.exclude, &new.group));
        assert_eq!((old.env, old.group[0].id.as_str()), (new.build.env, "acme/a"));
        assert_eq!(ProjectDescriptor::parse("[project]\nid = 'x'\n").unwrap(), ProjectDescriptor::default());
        assert!(ProjectDescriptor::parse("[_]\nschema-version = '9'\n").is_err());
    }
}
