//! How registries are reached.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::Environment;
use crate::auth::Auth;
use crate::error::ErrorKind;

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What is special about some hosts, by `host` or `host:port` as references name them.
    pub hosts: BTreeMap<String, Host>,
    /// The variables of the process: `DOCKER_CONFIG`, `REGISTRY_AUTH_FILE`, `XDG_RUNTIME_DIR`,
    /// `XDG_CONFIG_HOME` and `HOME` for credentials; `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`,
    /// also in lower case.
    pub environment: Environment,
    /// What to do when something breaks off.
    pub retry: Retry,
}

/// What is special about a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// It speaks HTTP without TLS.
    pub plain_http: bool,
    /// A PEM file with the certificates that are trusted for this host, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Where credentials for it are.
    pub auth: Auth,
}

/// What to do when a connection breaks off, or a registry is busy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How often something is tried, in all.
    pub attempts: u32,
    /// How long to wait before the second time; twice as long before each further one.
    pub first_wait: Duration,
    /// The longest wait, whatever `Retry-After` asks for.
    pub longest_wait: Duration,
    /// How long a connection may take, or bring nothing.
    pub stalled: Duration,
    /// Whatever is not done then is given up.
    pub until: Option<Instant>,
}

impl Retry {
    /// The time that is left, if it is limited; fails when there is none.
    pub(crate) fn left(&self) -> Result<Option<Duration>, ErrorKind> {
        let Some(until) = self.until else { return Ok(None) };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimeIsOver) } else { Ok(Some(left)) }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_mins(1),
            stalled: Duration::from_mins(1),
            until: None,
        }
    }
}
