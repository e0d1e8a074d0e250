//! `extend-config.toml`: build arguments for the Dockerfiles that an extension wrote.
//!
//! Specification: `image_extension.md` § `extend-config.toml`.

use serde::{Deserialize, Serialize};

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExtendConfig {
    /// For `build.Dockerfile`.
    pub build: BuildArgs,
    /// For `run.Dockerfile`.
    pub run: BuildArgs,
}

/// Build arguments for one Dockerfile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildArgs {
    /// The arguments in order.
    pub args: Vec<BuildArg>,
}

/// A build argument.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildArg {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl ExtendConfig {
    /// The build arguments that the lifecycle sets, and extensions may not.
    pub const RESERVED: [&str; 3] = ["build_id", "user_id", "group_id"];

    /// A build argument that an extension may not set, if it does.
    pub fn reserved_arg(&self) -> Option<&str> {
        let names = self.build.args.iter().chain(&self.run.args).map(|arg| arg.name.as_str());
        names.into_iter().find(|name| Self::RESERVED.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_arguments_are_found_for_either_image() {
        for (text, want) in [
            ("", None),
            ("[[build.args]]\nname='k'\nvalue='v'", None),
            ("[[build.args]]\nname='k'\n[[build.args]]\nname='user_id'", Some("user_id")),
            ("[[run.args]]\nname='build_id'", Some("build_id")),
        ] {
            assert_eq!(toml::from_str::<ExtendConfig>(text).unwrap().reserved_arg(), want, "{text}");
        }
    }
}
