//! Clients for registries that a test plays.

use std::collections::BTreeMap;

use drydock_fake_registry::Fake;
use drydock_model::digest::Digest;
use drydock_model::manifest::Descriptor;
use drydock_model::reference::ImageRef;
use drydock_registry::auth::Auth;
use drydock_registry::{Environment, Host, Options, Registry, Retry};

/// What a client needs to know of a server.
pub(crate) trait Client {
    /// An image in it.
    fn image(&self, name: &str) -> ImageRef;

    /// A client for it, and for other such servers, that does not wait long; with these credentials for this
    /// one, if any.
    fn client_with(&self, others: &[&Self], auth: Auth) -> Registry;

    fn client(&self) -> Registry;

    fn options(&self, others: &[&Self], auth: Auth) -> Options;
}

impl Client for Fake {
    fn image(&self, name: &str) -> ImageRef {
        format!("{}/{name}", self.host).parse().unwrap()
    }

    fn client_with(&self, others: &[&Self], auth: Auth) -> Registry {
        Registry::new(&self.options(others, auth)).unwrap()
    }

    fn client(&self) -> Registry {
        self.client_with(&[], Auth::Default)
    }

    fn options(&self, others: &[&Self], auth: Auth) -> Options {
        let plain = |auth| Host { plain_http: true, ca_file: None, auth };
        let mut hosts: BTreeMap<_, _> =
            others.iter().map(|other| (other.host.clone(), plain(Auth::Default))).collect();
        hosts.insert(self.host.clone(), plain(auth));
        Options { hosts, environment: Environment::default(), retry: quick() }
    }
}

/// Tries again at once.
pub(crate) fn quick() -> Retry {
    Retry {
        first_wait: std::time::Duration::from_millis(1),
        longest_wait: std::time::Duration::from_secs(1),
        ..Retry::default()
    }
}

/// Bytes that repeat only after a while.
pub(crate) fn some_bytes(size: usize) -> Vec<u8> {
    (0..size).map(|i| u8::try_from((i * 7 + i / 251) % 256).unwrap()).collect()
}

pub(crate) fn describe(bytes: &[u8]) -> Descriptor {
    Descriptor::new("application/octet-stream", Digest::of(bytes), bytes.len() as u64)
}
