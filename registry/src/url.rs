//! Where requests go.

use std::net::Ipv6Addr;

use ureq::http::Uri;
use ureq::http::uri::{Authority, Scheme};

use crate::error::ErrorKind;

/// The registry that names without one mean, and the host where its interface is.
const DOCKER_HUB: &str = "index.docker.io";
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// The registry as references name it.
pub(crate) fn registry_name(host: &str) -> &str {
    if host == "docker.io" { DOCKER_HUB } else { host }
}

/// The host whose interface a registry has.
pub(crate) fn host_of(registry: &str) -> &str {
    if registry_name(registry) == DOCKER_HUB { DOCKER_HUB_HOST } else { registry }
}

/// Scheme, host and port: who may see credentials that were meant for the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    pub(crate) is_https: bool,
    /// The host, in lower case, with the port unless it is the scheme's own.
    pub(crate) host: String,
}

impl Origin {
    /// None if it is neither HTTP nor HTTPS, or holds a user's name.
    pub(crate) fn of(url: &Uri) -> Option<Self> {
        let is_https = match url.scheme()? {
            scheme if *scheme == Scheme::HTTPS => true,
            scheme if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let authority = url.authority().filter(|authority| !authority.as_str().contains('@'))?;
        Some(Self { is_https, host: normal_host(authority, port(is_https))? })
    }
}

impl Origin {
    /// Whether it is an address of this machine that no other can reach.
    pub(crate) fn is_this_machine(&self) -> bool {
        let bare = match self.host.strip_prefix('[') {
            Some(rest) => rest.split(']').next(),
            None => self.host.split(':').next(),
        };
        let bare = bare.unwrap_or_default();
        bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.is_https { "https" } else { "http" }, self.host)
    }
}

/// None where it is more than a name or an address, and a port: URLs may have other characters, and a port that none is.
fn normal_host(authority: &Authority, usual: u16) -> Option<String> {
    let host = authority.host().to_ascii_lowercase();
    let is_host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    };
    let port = match authority.as_str().get(host.len()..)? {
        "" | ":" => usual,
        rest => {
            rest.strip_prefix(':').filter(|port| port.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?
        }
    };
    is_host.then(|| if port == usual { host } else { format!("{host}:{port}") })
}

/// The port that need not be said.
pub(crate) fn port(is_https: bool) -> u16 {
    if is_https { 443 } else { 80 }
}

/// The host as [`Origin`] has it, from how references and settings name it; without the port `usual`.
pub(crate) fn normal_name(host: &str, usual: u16) -> Option<String> {
    let authority: Authority = host.parse().ok()?;
    normal_host(&authority, usual)
}

/// Where a `Location` leads from a URL.
pub(crate) fn join(base: &Uri, location: &str) -> Result<Uri, ErrorKind> {
    let scheme = base.scheme_str().unwrap_or("https");
    let authority = base.authority().map(Authority::as_str).unwrap_or_default();
    let path = base.path();
    let is_absolute = location.split_once("://").is_some_and(|(scheme, _)| {
        scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    });
    let text = if is_absolute {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{path}{location}")
    } else {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let url: Uri = text.parse().map_err(|_| malformed("`Location` is not a URL"))?;
    if Origin::of(&url).is_some() {
        Ok(url)
    } else {
        Err(malformed("`Location` is no URL of HTTP or HTTPS without a user"))
    }
}

/// The URL with one more parameter, which needs no escaping.
pub(crate) fn with_parameter(url: &Uri, parameter: &str) -> Result<Uri, ErrorKind> {
    let separator = if url.query().is_some() { '&' } else { '?' };
    format!("{url}{separator}{parameter}").parse().map_err(|_| malformed("`Location` is too long"))
}

fn malformed(reason: &str) -> ErrorKind {
    ErrorKind::Malformed { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_lead_from_urls() {
        let base: Uri = "https://r.io:5000/v2/a/blobs/uploads/?x=1".parse().unwrap();
        for (location, want) in [
            ("https://other.io/x?y=https://z", "https://other.io/x?y=https://z"),
            ("/v2/a/blobs/uploads/1?s=/://", "https://r.io:5000/v2/a/blobs/uploads/1?s=/://"),
            ("//other.io/x", "https://other.io/x"),
            ("1", "https://r.io:5000/v2/a/blobs/uploads/1"),
            ("?n=2", "https://r.io:5000/v2/a/blobs/uploads/?n=2"),
        ] {
            assert_eq!(join(&base, location).unwrap().to_string(), want);
        }
        for bad in
            ["ftp://other.io/x", "https://user:password@r.io/x", "https://", "file:///etc/passwd", "/a b"]
        {
            assert!(join(&base, bad).is_err(), "{bad}");
        }
        let url = with_parameter(&base, "digest=sha256:12").unwrap();
        assert_eq!(url.to_string(), "https://r.io:5000/v2/a/blobs/uploads/?x=1&digest=sha256:12");
    }

    #[test]
    fn origins_are_scheme_host_and_port() {
        let origin = |url: &str| Origin::of(&url.parse().unwrap()).unwrap();
        assert_eq!(origin("https://R.io/x"), origin("https://r.io:443/y"));
        assert_eq!(origin("http://[::1]:80/"), origin("http://[::1]/"));
        for other in ["http://r.io/", "https://r.io:444/", "https://r.io.evil/", "https://x.r.io/"] {
            assert_ne!(origin("https://r.io/"), origin(other));
        }
        for name in ["docker.io", "index.docker.io"] {
            assert_eq!(host_of(name), "registry-1.docker.io");
        }
        for (url, want) in [
            ("http://localhost:1/", true),
            ("http://127.9.9.9:1/", true),
            ("http://[::1]:1/", true),
            ("http://127.0.0.1.evil.io/", false),
            ("http://localhost.evil.io/", false),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(origin(url).is_this_machine(), want, "{url}");
        }
        assert_eq!(normal_name("R.io:443", 443).as_deref(), Some("r.io"));
        assert_eq!(normal_name("r.io:443", 80).as_deref(), Some("r.io:443"));
        assert_eq!(normal_name("[::1]:5000", 443).as_deref(), Some("[::1]:5000"));
        for host in
            ["u@r.io", "", ":80", "r.io:99999", "r.io:x", "r[::1].io", "[r.io]", "[::1]r.io", "r$(x).io"]
        {
            assert_eq!(normal_name(host, 443), None, "{host}");
        }
    }
}
