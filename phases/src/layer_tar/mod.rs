//! The tars of layers, byte for byte as the Go lifecycle writes them.
//!
//! A [`LayerSource`] says what a layer holds and writes its tar as often as needed, always the same bytes: a directory
//! ([`DirLayer`]), a slice of the app ([`slice_layers`]), the launcher ([`LauncherLayer`]), links for the process types
//! ([`ProcessTypesLayer`]). All entries have absolute names, one time of modification, and no extended attributes.

mod dir;
mod files;
mod glob;
mod look;
mod outline;
mod root;
#[cfg(test)]
mod round_trip;
mod slices;
mod synthetic;
#[cfg(test)]
mod testing;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use drydock_io::sink::Sink;
use drydock_tar::{Entry, Kind, NO_XATTRS, Owner, TarError, Time};

pub use dir::DirLayer;
pub use outline::Outline;
pub use slices::{SliceLayer, slice_layers};
pub use synthetic::{LauncherLayer, ProcessTypesLayer};

/// Every entry's time of modification: 1980-01-01T00:00:01Z.
const MODIFIED: Time = Time { seconds: 315_532_801, nanoseconds: 0 };

/// What a layer holds.
pub trait LayerSource: fmt::Debug + Send + Sync {
    /// Writes the whole tar. As long as nothing changes on disk, each call writes the same bytes.
    ///
    /// What was written before an error is no tar: throw it away. The outline is of files as they looked before they were read;
    /// none where looking costs no less than reading.
    fn write(&self, out: &mut dyn Sink) -> Result<Option<Outline>, TarError>;

    /// The outline of the tar that would be written.
    fn look(&self) -> Result<Option<Outline>, TarError> {
        Ok(None)
    }

    /// What was found when it was written, and is not in the tar: sockets.
    fn left_out(&self) -> BTreeSet<PathBuf> {
        BTreeSet::new()
    }
}

/// Files that no tar can hold, as they are found.
#[derive(Debug, Clone, Default)]
struct LeftOut(Arc<Mutex<BTreeSet<PathBuf>>>);

impl LeftOut {
    fn add(&self, path: PathBuf) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path);
    }

    fn all(&self) -> BTreeSet<PathBuf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Writes the entry of something with an absolute name, without a slash at its end, and with a mode of 07777.
fn write_entry(name: &[u8], kind: Kind<'_>, mode: u32, owner: Owner, out: &mut dyn Sink) -> io::Result<()> {
    Entry { name, kind, mode, owner, modified: MODIFIED, xattrs: NO_XATTRS }.write(out)
}
