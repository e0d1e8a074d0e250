//! Image layouts: `oci-layout`, `index.json` and `blobs/sha256/<hex>` in one folder.
//!
//! [`Layout`] reads and checks one; [`LayoutWriter`] puts an image into one so that a reader finds the old image or
//! the new one, complete. Specification: OCI image-spec `image-layout.md`.

mod collect;
mod error;
mod read;
mod share;
#[cfg(test)]
mod tests;
mod write;

use std::path::{Path, PathBuf};

pub use error::LayoutError;
pub use read::{Image, ImageLayer, Layout};
pub use share::{LinkMode, Shared};
pub use write::{BlobSource, Committed, LayoutWriter, NewImage, NewLayer};

use drydock_model::digest::Digest;

/// The blobs of a layout.
fn blobs_dir(layout: &Path) -> PathBuf {
    layout.join("blobs").join("sha256")
}

/// The file of a blob.
fn blob_path(layout: &Path, digest: &Digest) -> PathBuf {
    blobs_dir(layout).join(digest.hex())
}
