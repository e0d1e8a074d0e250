//! Image references, and the folder of a layout repository that each stands for.
//!
//! The grammar is the one that registries' clients use, read leniently: `[registry/]repository[:tag][@digest]` with
//! the defaults `index.docker.io`, `library/` and `latest`. A reference maps to
//! `<layout dir>/<registry>/<repository>/<tag>` or `…/<repository>/<algorithm>/<hex>`.
//! Specification: `platform.md` § Map an image reference to a path in the layout directory.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::digest::Digest;

const DEFAULT_REGISTRY: &str = "index.docker.io";
const DEFAULT_TAG: &str = "latest";

/// A text that is no image reference, or one that would lead out of the layout directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not parse reference: `{}`: {reason}", shown(text))]
pub struct ReferenceError {
    text: String,
    reason: &'static str,
}

/// A name as it may be shown: who takes it for a URL gives a password in it.
pub fn shown(name: &str) -> String {
    let (scheme, rest) = name.split_at(name.find("://").map_or(0, |at| at + "://".len()));
    match rest.rsplit_once('@') {
        Some((user, host)) if user.contains(':') && !host.starts_with("sha256:") => {
            format!("{scheme}…@{host}")
        }
        _ => name.to_owned(),
    }
}

/// What picks an image out of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Version {
    Tag(String),
    Digest(Digest),
}

/// A parsed image reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRef {
    registry: String,
    repository: String,
    version: Version,
}

impl ImageRef {
    /// The registry's host, with its port if it has one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's path in its registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, unless a digest is named.
    pub fn tag(&self) -> Option<&str> {
        match &self.version {
            Version::Tag(tag) => Some(tag),
            Version::Digest(_) => None,
        }
    }

    /// The digest, if one is named.
    pub fn digest(&self) -> Option<Digest> {
        match &self.version {
            Version::Tag(_) => None,
            Version::Digest(digest) => Some(*digest),
        }
    }

    /// What has this digest, in the same repository.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { version: Version::Digest(digest), ..self.clone() }
    }

    /// The tag, or the whole digest: what `org.opencontainers.image.ref.name` is set to.
    fn version_name(&self) -> String {
        match &self.version {
            Version::Tag(tag) => tag.clone(),
            Version::Digest(digest) => digest.to_string(),
        }
    }

    fn relative_path(&self) -> PathBuf {
        let path = Path::new(&self.registry).join(&self.repository);
        match &self.version {
            Version::Tag(tag) => path.join(tag),
            Version::Digest(digest) => path.join("sha256").join(digest.hex()),
        }
    }

    /// Registry and repository without tag or digest: what two names of one image have in common.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if matches!(self.version, Version::Tag(_)) { ':' } else { '@' };
        write!(f, "{}/{}{separator}{}", self.registry, self.repository, self.version_name())
    }
}

impl FromStr for ImageRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let error = |reason| ReferenceError { text: text.to_owned(), reason };
        let (name, digest) = match text.split_once('@') {
            None => (text, None),
            Some((name, digest)) => match digest.parse() {
                Ok(digest) => (name, Some(digest)),
                Err(_) => {
                    return Err(error("what follows `@` must be `sha256:` and 64 lower-case hex digits"));
                }
            },
        };
        // A colon before the last slash belongs to the registry's port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((rest, tag)) if !tag.contains(['/', ']']) => (rest, Some(tag)),
            _ => (name, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(error(
                "a tag has 1 to 128 letters, digits, `_`, `.` and `-`, and begins with none of the last two",
            ));
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':', '[']) || first == "localhost" => (first, rest),
            _ => (DEFAULT_REGISTRY, name),
        };
        let registry = if registry == "docker.io" { DEFAULT_REGISTRY } else { registry };
        if !is_registry(registry) {
            return Err(error("the registry must be a host name or address, with a port number if any"));
        }
        let repository =
            if registry == DEFAULT_REGISTRY && !repository.contains('/') && !repository.is_empty() {
                format!("library/{repository}")
            } else {
                repository.to_owned()
            };
        if !(2..=255).contains(&repository.len()) {
            return Err(error("a repository's name has 2 to 255 characters"));
        }
        if !repository.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'/')) {
            return Err(error(
                "a repository's name consists of lower-case letters, digits, `_`, `-`, `.` and `/`",
            ));
        }
        if repository.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(error("no part of a repository's name may be empty, `.` or `..`"));
        }
        let version = match digest {
            Some(digest) => Version::Digest(digest),
            None => Version::Tag(tag.unwrap_or(DEFAULT_TAG).to_owned()),
        };
        Ok(Self { registry: registry.to_owned(), repository, version })
    }
}

fn is_tag(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// `host`, `host:port`, `[v6 address]` or `[v6 address]:port`.
fn is_registry(text: &str) -> bool {
    let is_port =
        |port: &str| !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, port)| {
            address.parse::<std::net::Ipv6Addr>().is_ok()
                && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
        });
    }
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    port.is_none_or(is_port)
        && host.len() <= 253
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        && host.split('.').all(|label| !label.is_empty())
}

/// The folder that holds every image's layout: `CNB_OCI_LAYOUT_PATH`. Its own path may hold any character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutDir(PathBuf);

impl LayoutDir {
    /// `path` must be absolute.
    pub fn new(path: &Path) -> Result<Self, ReferenceError> {
        let error = |reason| ReferenceError { text: path.display().to_string(), reason };
        if !path.is_absolute() {
            return Err(error("the layout directory must be an absolute path"));
        }
        if path.components().any(|c| c == Component::ParentDir) {
            return Err(error("the layout directory's path may not hold `..`"));
        }
        // Collected from components, so that `/a//b/.` and `/a/b` are one.
        Ok(Self(path.components().collect()))
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the image of this name lies. A name is a reference, or a path under this folder, which stands for itself.
    pub fn resolve(&self, name: &str) -> Result<LayoutPath, ReferenceError> {
        let path = Path::new(name);
        if !path.is_absolute() {
            let reference: ImageRef = name.parse()?;
            return Ok(LayoutPath {
                path: self.0.join(reference.relative_path()),
                ref_name: reference.version_name(),
                registry: reference.registry,
            });
        }
        let error = |reason| ReferenceError { text: name.to_owned(), reason };
        if path.components().any(|c| c == Component::ParentDir) {
            return Err(error("a path to an image may not hold `..`"));
        }
        let path: PathBuf = path.components().collect();
        let Ok(below) = path.strip_prefix(&self.0) else {
            return Err(error("an absolute path to an image must lie under the layout directory"));
        };
        let parts: Vec<&str> = below.iter().filter_map(OsStr::to_str).collect();
        match parts.as_slice() {
            [] => Err(error("it is the layout directory itself; name an image under it")),
            [registry, .., "sha256", hex] => {
                let (registry, ref_name) = ((*registry).to_owned(), format!("sha256:{hex}"));
                Ok(LayoutPath { path, ref_name, registry })
            }
            [registry, ..] => {
                let (registry, ref_name) = ((*registry).to_owned(), parts[parts.len() - 1].to_owned());
                Ok(LayoutPath { path, ref_name, registry })
            }
        }
    }

    /// The layout and the manifest that an identifier in `analyzed.toml` names: `<path or reference>@<digest>`. Such a
    /// path may lie outside this folder: what is found there is only read.
    pub fn resolve_identifier(&self, identifier: &str) -> Result<(LayoutPath, Digest), ReferenceError> {
        let error = |reason| ReferenceError { text: identifier.to_owned(), reason };
        let (name, digest) = identifier
            .rsplit_once('@')
            .ok_or_else(|| error("it must be `<path>@<digest>`, as the analyzer writes it"))?;
        let digest = digest.parse().map_err(|_| error("what follows `@` must be a `sha256:` digest"))?;
        let path = Path::new(name);
        let path = match path.parent() {
            Some(parent) if path.is_absolute() && !path.starts_with(&self.0) => {
                Self::new(parent)?.resolve(name)?
            }
            _ => self.resolve(name)?,
        };
        Ok((path, digest))
    }
}

/// The folder of one image's layout, under the layout directory that resolved it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutPath {
    path: PathBuf,
    ref_name: String,
    registry: String,
}

impl LayoutPath {
    /// The folder's absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tag or digest that the image is known by: `org.opencontainers.image.ref.name`.
    pub fn ref_name(&self) -> &str {
        &self.ref_name
    }

    /// The same folder, where the image is known by another name.
    #[must_use]
    pub fn called(self, ref_name: &str) -> Self {
        Self { ref_name: ref_name.to_owned(), ..self }
    }

    /// The registry that the name begins with.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The digest, if the name is one: only what has it is meant.
    pub fn digest(&self) -> Option<Digest> {
        let is_named_so = self.path.parent()?.ends_with("sha256");
        self.ref_name.parse().ok().filter(|_| is_named_so)
    }
}

impl fmt::Display for LayoutPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn errors_show_no_passwords() {
        for (text, want) in [
            ("docker://me:pw@h.io/x", "`docker://…@h.io/x`"),
            ("me:p@w@h.io/x", "`…@h.io/x`"),
            ("app:v1@sha256:1", "`app:v1@sha256:1`"),
            ("app@sha1:1", "`app@sha1:1`"),
        ] {
            let error = text.parse::<super::ImageRef>().unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "d236adfe8074a8947914eae1ca4906c94db1cf6a8576b482a06fcc9eba7c9802";

    fn resolve(name: &str) -> Result<LayoutPath, ReferenceError> {
        LayoutDir::new(Path::new("/layout repo")).unwrap().resolve(name)
    }

    #[test]
    fn references_map_to_paths() {
        let digest = format!("acme/run@sha256:{HEX}");
        let tag_and_digest = format!("acme/run:base@sha256:{HEX}");
        let by_digest = format!("index.docker.io/acme/run/sha256/{HEX}");
        for (name, want, ref_name) in [
            ("app", "index.docker.io/library/app/latest", "latest"),
            ("app:v1", "index.docker.io/library/app/v1", "v1"),
            ("docker.io/app", "index.docker.io/library/app/latest", "latest"),
            ("docker.io/library/app", "index.docker.io/library/app/latest", "latest"),
            ("acme/app:V_1.2-x", "index.docker.io/acme/app/V_1.2-x", "V_1.2-x"),
            ("localhost/app", "localhost/app/latest", "latest"),
            ("localhost:5000/app", "localhost:5000/app/latest", "latest"),
            ("registry.example.com:5000/team/run:1.2", "registry.example.com:5000/team/run/1.2", "1.2"),
            ("[::1]:5000/team/app:1", "[::1]:5000/team/app/1", "1"),
            ("[fe80::1]/app", "[fe80::1]/app/latest", "latest"),
            (&digest, &by_digest, &format!("sha256:{HEX}")),
            (&tag_and_digest, &by_digest, &format!("sha256:{HEX}")),
            ("/layout repo/index.docker.io/a/b", "index.docker.io/a/b", "b"),
            ("/layout repo//x/./Any Name!/", "x/Any Name!", "Any Name!"),
            (
                &format!("/layout repo/r/a/sha256/{HEX}"),
                &format!("r/a/sha256/{HEX}"),
                &format!("sha256:{HEX}"),
            ),
        ] {
            let got = resolve(name).unwrap();
            assert_eq!(got.path(), Path::new("/layout repo").join(want), "{name}");
            assert_eq!(got.ref_name(), ref_name, "{name}");
        }
    }

    #[test]
    fn parts_of_references() {
        let tagged: ImageRef = "localhost:5000/acme/app:1".parse().unwrap();
        assert_eq!((tagged.registry(), tagged.repository()), ("localhost:5000", "acme/app"));
        assert_eq!((tagged.tag(), tagged.digest()), (Some("1"), None));
        let digest = Digest::of(b"");
        let fixed = tagged.with_digest(digest);
        assert_eq!((fixed.tag(), fixed.digest()), (None, Some(digest)));
        assert_eq!(fixed.to_string(), format!("localhost:5000/acme/app@{digest}"));
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for name in [
            "",
            "a",
            "UPPER/case:tag",
            "Not:Valid:Name",
            "../../etc/passwd",
            "a/../b",
            "./app",
            "app:..",
            "app:.x",
            "app:",
            "a//b",
            "reg.io/",
            "/",
            "/etc/passwd",
            "/layout repo",
            "/layout repo/../etc",
            "/layout repository/x",
            "app@sha256:12",
            "app@",
            "[::1/app",
            "[nonsense]:5/app",
            "..:5000/app",
            "host.io:port/app",
            "host..io/app",
            "app name",
            "a\0b/c",
        ] {
            // One letter alone is too short only with a registry of its own: the default one adds `library/`.
            if name == "a" {
                assert!(resolve("reg.io/a").is_err());
                continue;
            }
            assert!(resolve(name).is_err(), "{name}");
        }
        assert!(LayoutDir::new(Path::new("relative")).is_err());
        assert!(LayoutDir::new(Path::new("/a/../b")).is_err());
    }

    #[test]
    fn identifiers() {
        let dir = LayoutDir::new(Path::new("/l@b")).unwrap();
        let (path, digest) = dir.resolve_identifier(&format!("/l@b/x/y@sha256:{HEX}")).unwrap();
        assert_eq!((path.path(), digest.hex().as_str()), (Path::new("/l@b/x/y"), HEX));
        for elsewhere in ["/run", "/other/x", "/l@bs/x", "/l@"] {
            let (path, _) = dir.resolve_identifier(&format!("{elsewhere}@sha256:{HEX}")).unwrap();
            assert_eq!(path.path(), Path::new(elsewhere));
        }
        for bad in
            ["", "/l@b/x/y", "/l@b/x@sha256:1", "@", "/@", "/l@b@", "/other/../x@", "/other/..@", "x/../y@"]
        {
            let with_digest = format!("{bad}sha256:{HEX}");
            let bad = if bad.ends_with('@') { &with_digest } else { bad };
            assert!(dir.resolve_identifier(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_leads_out(name in "[a-zA-Z0-9:/@._\\[\\] -]{0,60}|\\PC{0,40}|(\\.\\.?/|[a-z]{1,3}[./:@]){0,8}[a-z.]{0,4}") {
            if let Ok(got) = resolve(&name) {
                prop_assert!(got.path().starts_with("/layout repo"));
                prop_assert!(got.path() != Path::new("/layout repo"));
                prop_assert!(!got.path().components().any(|c| c == Component::ParentDir));
            }
        }

        #[test]
        fn a_reference_prints_as_itself(name in "([a-z0-9]{1,5}\\.io(:[0-9]{1,4})?/)?[a-z0-9]{2,8}(/[a-z0-9._-]{0,3}[a-z])?(:[a-z0-9]{1,9})?") {
            let reference: ImageRef = name.parse().unwrap();
            prop_assert_eq!(reference.to_string().parse::<ImageRef>().unwrap(), reference);
        }
    }
}
