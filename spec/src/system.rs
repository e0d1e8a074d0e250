//! `system.toml`: buildpacks that the platform adds to every group.
//!
//! Specification: `platform.md` § `system.toml`.

use serde::{Deserialize, Serialize};

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SystemToml {
    /// Its only table.
    pub system: System,
}

/// What is added before and after each group's own buildpacks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct System {
    /// Before.
    pub pre: SystemBuildpacks,
    /// After.
    pub post: SystemBuildpacks,
}

/// Buildpacks in the order in which they build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SystemBuildpacks {
    /// The buildpacks.
    pub buildpacks: Vec<SystemBuildpack>,
}

/// A buildpack that the platform adds. It is never optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SystemBuildpack {
    /// Its ID.
    pub id: String,
    /// Its version.
    pub version: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_read() {
        let text =
            "[[system.pre.buildpacks]]\nid = 'a'\nversion = '1'\n[[system.post.buildpacks]]\nid = 'b'\n";
        let SystemToml { system } = toml::from_str(text).unwrap();
        assert_eq!((system.pre.buildpacks[0].id.as_str(), system.post.buildpacks[0].id.as_str()), ("a", "b"));
        assert_eq!(toml::from_str::<SystemToml>("").unwrap(), SystemToml::default());
    }
}
