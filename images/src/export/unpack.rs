//! The files of an image on the disk: all layers applied, in a new folder.
//!
//! A first pass over the layers finds out which files there are in the end ([`Files`]); only those are made. Folders on the
//! way to them are opened one from the other and through no symlink, in a folder that is new, so nothing outside is reached,
//! whatever the image holds. The folder gets its name when all is there.
//!
//! What is kept of owners, devices, permissions and extended attributes depends on who unpacks ([`Rights`]).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use drydock_io::dir::Dir;
use drydock_io::file::{TEMPORARY_PREFIX, is_temporary};
use drydock_io::lock::{Identity, Lock};
use drydock_layout::{Image, ImageLayer};
use drydock_tar::{Trail, change_mode, remove_all_in, split_leaf};
use rustix::fs::{
    AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat,
    fchmod, flock, fsetxattr, fstat, linkat, makedev, mkdirat, mknodat, openat, symlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::files::{Contents, Node, NodeKind};
use crate::flatten;
use crate::layer::{self, refused, unreadable};
use crate::repository::absolute;
use crate::watch::Watch;

/// What the process may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// The superuser: everything.
    Superuser,
    /// Who has rights over the users of a user namespace: files of these users, with attributes of users and capabilities; no devices.
    Namespace,
    /// Anybody else: files of his own, without setuid, setgid, and without attributes but those of users.
    User,
}

impl Rights {
    /// Those that come with this process's user.
    pub fn of_user() -> Self {
        if rustix::process::geteuid().is_root() { Self::Superuser } else { Self::User }
    }

    /// Whether an extended attribute can be set.
    fn allow(self, attribute: &[u8]) -> bool {
        match self {
            Self::Superuser => true,
            Self::Namespace => attribute.starts_with(b"user.") || attribute == b"security.capability",
            Self::User => attribute.starts_with(b"user."),
        }
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Unpacked {
    /// How many files of all kinds there are.
    pub files: u64,
    /// Devices that were left out, since only the superuser makes them.
    pub left_out: u64,
}

/// Unpacks an image into a folder that is not there yet, or empty.
pub fn unpack(image: &Image, to: &Path, rights: Rights, watch: &dyn Watch) -> Result<Unpacked> {
    let to = absolute(to)?;
    let is_free = match fs::read_dir(&to) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => false,
        Err(error) => return Err(error).with_context(|| format!("cannot list `{}`", to.display())),
    };
    if !is_free {
        bail!("`{}` is there already, and is not an empty folder", to.display());
    }
    let layers: Vec<ImageLayer> = image.layers().collect();
    let size: u64 = layers.iter().map(|layer| layer.descriptor.size).sum();
    watch.begin("reading layers", size);
    let files = flatten::read(&layers, watch)?;
    watch.end();
    let temporary = Temporary::beside(&to)?;
    let mut maker = Maker::new(&temporary.dir, rights)?;
    let mut first_names: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let (mut folders, mut made) = (Vec::new(), Ok(()));
    files.walk(&mut |path, number, node| {
        let mut visit = || {
            match (&node.kind, node.entry) {
                (NodeKind::File { .. }, Some(_)) => {}
                (NodeKind::Dir(_), _) => {
                    maker.folder(path)?;
                    folders.push((path.to_vec(), node));
                }
                (NodeKind::CharDevice(_) | NodeKind::BlockDevice(_), _)
                    if maker.rights != Rights::Superuser =>
                {
                    maker.unpacked.left_out += 1;
                }
                _ => {
                    if let Some(first) = first_names.get(&number) {
                        maker.link(first, path)?;
                    } else {
                        maker.other(path, node)?;
                        first_names.insert(number, path.to_vec());
                    }
                }
            }
            watch.advance(0).map_err(anyhow::Error::from)
        };
        if made.is_ok() {
            made = visit();
        }
    });
    made?;
    watch.begin("unpacking", size);
    let contents = Contents::of(&files, layers.len());
    for (number, layer) in layers.iter().enumerate() {
        if contents.lacks(number) {
            watch.advance(layer.descriptor.size)?;
            continue;
        }
        layer::entries(layer, watch, &mut |at, mut member| {
            let mut names = contents.paths(number, at);
            let Some(first) = names.next() else { return Ok(()) };
            let node = files.get(&first).filter(|node| matches!(node.kind, NodeKind::File { .. }));
            let node = node.ok_or_else(|| refused(layer, member.entry.name, "has changed meanwhile"))?;
            maker.file(&first, node, &mut member.contents, layer)?;
            names.try_for_each(|name| maker.link(&first, &name))
        })?;
    }
    // What is in a folder changes its time, and may need permissions that it will not have.
    for (path, node) in folders.iter().rev() {
        maker.attributes(path, node, None)?;
    }
    watch.end();
    watch.advance(0)?;
    let unpacked = maker.unpacked;
    temporary.becomes(&to)?;
    Ok(unpacked)
}

/// A folder that goes if it gets no other name. Others may own the folder that it is in: so it is opened once, nobody else can
/// enter it, and its path is for messages. Its lock tells it from what killed processes left.
#[derive(Debug)]
struct Temporary {
    above: Dir,
    name: String,
    dir: Dir,
    is_done: bool,
    _lock: OwnedFd,
}

/// How its name goes on after [`TEMPORARY_PREFIX`]; numbers follow.
const UNPACKED: &str = "unpacked-";

impl Temporary {
    fn beside(to: &Path) -> Result<Self> {
        let parent = to.parent().with_context(|| format!("`{}` has no parent", to.display()))?;
        let make = || -> io::Result<Self> {
            let above = Dir::open(parent)?;
            for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if is_temporary(&name, UNPACKED)
                    && entry.file_type().is_ok_and(|file_type| file_type.is_dir())
                    && let Ok(Some(_left)) = Lock::try_acquire(&entry.path())
                {
                    // Another user's stays.
                    let _ = above.as_fd().try_clone_to_owned().and_then(|above| remove_all_in(above, &name));
                }
            }
            for serial in 0_u32.. {
                let name = format!("{TEMPORARY_PREFIX}{UNPACKED}{}-{serial}", std::process::id());
                match above.make(&name) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                    made => made?,
                }
                if let Some((dir, lock)) = take(&above, &name)? {
                    return Ok(Self { above, name, dir, is_done: false, _lock: lock });
                }
            }
            unreachable!("no folder has as many folders")
        };
        make().with_context(|| format!("cannot make a folder in `{}`", parent.display()))
    }

    fn becomes(mut self, to: &Path) -> Result<()> {
        let name = to.file_name().context("it has a parent")?;
        let renamed = self.above.place(&self.name).rename(&self.above.place(name));
        renamed.with_context(|| format!("cannot make `{}`", to.display()))?;
        self.is_done = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_done {
            // Why nothing was made has been said; what is left has a name that says what it is.
            let above = self.above.as_fd().try_clone_to_owned();
            let _ = above.and_then(|above| remove_all_in(above, OsStr::new(&self.name)));
        }
    }
}

/// Opens and locks a folder that was just made, and closes it to others. None if somebody took it for one that was left; an
/// error if another user's is in its place.
fn take(above: &Dir, name: &str) -> io::Result<Option<(Dir, OwnedFd)>> {
    let dir = match above.enter(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        dir => dir?,
    };
    let facts = fstat(&dir)?;
    if facts.st_uid != geteuid().as_raw() {
        return Err(io::Error::other("somebody has put another folder in its place"));
    }
    dir.set_mode(0o700)?;
    let lock = dir.readable()?;
    // Where folders cannot be locked, nobody takes one for one that was left.
    let is_taken = flock(&lock, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK);
    let is_there =
        above.place(name).look()?.is_some_and(|found| Identity::from(&found) == Identity::from(&facts));
    Ok((!is_taken && is_there).then_some((dir, lock)))
}

/// Makes files below a folder.
struct Maker<'a> {
    into: &'a Path,
    trail: Trail,
    targets: Trail,
    rights: Rights,
    unpacked: Unpacked,
}

impl<'a> Maker<'a> {
    fn new(into: &'a Dir, rights: Rights) -> Result<Self> {
        let trail = || into.as_fd().try_clone_to_owned().map(Trail::reaching);
        let (trail, targets) = (trail()?, trail()?);
        Ok(Self { into: into.path(), trail, targets, rights, unpacked: Unpacked::default() })
    }

    /// Does something in the folder that holds a path.
    fn at<T>(
        &mut self,
        path: &[u8],
        action: &str,
        make: impl FnOnce(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let (parent, leaf) = split_leaf(path);
        let leaf: &[u8] = if leaf.is_empty() { b"." } else { leaf };
        let Self { into, trail, .. } = self;
        let done = trail.go_to(parent).and_then(|()| make(trail.current()?.0, leaf));
        done.with_context(|| format!("cannot {action} `{}`", into.join(OsStr::from_bytes(path)).display()))
    }

    fn folder(&mut self, path: &[u8]) -> Result<()> {
        self.unpacked.files += 1;
        if path.is_empty() {
            return Ok(());
        }
        self.at(path, "make", |dir, leaf| mkdirat(dir, leaf, Mode::RWXU))
    }

    /// What is neither a folder nor a file.
    fn other(&mut self, path: &[u8], node: &Node) -> Result<()> {
        self.unpacked.files += 1;
        let special = |file_type, device: u64| {
            move |dir: BorrowedFd<'_>, leaf: &[u8]| mknodat(dir, leaf, file_type, Mode::RUSR, device)
        };
        match &node.kind {
            NodeKind::Symlink(target) => {
                self.at(path, "make", |dir, leaf| symlinkat(&**target, dir, leaf))?;
            }
            NodeKind::Fifo => self.at(path, "make", special(FileType::Fifo, 0))?,
            NodeKind::CharDevice(device) => {
                self.at(
                    path,
                    "make",
                    special(FileType::CharacterDevice, makedev(device.major, device.minor)),
                )?;
            }
            NodeKind::BlockDevice(device) => {
                self.at(path, "make", special(FileType::BlockDevice, makedev(device.major, device.minor)))?;
            }
            NodeKind::File { .. } | NodeKind::Dir(_) => {}
        }
        self.attributes(path, node, None)
    }

    fn file(
        &mut self,
        path: &[u8],
        node: &Node,
        contents: &mut impl BufRead,
        layer: &ImageLayer,
    ) -> Result<()> {
        self.unpacked.files += 1;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.at(path, "make", |dir, leaf| openat(dir, leaf, flags, Mode::RUSR | Mode::WUSR))?;
        let mut file = fs::File::from(file);
        loop {
            let piece = contents.fill_buf().map_err(unreadable(layer))?;
            if piece.is_empty() {
                break;
            }
            let written = file.write_all(piece);
            written.with_context(|| {
                format!("cannot write `{}`", self.into.join(OsStr::from_bytes(path)).display())
            })?;
            let n = piece.len();
            contents.consume(n);
        }
        self.attributes(path, node, Some(file.as_fd()))
    }

    fn link(&mut self, first: &[u8], path: &[u8]) -> Result<()> {
        self.unpacked.files += 1;
        let ((first_in, first_leaf), (parent, leaf)) = (split_leaf(first), split_leaf(path));
        let Self { into, trail, targets, .. } = self;
        let linked = targets.go_to(first_in).and_then(|()| trail.go_to(parent)).and_then(|()| {
            linkat(targets.current()?.0, first_leaf, trail.current()?.0, leaf, AtFlags::empty())
        });
        linked.with_context(|| format!("cannot link `{}`", into.join(OsStr::from_bytes(path)).display()))
    }

    /// Owner, extended attributes of what is open as `file` or is a folder, permissions, and time. In this order: whoever
    /// changes the owner takes capabilities and permissions away, and without permission to write there are no attributes.
    fn attributes(&mut self, path: &[u8], node: &Node, file: Option<BorrowedFd<'_>>) -> Result<()> {
        const ACTION: &str = "set the attributes of";
        let has_owners = self.rights != Rights::User;
        if has_owners {
            let (uid, gid) = (Uid::from_raw(node.owner.uid), Gid::from_raw(node.owner.gid));
            self.at(path, ACTION, |dir, leaf| {
                chownat(dir, leaf, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            })?;
        }
        if let Some(file) = file {
            self.xattrs(path, node, file)?;
        } else if let NodeKind::Dir(_) = node.kind
            && node.xattrs.is_some()
        {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dir = self.at(path, "open", |dir, leaf| openat(dir, leaf, flags, Mode::empty()))?;
            self.xattrs(path, node, dir.as_fd())?;
        }
        let kept = if has_owners { 0o7777 } else { 0o1777 };
        let mode = Mode::from_raw_mode(node.mode & kept);
        self.at(path, ACTION, |dir, leaf| {
            match (file, &node.kind) {
                (Some(file), _) => fchmod(file, mode)?,
                (None, NodeKind::Symlink(_)) => {}
                (None, _) => change_mode(dir, leaf, mode)?,
            }
            let time =
                Timespec { tv_sec: node.modified.seconds, tv_nsec: i64::from(node.modified.nanoseconds) };
            let times = Timestamps { last_access: time, last_modification: time };
            utimensat(dir, leaf, &times, AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    fn xattrs(&self, path: &[u8], node: &Node, file: BorrowedFd<'_>) -> Result<()> {
        for (name, value) in node.xattrs.iter().flat_map(|all| all.iter()) {
            if !self.rights.allow(name) {
                continue;
            }
            match fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty()) {
                // Some file systems have none for users.
                Err(Errno::NOTSUP) if self.rights != Rights::Superuser => {}
                set => set.with_context(|| {
                    let path = self.into.join(OsStr::from_bytes(path));
                    format!(
                        "cannot set attribute `{}` of `{}`",
                        String::from_utf8_lossy(name),
                        path.display()
                    )
                })?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_is_put_in_the_folders_place_gets_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        fs::create_dir(path("treasure")).unwrap();
        let temporary = Temporary::beside(&path("image")).unwrap();
        assert!(temporary.name.starts_with(".drydock-unpacked-"), "{}", temporary.name);
        assert_eq!(fs::metadata(path(&temporary.name)).unwrap().permissions().mode() & 0o777, 0o700);
        fs::rename(path(&temporary.name), path("moved")).unwrap();
        symlink("treasure", path(&temporary.name)).unwrap();
        let mut maker = Maker::new(&temporary.dir, Rights::User).unwrap();
        maker.folder(b"made").unwrap();
        assert!(path("moved/made").is_dir());
        drop(temporary);
        assert_eq!(fs::read_dir(path("treasure")).unwrap().count(), 0);
    }

    #[test]
    fn only_the_folder_that_was_made_is_taken() {
        let temp = tempfile::tempdir().unwrap();
        let above = Dir::open(temp.path()).unwrap();
        assert!(take(&above, "gone").unwrap().is_none());
        above.make("own").unwrap();
        symlink("own", temp.path().join("link")).unwrap();
        let taken = take(&above, "own").unwrap().unwrap();
        assert!(take(&above, "own").unwrap().is_none(), "it is locked");
        drop(taken);
        assert_eq!(take(&above, "link").unwrap_err().kind(), io::ErrorKind::NotADirectory);
        above.enter("own").unwrap().set_mode(0o770).unwrap();
        let (own, _lock) = take(&above, "own").unwrap().unwrap();
        assert_eq!(fstat(own).unwrap().st_mode & 0o777, 0o700);
        // Only the superuser can make one that is another's; others find one.
        let other = if geteuid().is_root() {
            std::os::unix::fs::chown(temp.path().join("own"), Some(1234), None).unwrap();
            take(&above, "own")
        } else {
            take(&Dir::open(Path::new("/")).unwrap(), "tmp")
        };
        assert!(other.unwrap_err().to_string().contains("another folder"));
    }

    #[test]
    fn what_killed_processes_left_is_told_by_its_whole_name() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        for name in [".drydock-unpacked-12-0", ".drydock-unpacked-12-x", ".drydock-unpacked-notes"] {
            fs::create_dir_all(path(name).join("sub")).unwrap();
        }
        drop(Temporary::beside(&path("image")).unwrap());
        let mut left: Vec<_> =
            fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".drydock-unpacked-12-x", ".drydock-unpacked-notes"]);
    }
}
