//! What an image runs on.
//!
//! Specification: OCI image-spec `image-index.md` § Platform Variants.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a platform; expected `os/architecture` or `os/architecture/variant`, as in `linux/arm64`"
)]
pub struct InvalidPlatform(pub String);

/// The platform of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The architecture, in Go's words.
    pub architecture: String,
    /// The operating system, in Go's words.
    pub os: String,
    /// The variant of the architecture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The version of the operating system.
    #[serde(rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Whatever else is said of it.
    #[serde(flatten)]
    pub rest: Map<String, Json>,
}

impl Platform {
    /// Linux on this architecture.
    pub fn linux(architecture: &str) -> Self {
        Self { architecture: architecture.to_owned(), os: "linux".to_owned(), ..Self::default() }
    }

    /// Linux on the architecture that this program was built for.
    pub fn host() -> Self {
        Self::linux(match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        })
    }

    /// The variant, where a missing one means what every machine of the architecture can run.
    fn normal_variant(&self) -> &str {
        match (self.architecture.as_str(), self.variant.as_deref().unwrap_or_default()) {
            ("amd64", "") => "v1",
            ("arm64", "" | "8") => "v8",
            ("arm", "" | "7") => "v7",
            (_, variant) => variant,
        }
    }

    /// Whether an image for one is in place of an image for the other.
    pub fn is_same(&self, other: &Self) -> bool {
        self.is_same_machine(other) && self.normal_variant() == other.normal_variant()
    }

    /// The same but for the variant.
    pub fn is_same_machine(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && self.os_version.as_deref().unwrap_or_default()
                == other.os_version.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

/// `os/architecture[/variant]`, as it is displayed.
impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let is_word = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        let mut parts: Vec<&str> = text.split('/').collect();
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(is_word) {
            return Err(InvalidPlatform(text.to_owned()));
        }
        let variant = parts.get(2).map(|&variant| variant.to_owned());
        let architecture = parts.swap_remove(1).to_owned();
        Ok(Self { os: parts[0].to_owned(), architecture, variant, ..Self::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn parses_what_it_prints() {
        for text in ["linux/amd64", "linux/arm/v7", "windows/amd64"] {
            assert_eq!(platform(text).to_string(), text);
        }
        for text in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/a b", "linux//v7"] {
            assert_eq!(text.parse::<Platform>(), Err(InvalidPlatform(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_missing_variant_is_the_oldest() {
        for (one, other, same) in [
            ("linux/amd64", "linux/amd64/v1", true),
            ("linux/amd64", "linux/amd64/v2", false),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm/v6", "linux/arm", false),
            ("linux/arm", "linux/arm/v7", true),
            ("linux/amd64", "windows/amd64", false),
            ("linux/riscv64", "linux/riscv64", true),
        ] {
            assert_eq!(platform(one).is_same(&platform(other)), same, "{one} {other}");
            assert_eq!(platform(other).is_same(&platform(one)), same, "{other} {one}");
        }
    }
}
