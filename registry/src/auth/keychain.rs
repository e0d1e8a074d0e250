//! Finds credentials, each once.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ureq::SendBody;
use ureq::http::{Request, Uri};

use super::file::{File, decode_base64, places};
use super::{Auth, AuthError, Credentials};
use crate::transport::Transport;
use crate::url::{Origin, registry_name};
use crate::{Environment, Options};

/// How large credentials may be that a file or a webhook holds.
const CREDENTIALS_LIMIT: u64 = 64 << 10;

/// Where credentials are, and those that were found.
#[derive(Debug)]
pub(crate) struct Keychain {
    auths: BTreeMap<String, Auth>,
    environment: Environment,
    found: Mutex<BTreeMap<String, Option<Credentials>>>,
}

impl Keychain {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            auths: options
                .hosts
                .iter()
                .map(|(host, settings)| (registry_name(host).to_owned(), settings.auth.clone()))
                .collect(),
            environment: options.environment.clone(),
            found: Mutex::default(),
        }
    }

    /// The credentials for a repository.
    pub(crate) fn credentials(
        &self,
        transport: &Transport,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credentials>, AuthError> {
        // Locked meanwhile: a helper that asks somebody does so once.
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("{registry}/{repository}");
        if let Some(credentials) = found.get(&key) {
            return Ok(credentials.clone());
        }
        let credentials = match self.auths.get(registry).unwrap_or(&Auth::Default) {
            Auth::Default => self.standard(registry, repository)?,
            Auth::UserFile(path) => Some(from_file(path)?),
            Auth::Env(name) => {
                let value = self.environment.text(name).and_then(Credentials::parse);
                Some(value.ok_or_else(|| AuthError::Variable(name.clone()))?)
            }
            Auth::Webhook(url) => Some(from_webhook(transport, url)?),
            Auth::Given(credentials) => Some(credentials.clone()),
        };
        found.insert(key, credentials.clone());
        Ok(credentials)
    }

    fn standard(&self, registry: &str, repository: &str) -> Result<Option<Credentials>, AuthError> {
        for path in places(&self.environment) {
            if let Some(file) = File::read(&path)? {
                let credentials = file.find(registry, repository)?;
                if credentials.is_some() {
                    return Ok(credentials);
                }
            }
        }
        Ok(None)
    }
}

fn from_file(path: &Path) -> Result<Credentials, AuthError> {
    let error = |reason: String| AuthError::File { path: path.to_owned(), reason };
    let text = drydock_io::read::read_to_string(path, CREDENTIALS_LIMIT).map_err(|e| error(e.to_string()))?;
    Credentials::parse(&text).ok_or_else(|| error("it must hold `user:password`".to_owned()))
}

fn from_webhook(transport: &Transport, url: &str) -> Result<Credentials, AuthError> {
    let parsed = url.parse::<Uri>().ok().and_then(|url| Some((Origin::of(&url)?, url)));
    let (origin, url) = parsed.ok_or_else(|| AuthError::Webhook {
        origin: "a webhook".to_owned(),
        reason: "it must have a URL of HTTPS, without a user".to_owned(),
    })?;
    let error = |reason: String| AuthError::Webhook { origin: origin.to_string(), reason };
    if !transport.allows(&origin) && !origin.is_this_machine() {
        return Err(error("it must have HTTPS, or the host must be said to have plain HTTP".to_owned()));
    }
    let request =
        Request::get(url).body(SendBody::none()).map_err(|_| error("it must have a URL".to_owned()))?;
    let response = transport.send(request).map_err(|e| error(e.to_string()))?;
    if response.status() != 200 {
        return Err(error(format!("it answered with status {}", response.status().as_u16())));
    }
    let mut text = String::new();
    let body = response.into_body().into_reader().take(CREDENTIALS_LIMIT);
    { body }.read_to_string(&mut text).map_err(|e| error(e.to_string()))?;
    decode_base64(&text)
        .as_deref()
        .and_then(Credentials::parse)
        .ok_or_else(|| error("its answer must be `user:password` in base64".to_owned()))
}
