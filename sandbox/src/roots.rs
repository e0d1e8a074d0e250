//! The files of images, unpacked once and shared by all commands: nobody writes to them.
//!
//! ```text
//! <cache>/roots/<key>/         locked by those who use it; its time says when it was used last
//! <cache>/roots/<key>/files/   the image's /
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use drydock_io::file::TEMPORARY_PREFIX;
use drydock_io::lock::Lock;

use crate::session::{make_private, remove_unlocked};

/// The folder of the cache that has them.
const FOLDER: &str = "roots";

/// Nobody needs what has not been used so long.
pub const KEPT: Duration = Duration::from_hours(7 * 24);

/// The files of an image, which stay there as long as this is not dropped.
#[derive(Debug)]
pub struct Root {
    /// The folder that is the image's `/`.
    pub files: PathBuf,
    _lock: Lock,
}

/// The files of the image that has `key`: from the cache, or made by `make` in the folder that it is given, which is not there yet. For the users
/// of another room (`users`: [`crate::room::Room::users`]) they are others.
pub fn get(cache: &Path, key: &str, users: &str, make: &mut dyn FnMut(&Path) -> Result<()>) -> Result<Root> {
    let parent = cache.join(FOLDER);
    make_private(&parent)?;
    let name = format!("{key}-{}", users.replace(' ', "_").replace('/', "+"));
    let entry = parent.join(name);
    // What is not in use may be removed between any two steps.
    for _ in 0..100 {
        match Lock::acquire_shared(&entry, &|| {}) {
            Ok(lock) => {
                // Where the time cannot be set, it is made anew some day.
                let _ = File::open(&entry).and_then(|dir| dir.set_modified(SystemTime::now()));
                return Ok(Root { files: entry.join("files"), _lock: lock });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => fill(&parent, &entry, make)?,
            Err(error) => return Err(error).with_context(|| format!("cannot lock `{}`", entry.display())),
        }
    }
    bail!("somebody removes `{}` again and again", entry.display())
}

fn fill(parent: &Path, entry: &Path, make: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    let failed = || format!("cannot make a folder in `{}`", parent.display());
    let temporary =
        tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempdir_in(parent).with_context(failed)?.keep();
    let filled = (|| {
        let lock = Lock::acquire(&temporary, &|| {}).with_context(failed)?;
        make(&temporary.join("files"))?;
        // What has its name is whole, after a power failure too.
        rustix::fs::syncfs(lock.dir()).with_context(failed)?;
        match fs::rename(&temporary, entry) {
            Ok(()) => Ok(true),
            Err(error) if entry.is_dir() => {
                drop(error);
                Ok(false)
            }
            Err(error) => Err(error).with_context(|| format!("cannot make `{}`", entry.display())),
        }
    })();
    if !matches!(filled, Ok(true)) {
        // Somebody else was faster, or it failed and that is said.
        let _ = drydock_tar::remove_all(&temporary);
    }
    filled.map(drop)
}

/// Removes files of images that nobody uses, and that nobody has used for `kept`; and what killed commands left of others.
/// Gives their number.
pub fn clean(cache: &Path, kept: Duration) -> Result<usize> {
    let is_old = |entry: &fs::DirEntry| {
        let modified = entry.metadata().and_then(|facts| facts.modified());
        let age = modified.ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
        age.is_some_and(|age| age >= kept)
    };
    let is_temporary =
        |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX);
    remove_unlocked(&cache.join(FOLDER), &|entry| is_temporary(entry) || is_old(entry), &|_| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_made_once_kept_while_used_and_removed_when_old() {
        let cache = tempfile::tempdir().unwrap();
        let mut made = 0;
        let mut get = |key: &str| {
            get(cache.path(), key, "0 0 1/0 0 1", &mut |to| {
                made += 1;
                fs::create_dir(to)?;
                Ok(fs::write(to.join("file"), "content")?)
            })
        };
        let one = get("a").unwrap();
        let again = get("a").unwrap();
        assert_eq!(one.files, again.files);
        assert_eq!(fs::read_to_string(one.files.join("file")).unwrap(), "content");
        drop(get("b").unwrap());
        assert_eq!(made, 2);
        assert_eq!(clean(cache.path(), KEPT).unwrap(), 0);
        assert_eq!(clean(cache.path(), Duration::ZERO).unwrap(), 1);
        assert!(one.files.exists());
        drop((one, again));
        assert_eq!(clean(cache.path(), Duration::ZERO).unwrap(), 1);
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let cache = tempfile::tempdir().unwrap();
        let failed = get(cache.path(), "a", "", &mut |to| {
            fs::create_dir(to)?;
            bail!("no")
        });
        assert_eq!(failed.unwrap_err().to_string(), "no");
        assert_eq!(fs::read_dir(cache.path().join(FOLDER)).unwrap().count(), 0);
    }
}
