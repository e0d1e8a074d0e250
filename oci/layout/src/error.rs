//! What can be wrong with a layout.

use std::io;
use std::path::{Path, PathBuf};

use drydock_model::digest::Digest;
use drydock_model::platform::Platform;
use rustix::io::Errno;

/// What is wrong with a layout, and where.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// There is no layout.
    #[error("no image at `{}`: there is no index.json", .0.display())]
    NotFound(PathBuf),
    /// A file or a folder could not be used.
    #[error("failed to {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file does not say what it should.
    #[error("`{}` is malformed: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// In what way.
        reason: String,
    },
    /// A blob is not there.
    #[error("`{}` lacks blob {digest}", layout.display())]
    MissingBlob {
        /// The layout's folder.
        layout: PathBuf,
        /// The blob.
        digest: Digest,
    },
    /// A blob holds something else than its name says.
    #[error("blob `{}` is corrupt: it has digest {found}", path.display())]
    Corrupt {
        /// The blob's file.
        path: PathBuf,
        /// The digest of what it holds.
        found: Digest,
    },
    /// A blob has another size than its descriptor says.
    #[error("blob `{}` is corrupt: it has {found} bytes, its descriptor says {expected}", path.display())]
    WrongSize {
        /// The blob's file.
        path: PathBuf,
        /// What the descriptor says.
        expected: u64,
        /// What the file has.
        found: u64,
    },
    /// An image cannot be written under a digest: it has the one that comes out.
    #[error("`{}` is named by digest: an image is written under a tag", .0.display())]
    NamedByDigest(PathBuf),
    /// One image would be among the files of another.
    #[error("`{}` lies among the blobs of the image at `{}`: choose another name", path.display(), layout.display())]
    Inside {
        /// The folder of the one.
        path: PathBuf,
        /// The folder of the other.
        layout: PathBuf,
    },
    /// Another program, which takes no lock, has written the index meanwhile.
    #[error("`{}` was changed by another program meanwhile: run this again", .0.display())]
    Changed(PathBuf),
    /// Some names could not be switched to the new image, nor the others back.
    #[error("these names have the new image, and others do not: {}", list_paths(switched))]
    PartlyPublished {
        /// The layouts that have the new image.
        switched: Vec<PathBuf>,
        /// Why the next one has not.
        source: Box<LayoutError>,
    },
    /// No image fits the platform.
    #[error("`{}` has no image for platform {wanted}; it has: {}", path.display(), list(available))]
    NoPlatform {
        /// The layout's folder.
        path: PathBuf,
        /// What was asked for.
        wanted: Box<Platform>,
        /// What there is.
        available: Vec<Platform>,
    },
    /// Several images fit.
    #[error(
        "`{}` has several images for platform {platform}, and none or several of them are named `{ref_name}`: {}",
        path.display(), list(digests)
    )]
    Ambiguous {
        /// The layout's folder.
        path: PathBuf,
        /// What was asked for.
        platform: Box<Platform>,
        /// The name that was asked for.
        ref_name: String,
        /// Their manifests.
        digests: Vec<Digest>,
    },
    /// The image is not, or no longer, in the layout.
    #[error("`{}` holds no image with digest {wanted}; it has: {}", path.display(), list(available))]
    NoManifest {
        /// The layout's folder.
        path: PathBuf,
        /// What was asked for.
        wanted: Digest,
        /// What there is.
        available: Vec<Digest>,
    },
}

impl LayoutError {
    /// Whether the system did not let something be read: then nothing is known of it. What is there and is no file is not
    /// among that.
    pub fn is_unreadable(&self) -> bool {
        let wrong = [Errno::ISDIR, Errno::NOTDIR, Errno::LOOP, Errno::NXIO, Errno::NOENT];
        let is_wrong = |code| wrong.iter().any(|errno| errno.raw_os_error() == code);
        let is_kept = |source: &io::Error| match source.raw_os_error() {
            Some(code) => !is_wrong(code),
            None => source.kind() == io::ErrorKind::PermissionDenied,
        };
        matches!(self, Self::Io { source, .. } if is_kept(source))
    }

    /// Whether files are there, but are not what they should be.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Malformed { .. } | Self::MissingBlob { .. } | Self::Corrupt { .. } | Self::WrongSize { .. }
        )
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    match items {
        [] => "nothing".to_owned(),
        items => items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn list_paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", ")
}

/// Says which action on which path failed.
pub(crate) trait IoContext<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, LayoutError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, LayoutError> {
        self.map_err(|source| LayoutError::Io { action, path: path.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_keeps_from_us_may_be_whole() {
        for (errno, want) in [
            (Errno::ACCESS, true),
            (Errno::IO, true),
            (Errno::MFILE, true),
            (Errno::STALE, true),
            (Errno::ISDIR, false),
            (Errno::LOOP, false),
            (Errno::NXIO, false),
        ] {
            let error = LayoutError::Io { action: "read", path: "x".into(), source: errno.into() };
            assert_eq!(error.is_unreadable(), want, "{errno}");
        }
    }
}
