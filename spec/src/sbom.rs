//! SBOM files: their three formats. Specification: `buildpack.md` § Software-Bill-of-Materials.

/// A format of SBOM files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SbomFormat {
    /// CycloneDX.
    CycloneDx,
    /// SPDX.
    Spdx,
    /// Syft.
    Syft,
}

impl SbomFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::CycloneDx, Self::Spdx, Self::Syft];

    /// What a file's name ends with, without the dot before it.
    pub fn extension(self) -> &'static str {
        match self {
            Self::CycloneDx => "sbom.cdx.json",
            Self::Spdx => "sbom.spdx.json",
            Self::Syft => "sbom.syft.json",
        }
    }

    /// What `sbom-formats` in `buildpack.toml` calls it.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::CycloneDx => "application/vnd.cyclonedx+json",
            Self::Spdx => "application/spdx+json",
            Self::Syft => "application/vnd.syft+json",
        }
    }
}
