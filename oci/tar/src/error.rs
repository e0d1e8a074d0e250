//! What can go wrong while a layer's tar is written.

use std::io;
use std::path::{Path, PathBuf};

use super::glob::BadPattern;

/// A layer that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// A file or directory of the layer cannot be read.
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
    /// A slice has a glob that is none.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// The tar has nowhere to go.
    #[error("cannot pass on the layer's tar")]
    Write(#[source] io::Error),
}

impl TarError {
    /// For `map_err` on what failed with `path`.
    pub(super) fn read<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::Read { action, path: path.to_owned(), source: source.into() }
    }
}
