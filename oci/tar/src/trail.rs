//! A way down a directory tree by handles: one directory opened from the other, never through a symlink.
//!
//! Files are then opened relative to the directory that holds them, so that the kernel looks up one name per file, no
//! path is too long, and nothing that is exchanged on the way leads out of the tree. However deep the tree is, at most
//! [`MAX_OPEN`] handles are open; those above are closed, and opened again when the way leads back up.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Result, fcntl_dupfd_cloexec};

/// Handles that one trail keeps open, besides its root's.
const MAX_OPEN: usize = 64;

/// Where we are: a directory below a root.
#[derive(Debug)]
pub struct Trail {
    root: OwnedFd,
    flags: OFlags,
    /// Names of the directories from the root down, joined with slashes.
    path: Vec<u8>,
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    /// Of this directory's name in the path.
    end: usize,
    /// None while it is closed; open ones are always the deepest.
    handle: Option<OwnedFd>,
}

impl Trail {
    /// At `root`, for listing directories.
    pub fn listing(root: OwnedFd) -> Self {
        Self::new(root, OFlags::RDONLY)
    }

    /// At `root`, for reaching what is in directories, readable or not; they cannot be listed.
    pub fn reaching(root: OwnedFd) -> Self {
        Self::new(root, OFlags::PATH)
    }

    fn new(root: OwnedFd, access: OFlags) -> Self {
        let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Self { root, flags, path: Vec::new(), levels: Vec::new() }
    }

    /// Another trail of the same kind, at the same root.
    pub(crate) fn another(&self) -> Result<Self> {
        let root = fcntl_dupfd_cloexec(&self.root, 0)?;
        Ok(Self { root, flags: self.flags, path: Vec::new(), levels: Vec::new() })
    }

    /// The current directory's path from the root; empty at the root.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The current directory and its path.
    pub fn current(&mut self) -> Result<(BorrowedFd<'_>, &[u8])> {
        if self.levels.last().is_some_and(|level| level.handle.is_none()) {
            self.reopen()?;
        }
        let dir = match self.levels.last() {
            Some(level) => level.handle.as_ref().expect("was opened above").as_fd(),
            None => self.root.as_fd(),
        };
        Ok((dir, &self.path))
    }

    /// Goes down into the directory `name`. An error (not a directory, a symlink, …) leaves the trail where it is.
    pub fn enter(&mut self, name: &[u8]) -> Result<()> {
        let flags = self.flags;
        let handle = openat(self.current()?.0, name, flags, Mode::empty())?;
        if !self.levels.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        self.levels.push(Level { end: self.path.len(), handle: Some(handle) });
        if let Some(far) = self.levels.len().checked_sub(MAX_OPEN + 1) {
            self.levels[far].handle = None;
        }
        Ok(())
    }

    /// Goes up by one; at the root, stays there.
    pub fn leave(&mut self) {
        self.levels.pop();
        self.path.truncate(self.levels.last().map_or(0, |level| level.end));
    }

    /// Goes to the directory `path` (names joined with single slashes, empty for the root), keeping the handles of
    /// those that are on both ways. After an error the trail is at the last directory that could be entered.
    pub fn go_to(&mut self, path: &[u8]) -> Result<()> {
        while !is_at_or_below(path, &self.path) {
            self.leave();
        }
        let rest = &path[self.path.len()..];
        for name in rest.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            self.enter(name)?;
        }
        Ok(())
    }

    /// Opens the current directory's way again, down from the root.
    fn reopen(&mut self) -> Result<()> {
        let first_kept = self.levels.len().saturating_sub(MAX_OPEN);
        let mut start = 0;
        let mut passed: Option<OwnedFd> = None;
        for index in 0..self.levels.len() {
            let name = &self.path[start..self.levels[index].end];
            let above = match (&passed, index.checked_sub(1)) {
                (Some(passed), _) => passed.as_fd(),
                (None, None) => self.root.as_fd(),
                (None, Some(above)) => self.levels[above].handle.as_ref().expect("was opened before").as_fd(),
            };
            let handle = openat(above, name, self.flags, Mode::empty())?;
            if index < first_kept {
                passed = Some(handle);
            } else {
                passed = None;
                self.levels[index].handle = Some(handle);
            }
            start = self.levels[index].end + 1;
        }
        Ok(())
    }
}

/// Whether `path` is `dir` or below it, both as names joined with slashes.
pub(crate) fn is_at_or_below(path: &[u8], dir: &[u8]) -> bool {
    match path.strip_prefix(dir) {
        Some(rest) => dir.is_empty() || rest.is_empty() || rest[0] == b'/',
        None => false,
    }
}

/// The path of the directory that holds `path`, and the name in it.
pub fn split_leaf(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use rustix::fs::{CWD, statat};

    use super::*;

    fn open(path: &Path) -> OwnedFd {
        openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    fn has(trail: &mut Trail, name: &str) -> bool {
        statat(trail.current().unwrap().0, name, rustix::fs::AtFlags::empty()).is_ok()
    }

    #[test]
    fn goes_where_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/b/c", "a-b/c", "ab"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
            fs::write(dir.path().join(path).join(path.replace('/', "_")), "").unwrap();
        }
        let mut trail = Trail::reaching(open(dir.path()));
        for path in ["a/b/c", "ab", "a-b/c", "a/b/c"] {
            trail.go_to(path.as_bytes()).unwrap();
            assert_eq!(trail.path(), path.as_bytes());
            assert!(has(&mut trail, &path.replace('/', "_")), "{path}");
        }
        trail.go_to(b"").unwrap();
        assert!(has(&mut trail, "a-b"));
    }

    #[test]
    fn follows_no_symlink() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        for mut trail in [Trail::reaching(open(dir.path())), Trail::listing(open(dir.path()))] {
            assert!(trail.enter(b"link").is_err());
            assert_eq!(trail.path(), b"");
            trail.enter(b"real").unwrap();
        }
    }

    #[test]
    fn comes_back_from_any_depth() {
        let dir = tempfile::tempdir().unwrap();
        let depth = 3 * MAX_OPEN + 5;
        let mut trail = Trail::listing(open(dir.path()));
        for level in 0..depth {
            let name = format!("level {level}");
            rustix::fs::mkdirat(trail.current().unwrap().0, name.as_str(), Mode::RWXU).unwrap();
            trail.enter(name.as_bytes()).unwrap();
            assert!(trail.levels.iter().filter(|level| level.handle.is_some()).count() <= MAX_OPEN);
        }
        for level in (0..depth).rev() {
            trail.leave();
            assert!(has(&mut trail, &format!("level {level}")), "{level}");
            assert!(trail.levels.iter().filter(|level| level.handle.is_some()).count() <= MAX_OPEN);
        }
        assert_eq!(trail.path(), b"");
    }
}
