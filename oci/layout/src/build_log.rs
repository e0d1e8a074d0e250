//! The log of an image's build beside the image: an artifact that refers to it by `subject`, in `index.json`.
//!
//! It belongs to its image: when that is replaced, or gets another log, it goes. No other artifact does.
//! Specification: OCI image-spec `manifest.md` § Guidelines for Artifact Usage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use drydock_io::file::TempFile;
use drydock_model::digest::Digest;
use drydock_model::manifest::{self, Annotations, Descriptor, Index, Manifest};
use drydock_model::media;
use drydock_model::reference::LayoutPath;
use serde_json::{Map, Value as Json, json};

use super::error::LayoutError;
use super::files::Early;
use super::transaction::Transaction;
use super::tree::{self, Damage, Entry};

/// What tools name a file by that they make of a layer.
const TITLE: &str = "org.opencontainers.image.title";

/// A log on its way into a layout.
#[derive(Debug)]
pub struct NewLog {
    /// Its lines, [beside the blobs](Transaction::beside_blobs).
    pub file: TempFile,
    /// Their digest.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
}

impl NewLog {
    /// Puts the artifact that refers to an image into its place.
    pub(super) fn put(
        self,
        transaction: &Transaction,
        image: &Descriptor,
    ) -> Result<Descriptor, LayoutError> {
        let mut layer = Descriptor::new(media::BUILD_LOG, self.digest, self.size);
        layer.annotations.insert(TITLE.to_owned(), "build-log.jsonl".to_owned());
        transaction.put_blob(self.file, self.digest)?;
        let kind = || ("artifactType".to_owned(), Json::from(media::BUILD_LOG));
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::MANIFEST.to_owned(),
            config: transaction.put_bytes(media::EMPTY, b"{}")?,
            layers: vec![layer],
            annotations: Annotations::new(),
            rest: Map::from_iter([kind(), ("subject".to_owned(), json!(image))]),
        };
        let descriptor = transaction.put_json(media::MANIFEST, &manifest)?;
        Ok(Descriptor { rest: Map::from_iter([kind()]), ..descriptor })
    }
}

/// Drops the logs of images that were there before and are no more, and all logs of an image but the last.
pub(super) fn drop_outdated(
    layout: &LayoutPath,
    before: &[Entry],
    index: &mut Index,
) -> Result<(), LayoutError> {
    let logs: BTreeMap<Digest, Digest> = index
        .manifests
        .descriptors
        .iter()
        .filter_map(|descriptor| Some((descriptor.digest, subject(layout.path(), descriptor)?)))
        .collect();
    if logs.is_empty() {
        return Ok(());
    }
    let images = |entries: &[Entry]| -> BTreeSet<Digest> {
        entries.iter().flat_map(Entry::images).map(|(image, _)| image.digest).collect()
    };
    let (before, after) =
        (images(before), images(&tree::read(layout, index, &Early::default(), Damage::Tolerated)?));
    let mut have_log = BTreeSet::new();
    let descriptors = &mut index.manifests.descriptors;
    descriptors.reverse();
    descriptors.retain(|descriptor| {
        logs.get(&descriptor.digest).is_none_or(|image| {
            let is_replaced = before.contains(image) && !after.contains(image);
            !is_replaced && have_log.insert(*image)
        })
    });
    descriptors.reverse();
    Ok(())
}

/// The image that a descriptor is the log of. What cannot be read is none.
fn subject(layout: &Path, descriptor: &Descriptor) -> Option<Digest> {
    let kind = descriptor.rest.get("artifactType").and_then(Json::as_str);
    if kind != Some(media::BUILD_LOG) {
        return None;
    }
    let manifest: Json = Early::default().read_json(layout, descriptor).ok()?;
    manifest::subject(&manifest)?.parse().ok()
}
