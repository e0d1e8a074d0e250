//! The outline of a directory with all that is in it, drawn by several threads: what is below each directory is drawn by itself.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, openat};
use rustix::io::Errno;

use drydock_tar::{Owner, TarError, list};

use super::Outline;
use super::dir::go_below;
use super::files::Files;
use super::root::LayerRoot;
use crate::threads::share;

/// So deep, threads share directories, and as many are open for each; one walks through what is further down.
const SHARED: usize = 12;
/// So many entries of a directory are shared at a time, so that the outlines of directories without number need no memory without end.
const AT_ONCE: usize = 1024;

/// Looks at everything at `root`: the outline that is drawn when it is written.
pub(super) fn look_at(root: &LayerRoot, owner: Owner) -> Result<Outline, TarError> {
    let handle = root.open()?;
    let mut files = Files::begin(root, handle.as_ref().map(|handle| handle.as_fd()), owner, None)?;
    if let Some(handle) = handle {
        files.add_open_root(handle.as_fd(), false)?;
        look_below(files, root, owner, handle, SHARED)
    } else {
        files.add_root()?;
        files.end()
    }
}

/// Goes on with what is in the directory at `root`, which is open as `handle`.
fn look_below(
    mut files: Files<'_, '_>,
    root: &LayerRoot,
    owner: Owner,
    handle: OwnedFd,
    shared: usize,
) -> Result<Outline, TarError> {
    if shared == 0 {
        return go_below(files, root, handle);
    }
    let listing = list(handle.as_fd()).map_err(TarError::read("list", &root.dir))?;
    let entries: Vec<_> = listing.entries().collect();
    let (dir, blank) = (handle.as_fd(), files.outliner_below());
    for entries in entries.chunks(AT_ONCE) {
        let dirs: Vec<_> =
            entries.iter().filter(|(_, file_type)| *file_type == FileType::Directory).collect();
        let below = share(&dirs, |(leaf, _)| {
            let root = root.below(leaf);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let handle = openat(dir, *leaf, flags, Mode::empty()).map_err(|error| match error {
                Errno::NOTDIR | Errno::LOOP => TarError::Changed(root.dir.clone()),
                error => TarError::read("open", &root.dir)(error),
            })?;
            let mut files = Files::to_look_at(&root, owner, blank.clone());
            files.add_open_root(handle.as_fd(), true)?;
            look_below(files, &root, owner, handle, shared - 1)
        });
        let mut below = below.into_iter();
        for (leaf, file_type) in entries {
            if *file_type != FileType::Directory {
                files.add(dir, b"", leaf, *file_type)?;
            } else if let Some(below) = below.next() {
                files.add_below(&below?);
            }
        }
    }
    files.end()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::num::NonZeroUsize;

    use super::*;
    use crate::layer_tar::dir::go_through;
    use crate::layer_tar::testing::{Make, USER, make};
    use crate::threads::shared;

    /// Deeper than threads share directories, and with more in one than are shared at a time.
    #[test]
    fn outlines_are_those_of_one_thread() {
        let here = std::env::current_exe().unwrap();
        let dir = tempfile::tempdir_in(here.parent().unwrap()).unwrap();
        let deep = (0..SHARED + 5).map(|n| n.to_string()).collect::<Vec<_>>().join("/");
        make(dir.path(), &[(&format!("deep/{deep}/file"), Make::File(0o644, b"x"))]);
        for n in 0..AT_ONCE + 20 {
            fs::create_dir(dir.path().join(format!("{n}"))).unwrap();
            fs::write(dir.path().join(format!("{n}-file")), "").unwrap();
        }
        let root = LayerRoot::on_disk(dir.path()).unwrap();
        let outline = go_through(&root, USER, None).unwrap();
        assert_eq!(look_at(&root, USER).unwrap(), outline);
        assert_eq!(shared(NonZeroUsize::new(4).unwrap(), || look_at(&root, USER)).unwrap(), outline);
        assert!(outline.tree.is_some(), "tests are built on a disk");
        fs::write(dir.path().join(format!("deep/{deep}/other")), "").unwrap();
        assert_ne!(outline.shape, look_at(&root, USER).unwrap().shape);
    }
}
