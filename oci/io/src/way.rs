//! The way to a folder that root works in, where others may have put links: root follows its own, and no others.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, mkdirat, openat, readlinkat};
use rustix::io::Errno;

/// Which links are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Those of root: nobody else can have made them.
    OfRoot,
    /// None.
    None,
}

/// So many links on one way are a circle.
const MAX_LINKS: usize = 40;

/// Opens the folder at `path`, which begins at `from` unless it is absolute. What is missing of it is made if `made_for` says
/// whose it is to be (user and group): mode 0755, whatever the umask.
///
/// A link that is not followed is [`Errno::LOOP`]. Folders and links that are exchanged on the way lead nowhere else: each is
/// looked at by the handle by which it is used.
pub fn open(
    from: impl AsFd,
    path: &Path,
    links: Links,
    made_for: Option<(u32, u32)>,
) -> rustix::io::Result<File> {
    let mut dir = open_dir(from, ".", OFlags::PATH)?;
    let mut rest = path.to_owned();
    let mut followed = 0;
    loop {
        let mut components = rest.components();
        let name = match components.next() {
            Some(Component::RootDir) => {
                dir = open_dir(CWD, "/", OFlags::PATH)?;
                rest = components.as_path().to_owned();
                continue;
            }
            Some(Component::Normal(name)) => OsString::from(name),
            Some(Component::ParentDir) => "..".into(),
            Some(_) => ".".into(),
            None => return Ok(open_dir(dir, ".", OFlags::RDONLY)?.into()),
        };
        let below = components.as_path().to_owned();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match (openat(&dir, &name, flags, Mode::empty()), made_for) {
            (Err(Errno::NOENT), Some(owner)) => make(&dir, &name, owner)?,
            (found, _) => found?,
        };
        let facts = fstat(&found)?;
        match FileType::from_raw_mode(facts.st_mode) {
            FileType::Directory => (dir, rest) = (found, below),
            FileType::Symlink if links == Links::OfRoot && facts.st_uid == 0 && followed < MAX_LINKS => {
                followed += 1;
                let target = readlinkat(&found, "", Vec::new())?.into_bytes();
                rest = PathBuf::from(OsString::from_vec(target)).join(below);
            }
            FileType::Symlink => return Err(Errno::LOOP),
            _ => return Err(Errno::NOTDIR),
        }
    }
}

fn open_dir(at: impl AsFd, name: impl rustix::path::Arg, access: OFlags) -> rustix::io::Result<OwnedFd> {
    openat(at, name, access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn make(dir: &OwnedFd, name: &OsString, (uid, gid): (u32, u32)) -> rustix::io::Result<OwnedFd> {
    match mkdirat(dir, name, Mode::from_raw_mode(0o755)) {
        // Someone else was faster: then it is theirs.
        Err(Errno::EXIST) => {
            openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        }
        made => {
            made?;
            let made = open_dir(dir, name, OFlags::RDONLY)?;
            fchmod(&made, Mode::from_raw_mode(0o755))?;
            fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            Ok(made)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, lchown, symlink};

    use rustix::process::{getegid, geteuid};

    use super::*;

    /// Changing an owner to what it is needs no root.
    #[test]
    fn folders_are_made_and_links_are_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        let me = (geteuid().as_raw(), getegid().as_raw());
        let at = |name: &str, links| open(File::open(temp.path()).unwrap(), Path::new(name), links, Some(me));
        at("repo/a/b", Links::None).unwrap();
        let facts = path("repo/a/b").metadata().unwrap();
        assert_eq!((facts.uid(), facts.gid(), facts.mode() & 0o7777), (me.0, me.1, 0o755));

        fs::write(path("file"), "").unwrap();
        symlink("/", path("repo/out")).unwrap();
        symlink("../repo", path("repo/own")).unwrap();
        symlink(temp.path(), path("absolute")).unwrap();
        symlink("circle", path("circle")).unwrap();
        let is_root = me.0 == 0;
        for (name, links, want) in [
            ("file/x", Links::OfRoot, Err(Errno::NOTDIR)),
            ("repo/out/tmp", Links::None, Err(Errno::LOOP)),
            ("repo/own/a", Links::None, Err(Errno::LOOP)),
            ("repo/./a/../a/b", Links::None, Ok("repo/a/b")),
            ("repo/own/a", Links::OfRoot, if is_root { Ok("repo/a") } else { Err(Errno::LOOP) }),
            ("absolute/repo/own/a", Links::OfRoot, if is_root { Ok("repo/a") } else { Err(Errno::LOOP) }),
            ("circle", Links::OfRoot, Err(Errno::LOOP)),
        ] {
            let found = at(name, links).map(|dir| dir.metadata().unwrap().ino());
            assert_eq!(found, want.map(|want| path(want).metadata().unwrap().ino()), "{name} {links:?}");
        }
        let missing = open(CWD, &path("repo/none"), Links::OfRoot, None);
        assert_eq!(missing.unwrap_err(), Errno::NOENT);
        if is_root {
            // Somebody else's leads nowhere.
            lchown(path("repo/own"), Some(1234), None).unwrap();
            assert_eq!(at("repo/own/a", Links::OfRoot).unwrap_err(), Errno::LOOP);
        }
    }
}
