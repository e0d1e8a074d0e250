//! One layout that is written to: its lock, what it held before, and the switch of its `index.json`.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::SystemTime;

use drydock_io::dir::{Dir, Place};
use drydock_io::file::TempFile;
use drydock_io::lock::Lock;
use drydock_io::threads::each;
use drydock_model::digest::Digest;
use drydock_model::manifest::{Descriptor, Index, Members};
use drydock_model::media;
use drydock_model::reference::{LayoutDir, LayoutPath};
use rustix::fs::stat;
use serde::Serialize;

use super::blob_path;
use super::build_log;
use super::collect::{changed, collect};
use super::edit::{self, Change};
use super::error::{IoContext as _, LayoutError};
use super::files::Early;
use super::folders::{Undo, Unlocked, make_blobs_dir, make_layout_dir, while_folders_go};
use super::read::Layout;
use super::transaction::Durability;
use super::tree::{self, Damage, Entry};

/// The mode of all files.
const MODE: u32 = 0o644;

const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// One layout of a transaction.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) path: LayoutPath,
    /// Its folder, and that of its blobs, in which it is written.
    dir: Dir,
    pub(super) blobs: Dir,
    // Before the lock: fields are dropped in order, and what is undone must be undone while nobody else writes.
    pub(super) undo: Undo,
    /// The folder of all layouts.
    root: PathBuf,
    before: Before,
    /// What the layout may be like.
    damage: Damage,
    _lock: Lock,
}

/// What a layout holds before it is changed.
#[derive(Debug)]
struct Before {
    index: Index,
    entries: Vec<Entry>,
    /// The text of `index.json`; none if there is none.
    text: Option<Vec<u8>>,
    /// When that was written. Without it: when something in the layout's folder changed, as when the name was removed.
    switched: SystemTime,
}

impl Before {
    fn read(path: &LayoutPath, damage: Damage) -> Result<Self, LayoutError> {
        let index_path = path.path().join("index.json");
        match Layout::read_index(path) {
            Ok(index) => {
                let text = Some(Early::default().read(&index_path)?);
                let written = fs::metadata(&index_path).and_then(|file| file.modified());
                let switched = written.at("look at", &index_path)?;
                let entries = tree::read(path, &index, &Early::default(), damage)?;
                Ok(Self { index, entries, text, switched })
            }
            Err(LayoutError::NotFound(_)) => {
                let switched =
                    changed(&stat(path.path()).map_err(io::Error::from).at("look at", path.path())?);
                Ok(Self { index: Index::empty(), entries: Vec::new(), text: None, switched })
            }
            Err(error) => Err(error),
        }
    }

    fn text(&self) -> Option<&[u8]> {
        self.text.as_deref()
    }
}

/// An `index.json` that is not in its place yet.
#[derive(Debug)]
pub(super) struct NewIndex {
    pub(super) file: TempFile,
    pub(super) manifests: Members,
}

impl Target {
    /// Locks the layout in the folder `dir`, or in the one that has taken its place meanwhile.
    pub(super) fn lock(
        root: &LayoutDir,
        path: &LayoutPath,
        mut dir: Dir,
        mut made: Unlocked,
        damage: Damage,
        waiting: &dyn Fn(),
    ) -> Result<Self, LayoutError> {
        let lock = loop {
            match Lock::acquire(path.path(), waiting) {
                // Whoever had the lock has removed the folder again, after a failure.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                lock => {
                    let lock = lock.at("lock", path.path())?;
                    // Somebody may have put another folder there.
                    if dir.identity().at("look at", path.path())? == lock.identity() {
                        break lock;
                    }
                }
            }
            dir = folder(root, path, &mut made.undo)?;
        };
        let mut undo = made.locked();
        let blobs = make_blobs_dir(&dir, &mut undo)?;
        let before = Before::read(path, damage)?;
        let (path, root) = (path.clone(), root.path().to_owned());
        let mut target = Self { path, dir, blobs, undo, root, before, damage, _lock: lock };
        target.undo.only_beside(target.index_path(), target.before.text().map(<[u8]>::to_vec));
        Ok(target)
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        blob_path(self.path.path(), digest)
    }

    pub(super) fn index_path(&self) -> PathBuf {
        self.path.path().join("index.json")
    }

    /// Whether `index.json` is as it was read. Other programs write it without locks.
    pub(super) fn is_as_before(&self) -> Result<bool, LayoutError> {
        let path = self.index_path();
        match Early::default().read(&path) {
            Err(LayoutError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(self.before.text().is_none())
            }
            text => Ok(Some(&*text?) == self.before.text()),
        }
    }

    pub(super) fn blob_place(&self, digest: &Digest) -> Place {
        self.blobs.place(digest.hex())
    }

    /// Where a blob is about to be put.
    pub(super) fn will_place(&self, digest: &Digest) -> Place {
        let place = self.blob_place(digest);
        self.undo.will_place(&place);
        place
    }

    pub(super) fn put_bytes(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, LayoutError> {
        let descriptor = Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
        let place = self.will_place(&descriptor.digest);
        place.write(bytes, MODE).at("write", place.path())?;
        Ok(descriptor)
    }

    /// Writes what a changed index needs, and the index itself under a temporary name. `blobs` are those that it did
    /// not lead to before, or may not have.
    pub(super) fn prepare(
        &mut self,
        changes: &[Change],
        blobs: &[Digest],
        durability: Durability,
    ) -> Result<NewIndex, LayoutError> {
        let mut written: Vec<Place> = blobs.iter().map(|digest| self.blob_place(digest)).collect();
        if !self.is_as_before()? {
            self.before = Before::read(&self.path, self.damage)?;
            self.undo.only_beside(self.index_path(), self.before.text().map(<[u8]>::to_vec));
        }
        let mut entries = self.before.entries.clone();
        for change in changes {
            let mut write_index = |manifests| {
                let descriptor =
                    self.put_bytes(media::INDEX, &to_json(&Index { manifests, ..Index::empty() }))?;
                written.push(self.blob_place(&descriptor.digest));
                Ok(descriptor)
            };
            entries = edit::apply(&entries, self.path.ref_name(), change, &mut write_index)?;
        }
        let layout = self.path.path();
        let mut index = self.before.index.clone();
        index.manifests.descriptors = entries.into_iter().map(|entry| entry.descriptor).collect();
        build_log::drop_outdated(&self.path, &self.before.entries, &mut index)?;
        media::INDEX.clone_into(&mut index.media_type);
        let marker = self.dir.place("oci-layout");
        if self.before.text.is_none() {
            self.undo.will_place(&marker);
            marker.write(MARKER, MODE).at("write", marker.path())?;
            written.push(marker);
        }
        let index_path = layout.join("index.json");
        if index_path.is_dir() {
            let reason = "it is a folder: remove it".to_owned();
            return Err(LayoutError::Malformed { path: index_path, reason });
        }
        let place = self.dir.place("index.json");
        let mut file = TempFile::create_beside(&place).at("create a file in", layout)?;
        let text = serde_json::to_vec_pretty(&index).expect("structs with string keys make JSON");
        io::Write::write_all(file.file(), &text).at("write", &index_path)?;
        if durability == Durability::OnDisk {
            sync_all(&written)?;
            file.file().sync_all().at("write to the disk", &index_path)?;
            for dir in [&self.blobs, &self.dir] {
                dir.sync().at("write to the disk", dir.path())?;
            }
            let made = self.undo.made().iter().filter_map(|made| made.path().parent());
            // Of a new layout, the folders above may be new too, whoever made them.
            let above = layout.ancestors().skip(1).take_while(|dir| dir.starts_with(&self.root));
            let above = above.filter(|_| self.before.text.is_none());
            for dir in made.chain(above) {
                Dir::open(dir).and_then(|dir| dir.sync()).at("write to the disk", dir)?;
            }
        }
        Ok(NewIndex { file, manifests: index.manifests })
    }

    /// Puts the new `index.json` in its place. A layout that leads to nothing any more is none.
    pub(super) fn switch(&self, index: TempFile, leads_to_nothing: bool) -> Result<(), LayoutError> {
        let place = self.dir.place("index.json");
        if leads_to_nothing && self.before.text.is_some() {
            return place.remove().at("remove", place.path());
        }
        index.persist_at(&place).at("write", place.path())
    }

    /// Puts the old `index.json` back.
    fn switch_back(&self, durability: Durability) -> Result<(), LayoutError> {
        let place = self.dir.place("index.json");
        match self.before.text() {
            Some(text) => place.write(text, MODE).at("write", place.path())?,
            None => place.remove().at("remove", place.path())?,
        }
        if durability == Durability::OnDisk {
            if self.before.text.is_some() {
                sync(&place)?;
            }
            self.sync()?;
        }
        Ok(())
    }

    /// Sees to it that the new index is on the disk, and removes what is of no use any more.
    pub(super) fn finish(&self, manifests: &Members, durability: Durability) -> Result<(), LayoutError> {
        if durability == Durability::OnDisk {
            self.sync()?;
        }
        collect(&self.dir, &[manifests, &self.before.index.manifests], self.before.switched)
    }

    fn sync(&self) -> Result<(), LayoutError> {
        self.dir.sync().at("write to the disk", self.dir.path())
    }
}

/// Undoes the switch of these names. Where that fails, too, the new image stays, with its blobs.
pub(super) fn switch_back(
    switched: &mut [Target],
    durability: Durability,
    cause: LayoutError,
) -> LayoutError {
    let mut stay = Vec::new();
    for target in switched {
        if target.switch_back(durability).is_err() {
            target.undo.forget();
            stay.push(target.path.path().to_owned());
        }
    }
    match stay.as_slice() {
        [] => cause,
        _ => LayoutError::PartlyPublished { switched: stay, source: Box::new(cause) },
    }
}

/// Makes a layout's folder.
pub(super) fn folder(root: &LayoutDir, name: &LayoutPath, undo: &mut Undo) -> Result<Dir, LayoutError> {
    while_folders_go(|| make_layout_dir(root.path(), name.path(), undo))
}

pub(super) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("structs with string keys make JSON")
}

/// Waits until a file is on the disk.
fn sync(place: &Place) -> Result<(), LayoutError> {
    place.open().and_then(|file| file.sync_all()).at("write to the disk", place.path())
}

/// Waits until files are on the disk, several at a time: file systems write them together then.
fn sync_all(places: &[Place]) -> Result<(), LayoutError> {
    const AT_A_TIME: NonZeroUsize = NonZeroUsize::new(8).expect("eight is not zero");
    each(places, AT_A_TIME, sync).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GRACE, blobs_dir};

    /// Who was reading the image still reads its blobs, which may be old.
    #[test]
    fn what_was_removed_was_of_use_until_then() {
        let temp = tempfile::tempdir().unwrap();
        let dir = LayoutDir::new(temp.path()).unwrap();
        let path = dir.resolve("app").unwrap();
        fs::create_dir_all(blobs_dir(path.path())).unwrap();
        fs::write(path.path().join("index.json"), "{}").unwrap();
        fs::remove_file(path.path().join("index.json")).unwrap();
        let mut folders = Unlocked::new(path.path());
        let opened = folder(&dir, &path, &mut folders.undo).unwrap();
        let target = Target::lock(&dir, &path, opened, folders, Damage::Refused, &|| {}).unwrap();
        let age = SystemTime::now().duration_since(target.before.switched).unwrap();
        assert!(age < GRACE / 2, "{age:?}");
    }
}
