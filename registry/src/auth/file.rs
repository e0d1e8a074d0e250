//! The standard files of credentials: docker's `config.json` and containers' `auth.json`, which have one
//! format.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::{AuthError, Credentials, Secret, helper};
use crate::Environment;

/// How large such a file may be.
const FILE_LIMIT: u64 = 4 << 20;

/// What the registry of names without one is called in these files.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// Padding is written, and need not be there.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The files in which credentials may be, first those that somebody named.
pub(super) fn places(environment: &Environment) -> Vec<PathBuf> {
    let below_home = |path: &str| Some(environment.path("HOME")?.join(path));
    let config = environment.path("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
    [
        environment.path("DOCKER_CONFIG").map(|dir| dir.join("config.json")),
        environment.path("REGISTRY_AUTH_FILE"),
        environment.path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
        config.map(|dir| dir.join("containers/auth.json")),
        below_home(".docker/config.json"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The file that `login` writes: one that somebody named, else docker's.
pub(super) fn place_to_write(environment: &Environment) -> Result<PathBuf, AuthError> {
    environment
        .path("DOCKER_CONFIG")
        .map(|dir| dir.join("config.json"))
        .or_else(|| environment.path("REGISTRY_AUTH_FILE"))
        .or_else(|| Some(environment.path("HOME")?.join(".docker/config.json")))
        .ok_or(AuthError::NoPlace)
}

/// Such a file, with whatever else is in it.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    whole: Map<String, Json>,
    known: Known,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Known {
    auths: Option<BTreeMap<String, Entry>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

/// Holds secrets: its fields are not shown.
#[derive(Default, Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry")
    }
}

impl File {
    /// None if there is no such file, or nothing in it.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, AuthError> {
        // The parser's message may show what is in the file: only its place is told.
        let text = match drydock_io::read::read_to_string(path, FILE_LIMIT) {
            Ok(text) if text.trim().is_empty() => return Ok(None),
            Ok(text) => text,
            Err(e)
                if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(AuthError::File { path: path.to_owned(), reason: e.to_string() }),
        };
        let error = |e: serde_json::Error| {
            let reason = match e.line() {
                0 => "it is no file of credentials, as `docker login` writes it".to_owned(),
                line => format!("line {line}: it is no file of credentials, as `docker login` writes it"),
            };
            AuthError::File { path: path.to_owned(), reason }
        };
        let whole: Map<String, Json> = serde_json::from_str(&text).map_err(error)?;
        let known = Known::deserialize(Json::Object(whole.clone())).map_err(error)?;
        Ok(Some(Self { path: path.to_owned(), whole, known }))
    }

    /// A new one.
    pub(super) fn empty(path: &Path) -> Self {
        Self { path: path.to_owned(), whole: Map::new(), known: Known::default() }
    }

    /// The credentials for a repository, by the longest entry that holds it: `host/path`, up to `host`.
    pub(super) fn find(&self, registry: &str, repository: &str) -> Result<Option<Credentials>, AuthError> {
        if let Some(helper) = self.own_helper(registry) {
            return helper::get(helper, key_of(registry));
        }
        let mut name = format!("{registry}/{repository}");
        loop {
            for (_, entry) in self.entries(&name) {
                if let Some(credentials) = self.decode(entry)? {
                    return Ok(Some(credentials));
                }
            }
            match name.rfind('/') {
                Some(slash) => name.truncate(slash),
                None => break,
            }
        }
        match &self.known.creds_store {
            Some(helper) if !helper.is_empty() => helper::get(helper, key_of(registry)),
            _ => Ok(None),
        }
    }

    /// The helper that keeps a registry's credentials, in place of this file.
    pub(super) fn helper(&self, registry: &str) -> Option<&str> {
        self.own_helper(registry).or(self.known.creds_store.as_deref()).filter(|helper| !helper.is_empty())
    }

    fn own_helper(&self, registry: &str) -> Option<&str> {
        let mut helpers = self.known.cred_helpers.iter().flatten();
        let (_, helper) = helpers.find(|(key, _)| is_same(key, registry))?;
        Some(helper).filter(|helper| !helper.is_empty()).map(String::as_str)
    }

    fn entries<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a String, &'a Entry)> {
        self.known.auths.iter().flatten().filter(move |(key, _)| is_same(key, name))
    }

    fn decode(&self, entry: &Entry) -> Result<Option<Credentials>, AuthError> {
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = set(&entry.identitytoken) {
            return Ok(Some(Credentials::Identity(Secret(token))));
        }
        if let Some(auth) = set(&entry.auth) {
            let decoded =
                decode_base64(&auth).and_then(|text| Credentials::parse(text.trim_end_matches('\0')));
            let reason = "an `auth` is not `user:password` in base64".to_owned();
            return decoded.map(Some).ok_or_else(|| AuthError::File { path: self.path.clone(), reason });
        }
        Ok(set(&entry.username)
            .zip(set(&entry.password))
            .map(|(user, password)| Credentials::Password { user, password: Secret(password) }))
    }

    /// The file's text with these credentials for a registry; without any, if there are none. Says as well
    /// whether there were any.
    pub(super) fn with(&self, registry: &str, credentials: Option<&Credentials>) -> (String, bool) {
        let mut whole = self.whole.clone();
        let auths = whole.entry("auths").or_insert_with(|| json!({}));
        let mut entries = auths.as_object().cloned().unwrap_or_default();
        let before = entries.len();
        entries.retain(|key, _| !is_same(key, registry));
        let had_any = entries.len() < before;
        match credentials {
            Some(Credentials::Password { user, password }) => {
                let auth = BASE64.encode(format!("{user}:{}", password.0));
                entries.insert(key_of(registry).to_owned(), json!({ "auth": auth }));
            }
            Some(Credentials::Identity(token)) => {
                entries.insert(key_of(registry).to_owned(), json!({ "identitytoken": token.0 }));
            }
            None => {}
        }
        *auths = Json::Object(entries);
        (format!("{:#}\n", Json::Object(whole)), had_any)
    }
}

/// Text in base64, if it is that.
pub(super) fn decode_base64(text: &str) -> Option<String> {
    String::from_utf8(BASE64.decode(text.trim()).ok()?).ok()
}

/// What a registry is called in such a file, and by helpers.
pub(super) fn key_of(registry: &str) -> &str {
    if registry == "index.docker.io" { HUB_KEY } else { registry }
}

/// Whether an entry is for this registry, or registry and path. Old entries are URLs.
fn is_same(key: &str, name: &str) -> bool {
    let normal = |text: &str| match text {
        "docker.io" | "registry-1.docker.io" => "index.docker.io".to_owned(),
        other => other.to_owned(),
    };
    let url = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let key = url.map_or(key, |rest| rest.split('/').next().unwrap_or_default());
    normal(key.trim_end_matches('/')) == normal(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        File::read(&path).unwrap().unwrap()
    }

    fn user(found: Option<Credentials>) -> String {
        match found {
            Some(Credentials::Password { user, password }) => format!("{user}:{}", password.0),
            Some(Credentials::Identity(token)) => token.0,
            None => String::new(),
        }
    }

    #[test]
    fn entries_are_found_by_host_and_path() {
        // "a:1", "b:2:3" and "c:4" in base64.
        let file = file(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "YToxCg=="},
                "r.io": {"auth": "YjoyOjM"},
                "r.io/team": {"username": "t", "password": "5"},
                "r.io/team/app": {"auth": "Yzo0AAA="},
                "http://old.io:5000/v2/": {"identitytoken": "token", "auth": "eDp5"},
                "empty.io": {}
            }, "credHelpers": null}"#,
        );
        for (registry, repository, want) in [
            ("index.docker.io", "library/node", "a:1"),
            ("r.io", "other/app", "b:2:3"),
            ("r.io", "team/other", "t:5"),
            ("r.io", "team/app", "c:4"),
            ("r.io", "team/app/more", "c:4"),
            ("r.io", "teams/app", "b:2:3"),
            ("old.io:5000", "x", "token"),
            ("old.io", "x", ""),
            ("r.io.evil.io", "team", ""),
            ("empty.io", "x", ""),
        ] {
            assert_eq!(user(file.find(registry, repository).unwrap()), want, "{registry}/{repository}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        assert!(File::read(&path).unwrap().is_none());
        assert!(File::read(&path.join("below")).unwrap().is_none());
        for text in [
            r#"{"auths": {"r.io": {"auth": "hunter2"}"#,
            r#"{"auths": {"r.io": "hunter2"}}"#,
            "hunter2",
            r#"["hunter2"]"#,
        ] {
            std::fs::write(&path, text).unwrap();
            let message = File::read(&path).unwrap_err().to_string();
            assert!(message.contains("config.json") && !message.contains("hunter2"), "{message}");
        }
        std::fs::write(&path, r#"{"auths": {"r.io": {"auth": "hunter2!"}}}"#).unwrap();
        let file = File::read(&path).unwrap().unwrap();
        let message = file.find("r.io", "x").unwrap_err().to_string();
        assert!(message.contains("base64") && !message.contains("hunter2"), "{message}");
        assert!(!format!("{:?}", file.known).contains("hunter2"));
    }

    #[test]
    fn editing_keeps_what_else_is_there() {
        let before = file(
            r#"{"auths": {"https://docker.io/": {"auth": "eDp5"}, "r.io": {"auth": "eDp5", "x": 1}}, "psFormat": "table", "z": [1]}"#,
        );
        let new = Credentials::parse("user:pass:word").unwrap();
        let (text, had_any) = before.with("index.docker.io", Some(&new));
        assert!(had_any);
        let after = file(&text);
        assert_eq!(user(after.find("index.docker.io", "x").unwrap()), "user:pass:word");
        let json: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(json["auths"]["r.io"], json!({"auth": "eDp5", "x": 1}));
        assert_eq!((&json["psFormat"], &json["z"]), (&json!("table"), &json!([1])));
        let (text, had_any) = after.with("index.docker.io", None);
        assert!(had_any);
        assert!(file(&text).find("index.docker.io", "x").unwrap().is_none());
        assert!(!file(&text).with("index.docker.io", None).1);
    }

    #[test]
    fn places_that_somebody_named_come_first() {
        let environment: Environment =
            [("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/1"), ("REGISTRY_AUTH_FILE", "/a.json")]
                .into_iter()
                .collect();
        let paths = [
            "/a.json",
            "/run/1/containers/auth.json",
            "/h/.config/containers/auth.json",
            "/h/.docker/config.json",
        ];
        assert_eq!(places(&environment), paths.map(PathBuf::from));
        assert_eq!(place_to_write(&environment).unwrap(), Path::new("/a.json"));
        let environment: Environment = [("HOME", "/h"), ("DOCKER_CONFIG", "/d")].into_iter().collect();
        assert_eq!(place_to_write(&environment).unwrap(), Path::new("/d/config.json"));
        assert!(place_to_write(&Environment::default()).is_err());
    }
}
