//! What a layout's index refers to, and the removal of everything else.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::error::{IoContext as _, LayoutError};
use super::read::{MAX_DEPTH, parse, read_blob};
use super::{blob_path, blobs_dir};
use drydock_io::file::TEMPORARY_PREFIX;
use drydock_model::digest::Digest;
use drydock_model::manifest::{Index, Manifest};
use drydock_model::media;

/// The digests of all blobs that an index leads to.
fn referenced(
    layout: &Path,
    index: &Index,
    depth: usize,
    found: &mut HashSet<Digest>,
) -> Result<(), LayoutError> {
    for descriptor in &index.manifests {
        if !found.insert(descriptor.digest) {
            continue;
        }
        let path = blob_path(layout, &descriptor.digest);
        match descriptor.oci_media_type() {
            media::INDEX if depth < MAX_DEPTH => {
                let nested: Index = parse(&read_blob(layout, descriptor)?, &path)?;
                referenced(layout, &nested, depth + 1, found)?;
            }
            media::MANIFEST => {
                let manifest: Manifest = parse(&read_blob(layout, descriptor)?, &path)?;
                found.insert(manifest.config.digest);
                found.extend(manifest.layers.iter().map(|layer| layer.digest));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes blobs that the index does not lead to, and what killed processes left behind. Whoever calls it holds the
/// layout's lock. If anything that the index leads to cannot be read, nothing is removed.
pub(super) fn remove_unreferenced(layout: &Path, index: &Index) -> Result<(), LayoutError> {
    let mut keep = HashSet::new();
    referenced(layout, index, 0, &mut keep)?;
    let keep: HashSet<String> = keep.iter().map(Digest::hex).collect();
    remove_files(&blobs_dir(layout), |name| !keep.contains(name))?;
    remove_files(layout, |name| name.starts_with(TEMPORARY_PREFIX))
}

fn remove_files(dir: &Path, condemned: impl Fn(&str) -> bool) -> Result<(), LayoutError> {
    for entry in fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        let is_dir = entry.file_type().at("read", &entry.path())?.is_dir();
        if !is_dir && entry.file_name().to_str().is_none_or(&condemned) {
            fs::remove_file(entry.path()).at("remove", &entry.path())?;
        }
    }
    Ok(())
}
