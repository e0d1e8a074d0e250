//! Layer tars: written byte for byte as the Go lifecycle writes them, and extracted without leaving the layers directory.
//!
//! A [`LayerSource`] says what a layer holds and writes its tar as often as needed, always the same bytes: a directory
//! ([`DirLayer`]), a slice of the app ([`slice_layers`]), the launcher ([`LauncherLayer`]), links for the process types
//! ([`ProcessTypesLayer`]). All entries have one time of modification and no names of users or groups.

mod ahead;
mod dir;
mod error;
mod extract;
mod files;
mod glob;
mod header;
mod place;
#[cfg(test)]
mod round_trip;
mod slices;
mod synthetic;
#[cfg(test)]
mod testing;
mod trail;
mod walk;

use std::fmt;

pub use dir::DirLayer;
pub use error::TarError;
pub use extract::{ExtractError, extract};
pub use glob::BadPattern;
pub use header::Owner;
pub use slices::{SliceLayer, slice_layers};
pub use synthetic::{LauncherLayer, ProcessTypesLayer};

use drydock_io::sink::Sink;

/// What a layer holds.
pub trait LayerSource: fmt::Debug + Send + Sync {
    /// Writes the whole tar. As long as nothing changes on disk, each call writes the same bytes.
    ///
    /// What was written before an error is no tar: throw it away.
    fn write(&self, out: &mut dyn Sink) -> Result<(), TarError>;
}
