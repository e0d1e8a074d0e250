//! Images to elsewhere: as they are, with the digests that they have, or unpacked.

mod archive;
mod target;
mod unpack;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use drydock_layout::{Change, Durability, Layout, LayoutError, LinkMode, Transaction, leads_to};
use drydock_model::digest::Digest;
use drydock_model::manifest::{Descriptor, Index, REF_NAME};
use drydock_model::media;
use drydock_model::platform::Platform;
use drydock_model::reference::LayoutDir;

pub(crate) use archive::BUILD_LOGS;
pub use archive::{docker_archive, oci_archive};
pub use target::{File, NoTarget, Target};
pub use unpack::{Rights, Unpacked, unpack};

use crate::repository::{Name, absolute};
use crate::tag::referrers;
use crate::watch::{Watch, waiting};
use crate::write;

/// What is exported: an image, or an index of several, with what refers to it.
#[derive(Debug)]
pub struct Exported {
    /// The image or index, without a name.
    pub root: Descriptor,
    /// What it consists of if it is an index that has no blob: images for different platforms without an index.
    pub made: Option<Vec<u8>>,
    /// What refers to it.
    pub beside: Vec<Descriptor>,
    /// All blobs that these lead to, each once, sorted by digest.
    pub blobs: Vec<Descriptor>,
}

/// What a name stands for: for all platforms, or for one.
pub fn select(name: &Name, layout: &Layout, platform: Option<&Platform>) -> Result<Exported> {
    let dir = name.path().path();
    let image = platform.map(|platform| layout.image(platform)).transpose()?;
    let named: Vec<&Descriptor> = match &image {
        Some(image) => vec![&image.descriptor],
        None => crate::tag::named(name, layout)?,
    };
    let nameless = |descriptor: &Descriptor| {
        let mut descriptor = descriptor.clone();
        descriptor.annotations.remove(REF_NAME);
        descriptor
    };
    let mut blobs = leads_to(dir, named.iter().copied())?;
    let digests: BTreeSet<Digest> = blobs.iter().map(|blob| blob.digest).collect();
    let beside: Vec<Descriptor> = referrers(layout, dir, &digests)?.into_iter().cloned().collect();
    blobs.extend(leads_to(dir, &beside)?);
    blobs.sort_by_key(|blob| blob.digest);
    blobs.dedup_by_key(|blob| blob.digest);
    let (root, made) = match named.as_slice() {
        [only] => (nameless(only), None),
        several => {
            let manifests: Vec<_> = several.iter().map(|descriptor| nameless(descriptor)).collect();
            let bytes = serde_json::to_vec(&Index { manifests: manifests.into(), ..Index::empty() })?;
            (Descriptor::new(media::INDEX, Digest::of(&bytes), bytes.len() as u64), Some(bytes))
        }
    };
    Ok(Exported { root, made, beside, blobs })
}

/// Into an image layout, beside what else it holds, under a tag or the name's own.
pub fn layout(
    name: &Name,
    exported: &Exported,
    dir: &Path,
    tag: Option<&str>,
    durability: Durability,
    watch: &dyn Watch,
) -> Result<Option<String>> {
    let path = absolute(dir)?;
    let text = path.to_str().with_context(|| format!("the path `{}` is not UTF-8", path.display()))?;
    let parent = path.parent().with_context(|| format!("`{text}` cannot be a layout"))?;
    let root = LayoutDir::new(parent)?;
    let to = root.resolve(text)?.called(tag.unwrap_or(name.path().ref_name()));
    // It is somebody else's, who may write to its files: they are not the repository's own.
    let transaction = Transaction::begin(&root, &[to], LinkMode::Reflink, durability, &waiting(watch))?;
    let from = name.path().path();
    let total = exported.blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add);
    watch.begin("exporting", total);
    let mut absent = BTreeSet::new();
    for blob in &exported.blobs {
        match transaction.bring_blob(from, blob) {
            Err(LayoutError::MissingBlob { digest, .. }) if may_be_absent(blob) => {
                absent.insert(digest);
            }
            brought => drop(brought?),
        }
        watch.advance(blob.size)?;
    }
    watch.end();
    if let Some(bytes) = &exported.made {
        transaction.put_bytes(media::INDEX, bytes)?;
    }
    let mut changes = vec![Change::Name(exported.root.clone())];
    changes.extend(exported.beside.iter().cloned().map(Change::Add));
    write::publish(transaction.prepare(&changes, &absent)?)
}

/// Whether an image can be handed on without it: layers of sparse images, and what is no image.
fn may_be_absent(blob: &Descriptor) -> bool {
    !matches!(blob.oci_media_type(), media::INDEX | media::MANIFEST | media::CONFIG)
}
