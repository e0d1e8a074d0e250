//! Locks on folders, and what makes a folder the same whatever it is called.
//!
//! A lock is advisory (`flock`) and lies on the folder itself: there is no lock file to leave behind, and the
//! kernel releases it when the process ends, however it ends. It belongs to the open folder: whoever takes
//! the exclusive lock of a folder twice waits for itself. So folders that may have several names are told
//! apart by [`Identity`] first.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, Stat, flock, openat};
use rustix::io::{Errno, retry_on_intr};

/// Which file or folder something is: the same for all its paths, through links and mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Of what lies at a path; symlinks are followed.
    pub fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::from(&metadata))
    }
}

impl From<&fs::Metadata> for Identity {
    fn from(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl From<&Stat> for Identity {
    fn from(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// A folder that is locked until this is dropped.
#[derive(Debug)]
pub struct Lock {
    dir: File,
    identity: Identity,
}

impl Lock {
    /// Locks a folder against everybody else. `waiting` is called once, if somebody has it locked.
    ///
    /// A folder that was replaced meanwhile is waited for again; one that is gone is
    /// [`io::ErrorKind::NotFound`].
    pub fn acquire(dir: &Path, waiting: &dyn Fn()) -> io::Result<Self> {
        Self::wait(dir, FlockOperation::NonBlockingLockExclusive, FlockOperation::LockExclusive, waiting)
    }

    /// Locks a folder against those who [`Lock::acquire`] it, beside others like this.
    pub fn acquire_shared(dir: &Path, waiting: &dyn Fn()) -> io::Result<Self> {
        Self::wait(dir, FlockOperation::NonBlockingLockShared, FlockOperation::LockShared, waiting)
    }

    /// [`Lock::acquire`], given up when `waiting` fails, which is called again and again while somebody has the folder locked.
    pub fn acquire_while(dir: &Path, waiting: &dyn Fn() -> io::Result<()>) -> io::Result<Self> {
        Self::look(dir, FlockOperation::NonBlockingLockExclusive, waiting)
    }

    /// [`Lock::acquire_shared`], given up in the same way.
    pub fn acquire_shared_while(dir: &Path, waiting: &dyn Fn() -> io::Result<()>) -> io::Result<Self> {
        Self::look(dir, FlockOperation::NonBlockingLockShared, waiting)
    }

    /// [`Lock::acquire`] without waiting: `None` if somebody has the folder locked.
    pub fn try_acquire(dir: &Path) -> io::Result<Option<Self>> {
        Self::at_once(dir, FlockOperation::NonBlockingLockExclusive)
    }

    fn at_once(dir: &Path, operation: FlockOperation) -> io::Result<Option<Self>> {
        loop {
            let lock = Self::open(dir)?;
            if !lock.take(operation)? {
                return Ok(None);
            }
            if lock.is_still(dir) {
                return Ok(Some(lock));
            }
        }
    }

    fn look(dir: &Path, at_once: FlockOperation, waiting: &dyn Fn() -> io::Result<()>) -> io::Result<Self> {
        const BETWEEN: Duration = Duration::from_millis(100);
        loop {
            if let Some(lock) = Self::at_once(dir, at_once)? {
                return Ok(lock);
            }
            waiting()?;
            thread::sleep(BETWEEN);
        }
    }

    fn wait(
        dir: &Path,
        at_once: FlockOperation,
        in_time: FlockOperation,
        waiting: &dyn Fn(),
    ) -> io::Result<Self> {
        if let Some(lock) = Self::at_once(dir, at_once)? {
            return Ok(lock);
        }
        waiting();
        loop {
            let lock = Self::open(dir)?;
            if lock.take(in_time)? && lock.is_still(dir) {
                return Ok(lock);
            }
        }
    }

    fn open(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = File::from(openat(CWD, dir, flags, Mode::empty())?);
        let identity = Identity::from(&dir.metadata()?);
        Ok(Self { dir, identity })
    }

    /// `false` if somebody else has the lock.
    fn take(&self, operation: FlockOperation) -> io::Result<bool> {
        match retry_on_intr(|| flock(&self.dir, operation)) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whoever had the lock may have removed or replaced the folder: then this lock is worth nothing.
    fn is_still(&self, dir: &Path) -> bool {
        Identity::of(dir).is_ok_and(|identity| identity == self.identity)
    }

    /// Which folder is locked.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The folder, open.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Marks a file as one that this process writes to, beside others that do, until it is closed. Does not wait: `false` if
/// the file cannot be marked.
pub fn mark_written(file: &File) -> bool {
    const TRIES: u32 = 50;
    // Whoever looks at the mark has the lock for a moment.
    (0..TRIES).any(|tries| {
        if tries > 0 {
            thread::sleep(Duration::from_millis(2));
        }
        flock(file, FlockOperation::NonBlockingLockShared).is_ok()
    })
}

/// Whether there is a process that has [marked](mark_written) a file.
pub fn is_written(file: &File) -> io::Result<bool> {
    match retry_on_intr(|| flock(file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Ok(flock(file, FlockOperation::Unlock).map(|()| false)?),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::mpsc;

    use super::*;

    fn never() {
        panic!("nobody else has the lock");
    }

    #[test]
    fn one_or_several_readers() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let one = Lock::acquire(dir, &never).unwrap();
        assert_eq!(one.identity(), Identity::of(dir).unwrap());
        assert!(Lock::try_acquire(dir).unwrap().is_none());
        drop(one);
        let readers = [(); 2].map(|()| Lock::acquire_shared(dir, &never).unwrap());
        assert!(Lock::try_acquire(dir).unwrap().is_none());
        drop(readers);
        assert!(Lock::try_acquire(dir).unwrap().is_some());
    }

    #[test]
    fn a_folder_is_the_same_by_every_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("a")).unwrap();
        fs::create_dir(path("b")).unwrap();
        symlink("a", path("link")).unwrap();
        let lock = Lock::acquire(&path("a"), &never).unwrap();
        for (name, same) in [("a", true), ("link", true), ("b/../a/.", true), ("b", false)] {
            assert_eq!(Identity::of(&path(name)).unwrap() == lock.identity(), same, "{name}");
        }
        assert!(Lock::try_acquire(&path("link")).unwrap().is_none());
    }

    #[test]
    fn what_is_no_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        rustix::fs::mkfifoat(CWD, path("fifo"), Mode::RWXU).unwrap();
        for (name, want) in [("fifo", io::ErrorKind::NotADirectory), ("none", io::ErrorKind::NotFound)] {
            assert_eq!(Lock::acquire(&path(name), &never).unwrap_err().kind(), want, "{name}");
            assert_eq!(Lock::try_acquire(&path(name)).unwrap_err().kind(), want, "{name}");
        }
    }

    #[test]
    fn a_folder_that_was_replaced_is_locked_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layout");
        fs::create_dir(&path).unwrap();
        let first = Lock::acquire(&path, &never).unwrap();
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            let second = scope.spawn(|| Lock::acquire(&path, &move || tell.send(()).unwrap()).unwrap());
            told.recv().unwrap();
            fs::rename(&path, dir.path().join("old")).unwrap();
            fs::create_dir(&path).unwrap();
            drop(first);
            assert_eq!(second.join().unwrap().identity(), Identity::of(&path).unwrap());
        });
    }

    #[test]
    fn a_file_is_written_as_long_as_one_has_it_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let writers = [File::create(&path).unwrap(), File::create(&path).unwrap()];
        let reader = File::open(&path).unwrap();
        assert!(!is_written(&reader).unwrap());
        for writer in &writers {
            assert!(mark_written(writer));
        }
        for writer in writers {
            assert!(is_written(&reader).unwrap());
            drop(writer);
        }
        assert!(!is_written(&reader).unwrap());
        let other = File::open(&path).unwrap();
        flock(&other, FlockOperation::LockExclusive).unwrap();
        assert!(!mark_written(&reader), "somebody else keeps it");
    }
}
