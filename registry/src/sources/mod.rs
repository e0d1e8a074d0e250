//! `sources.toml`: what may come from where.
//!
//! ```toml
//! strict = true                       # what no source allows is refused
//!
//! [source.hub]                        # `drydock import hub/library/node:22`
//! kind = "registry"                   # or archive, layout, rootfs, dockerfile, git
//! location = "docker.io"              # a registry, and where its paths begin; else a folder or URL
//! mirrors = ["mirror.acme.example/hub"]   # tried in order, before the location
//! allow = ["library/*", "acme/**"]    # nothing means all; `*` stays within a `/`, `**` does not
//! deny = ["library/*:nightly*"]       # stronger than `allow`; with a tag, if there is a `:`
//! platforms = ["linux/amd64"]         # nothing means all
//! flatten = false
//! require-digest = false              # only by digest, or with a lock file
//! auth = "default"                    # or { user-file = "FILE" }, { env = "VARIABLE" }, { webhook = "URL" }
//! images = ["library/node:22"]        # what `drydock import --all` brings
//!
//! [source.code]                       # `drydock import code/shop#v1.2 acme/shop`
//! kind = "git"                        # repositories in which Dockerfiles are
//! location = "https://git.acme.example/web"
//! allow = ["shop", "tools/*#release-*"]   # with a branch, tag or hash, if there is a `#`
//! auth = { user-file = "git-token" }
//!
//! [host."mirror.acme.example"]
//! ca-file = "acme.pem"                # or: plain-http = true
//! ```
//!
//! Paths are relative to the file's folder. `auth` is for the location's host; mirrors have the standard
//! credentials. Only registries and git repositories have credentials.
//!
//! - `dockerfile`: folders and archives from which images are built, below a folder or a URL. Of those that are built from a
//!   git repository, `git` says what is allowed. Base images are those of registries: theirs are the rules for them.
//! - `git`: the location is `https://HOST[/PATH]`, `ssh://[USER@]HOST[/PATH]` or `file:///PATH`. `.git` at the end of a
//!   repository's name makes no difference. With `require-digest`, a commit is named by its whole hash; a lock file has
//!   nothing of git repositories, since a hash says it all.
//! - An import of everything builds what `dockerfile` and `git` list, too: `shop#v1.2` of the source above becomes the
//!   image `code/shop:v1.2`.

mod find;
mod lock;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use drydock_model::platform::{InvalidPlatform, Platform};
use drydock_model::reference::ImageRef;
use drydock_spec::toml_text;
use serde::{Deserialize, Deserializer};

pub use find::{Found, Place, Refused};
pub use lock::Lock;

use crate::auth::Auth;
use crate::git::{GitScheme, GitUrl};
use crate::url::{Origin, registry_name};
use crate::{Environment, Host};

/// How large such a file may be, in bytes.
pub const FILE_LIMIT: u64 = 4 << 20;

/// A file of sources. Without one, everything is allowed, from where its name says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sources {
    /// Whether what no source allows is refused.
    #[serde(default)]
    pub strict: bool,
    /// By their names, which imports begin with.
    #[serde(default, rename = "source")]
    pub sources: BTreeMap<String, Source>,
    #[serde(default, rename = "host")]
    hosts: BTreeMap<String, HostTable>,
}

/// Where images come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Source {
    /// What is there.
    pub kind: Kind,
    /// A registry, with the beginning of a path if any; a git repository, or where the addresses of several begin; else a
    /// folder, a file or a URL.
    pub location: String,
    /// Other locations, tried in order, before `location`.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// Which names are allowed: all, if there is none.
    #[serde(default)]
    allow: Vec<Pattern>,
    /// Which are not, even so.
    #[serde(default)]
    deny: Vec<Pattern>,
    /// Which platforms are wanted: all, if there is none.
    #[serde(default, deserialize_with = "platforms")]
    pub platforms: Vec<Platform>,
    /// Whether images become one layer.
    #[serde(default)]
    pub flatten: bool,
    /// Whether only images named by digest, or locked, are allowed.
    #[serde(default)]
    pub require_digest: bool,
    /// Where the credentials for the location are.
    #[serde(default)]
    pub auth: Auth,
    /// What an import of everything brings, without the source's name.
    #[serde(default)]
    pub images: Vec<String>,
}

/// What is at a location.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A registry.
    Registry,
    /// Archives of images.
    Archive,
    /// OCI image layouts.
    Layout,
    /// File trees, or tar files of them.
    Rootfs,
    /// Folders with Dockerfiles, or tar files of them.
    Dockerfile,
    /// Git repositories with Dockerfiles.
    Git,
}

/// What is special about a host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct HostTable {
    #[serde(default)]
    plain_http: bool,
    ca_file: Option<PathBuf>,
}

/// A pattern of names: `*` and `?` stay within a part, `**` stands for any number of parts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Pattern(glob::Pattern);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        glob::Pattern::new(&text).map(Self).map_err(|e| format!("`{text}` is not a pattern of names: {e}"))
    }
}

impl Pattern {
    /// Whether it means this name, which is matched with its tag or digest if the pattern has one. The version begins with one of
    /// `marks`.
    fn matches(&self, name: &str, version: &str, marks: &[char]) -> bool {
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        let has_version = self.0.as_str().contains(marks);
        let text = if has_version { format!("{name}{version}") } else { name.to_owned() };
        self.0.matches_with(&text, options)
    }
}

/// A file of sources or digests that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{}`: {reason}", path.display())]
pub struct SourcesError {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub reason: String,
}

impl Sources {
    /// The file that is to be used: the given one, that in `DRYDOCK_SOURCES`, or the first that is there of
    /// `$XDG_CONFIG_HOME/drydock/sources.toml` (by default below `~/.config`) and
    /// `/etc/drydock/sources.toml`.
    pub fn path(given: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
        let config = environment.path("XDG_CONFIG_HOME");
        let config = config.or_else(|| Some(environment.path("HOME")?.join(".config")));
        given.map(Path::to_owned).or_else(|| environment.path("DRYDOCK_SOURCES")).or_else(|| {
            let folders = config.into_iter().chain([PathBuf::from("/etc")]);
            folders.map(|folder| folder.join("drydock/sources.toml")).find(|path| path.exists())
        })
    }

    /// Reads a file of at most [`FILE_LIMIT`] bytes.
    pub fn read(path: &Path) -> Result<Self, SourcesError> {
        let error = |reason: String| SourcesError { path: path.to_owned(), reason };
        let text = drydock_io::read::read_to_string(path, FILE_LIMIT).map_err(|e| error(e.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let folder = std::path::absolute(folder.join(".")).map_err(|e| error(e.to_string()))?;
        Self::parse(&text, &folder).map_err(error)
    }

    /// From the text of a file in this folder.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let mut sources: Self = toml_text::from_str(text).map_err(|e| e.to_string())?;
        for (name, host) in &mut sources.hosts {
            host.ca_file = host.ca_file.take().map(|path| folder.join(path));
            if host.plain_http && host.ca_file.is_some() {
                return Err(format!("host `{name}`: with `plain-http` there is no use for a `ca-file`"));
            }
        }
        let hosts = sources.hosts.clone();
        for (name, source) in &mut sources.sources {
            source.complete(name, folder, &hosts).map_err(|reason| format!("source `{name}`: {reason}"))?;
        }
        Ok(sources)
    }

    /// What is special about hosts, for a client that reads from this source.
    pub fn hosts(&self, source: Option<&Source>) -> BTreeMap<String, Host> {
        let settings = |host: &HostTable| Host {
            plain_http: host.plain_http,
            ca_file: host.ca_file.clone(),
            auth: Auth::Default,
        };
        let mut hosts: BTreeMap<_, _> =
            self.hosts.iter().map(|(name, host)| (registry_name(name).to_owned(), settings(host))).collect();
        if let Some(source) = source
            && let Some(host) = source.host()
        {
            hosts.entry(host).or_default().auth = source.auth.clone();
        }
        hosts
    }

    /// All images that sources list, by the names that [`Sources::find`] takes.
    pub fn images(&self) -> impl Iterator<Item = String> {
        let listed = |(name, source): (&String, &Source)| -> Vec<String> {
            source.images.iter().map(|image| format!("{name}/{image}")).collect()
        };
        self.sources.iter().flat_map(listed)
    }
}

impl Source {
    /// Whose credentials it has, if it may have any.
    fn host(&self) -> Option<String> {
        match self.kind {
            Kind::Registry => Some(Prefix::parse(&self.location).ok()?.registry),
            Kind::Git => Some(registry_name(&git_url(&self.location)?.host).to_owned()),
            Kind::Archive | Kind::Layout | Kind::Rootfs | Kind::Dockerfile => None,
        }
    }

    /// Checks what types cannot say, and makes paths absolute.
    fn complete(
        &mut self,
        name: &str,
        folder: &Path,
        hosts: &BTreeMap<String, HostTable>,
    ) -> Result<(), String> {
        let is_word = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if name.is_empty() || !is_word || name == "localhost" {
            return Err("a source's name has letters, digits, `-` and `_`, and is not `localhost`".to_owned());
        }
        for location in self.mirrors.iter_mut().chain([&mut self.location]) {
            match self.kind {
                Kind::Registry => drop(Prefix::parse(location)?),
                Kind::Git => drop(location.parse::<GitUrl>().map_err(|e| e.to_string())?),
                _ if is_url(location) => {}
                _ => {
                    let path = folder.join(&*location);
                    path.to_str().ok_or("its location must be UTF-8")?.clone_into(location);
                }
            }
        }
        match &mut self.auth {
            Auth::UserFile(path) => *path = folder.join(&*path),
            Auth::Webhook(url) => {
                let origin = url.parse().ok().as_ref().and_then(Origin::of);
                let origin = origin.ok_or("the webhook must be a URL of HTTPS, without a user")?;
                let may = |origin: &Origin| hosts.get(&origin.host).is_some_and(|host| host.plain_http);
                if !origin.is_https && !origin.is_this_machine() && !may(&origin) {
                    return Err(format!(
                        "the webhook must have HTTPS; or say `[host.\"{}\"]` with `plain-http = true`",
                        origin.host
                    ));
                }
            }
            Auth::Default | Auth::Env(_) | Auth::Given(_) => {}
        }
        let may_have_auth = match self.kind {
            Kind::Registry => true,
            Kind::Git => git_url(&self.location)
                .is_some_and(|url| matches!(url.scheme, GitScheme::Https | GitScheme::Http)),
            Kind::Archive | Kind::Layout | Kind::Rootfs | Kind::Dockerfile => false,
        };
        if !may_have_auth && self.auth != Auth::Default {
            return Err("only a registry, and git repositories at `https://`, have `auth`".to_owned());
        }
        Ok(())
    }
}

/// What all references of a source begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Prefix {
    registry: String,
    /// Without `/` at its ends; may be empty.
    path: String,
}

impl Prefix {
    fn parse(location: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "the location `{location}` must be a registry, as in `docker.io` or `r.example:5000/team`"
            )
        };
        let probe: ImageRef = format!("{location}/x/y").parse().map_err(|_| wrong())?;
        let path = probe.repository().strip_suffix("x/y").ok_or_else(wrong)?.trim_end_matches('/');
        let registry = probe.registry().to_owned();
        // Without a host, it would be a path at the default registry.
        let host = location.split('/').next().unwrap_or_default();
        if registry_name(host) == registry {
            Ok(Self { registry, path: path.to_owned() })
        } else {
            Err(wrong())
        }
    }
}

/// The location of a source of git repositories, which was checked.
fn git_url(location: &str) -> Option<GitUrl> {
    location.parse().ok()
}

fn is_url(location: &str) -> bool {
    location.starts_with("https://") || location.starts_with("http://")
}

fn platforms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Platform>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let parse = |name: String| name.parse().map_err(|e: InvalidPlatform| serde::de::Error::custom(e));
    names.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_file() {
        let documented: String = include_str!("mod.rs")
            .lines()
            .skip_while(|line| *line != "//! ```toml")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| line.trim_start_matches("//!").to_owned() + "\n")
            .collect();
        let sources = Sources::parse(&documented, Path::new("/etc/drydock")).unwrap();
        let hub = &sources.sources["hub"];
        assert_eq!((hub.kind, hub.location.as_str(), sources.strict), (Kind::Registry, "docker.io", true));
        assert_eq!(hub.platforms, [Platform::linux("amd64")]);
        let hosts = sources.hosts(Some(hub));
        assert_eq!(hosts["mirror.acme.example"].ca_file.as_deref(), Some(Path::new("/etc/drydock/acme.pem")));
        assert_eq!(sources.images().collect::<Vec<_>>(), ["hub/library/node:22"]);
    }

    #[test]
    fn credentials_are_for_the_location_only() {
        let text = "[source.a]\nkind = 'registry'\nlocation = 'docker.io/acme'\nmirrors = ['m.io']\nauth = { env = 'X' }\n\
                    [host.'docker.io']\nplain-http = true\n[host.'m.io']\nplain-http = true";
        let sources = Sources::parse(text, Path::new("/")).unwrap();
        let hosts = sources.hosts(sources.sources.get("a"));
        let x = Auth::Env("X".to_owned());
        assert_eq!(hosts["index.docker.io"], Host { plain_http: true, ca_file: None, auth: x });
        assert_eq!(hosts["m.io"].auth, Auth::Default);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let registry = "[source.a]\nkind = 'registry'\nlocation = 'r.io'\n";
        for (text, want) in [
            ("strictly = true", "unknown field `strictly`, expected one of `strict`, `source`, `host`"),
            (&format!("{registry}alow = []"), "unknown field `alow`"),
            (&format!("{registry}allow = ['[']"), "`[` is not a pattern"),
            (&format!("{registry}platforms = ['amd64']"), "`amd64` is not a platform"),
            (
                &format!("{registry}auth = 'keyring'"),
                "unknown variant `keyring`, expected one of `default`, `user-file`",
            ),
            (&format!("{registry}auth = {{ webhook = 'http://h.io/' }}"), "the webhook must have HTTPS"),
            (&format!("{registry}auth = {{ webhook = 'https://u:p@h.io/' }}"), "without a user"),
            (&format!("{registry}mirrors = ['acme']"), "the location `acme` must be a registry"),
            ("[source.'a.b']\nkind = 'registry'\nlocation = 'r.io'", "source `a.b`: a source's name"),
            ("[source.a]\nkind = 'svn'\nlocation = 'x'", "unknown variant `svn`, expected one of `registry`"),
            ("[source.a]\nkind = 'git'\nlocation = 'x'", "`x` is no address of a git repository"),
            (
                "[source.a]\nkind = 'git'\nlocation = 'https://u:hunter2@h.io'",
                "`h.io` is no address of a git repository: a user and a token do not belong into it",
            ),
            ("[source.a]\nkind = 'registry'", "missing field `location`"),
            ("[source.a]\nkind = 'layout'\nlocation = 'x'\nauth = { env = 'X' }", "have `auth`"),
            ("[source.a]\nkind = 'git'\nlocation = 'ssh://h.io'\nauth = { env = 'X' }", "have `auth`"),
            ("[host.'r.io']\nplain-http = true\nca-file = 'x'", "there is no use for a `ca-file`"),
        ] {
            let message = Sources::parse(text, Path::new("/etc")).unwrap_err();
            assert!(message.contains(want), "{text}\n{message}");
        }
        for webhook in ["http://localhost:1/", "http://[::1]/", "https://h.io/x"] {
            Sources::parse(&format!("{registry}auth = {{ webhook = '{webhook}' }}"), Path::new("/")).unwrap();
        }
    }

    #[test]
    fn the_first_file_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let mine = dir.path().join("drydock/sources.toml");
        let xdg = [("XDG_CONFIG_HOME", dir.path().to_owned())];
        let both = [xdg[0].clone(), ("DRYDOCK_SOURCES", PathBuf::from("/variable"))];
        let path =
            |given: Option<&str>, environment: Environment| Sources::path(given.map(Path::new), &environment);
        assert_ne!(path(None, xdg.clone().into_iter().collect()), Some(mine.clone()));
        std::fs::create_dir(dir.path().join("drydock")).unwrap();
        std::fs::write(&mine, "strict = true").unwrap();
        assert_eq!(path(None, xdg.into_iter().collect()), Some(mine.clone()));
        assert_eq!(path(None, both.clone().into_iter().collect()), Some("/variable".into()));
        assert_eq!(path(Some("/given"), both.into_iter().collect()), Some("/given".into()));
        assert!(Sources::read(&mine).unwrap().strict);
        assert!(Sources::read(dir.path()).unwrap_err().to_string().contains("not a regular file"));
    }
}
