//! How credentials are shown: as they are (Basic), or in exchange for tokens (Bearer), as the registry asks.
//!
//! Specification: RFC 7235, RFC 7617; token authentication of the `distribution` project, and its form for
//! `OAuth2`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde::Deserialize;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use ureq::http::{HeaderMap, HeaderValue, Request, Response, Uri};
use ureq::{AsSendBody as _, Body, SendBody};

use super::file::BASE64;
use super::{Credentials, Keychain, Secret};
use crate::Options;
use crate::call::{json, refused};
use crate::error::ErrorKind;
use crate::transport::Transport;
use crate::url::{Origin, with_parameter};

/// How long a token is good if nothing is said, and how long at most, in seconds.
const LIFETIME: u64 = 60;
const LONGEST_LIFETIME: u64 = 86_400;
/// A token is not used in its last moments.
const MARGIN: Duration = Duration::from_secs(5);

/// What is to be done with which repositories of which registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Access {
    /// As references name it.
    pub(crate) registry: String,
    pub(crate) repository: String,
    /// As token servers write it: `repository:library/node:pull`.
    pub(crate) scopes: Vec<String>,
}

/// What a registry asks for.
#[derive(Debug, Clone)]
enum Challenge {
    Basic,
    Bearer { realm: Uri, service: Option<String> },
}

struct Token {
    header: HeaderValue,
    until: Instant,
}

/// What registries asked for, and the tokens that were given.
pub(crate) struct Tokens {
    keychain: Keychain,
    challenges: Mutex<BTreeMap<String, Challenge>>,
    given: Mutex<BTreeMap<Access, Token>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    pub(crate) fn new(options: &Options) -> Self {
        Self { keychain: Keychain::new(options), challenges: Mutex::default(), given: Mutex::default() }
    }

    /// The header that the registry asked for, if it asked.
    pub(crate) fn authorization(
        &self,
        transport: &Transport,
        access: &Access,
    ) -> Result<Option<HeaderValue>, ErrorKind> {
        let Some(challenge) = lock(&self.challenges).get(&access.registry).cloned() else {
            return Ok(None);
        };
        if let Some(token) = lock(&self.given).get(access).filter(|token| token.until > Instant::now()) {
            return Ok(Some(token.header.clone()));
        }
        let credentials = self.credentials(transport, access)?;
        match challenge {
            Challenge::Basic => credentials.as_ref().and_then(basic).transpose(),
            Challenge::Bearer { realm, service } => {
                let token = fetch(transport, access, &realm, service.as_deref(), credentials.as_ref())?;
                let header = token.header.clone();
                lock(&self.given).insert(access.clone(), token);
                Ok(Some(header))
            }
        }
    }

    /// Learns from an answer with status 401 what is asked for. `false` if nothing that can be given.
    pub(crate) fn challenged(&self, access: &Access, headers: &HeaderMap) -> bool {
        lock(&self.given).remove(access);
        let challenge = challenge(headers);
        let is_known = challenge.is_some();
        if let Some(challenge) = challenge {
            lock(&self.challenges).insert(access.registry.clone(), challenge);
        }
        is_known
    }

    pub(crate) fn credentials(
        &self,
        transport: &Transport,
        access: &Access,
    ) -> Result<Option<Credentials>, ErrorKind> {
        Ok(self.keychain.credentials(transport, &access.registry, &access.repository)?)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first challenge that can be answered; tokens rather than passwords.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenges: Vec<_> =
        values.filter_map(|value| http_auth::parse_challenges(value).ok()).flatten().collect();
    let bearer = challenges.iter().filter(|challenge| challenge.scheme.eq_ignore_ascii_case("bearer"));
    let mut bearer = bearer.filter_map(|challenge| {
        let parameter = |name: &str| {
            let mut parameters = challenge.params.iter();
            parameters.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_unescaped())
        };
        Some(Challenge::Bearer { realm: parameter("realm")?.parse().ok()?, service: parameter("service") })
    });
    let has_basic = || challenges.iter().any(|challenge| challenge.scheme.eq_ignore_ascii_case("basic"));
    bearer.next().or_else(|| has_basic().then_some(Challenge::Basic))
}

/// The header with a password; a token that stands for one cannot be shown so.
fn basic(credentials: &Credentials) -> Option<Result<HeaderValue, ErrorKind>> {
    let Credentials::Password { user, password } = credentials else { return None };
    Some(header(&format!("Basic {}", BASE64.encode(format!("{user}:{}", password.0)))))
}

fn header(text: &str) -> Result<HeaderValue, ErrorKind> {
    let mut header =
        HeaderValue::from_str(text).map_err(|_| malformed("a token with characters that none has"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// What a token server answers. Holds secrets.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

fn fetch(
    transport: &Transport,
    access: &Access,
    realm: &Uri,
    service: Option<&str>,
    credentials: Option<&Credentials>,
) -> Result<Token, ErrorKind> {
    let origin =
        Origin::of(realm).ok_or_else(|| malformed("the place for tokens is no URL of HTTP or HTTPS"))?;
    if !transport.allows(&origin) {
        let reason = "credentials are not sent without TLS, unless the host is said to have plain HTTP";
        return Err(ErrorKind::Redirect { to: origin.to_string(), reason });
    }
    let mut response = ask(transport, access, realm, service, credentials)?;
    match response.status().as_u16() {
        200 => {}
        401 | 403 => return Err(refused(&access.registry, credentials.is_some(), &mut response)),
        _ => return Err(crate::call::failure(response, "place for tokens")),
    }
    let Answer { token, access_token, expires_in } = json(response.into_body(), "a token")?;
    let token = token.or(access_token).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| malformed("an answer without a token"))?;
    let lifetime = Duration::from_secs(expires_in.unwrap_or(LIFETIME).min(LONGEST_LIFETIME));
    Ok(Token {
        header: header(&format!("Bearer {token}"))?,
        until: Instant::now() + lifetime.saturating_sub(MARGIN),
    })
}

/// Asks for a token: as the docker clients do, or by `OAuth2` with what stands for a password.
fn ask(
    transport: &Transport,
    access: &Access,
    realm: &Uri,
    service: Option<&str>,
    credentials: Option<&Credentials>,
) -> Result<Response<Body>, ErrorKind> {
    let invalid = |_| malformed("the place for tokens is no URL");
    if let Some(Credentials::Identity(Secret(token))) = credentials {
        let scope = access.scopes.join(" ");
        let fields = [
            ("grant_type", Some("refresh_token")),
            ("client_id", Some("drydock")),
            ("refresh_token", Some(token)),
            ("service", service),
            ("scope", Some(&scope)),
        ];
        let form = parameters(&fields).collect::<Vec<_>>().join("&");
        let request = Request::post(realm).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        return transport.send(request.body(form.as_bytes().as_body()).map_err(invalid)?);
    }
    let scopes = access.scopes.iter().map(|scope| ("scope", Some(scope.as_str())));
    let fields: Vec<_> = [("service", service)].into_iter().chain(scopes).collect();
    let mut url = realm.clone();
    for parameter in parameters(&fields) {
        url = with_parameter(&url, &parameter)?;
    }
    let mut request = Request::get(url);
    if let Some(header) = credentials.and_then(basic).transpose()? {
        request = request.header(AUTHORIZATION, header);
    }
    transport.send(request.body(SendBody::none()).map_err(invalid)?)
}

fn parameters(fields: &[(&str, Option<&str>)]) -> impl Iterator<Item = String> {
    fields.iter().filter_map(|(name, value)| Some(format!("{name}={}", escape((*value)?))))
}

/// For a query or a form.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn malformed(reason: &str) -> ErrorKind {
    ErrorKind::Malformed { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_preferred_to_passwords() {
        let bearer =
            r#"Bearer realm="https://auth.io/token",service="r.io",scope="repository:a/b:pull,push""#;
        for (values, want) in [
            (vec![bearer], "https://auth.io/token r.io"),
            (vec![r#"Basic realm="r", bearer Realm="https://auth.io/token""#], "https://auth.io/token -"),
            (vec![r#"Basic realm="r""#, bearer], "https://auth.io/token r.io"),
            (vec![r#"BASIC realm="r""#], "basic"),
            (vec![r#"Negotiate, Basic realm="r""#], "basic"),
            (vec![r#"Bearer service="r.io""#], "none"),
            (vec![r#"Bearer realm="https://auth.io/token"#], "none"),
            (vec![""], "none"),
            (vec![], "none"),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
            }
            let found = match challenge(&headers) {
                None => "none".to_owned(),
                Some(Challenge::Basic) => "basic".to_owned(),
                Some(Challenge::Bearer { realm, service }) => {
                    format!("{realm} {}", service.as_deref().unwrap_or("-"))
                }
            };
            assert_eq!(found, want, "{values:?}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let password = Secret("hunter2".to_owned());
        let credentials = Credentials::Password { user: "user".to_owned(), password };
        let header = basic(&credentials).unwrap().unwrap();
        assert_eq!(header, "Basic dXNlcjpodW50ZXIy");
        for shown in [format!("{credentials:?}"), format!("{header:?}")] {
            assert!(!shown.contains("hunter2") && !shown.contains("dXNlcjpodW50ZXIy"), "{shown}");
        }
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(escape("repository:a/b:pull,push"), "repository%3Aa%2Fb%3Apull%2Cpush");
        assert_eq!(escape("a b&c=é"), "a%20b%26c%3D%C3%A9");
    }
}
