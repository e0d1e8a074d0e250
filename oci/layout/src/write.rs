//! Writing: blobs first, each under a temporary name until it is whole; `index.json` last, in one step.
//!
//! One process at a time writes to a layout: it holds an advisory lock on the layout's folder itself, which the kernel
//! releases when the process ends, however it ends. No lock file is left behind.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::FlockOperation;
use serde::Serialize;

use super::collect::remove_unreferenced;
use super::error::{IoContext as _, LayoutError};
use super::read::{ImageLayer, Layout};
use super::share::{LinkMode, Shared, is_ours, share};
use super::{blob_path, blobs_dir};
use drydock_io::file::{TempFile, write_atomically};
use drydock_model::config::ImageConfig;
use drydock_model::digest::{DiffId, Digest};
use drydock_model::manifest::{Annotations, Descriptor, Index, Manifest, REF_NAME};
use drydock_model::media;
use drydock_model::platform::Platform;
use drydock_model::reference::{LayoutDir, LayoutPath};

const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

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
    /// In a temporary file in the first layout's folder of blobs.
    Temporary(TempFile),
    /// In the first layout, by [`LayoutWriter::bring`].
    Placed,
    /// In the first layout since before, unread: [`LayoutWriter::holds`] says so.
    Kept,
    /// Nowhere: the image will be sparse.
    Absent,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's size in bytes.
    pub manifest_size: u64,
}

/// A layout that is being written to, by nobody else.
///
/// Dropped without [`LayoutWriter::commit`], it leaves the layout as it was.
#[derive(Debug)]
pub struct LayoutWriter {
    path: LayoutPath,
    // Before the lock: fields are dropped in order, and what is undone must be undone while nobody else writes.
    undo: Undo,
    /// Held for its lock.
    _lock: File,
}

impl LayoutWriter {
    /// Makes the layout's folder if need be and locks it. `waiting` is called once, if another process has the lock.
    pub fn open(dir: &LayoutDir, path: &LayoutPath, waiting: &dyn Fn()) -> Result<Self, LayoutError> {
        let mut waited = false;
        loop {
            let mut undo = Undo::default();
            make_dirs(dir.path(), path.path(), &mut undo)?;
            let lock = File::open(path.path()).at("open", path.path())?;
            if let Err(error) = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                if error != rustix::io::Errno::WOULDBLOCK {
                    return Err(io::Error::from(error)).at("lock", path.path());
                }
                if !waited {
                    waiting();
                    waited = true;
                }
                rustix::fs::flock(&lock, FlockOperation::LockExclusive)
                    .map_err(io::Error::from)
                    .at("lock", path.path())?;
            }
            // Whoever had the lock may have removed the folder again after a failure: then this lock is worth nothing.
            let locked = lock.metadata().at("read", path.path())?;
            match fs::metadata(path.path()) {
                Ok(there) if (there.dev(), there.ino()) == (locked.dev(), locked.ino()) => {}
                _ => continue,
            }
            for below in [path.path().join("blobs"), blobs_dir(path.path())] {
                make_dir(&below, &mut undo)?;
            }
            return Ok(Self { path: path.clone(), undo, _lock: lock });
        }
    }

    /// Where temporary files of blobs must be made.
    pub fn blobs_dir(&self) -> PathBuf {
        blobs_dir(self.path.path())
    }

    /// The layout's name and place.
    pub fn path(&self) -> &LayoutPath {
        &self.path
    }

    /// Brings a blob of another layout into this one, and checks it on the way.
    pub fn bring(&self, layer: &ImageLayer, mode: LinkMode) -> Result<Shared, LayoutError> {
        self.bring_file(&layer.path, layer.descriptor.digest, mode)
    }

    /// Whether the layout already holds a file for this blob, of the right size.
    pub fn has(&self, descriptor: &Descriptor) -> bool {
        let file = fs::symlink_metadata(blob_path(self.path.path(), &descriptor.digest));
        file.is_ok_and(|file| file.is_file() && file.len() == descriptor.size)
    }

    /// Whether the layout holds this blob already as it would be written here. Its content is not read: whoever put it
    /// there checked it. An image that changes in place has its large blobs as [`BlobSource::Kept`].
    pub fn holds(&self, descriptor: &Descriptor) -> bool {
        let file = fs::symlink_metadata(blob_path(self.path.path(), &descriptor.digest));
        file.is_ok_and(|file| is_ours(&file) && file.len() == descriptor.size)
    }

    fn bring_file(&self, from: &Path, digest: Digest, mode: LinkMode) -> Result<Shared, LayoutError> {
        let to = blob_path(self.path.path(), &digest);
        self.undo.will_place(&to);
        share(from, &to, digest, mode)
    }

    /// Writes the image into this layout and then, sharing its blobs, into `others`.
    ///
    /// Images for other platforms that a layout holds stay in it. What the index leads to no longer is removed; a
    /// failure to do that is the second result, since the image is written by then.
    pub fn commit(
        mut self,
        image: NewImage,
        others: Vec<Self>,
        mode: LinkMode,
    ) -> Result<(Committed, Option<LayoutError>), LayoutError> {
        let NewImage { mut config, layers, annotations, replaces } = image;
        config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
        let platform = config.platform();

        let mut digests = HashSet::new();
        let mut kept = Vec::new();
        let mut descriptors = Vec::with_capacity(layers.len());
        for layer in layers {
            let digest = layer.descriptor.digest;
            match layer.blob {
                BlobSource::Temporary(file) => {
                    let to = blob_path(self.path.path(), &digest);
                    self.undo.will_place(&to);
                    file.persist(&to).at("rename a blob to", &to)?;
                    digests.insert(digest);
                }
                BlobSource::Placed => {
                    digests.insert(digest);
                }
                BlobSource::Kept => kept.push(layer.descriptor.clone()),
                BlobSource::Absent => {}
            }
            descriptors.push(layer.descriptor.into_oci());
        }
        let config = self.write_json(media::CONFIG, &config)?;
        digests.insert(config.digest);
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::MANIFEST.to_owned(),
            config,
            layers: descriptors,
            annotations,
            rest: serde_json::Map::new(),
        };
        let mut manifest = self.write_json(media::MANIFEST, &manifest)?;
        digests.insert(manifest.digest);
        let committed = Committed { digest: manifest.digest, manifest_size: manifest.size };
        manifest.platform = Some(platform);

        for other in &others {
            let missing = kept.iter().filter(|descriptor| !other.holds(descriptor));
            for digest in digests.iter().chain(missing.map(|descriptor| &descriptor.digest)) {
                other.bring_file(&blob_path(self.path.path(), digest), *digest, mode)?;
            }
        }
        let mut left = self.publish(manifest.clone(), replaces)?;
        for mut other in others {
            left = other.publish(manifest.clone(), replaces)?.or(left);
        }
        Ok((committed, left))
    }

    fn write_json(&self, media_type: &str, value: &impl Serialize) -> Result<Descriptor, LayoutError> {
        let bytes = serde_json::to_vec(value).expect("structs with string keys make JSON");
        let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
        let path = blob_path(self.path.path(), &descriptor.digest);
        self.undo.will_place(&path);
        write_atomically(&path, &bytes).at("write", &path)?;
        Ok(descriptor)
    }

    /// Puts the image into the index: from then on it is the layout's.
    fn publish(
        &mut self,
        image: Descriptor,
        replaces: Option<Digest>,
    ) -> Result<Option<LayoutError>, LayoutError> {
        let layout = self.path.path().to_owned();
        let mut images = kept_images(&self.path, &image, replaces);
        images.push(image);
        let mut only = if let [one] = images.as_slice() {
            one.clone()
        } else {
            // Tools that copy all platforms of a name look for one index of that name.
            self.write_json(media::INDEX, &Index { manifests: images, ..Index::empty() })?
        };
        only.annotations.insert(REF_NAME.to_owned(), self.path.ref_name().to_owned());
        let index = Index { manifests: vec![only], ..Index::empty() };
        let marker_path = layout.join("oci-layout");
        self.undo.will_place(&marker_path);
        write_atomically(&marker_path, MARKER).at("write", &marker_path)?;
        let index_path = layout.join("index.json");
        let text = serde_json::to_vec_pretty(&index).expect("structs with string keys make JSON");
        write_atomically(&index_path, &text).at("write", &index_path)?;
        self.undo.forget();
        Ok(remove_unreferenced(&layout, &index).err())
    }
}

/// What the layout holds for platforms other than the new image's, but for the image that it replaces. A layout that
/// cannot be read holds nothing.
fn kept_images(path: &LayoutPath, new: &Descriptor, replaces: Option<Digest>) -> Vec<Descriptor> {
    let new_platform = new.platform.clone().unwrap_or_default();
    let Ok(images) = Layout::open(path).and_then(|layout| layout.images_with_platforms()) else {
        return Vec::new();
    };
    let others = images.into_iter().filter(|(descriptor, platform)| {
        !platform.is_same(&new_platform) && replaces != Some(descriptor.digest)
    });
    others
        .map(|(mut descriptor, platform): (Descriptor, Platform)| {
            descriptor.platform = Some(platform);
            descriptor.annotations.remove(REF_NAME);
            descriptor
        })
        .collect()
}

/// What has to go if the image is not committed.
#[derive(Debug, Default)]
struct Undo {
    /// Folders, outermost first.
    dirs: Vec<PathBuf>,
    files: Mutex<Vec<PathBuf>>,
}

impl Undo {
    /// A file is about to be written: if it is new, it goes in case of failure.
    fn will_place(&self, path: &Path) {
        if fs::symlink_metadata(path).is_err() {
            self.files.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
        }
    }

    fn forget(&mut self) {
        self.dirs.clear();
        self.files.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next export: a failure here changes nothing for anybody.
        for file in self.files.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let _ = fs::remove_file(file);
        }
        for dir in self.dirs.iter().rev() {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Makes the folders from the layout directory down to the layout; no symlink may lead out of the former.
fn make_dirs(root: &Path, path: &Path, undo: &mut Undo) -> Result<(), LayoutError> {
    for dir in root.ancestors().collect::<Vec<_>>().into_iter().rev() {
        if !dir.is_dir() {
            make_dir(dir, undo)?;
        }
    }
    let real_root = fs::canonicalize(root).at("resolve", root)?;
    let below = path.strip_prefix(root).expect("a LayoutPath lies under its LayoutDir");
    let mut dir = root.to_owned();
    for part in below {
        dir.push(part);
        make_dir(&dir, undo)?;
        if !fs::canonicalize(&dir).at("resolve", &dir)?.starts_with(&real_root) {
            let reason = format!("it is a symbolic link that leads out of `{}`", root.display());
            return Err(LayoutError::Malformed { path: dir, reason });
        }
    }
    Ok(())
}

/// Makes a folder of mode 0755 whatever the umask; one that is there already will do.
fn make_dir(path: &Path, undo: &mut Undo) -> Result<(), LayoutError> {
    match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => {
            undo.dirs.push(path.to_owned());
            fs::set_permissions(path, Permissions::from_mode(0o755)).at("set the mode of", path)
        }
        Err(_) if path.is_dir() => Ok(()),
        Err(source) => Err(LayoutError::Io { action: "make folder", path: path.to_owned(), source }),
    }
}
