//! Further names for an image: other layouts with the same blobs, by link where the file system can.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use drydock_layout::{
    Change, Durability, Layout, LinkMode, MAX_JSON, Shared, Transaction, leads_to, read_blob,
};
use drydock_model::digest::Digest;
use drydock_model::json;
use drydock_model::manifest::{Descriptor, Index, REF_NAME, subject};
use drydock_model::media;
use drydock_model::reference::LayoutPath;
use serde_json::Value as Json;

use crate::repository::Name;
use crate::watch::{Watch, waiting};
use crate::write;

/// What came of it.
#[derive(Debug)]
pub struct Tagged {
    /// What the new names stand for.
    pub digest: Digest,
    /// How blobs came into the first new layout.
    pub shared: Shared,
    /// What went wrong after the names were there: old blobs that could not be removed.
    pub left: Option<String>,
}

/// What a name stands for, for all platforms: not nothing.
pub(crate) fn named<'l>(name: &Name, layout: &'l Layout) -> Result<Vec<&'l Descriptor>> {
    let named = layout.named();
    let (path, ref_name) = (name.path().path().display(), name.path().ref_name());
    ensure!(!named.is_empty(), "nothing in the index of `{path}` has the name `{ref_name}`");
    Ok(named)
}

/// Makes new names stand for what a name stands for, for all platforms, with what refers to it; all of them, or none. What
/// they stood for before goes. All lie in one repository.
pub fn tag(
    name: &Name,
    layout: &Layout,
    new: &[Name],
    durability: Durability,
    watch: &dyn Watch,
) -> Result<Tagged> {
    let first = new.first().context("a new name is needed")?;
    if let Some(other) = new.iter().find(|other| other.dir() != first.dir()) {
        bail!("`{first}` and `{other}` do not lie in one repository: tag them one by one");
    }
    let from = name.path().path();
    let named = named(name, layout)?;
    let paths: Vec<LayoutPath> = new.iter().map(|name| name.path().clone()).collect();
    let transaction = Transaction::begin(first.dir(), &paths, LinkMode::Auto, durability, &waiting(watch))?;
    let mut blobs = leads_to(from, named.iter().copied())?;
    let digests: BTreeSet<Digest> = blobs.iter().map(|blob| blob.digest).collect();
    let beside = referrers(layout, from, &digests)?;
    blobs.extend(leads_to(from, beside.iter().copied())?);
    watch.begin("tagging", blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add));
    let (mut shared, mut absent) = (Shared::default(), BTreeSet::new());
    for blob in &blobs {
        let is_layer = blob.oci_media_type().starts_with(media::LAYERS);
        match transaction.bring_blob(from, blob) {
            Ok(brought) => shared += brought,
            Err(drydock_layout::LayoutError::MissingBlob { digest, .. }) if is_layer => {
                absent.insert(digest);
            }
            Err(error) => return Err(error.into()),
        }
        watch.advance(blob.size)?;
    }
    watch.end();
    let root = match named.as_slice() {
        [only] => without_name(only),
        several => {
            let manifests: Vec<_> = several.iter().map(|descriptor| without_name(descriptor)).collect();
            let index = serde_json::to_vec(&Index { manifests: manifests.into(), ..Index::empty() })?;
            transaction.put_bytes(media::INDEX, &index)?
        }
    };
    let digest = root.digest;
    let mut changes = vec![Change::Name(root)];
    changes.extend(beside.into_iter().cloned().map(Change::Add));
    let left = write::publish(transaction.prepare(&changes, &absent)?)?;
    Ok(Tagged { digest, shared, left })
}

fn without_name(descriptor: &Descriptor) -> Descriptor {
    let mut descriptor = descriptor.clone();
    descriptor.annotations.remove(REF_NAME);
    descriptor
}

/// What `index.json` names and refers to one of these by its `subject`. What is damaged refers to nothing.
pub(crate) fn referrers<'a>(
    layout: &'a Layout,
    dir: &std::path::Path,
    digests: &BTreeSet<Digest>,
) -> Result<Vec<&'a Descriptor>> {
    let mut found = Vec::new();
    for descriptor in &layout.index().manifests.descriptors {
        let text = match read_blob(dir, descriptor) {
            Err(error) if error.is_damage() || descriptor.size > MAX_JSON => continue,
            text => text?,
        };
        let manifest: Json = json::from_slice(&text).unwrap_or_default();
        let subject = subject(&manifest).and_then(|digest| digest.parse().ok());
        if subject.is_some_and(|subject| digests.contains(&subject)) && !digests.contains(&descriptor.digest)
        {
            found.push(descriptor);
        }
    }
    Ok(found)
}
