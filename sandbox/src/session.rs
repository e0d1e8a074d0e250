//! Folders of commands that are running, and what is left of those that were killed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use drydock_io::file::make_dirs;
use drydock_io::lock::Lock;
use drydock_tar::remove_all;

use crate::limits;

/// The folder of the cache that has them.
const FOLDER: &str = "sessions";

/// A command's folder; dropped, it is gone. It is locked: who can lock it knows that its command was killed.
#[derive(Debug)]
pub struct Session {
    dir: PathBuf,
    /// None when the folder has been removed.
    lock: Option<Lock>,
}

impl Session {
    /// Makes a folder in the cache.
    pub fn begin(cache: &Path) -> Result<Self> {
        let parent = cache.join(FOLDER);
        make_private(&parent)?;
        let (dir, lock) = make_locked(&parent, "s")?;
        Ok(Self { dir, lock: Some(lock) })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A word that is this session's alone.
    pub fn name(&self) -> String {
        name(&self.dir)
    }

    /// Makes a folder in it.
    pub fn make(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        make_dirs(&dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
        Ok(dir)
    }

    /// Removes the folder, with what was made in it by any user of the room.
    pub fn end(mut self) -> Result<()> {
        let removed = remove_all(&self.dir);
        self.lock = None;
        removed.with_context(|| format!("cannot remove `{}`", self.dir.display()))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Held until the folder is gone: others remove what nobody has locked.
        if let Some(_lock) = self.lock.take() {
            // The command has failed and says why; the next one tries again.
            let _ = remove_all(&self.dir);
        }
    }
}

fn name(dir: &Path) -> String {
    format!("drydock-{}", dir.file_name().unwrap_or_default().display())
}

/// Removes what killed commands left: their control groups, and their folders in this cache.
pub fn remove_stale(cache: &Path) -> Result<usize> {
    limits::remove_forgotten_groups();
    remove_unlocked(&cache.join(FOLDER), &|_| true, &|left| limits::remove_groups(&name(left)))
}

/// Whether something in a folder was changed last at least so long ago.
pub fn is_old(entry: &fs::DirEntry, age: Duration) -> bool {
    let modified = entry.metadata().and_then(|facts| facts.modified());
    let found = modified.ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    found.is_some_and(|found| found >= age)
}

/// Removes the folders in a folder that nobody has locked, if they are `wanted`; gives their number.
pub fn remove_unlocked(
    parent: &Path,
    wanted: &dyn Fn(&fs::DirEntry) -> bool,
    undo: &dyn Fn(&Path),
) -> Result<usize> {
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).with_context(|| format!("cannot list `{}`", parent.display())),
    };
    let mut removed = 0;
    for entry in entries.flatten().filter(|entry| wanted(entry)) {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|file_type| file_type.is_dir());
        // Who is gone already, or cannot be opened, is left to whoever can.
        if let Ok(Some(_lock)) = if is_folder { Lock::try_acquire(&path) } else { Ok(None) } {
            undo(&path);
            remove_all(&path).with_context(|| format!("cannot remove `{}`", path.display()))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Makes a folder that is locked, whose name begins with `prefix`.
pub(crate) fn make_locked(parent: &Path, prefix: &str) -> Result<(PathBuf, Lock)> {
    // Who removes what is left may take a folder that is not locked yet.
    for _ in 0..100 {
        let made = tempfile::Builder::new().prefix(prefix).tempdir_in(parent);
        let dir = made.with_context(|| format!("cannot make a folder in `{}`", parent.display()))?.keep();
        match Lock::acquire(&dir, &|| {}) {
            Ok(lock) => return Ok((dir, lock)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot lock `{}`", dir.display())),
        }
    }
    bail!("somebody removes every folder that is made in `{}`", parent.display())
}

/// A folder that only its owner can look into: there are files of images in it that are setuid.
pub(crate) fn make_private(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let failed = || format!("cannot make `{}`", dir.display());
    match fs::DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        // What cannot be looked at is said to be no folder.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => make_dirs(dir),
        made => made,
    }
    .with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_killed_commands_left_is_removed_and_nothing_else() {
        let cache = tempfile::tempdir().unwrap();
        let running = Session::begin(cache.path()).unwrap();
        fs::write(running.make("a/b").unwrap().join("file"), "").unwrap();
        let killed = cache.path().join(FOLDER).join("killed");
        fs::create_dir_all(killed.join("inner")).unwrap();
        assert_eq!(remove_stale(cache.path()).unwrap(), 1);
        assert!(!killed.exists() && running.dir().join("a/b/file").exists());
        let dir = running.dir().to_owned();
        running.end().unwrap();
        assert!(!dir.exists());
        drop(Session::begin(cache.path()).unwrap());
        assert_eq!(fs::read_dir(cache.path().join(FOLDER)).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_taken_before_it_is_locked_is_made_again() {
        let cache = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let making = scope.spawn(|| {
                for _ in 0..5000 {
                    drop(Session::begin(cache.path()).unwrap());
                }
            });
            while !making.is_finished() {
                remove_stale(cache.path()).unwrap();
            }
        });
    }
}
