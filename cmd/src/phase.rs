//! The phases by name.

use std::fmt;

use drydock_phases::create::Step;

/// A phase of the lifecycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Looks at run image and previous image.
    Analyze,
    /// Chooses buildpacks.
    Detect,
    /// Brings back layers of earlier builds.
    Restore,
    /// Applies Dockerfiles of image extensions.
    Extend,
    /// Runs buildpacks.
    Build,
    /// Makes the app image.
    Export,
    /// All phases of a build in one process.
    Create,
    /// Puts an app image on another run image.
    Rebase,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 8] = [
        Self::Detect,
        Self::Analyze,
        Self::Restore,
        Self::Build,
        Self::Export,
        Self::Rebase,
        Self::Create,
        Self::Extend,
    ];

    /// What the phase does; also the argument that picks it from the `lifecycle` executable.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Analyze => "analyze",
            Self::Detect => "detect",
            Self::Restore => "restore",
            Self::Extend => "extend",
            Self::Build => "build",
            Self::Export => "export",
            Self::Create => "create",
            Self::Rebase => "rebase",
        }
    }

    /// The name of its executable.
    pub fn executable(self) -> &'static str {
        match self {
            Self::Analyze => "analyzer",
            Self::Detect => "detector",
            Self::Restore => "restorer",
            Self::Extend => "extender",
            Self::Build => "builder",
            Self::Export => "exporter",
            Self::Create => "creator",
            Self::Rebase => "rebaser",
        }
    }

    /// What the phase does, in one line.
    pub fn about(self) -> &'static str {
        match self {
            Self::Analyze => "looks at the run image and at the previous app image",
            Self::Detect => "chooses the buildpacks that take part in the build",
            Self::Restore => "brings back layers and metadata of earlier builds",
            Self::Extend => "applies the Dockerfiles of image extensions",
            Self::Build => "runs the buildpacks",
            Self::Export => "makes the app image",
            Self::Create => "runs all phases of a build",
            Self::Rebase => "puts an app image on another run image",
        }
    }

    /// How to call it, in one line.
    pub(crate) fn usage(self) -> String {
        let operands = match self {
            Self::Analyze | Self::Create => " <image>",
            Self::Export | Self::Rebase => " <image> [<image>...]",
            Self::Detect | Self::Restore | Self::Extend | Self::Build => "",
        };
        format!("{self} [<flags>]{operands}")
    }
}

impl From<Step> for Phase {
    fn from(step: Step) -> Self {
        match step {
            Step::Analyze => Self::Analyze,
            Step::Detect => Self::Detect,
            Step::Restore => Self::Restore,
            Step::Build => Self::Build,
            Step::Export => Self::Export,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.executable())
    }
}
