//! `build.toml`: what a buildpack tells the builder after its build.
//!
//! Specification: `buildpack.md` § `build.toml`.

use serde::Deserialize;

use crate::launch::BomEntry;

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct BuildToml {
    /// The old bill of materials of what the build used.
    #[serde(deserialize_with = "crate::bom::deserialize")]
    pub bom: Vec<BomEntry>,
    /// Entries of the buildpack plan that this buildpack leaves to others.
    pub unmet: Vec<Unmet>,
}

/// A dependency that a buildpack leaves to others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Unmet {
    /// Its name in the plan.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read() {
        let text =
            "[[unmet]]\nname='a'\n[[unmet]]\n[[bom]]\nname='b'\n[bom.metadata]\nversion='1'\n[other]\nx=1";
        let build: BuildToml = toml::from_str(text).unwrap();
        let names: Vec<_> = build.unmet.iter().map(|unmet| unmet.name.as_str()).collect();
        assert_eq!(names, ["a", ""]);
        assert_eq!(build.bom[0].metadata.as_ref().unwrap().0["version"].as_str(), Some("1"));
        assert_eq!(toml::from_str::<BuildToml>("").unwrap(), BuildToml::default());
    }

    #[test]
    fn a_version_beside_the_metadata_is_refused() {
        let error = toml::from_str::<BuildToml>("[[bom]]\nname='b'\nversion='1'").unwrap_err().to_string();
        assert!(error.contains("bom entry 'b' has a top level version which is not allowed"), "{error}");
    }
}
