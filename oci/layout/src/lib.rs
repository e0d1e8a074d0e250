//! Image layouts: `oci-layout`, `index.json` and `blobs/sha256/<hex>` in one folder. Specification: OCI image-spec
//! `image-layout.md`.
//!
//! [`Layout`] reads one and checks what it reads. [`Transaction`] is the one way to write: blobs first, each verified;
//! then, when they are on the disk, the `index.json` of every name in one step each; then, later, what nothing refers
//! to any more is removed ([`GRACE`]).
//!
//! What is read comes from others, so it is regular files within these limits:
//!
//! | what | limit |
//! |---|---|
//! | an index, a manifest or a configuration | [`MAX_JSON`] bytes |
//! | indexes in indexes | [`MAX_DEPTH`] deep, each read once |
//! | descriptors in all indexes of a layout | [`MAX_DESCRIPTORS`] |

mod build_log;
mod collect;
mod edit;
mod error;
mod files;
mod folders;
mod read;
mod running;
pub mod seen;
mod share;
mod sweep;
mod target;
#[cfg(test)]
mod tests;
mod transaction;
mod tree;

use std::path::{Path, PathBuf};

pub use build_log::NewLog;
pub use collect::{GRACE, leads_to, refers_to};
pub use edit::Change;
pub use error::LayoutError;
pub use files::{BlobReader, Early, open_blob, open_whole_blob, read_blob};
pub use folders::check_apart;
pub use read::{Image, ImageLayer, Layout, check_marker};
pub use running::{Spool, running};
pub use share::{LinkMode, Shared};
pub use sweep::{Swept, Unused, remove_link, sweep};
pub use transaction::{BlobSource, Committed, Durability, NewImage, NewLayer, Prepared, Transaction, forget};

use drydock_model::digest::Digest;

/// Bytes of an index, a manifest or a configuration. Registries take half of that.
pub const MAX_JSON: u64 = 8 << 20;

/// Indexes may lie in indexes this deep.
pub const MAX_DEPTH: usize = 8;

/// Descriptors in all indexes of one layout.
pub const MAX_DESCRIPTORS: usize = 20_000;

/// The folder of a layout's blobs.
pub fn blobs_dir(layout: &Path) -> PathBuf {
    layout.join("blobs").join("sha256")
}

/// The file of a blob.
pub fn blob_path(layout: &Path, digest: &Digest) -> PathBuf {
    blobs_dir(layout).join(digest.hex())
}
