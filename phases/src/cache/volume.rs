//! The volume cache: a folder with uncompressed layer tars and a file that describes them.
//!
//! ```text
//! <dir>/committed/io.buildpacks.lifecycle.cache.metadata    what is in it (JSON)
//! <dir>/committed/sha256:<hex>.tar                          a layer, by its diff ID
//! <dir>/staging/                                            what the running export writes
//! <dir>/committed-backup/                                   only between the two renames of a commit
//! ```
//! It is that of the Go lifecycle, in both directions. Specification: `platform.md` § Cache.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use drydock_io::file::{TempFile, write_atomically};
use drydock_io::lock::Lock;
use drydock_io::read;
use drydock_layout::seen::Print;
use drydock_model::digest::DiffId;
use drydock_spec::cache::{CacheMetadata, METADATA_NAME};
use drydock_tar::remove_all;

use super::{Cache, CacheWriter, StoredTar};
use crate::Log;
use crate::file::{exists, failed, is_dir};
use crate::limits;

const COMMITTED: &str = "committed";
const STAGING: &str = "staging";
const BACKUP: &str = "committed-backup";

/// Says what is wrong if there is no folder for a cache at `dir`.
pub(super) fn check(dir: &Path) -> anyhow::Result<()> {
    let metadata = fs::metadata(dir).map_err(failed("stat", dir)).context("failed to create volume cache")?;
    if !metadata.is_dir() {
        bail!("failed to create volume cache: `{}` is not a folder", dir.display());
    }
    Ok(())
}

/// The folders in `dir` that are the cache's own.
pub(super) fn own_folders(dir: &Path) -> [PathBuf; 3] {
    [COMMITTED, STAGING, BACKUP].map(|name| dir.join(name))
}

/// The folder with the layers.
pub(super) fn committed(dir: &Path) -> PathBuf {
    dir.join(COMMITTED)
}

/// The file of a layer's tar.
pub(super) fn tar_path(dir: &Path, diff_id: &DiffId) -> PathBuf {
    committed(dir).join(file_name(diff_id))
}

/// A cache that layers come back from. Any number of processes can have it, but no [`VolumeCacheWriter`]
/// beside them.
#[derive(Debug)]
pub struct VolumeCache {
    committed: PathBuf,
    _lock: Lock,
}

impl VolumeCache {
    /// The cache in `dir`, which must exist. Waits for an export that writes it.
    pub fn open(dir: &Path, log: &dyn Log) -> anyhow::Result<Self> {
        check(dir)?;
        let lock = Lock::acquire_shared(dir, &|| log_waiting(dir, log)).with_context(|| cannot_lock(dir))?;
        let [committed, _, backup] = own_folders(dir);
        // An export that was killed between its two renames left the other name.
        let committed = if exists(&committed)? { committed } else { backup };
        Ok(Self { committed, _lock: lock })
    }
}

impl Cache for VolumeCache {
    fn metadata(&self, log: &dyn Log) -> CacheMetadata {
        metadata(&self.committed, log)
    }

    fn tar(&self, diff_id: &DiffId) -> anyhow::Result<StoredTar> {
        let path = self.committed.join(file_name(diff_id));
        match read::open(&path).and_then(|tar| Ok((tar.metadata()?, tar))) {
            Ok((file, tar)) => {
                // A hole has a size and takes no room.
                let stored = file.blocks().saturating_mul(512).min(file.len());
                let limit = limits::layer_tar(stored).min(file.len());
                Ok(StoredTar { print: Print::of(&tar).ok().flatten(), tar: Box::new(tar), limit })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(anyhow!("failed to find cache layer with SHA '{diff_id}'"))
            }
            Err(error) => Err(error).with_context(|| format!("failed to open `{}`", path.display())),
        }
    }
}

/// A cache that is being written, by one process at a time.
#[derive(Debug)]
pub struct VolumeCacheWriter {
    committed: PathBuf,
    staging: PathBuf,
    backup: PathBuf,
    /// What stays as it is.
    kept: BTreeSet<String>,
    is_added_to: bool,
    _lock: Lock,
}

impl VolumeCacheWriter {
    /// The cache in `dir`, which must exist. Waits for other processes that work with it, and removes what a
    /// killed one left behind.
    pub fn open(dir: &Path, log: &dyn Log) -> anyhow::Result<Self> {
        let lock = Lock::acquire(dir, &|| log_waiting(dir, log)).with_context(|| cannot_lock(dir))?;
        let [committed, staging, backup] = own_folders(dir);
        if exists(&backup)? && !exists(&committed)? {
            rename(&backup, &committed)?;
        }
        for old in [&staging, &backup] {
            remove_dir(old)?;
        }
        for new in [&staging, &committed] {
            if !is_dir(new)? {
                DirBuilder::new()
                    .mode(0o755)
                    .create(new)
                    .with_context(|| format!("failed to make folder `{}`", new.display()))?;
            }
        }
        Ok(Self { committed, staging, backup, kept: BTreeSet::new(), is_added_to: false, _lock: lock })
    }

    /// Brings what stays to where the cache to come is made.
    fn bring_kept(&self) -> anyhow::Result<()> {
        for name in &self.kept {
            let (from, to) = (self.committed.join(name), self.staging.join(name));
            match fs::hard_link(&from, &to) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    // Links are not possible here.
                    fs::copy(&from, &to).with_context(|| {
                        format!("failed to copy `{}` to `{}`", from.display(), to.display())
                    })?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the cache to come is the cache as it is.
    fn is_as_before(&self, metadata: &str) -> bool {
        let names = || -> std::io::Result<BTreeSet<String>> {
            let names = fs::read_dir(&self.committed)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            names.collect()
        };
        let mut to_come = self.kept.clone();
        to_come.insert(METADATA_NAME.to_owned());
        let text = read::read_to_string(&self.committed.join(METADATA_NAME), limits::DOCUMENT);
        !self.is_added_to
            && text.is_ok_and(|text| text == metadata)
            && names().is_ok_and(|names| names == to_come)
    }
}

impl CacheWriter for VolumeCacheWriter {
    fn metadata(&self, log: &dyn Log) -> CacheMetadata {
        metadata(&self.committed, log)
    }

    fn tar(&self, diff_id: &DiffId) -> Option<File> {
        let path = self.committed.join(file_name(diff_id));
        // A link would be kept as a link.
        let is_file = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
        is_file.then(|| read::open(&path).ok()).flatten()
    }

    fn staging(&self) -> &Path {
        &self.staging
    }

    fn keep(&mut self, diff_id: &DiffId) -> anyhow::Result<()> {
        let name = file_name(diff_id);
        let path = self.committed.join(&name);
        fs::metadata(&path).with_context(|| format!("failed to keep `{}`", path.display()))?;
        self.kept.insert(name);
        Ok(())
    }

    fn add(&mut self, diff_id: &DiffId, tar: TempFile) -> anyhow::Result<()> {
        let to = self.staging.join(file_name(diff_id));
        self.is_added_to = true;
        tar.persist(&to).with_context(|| format!("failed to write `{}`", to.display()))
    }

    fn commit(self: Box<Self>, metadata: &CacheMetadata, _log: &dyn Log) -> anyhow::Result<()> {
        let Self { committed, staging, backup, .. } = &*self;
        let path = staging.join(METADATA_NAME);
        let text = metadata.to_json()? + "\n";
        if self.is_as_before(&text) {
            return remove_dir(staging);
        }
        self.bring_kept()?;
        write_atomically(&path, text.as_bytes())
            .with_context(|| format!("failed to write `{}`", path.display()))?;
        rename(committed, backup)?;
        if let Err(error) = rename(staging, committed) {
            rename(backup, committed)?;
            return Err(error);
        }
        remove_dir(backup)
    }
}

/// The description in a folder of layers.
fn metadata(committed: &Path, log: &dyn Log) -> CacheMetadata {
    let path = committed.join(METADATA_NAME);
    let problem = match read::read_to_string(&path, limits::DOCUMENT) {
        Ok(text) => match CacheMetadata::from_json(&text) {
            Ok(metadata) => return metadata,
            Err(error) => error.to_string(),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => return CacheMetadata::default(),
        Err(error) => error.to_string(),
    };
    log.warn(&format!("The cache counts as empty: `{}` cannot be read: {problem}", path.display()));
    CacheMetadata::default()
}

fn file_name(diff_id: &DiffId) -> String {
    format!("{diff_id}.tar")
}

fn log_waiting(dir: &Path, log: &dyn Log) {
    log.info(&format!("Waiting for another build that uses the cache '{}'", dir.display()));
}

fn cannot_lock(dir: &Path) -> String {
    format!("failed to lock cache `{}`", dir.display())
}

fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::rename(from, to)
        .with_context(|| format!("failed to rename `{}` to `{}`", from.display(), to.display()))
}

fn remove_dir(path: &Path) -> anyhow::Result<()> {
    remove_all(path).with_context(|| format!("failed to remove `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;
    use crate::memory_log::MemoryLog;

    fn open(dir: &Path) -> VolumeCacheWriter {
        VolumeCacheWriter::open(dir, &MemoryLog::default()).unwrap()
    }

    fn add(cache: &mut VolumeCacheWriter, bytes: &[u8]) -> DiffId {
        let mut tar = TempFile::create_in(&cache.staging).unwrap();
        tar.file().write_all(bytes).unwrap();
        cache.add(&DiffId::of(bytes), tar).unwrap();
        DiffId::of(bytes)
    }

    fn commit(cache: VolumeCacheWriter, sbom: &str) {
        let metadata = CacheMetadata { sbom: sbom.to_owned(), ..CacheMetadata::default() };
        Box::new(cache).commit(&metadata, &MemoryLog::default()).unwrap();
    }

    #[test]
    fn files_are_where_the_go_lifecycle_looks_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = open(dir.path());
        let one = add(&mut cache, b"one");
        commit(cache, "first");
        assert_eq!(fs::read(dir.path().join(format!("committed/{one}.tar"))).unwrap(), b"one");
        let text = fs::read_to_string(dir.path().join("committed").join(METADATA_NAME)).unwrap();
        assert_eq!(text, "{\"sbom\":{\"sha\":\"first\"},\"buildpacks\":[]}\n");
        add(&mut open(dir.path()), b"two");
        assert_eq!(fs::read_dir(open(dir.path()).staging()).unwrap().count(), 0);
    }

    #[test]
    fn a_commit_killed_between_its_renames_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = open(dir.path());
        let one = add(&mut cache, b"one");
        commit(cache, "first");
        fs::rename(dir.path().join("committed"), dir.path().join("committed-backup")).unwrap();
        assert!(VolumeCache::open(dir.path(), &MemoryLog::default()).unwrap().tar(&one).is_ok());
        assert!(!dir.path().join("committed").exists(), "to read a cache changes it");
        assert!(open(dir.path()).tar(&one).is_some());
    }

    #[test]
    fn a_broken_description_is_that_of_an_empty_cache() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path());
        let path = cache.committed.join(METADATA_NAME);
        let damages: [fn(&Path); 3] = [
            |path| fs::write(path, "not JSON").unwrap(),
            |path| File::create(path).unwrap().set_len(limits::DOCUMENT + 1).unwrap(),
            |path| mkfifoat(CWD, path, Mode::RWXU).unwrap(),
        ];
        for damage in damages {
            damage(&path);
            let log = MemoryLog::default();
            assert_eq!(cache.metadata(&log), CacheMetadata::default());
            assert!(log.text().contains(METADATA_NAME));
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn only_a_file_is_a_tar() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path());
        let [fifo, link] = [b"fifo", b"link"].map(|bytes| DiffId::of(bytes));
        let path = |diff_id| cache.committed.join(file_name(diff_id));
        mkfifoat(CWD, path(&fifo), Mode::RWXU).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path(&link)).unwrap();
        assert!(cache.tar(&fifo).is_none() && cache.tar(&link).is_none());
        drop(cache);
        let cache = VolumeCache::open(dir.path(), &MemoryLog::default()).unwrap();
        assert!(cache.tar(&fifo).is_err() && cache.tar(&link).is_err());
    }

    #[test]
    fn a_cache_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let message =
            format!("{:#}", VolumeCache::open(&dir.path().join("no"), &MemoryLog::default()).unwrap_err());
        assert!(message.contains("failed to create volume cache: stat"), "{message}");
    }
}
