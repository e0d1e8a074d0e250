//! A folder that no path leads out of: links and `..` in paths are followed as if it were the root of the file system.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use drydock_tar::{Trail, split_leaf};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::io::Errno;

/// Links that a path may lead over.
const MAX_LINKS: usize = 40;

/// Bytes that a path may have, as the kernel has it: each name in it is looked up anew for each file.
const MAX_PATH: usize = 4096;

/// The folder.
#[derive(Debug)]
pub(super) struct Scope {
    trail: Trail,
    /// What messages have before a path in it.
    name: PathBuf,
}

impl Scope {
    /// The root of an image: messages have paths as they are there.
    pub(super) fn open(path: &Path) -> Result<Self> {
        Self::open_as(path, Path::new("/"))
    }

    /// A folder of which messages have whole paths.
    pub(super) fn of_folder(path: &Path) -> Result<Self> {
        Self::open_as(path, path)
    }

    fn open_as(path: &Path, name: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, path, flags, Mode::empty());
        let dir = dir.with_context(|| format!("cannot open `{}`", path.display()))?;
        Ok(Self { trail: Trail::reaching(dir), name: name.to_owned() })
    }

    /// Where a path leads: names joined with slashes, none of them a link when they were looked at, unless the last one is not to be
    /// followed. From the first name on that is not there, the path is as it was given.
    pub(super) fn resolve(&mut self, path: &[u8], follows_last: bool) -> Result<Vec<u8>> {
        let resolved = self.follow(path, follows_last);
        resolved.with_context(|| self.told("cannot find", path))
    }

    fn follow(&mut self, path: &[u8], follows_last: bool) -> Result<Vec<u8>> {
        let mut resolved: Vec<u8> = Vec::new();
        let mut left: Vec<Vec<u8>> = names(path).rev().map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(name) = left.pop() {
            if resolved.len() + name.len() > MAX_PATH {
                return Err(Errno::NAMETOOLONG.into());
            }
            if name == b".." {
                let end = resolved.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                resolved.truncate(end);
                continue;
            }
            let target = if left.is_empty() && !follows_last {
                None
            } else {
                let found =
                    self.dir(&resolved).and_then(|dir| Ok(readlinkat(dir, name.as_slice(), Vec::new())?));
                match found.as_ref().map_err(Errno::from_io_error) {
                    // No link, or nothing.
                    Err(Some(Errno::INVAL | Errno::NOENT | Errno::NOTDIR)) => None,
                    _ => Some(
                        found
                            .with_context(|| self.told("cannot look at", &join(&resolved, &name)))?
                            .into_bytes(),
                    ),
                }
            };
            match target {
                Some(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    if target.starts_with(b"/") {
                        resolved.clear();
                    }
                    left.extend(names(&target).rev().map(<[u8]>::to_vec));
                }
                None => push(&mut resolved, &name),
            }
        }
        Ok(resolved)
    }

    /// What is at a path that was resolved, itself not followed.
    pub(super) fn stat(&mut self, path: &[u8]) -> Result<Option<Stat>> {
        let (parent, leaf) = split_leaf(path);
        let leaf = if leaf.is_empty() { b"." } else { leaf };
        let found = self.dir(parent).and_then(|dir| Ok(statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW)?));
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NOTDIR) => Ok(None),
                _ => Err(error).with_context(|| self.told("cannot look at", path)),
            },
        }
    }

    /// The folder at a path that was resolved. A link that has come there since is an error.
    pub(super) fn dir(&mut self, path: &[u8]) -> io::Result<BorrowedFd<'_>> {
        self.trail.go_to(path)?;
        Ok(self.trail.current()?.0)
    }

    /// The same, for reading the names in it.
    pub(super) fn list(&mut self, path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = self.dir(path).and_then(|dir| Ok(openat(dir, c".", flags, Mode::empty())?));
        opened.with_context(|| self.told("cannot list", path))
    }

    /// For messages: what was done to the path.
    pub(super) fn told(&self, done: &str, path: &[u8]) -> String {
        let below = String::from_utf8_lossy(path);
        let whole = self.name.join(below.trim_start_matches('/'));
        format!("{done} `{:.500}`", whole.to_string_lossy())
    }
}

/// The names in a path, without those that mean nothing.
pub(super) fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b"."))
}

/// Adds a name to a path.
pub(super) fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() && !name.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// A path with another below it.
pub(super) fn join(path: &[u8], below: &[u8]) -> Vec<u8> {
    let mut joined = path.to_vec();
    push(&mut joined, below);
    joined
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_leads_out() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        fs::create_dir_all(path("usr/lib")).unwrap();
        fs::write(path("file"), "").unwrap();
        for (target, name) in [
            ("usr/lib", "lib"),
            ("/usr", "abs"),
            ("../../../..", "out"),
            ("/etc/passwd", "passwd"),
            ("loop", "loop"),
            ("../file", "usr/up"),
            ("missing/x", "dangling"),
        ] {
            symlink(target, path(name)).unwrap();
        }
        let mut scope = Scope::open(temp.path()).unwrap();
        for (given, want) in [
            ("", ""),
            ("/", ""),
            ("a/b", "a/b"),
            ("/lib/x", "usr/lib/x"),
            ("abs/lib/../y", "usr/y"),
            ("out/usr", "usr"),
            ("../../etc", "etc"),
            ("passwd", "etc/passwd"),
            ("usr/up", "file"),
            ("file/x", "file/x"),
            ("dangling/y", "missing/x/y"),
            ("a/../../b/.", "b"),
        ] {
            let found = scope.resolve(given.as_bytes(), true).unwrap();
            assert_eq!(String::from_utf8(found).unwrap(), want, "{given}");
        }
        assert_eq!(scope.resolve(b"lib", false).unwrap(), b"lib");
        assert!(scope.resolve(b"loop", true).is_err());
        assert!(scope.dir(b"lib").is_err());
        scope.dir(b"usr/lib").unwrap();
    }
}
