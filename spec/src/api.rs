//! Versions of the Platform and Buildpack APIs.
//!
//! A version is compared here and nowhere else: callers ask [`PlatformApi`] and [`BuildpackApi`] by the name of what
//! changed. Specification: `platform.md` § Platform API Version, `buildpack.md` § Buildpack API Version.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A version that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The text is not `<major>.<minor>`.
    #[error("failed to parse {kind} API '{text}'")]
    Malformed {
        /// `platform` or `buildpack`.
        kind: &'static str,
        /// What was given.
        text: String,
    },
    /// The version is one that this lifecycle does not implement.
    #[error("{kind} API version '{text}' is incompatible with the lifecycle")]
    Unsupported {
        /// `platform` or `buildpack`.
        kind: &'static str,
        /// What was given.
        text: String,
    },
}

/// `^v?(\d+)\.?(\d*)$`, as the reference reads it.
fn parse(text: &str) -> Option<(u32, u32)> {
    let digits = text.strip_prefix('v').unwrap_or(text);
    let (major, minor) = digits.split_once('.').unwrap_or((digits, ""));
    let number = |s: &str| s.bytes().all(|b| b.is_ascii_digit()).then(|| s.parse().ok()).flatten();
    Some((number(major)?, if minor.is_empty() { 0 } else { number(minor)? }))
}

macro_rules! api {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $minors:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(u32);

        impl $name {
            /// The oldest version that is supported.
            pub const OLDEST: Self = Self(*$minors.start());
            /// The newest version that is supported.
            pub const NEWEST: Self = Self(*$minors.end());

            /// Every supported version, oldest first.
            pub fn all() -> impl Iterator<Item = Self> {
                $minors.map(Self)
            }
        }

        impl FromStr for $name {
            type Err = ApiError;

            fn from_str(text: &str) -> Result<Self, ApiError> {
                let text = text.trim();
                let error = |f: fn(&'static str, String) -> ApiError| f($kind, text.to_owned());
                let (major, minor) =
                    parse(text).ok_or_else(|| error(|kind, text| ApiError::Malformed { kind, text }))?;
                if major == 0 && $minors.contains(&minor) {
                    Ok(Self(minor))
                } else {
                    Err(error(|kind, text| ApiError::Unsupported { kind, text }))
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "0.{}", self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = ApiError;
            fn try_from(text: String) -> Result<Self, ApiError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(api: $name) -> Self {
                api.to_string()
            }
        }
    };
}

api!(
    /// A supported version of the Platform API (0.7 to 0.15).
    PlatformApi, "platform", drydock_env::api::PLATFORM
);
api!(
    /// A supported version of the Buildpack API (0.7 to 0.12).
    BuildpackApi, "buildpack", drydock_env::api::BUILDPACK
);

/// What a Platform API version brought. Each method says what is true from (or until) some version on.
impl PlatformApi {
    /// 0.n itself; for tables that say since when a flag exists.
    pub const fn minor(n: u32) -> Self {
        Self(n)
    }
    /// SBOM files become a layer, are restored from the previous image and kept in the cache (0.8).
    pub fn has_sbom_layer(self) -> bool {
        self.0 >= 8
    }
    /// The bill of materials is in `metadata.toml`, the build label and the report (before 0.9).
    pub fn has_legacy_bom(self) -> bool {
        self.0 < 9
    }
    /// The legacy bill of materials is written to `sbom/*/sbom.legacy.json` (0.9).
    pub fn has_legacy_bom_files(self) -> bool {
        self.0 >= 9
    }
    /// `SOURCE_DATE_EPOCH` sets the created time (0.9).
    pub fn has_source_date_epoch(self) -> bool {
        self.0 >= 9
    }
    /// A process's `command` is a list; user arguments replace the default ones (0.10).
    pub fn has_command_list(self) -> bool {
        self.0 >= 10
    }
    /// Image extensions take part (0.10).
    pub fn has_extensions(self) -> bool {
        self.0 >= 10
    }
    /// The lifecycle's and the launcher's own SBOM files are exported (0.11).
    pub fn has_launcher_sbom(self) -> bool {
        self.0 >= 11
    }
    /// `run.toml`, targets instead of stacks, run image names in the label (0.12).
    pub fn has_targets(self) -> bool {
        self.0 >= 12
    }
    /// Whether an app image whose `CNB_PLATFORM_API` is `text` was built for a target, not for a stack. Images outlive
    /// the versions that are supported: any version will do.
    pub fn had_targets(text: &str) -> Result<bool, ApiError> {
        let malformed = || ApiError::Malformed { kind: "platform", text: text.to_owned() };
        parse(text.trim()).map(|version| version >= (0, 12)).ok_or_else(malformed)
    }
    /// Layers have history with text (0.12).
    pub fn has_history(self) -> bool {
        self.0 >= 12
    }
    /// Run images can be extended, not only replaced (0.12).
    pub fn has_run_extension(self) -> bool {
        self.0 >= 12
    }
    /// Dockerfiles are no longer experimental; `<generated>/<id>/` holds an extension's output (0.13).
    pub fn has_stable_extensions(self) -> bool {
        self.0 >= 13
    }
    /// The restorer checks the run image; layers that are launch and cache come back from the cache alone (0.14).
    pub fn restores_launch_from_cache(self) -> bool {
        self.0 >= 14
    }
    /// `system.toml` and execution environments (0.15).
    pub fn has_exec_env(self) -> bool {
        self.0 >= 15
    }
}

/// What a Buildpack API version brought.
impl BuildpackApi {
    /// `CNB_PLATFORM_DIR`, `CNB_BUILD_PLAN_PATH`, `CNB_BP_PLAN_PATH`, `CNB_LAYERS_DIR` and `working-dir` (0.8).
    pub fn has_dir_variables(self) -> bool {
        self.0 >= 8
    }
    /// `command` is a list, processes are always direct, defaults can be overridden (0.9).
    pub fn has_command_list(self) -> bool {
        self.0 >= 9
    }
    /// Targets, and `CNB_TARGET_*` (0.10).
    pub fn has_targets(self) -> bool {
        self.0 >= 10
    }
    /// `CNB_EXEC_ENV` and `exec-env` (0.12).
    pub fn has_exec_env(self) -> bool {
        self.0 >= 12
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platform_versions() {
        for (text, want) in [("0.7", 7), ("v0.12", 12), (" 0.15 ", 15)] {
            assert_eq!(text.parse::<PlatformApi>().unwrap().0, want, "{text}");
        }
        for text in ["", "x", "0.x", "-1", "0.7.1", "+0.7"] {
            assert!(matches!(text.parse::<PlatformApi>(), Err(ApiError::Malformed { .. })), "{text}");
        }
        for text in ["0.6", "0.16", "1.0", "99.0", "7", "0"] {
            assert!(matches!(text.parse::<PlatformApi>(), Err(ApiError::Unsupported { .. })), "{text}");
        }
    }

    #[test]
    fn app_images_of_any_version() {
        for (text, want) in [
            ("0.3", Some(false)),
            ("0.11", Some(false)),
            ("0.12", Some(true)),
            ("0.99", Some(true)),
            ("v1.0", Some(true)),
            ("new", None),
            ("", None),
        ] {
            assert_eq!(PlatformApi::had_targets(text).ok(), want, "{text}");
        }
    }

    #[test]
    fn buildpack_versions() {
        assert_eq!("0.10".parse::<BuildpackApi>().unwrap().to_string(), "0.10");
        assert!("0.13".parse::<BuildpackApi>().is_err());
        assert_eq!(BuildpackApi::all().count(), 6);
    }
}
