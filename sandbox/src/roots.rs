//! Folders that are made once and shared by all commands, above all the files of images.
//!
//! ```text
//! <cache>/roots/<key>/         locked by those who use it; its time says when it was used last
//! <cache>/roots/<key>/files/   the image's /, or what else it is
//! <cache>/roots/<key>/whole    nothing, written when all of it is there
//! ```
//!
//! An ordinary user who removes the cache by hand cannot remove files of his subordinate users: what stays lacks the last of these, and
//! is made again.
//!
//! Nobody writes to them, but for those that one command has [alone](get_alone) at a time.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use drydock_io::file::TEMPORARY_PREFIX;
use drydock_io::lock::Lock;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::session::{is_old, make_locked, make_private, remove_unlocked};

/// The folder of the cache that has them.
const FOLDER: &str = "roots";

/// The file of a folder that is whole.
const WHOLE: &str = "whole";

/// Nobody needs what has not been used so long.
pub const KEPT: Duration = Duration::from_hours(7 * 24);

/// A folder of the cache, which stays there as long as this is not dropped.
#[derive(Debug)]
pub struct Root {
    /// The folder that is the image's `/`.
    pub files: PathBuf,
    _lock: Lock,
}

impl Root {
    fn at(entry: &Path, lock: Lock) -> Self {
        // Where the time cannot be set, it is made anew some day.
        let _ = File::open(entry).and_then(|dir| dir.set_modified(SystemTime::now()));
        Self { files: entry.join("files"), _lock: lock }
    }

    /// The folder that has `files`, and what else was put there.
    pub fn dir(&self) -> &Path {
        self.files.parent().unwrap_or(&self.files)
    }
}

/// Called again and again while somebody has what is wanted: an error ends the wait.
pub type Waiting<'a> = dyn Fn() -> io::Result<()> + 'a;

/// Makes what is missing, in a folder that is not there yet.
pub type Make<'a> = dyn FnMut(&Path) -> Result<()> + 'a;

/// The files of the image that has `key`: from the cache, or made by `make`. For the users of another room (`users`:
/// [`crate::room::Room::users`]) they are others.
pub fn get(cache: &Path, key: &str, users: &str, waiting: &Waiting<'_>, make: &mut Make<'_>) -> Result<Root> {
    let lock = |entry: &Path| Lock::acquire_shared_while(entry, waiting).map(Some);
    let root = locked(cache, key, users, make, &lock)?;
    root.context("a lock that is waited for is had")
}

/// The same for a folder that nobody else uses meanwhile: it can be written to.
pub fn get_alone(
    cache: &Path,
    key: &str,
    users: &str,
    waiting: &Waiting<'_>,
    make: &mut Make<'_>,
) -> Result<Root> {
    let root = locked(cache, key, users, make, &|entry| Lock::acquire_while(entry, waiting).map(Some))?;
    root.context("a lock that is waited for is had")
}

/// The same: if somebody uses it, another one.
pub fn get_free(cache: &Path, key: &str, users: &str, make: &mut Make<'_>) -> Result<Root> {
    for number in 1.. {
        let key = if number == 1 { key.to_owned() } else { format!("{key}.{number}") };
        if let Some(root) = locked(cache, &key, users, make, &Lock::try_acquire)? {
            return Ok(root);
        }
    }
    bail!("there is always one more")
}

/// What was [put](put) there under this key.
pub fn find(cache: &Path, key: &str, users: &str) -> Result<Option<Root>> {
    let entry = entry(cache, key, users);
    match Lock::acquire_shared(&entry, &|| {}) {
        Ok(lock) => Ok(is_whole(&entry).then(|| Root::at(&entry, lock))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot lock `{}`", entry.display())),
    }
}

/// Puts folders into the cache that are on its file system, each under its key, in place of what is there unless somebody uses that; then
/// the folder stays where it is. They are whole after a power failure, too.
pub fn put(cache: &Path, users: &str, made: &[(String, PathBuf)]) -> Result<Vec<Root>> {
    let parent = cache.join(FOLDER);
    make_private(&parent)?;
    let failed = || format!("cannot make a folder in `{}`", parent.display());
    for (_, from) in made {
        mark_whole(from)?;
    }
    if !made.is_empty() {
        rustix::fs::syncfs(File::open(&parent).with_context(failed)?).with_context(failed)?;
    }
    let put = |(key, from): &(String, PathBuf)| -> Result<Root> {
        let entry = entry(cache, key, users);
        let lock = Lock::acquire_shared(from, &|| {});
        let lock = lock.with_context(|| format!("cannot lock `{}`", from.display()))?;
        match fs::rename(from, &entry) {
            Ok(()) => return Ok(Root::at(&entry, lock)),
            Err(_) if entry.is_dir() => {}
            Err(error) => return Err(error).with_context(failed),
        }
        if let Ok(Some(_old)) = Lock::try_acquire(&entry)
            && renameat_with(CWD, from, CWD, &entry, RenameFlags::EXCHANGE).is_ok()
        {
            return Ok(Root::at(&entry, lock));
        }
        Ok(Root::at(from, lock))
    };
    made.iter().map(put).collect()
}

fn mark_whole(dir: &Path) -> Result<()> {
    let mark = dir.join(WHOLE);
    File::create(&mark).map(drop).with_context(|| format!("cannot write `{}`", mark.display()))
}

fn is_whole(entry: &Path) -> bool {
    entry.join(WHOLE).exists()
}

fn entry(cache: &Path, key: &str, users: &str) -> PathBuf {
    cache.join(FOLDER).join(format!("{key}-{}", users.replace(' ', "_").replace('/', "+")))
}

/// A folder that `lock` has locked; none if it does not wait for others.
fn locked(
    cache: &Path,
    key: &str,
    users: &str,
    make: &mut Make<'_>,
    lock: &dyn Fn(&Path) -> io::Result<Option<Lock>>,
) -> Result<Option<Root>> {
    let parent = cache.join(FOLDER);
    make_private(&parent)?;
    let entry = entry(cache, key, users);
    // What is not in use may be removed between any two steps.
    for _ in 0..100 {
        match lock(&entry) {
            Ok(None) => return Ok(None),
            Ok(Some(lock)) if is_whole(&entry) => return Ok(Some(Root::at(&entry, lock))),
            Ok(Some(lock)) => {
                drop(lock);
                fill(&parent, &entry, make)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => fill(&parent, &entry, make)?,
            Err(error) => return Err(error).with_context(|| format!("cannot lock `{}`", entry.display())),
        }
    }
    bail!("somebody removes `{}` again and again", entry.display())
}

fn fill(parent: &Path, entry: &Path, make: &mut Make<'_>) -> Result<()> {
    let failed = || format!("cannot make a folder in `{}`", parent.display());
    let (temporary, lock) = make_locked(parent, TEMPORARY_PREFIX)?;
    let filled = (|| {
        make(&temporary.join("files"))?;
        mark_whole(&temporary)?;
        // What has its name is whole, after a power failure too.
        rustix::fs::syncfs(lock.dir()).with_context(failed)?;
        match fs::rename(&temporary, entry) {
            Ok(()) => Ok(true),
            Err(_) if is_whole(entry) => Ok(false),
            Err(_) if entry.is_dir() => {
                // What is left of it stays as long as somebody uses it.
                renameat_with(CWD, &temporary, CWD, entry, RenameFlags::EXCHANGE).with_context(failed)?;
                Ok(!matches!(Lock::try_acquire(&temporary), Ok(Some(_))))
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

/// Removes folders that nobody uses, and that nobody has used for `kept`; and what killed commands left of others.
/// Gives their number.
pub fn clean(cache: &Path, kept: Duration) -> Result<usize> {
    let is_temporary =
        |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX);
    remove_unlocked(&cache.join(FOLDER), &|entry| is_temporary(entry) || is_old(entry, kept), &|_| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_made_once_kept_while_used_and_removed_when_old() {
        let cache = tempfile::tempdir().unwrap();
        let mut made = 0;
        let mut get = |key: &str| {
            get(cache.path(), key, "0 0 1/0 0 1", &|| Ok(()), &mut |to| {
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
    fn folders_that_are_written_to_are_had_alone() {
        let cache = tempfile::tempdir().unwrap();
        let mut make = |to: &Path| Ok(fs::create_dir(to)?);
        let alone = get_alone(cache.path(), "a", "", &|| panic!("nobody has it"), &mut make).unwrap();
        let other = get_free(cache.path(), "a", "", &mut make).unwrap();
        let given_up = || Err(io::Error::other("it takes too long"));
        let refused = [
            get(cache.path(), "a", "", &given_up, &mut make).unwrap_err(),
            get_alone(cache.path(), "a", "", &given_up, &mut make).unwrap_err(),
        ];
        assert!(refused.iter().all(|error| format!("{error:#}").ends_with("too long")), "{refused:?}");
        assert_ne!(alone.files, other.files);
        let files = alone.files.clone();
        drop(alone);
        assert_eq!(get_free(cache.path(), "a", "", &mut make).unwrap().files, files);
    }

    #[test]
    fn what_is_put_is_found() {
        let cache = tempfile::tempdir().unwrap();
        assert!(find(cache.path(), "a", "").unwrap().is_none());
        for text in ["first", "second"] {
            let dir = cache.path().join(text);
            fs::create_dir_all(dir.join("files")).unwrap();
            fs::write(dir.join("text"), text).unwrap();
            drop(put(cache.path(), "", &[("a".to_owned(), dir)]).unwrap());
            let found = find(cache.path(), "a", "").unwrap().unwrap();
            assert_eq!(fs::read_to_string(found.dir().join("text")).unwrap(), text);
        }
        let used = find(cache.path(), "a", "").unwrap();
        let dir = cache.path().join("third");
        fs::create_dir_all(dir.join("files")).unwrap();
        assert_eq!(put(cache.path(), "", &[("a".to_owned(), dir.clone())]).unwrap()[0].dir(), dir);
        assert!(used.unwrap().dir().join("text").exists());
    }

    #[test]
    fn what_is_not_whole_is_made_again() {
        let cache = tempfile::tempdir().unwrap();
        let get = || {
            get(cache.path(), "a", "", &|| Ok(()), &mut |to| {
                fs::create_dir(to)?;
                Ok(fs::write(to.join("file"), "content")?)
            })
        };
        let spoil = |root: &Root| {
            fs::remove_file(root.files.join("file")).unwrap();
            fs::remove_file(root.dir().join(WHOLE)).unwrap();
        };
        for is_used in [false, true] {
            let root = get().unwrap();
            spoil(&root);
            let used = is_used.then_some(root);
            assert!(find(cache.path(), "a", "").unwrap().is_none());
            assert!(get().unwrap().files.join("file").exists());
            assert_eq!(fs::read_dir(cache.path().join(FOLDER)).unwrap().count(), 1 + usize::from(is_used));
            drop(used);
        }
        assert_eq!(clean(cache.path(), KEPT).unwrap(), 1);
        assert!(find(cache.path(), "a", "").unwrap().is_some());
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let cache = tempfile::tempdir().unwrap();
        let failed = get(cache.path(), "a", "", &|| Ok(()), &mut |to| {
            fs::create_dir(to)?;
            bail!("no")
        });
        assert_eq!(failed.unwrap_err().to_string(), "no");
        assert_eq!(fs::read_dir(cache.path().join(FOLDER)).unwrap().count(), 0);
    }
}
