//! The volume cache: a folder with uncompressed layer tars and a file that describes them.
//!
//! ```text
//! <dir>/committed/io.buildpacks.lifecycle.cache.metadata    what is in it (JSON)
//! <dir>/committed/sha256:<hex>.tar                          a layer, by its diff ID
//! <dir>/staging/                                            what the running export writes
//! <dir>/committed-backup/                                   only between the two renames of a commit
//! ```
//! It is that of the Go lifecycle, in both directions. Specification: `platform.md` § Cache.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use drydock_io::file::{TempFile, write_atomically};
use drydock_layout::ImageLayer;
use drydock_model::digest::DiffId;
use drydock_spec::cache::{CacheMetadata, METADATA_NAME};
use rustix::fs::FlockOperation;

use super::{Cache, CacheWriter, ignore_missing, tar_of};
use crate::Log;

/// A cache in a folder. One process at a time works with it.
#[derive(Debug)]
pub struct VolumeCache {
    dir: PathBuf,
    staging: PathBuf,
    /// Held for its lock.
    _lock: File,
}

impl VolumeCache {
    /// The cache in `dir`, which must exist. Waits for another process that works with it, and removes what a killed
    /// one left behind.
    pub fn open(dir: &Path, log: &dyn Log) -> anyhow::Result<Self> {
        if !fs::metadata(dir)
            .with_context(|| format!("failed to create volume cache: stat `{}`", dir.display()))?
            .is_dir()
        {
            bail!("failed to create volume cache: `{}` is not a folder", dir.display());
        }
        let lock = File::open(dir).with_context(|| format!("failed to open cache `{}`", dir.display()))?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            log.info(&format!("Waiting for another build that uses the cache '{}'", dir.display()));
            rustix::fs::flock(&lock, FlockOperation::LockExclusive)
                .map_err(io::Error::from)
                .with_context(|| format!("failed to lock cache `{}`", dir.display()))?;
        }
        let cache = Self { dir: dir.to_owned(), staging: dir.join("staging"), _lock: lock };
        let (committed, backup) = (cache.committed(), cache.backup());
        if backup.exists() && !committed.exists() {
            rename(&backup, &committed)?;
        }
        for old in [cache.staging.clone(), backup] {
            remove_dir(&old)?;
        }
        for new in [cache.staging.clone(), committed] {
            if !new.is_dir() {
                DirBuilder::new()
                    .mode(0o755)
                    .create(&new)
                    .with_context(|| format!("failed to make folder `{}`", new.display()))?;
            }
        }
        Ok(cache)
    }

    fn committed(&self) -> PathBuf {
        self.dir.join("committed")
    }

    fn backup(&self) -> PathBuf {
        self.dir.join("committed-backup")
    }

    /// The file of a layer's tar, whether or not it is there.
    fn layer_path(&self, diff_id: &DiffId) -> PathBuf {
        self.committed().join(file_name(diff_id))
    }
}

impl Cache for VolumeCache {
    fn metadata(&self, log: &dyn Log) -> CacheMetadata {
        let path = self.committed().join(METADATA_NAME);
        let problem = match fs::read_to_string(&path) {
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

    fn tar(&self, diff_id: &DiffId) -> anyhow::Result<Box<dyn Read>> {
        let path = self.layer_path(diff_id);
        match File::open(&path) {
            Ok(tar) => Ok(Box::new(tar)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(anyhow!("failed to find cache layer with SHA '{diff_id}'"))
            }
            Err(error) => Err(error).with_context(|| format!("failed to open `{}`", path.display())),
        }
    }

    fn discard(&self, diff_id: &DiffId) -> anyhow::Result<()> {
        let path = self.layer_path(diff_id);
        ignore_missing(fs::remove_file(&path))
            .with_context(|| format!("failed to remove `{}`", path.display()))
    }
}

impl CacheWriter for VolumeCache {
    fn metadata(&self, log: &dyn Log) -> CacheMetadata {
        Cache::metadata(self, log)
    }

    fn has(&self, diff_id: &DiffId) -> bool {
        self.layer_path(diff_id).is_file()
    }

    fn staging(&self) -> &Path {
        &self.staging
    }

    fn shares_blobs(&self) -> bool {
        false
    }

    fn keep(&mut self, diff_id: &DiffId) -> anyhow::Result<bool> {
        let (from, to) = (self.layer_path(diff_id), self.staging.join(file_name(diff_id)));
        match fs::hard_link(&from, &to) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(_links_are_not_possible_here) => {
                fs::copy(&from, &to)
                    .with_context(|| format!("failed to copy `{}` to `{}`", from.display(), to.display()))?;
                Ok(true)
            }
        }
    }

    fn add(&mut self, diff_id: &DiffId, tar: TempFile) -> anyhow::Result<()> {
        let to = self.staging.join(file_name(diff_id));
        tar.persist(&to).with_context(|| format!("failed to write `{}`", to.display()))
    }

    fn share(&mut self, layer: &ImageLayer) -> anyhow::Result<()> {
        let mut tar = tar_of(layer, layer.open()?)?;
        let mut file = TempFile::create_in(&self.staging)
            .with_context(|| format!("failed to make a file in `{}`", self.staging.display()))?;
        io::copy(&mut tar, file.file())
            .with_context(|| format!("failed to decompress `{}`", layer.path.display()))?;
        self.add(&layer.diff_id, file)
    }

    fn commit(self: Box<Self>, metadata: &CacheMetadata, _log: &dyn Log) -> anyhow::Result<()> {
        let (committed, backup) = (self.committed(), self.backup());
        let path = self.staging.join(METADATA_NAME);
        let text = metadata.to_json()? + "\n";
        write_atomically(&path, text.as_bytes())
            .with_context(|| format!("failed to write `{}`", path.display()))?;
        rename(&committed, &backup)?;
        if let Err(error) = rename(&self.staging, &committed) {
            rename(&backup, &committed)?;
            return Err(error);
        }
        remove_dir(&backup)
    }
}

fn file_name(diff_id: &DiffId) -> String {
    format!("{diff_id}.tar")
}

fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::rename(from, to)
        .with_context(|| format!("failed to rename `{}` to `{}`", from.display(), to.display()))
}

fn remove_dir(path: &Path) -> anyhow::Result<()> {
    ignore_missing(fs::remove_dir_all(path)).with_context(|| format!("failed to remove `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::memory_log::MemoryLog;

    fn open(dir: &Path) -> VolumeCache {
        VolumeCache::open(dir, &MemoryLog::default()).unwrap()
    }

    fn add(cache: &mut VolumeCache, bytes: &[u8]) -> DiffId {
        let mut tar = TempFile::create_in(&cache.staging).unwrap();
        tar.file().write_all(bytes).unwrap();
        cache.add(&DiffId::of(bytes), tar).unwrap();
        DiffId::of(bytes)
    }

    fn commit(cache: VolumeCache, sbom: &str) {
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
        assert!(open(dir.path()).layer_path(&one).exists());
    }

    #[test]
    fn a_broken_description_is_that_of_an_empty_cache() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path());
        fs::write(cache.committed().join(METADATA_NAME), "not JSON").unwrap();
        let log = MemoryLog::default();
        assert_eq!(Cache::metadata(&cache, &log), CacheMetadata::default());
        assert!(log.text().contains(METADATA_NAME));
    }

    #[test]
    fn a_cache_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let message =
            format!("{:#}", VolumeCache::open(&dir.path().join("no"), &MemoryLog::default()).unwrap_err());
        assert!(message.contains("failed to create volume cache: stat"), "{message}");
    }
}
