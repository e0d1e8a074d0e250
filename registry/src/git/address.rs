//! How the address of a git repository is written, and what of the repository is wanted.

use std::fmt;
use std::str::FromStr;

use crate::url::normal_name;

/// A text that is no address of a git repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no address of a git repository: {reason}")]
pub struct InvalidGitAddress {
    /// As it was given, unless a password may be in it.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitScheme {
    /// HTTPS.
    Https,
    /// HTTP without TLS: only of hosts that are said to have that.
    Http,
    /// SSH.
    Ssh,
    /// A folder of this machine.
    File,
}

impl GitScheme {
    /// As git names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::File => "file",
        }
    }

    /// The one that need not be said.
    fn port(self) -> u16 {
        match self {
            Self::Https | Self::File => 443,
            Self::Http => 80,
            Self::Ssh => 22,
        }
    }
}

/// Where a git repository is, or where the addresses of several begin: `SCHEME://[USER@]HOST[:PORT]/PATH`. It holds no password, and
/// nothing in it is an option of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitUrl {
    /// How it is reached.
    pub scheme: GitScheme,
    /// Of SSH alone.
    user: Option<String>,
    /// In lower case, with the port unless it is the scheme's own; empty for folders.
    pub host: String,
    /// Without a slash at either end, and without `.git`, which names the same repository everywhere.
    pub path: String,
    has_suffix: bool,
}

impl GitUrl {
    /// Scheme, user and host.
    fn beginning(&self) -> String {
        let user = self.user.as_deref().map_or(String::new(), |user| format!("{user}@"));
        format!("{}://{user}{}", self.scheme.name(), self.host)
    }

    /// The part of the path that follows another address, if this one lies below that.
    pub fn below<'a>(&'a self, other: &Self) -> Option<&'a str> {
        if self.beginning() != other.beginning() {
            return None;
        }
        match (self.path.strip_prefix(&*other.path)?, other.path.is_empty()) {
            (rest, true) => Some(rest),
            ("", false) => Some(""),
            (rest, false) => rest.strip_prefix('/'),
        }
    }

    /// The address of something below this one.
    pub fn join(&self, path: &str) -> Result<Self, InvalidGitAddress> {
        let separator = if self.path.is_empty() { "" } else { "/" };
        format!("{}/{}{separator}{path}", self.beginning(), self.path).parse()
    }
}

/// As git takes it.
impl fmt::Display for GitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = if self.has_suffix { ".git" } else { "" };
        write!(f, "{}/{}{suffix}", self.beginning(), self.path)
    }
}

impl FromStr for GitUrl {
    type Err = InvalidGitAddress;

    fn from_str(given: &str) -> Result<Self, InvalidGitAddress> {
        // Before the last `@`, and in a query, there may be a password.
        let shown = given.rsplit('@').next().and_then(|rest| rest.split('?').next()).unwrap_or_default();
        let wrong = |reason: &str| InvalidGitAddress { text: shown.to_owned(), reason: reason.to_owned() };
        let text = given.strip_prefix("git+").unwrap_or(given);
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let scheme = match scheme {
            "https" => GitScheme::Https,
            "http" => GitScheme::Http,
            "ssh" => GitScheme::Ssh,
            "file" => GitScheme::File,
            _ => return Err(wrong("it begins with `git+https://`, `git+ssh://` or `git+file://`")),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let is_word = |text: &str| {
            text.starts_with(|first: char| first.is_ascii_alphanumeric())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        match (scheme, user) {
            (_, None) => {}
            (GitScheme::Ssh, Some(user)) if is_word(user) => {}
            (GitScheme::Ssh, Some(_)) => {
                return Err(wrong("its user has other characters than letters, digits and `-._`"));
            }
            _ => {
                let reason = "a user and a token do not belong into it: `drydock login`, `auth` in the file of sources, or a \
                              credential helper of git has them";
                return Err(wrong(reason));
            }
        }
        let host = match scheme {
            GitScheme::File if host.is_empty() => String::new(),
            GitScheme::File => return Err(wrong("a folder of this machine has no host: `git+file:///DIR`")),
            _ => {
                let name = normal_name(host, scheme.port()).unwrap_or_default();
                if !name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[') {
                    return Err(wrong("it has no host"));
                }
                name
            }
        };
        let path = path.trim_matches('/');
        let is_plain = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+=@,".contains(&b))
        };
        if !path.is_empty() && !path.split('/').all(is_plain) {
            return Err(wrong(
                "its path has other characters than letters, digits and `-._~+=@,`, or a `..`",
            ));
        }
        // Not of what would be no name without it.
        let without = path.strip_suffix(".git").filter(|rest| rest.split('/').all(is_plain));
        Ok(Self {
            scheme,
            user: user.map(str::to_owned),
            host,
            path: without.unwrap_or(path).to_owned(),
            has_suffix: without.is_some(),
        })
    }
}

/// Which commit of a repository is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revision {
    /// The one that the repository shows first: `HEAD`.
    Head,
    /// The last one of a branch, or that of a tag; `refs/heads/NAME` and `refs/tags/NAME` say which.
    Name(String),
    /// The one with this hash, which must be on a branch, or lead to a tag.
    Commit(String),
    /// The one with this hash, which must be on this branch.
    OnBranch {
        /// The branch.
        branch: String,
        /// The hash.
        commit: String,
    },
}

impl Revision {
    fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "what follows the `#` is neither a branch nor a tag nor a hash";
        if text.is_empty() {
            return Ok(Self::Head);
        }
        if is_hash(text) {
            return Ok(Self::Commit(text.to_ascii_lowercase()));
        }
        if let Some((branch, commit)) = text.rsplit_once('@').filter(|(_, commit)| is_hash(commit)) {
            let branch = branch.strip_prefix("refs/heads/").unwrap_or(branch).to_owned();
            let commit = commit.to_ascii_lowercase();
            return if is_name(&branch) { Ok(Self::OnBranch { branch, commit }) } else { Err(WRONG) };
        }
        if is_name(text) { Ok(Self::Name(text.to_owned())) } else { Err(WRONG) }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => Ok(()),
            Self::Name(name) => f.write_str(name),
            Self::Commit(commit) => f.write_str(commit),
            Self::OnBranch { branch, commit } => write!(f, "{branch}@{commit}"),
        }
    }
}

/// Whether it is a whole hash: SHA-1 or SHA-256.
pub(super) fn is_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a branch or a tag may be called so (`git check-ref-format`).
fn is_name(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && !part.starts_with(['.', '-']) && part.strip_suffix(".lock").is_none()
    };
    let is_plain = |c: char| !c.is_control() && !c.is_whitespace() && !"~^:?*[\\".contains(c);
    text.len() <= 255
        && text != "@"
        && !text.ends_with('.')
        && !text.contains("..")
        && !text.contains("@{")
        && text.chars().all(is_plain)
        && text.split('/').all(is_part)
}

/// What of a git repository is wanted: `git+SCHEME://HOST/PATH[#[REVISION][:FOLDER]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitAddress {
    /// Where the repository is.
    pub url: GitUrl,
    /// Which commit.
    pub revision: Revision,
    /// The folder there; nothing else of the commit is to be seen.
    pub folder: Option<String>,
}

impl GitAddress {
    /// With what follows a `#`.
    pub fn new(url: GitUrl, fragment: &str) -> Result<Self, InvalidGitAddress> {
        let wrong =
            |reason: &str| InvalidGitAddress { text: format!("{url}#{fragment}"), reason: reason.to_owned() };
        if url.path.is_empty() {
            return Err(wrong("it has no path"));
        }
        let (revision, folder) = match fragment.split_once(':') {
            Some((revision, folder)) => (revision, Some(folder.trim_matches('/'))),
            None => (fragment, None),
        };
        let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_control);
        if folder.is_some_and(|folder| !folder.is_empty() && !folder.split('/').all(is_plain)) {
            return Err(wrong("its folder leads out of the repository, or is none"));
        }
        let revision = Revision::parse(revision).map_err(wrong)?;
        let folder = folder.filter(|folder| !folder.is_empty()).map(str::to_owned);
        Ok(Self { url, revision, folder })
    }
}

impl FromStr for GitAddress {
    type Err = InvalidGitAddress;

    fn from_str(text: &str) -> Result<Self, InvalidGitAddress> {
        let (url, fragment) = text.split_once('#').unwrap_or((text, ""));
        Self::new(url.parse()?, fragment)
    }
}

impl fmt::Display for GitAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "git+{}", self.url)?;
        match (&self.revision, &self.folder) {
            (Revision::Head, None) => Ok(()),
            (revision, None) => write!(f, "#{revision}"),
            (revision, Some(folder)) => write!(f, "#{revision}:{folder}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn addresses_say_where_and_what() {
        let on_branch = format!("git+https://h.io/a#rel/1@{HASH}");
        for (text, url, revision, folder) in [
            ("git+https://H.io:443/acme/app.git", "https://h.io/acme/app.git", Revision::Head, None),
            ("https://h.io/a/", "https://h.io/a", Revision::Head, None),
            ("git+http://h.io:8080/a#main", "http://h.io:8080/a", Revision::Name("main".into()), None),
            ("git+ssh://git@h.io:22/a#:sub/b/", "ssh://git@h.io/a", Revision::Head, Some("sub/b")),
            ("git+ssh://h.io:2222/~me/a", "ssh://h.io:2222/~me/a", Revision::Head, None),
            ("git+https://h.io/a/..git", "https://h.io/a/..git", Revision::Head, None),
            ("git+https://h.io/a/...git", "https://h.io/a/...git", Revision::Head, None),
            ("git+file:///srv/a.git#v1@2:x", "file:///srv/a.git", Revision::Name("v1@2".into()), Some("x")),
            (
                &on_branch,
                "https://h.io/a",
                Revision::OnBranch { branch: "rel/1".into(), commit: HASH.into() },
                None,
            ),
        ] {
            let address: GitAddress = text.parse().unwrap();
            assert_eq!((address.url.to_string().as_str(), &address.revision), (url, &revision), "{text}");
            assert_eq!(address.folder.as_deref(), folder, "{text}");
            assert!(!address.url.path.split('/').any(|name| matches!(name, "" | "." | "..")), "{text}");
            assert_eq!(address.to_string().parse(), Ok(address), "{text}");
        }
        let upper: GitAddress = format!("git+https://h.io/a#{}", HASH.to_uppercase()).parse().unwrap();
        assert_eq!(upper.revision, Revision::Commit(HASH.to_owned()));
    }

    #[test]
    fn what_may_be_an_option_or_a_secret_is_refused() {
        for text in [
            "git@h.io:acme/app.git",
            "git+ftp://h.io/a",
            "ext::sh -c touch% /tmp/x",
            "git+ext://sh/a",
            "--upload-pack=touch /tmp/x",
            "git+https://user:hunter2@h.io/a",
            "git+https://hunter2@h.io/a",
            "git+ssh://git:hunter2@h.io/a",
            "git+ssh://-oProxyCommand=x/a",
            "git+ssh://-x@h.io/a",
            "git+https:///a",
            "git+https://h.io",
            "git+https://h.io/",
            "git+file://h.io/a",
            "git+https://h.io/a/../b",
            "git+https://h.io/a%2e%2e/b",
            "git+https://h.io/a?token=hunter2",
            "git+https://h.io/a//b",
            "git+https://h.io/a b",
            "git+https://h.io/a#--upload-pack=x",
            "git+https://h.io/a#-x",
            "git+https://h.io/a#a..b",
            "git+https://h.io/a#a/-b",
            "git+https://h.io/a#main^",
            "git+https://h.io/a#x.lock",
            "git+https://h.io/a#+refs/heads/*",
            "git+https://h.io/a#main:../x",
            "git+https://h.io/a#main:x/../../y",
            "git+https://h.io/a#a b",
        ] {
            let error = text.parse::<GitAddress>().unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn addresses_lie_below_others() {
        let url = |text: &str| text.parse::<GitUrl>().unwrap();
        for (of, location, want) in [
            ("https://h.io/acme/app.git", "https://h.io/acme", Some("app")),
            ("https://h.io/acme/app", "https://h.io", Some("acme/app")),
            ("https://h.io/acme", "https://h.io/acme.git", Some("")),
            ("https://h.io/acmes/app", "https://h.io/acme", None),
            ("http://h.io/acme/app", "https://h.io/acme", None),
            ("https://h.io.evil/acme/app", "https://h.io", None),
            ("ssh://git@h.io/acme/app", "ssh://git@h.io/acme/", Some("app")),
            ("ssh://me@h.io/acme/app", "ssh://git@h.io/acme", None),
        ] {
            assert_eq!(url(of).below(&url(location)), want, "{of}");
        }
        assert_eq!(url("https://h.io").join("a/b.git").unwrap().to_string(), "https://h.io/a/b.git");
        assert!(url("https://h.io/a").join("../b").is_err());
    }
}
