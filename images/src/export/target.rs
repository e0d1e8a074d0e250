//! Where an image goes, as people write it.

use std::path::PathBuf;
use std::str::FromStr;

use crate::import::{split_dir, split_file};

/// Where an image goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `oci:DIR[:tag]`: an image layout.
    Layout {
        /// Its folder.
        dir: PathBuf,
        /// What the image is called there.
        tag: Option<String>,
    },
    /// `oci-archive:FILE[:tag]`.
    OciArchive {
        /// The tar file.
        file: File,
        /// What the image is called there.
        tag: Option<String>,
    },
    /// `docker-archive:FILE[:name]`.
    DockerArchive {
        /// The tar file.
        file: File,
        /// What the image is called there.
        name: Option<String>,
    },
    /// `dir:DIR`: the files of the image.
    Dir(PathBuf),
    /// `docker://NAME`: a registry.
    Registry(String),
}

/// Where an archive goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    /// To a file.
    Path(PathBuf),
    /// `-`: to standard output.
    Stdout,
}

/// A text that names no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no target; expected `oci:DIR[:tag]`, `oci-archive:FILE`, `docker-archive:FILE`, `dir:DIR` or `docker://NAME`"
)]
pub struct NoTarget(pub String);

impl FromStr for Target {
    type Err = NoTarget;

    fn from_str(text: &str) -> Result<Self, NoTarget> {
        let no_target = || NoTarget(text.to_owned());
        let file = |rest| {
            let (path, tag) = split_file(rest).ok_or_else(no_target)?;
            let file = if path.as_os_str() == "-" { File::Stdout } else { File::Path(path) };
            Ok((file, tag))
        };
        match text.split_once(':').ok_or_else(no_target)? {
            ("oci", rest) => {
                let (dir, tag) = split_dir(rest).ok_or_else(no_target)?;
                Ok(Self::Layout { dir, tag })
            }
            ("oci-archive", rest) => file(rest).map(|(file, tag)| Self::OciArchive { file, tag }),
            ("docker-archive", rest) => file(rest).map(|(file, name)| Self::DockerArchive { file, name }),
            ("dir", path) if !path.is_empty() => Ok(Self::Dir(path.into())),
            ("docker", rest) if rest.len() > 2 && rest.starts_with("//") => {
                Ok(Self::Registry(rest[2..].to_owned()))
            }
            _ => Err(no_target()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_targets() {
        for (text, want) in [
            ("oci:d:t", Target::Layout { dir: "d".into(), tag: Some("t".into()) }),
            ("oci-archive:-", Target::OciArchive { file: File::Stdout, tag: None }),
            (
                "docker-archive:a.tar:acme/app:v1",
                Target::DockerArchive { file: File::Path("a.tar".into()), name: Some("acme/app:v1".into()) },
            ),
            ("dir:d", Target::Dir("d".into())),
            ("docker://r.io/app", Target::Registry("r.io/app".into())),
        ] {
            assert_eq!(text.parse(), Ok(want), "{text}");
        }
        for text in ["", "app", "oci:", "dir:", "docker://", "docker:app", "tar:x"] {
            assert_eq!(text.parse::<Target>(), Err(NoTarget(text.to_owned())));
        }
    }
}
