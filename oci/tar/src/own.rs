//! What is changed of files that others may exchange meanwhile: the owner of whole trees, the mode of one file.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, fchmod, fchown, fstat, openat,
};

use crate::entry::Owner;
use crate::walk::{Found, Walk};

/// Gives a directory and all that is in it to `owner`: symlinks themselves, which are never followed; of what is no
/// directory, only what `is_given` says.
pub fn give_all(dir: impl AsFd, owner: Owner, is_given: &dyn Fn(&Stat) -> bool) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
    fchown(&dir, uid, gid)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = openat(&dir, ".", flags, Mode::empty())?;
    let mut walk = Walk::new(Path::new(""), listed).map_err(io::Error::other)?;
    while let Some(Found { dir, leaf, file_type, .. }) = walk.find_next().map_err(io::Error::other)? {
        if file_type == FileType::Directory {
            fchown(dir, uid, gid)?;
            continue;
        }
        // Looked at and given by one handle: the name may lead to something else at any time.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(dir, leaf, flags, Mode::empty())?;
        if is_given(&fstat(&file)?) {
            chownat(&file, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
    }
    Ok(())
}

/// Sets the mode of what has a name in `dir`, by a handle: the name may by now be that of a symlink, which is never followed.
pub fn change_mode(dir: impl AsFd, name: &[u8], mode: Mode) -> rustix::io::Result<()> {
    let open = |flags| openat(&dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    if let Ok(folder) = open(OFlags::RDONLY | OFlags::DIRECTORY) {
        return fchmod(folder, mode);
    }
    // Devices, and what may not be read, are not opened for more than this.
    let file = open(OFlags::PATH)?;
    chmodat(CWD, format!("/proc/self/fd/{}", file.as_raw_fd()), mode, AtFlags::empty())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use rustix::process::{Resource, Rlimit, getegid, geteuid, getgid, getrlimit, getuid, setrlimit};

    use super::*;

    /// To the superuser anybody will do; others can give to themselves only.
    fn owner() -> Owner {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        if uid == 0 { Owner { uid: 1234, gid: 2345 } } else { Owner { uid, gid } }
    }

    #[test]
    fn all_is_given_but_what_links_lead_to() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        fs::create_dir_all(path("tree/a/b")).unwrap();
        for name in ["outside", "tree/a/file", "tree/a/kept"] {
            fs::write(path(name), name).unwrap();
        }
        symlink("../../outside", path("tree/a/link")).unwrap();
        let kept = fs::metadata(path("tree/a/kept")).unwrap().ino();
        give_all(File::open(path("tree")).unwrap(), owner(), &|facts| facts.st_ino != kept).unwrap();
        let ids = |name: &str| {
            let facts = fs::symlink_metadata(path(name)).unwrap();
            Owner { uid: facts.uid(), gid: facts.gid() }
        };
        let me = Owner { uid: getuid().as_raw(), gid: getgid().as_raw() };
        for (name, want) in [
            ("tree", owner()),
            ("tree/a/b", owner()),
            ("tree/a/file", owner()),
            ("tree/a/link", owner()),
            ("tree/a/kept", me),
            ("outside", me),
        ] {
            assert_eq!(ids(name), want, "{name}");
        }
    }

    #[test]
    fn modes_are_changed_of_what_has_the_name() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        fs::create_dir(path("folder")).unwrap();
        fs::write(path("file"), "").unwrap();
        rustix::fs::mkfifoat(CWD, path("fifo"), Mode::empty()).unwrap();
        let mode = |name: &str| fs::metadata(path(name)).unwrap().mode() & 0o7777;
        let dir = File::open(temp.path()).unwrap();
        for name in ["folder", "file", "fifo"] {
            // The second time it may not be read.
            for wanted in [0o4111, 0o751] {
                change_mode(&dir, name.as_bytes(), Mode::from_raw_mode(wanted)).unwrap();
                assert_eq!(mode(name), wanted, "{name}");
            }
            symlink(name, path("link")).unwrap();
            // Some file systems let links have modes of their own.
            let _ = change_mode(&dir, b"link", Mode::from_raw_mode(0o4777));
            assert_eq!(mode(name), 0o751, "{name}");
            fs::remove_file(path("link")).unwrap();
        }
    }

    /// Deeper than there may be handles.
    #[test]
    fn folders_of_any_depth_are_given_away() {
        let temp = tempfile::tempdir().unwrap();
        let mut dir = File::open(temp.path()).unwrap();
        for _ in 0..2000 {
            rustix::fs::mkdirat(&dir, "deep", Mode::RWXU).unwrap();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            dir = File::from(openat(&dir, "deep", flags, Mode::empty()).unwrap());
        }
        let limit = |current| {
            let limit = getrlimit(Resource::Nofile);
            setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
            limit.current
        };
        let top = File::open(temp.path()).unwrap();
        let before = limit(Some(256));
        let given = give_all(top, owner(), &|_| true);
        limit(before);
        given.unwrap();
        crate::remove_all(&temp.path().join("deep")).unwrap();
    }
}
