//! A way down a directory tree by handles: one directory opened from the other, never through a symlink.
//!
//! Files are then opened relative to the directory that holds them, so that the kernel looks up one name per file, no
//! path is too long, and nothing that is exchanged on the way leads out of the tree. However deep the tree is, at most
//! [`MAX_OPEN`] handles are open; those above are closed, and opened again when the way leads back up.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::{Errno, Result, fcntl_dupfd_cloexec};

/// Handles that one trail keeps open, besides its root's.
const MAX_OPEN: usize = 64;

/// Directories that are opened one by one on a long way; those before are passed in one system call.
const NEAR: usize = 8;

/// Bytes that a system call takes as a path, with the NUL at its end.
const PATH_MAX: usize = 4096;

/// Where we are: a directory below a root.
#[derive(Debug)]
pub struct Trail {
    root: OwnedFd,
    flags: OFlags,
    /// Names of the directories from the root down, joined with slashes.
    path: Vec<u8>,
    levels: Vec<Level>,
    /// How often a directory was opened.
    #[cfg(test)]
    opened: std::cell::Cell<usize>,
}

#[derive(Debug)]
struct Level {
    /// Of this directory's name in the path.
    end: usize,
    /// None while it is closed, as it is for all but the deepest.
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
        Self {
            root,
            flags,
            path: Vec::new(),
            levels: Vec::new(),
            #[cfg(test)]
            opened: std::cell::Cell::default(),
        }
    }

    /// Another trail of the same kind, at the same root.
    pub(crate) fn another(&self) -> Result<Self> {
        let root = fcntl_dupfd_cloexec(&self.root, 0)?;
        Ok(Self::new(root, self.flags))
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
        self.append(name, Some(handle));
        Ok(())
    }

    /// Goes up by one; at the root, stays there.
    pub fn leave(&mut self) {
        self.levels.pop();
        self.path.truncate(self.levels.last().map_or(0, |level| level.end));
    }

    /// Goes to the directory `path` (names joined with single slashes, none of them `..`; empty for the root), keeping the
    /// handles of those that are on both ways. After an error the trail is at the last directory on both ways.
    pub fn go_to(&mut self, path: &[u8]) -> Result<()> {
        while !is_at_or_below(path, &self.path) {
            self.leave();
        }
        let (depth, length) = (self.levels.len(), self.path.len());
        let rest = &path[length..];
        for name in rest.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            self.append(name, None);
        }
        let reached = self.current().map(drop);
        if reached.is_err() {
            self.levels.truncate(depth);
            self.path.truncate(length);
        }
        reached
    }

    fn append(&mut self, name: &[u8], handle: Option<OwnedFd>) {
        if !self.levels.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        self.levels.push(Level { end: self.path.len(), handle });
        if let Some(far) = self.levels.len().checked_sub(MAX_OPEN + 1) {
            self.levels[far].handle = None;
        }
    }

    /// Opens the current directory and some of those above it, from the nearest that is open.
    fn reopen(&mut self) -> Result<()> {
        let mut next =
            self.levels.iter().rposition(|level| level.handle.is_some()).map_or(0, |index| index + 1);
        let first_kept = self.levels.len().saturating_sub(NEAR);
        let mut passed: Option<OwnedFd> = None;
        while next < self.levels.len() {
            let last = if next < first_kept { self.end_of_stretch(next, first_kept - 1) } else { next };
            let handle = match self.open(passed.as_ref(), next, last) {
                Ok(handle) => handle,
                // Before Linux 5.6, or where a filter of system calls does not know this one.
                Err(Errno::NOSYS | Errno::PERM) if last > next => {
                    let mut handle = self.open(passed.as_ref(), next, next)?;
                    for index in next + 1..=last {
                        handle = self.open(Some(&handle), index, index)?;
                    }
                    handle
                }
                Err(error) => return Err(error),
            };
            if last < first_kept {
                passed = Some(handle);
            } else {
                passed = None;
                self.levels[last].handle = Some(handle);
            }
            next = last + 1;
        }
        Ok(())
    }

    /// The last level, at most `until`, to which the path from `next` on is no longer than a system call takes.
    fn end_of_stretch(&self, next: usize, until: usize) -> usize {
        let start = self.start(next);
        let fitting = self.levels[next..=until].partition_point(|level| level.end - start < PATH_MAX);
        next + fitting.max(1) - 1
    }

    /// Where the name of a level begins in the path.
    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |above| self.levels[above].end + 1)
    }

    /// Opens the directory of the level `last`, from `above` or else from the handle of the level above `first`.
    fn open(&self, above: Option<&OwnedFd>, first: usize, last: usize) -> Result<OwnedFd> {
        let above = match (above, first.checked_sub(1)) {
            (Some(above), _) => above,
            (None, None) => &self.root,
            (None, Some(above)) => self.levels[above].handle.as_ref().expect("was opened before"),
        };
        let names = &self.path[self.start(first)..self.levels[last].end];
        #[cfg(test)]
        self.opened.set(self.opened.get() + 1);
        if first == last {
            return openat(above, names, self.flags, Mode::empty());
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(above, names, self.flags, Mode::empty(), resolve)
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

    /// Two chains of directories, as deep as is asked for; their paths.
    fn two_chains(root: &Path, depth: usize) -> [Vec<u8>; 2] {
        ["a", "b"].map(|name| {
            let mut trail = Trail::reaching(open(root));
            for _ in 0..depth {
                rustix::fs::mkdirat(trail.current().unwrap().0, name, Mode::RWXU).unwrap();
                trail.enter(name.as_bytes()).unwrap();
            }
            rustix::fs::mkdirat(trail.current().unwrap().0, "end", Mode::RWXU).unwrap();
            trail.path
        })
    }

    #[test]
    fn a_long_way_is_few_steps() {
        for depth in [5, 100, 2_000, 5_000] {
            let dir = tempfile::tempdir().unwrap();
            let chains = two_chains(dir.path(), depth);
            let mut trail = Trail::reaching(open(dir.path()));
            for chain in chains.iter().cycle().take(10) {
                trail.go_to(chain).unwrap();
                assert!(has(&mut trail, "end"));
            }
            let (opened, most) = (trail.opened.take(), 10 * (NEAR + 3));
            assert!(opened <= most, "{depth}: {opened}, not {most}");
            // All the way up: each is opened once, and a few on the way to some.
            while !trail.path().is_empty() {
                trail.current().unwrap();
                trail.leave();
            }
            let (opened, most) = (trail.opened.get(), depth + 3 * (depth / NEAR + 1));
            assert!(opened <= most, "{depth}: {opened}, not {most}");
        }
    }

    #[test]
    fn a_long_way_follows_no_symlink() {
        let dir = tempfile::tempdir().unwrap();
        let [chain, _] = two_chains(dir.path(), 100);
        let link = dir.path().join("a/a/link");
        symlink("a", &link).unwrap();
        fs::write(dir.path().join("a/file"), "").unwrap();
        let through = |name: &[u8]| [b"a/", name, b"/", &chain[6..]].concat();
        let mut trail = Trail::reaching(open(dir.path()));
        for (path, want) in [
            (through(b"a/link"), &[Errno::LOOP, Errno::NOTDIR][..]),
            (through(b"file"), &[Errno::NOTDIR]),
            (through(b"missing"), &[Errno::NOENT]),
            ([&chain[..], b"/missing"].concat(), &[Errno::NOENT]),
        ] {
            assert!(want.contains(&trail.go_to(&path).unwrap_err()), "{}", String::from_utf8_lossy(&path));
            trail.go_to(b"a").unwrap();
            assert!(has(&mut trail, "file"));
        }
    }
}
