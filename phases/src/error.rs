//! Why a phase failed: what happened, and of which kind, so that the executable can pick the exit code.

use std::fmt;

use rustix::process::Signal;

/// What an exit code tells apart. Specification: `platform.md` § Outputs, of each phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing more is known than that it failed.
    General,
    /// The arguments, or what they name, do not make a task.
    Arguments,
    /// A buildpack wants an API version that is not supported.
    BuildpackApi,
    /// No group of buildpacks passed detection.
    NoGroup,
    /// No group passed, and at least one buildpack failed with an error.
    NoGroupAfterError,
    /// A buildpack's `bin/build` failed.
    BuildpackFailed,
    /// An extension's `bin/generate` failed.
    ExtensionFailed,
    /// Generating Dockerfiles failed otherwise.
    Generate,
    /// The phase's own work failed.
    Phase,
    /// The phase was asked by a signal to end.
    Interrupted(Signal),
}

/// A failure, with what to do about it where that is known.
#[derive(Debug)]
pub struct Error {
    /// What the exit code depends on.
    pub kind: Kind,
    /// What failed, outermost first.
    pub cause: anyhow::Error,
    /// What the user can do.
    pub help: Option<String>,
}

impl Error {
    /// A failure of some kind.
    pub fn new(kind: Kind, cause: impl Into<anyhow::Error>) -> Self {
        Self { kind, cause: cause.into(), help: None }
    }

    /// The same with advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same, said to have happened while doing something.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display + Send + Sync + 'static) -> Self {
        self.cause = self.cause.context(doing);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.cause)
    }
}

/// A cause of which no more is known belongs to the phase.
impl From<anyhow::Error> for Error {
    fn from(cause: anyhow::Error) -> Self {
        Self::new(Kind::Phase, cause)
    }
}
