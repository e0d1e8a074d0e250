//! Connections: by TLS with the certificates that a host is trusted by, through a proxy if there is one, and
//! what may go wrong with them. Follows no redirect, and knows of no credentials.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use ureq::http::{Request, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::{Agent, Body, Proxy, SendBody, Timeout};

use crate::error::ErrorKind;
use crate::options::Options;
use crate::url::{Origin, normal_name, port};
use crate::{Environment, Retry};

/// How large a file of certificates may be.
const CA_LIMIT: u64 = 4 << 20;

/// Who is connected to, and how.
#[derive(Debug)]
pub(crate) struct Transport {
    plain_hosts: BTreeSet<String>,
    plain: Agent,
    /// For hosts with certificates of their own.
    own: BTreeMap<String, Agent>,
    /// For all others; reading the system's certificates takes a while.
    system: OnceLock<Agent>,
    proxy: Option<Proxy>,
    retry: Retry,
}

impl Transport {
    pub(crate) fn new(options: &Options) -> Result<Self, ErrorKind> {
        let environment = &options.environment;
        let proxy = proxy(environment, ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])?;
        let plain_proxy = proxy_of_plain_http(environment)?;
        let plain = agent(RootCerts::new_with_certs(&[]), plain_proxy, &options.retry);
        let mut plain_hosts = BTreeSet::new();
        let mut own = BTreeMap::new();
        for (host, settings) in &options.hosts {
            let name = normal_name(crate::url::host_of(host), port(!settings.plain_http))
                .ok_or_else(|| ErrorKind::Options(format!("`{host}` is not a host, or a host and a port")))?;
            if settings.plain_http {
                plain_hosts.insert(name);
            } else if let Some(path) = &settings.ca_file {
                let roots = RootCerts::new_with_certs(&certificates(path)?);
                own.insert(name, agent(roots, proxy.clone(), &options.retry));
            }
        }
        Ok(Self { plain_hosts, plain, own, system: OnceLock::new(), proxy, retry: options.retry.clone() })
    }

    /// Where the interface of a registry is.
    pub(crate) fn origin(&self, registry: &str) -> Result<Origin, ErrorKind> {
        let host = crate::url::host_of(registry);
        let named = |is_https| Some(Origin { is_https, host: normal_name(host, port(is_https))? });
        named(false)
            .filter(|origin| self.allows(origin))
            .or_else(|| named(true))
            .ok_or_else(|| ErrorKind::Options(format!("`{registry}` is not a registry's host")))
    }

    /// Whether this may be connected to: by TLS, or if it was said that the host has none.
    pub(crate) fn allows(&self, origin: &Origin) -> bool {
        origin.is_https || self.plain_hosts.contains(&origin.host)
    }

    /// Sends one request. Whatever the status of the answer, it is an answer.
    pub(crate) fn send(&self, request: Request<SendBody<'_>>) -> Result<Response<Body>, ErrorKind> {
        let origin = Origin::of(request.uri()).ok_or_else(|| malformed("a URL without host"))?;
        let agent = match self.own.get(&origin.host) {
            _ if !origin.is_https => &self.plain,
            Some(agent) => agent,
            None => self.system()?,
        };
        let request = match self.retry.left()? {
            None => request,
            left => agent.configure_request(request).timeout_global(left).build(),
        };
        agent.run(request).map_err(|error| failure(error, &origin.host))
    }

    fn system(&self) -> Result<&Agent, ErrorKind> {
        if let Some(agent) = self.system.get() {
            return Ok(agent);
        }
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            let reason = "this system has none: install `ca-certificates`, or name a CA file for the host";
            return Err(ErrorKind::CaFile { path: "/etc/ssl/certs".into(), reason: reason.to_owned() });
        }
        let certificates: Vec<_> =
            found.certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
        let agent = agent(RootCerts::new_with_certs(&certificates), self.proxy.clone(), &self.retry);
        Ok(self.system.get_or_init(|| agent))
    }
}

fn agent(roots: RootCerts, proxy: Option<Proxy>, retry: &Retry) -> Agent {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(roots)
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .proxy(proxy)
        .user_agent(concat!("drydock/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(retry.stalled))
        .timeout_resolve(Some(retry.stalled))
        .timeout_per_read(Some(retry.stalled))
        .timeout_per_write(Some(retry.stalled))
        .build()
        .into()
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, ErrorKind> {
    let error = |reason: String| ErrorKind::CaFile { path: path.to_owned(), reason };
    let pem = drydock_io::read::read(path, CA_LIMIT).map_err(|e| error(e.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| error(e.to_string()))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        Err(error("there is no PEM certificate in it".to_owned()))
    } else {
        Ok(certificates)
    }
}

fn proxy_of_plain_http(environment: &Environment) -> Result<Option<Proxy>, ErrorKind> {
    proxy(environment, ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
}

/// The proxy in the first of these variables that is set, with the exceptions in `NO_PROXY`.
fn proxy(environment: &Environment, names: [&str; 4]) -> Result<Option<Proxy>, ErrorKind> {
    let Some((name, url)) = names.iter().find_map(|name| Some((name, environment.text(name)?))) else {
        return Ok(None);
    };
    // The URL may hold a password: it is not shown.
    let error = |_| ErrorKind::Options(format!("`{name}` is not the URL of a proxy"));
    let parsed = Proxy::new(url).map_err(error)?;
    let mut builder = Proxy::builder(parsed.protocol()).host(parsed.host()).port(parsed.port());
    if let Some(user) = parsed.username() {
        builder = builder.username(user).password(parsed.password().unwrap_or_default());
    }
    let exceptions =
        environment.text("NO_PROXY").or_else(|| environment.text("no_proxy")).unwrap_or_default();
    for exception in exceptions.split(',').map(str::trim).filter(|exception| !exception.is_empty()) {
        builder = builder.no_proxy(exception);
    }
    builder.build().map(Some).map_err(error)
}

fn malformed(reason: &str) -> ErrorKind {
    ErrorKind::Malformed { reason: reason.to_owned() }
}

/// What a failed exchange means. URLs are not shown: they may be signed.
fn failure(error: ureq::Error, host: &str) -> ErrorKind {
    use io::ErrorKind as Io;
    let connect = |reason: String| ErrorKind::Connect { host: host.to_owned(), reason };
    let tls = |reason: String| ErrorKind::Tls { host: host.to_owned(), reason };
    match error {
        ureq::Error::HostNotFound => connect("there is no such host".to_owned()),
        ureq::Error::ConnectProxyFailed(reason) => {
            connect(format!("the proxy refuses: {}", crate::text::printable(&reason)))
        }
        ureq::Error::ConnectionFailed | ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            connect("nobody answers".to_owned())
        }
        ureq::Error::Timeout(Timeout::Global) => ErrorKind::TimeIsOver,
        ureq::Error::Timeout(_) => ErrorKind::Broken { reason: "nothing came for too long".to_owned() },
        ureq::Error::Tls(reason) => tls(reason.to_owned()),
        ureq::Error::Rustls(error) => tls(error.to_string()),
        ureq::Error::Io(error) => {
            match (error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()), error.kind()) {
                (Some(error), _) => tls(error.to_string()),
                (
                    None,
                    Io::ConnectionRefused
                    | Io::HostUnreachable
                    | Io::NetworkUnreachable
                    | Io::AddrNotAvailable,
                ) => connect(error.to_string()),
                _ => ErrorKind::Broken { reason: error.to_string() },
            }
        }
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => malformed("it leads to what is no URL"),
        ureq::Error::LargeResponseHeader(_, limit) => ErrorKind::TooLarge { limit: limit as u64 },
        other => malformed(&crate::text::printable(&other.to_string())),
    }
}
