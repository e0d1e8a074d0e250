//! Writing: blobs first, each under a temporary name until it is whole; then `index.json`, in one step for each name.
//!
//! One process at a time writes to a layout: it holds an advisory lock on the layout's folder ([`Lock`]). Two names of
//! one folder are one layout. What is published was verified in the same transaction: made here, brought and checked on
//! the way, or found in place and read.
//!
//! Everything that can fail is done before the first name is switched ([`Transaction::prepare`]). Unless that is turned
//! off, blobs, their folders, and then each `index.json` are on the disk before anything old is removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drydock_io::dir::{Dir, Place};
use drydock_io::file::TempFile;
use drydock_io::lock::{Identity, Lock};
use drydock_model::config::ImageConfig;
use drydock_model::digest::{DiffId, Digest};
use drydock_model::manifest::{Annotations, Descriptor, Manifest, Members};
use drydock_model::media;
use drydock_model::reference::{LayoutDir, LayoutPath};
use serde::Serialize;

use super::build_log::NewLog;
use super::collect::reachable;
use super::edit::Change;
use super::error::{IoContext as _, LayoutError};
use super::files::{BlobReader, open_blob};
use super::folders::{Unlocked, open_layout_dir};
use super::read::ImageLayer;
use super::seen::Seen;
use super::share::{LinkMode, Shared, share, whole};
use super::target::{NewIndex, Target, folder, switch_back, to_json};
use super::tree::Damage;
use super::{blob_path, blobs_dir};

/// Whether what is written must outlive a power failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// It is on the disk before anything old is removed.
    #[default]
    OnDisk,
    /// It is left to the system when it gets there.
    InMemory,
}

/// An image to be written.
#[derive(Debug)]
pub struct NewImage {
    /// Its configuration. The diff IDs are taken from `layers`.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<NewLayer>,
    /// Annotations of its manifest.
    pub annotations: Annotations,
    /// The manifest of an image that this one takes the place of whatever its platform. One for the same platform goes
    /// in any case.
    pub replaces: Option<Digest>,
}

/// A layer of an image to be written.
#[derive(Debug)]
pub struct NewLayer {
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// Its blob.
    pub descriptor: Descriptor,
    /// Where the blob is now.
    pub blob: BlobSource,
}

/// Where a blob is before the image is committed.
#[derive(Debug)]
pub enum BlobSource {
    /// In a temporary file [beside the blobs](Transaction::beside_blobs), hashed as it was written.
    Temporary(TempFile),
    /// In the layout: brought there, or since before.
    Placed,
    /// Nowhere: the image will be sparse.
    Absent,
}

/// What is or will be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's size in bytes.
    pub manifest_size: u64,
}

/// Layouts that are being written to, by nobody else. Dropped, it leaves them as they were.
#[derive(Debug)]
pub struct Transaction {
    /// That of the first name comes first: blobs are put there, and shared with the others.
    targets: Vec<Target>,
    link: LinkMode,
    durability: Durability,
    /// Blobs of the first layout that are known to be what they should.
    verified: Mutex<BTreeSet<Digest>>,
    seen: Arc<Seen>,
}

impl Transaction {
    /// Makes the layouts' folders if need be, locks and reads them. `waiting` is called with a name whose lock another
    /// process has. An index that cannot be read is an error: what it leads to would be lost.
    pub fn begin(
        dir: &LayoutDir,
        names: &[LayoutPath],
        link: LinkMode,
        durability: Durability,
        waiting: &dyn Fn(&LayoutPath),
    ) -> Result<Self, LayoutError> {
        if let Some(name) = names.iter().find(|name| name.digest().is_some()) {
            return Err(LayoutError::NamedByDigest(name.path().to_owned()));
        }
        Self::begin_with(dir, names, link, durability, Damage::Refused, waiting)
    }

    /// For changes that take the place of what a name stands for: of that, and of what is beside it, anything but the index may
    /// be damaged or missing.
    pub fn begin_anew(
        dir: &LayoutDir,
        name: &LayoutPath,
        link: LinkMode,
        durability: Durability,
        waiting: &dyn Fn(&LayoutPath),
    ) -> Result<Self, LayoutError> {
        if name.digest().is_some() {
            return Err(LayoutError::NamedByDigest(name.path().to_owned()));
        }
        let names = std::slice::from_ref(name);
        Self::begin_with(dir, names, link, durability, Damage::Tolerated, waiting)
    }

    /// For changes that bring nothing: the name may be a digest, too.
    pub fn begin_to_remove(
        dir: &LayoutDir,
        name: &LayoutPath,
        durability: Durability,
        waiting: &dyn Fn(&LayoutPath),
    ) -> Result<Self, LayoutError> {
        let names = std::slice::from_ref(name);
        Self::begin_with(dir, names, LinkMode::Auto, durability, Damage::Refused, waiting)
    }

    fn begin_with(
        dir: &LayoutDir,
        names: &[LayoutPath],
        link: LinkMode,
        durability: Durability,
        damage: Damage,
        waiting: &dyn Fn(&LayoutPath),
    ) -> Result<Self, LayoutError> {
        let mut made: Vec<(Identity, usize, Dir, Unlocked)> = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let mut folders = Unlocked::new(name.path());
            let opened = folder(dir, name, &mut folders.undo)?;
            let identity = opened.identity().at("look at", name.path())?;
            if made.iter().all(|(other, ..)| *other != identity) {
                made.push((identity, number, opened, folders));
            }
        }
        // In one order, so that two transactions cannot wait for each other.
        made.sort_by_key(|(identity, ..)| *identity);
        let mut targets = Vec::with_capacity(made.len());
        for (_, number, opened, folders) in made {
            let path = &names[number];
            targets.push((number, Target::lock(dir, path, opened, folders, damage, &|| waiting(path))?));
        }
        targets.sort_by_key(|(number, _)| *number);
        let targets = targets.into_iter().map(|(_, target)| target).collect();
        Ok(Self { targets, link, durability, verified: Mutex::default(), seen: Arc::default() })
    }

    /// Blobs that look as they did when they were seen need not be read again.
    #[must_use]
    pub fn trusting(self, seen: Arc<Seen>) -> Self {
        Self { seen, ..self }
    }

    fn first(&self) -> &Target {
        &self.targets[0]
    }

    /// Beside this temporary files of blobs should be made: in the folder of blobs, wherever its path leads meanwhile.
    pub fn beside_blobs(&self) -> Place {
        self.first().blobs.place("new")
    }

    /// The path of that folder.
    pub fn blobs_dir(&self) -> PathBuf {
        blobs_dir(self.first().path.path())
    }

    /// Whether the layout already holds a file for this blob, of the right size.
    pub fn has(&self, descriptor: &Descriptor) -> bool {
        let file = fs::symlink_metadata(self.first().blob_path(&descriptor.digest));
        file.is_ok_and(|file| file.is_file() && file.len() == descriptor.size)
    }

    /// Puts a blob in its place whose digest was found out while it was written.
    pub fn put_blob(&self, file: TempFile, digest: Digest) -> Result<(), LayoutError> {
        let to = self.first().will_place(&digest);
        // In one step for whoever removes damaged ones.
        let mut verified = self.verified();
        file.persist_at(&to).at("write", to.path())?;
        verified.insert(digest);
        Ok(())
    }

    /// Puts a blob that is small: a configuration, or a manifest or index with the digest that it has.
    pub fn put_bytes(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, LayoutError> {
        let descriptor = self.first().put_bytes(media_type, bytes)?;
        self.note(descriptor.digest);
        Ok(descriptor)
    }

    pub(super) fn put_json(
        &self,
        media_type: &str,
        value: &impl Serialize,
    ) -> Result<Descriptor, LayoutError> {
        self.put_bytes(media_type, &to_json(value))
    }

    /// Brings a layer of another layout into this one, or finds it in its place, and checks it on the way.
    pub fn bring(&self, layer: &ImageLayer) -> Result<Shared, LayoutError> {
        self.bring_from(&layer.path(), layer.descriptor.digest, layer.open_unchecked())
    }

    /// The same with any blob of the layout in the folder `from`.
    pub fn bring_blob(&self, from: &Path, descriptor: &Descriptor) -> Result<Shared, LayoutError> {
        let source = open_blob(from, descriptor);
        self.bring_from(&blob_path(from, &descriptor.digest), descriptor.digest, source)
    }

    fn bring_from(
        &self,
        from: &Path,
        digest: Digest,
        source: Result<BlobReader, LayoutError>,
    ) -> Result<Shared, LayoutError> {
        let to = self.first().will_place(&digest);
        // What is in place already need not be where it comes from.
        let shared = match source {
            Ok(source) => share(source, from, &to, digest, self.link, &self.seen)?,
            Err(error) => match whole(to.path(), digest, &self.seen)? {
                Some(size) => Shared { shared: size, copied: 0 },
                None => return Err(error),
            },
        };
        self.note(digest);
        Ok(shared)
    }

    /// Finds a blob in the layout that is nowhere else, and checks it. A damaged one is removed at once: nothing is lost
    /// with it, and in its place it would be taken for what it is not.
    pub fn find(&self, descriptor: &Descriptor) -> Result<Option<Shared>, LayoutError> {
        let digest = descriptor.digest;
        let mut found = None;
        for (number, target) in self.targets.iter().enumerate() {
            let path = target.blob_path(&digest);
            match whole(&path, digest, &self.seen)? {
                Some(size) if number == 0 => found = Some(Shared { shared: size, copied: 0 }),
                None if fs::symlink_metadata(&path).is_ok_and(|file| file.is_file()) => {
                    let verified = self.verified();
                    // Made here in the meantime, it is a good one.
                    if verified.contains(&digest) {
                        return Ok(Some(Shared { shared: descriptor.size, copied: 0 }));
                    }
                    target.blob_place(&digest).remove().at("remove the damaged", &path)?;
                }
                _ => {}
            }
        }
        if found.is_some() {
            self.note(digest);
        }
        Ok(found)
    }

    /// Gives up, and leaves the blobs in their places although nothing leads to them: whoever tries again finds them. If
    /// nobody does, they go as all such blobs go.
    pub fn leave(mut self) {
        for target in &mut self.targets {
            target.undo.forget_files();
        }
    }

    fn verified(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, digest: Digest) {
        self.verified().insert(digest);
    }

    /// Writes everything of an image but the name: for [`Prepared::publish`].
    pub fn prepare_image(self, image: NewImage) -> Result<Prepared, LayoutError> {
        self.prepare_image_and_log(image, None).map(|(prepared, _)| prepared)
    }

    /// The same with the log of the image's build beside it. If only the log cannot be written, the image goes without it, and
    /// that is the second result.
    pub fn prepare_image_and_log(
        self,
        image: NewImage,
        log: Option<NewLog>,
    ) -> Result<(Prepared, Option<LayoutError>), LayoutError> {
        let NewImage { mut config, layers, annotations, replaces } = image;
        config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
        let platform = config.platform();
        let mut absent = BTreeSet::new();
        let mut descriptors = Vec::with_capacity(layers.len());
        for layer in layers {
            match layer.blob {
                BlobSource::Temporary(file) => self.put_blob(file, layer.descriptor.digest)?,
                BlobSource::Placed => {}
                BlobSource::Absent => {
                    absent.insert(layer.descriptor.digest);
                }
            }
            descriptors.push(layer.descriptor.into_oci());
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::MANIFEST.to_owned(),
            config: self.put_json(media::CONFIG, &config)?,
            layers: descriptors,
            annotations,
            rest: serde_json::Map::new(),
        };
        let image = self.put_json(media::MANIFEST, &manifest)?;
        let log = log.map(|log| log.put(&self, &image)).transpose();
        let (log, failed) = log.map_or_else(|error| (None, Some(error)), |log| (log, None));
        let mut changes = vec![Change::Image { image, platform, replaces }];
        changes.extend(log.map(Change::Add));
        Ok((self.prepare(&changes, &absent)?, failed))
    }

    /// Writes everything that these changes of each name take, but the names themselves. Every blob that they lead to
    /// is verified, and is in the layout unless it is one of `absent`.
    pub fn prepare(mut self, changes: &[Change], absent: &BTreeSet<Digest>) -> Result<Prepared, LayoutError> {
        let brought: Vec<&Descriptor> = changes.iter().filter_map(Change::brings).collect();
        let blobs = self.verify(&brought, absent)?;
        let mut targets = std::mem::take(&mut self.targets);
        let (first, others) = targets.split_first().expect("an image has a name");
        for other in others {
            for digest in &blobs {
                let from = first.blob_path(digest);
                let source = first.blob_place(digest).open().at("open", &from)?;
                let to = other.will_place(digest);
                share(BlobReader::new(source), &from, &to, *digest, self.link, &self.seen)?;
            }
        }
        let mut indexes = Vec::with_capacity(targets.len());
        for target in &mut targets {
            indexes.push(target.prepare(changes, &blobs, self.durability)?);
        }
        let image = brought.first();
        let committed = image.map(|image| Committed { digest: image.digest, manifest_size: image.size });
        Ok(Prepared { targets, indexes, committed, durability: self.durability })
    }

    /// The blobs that these lead to, but for absent ones: each is there, and is what it should be.
    fn verify(&self, roots: &[&Descriptor], absent: &BTreeSet<Digest>) -> Result<Vec<Digest>, LayoutError> {
        let layout = self.first().path.path();
        let known = self.verified();
        let mut blobs = Vec::new();
        for digest in reachable(layout, roots.iter().copied())?.blobs {
            if absent.contains(&digest) {
                continue;
            }
            if !known.contains(&digest) && whole(&blob_path(layout, &digest), digest, &self.seen)?.is_none() {
                return Err(LayoutError::MissingBlob { layout: layout.to_owned(), digest });
            }
            blobs.push(digest);
        }
        blobs.sort_unstable();
        Ok(blobs)
    }
}

/// A transaction of which only the names are left to be switched. Dropped, it leaves the layouts as they were.
#[derive(Debug)]
pub struct Prepared {
    // In the order in which they must be dropped.
    indexes: Vec<NewIndex>,
    targets: Vec<Target>,
    committed: Option<Committed>,
    durability: Durability,
}

impl Prepared {
    /// What will be published; none if nothing is brought.
    pub fn committed(&self) -> Option<&Committed> {
        self.committed.as_ref()
    }

    /// Switches all names to what was prepared; none of them, if one cannot be switched. What nothing leads to any more
    /// is removed when nobody reads it ([`GRACE`](super::GRACE)); a failure to do that is the result, since the image is
    /// there by then.
    pub fn publish(self) -> Result<Option<LayoutError>, LayoutError> {
        let Self { mut targets, indexes, durability, .. } = self;
        for target in &targets {
            if !target.is_as_before()? {
                return Err(LayoutError::Changed(target.index_path()));
            }
        }
        let mut kept = Vec::with_capacity(targets.len());
        for (at, NewIndex { file, manifests }) in indexes.into_iter().enumerate() {
            if let Err(error) = targets[at].switch(file, manifests == Members::default()) {
                return Err(switch_back(&mut targets[..at], durability, error));
            }
            kept.push(manifests);
        }
        let mut left = None;
        for (target, manifests) in targets.iter_mut().zip(kept) {
            target.undo.forget();
            left = left.or(target.finish(&manifests, durability).err());
        }
        Ok(left)
    }
}

/// Removes the `index.json` of a layout that is of no worth when it cannot be read: that of a cache.
pub fn forget(dir: &LayoutDir, path: &LayoutPath) -> Result<(), LayoutError> {
    let _lock = Lock::acquire(path.path(), &|| {}).at("lock", path.path())?;
    let dirs = open_layout_dir(dir.path(), path.path())?;
    let index = dirs[dirs.len() - 1].place("index.json");
    index.remove().at("remove", index.path())
}
