//! Whether layouts hold what they should: every index, manifest, configuration, label, blob and diff ID.
//!
//! A blob is read once, however many layouts have the same file, and decompressed once, however many files have the same digest and however often it
//! is verified ([`Proven`]). Memory: a few buffers for each thread.

mod proven;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Result;
use drydock_encode::compress::{Format, decompressed};
use drydock_io::lock::Identity;
use drydock_io::threads::each;
use drydock_layout::{
    BlobReader, Layout, LayoutError, MAX_DEPTH, MAX_DESCRIPTORS, blob_path, open_blob, read_blob,
};
use drydock_model::config::ImageConfig;
use drydock_model::digest::{DiffId, Digest};
use drydock_model::hash::Hasher;
use drydock_model::json;
use drydock_model::manifest::{Descriptor, Index, Manifest, Members};
use drydock_model::media;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

pub use self::proven::Proven;
use crate::built::{self, Built, may_lack};
use crate::repository::Name;
use crate::watch::Watch;

/// What was found in a layout.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub path: String,
    /// In a word.
    pub status: Status,
    /// Images in it.
    pub images: usize,
    /// Blobs that it leads to and that are there.
    pub blobs: usize,
    /// Bytes in them.
    pub size: u64,
    /// What is wrong.
    pub problems: Vec<String>,
    /// Why something is not known, for want of permission to read it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
    /// Blobs of layers that are not there and need not be, as in a sparse image, and images for other platforms.
    pub lacks: Vec<Lacking>,
}

/// A layout's state in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Everything is there and right.
    Whole,
    /// What is there is right, but blobs of layers are missing that an image may lack, such as its run image's.
    Sparse,
    /// Its index names nothing.
    Empty,
    /// Something is wrong.
    Damaged,
    /// What could be read is right.
    Unreadable,
}

/// What keeps something from being right.
#[derive(Debug, Clone)]
enum Trouble {
    Wrong(String),
    Unreadable(String),
}

impl From<&LayoutError> for Trouble {
    fn from(error: &LayoutError) -> Self {
        if error.is_unreadable() { Self::Unreadable(told(error)) } else { Self::Wrong(told(error)) }
    }
}

impl Verified {
    fn add(&mut self, trouble: Trouble) {
        let (list, text) = match trouble {
            Trouble::Wrong(text) => (&mut self.problems, text),
            Trouble::Unreadable(text) => (&mut self.unreadable, text),
        };
        if !list.contains(&text) {
            list.push(text);
        }
    }
}

/// A blob that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lacking {
    /// Its digest.
    pub digest: Digest,
    /// Bytes that it should have.
    pub size: u64,
}

/// A blob to read.
#[derive(Debug)]
struct Job {
    path: PathBuf,
    layout: PathBuf,
    descriptor: Descriptor,
    /// What its tar should have, by those who name it.
    diff_ids: BTreeSet<DiffId>,
    /// The layouts that have it.
    of: BTreeSet<usize>,
}

impl Job {
    /// Two blobs of which this is the same hold the same tar; none if it is no layer.
    fn key(&self) -> Option<proven::Key> {
        let format = Format::of(&self.descriptor.media_type).ok()?;
        Some((self.descriptor.digest, format.media_type()))
    }
}

type Jobs = BTreeMap<(Identity, Digest), Job>;

/// Checks layouts, on so many threads, and adds to what is proven. An error is one of the work, not of what was found, or what `gone` makes of a
/// layout that is not there, or no longer.
pub fn verify(
    names: &[Name],
    threads: NonZeroUsize,
    proven: &mut Proven,
    watch: &dyn Watch,
    gone: &dyn Fn(&Name) -> Result<()>,
) -> Result<Vec<Verified>> {
    let mut jobs = Jobs::new();
    let mut found = Vec::new();
    for name in names {
        let mut walk = Walk::new(name, found.len(), &mut jobs);
        if walk.layout() {
            found.push(walk.found);
        } else {
            gone(name)?;
        }
        watch.advance(0)?;
    }
    let mut jobs: Vec<Job> = jobs.into_values().collect();
    // The largest first, so that no thread ends long after the others.
    jobs.sort_by_key(|job| std::cmp::Reverse(job.descriptor.size));
    watch.begin("verifying", jobs.iter().map(|job| job.descriptor.size).sum());
    for (job, trouble) in run(jobs, threads, proven, watch)? {
        for &layout in &job.of {
            found[layout].add(trouble.clone());
        }
    }
    watch.end();
    for verified in &mut found {
        verified.status = match verified {
            Verified { problems, .. } if !problems.is_empty() => Status::Damaged,
            Verified { unreadable, .. } if !unreadable.is_empty() => Status::Unreadable,
            Verified { lacks, .. } if !lacks.is_empty() => Status::Sparse,
            Verified { status, .. } => *status,
        };
    }
    Ok(found)
}

/// Reads all blobs; gives those with which something is wrong. What has a digest that another file turned out to have holds the same tar.
fn run(
    jobs: Vec<Job>,
    threads: NonZeroUsize,
    proven: &mut Proven,
    watch: &dyn Watch,
) -> Result<Vec<(Job, Trouble)>> {
    let mut digests = BTreeSet::new();
    let (first, copies): (Vec<Job>, Vec<Job>) =
        jobs.into_iter().partition(|job| digests.insert(job.descriptor.digest));
    let mut troubles = Vec::new();
    for jobs in [first, copies] {
        let known = |job: &Job| proven.tar(&job.key()?, &job.diff_ids);
        let found = each(&jobs, threads, |job| check(job, known(job), watch))?;
        for (job, found) in jobs.into_iter().zip(found) {
            match found {
                Ok(tar) => job.key().zip(tar).into_iter().for_each(|(key, tar)| proven.insert(key, tar)),
                Err(trouble) => troubles.push((job, trouble)),
            }
        }
    }
    Ok(troubles)
}

/// A blob that is hashed while it is read.
struct Hashed<'a> {
    blob: BlobReader,
    hash: Hasher,
    watch: &'a dyn Watch,
    stopped: Option<io::Error>,
    failed: Option<io::Error>,
}

impl io::Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = match self.blob.read(buffer) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                let kind = error.kind();
                self.failed = Some(error);
                return Err(kind.into());
            }
            n => n?,
        };
        self.hash.update(&buffer[..n]);
        if let Err(error) = self.watch.advance(n as u64) {
            let kind = error.kind();
            self.stopped = Some(error);
            return Err(kind.into());
        }
        Ok(n)
    }
}

/// The tar that is in a blob, if that matters, or what is wrong with the blob. `known`: what is in one with its digest. An error means
/// that the work was stopped.
fn check(job: &Job, known: Option<DiffId>, watch: &dyn Watch) -> io::Result<Result<Option<DiffId>, Trouble>> {
    let wrong = |text: String| Ok(Err(Trouble::Wrong(text)));
    let Job { descriptor, diff_ids, layout, path, .. } = job;
    let blob = match open_blob(layout, descriptor) {
        Ok(blob) => blob,
        Err(error) => return Ok(Err(Trouble::from(&error))),
    };
    let mut blob = Hashed { blob, hash: Hasher::new(), watch, stopped: None, failed: None };
    let tar = match known {
        _ if diff_ids.is_empty() => None,
        Some(known) => Some(Ok(known)),
        None => Some(hash_tar(&mut blob, &descriptor.media_type)),
    };
    if blob.stopped.is_none() && blob.failed.is_none() {
        // A failure is noted there.
        let _ = drain(&mut blob, |_| {});
    }
    if let Some(stopped) = blob.stopped {
        return Err(stopped);
    }
    if let Some(failed) = blob.failed {
        return Ok(Err(Trouble::Unreadable(format!("failed to read `{}`: {failed}", path.display()))));
    }
    let found = Digest::from_hash(blob.hash);
    if found != descriptor.digest {
        return wrong(LayoutError::Corrupt { path: path.clone(), found }.to_string());
    }
    let digest = descriptor.digest;
    match tar {
        None => Ok(Ok(None)),
        Some(Err(error)) => wrong(format!("layer {digest} cannot be decompressed: {error:#}")),
        Some(Ok(tar)) => match diff_ids.iter().find(|id| **id != tar) {
            Some(expected) => {
                wrong(format!("layer {digest} has diff ID {tar}, the configuration says {expected}"))
            }
            None => Ok(Ok(Some(tar))),
        },
    }
}

fn hash_tar(blob: &mut Hashed<'_>, media_type: &str) -> Result<DiffId> {
    let format = Format::of(media_type)?;
    let mut tar = decompressed(io::BufReader::with_capacity(BUFFER, blob), format)?;
    let mut hash = Hasher::new();
    drain(&mut tar, |bytes| hash.update(bytes))?;
    Ok(DiffId::from_hash(hash))
}

/// Bytes that are read at a time.
const BUFFER: usize = 256 << 10;

fn drain(reader: &mut impl io::Read, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => each(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The way through one layout.
struct Walk<'a> {
    name: &'a Name,
    number: usize,
    jobs: &'a mut Jobs,
    /// What was looked at: a blob is what its descriptor says.
    seen: BTreeSet<(Digest, String)>,
    blobs: BTreeSet<Digest>,
    descriptors: usize,
    /// Whether its indexes name nothing but indexes.
    is_empty: bool,
    found: Verified,
}

impl<'a> Walk<'a> {
    fn new(name: &'a Name, number: usize, jobs: &'a mut Jobs) -> Self {
        let found = Verified {
            name: name.text().to_owned(),
            path: name.path().to_string(),
            status: Status::Whole,
            images: 0,
            blobs: 0,
            size: 0,
            problems: Vec::new(),
            unreadable: Vec::new(),
            lacks: Vec::new(),
        };
        let (seen, blobs) = (BTreeSet::new(), BTreeSet::new());
        Self { name, number, jobs, seen, blobs, descriptors: 0, is_empty: true, found }
    }

    /// `false` if it is not there.
    fn layout(&mut self) -> bool {
        match Layout::read_index(self.name.path()) {
            Err(LayoutError::NotFound(_)) => return false,
            Ok(index) => {
                self.index(&index, "index.json", 0);
                if self.is_empty {
                    self.found.status = Status::Empty;
                }
                if self.found.images == 0 && !self.found.lacks.is_empty() {
                    self.problem("no image is there that its index names".to_owned());
                }
                // What is right in each part may be too much as a whole: nested again and again.
                if self.found.problems.is_empty()
                    && let Err(error @ LayoutError::Malformed { .. }) = Layout::open(self.name.path())
                {
                    self.problem(told(&error));
                }
            }
            Err(error) => self.found.add(Trouble::from(&error)),
        }
        true
    }

    fn problem(&mut self, problem: String) {
        self.found.add(Trouble::Wrong(problem));
    }

    fn index(&mut self, index: &Index, called: &str, depth: usize) {
        self.kind(called, (&index.media_type, media::INDEX), &index.rest, &["config", "layers"]);
        let Members { descriptors, foreign } = &index.manifests;
        self.descriptors += descriptors.len() + foreign.len();
        if depth > MAX_DEPTH || self.descriptors > MAX_DESCRIPTORS {
            let limits = format!("{MAX_DEPTH} deep, or with more than {MAX_DESCRIPTORS} descriptors");
            return self.problem(format!("indexes are nested more than {limits}"));
        }
        self.is_empty &= foreign.is_empty();
        for member in foreign {
            let digest = member.get("digest").map(ToString::to_string).unwrap_or_default();
            self.problem(format!("{digest} cannot be checked: digests must be of SHA-256"));
        }
        for descriptor in descriptors {
            let media_type = descriptor.oci_media_type();
            if !self.seen.insert((descriptor.digest, media_type.to_owned())) {
                continue;
            }
            self.is_empty &= media_type == media::INDEX;
            match media_type {
                // Of an index, somebody may have brought some of the images only.
                media::INDEX | media::MANIFEST if self.is_missing(descriptor) => self.lacks(descriptor),
                media::INDEX => {
                    if let Some(nested) = self.read::<Index>(descriptor) {
                        self.index(&nested, &format!("index {}", descriptor.digest), depth + 1);
                    }
                }
                media::MANIFEST => self.manifest(descriptor),
                _ => self.blob(descriptor, None, false),
            }
        }
    }

    /// What a document says of itself must be what led to it: others read it as the one, or as the other.
    fn kind(&mut self, called: &str, (said, kind): (&str, &str), rest: &Map<String, Json>, others: &[&str]) {
        if !said.is_empty() && media::to_oci(said) != kind {
            self.problem(format!(
                "{called} says that it is of media type {said}, what leads to it says {kind}"
            ));
        }
        for field in others.iter().filter(|field| rest.contains_key(**field)) {
            self.problem(format!("{called} has `{field}`, which its media type {kind} has not"));
        }
    }

    fn manifest(&mut self, descriptor: &Descriptor) {
        let Some(manifest) = self.read::<Manifest>(descriptor) else { return };
        let digest = descriptor.digest;
        let called = format!("manifest {digest}");
        self.kind(&called, (&manifest.media_type, media::MANIFEST), &manifest.rest, &["manifests"]);
        let is_layer = |layer: &&Descriptor| layer.oci_media_type().starts_with(media::LAYERS);
        let has_config = manifest.config.oci_media_type() == media::CONFIG;
        let layers = manifest.layers.iter().filter(is_layer).count();
        if !has_config || layers < manifest.layers.len() {
            let is_image = has_config || descriptor.platform.is_some() && layers == manifest.layers.len();
            if is_image && layers > 0 && !is_artifact(descriptor, &manifest) {
                let others = manifest.layers.iter().filter(|layer| !is_layer(layer));
                for other in others.chain((!has_config).then_some(&manifest.config)) {
                    let Descriptor { digest: part, media_type, .. } = other;
                    self.problem(format!("{part} of image {digest} has media type {media_type}, no image's"));
                }
            }
            // An artifact: what its blobs are is for others to know.
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                self.blob(blob, None, false);
            }
            return;
        }
        self.found.images += 1;
        let config = self.read::<ImageConfig>(&manifest.config);
        let ids = config.as_ref().map(|config| config.rootfs.diff_ids.clone()).unwrap_or_default();
        if config.is_some() && ids.len() != manifest.layers.len() {
            let (layers, ids) = (manifest.layers.len(), ids.len());
            self.problem(format!("image {digest} has {layers} layers, its configuration {ids}"));
        }
        let dir = self.name.path().path();
        let may_lack = config.as_ref().map(|config| may_lack(dir, config, &manifest.layers));
        for (number, layer) in manifest.layers.iter().enumerate() {
            let may_lack = may_lack.as_ref().is_none_or(|all| all[number]);
            if !may_lack && self.is_missing(layer) {
                let why = "and an image may lack those of its run image only";
                self.problem(format!("layer {} of image {digest} is not there, {why}", layer.digest));
            } else {
                self.blob(layer, ids.get(number).copied(), may_lack);
            }
        }
        if let Some(config) = config {
            self.config(descriptor, &config);
        }
    }

    fn config(&mut self, image: &Descriptor, config: &ImageConfig) {
        let digest = image.digest;
        let platform = config.platform();
        if let Some(said) = &image.platform
            && !said.is_same(&platform)
        {
            self.problem(format!("image {digest} is for {platform}, its descriptor says {said}"));
        }
        let made = config.history.iter().filter(|history| !history.empty_layer).count();
        let layers = config.rootfs.diff_ids.len();
        if !config.history.is_empty() && made != layers {
            self.problem(format!("the history of image {digest} tells of {made} layers, it has {layers}"));
        }
        let (labels, wrong) = Built::read(config);
        for (label, error) in wrong {
            self.problem(format!("label {label} of image {digest}: {error}"));
        }
        let ids: BTreeSet<String> = config.rootfs.diff_ids.iter().map(ToString::to_string).collect();
        if let Some(layers) = &labels.layers {
            let top = &layers.run_image.top_layer;
            let run = (!top.is_empty()).then(|| (top.clone(), "the run image's top layer".to_owned()));
            for (sha, purpose) in built::purposes(layers).into_iter().chain(run) {
                if !ids.contains(&sha) {
                    self.problem(format!("image {digest} lacks layer {sha}, by its labels {purpose}"));
                }
            }
        }
    }

    /// Notes a blob to be read.
    fn blob(&mut self, descriptor: &Descriptor, diff_id: Option<DiffId>, may_lack: bool) {
        let layout = self.name.path().path();
        let path = blob_path(layout, &descriptor.digest);
        match fs::metadata(&path) {
            Ok(metadata) => {
                if self.blobs.insert(descriptor.digest) {
                    self.found.blobs += 1;
                    self.found.size += metadata.len();
                }
                let key = (Identity::from(&metadata), descriptor.digest);
                if metadata.len() != descriptor.size || !metadata.is_file() {
                    return self.not_opened(descriptor);
                }
                let job = self.jobs.entry(key).or_insert_with(|| Job {
                    path,
                    layout: layout.to_owned(),
                    descriptor: descriptor.clone(),
                    diff_ids: BTreeSet::new(),
                    of: BTreeSet::new(),
                });
                job.diff_ids.extend(diff_id);
                job.of.insert(self.number);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && may_lack => self.lacks(descriptor),
            Err(_) => self.not_opened(descriptor),
        }
    }

    /// Says why a blob cannot be opened.
    fn not_opened(&mut self, descriptor: &Descriptor) {
        match open_blob(self.name.path().path(), descriptor) {
            Err(error) => self.found.add(Trouble::from(&error)),
            Ok(_) => self.problem("a blob has changed".to_owned()),
        }
    }

    fn is_missing(&self, descriptor: &Descriptor) -> bool {
        let path = blob_path(self.name.path().path(), &descriptor.digest);
        fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    fn lacks(&mut self, descriptor: &Descriptor) {
        let lacking = Lacking { digest: descriptor.digest, size: descriptor.size };
        if !self.found.lacks.contains(&lacking) {
            self.found.lacks.push(lacking);
        }
    }

    /// Reads an index, a manifest or a configuration.
    fn read<T: DeserializeOwned>(&mut self, descriptor: &Descriptor) -> Option<T> {
        let layout = self.name.path().path();
        let text =
            read_blob(layout, descriptor).map_err(|error| self.found.add(Trouble::from(&error))).ok()?;
        if self.blobs.insert(descriptor.digest) {
            self.found.blobs += 1;
            self.found.size += descriptor.size;
        }
        let path = blob_path(layout, &descriptor.digest);
        let malformed = |error| self.problem(format!("`{}` is malformed: {error}", path.display()));
        json::from_slice(&text).map_err(malformed).ok()
    }
}

/// Whether a manifest says that it is no image, whatever its configuration and layers are.
fn is_artifact(descriptor: &Descriptor, manifest: &Manifest) -> bool {
    let kinds = [descriptor.rest.get("artifactType"), manifest.rest.get("artifactType")];
    let is_other = |kind: &Json| kind.as_str().is_some_and(|kind| media::to_oci(kind) != media::CONFIG);
    let is_unknown = descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
    is_unknown || kinds.into_iter().flatten().any(is_other)
}

/// An error with its causes.
fn told(error: &LayoutError) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::Repository;
    use crate::watch::Nobody;

    #[test]
    fn what_was_removed_meanwhile_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::new(dir.path()).unwrap();
        let names = [repository.locate("app").unwrap()];
        let verified = |gone: &dyn Fn(&Name) -> Result<()>| {
            verify(&names, NonZeroUsize::MIN, &mut Proven::default(), &Nobody, gone)
        };
        assert!(verified(&|_| Ok(())).unwrap().is_empty());
        let unknown = verified(&|name| Err(repository.unknown(name).into())).unwrap_err();
        assert!(unknown.to_string().starts_with("there is no image `app`"), "{unknown}");
    }
}
