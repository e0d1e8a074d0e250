//! What is experimental at a Platform API is refused, warned about or used in silence, as the platform wishes.
//!
//! Specification: `platform.md` § Experimental Features.

use anyhow::anyhow;

use crate::{Error, Kind, Level, Log};

/// What to do about an experimental feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Experimental {
    /// Refuse it.
    Refuse,
    /// Warn about it.
    Warn,
    /// Use it in silence.
    Allow,
}

impl Experimental {
    /// For a phase that is about to use `feature`: says so at `level` where it is to warn, and fails with
    /// [`Kind::General`] if it must not.
    pub fn guard(self, feature: &str, level: Level, log: &dyn Log) -> Result<(), Error> {
        let requested = format!("Platform requested experimental feature '{feature}'");
        match self {
            Self::Allow => Ok(()),
            Self::Warn => {
                log.log(level, &requested);
                Ok(())
            }
            Self::Refuse => {
                log.error(&requested);
                let cause = anyhow!("experimental features are disabled by CNB_EXPERIMENTAL_MODE=error");
                Err(Error::new(Kind::General, cause).with_help("set CNB_EXPERIMENTAL_MODE=warn"))
            }
        }
    }
}
