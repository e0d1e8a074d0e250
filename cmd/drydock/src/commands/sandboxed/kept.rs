//! The cached layers of the last build, kept as they were left, so that the restorer need not extract them.
//!
//! ```text
//! <cache>/builds/<app>/kept/<digits of the diff ID>/    a layer; the folder is its buildpacks' user's
//! ```
//!
//! Nobody trusts them: the restorer takes a layer only if it is as the cache has it. Until it runs, and after it, no phase sees them
//! (the creator, which is trusted, sees them from its beginning).

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use drydock_io::access::User;
use drydock_model::digest::DiffId;
use drydock_sandbox::tree;
use drydock_spec::cache::{CacheMetadata, KEPT_LAYERS, METADATA_NAME};
use drydock_spec::module::dir_name;
use drydock_tar::remove_all;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, openat2, renameat, statat};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Bytes that a cache may take to say what is in it.
const MAX_METADATA: u64 = 8 << 20;

/// The folder with the layers, which need not be there.
pub(super) struct Kept {
    dir: PathBuf,
}

impl Kept {
    /// That of an app, whose folder in the cache this is.
    pub(super) fn of(app: &Path) -> Self {
        Self { dir: app.join("kept") }
    }

    /// Removes it.
    pub(super) fn clear(&self) -> Result<()> {
        remove_all(&self.dir).with_context(|| format!("cannot remove `{}`", self.dir.display()))
    }

    /// Puts it where the restorer finds it. Another user than that of the last build could not remove it.
    pub(super) fn give(&self, layers: &Path, user: User) -> Result<()> {
        let to = layers.join(KEPT_LAYERS);
        match fs::symlink_metadata(&self.dir) {
            Ok(facts) if (facts.uid(), facts.gid()) == (user.uid, user.gid) => {
                remove_all(&to).with_context(|| format!("cannot remove `{}`", to.display()))?;
                fs::rename(&self.dir, &to).with_context(|| format!("cannot make `{}`", to.display()))
            }
            Ok(_) => self.clear(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot look at `{}`", self.dir.display())),
        }
    }

    /// Takes from the layers directory what the cache has, too.
    pub(super) fn take(&self, layers: &Path, cache: &Path, user: User) -> Result<()> {
        let text = tree::read(cache, &format!("committed/{METADATA_NAME}"), MAX_METADATA);
        let Some(text) = text.context("cannot read what the cache has")? else { return Ok(()) };
        let metadata = CacheMetadata::from_json(&text).context("cannot parse what the cache has")?;
        self.make(user)?;
        for buildpack in &metadata.buildpacks {
            let Some(dir) = open_below(layers, &dir_name(&buildpack.key))? else { continue };
            let is_name = |name: &str| !matches!(name, "." | "..") && !name.contains('/');
            for (name, layer) in buildpack.layers.iter().filter(|(name, layer)| layer.cache && is_name(name))
            {
                let Ok(diff_id) = layer.sha.parse::<DiffId>() else { continue };
                let stat = statat(&dir, name.as_str(), AtFlags::SYMLINK_NOFOLLOW);
                if !stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory) {
                    continue;
                }
                let to = self.dir.join(diff_id.hex());
                let moved = remove_all(&to).and_then(|()| Ok(renameat(&dir, name.as_str(), CWD, &to)?));
                moved.with_context(|| format!("cannot make `{}`", to.display()))?;
            }
        }
        Ok(())
    }

    fn make(&self, user: User) -> Result<()> {
        let made = match fs::DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ if geteuid().is_root() => chown(&self.dir, Some(user.uid), Some(user.gid)),
            _ => Ok(()),
        };
        made.with_context(|| format!("cannot make `{}`", self.dir.display()))
    }
}

/// A folder in a folder in which others have written; none if it is something else, as a link.
fn open_below(dir: &Path, name: &str) -> Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let failed = || format!("cannot open `{}` in `{}`", name, dir.display());
    let dir = rustix::fs::open(dir, flags, Mode::empty()).with_context(failed)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(dir, name, flags, Mode::empty(), resolve) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
        Err(error) => Err(error).with_context(failed),
    }
}
