//! `<layer>.toml`: what a buildpack says of one of its layers.
//!
//! Specification: `buildpack.md` § `<layer>.toml`.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::metadata::Metadata;
use crate::toml_text::{self, TomlError};

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerToml {
    /// What the layer is for.
    pub types: Types,
    /// The buildpack's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
}

/// What a layer is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Types {
    /// It is in the app image.
    pub launch: bool,
    /// Later buildpacks see it.
    pub build: bool,
    /// It is kept in the cache.
    pub cache: bool,
}

/// What is wrong with a `<layer>.toml`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LayerTomlError {
    /// It is no TOML, or a key has a value of the wrong type.
    #[error(transparent)]
    Toml(#[from] TomlError),
    /// `launch`, `build` or `cache` is outside of `[types]`, where very old buildpacks had it.
    #[error("the launch, cache and build flags should be in the types table")]
    FlagsOutsideTypes,
}

/// Without `flatten`, by which errors lose their position.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    types: Types,
    metadata: Option<Metadata>,
    launch: Option<IgnoredAny>,
    build: Option<IgnoredAny>,
    cache: Option<IgnoredAny>,
}

impl LayerToml {
    /// Reads the file as a buildpack wrote it.
    pub fn parse(text: &str) -> Result<Self, LayerTomlError> {
        let Written { types, metadata, launch, build, cache } = toml_text::from_str(text)?;
        if [launch, build, cache].iter().any(Option::is_some) {
            return Err(LayerTomlError::FlagsOutsideTypes);
        }
        Ok(Self { types, metadata })
    }
}

impl Types {
    /// Whether it is for nothing.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn flags_belong_into_types() {
        let layer = LayerToml::parse("[types]\nlaunch=true\n[metadata]\nbuild=1\n[other]\ncache=1").unwrap();
        assert_eq!(layer.types, Types { launch: true, build: false, cache: false });
        assert!(layer.metadata.is_some() && !layer.types.is_none());
        assert!(LayerToml::parse("").unwrap().types.is_none());
        for text in ["launch=true", "build=false\n[types]\nbuild=true", "cache='x'"] {
            assert_eq!(LayerToml::parse(text), Err(LayerTomlError::FlagsOutsideTypes), "{text}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_shown() {
        for (text, shown) in [
            ("[types]\nlaunch='yes'", "launch='yes'"),
            ("types=true", "types=true"),
            ("metadata='x'", "metadata='x'"),
            ("[types", "[types"),
        ] {
            let error = LayerToml::parse(text).unwrap_err().to_string();
            assert!(error.contains(shown), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = LayerToml::parse(&text);
        }
    }
}
