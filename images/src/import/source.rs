//! Where an image comes from, as people write it.

use std::path::PathBuf;
use std::str::FromStr;

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `oci:DIR[:tag]`: an image layout.
    Layout {
        /// Its folder.
        dir: PathBuf,
        /// Which of the images in it.
        tag: Option<String>,
    },
    /// `oci-archive:FILE[:tag]` or `docker-archive:FILE[:name]`: which of these it is shows when it is read.
    Archive {
        /// The tar file, compressed or not.
        file: PathBuf,
        /// Which of the images in it.
        tag: Option<String>,
    },
    /// `rootfs:TAR-or-DIR`: a plain file tree.
    Rootfs(PathBuf),
    /// `docker://NAME`: an image at a registry.
    Registry(String),
    /// `http://…` or `https://…`: an archive.
    Url(String),
    /// `rootfs:http://…` or `rootfs:https://…`: the tar of a file tree.
    RootfsUrl(String),
    /// `dockerfile:PLACE`: what an image is built from.
    Dockerfile(BuildPlace),
    /// Anything else: a name that a file of sources may know.
    Named(String),
}

/// Where a Dockerfile and its context are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildPlace {
    /// A folder, or a tar file, compressed or not.
    Path(PathBuf),
    /// `http://…` or `https://…`: a tar file.
    Url(String),
    /// `git+…`: the address of a git repository, as it was given.
    Git(String),
}

/// A text that names no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no place: after the kind and `:`, a path must follow")]
pub struct NoPlace(pub String);

impl FromStr for Source {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let no_place = || NoPlace(text.to_owned());
        if let Some(name) = text.strip_prefix("docker://") {
            return Ok(Self::Registry(name.to_owned()));
        }
        if is_url(text) {
            return Ok(Self::Url(text.to_owned()));
        }
        match text.split_once(':') {
            Some(("oci", rest)) => {
                let (dir, tag) = split_dir(rest).ok_or_else(no_place)?;
                Ok(Self::Layout { dir, tag })
            }
            Some(("oci-archive" | "docker-archive", url)) if is_url(url) => Ok(Self::Url(url.to_owned())),
            Some(("oci-archive" | "docker-archive", rest)) => {
                let (file, tag) = split_file(rest).ok_or_else(no_place)?;
                Ok(Self::Archive { file, tag })
            }
            Some(("rootfs" | "dockerfile", "")) => Err(no_place()),
            Some(("rootfs", url)) if is_url(url) => Ok(Self::RootfsUrl(url.to_owned())),
            Some(("rootfs", path)) => Ok(Self::Rootfs(path.into())),
            Some(("dockerfile", url)) if is_url(url) => Ok(Self::Dockerfile(BuildPlace::Url(url.to_owned()))),
            Some(("dockerfile", url)) if url.starts_with("git+") => {
                Ok(Self::Dockerfile(BuildPlace::Git(url.to_owned())))
            }
            Some(("dockerfile", path)) => Ok(Self::Dockerfile(BuildPlace::Path(path.into()))),
            _ => Ok(Self::Named(text.to_owned())),
        }
    }
}

fn is_url(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

/// `DIR[:tag]`. Folders of a repository may have a port in their path: a tag has no `/`.
pub(crate) fn split_dir(text: &str) -> Option<(PathBuf, Option<String>)> {
    let (dir, tag) = match text.rsplit_once(':') {
        Some((dir, tag)) if !tag.contains('/') => (dir, Some(tag.to_owned())),
        _ => (text, None),
    };
    (!dir.is_empty() && tag.as_deref() != Some("")).then(|| (dir.into(), tag))
}

/// `FILE[:name]`. What an archive calls its images may have `:` and `/`.
pub(crate) fn split_file(text: &str) -> Option<(PathBuf, Option<String>)> {
    let (file, tag) = text.split_once(':').map_or((text, None), |(file, tag)| (file, Some(tag.to_owned())));
    (!file.is_empty() && tag.as_deref() != Some("")).then(|| (file.into(), tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_places() {
        let layout =
            |dir: &str, tag: Option<&str>| Source::Layout { dir: dir.into(), tag: tag.map(Into::into) };
        let archive =
            |file: &str, tag: Option<&str>| Source::Archive { file: file.into(), tag: tag.map(Into::into) };
        for (text, want) in [
            ("oci:dir", layout("dir", None)),
            ("oci:dir:v1", layout("dir", Some("v1"))),
            ("oci:/repo/localhost:5000/app/latest", layout("/repo/localhost:5000/app/latest", None)),
            ("oci-archive:f.tar", archive("f.tar", None)),
            ("docker-archive:f.tar:acme/app:v1", archive("f.tar", Some("acme/app:v1"))),
            ("rootfs:a:b", Source::Rootfs("a:b".into())),
            ("docker://app:v1", Source::Registry("app:v1".into())),
            ("https://h.io/x.tar.gz", Source::Url("https://h.io/x.tar.gz".into())),
            ("oci-archive:http://h.io/x.tar", Source::Url("http://h.io/x.tar".into())),
            ("rootfs:https://h.io/x.tar", Source::RootfsUrl("https://h.io/x.tar".into())),
            ("dockerfile:a:b", Source::Dockerfile(BuildPlace::Path("a:b".into()))),
            ("dockerfile:https://h.io/x", Source::Dockerfile(BuildPlace::Url("https://h.io/x".into()))),
            ("dockerfile:git+ssh://h.io/x", Source::Dockerfile(BuildPlace::Git("git+ssh://h.io/x".into()))),
            ("hub/library/node:22", Source::Named("hub/library/node:22".into())),
        ] {
            assert_eq!(text.parse(), Ok(want), "{text}");
        }
        for text in ["oci:", "oci:dir:", "oci-archive:", "docker-archive:f:", "rootfs:", "dockerfile:"] {
            assert_eq!(text.parse::<Source>(), Err(NoPlace(text.to_owned())));
        }
    }
}
