//! Removal of whole trees.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fchmod, openat, statat, unlinkat};
use rustix::io::Errno;

use crate::own::change_mode;
use crate::trail::{Trail, split_leaf};
use crate::walk::Lister;

/// Removes what is at `path` with all that is in it. That there is nothing is no error.
///
/// However deep it is, no more directories are open at a time than a [`Trail`] keeps open, and no symlink is followed but
/// those on the way to `path`. Directories below that may not be listed or written to are made so that they may.
pub fn remove_all(path: &Path) -> io::Result<()> {
    let (Some(above), Some(leaf)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::InvalidInput.into());
    };
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let above = openat(CWD, above, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    match above {
        Err(Errno::NOENT) => Ok(()),
        above => remove_all_in(above?, leaf),
    }
}

/// The same by its name in a directory that is open.
pub fn remove_all_in(above: OwnedFd, name: &OsStr) -> io::Result<()> {
    let mut trail = Trail::listing(above);
    match remove(&mut trail, name.as_bytes()) {
        Ok(()) | Err(Failed { errno: Errno::NOENT, .. }) => Ok(()),
        // Whoever calls it names the whole.
        Err(Failed { errno, .. }) if trail.path().is_empty() => Err(errno.into()),
        Err(Failed { errno, leaf }) => {
            let slash: &[u8] = if leaf.is_empty() { b"" } else { b"/" };
            let path = [trail.path(), slash, &leaf].concat();
            let (source, path) = (io::Error::from(errno), String::from_utf8_lossy(&path));
            Err(io::Error::new(source.kind(), format!("`{path}`: {source}")))
        }
    }
}

/// Why something in the directory where the work is could not be removed: its name, or none if it was the directory's fault.
struct Failed {
    errno: Errno,
    leaf: Vec<u8>,
}

impl Failed {
    fn at(leaf: &[u8]) -> impl Fn(Errno) -> Self {
        move |errno| Self { errno, leaf: leaf.to_vec() }
    }
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        Self { errno, leaf: Vec::new() }
    }
}

fn remove(trail: &mut Trail, leaf: &[u8]) -> Result<(), Failed> {
    let above = trail.current()?.0;
    let stat = statat(above, leaf, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Ok(unlinkat(above, leaf, AtFlags::empty())?);
    }
    let mut lister = Lister::default();
    // Of each directory on the way, those in it that are still to be removed.
    let mut left = vec![vec![leaf.to_vec()]];
    while let Some(dirs) = left.last_mut() {
        if let Some(name) = dirs.pop() {
            match trail.enter(&name) {
                Err(Errno::ACCESS) => {
                    change_mode(trail.current()?.0, &name, Mode::RWXU).map_err(Failed::at(&name))?;
                    trail.enter(&name).map_err(Failed::at(&name))?;
                }
                entered => entered.map_err(Failed::at(&name))?,
            }
            left.push(remove_files(trail.current()?.0, &mut lister)?);
        } else {
            left.pop();
            let path = trail.path().to_vec();
            if !path.is_empty() {
                trail.leave();
                let leaf = split_leaf(&path).1;
                unlink(trail.current()?.0, leaf, AtFlags::REMOVEDIR).map_err(Failed::at(leaf))?;
            }
        }
    }
    Ok(())
}

/// Removes all that is in `dir` but directories; gives their names.
fn remove_files(dir: BorrowedFd<'_>, lister: &mut Lister) -> Result<Vec<Vec<u8>>, Failed> {
    let mut listing = lister.list(dir)?;
    let mut dirs = Vec::new();
    while let Some((name, file_type)) = listing.next() {
        if file_type == FileType::Directory {
            dirs.push(name.to_vec());
        } else {
            unlink(dir, name, AtFlags::empty()).map_err(Failed::at(name))?;
        }
    }
    lister.recycle(Some(listing));
    Ok(dirs)
}

fn unlink(dir: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> rustix::io::Result<()> {
    match unlinkat(dir, name, flags) {
        // The directory above all is open only as a way, and so keeps its permissions.
        Err(Errno::ACCESS) if fchmod(dir, Mode::RWXU).is_ok() => unlinkat(dir, name, flags),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn removes_whatever_there_is_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("kept/in")).unwrap();
        fs::write(path("file"), "").unwrap();
        symlink("kept", path("link")).unwrap();
        fs::create_dir_all(path("tree/a/b")).unwrap();
        fs::create_dir_all(path("tree/c")).unwrap();
        fs::write(path("tree/a/f"), "").unwrap();
        symlink("../../kept", path("tree/a/link")).unwrap();
        for name in ["missing", "missing/below", "file", "link", "tree", "tree"] {
            remove_all(&path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert!(path("kept/in").is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(remove_all(Path::new("/")).is_err());
    }

    /// For root, permissions mean nothing: then this is one more tree.
    #[test]
    fn permissions_within_the_tree_are_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        for file in ["f", "a/f", "a/b/f"] {
            fs::write(tree.join(file), "").unwrap();
        }
        for (path, mode) in [("a/b", 0o555), ("a", 0), ("", 0o555)] {
            fs::set_permissions(tree.join(path), Permissions::from_mode(mode)).unwrap();
        }
        remove_all(&tree).unwrap();
        assert!(!tree.exists());
    }

    /// Deeper than any limit on open files that a process usually has.
    #[test]
    fn removes_at_any_depth() {
        let dir = tempfile::tempdir().unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut trail = Trail::reaching(openat(CWD, dir.path(), flags, Mode::empty()).unwrap());
        for _ in 0..5000 {
            rustix::fs::mkdirat(trail.current().unwrap().0, "deep", Mode::RWXU).unwrap();
            trail.enter(b"deep").unwrap();
        }
        remove_all(&dir.path().join("deep")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
