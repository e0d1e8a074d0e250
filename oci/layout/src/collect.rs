//! What a layout's index refers to, and the removal of everything else when nobody can be reading it any more.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::path::Path;
use std::time::{Duration, SystemTime};

use drydock_io::file::TEMPORARY_PREFIX;
use drydock_model::digest::Digest;
use drydock_model::manifest::{Descriptor, Index, Manifest};
use drydock_model::media;
use serde_json::Value as Json;

use super::error::{IoContext as _, LayoutError};
use super::files::Early;
use super::{MAX_JSON, blobs_dir};

/// For so long a blob stays when nothing refers to it any more: whoever read the index before may still be copying.
/// Clocks that are set back make it longer.
pub const GRACE: Duration = Duration::from_mins(10);

/// The digests of all blobs that descriptors lead to, those included that are not there.
pub(super) fn reachable<'a>(
    layout: &Path,
    descriptors: impl IntoIterator<Item = &'a Descriptor>,
) -> Result<HashSet<Digest>, LayoutError> {
    let mut found = HashSet::new();
    // What a blob refers to depends on what it is said to be.
    let mut followed = HashSet::new();
    let mut to_do: Vec<Descriptor> = descriptors.into_iter().cloned().collect();
    while let Some(descriptor) = to_do.pop() {
        found.insert(descriptor.digest);
        if followed.insert((descriptor.digest, descriptor.oci_media_type().to_owned())) {
            to_do.extend(references(layout, &descriptor)?);
        }
    }
    Ok(found)
}

/// What a blob refers to.
fn references(layout: &Path, descriptor: &Descriptor) -> Result<Vec<Descriptor>, LayoutError> {
    let media_type = descriptor.oci_media_type();
    // Configurations refer to nothing, whatever is in them.
    let is_json = media_type.ends_with("json") && media_type != media::CONFIG && descriptor.size <= MAX_JSON;
    let read = || Early::default().read_json(layout, descriptor);
    let missing = |error: &LayoutError| matches!(error, LayoutError::MissingBlob { .. });
    match media_type {
        media::INDEX => match read().map(|index: Index| index.manifests) {
            Err(error) if missing(&error) => Ok(Vec::new()),
            manifests => manifests,
        },
        media::MANIFEST => match Early::default().read_json::<Manifest>(layout, descriptor) {
            Err(error) if missing(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(manifest) => Ok(std::iter::once(manifest.config).chain(manifest.layers).collect()),
        },
        // Of what is not known here: all that looks like a descriptor.
        _ if is_json => match Early::default().read_json(layout, descriptor) {
            Ok(json) => Ok(descriptors_in(&json)),
            Err(LayoutError::MissingBlob { .. } | LayoutError::Malformed { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        },
        _ => Ok(Vec::new()),
    }
}

fn descriptors_in(json: &Json) -> Vec<Descriptor> {
    match json {
        Json::Array(items) => items.iter().flat_map(descriptors_in).collect(),
        Json::Object(fields) => {
            let this = serde_json::from_value(json.clone()).ok();
            this.into_iter().chain(fields.values().flat_map(descriptors_in)).collect()
        }
        _ => Vec::new(),
    }
}

/// Removes what killed processes left behind, and blobs that have been of no use for [`GRACE`]: `keep` leads to what
/// is of use now and was before this transaction, and the index before was written at `switched`. Whoever calls it holds
/// the layout's lock. If anything cannot be read that is of use, nothing is removed.
pub(super) fn collect(
    layout: &Path,
    keep: impl IntoIterator<Item = Descriptor>,
    switched: Option<SystemTime>,
) -> Result<(), LayoutError> {
    collect_at(layout, keep, switched, SystemTime::now())
}

pub(super) fn collect_at(
    layout: &Path,
    keep: impl IntoIterator<Item = Descriptor>,
    switched: Option<SystemTime>,
    now: SystemTime,
) -> Result<(), LayoutError> {
    let blobs = blobs_dir(layout);
    for dir in [layout, &blobs] {
        remove(dir, |name, _| name.starts_with(TEMPORARY_PREFIX))?;
    }
    let is_over = |since: SystemTime| now.duration_since(since).is_ok_and(|age| age > GRACE);
    if !switched.is_none_or(is_over) {
        return Ok(());
    }
    let mut kept = reachable(layout, &keep.into_iter().collect::<Vec<_>>())?;
    keep_referrers(layout, &mut kept)?;
    let is_unused = |name: &str| digest_of(name).is_some_and(|digest| !kept.contains(&digest));
    // What another program has just put there, it may be about to refer to.
    remove(&blobs, |name, file| is_unused(name) && is_over(changed(file)))
}

/// Keeps what refers by its `subject` to what is kept: signatures and the like may stand in no index.
fn keep_referrers(layout: &Path, kept: &mut HashSet<Digest>) -> Result<(), LayoutError> {
    let mut referrers: Vec<(Digest, Descriptor)> = Vec::new();
    for (name, file) in list(&blobs_dir(layout))? {
        let Some(digest) = digest_of(&name) else { continue };
        if !file.is_file() || file.len() > MAX_JSON || kept.contains(&digest) {
            continue;
        }
        let mut descriptor = Descriptor::new(media::MANIFEST, digest, file.len());
        // What is no JSON, refers to nothing.
        let Ok(json) = Early::default().read_json::<Json>(layout, &descriptor) else { continue };
        let subject = json.get("subject").and_then(|subject| subject.get("digest")?.as_str());
        if let Some(subject) = subject.and_then(|subject| subject.parse().ok()) {
            let default = if json.get("manifests").is_some() { media::INDEX } else { media::MANIFEST };
            let media_type = json.get("mediaType").and_then(Json::as_str).unwrap_or(default);
            media_type.clone_into(&mut descriptor.media_type);
            referrers.push((subject, descriptor));
        }
    }
    while let Some(at) = referrers.iter().position(|(subject, _)| kept.contains(subject)) {
        let (_, descriptor) = referrers.swap_remove(at);
        kept.extend(reachable(layout, [&descriptor])?);
    }
    Ok(())
}

/// The digest of the blob whose file has this name.
fn digest_of(name: &str) -> Option<Digest> {
    format!("sha256:{name}").parse().ok()
}

/// When a file last got a name, another owner, or other bytes.
fn changed(file: &Metadata) -> SystemTime {
    use std::os::unix::fs::MetadataExt as _;
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(file.ctime()).unwrap_or_default())
}

/// The names in a folder that are UTF-8, and what they name.
fn list(dir: &Path) -> Result<Vec<(String, Metadata)>, LayoutError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        let metadata = entry.metadata().at("look at", &entry.path())?;
        found.extend(entry.file_name().into_string().ok().map(|name| (name, metadata)));
    }
    Ok(found)
}

/// Removes what is condemned of a folder's entries, but no folders.
fn remove(dir: &Path, condemned: impl Fn(&str, &Metadata) -> bool) -> Result<(), LayoutError> {
    for (name, metadata) in list(dir)? {
        if !metadata.is_dir() && condemned(&name, &metadata) {
            let path = dir.join(name);
            fs::remove_file(&path).at("remove", &path)?;
        }
    }
    Ok(())
}
