//! Which source an import is for, and where it is to be had; or why it is refused.

use std::cmp::Reverse;
use std::path::{Component, Path, PathBuf};

use drydock_model::reference::ImageRef;

use super::{Kind, Lock, Pattern, Prefix, Source, Sources, git_url, is_url};
use crate::git::{GitAddress, Revision};

/// Where something is to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At a registry.
    Image(ImageRef),
    /// In a file or folder; of the images in it, that with this tag.
    Path(PathBuf, Option<String>),
    /// In a file at a URL; of the images in it, that with this tag.
    Url(String, Option<String>),
    /// In a git repository.
    Git(GitAddress),
}

/// An import that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'a> {
    /// The source that allows it, if one does.
    pub source: Option<&'a Source>,
    /// What it is called in the lock file: `source/name:tag`, or a whole reference.
    pub name: String,
    /// Where it may be, to be tried in order. All of them name the same digest, if one is known.
    pub places: Vec<Place>,
}

/// An import that is not allowed, or no import at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It makes no sense.
    #[error("`{name}`: {reason}")]
    Name {
        /// As it was given.
        name: String,
        /// Why not.
        reason: String,
    },
    /// No source has it, and the file of sources is strict.
    #[error(
        "`{name}` is in no source, and the file of sources is strict: add it to a source's `location` and `allow`"
    )]
    NoSource {
        /// As it was given.
        name: String,
    },
    /// The source that has it does not allow it.
    #[error("`{name}` is not allowed by the source `{source_name}`: {reason}")]
    Denied {
        /// As it was given.
        name: String,
        /// The source.
        source_name: String,
        /// By which of its lists.
        reason: String,
    },
    /// The source wants a digest.
    #[error(
        "the source `{source_name}` has `require-digest`: name `{name}` with a digest, or use a lock file that has it"
    )]
    NeedsDigest {
        /// As it was given.
        name: String,
        /// The source.
        source_name: String,
    },
    /// The source wants a commit's hash.
    #[error("the source `{source_name}` has `require-digest`: name the commit of `{name}` by its whole hash")]
    NeedsHash {
        /// As it was given.
        name: String,
        /// The source.
        source_name: String,
    },
    /// The lock file does not have it.
    #[error("`{name}` is not in the lock file: import it with `--lock` first")]
    NotLocked {
        /// Its name there.
        name: String,
    },
}

impl Sources {
    /// Where `SOURCE/NAME`, or an image by its whole reference (`docker://` may stand before it), is to be
    /// had. With a lock file, by the digest that is locked.
    ///
    /// A whole reference is taken as of the source with the longest location that it begins with. Where
    /// sources have it and none allows it, it is refused, strict or not.
    pub fn find(&self, name: &str, lock: Option<&Lock>) -> Result<Found<'_>, Refused> {
        if let Some((source_name, rest)) = name.split_once('/')
            && let Some(source) = self.sources.get(source_name)
        {
            return source.find(name, source_name, rest, lock);
        }
        let text = name.strip_prefix("docker://").unwrap_or(name);
        let reference: ImageRef = text.parse().map_err(|e| Refused::Name {
            name: drydock_model::reference::shown(name),
            reason: format!("{e}; nor does it begin with a source"),
        })?;
        let having = self.sources.iter().filter_map(|(source_name, source)| {
            let prefix = source.prefix()?;
            Some((Reverse(prefix.path.len()), source_name, source, prefix.strip(&reference)?))
        });
        let mut having: Vec<_> = having.collect();
        having.sort_by_key(|(length, source_name, ..)| (*length, *source_name));
        let mut refused = None;
        for (_, source_name, source, rest) in having {
            match source.find(name, source_name, &rest, lock) {
                Ok(found) => return Ok(found),
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        match refused {
            Some(why) => Err(why),
            None if self.strict => Err(Refused::NoSource { name: name.to_owned() }),
            None => {
                let name = reference.to_string();
                let place = locked(reference, &name, lock)?;
                Ok(Found { source: None, name, places: vec![Place::Image(place)] })
            }
        }
    }

    /// Whether a file, a folder or a URL that was named as such may be imported, and by which source. A path
    /// must be absolute and resolved: links are not looked at.
    pub fn permit(&self, kind: Kind, place: &str) -> Result<Option<&Source>, Refused> {
        let given = shown(place);
        self.permitted(
            kind,
            &given,
            |location| below(location, place),
            |source, source_name, rest| source.allows(&given, source_name, rest, ""),
        )
    }

    /// Whether a git repository that was named by its address may be built from, and by which source.
    pub fn permit_git(&self, address: &GitAddress) -> Result<Option<&Source>, Refused> {
        let given = address.to_string();
        let rest = |location: &str| Some(address.url.below(&git_url(location)?)?.to_owned());
        self.permitted(Kind::Git, &given, rest, |source, source_name, rest| {
            source.allows_git(&given, source_name, rest, &address.revision)
        })
    }

    /// The first source of a kind that has something (`rest`: what follows its location) and allows it.
    fn permitted(
        &self,
        kind: Kind,
        given: &str,
        rest: impl Fn(&str) -> Option<String>,
        allows: impl Fn(&Source, &str, &str) -> Result<(), Refused>,
    ) -> Result<Option<&Source>, Refused> {
        let mut refused = None;
        for (source_name, source) in self.sources.iter().filter(|(_, source)| source.kind == kind) {
            let mut locations = source.mirrors.iter().chain([&source.location]);
            let Some(rest) = locations.find_map(|location| rest(location)) else { continue };
            match allows(source, source_name, &rest) {
                Ok(()) => return Ok(Some(source)),
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        match refused {
            Some(why) => Err(why),
            None if self.strict => Err(Refused::NoSource { name: given.to_owned() }),
            None => Ok(None),
        }
    }
}

impl Source {
    fn prefix(&self) -> Option<Prefix> {
        (self.kind == Kind::Registry).then(|| Prefix::parse(&self.location).ok())?
    }

    /// `given` is what was asked for, `rest` what follows the source's name or location.
    fn find(
        &self,
        given: &str,
        source_name: &str,
        rest: &str,
        lock: Option<&Lock>,
    ) -> Result<Found<'_>, Refused> {
        let wrong = |reason: String| Refused::Name { name: given.to_owned(), reason };
        if self.kind == Kind::Git {
            return self.find_git(given, source_name, rest);
        }
        let Some(prefix) = self.prefix() else {
            return self.find_file(given, source_name, rest);
        };
        let reference = prefix.join(rest).map_err(|e| wrong(e.to_string()))?;
        // As the registry has it: `node` at the default registry is `library/node`.
        let rest = prefix.strip(&reference).ok_or_else(|| wrong("it is not in the source".to_owned()))?;
        let (path, version) = split_version(&rest);
        self.allows(given, source_name, path, version)?;
        let name = format!("{source_name}/{rest}");
        let reference = locked(reference, &name, lock)?;
        if self.require_digest && reference.digest().is_none() {
            return Err(Refused::NeedsDigest { name: given.to_owned(), source_name: source_name.to_owned() });
        }
        let rest = prefix.strip(&reference).unwrap_or_default();
        let place = |location: &String| {
            let prefix = Prefix::parse(location).map_err(wrong)?;
            prefix.join(&rest).map(Place::Image).map_err(|e| wrong(e.to_string()))
        };
        let places = self.mirrors.iter().chain([&self.location]).map(place).collect::<Result<_, _>>()?;
        Ok(Found { source: Some(self), name, places })
    }

    fn find_file(&self, given: &str, source_name: &str, rest: &str) -> Result<Found<'_>, Refused> {
        let (path, version) = split_version(rest);
        let is_plain = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+=@,".contains(&b))
        };
        if version.starts_with('@') || !path.split('/').all(is_plain) {
            let reason = "it must be a path of letters, digits and `-._~+=,`, with a tag if any".to_owned();
            return Err(Refused::Name { name: given.to_owned(), reason });
        }
        if self.kind == Kind::Dockerfile && !version.is_empty() {
            let reason = "what an image is built from has no tag".to_owned();
            return Err(Refused::Name { name: given.to_owned(), reason });
        }
        self.allows(given, source_name, path, version)?;
        if self.require_digest {
            return Err(Refused::NeedsDigest { name: given.to_owned(), source_name: source_name.to_owned() });
        }
        let tag = version.strip_prefix(':').map(str::to_owned);
        let place = |location: &String| {
            if is_url(location) {
                Place::Url(format!("{}/{path}", location.trim_end_matches('/')), tag.clone())
            } else {
                Place::Path(Path::new(location).join(path), tag.clone())
            }
        };
        let places = self.mirrors.iter().chain([&self.location]).map(place).collect();
        Ok(Found { source: Some(self), name: format!("{source_name}/{rest}"), places })
    }

    fn find_git(&self, given: &str, source_name: &str, rest: &str) -> Result<Found<'_>, Refused> {
        let wrong = |reason: String| Refused::Name { name: given.to_owned(), reason };
        let (path, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let place = |location: &String| {
            let url = git_url(location).ok_or_else(|| wrong("the source has no address".to_owned()))?;
            let address = url.join(path).and_then(|url| GitAddress::new(url, fragment));
            let address = address.map_err(|e| wrong(e.to_string()))?;
            let below = address.url.below(&url).ok_or_else(|| wrong("it is not in the source".to_owned()))?;
            self.allows_git(given, source_name, below, &address.revision)?;
            Ok(Place::Git(address))
        };
        let places = self.mirrors.iter().chain([&self.location]).map(place).collect::<Result<_, _>>()?;
        Ok(Found { source: Some(self), name: format!("{source_name}/{rest}"), places })
    }

    fn allows(&self, given: &str, source_name: &str, path: &str, version: &str) -> Result<(), Refused> {
        self.allows_any(given, source_name, &[path], version, &[':', '@'])
    }

    fn allows_git(
        &self,
        given: &str,
        source_name: &str,
        path: &str,
        revision: &Revision,
    ) -> Result<(), Refused> {
        let version = format!("#{revision}");
        self.allows_any(given, source_name, &[path, &format!("{path}.git")], &version, &['#'])?;
        match revision {
            Revision::Head | Revision::Name(_) if self.require_digest => {
                Err(Refused::NeedsHash { name: given.to_owned(), source_name: source_name.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// `paths` are names of the same.
    fn allows_any(
        &self,
        given: &str,
        source_name: &str,
        paths: &[&str],
        version: &str,
        marks: &[char],
    ) -> Result<(), Refused> {
        let denied = |reason: String| {
            Err(Refused::Denied { name: given.to_owned(), source_name: source_name.to_owned(), reason })
        };
        let matches = |pattern: &Pattern| paths.iter().any(|path| pattern.matches(path, version, marks));
        if let Some(pattern) = self.deny.iter().find(|pattern| matches(pattern)) {
            return denied(format!("`{}` is in its `deny`", pattern.0));
        }
        if !self.allow.is_empty() && !self.allow.iter().any(matches) {
            return denied("nothing in its `allow` matches".to_owned());
        }
        Ok(())
    }
}

impl Prefix {
    /// What follows in a reference that begins with this: `path:tag` or `path@digest`.
    fn strip(&self, reference: &ImageRef) -> Option<String> {
        let rest = reference.repository().strip_prefix(&self.path)?;
        let rest = if self.path.is_empty() { rest } else { rest.strip_prefix('/')? };
        let version = match (reference.tag(), reference.digest()) {
            (Some(tag), _) => format!(":{tag}"),
            (_, Some(digest)) => format!("@{digest}"),
            (None, None) => return None,
        };
        (reference.registry() == self.registry).then(|| format!("{rest}{version}"))
    }

    fn join(&self, rest: &str) -> Result<ImageRef, drydock_model::reference::ReferenceError> {
        let separator = if self.path.is_empty() { "" } else { "/" };
        format!("{}/{}{separator}{rest}", self.registry, self.path).parse()
    }
}

/// With the digest that is locked, if there is a lock file. What names a digest needs no lock.
fn locked(reference: ImageRef, name: &str, lock: Option<&Lock>) -> Result<ImageRef, Refused> {
    match lock {
        Some(lock) if reference.digest().is_none() => {
            let digest = lock.get(name).ok_or_else(|| Refused::NotLocked { name: name.to_owned() })?;
            Ok(reference.with_digest(digest))
        }
        _ => Ok(reference),
    }
}

/// Name, and `:tag` or `@digest` if any.
fn split_version(text: &str) -> (&str, &str) {
    let last = text.rfind('/').map_or(0, |slash| slash + 1);
    match text[last..].find(['@', ':']) {
        Some(at) => text.split_at(last + at),
        None => (text, ""),
    }
}

/// What follows a location in the path or URL of something there.
fn below(location: &str, place: &str) -> Option<String> {
    if is_url(location) || is_url(place) {
        let rest = place.strip_prefix(location.trim_end_matches('/'))?;
        let has_way_out = rest.split('/').any(|part| part == "..") || rest.contains(['%', '\\']);
        return (rest.is_empty() || rest.starts_with('/') && !has_way_out)
            .then(|| rest.trim_start_matches('/').to_owned());
    }
    let place = Path::new(place);
    if !place.is_absolute() || place.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    Some(place.strip_prefix(location).ok()?.to_str()?.to_owned())
}

/// A place without what may be secret of a URL: user, password, query.
fn shown(place: &str) -> String {
    let Some((scheme, rest)) = place.split_once("://").filter(|_| is_url(place)) else {
        return place.to_owned();
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) =
        rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, format!("/{path}")));
    format!("{scheme}://{}{path}", host.rsplit('@').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use drydock_model::digest::Digest;

    use super::*;

    const SOURCES: &str = r#"
        [source.hub]
        kind = "registry"
        location = "docker.io"
        mirrors = ["m.io/hub", "localhost:5000"]
        allow = ["library/*", "acme/**"]
        deny = ["library/*:nightly*", "acme/secret"]

        [source.team]
        kind = "registry"
        location = "r.io:5000/team"
        require-digest = true

        [source.usb]
        kind = "archive"
        location = "/mnt/usb"
        deny = ["old/**"]

        [source.web]
        kind = "rootfs"
        location = "https://f.io/images/"

        [source.ctx]
        kind = "dockerfile"
        location = "/srv/contexts"
        deny = ["old/*"]

        [source.code]
        kind = "git"
        location = "https://g.io/acme"
        mirrors = ["ssh://git@m.io/acme"]
        allow = ["*", "tools/*#release-*"]
        deny = ["secret", "*#wip/*"]

        [source.exact]
        kind = "git"
        location = "https://g.io/exact"
        require-digest = true
    "#;

    fn sources(strict: bool) -> Sources {
        Sources { strict, ..Sources::parse(SOURCES, Path::new("/etc")).unwrap() }
    }

    fn find(name: &str, strict: bool, lock: Option<&Lock>) -> Result<String, Refused> {
        let sources = sources(strict);
        let found = sources.find(name, lock)?;
        let show = |place: &Place| match place {
            Place::Image(reference) => reference.to_string(),
            Place::Path(path, tag) => format!("{} {tag:?}", path.display()),
            Place::Url(url, tag) => format!("{url} {tag:?}"),
            Place::Git(address) => address.to_string(),
        };
        Ok(format!("{} = {}", found.name, found.places.iter().map(show).collect::<Vec<_>>().join(", ")))
    }

    #[test]
    fn names_lead_to_places() {
        let digest = Digest::of(b"");
        for (name, want) in [
            (
                "hub/library/node:22",
                "hub/library/node:22 = m.io/hub/library/node:22, localhost:5000/library/node:22, index.docker.io/library/node:22"
                    .to_owned(),
            ),
            (
                "hub/node",
                "hub/library/node:latest = m.io/hub/library/node:latest, localhost:5000/library/node:latest, \
                 index.docker.io/library/node:latest"
                    .to_owned(),
            ),
            (
                "docker://node:22",
                "hub/library/node:22 = m.io/hub/library/node:22, localhost:5000/library/node:22, index.docker.io/library/node:22"
                    .to_owned(),
            ),
            (
                &format!("r.io:5000/team/a/b@{digest}"),
                format!("team/a/b@{digest} = r.io:5000/team/a/b@{digest}"),
            ),
            ("other.io/xx", "other.io/xx:latest = other.io/xx:latest".to_owned()),
            ("r.io:5000/teams/xx", "r.io:5000/teams/xx:latest = r.io:5000/teams/xx:latest".to_owned()),
            ("usb/acme/app.tar:v1", r#"usb/acme/app.tar:v1 = /mnt/usb/acme/app.tar Some("v1")"#.to_owned()),
            ("web/a.tar.gz", "web/a.tar.gz = https://f.io/images/a.tar.gz None".to_owned()),
            ("ctx/shop", "ctx/shop = /srv/contexts/shop None".to_owned()),
            (
                "code/shop.git#v1:sub",
                "code/shop.git#v1:sub = git+ssh://git@m.io/acme/shop.git#v1:sub, git+https://g.io/acme/shop.git#v1:sub"
                    .to_owned(),
            ),
            (
                "code/tools/a#release-1",
                "code/tools/a#release-1 = git+ssh://git@m.io/acme/tools/a#release-1, \
                 git+https://g.io/acme/tools/a#release-1"
                    .to_owned(),
            ),
            (
                &format!("exact/a#{}", &digest.hex()[..40]),
                format!("exact/a#{0} = git+https://g.io/exact/a#{0}", &digest.hex()[..40]),
            ),
        ] {
            assert_eq!(find(name, false, None).unwrap(), want, "{name}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_refused_and_why() {
        let digest = Digest::of(b"");
        for (name, strict, want) in [
            ("hub/library/node:nightly-1", false, "`library/*:nightly*` is in its `deny`"),
            ("docker.io/library/node:nightly", false, "`library/*:nightly*` is in its `deny`"),
            ("hub/acme/secret", false, "`acme/secret` is in its `deny`"),
            ("hub/other/app", false, "nothing in its `allow` matches"),
            ("hub/library/a/b", false, "nothing in its `allow` matches"),
            ("other/app", false, "nothing in its `allow` matches"),
            ("team/app:1", false, "`require-digest`"),
            ("r.io:5000/team/app:1", false, "`require-digest`"),
            ("other.io/xx", true, "the file of sources is strict"),
            (&format!("r.io:5000/teams/xx@{digest}"), true, "the file of sources is strict"),
            ("hub/../x", false, "no part of a repository's name"),
            ("hub/", false, "2 to 255 characters"),
            ("team/UPPER", false, "lower-case"),
            ("usb/../etc/passwd", false, "it must be a path"),
            ("usb//etc/passwd", false, "it must be a path"),
            ("usb/old/a.tar", false, "`old/**` is in its `deny`"),
            ("web/a%2e%2e/b", false, "it must be a path"),
            ("ctx/old/x", false, "`old/*` is in its `deny`"),
            ("ctx/shop:v1", false, "has no tag"),
            ("ctx/../x", false, "it must be a path"),
            ("code/secret#main", false, "`secret` is in its `deny`"),
            ("code/secret.git", false, "`secret` is in its `deny`"),
            ("code/shop#wip/x", false, "`*#wip/*` is in its `deny`"),
            ("code/tools/a", false, "nothing in its `allow` matches"),
            ("code/../x", false, "no address of a git repository"),
            ("code/shop#-x", false, "neither a branch nor a tag"),
            ("exact/a#main", false, "by its whole hash"),
            ("Not A Name", false, "nor does it begin with a source"),
        ] {
            let message = find(name, strict, None).unwrap_err().to_string();
            assert!(message.contains(want), "{name}: {message}");
        }
    }

    #[test]
    fn locked_names_mean_digests() {
        let digest = Digest::of(b"locked");
        let mut lock = Lock::default();
        lock.set("team/app:1", digest);
        assert_eq!(
            find("team/app:1", true, Some(&lock)).unwrap(),
            format!("team/app:1 = r.io:5000/team/app@{digest}")
        );
        let refused = find("hub/node", true, Some(&lock)).unwrap_err();
        assert_eq!(refused, Refused::NotLocked { name: "hub/library/node:latest".to_owned() });
        let other = Digest::of(b"other");
        assert!(find(&format!("team/app@{other}"), true, Some(&lock)).unwrap().contains(&other.to_string()));
    }

    #[test]
    fn files_and_urls_named_as_such() {
        for (kind, place, strict, want) in [
            (Kind::Archive, "/mnt/usb/a.tar", true, Ok(true)),
            (Kind::Archive, "/mnt/usbs/a.tar", false, Ok(false)),
            (Kind::Archive, "/mnt/usbs/a.tar", true, Err("strict")),
            (Kind::Archive, "/mnt/usb/../x", true, Err("strict")),
            (Kind::Archive, "/mnt/usb/old/x.tar", false, Err("`old/**`")),
            (Kind::Layout, "/mnt/usb/a", true, Err("strict")),
            (Kind::Rootfs, "https://f.io/images/x/y.tar", true, Ok(true)),
            (Kind::Rootfs, "https://f.io/imagesx/y.tar", true, Err("strict")),
            (Kind::Rootfs, "https://f.io/images/../y.tar", true, Err("strict")),
            (Kind::Rootfs, "https://f.io/images/%2e%2e/y.tar", true, Err("strict")),
            (Kind::Rootfs, "http://f.io/images/y.tar", true, Err("strict")),
        ] {
            let sources = sources(strict);
            match (sources.permit(kind, place), want) {
                (Ok(source), Ok(want)) => assert_eq!(source.is_some(), want, "{place}"),
                (Err(refused), Err(want)) => assert!(refused.to_string().contains(want), "{refused}"),
                (got, want) => panic!("{place}: {got:?}, but {want:?}"),
            }
        }
    }

    #[test]
    fn git_repositories_named_as_such() {
        let hash = "0".repeat(40);
        for (address, strict, want) in [
            ("git+https://g.io/acme/shop.git#main", true, Ok(true)),
            ("git+ssh://git@m.io/acme/shop", true, Ok(true)),
            ("git+https://g.io/acme/secret.git", false, Err("`secret` is in its `deny`")),
            ("git+https://g.io/acme/tools/a", false, Err("nothing in its `allow`")),
            ("git+https://g.io/acmes/shop", false, Ok(false)),
            ("git+https://g.io/acmes/shop", true, Err("strict")),
            ("git+ssh://other@m.io/acme/shop", true, Err("strict")),
            ("git+file:///srv/contexts/shop", true, Err("strict")),
            ("git+https://g.io/exact/a", true, Err("by its whole hash")),
            (&format!("git+https://g.io/exact/a#{hash}"), true, Ok(true)),
            (&format!("git+https://g.io/exact/a#main@{hash}"), true, Ok(true)),
        ] {
            let sources = sources(strict);
            match (sources.permit_git(&address.parse().unwrap()), want) {
                (Ok(source), Ok(want)) => assert_eq!(source.is_some(), want, "{address}"),
                (Err(refused), Err(want)) => assert!(refused.to_string().contains(want), "{refused}"),
                (got, want) => panic!("{address}: {got:?}, but {want:?}"),
            }
        }
    }

    #[test]
    fn nothing_secret_of_urls_is_shown() {
        for (place, want) in [
            ("https://example.com/a/b.tgz?token=secret#x", "https://example.com/a/b.tgz"),
            ("https://me:secret@example.com/a", "https://example.com/a"),
            ("https://example.com?secret", "https://example.com"),
            ("/a?b@c", "/a?b@c"),
        ] {
            assert_eq!(shown(place), want);
            let strict = Sources::parse("strict = true", Path::new("/")).unwrap();
            let refused = strict.permit(Kind::Archive, place).unwrap_err();
            assert_eq!(refused, Refused::NoSource { name: want.to_owned() });
        }
    }
}
