//! The file of sources, the lock file beside it, and what they say of registries.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use drydock_registry::sources::{Lock, Source, Sources};
use drydock_registry::{Environment, Options, Registry, Retry};

use crate::exit::Usage;

/// What may come from where.
pub(crate) struct Rules {
    /// The file, if there is one.
    path: Option<PathBuf>,
    pub(crate) sources: Sources,
    environment: Environment,
    /// Whatever is not brought then is given up.
    until: Option<Instant>,
}

impl Rules {
    /// As the file says that is named, or is in the usual place; without one, all is allowed.
    pub(crate) fn read(
        given: Option<&Path>,
        environment: Environment,
        until: Option<Instant>,
    ) -> Result<Self> {
        let path = Sources::path(given, &environment);
        let sources = path.as_deref().map(Sources::read).transpose()?.unwrap_or_default();
        Ok(Self { path, sources, environment, until })
    }

    /// The variables of the process.
    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// How registries are reached, for images of a source.
    pub(crate) fn options(&self, source: Option<&Source>) -> Options {
        Options {
            hosts: self.sources.hosts(source),
            environment: self.environment.clone(),
            retry: Retry { until: self.until, ..Retry::default() },
        }
    }

    /// A client for images of a source.
    pub(crate) fn registry(&self, source: Option<&Source>) -> Result<Registry> {
        Ok(Registry::new(&self.options(source))?)
    }

    /// The lock file: where it is, and what is in it.
    pub(crate) fn lock(&self) -> Result<(PathBuf, Lock)> {
        let path = self.path.as_deref().ok_or_else(|| {
            Usage("a lock file lies beside a file of sources: name one with --sources".to_owned())
        })?;
        let path = Lock::path(path);
        let lock = Lock::read(&path)?;
        Ok((path, lock))
    }
}
