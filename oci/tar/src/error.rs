//! What can go wrong while an archive is written.

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

impl TarError {
    /// For `map_err` on what failed with `path`.
    pub fn read<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::Read { action, path: path.to_owned(), source: source.into() }
    }
}
