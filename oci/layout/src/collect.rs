//! What a layout's index refers to, and the removal of everything else when nobody can be reading it any more.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, SystemTime};

use drydock_io::dir::{Dir, Place};
use drydock_model::digest::{Digest, is_foreign};
use drydock_model::json;
use drydock_model::manifest::{Descriptor, Index, Manifest, Members, subject};
use drydock_model::media;
use rustix::fs::{FileType, Stat};
use serde_json::Value as Json;

use super::error::{IoContext as _, LayoutError};
use super::files::Early;
use super::running::is_left;
use super::{MAX_JSON, blobs_dir};

/// For so long a blob stays when nothing refers to it any more: whoever read the index before may still be copying.
/// Clocks that are set back make it longer.
pub const GRACE: Duration = Duration::from_mins(10);

/// What can be reached.
#[derive(Debug, Default)]
pub(super) struct Reached {
    /// Blobs, those included that are not there.
    pub(super) blobs: HashSet<Digest>,
    /// The same as they are named, each once for what it is said to be.
    descriptors: Vec<Descriptor>,
    /// Digests of other algorithms.
    foreign: HashSet<String>,
}

impl Reached {
    fn has(&self, digest: &str) -> bool {
        self.foreign.contains(digest) || digest.parse().is_ok_and(|digest| self.blobs.contains(&digest))
    }
}

/// What a blob refers to.
#[derive(Debug, Default)]
struct References {
    descriptors: Vec<Descriptor>,
    /// Digests of other algorithms.
    foreign: Vec<String>,
}

/// All that descriptors lead to.
pub(super) fn reachable<'a>(
    layout: &Path,
    descriptors: impl IntoIterator<Item = &'a Descriptor>,
) -> Result<Reached, LayoutError> {
    let descriptors = descriptors.into_iter().cloned().collect();
    reachable_from(layout, References { descriptors, foreign: Vec::new() })
}

/// All that descriptors lead to in a layout, they themselves included, and what is not there; but nothing with a digest of
/// another algorithm. A blob that is said to be several things is there as often.
pub fn leads_to<'a>(
    layout: &Path,
    descriptors: impl IntoIterator<Item = &'a Descriptor>,
) -> Result<Vec<Descriptor>, LayoutError> {
    Ok(reachable(layout, descriptors)?.descriptors)
}

/// What a blob that is in a layout refers to, without what has a digest of another algorithm. Of an index or a manifest, that is
/// what the specification says; of other JSON, all that looks like a descriptor.
pub fn refers_to(layout: &Path, descriptor: &Descriptor) -> Result<Vec<Descriptor>, LayoutError> {
    Ok(references(layout, descriptor)?.descriptors)
}

fn reachable_from(layout: &Path, mut to_do: References) -> Result<Reached, LayoutError> {
    let mut found = Reached::default();
    // What a blob refers to depends on what it is said to be.
    let mut followed = HashSet::new();
    loop {
        let references = if let Some(descriptor) = to_do.descriptors.pop() {
            found.blobs.insert(descriptor.digest);
            if !followed.insert((descriptor.digest, descriptor.oci_media_type().to_owned())) {
                continue;
            }
            let references = references(layout, &descriptor)?;
            found.descriptors.push(descriptor);
            references
        } else if let Some(digest) = to_do.foreign.pop() {
            if !found.foreign.insert(digest.clone()) {
                continue;
            }
            references_of_foreign(layout, &digest)?
        } else {
            return Ok(found);
        };
        to_do.descriptors.extend(references.descriptors);
        to_do.foreign.extend(references.foreign);
    }
}

/// What a blob refers to.
fn references(layout: &Path, descriptor: &Descriptor) -> Result<References, LayoutError> {
    let media_type = descriptor.oci_media_type();
    // Configurations refer to nothing, whatever is in them.
    let is_json = media_type.ends_with("json") && media_type != media::CONFIG && descriptor.size <= MAX_JSON;
    let read = || Early::default().read_json(layout, descriptor);
    let found = match media_type {
        media::INDEX => read().map(|index: Index| References::of_index(&index.manifests)),
        media::MANIFEST => Early::default().read_json(layout, descriptor).map(|manifest: Manifest| {
            let descriptors = std::iter::once(manifest.config).chain(manifest.layers).collect();
            References { descriptors, foreign: Vec::new() }
        }),
        // Of what is not known here: all that looks like a descriptor.
        _ if is_json => match Early::default().read_json(layout, descriptor) {
            Err(LayoutError::Malformed { .. }) => Ok(References::default()),
            json => json.map(|json: Json| References::in_json(&json)),
        },
        _ => Ok(References::default()),
    };
    match found {
        Err(LayoutError::MissingBlob { .. }) => Ok(References::default()),
        found => found,
    }
}

/// What a blob with a digest of another algorithm refers to, so far as it looks like a descriptor. It is not checked: at
/// worst, too much is kept.
fn references_of_foreign(layout: &Path, digest: &str) -> Result<References, LayoutError> {
    let path = layout.join("blobs").join(digest.replacen(':', "/", 1));
    match Early::default().read(&path) {
        Ok(text) => {
            let json = json::from_slice(&text);
            Ok(json.map_or_else(|_| References::default(), |json| References::in_json(&json)))
        }
        // What is larger is no JSON that anybody reads.
        Err(LayoutError::Io { source, .. })
            if [ErrorKind::NotFound, ErrorKind::FileTooLarge].contains(&source.kind()) =>
        {
            Ok(References::default())
        }
        Err(error) => Err(error),
    }
}

impl References {
    fn of_index(members: &Members) -> Self {
        let digests = members.foreign.iter().filter_map(|foreign| foreign.get("digest")?.as_str());
        Self { descriptors: members.descriptors.clone(), foreign: digests.map(str::to_owned).collect() }
    }

    fn in_json(json: &Json) -> Self {
        let mut found = Self::default();
        found.add(json);
        found
    }

    fn add(&mut self, json: &Json) {
        match json {
            Json::Array(items) => items.iter().for_each(|item| self.add(item)),
            Json::Object(fields) => {
                let digest = fields.get("digest").and_then(Json::as_str);
                self.foreign.extend(digest.filter(|digest| is_foreign(digest)).map(str::to_owned));
                self.descriptors.extend(serde_json::from_value(json.clone()).ok());
                fields.values().for_each(|field| self.add(field));
            }
            _ => {}
        }
    }
}

/// Removes what killed processes left behind, and blobs that have been of no use for [`GRACE`]: `keep` leads to what
/// is of use now and was before this transaction, and the index before was written, or removed, at `switched`. Whoever calls it
/// holds the layout's lock. If anything cannot be read that is of use, nothing is removed.
pub(super) fn collect(layout: &Dir, keep: &[&Members], switched: SystemTime) -> Result<(), LayoutError> {
    collect_at(layout, keep, switched, SystemTime::now())
}

pub(super) fn collect_at(
    layout: &Dir,
    keep: &[&Members],
    switched: SystemTime,
    now: SystemTime,
) -> Result<(), LayoutError> {
    let blobs = own_blobs(layout).at("open", &blobs_dir(layout.path()))?;
    for dir in [layout, &blobs] {
        remove(dir, |name, _| is_left(&dir.place(name)))?;
    }
    let is_over = |since: SystemTime| now.duration_since(since).is_ok_and(|age| age > GRACE);
    if !is_over(switched) {
        return Ok(());
    }
    let kept = in_use(layout.path(), keep)?;
    let is_unused = |name: &str| digest_of(name).is_some_and(|digest| !kept.contains(&digest));
    // What another program has just put there, it may be about to refer to.
    remove(&blobs, |name, file| is_unused(name) && is_over(changed(file)))
}

/// The blobs that these lead to, and those that refer to them.
pub(super) fn in_use(layout: &Path, keep: &[&Members]) -> Result<HashSet<Digest>, LayoutError> {
    let mut roots = References::default();
    for References { descriptors, foreign } in keep.iter().map(|members| References::of_index(members)) {
        roots.descriptors.extend(descriptors);
        roots.foreign.extend(foreign);
    }
    let mut kept = reachable_from(layout, roots)?;
    keep_referrers(layout, &mut kept)?;
    Ok(kept.blobs)
}

/// Keeps what refers by its `subject` to what is kept: signatures and the like may stand in no index. Build logs do, as long
/// as no other one of the same image has taken their place.
fn keep_referrers(layout: &Path, kept: &mut Reached) -> Result<(), LayoutError> {
    let mut referrers: Vec<(String, Descriptor)> = Vec::new();
    let blobs = blobs_dir(layout);
    for (name, file) in list(&Dir::open(&blobs).at("open", &blobs)?)? {
        let Some(digest) = digest_of(&name) else { continue };
        let size = size(&file);
        if !is(FileType::RegularFile, &file) || size > MAX_JSON || kept.blobs.contains(&digest) {
            continue;
        }
        let mut descriptor = Descriptor::new(media::MANIFEST, digest, size);
        let json: Json = match Early::default().read_json(layout, &descriptor) {
            // What is damaged or no JSON, refers to nothing.
            Err(error) if error.is_damage() => continue,
            json => json?,
        };
        let is_log = json.get("artifactType").and_then(Json::as_str) == Some(media::BUILD_LOG);
        if let Some(subject) = subject(&json).filter(|_| !is_log) {
            let default = if json.get("manifests").is_some() { media::INDEX } else { media::MANIFEST };
            let media_type = json.get("mediaType").and_then(Json::as_str).unwrap_or(default);
            media_type.clone_into(&mut descriptor.media_type);
            referrers.push((subject.to_owned(), descriptor));
        }
    }
    while let Some(at) = referrers.iter().position(|(subject, _)| kept.has(subject)) {
        let (_, descriptor) = referrers.swap_remove(at);
        let Reached { blobs, foreign, .. } = reachable(layout, [&descriptor])?;
        kept.blobs.extend(blobs);
        kept.foreign.extend(foreign);
    }
    Ok(())
}

/// The digest of the blob whose file has this name.
pub(super) fn digest_of(name: &str) -> Option<Digest> {
    format!("sha256:{name}").parse().ok()
}

/// When a file last got a name, another owner, or other bytes.
pub(super) fn changed(file: &Stat) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(file.st_ctime).unwrap_or_default())
}

pub(super) fn is(kind: FileType, file: &Stat) -> bool {
    FileType::from_raw_mode(file.st_mode) == kind
}

/// In bytes.
pub(super) fn size(file: &Stat) -> u64 {
    u64::try_from(file.st_size).unwrap_or_default()
}

/// The folder of a layout's blobs, which is not behind a link.
pub(super) fn own_blobs(layout: &Dir) -> io::Result<Dir> {
    layout.enter("blobs")?.enter("sha256")
}

/// The names in a folder that are UTF-8, and what they name. What goes meanwhile is passed over: logs of builds, and what other
/// programs write, come and go without the lock.
pub(super) fn list(dir: &Dir) -> Result<Vec<(String, Stat)>, LayoutError> {
    let mut found = Vec::new();
    for name in dir.names().at("list", dir.path())? {
        let place = dir.place(&name);
        let Some(file) = place.look().at("look at", place.path())? else { continue };
        found.extend(name.into_string().ok().map(|name| (name, file)));
    }
    Ok(found)
}

/// Removes what is condemned of a folder's entries, but no folders.
fn remove(dir: &Dir, condemned: impl Fn(&str, &Stat) -> bool) -> Result<(), LayoutError> {
    for (name, file) in list(dir)? {
        if !is(FileType::Directory, &file) && condemned(&name, &file) {
            remove_file(&dir.place(name))?;
        }
    }
    Ok(())
}

/// Removes a file that may be gone.
pub(super) fn remove_file(place: &Place) -> Result<(), LayoutError> {
    match place.remove() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.at("remove", place.path()),
    }
}
