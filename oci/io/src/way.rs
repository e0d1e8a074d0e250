//! Ways on which root goes where others may have put links: none of theirs leads it to what they could not reach themselves.
//!
//! A link is somebody's who may have made it or put it where it is: its owner, the owners of the folders on the way to it, and
//! everybody where a folder can be written by others. So it is root's if all of that is.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    CWD, FileType, Gid, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, Stat, Uid, fchmod, fchown, fstat,
    fstatfs, mkdirat, openat, openat2, readlinkat,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::geteuid;

use crate::access::{Access, READ, SEARCH, User};
use crate::read;

/// Which links are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Those of root.
    OfRoot,
    /// None.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Followed {
    Only(Links),
    /// Those of others, too, as far as all of these may go themselves, by owner and mode of what is there.
    AsTheirOwners,
}

/// So many links on one way are a circle.
const MAX_LINKS: usize = 40;

/// Opens the folder at `path`, which begins at `from` unless it is absolute. What is missing of it is made if `made_for` says
/// whose it is to be: mode 0755, whatever the umask.
///
/// A link that is not followed is [`Errno::LOOP`]. Folders and links that are exchanged on the way lead nowhere else: each is
/// looked at by the handle by which it is used.
pub fn open(from: impl AsFd, path: &Path, links: Links, made_for: Option<User>) -> rustix::io::Result<File> {
    let mut walk = Walk::new(from, Followed::Only(links))?;
    match walk.go(path, made_for)? {
        None => Ok(open_dir(walk.dir, ".", OFlags::RDONLY)?.into()),
        Some(_) => Err(Errno::NOTDIR),
    }
}

/// Opens the regular file at a path for reading; links are followed. Root follows those of others as these, and opens no more than
/// they may read: else who can make a link could have root hand out what is private.
pub fn open_file(path: &Path) -> io::Result<File> {
    if !geteuid().is_root() {
        return read::open(path);
    }
    let open = || openat2(CWD, path, read::FLAGS, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    match retry_on_intr(open) {
        // There is a link, or the call is not known to the kernel or its filters.
        Err(Errno::LOOP | Errno::NOSYS | Errno::PERM) => open_as_owners(path),
        file => read::regular(file?.into()),
    }
}

fn open_as_owners(path: &Path) -> io::Result<File> {
    let mut walk = Walk::new(CWD, Followed::AsTheirOwners)?;
    let mut open = || {
        let Some((name, facts)) = walk.go(path, None)? else { return Err(read::not_regular()) };
        // To open anything else may do something.
        if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
            return Err(read::not_regular());
        }
        let file = read::open_own_at(&walk.dir, Path::new(&name))?;
        walk.check(Access::from(&file.metadata()?), READ)?;
        Ok(file)
    };
    let file = open();
    let who = match walk.refused {
        None => return file,
        Some(EVERYBODY) => "others".to_owned(),
        Some(uid) => format!("user {uid}"),
    };
    let text = format!(
        "a link that {who} may have put there leads to what is neither theirs nor everybody's to read"
    );
    Err(io::Error::new(ErrorKind::PermissionDenied, text))
}

/// Nobody's number.
const EVERYBODY: u32 = u32::MAX;

/// What users are in a namespace that are not in it, root of the machine among them.
const OF_NO_NUMBER: u32 = 65534;

/// Whether this process's users are all that the machine has.
fn has_all_users() -> bool {
    let is_whole = |map: String| map.split_ascii_whitespace().take(2).eq(["0", "0"]);
    // What cannot be told is taken to be so.
    fs::read_to_string("/proc/self/uid_map").map_or(true, is_whole)
}

/// On the way.
struct Walk {
    /// So far.
    dir: OwnedFd,
    links: Followed,
    followed: usize,
    /// Whoever else counts as root.
    of_no_number: Option<u32>,
    /// Who may have put here what is here.
    arrangers: Vec<u32>,
    /// Whether others may write to the folder itself.
    is_open: bool,
    /// Whose links were followed.
    makers: Vec<u32>,
    /// Who may not go on.
    refused: Option<u32>,
}

impl Walk {
    fn new(from: impl AsFd, links: Followed) -> rustix::io::Result<Self> {
        let dir = open_dir(from, ".", OFlags::PATH)?;
        let facts = fstat(&dir)?;
        let mut walk = Self {
            dir,
            links,
            followed: 0,
            of_no_number: (!has_all_users()).then_some(OF_NO_NUMBER),
            arrangers: Vec::new(),
            is_open: false,
            makers: Vec::new(),
            refused: None,
        };
        walk.pass(Access::from(&facts));
        Ok(walk)
    }

    /// Goes to the folder at a path; or to that above something that is no folder, and gives its name.
    fn go(&mut self, path: &Path, made_for: Option<User>) -> rustix::io::Result<Option<(OsString, Stat)>> {
        let mut rest = path.to_owned();
        loop {
            let mut components = rest.components();
            let name = match components.next() {
                Some(Component::RootDir) => {
                    // Nobody who could arrange something where the way began has a say in what comes.
                    self.arrangers.clear();
                    "/".into()
                }
                Some(Component::Normal(name)) => OsString::from(name),
                Some(Component::ParentDir) => "..".into(),
                Some(_) => ".".into(),
                None => return Ok(None),
            };
            let below = components.as_path().to_owned();
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let mut found =
                match (openat(&self.dir, &name, flags | OFlags::NOFOLLOW, Mode::empty()), made_for) {
                    (Err(Errno::NOENT), Some(owner)) => make(&self.dir, &name, owner)?,
                    (found, _) => found?,
                };
            let mut facts = fstat(&found)?;
            if FileType::from_raw_mode(facts.st_mode) == FileType::Symlink {
                self.follow(&facts)?;
                if fstatfs(&found)?.f_type != PROC_SUPER_MAGIC {
                    let target = readlinkat(&found, "", Vec::new())?.into_bytes();
                    rest = PathBuf::from(OsString::from_vec(target)).join(below);
                    continue;
                }
                // Of these, the text need not say where they lead; where that lies, nobody was asked.
                if let Some(maker) = self.makers.first() {
                    self.refused = Some(*maker);
                    return Err(Errno::ACCESS);
                }
                found = openat(&self.dir, &name, flags | OFlags::DIRECTORY, Mode::empty())?;
                facts = fstat(&found)?;
            }
            match FileType::from_raw_mode(facts.st_mode) {
                FileType::Directory => {
                    let access = Access::from(&facts);
                    self.check(access, SEARCH)?;
                    self.pass(access);
                    (self.dir, rest) = (found, below);
                }
                _ if below.as_os_str().is_empty() => return Ok(Some((name, facts))),
                _ => return Err(Errno::NOTDIR),
            }
        }
    }

    /// Notes who may have arranged what is in a folder.
    fn pass(&mut self, Access { owner, mode }: Access) {
        const STICKY: u32 = 0o1000;
        self.is_open = mode & 0o022 != 0;
        if !self.is_root(owner.uid) {
            self.arrangers.push(owner.uid);
        }
        // Where that is set, folders of root stay where they are.
        if self.is_open && mode & STICKY == 0 {
            self.arrangers.push(EVERYBODY);
        }
    }

    fn is_root(&self, uid: u32) -> bool {
        uid == 0 || Some(uid) == self.of_no_number
    }

    /// Whether a link may be followed.
    fn follow(&mut self, link: &Stat) -> rustix::io::Result<()> {
        let owner = Some(link.st_uid).filter(|uid| !self.is_root(*uid));
        let makers = self.arrangers.iter().copied().chain(owner).chain(self.is_open.then_some(EVERYBODY));
        let makers: Vec<u32> = makers.collect();
        self.followed += 1;
        let follows = match self.links {
            Followed::Only(Links::None) => false,
            Followed::Only(Links::OfRoot) => makers.is_empty(),
            Followed::AsTheirOwners => true,
        };
        if !follows || self.followed > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        self.makers.extend(makers);
        Ok(())
    }

    /// Whether all whose links were followed may do this.
    fn check(&mut self, access: Access, right: u32) -> rustix::io::Result<()> {
        let may = |uid: &&u32| access.allows_in_any_groups(**uid, right);
        self.refused = self.makers.iter().find(|uid| !may(uid)).copied();
        if self.refused.is_some() { Err(Errno::ACCESS) } else { Ok(()) }
    }
}

fn open_dir(at: impl AsFd, name: impl rustix::path::Arg, access: OFlags) -> rustix::io::Result<OwnedFd> {
    openat(at, name, access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn make(dir: &OwnedFd, name: &OsString, User { uid, gid }: User) -> rustix::io::Result<OwnedFd> {
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
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};

    use super::*;

    /// Changing an owner to what it is needs no root.
    #[test]
    fn folders_are_made_and_links_are_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        let me = User::current();
        let at = |name: &str, links| open(File::open(temp.path()).unwrap(), Path::new(name), links, Some(me));
        at("repo/a/b", Links::None).unwrap();
        let facts = path("repo/a/b").metadata().unwrap();
        assert_eq!((facts.uid(), facts.gid(), facts.mode() & 0o7777), (me.uid, me.gid, 0o755));

        fs::write(path("file"), "").unwrap();
        symlink("/", path("repo/out")).unwrap();
        symlink("../repo", path("repo/own")).unwrap();
        symlink(temp.path(), path("absolute")).unwrap();
        symlink("circle", path("circle")).unwrap();
        let is_root = me.uid == 0;
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

    /// The files lie in folders of root that all may enter, and in one of root's and one of the other user's that only these may.
    #[test]
    fn links_of_others_lead_root_where_these_may_go_themselves() {
        const OTHER: u32 = 1234;
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        let mode = |name: &str, mode| fs::set_permissions(path(name), Permissions::from_mode(mode)).unwrap();
        let is_root = geteuid().is_root();
        for (dir, of_dir, file, of_file, is_others) in [
            ("", 0o755, "open", 0o644, false),
            ("shared", 0o755, "file", 0o644, false),
            ("shared", 0o755, "private", 0o600, false),
            ("shared", 0o755, "own", 0o600, true),
            ("private", 0o700, "file", 0o644, false),
            ("own", 0o700, "file", 0o600, true),
        ] {
            fs::create_dir_all(path(dir)).unwrap();
            mode(dir, of_dir);
            let file = format!("{dir}/{file}");
            let file = file.trim_start_matches('/');
            fs::write(path(file), file).unwrap();
            mode(file, of_file);
            let owner = (is_root && is_others).then_some(OTHER);
            lchown(path(file), owner, None).unwrap();
            if dir == "own" {
                lchown(path(dir), owner, None).unwrap();
            }
        }
        symlink(path("private"), path("of-root")).unwrap();
        for (name, of_dir) in [("writable", 0o777), ("sticky", 0o1777), ("sticky/below", 0o755)] {
            fs::create_dir(path(name)).unwrap();
            mode(name, of_dir);
        }
        for (name, to) in [
            ("to-shared", "shared"),
            ("to-private", "private"),
            ("over-root", "of-root"),
            ("own/up", ".."),
            ("own/out", "../private/file"),
            ("own/there", "../shared/file"),
            ("own/by-root", "../private/file"),
            ("writable/by-root", "../private/file"),
            ("sticky/by-root", "../private/file"),
            ("sticky/below/by-root", "../../private/file"),
            ("own/device", "/dev/null"),
            ("own/circle", "circle"),
            ("own/cwd", "/proc/self/cwd/Cargo.toml"),
        ] {
            symlink(to, path(name)).unwrap();
            lchown(path(name), (is_root && !name.ends_with("by-root")).then_some(OTHER), None).unwrap();
        }
        for (name, want, for_root) in [
            ("shared/private", Ok("shared/private"), None),
            ("of-root/file", Ok("private/file"), None),
            ("to-shared/file", Ok("shared/file"), None),
            ("to-shared/own", Ok("shared/own"), None),
            ("to-shared/private", Ok("shared/private"), Some(ErrorKind::PermissionDenied)),
            ("to-private/file", Ok("private/file"), Some(ErrorKind::PermissionDenied)),
            ("to-private/../open", Ok("open"), Some(ErrorKind::PermissionDenied)),
            ("over-root/file", Ok("private/file"), Some(ErrorKind::PermissionDenied)),
            ("own/up/open", Ok("open"), None),
            ("own/up/own/file", Ok("own/file"), None),
            ("own/out", Ok("private/file"), Some(ErrorKind::PermissionDenied)),
            ("own/there", Ok("shared/file"), None),
            ("own/by-root", Ok("private/file"), Some(ErrorKind::PermissionDenied)),
            ("writable/by-root", Ok("private/file"), Some(ErrorKind::PermissionDenied)),
            ("sticky/by-root", Ok("private/file"), Some(ErrorKind::PermissionDenied)),
            ("sticky/below/by-root", Ok("private/file"), None),
            ("own/device", Err(ErrorKind::InvalidInput), None),
            ("own/cwd", Ok("Cargo.toml"), Some(ErrorKind::PermissionDenied)),
            ("open/below", Err(ErrorKind::NotADirectory), None),
            ("to-shared", Err(ErrorKind::InvalidInput), None),
            ("to-shared/none", Err(ErrorKind::NotFound), None),
        ] {
            let found = open_file(&path(name)).map_err(|error| error.kind());
            let found = found.map(|file| io::read_to_string(file).unwrap());
            let found = found.map(|text| if name == "own/cwd" { "Cargo.toml".to_owned() } else { text });
            let want = for_root.filter(|_| is_root).map_or(want, Err);
            assert_eq!(found, want.map(str::to_owned), "{name}");
        }
        let circle = open_file(&path("own/circle")).unwrap_err();
        assert_eq!(circle.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
        for (name, is_followed) in [
            ("of-root", is_root),
            ("own/by-root", false),
            ("writable/by-root", false),
            ("sticky/by-root", false),
        ] {
            let found = open(CWD, &path(name), Links::OfRoot, None).map(drop);
            // The others lead to a file.
            assert_eq!(found, if is_followed { Ok(()) } else { Err(Errno::LOOP) }, "{name}");
        }
        let own = format!("/proc/{}/root", std::process::id());
        open_file(&Path::new(&own).join("proc/version")).unwrap();
        // Whose the folder is in which a way begins means nothing for an absolute one.
        let begin = File::open(path("own")).unwrap();
        let found = open(&begin, &path("of-root"), Links::OfRoot, None).map(drop);
        assert_eq!(found, if is_root { Ok(()) } else { Err(Errno::LOOP) });
        if is_root {
            let error = open_file(&path("own/out")).unwrap_err().to_string();
            let want = "a link that user 1234 may have put there leads to what is neither theirs nor everybody's to read";
            assert_eq!(error, want);
        }
    }
}
