//! What can go wrong with archives.

use std::io;
use std::path::{Path, PathBuf};

/// An archive that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// A file or directory cannot be read.
    #[error("cannot {action} `{}`", path.display())]
    Read {
        /// What was tried: `open`, `list`, ….
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file was written to or exchanged while it was read, so that its entry would be wrong.
    #[error("`{}` changed while it was read; nothing may write to it during the export", .0.display())]
    Changed(PathBuf),
    /// The tar has nowhere to go.
    #[error("cannot pass on the layer's tar")]
    Write(#[source] io::Error),
}

/// An archive that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It ends early, or its bytes cannot be had.
    #[error("cannot read the tar")]
    Read(#[source] io::Error),
    /// This is no tar, or one of a kind that is not understood.
    #[error("the tar is malformed after {offset} bytes: {reason}")]
    Malformed {
        /// Where in the tar the offending header begins.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl TarError {
    /// For `map_err` on what failed with `path`.
    pub fn read<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::Read { action, path: path.to_owned(), source: source.into() }
    }
}
