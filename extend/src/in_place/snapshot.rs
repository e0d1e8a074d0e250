//! How a file system looks, and what has changed in it.
//!
//! Nothing is read but what the kernel says of files. Whatever happens to a file sets the time of its change (ctime), which no
//! call sets otherwise; a snapshot is taken together with the end of the clock's tick ([`settle`]), so that what comes
//! later shows. The inode tells of a file that has taken the place of another.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use drydock_layout::seen::settle;
use drydock_tar::{Device, Found, Owner, Time, Walk};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, StatxAttributes, StatxFlags, StatxTimestamp, openat, statx,
};
use rustix::io::Errno;

use super::scope::{Scope, join};

/// What is in a file system, by its paths: folders before what is in them, names in byte order.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    paths: Vec<u8>,
    seen: Vec<Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Where its path ends; it begins where the one before ends.
    end: usize,
    look: Look,
}

/// How something looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Whether it is no part of the image: a mount, or a folder that was to be left out.
    pub(super) is_left_out: bool,
    pub(super) file_type: FileType,
    pub(super) mode: u32,
    pub(super) owner: Owner,
    /// Bytes in it; 0 of a folder.
    pub(super) size: u64,
    pub(super) modified: Time,
    pub(super) device: Device,
    pub(super) links: u32,
    /// Which file it is; of a folder it says nothing, since some file systems make it up.
    pub(super) inode: u64,
    pub(super) of_device: (u32, u32),
    changed: Time,
}

/// What is different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// It is new or has changed, or something in it is or has.
    There(Vec<u8>, Look),
    /// It is gone, with all that was in it.
    Gone(Vec<u8>),
    /// Nothing of what was in this folder is there as it was.
    Emptied(Vec<u8>),
}

impl Snapshot {
    /// Of the file system at `root`, without mounts and without the folders `left_out`, whose paths begin there and may
    /// lead over links.
    pub(super) fn take(root: &Path, left_out: &[PathBuf]) -> Result<Self> {
        let open = || format!("cannot open `{}`", root.display());
        let mut scope = Scope::open(root)?;
        let mut resolve = |path: &PathBuf| scope.resolve(path.as_os_str().as_bytes(), true);
        let left_out = left_out.iter().map(&mut resolve).collect::<Result<BTreeSet<Vec<u8>>>>()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, root, flags, Mode::empty()).with_context(open)?;
        let of_root =
            look(dir.as_fd(), b"", None).with_context(|| format!("cannot look at `{}`", root.display()))?;
        let device = of_root.of_device;
        let mut walk = Walk::new(root, dir)?;
        let mut snapshot = Self::default();
        loop {
            let mut of_dir = None;
            let found = walk.find_next_where(&mut |dir, path, leaf| {
                let path = join(path, leaf);
                let is_left_out = left_out.contains(&path) || is_of_kernel(&path);
                let looks = look(dir, leaf, Some(device))
                    .map(|look| Look { is_left_out: look.is_left_out || is_left_out, ..look });
                of_dir = Some(looks);
                looks.is_ok_and(|look| !look.is_left_out)
            })?;
            let Some(Found { dir, path, leaf, file_type }) = found else { break };
            // A socket means nothing when nobody listens any more: no layer has it.
            if file_type == FileType::Socket {
                continue;
            }
            let look = match of_dir.unwrap_or_else(|| look(dir, leaf, Some(device))) {
                Ok(look) => look,
                // It is gone already.
                Err(Errno::NOENT) => continue,
                Err(error) => {
                    let path = String::from_utf8_lossy(&join(path, leaf)).into_owned();
                    return Err(error).with_context(|| format!("cannot look at `/{path}`"));
                }
            };
            snapshot.add(path, leaf, look);
        }
        settle();
        Ok(snapshot)
    }

    fn add(&mut self, path: &[u8], leaf: &[u8], look: Look) {
        self.paths.extend_from_slice(path);
        if !path.is_empty() && !leaf.is_empty() {
            self.paths.push(b'/');
        }
        self.paths.extend_from_slice(leaf);
        self.seen.push(Seen { end: self.paths.len(), look });
    }

    fn get(&self, at: usize) -> Option<(&[u8], &Look)> {
        let Seen { end, look } = self.seen.get(at)?;
        let start = at.checked_sub(1).map_or(0, |before| self.seen[before].end);
        Some((&self.paths[start..*end], look))
    }

    /// What has changed since `before`, in the order in which it belongs into a layer: in each folder first what is gone.
    pub(super) fn changes_since(&self, before: &Self) -> Vec<Change> {
        let mut comparison = Comparison { after: self, ..Comparison::new(self) };
        let (mut old, mut new) = (0, 0);
        loop {
            let order = match (before.get(old), self.get(new)) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((old, _)), Some((new, _))) => key(old).cmp(key(new)),
            };
            match order {
                std::cmp::Ordering::Less => {
                    let (path, look) = before.get(old).expect("it was there above");
                    if !look.is_left_out {
                        comparison.gone(path);
                    }
                    old += 1;
                }
                std::cmp::Ordering::Greater => {
                    comparison.there(new, false);
                    new += 1;
                }
                std::cmp::Ordering::Equal => {
                    let is_same =
                        before.get(old).map(|(_, look)| look) == self.get(new).map(|(_, look)| look);
                    comparison.there(new, is_same);
                    old += 1;
                    new += 1;
                }
            }
        }
        comparison.finish()
    }
}

/// What the kernel shows, whether it is a mount or not.
fn is_of_kernel(path: &[u8]) -> bool {
    matches!(path, b"proc" | b"sys" | b"dev")
}

/// Paths in the order of these are in that of a walk.
fn key(path: &[u8]) -> impl Iterator<Item = u8> + '_ {
    path.iter().map(|&byte| if byte == b'/' { 0 } else { byte })
}

/// One pass over both, with a stack of the folders on the way.
struct Comparison<'a> {
    after: &'a Snapshot,
    /// The folders that the way is in, by their number.
    open: Vec<Folder>,
    /// Of each thing that is there: whether it belongs into the layer.
    wanted: Vec<bool>,
    gone: Vec<Vec<u8>>,
    emptied: Vec<Vec<u8>>,
}

struct Folder {
    number: Option<usize>,
    path: Vec<u8>,
    /// Whether something in it belongs into the layer.
    is_touched: bool,
    /// Whether something in it is as it was, or is left out.
    is_kept: bool,
    /// Where its part of what is gone begins.
    first_gone: usize,
    own_gone: usize,
}

impl<'a> Comparison<'a> {
    fn new(after: &'a Snapshot) -> Self {
        let root = Folder {
            number: None,
            path: Vec::new(),
            is_touched: false,
            is_kept: true,
            first_gone: 0,
            own_gone: 0,
        };
        let wanted = vec![false; after.seen.len()];
        Self { after, open: vec![root], wanted, gone: Vec::new(), emptied: Vec::new() }
    }

    /// Goes up to the folder that is on the way to a path.
    fn go_to(&mut self, path: &[u8]) -> &mut Folder {
        while self.open.len() > 1 && !is_below(path, &self.open[self.open.len() - 1].path) {
            self.leave();
        }
        self.open.last_mut().expect("the root is never left")
    }

    fn leave(&mut self) {
        let Some(left) = self.open.pop() else { return };
        if left.is_touched
            && let Some(number) = left.number
        {
            self.wanted[number] = true;
        }
        if left.own_gone > 1 && !left.is_kept {
            // Nothing below it stays either: all that is gone there goes with it.
            self.gone.truncate(left.first_gone);
            self.emptied.push(left.path);
        }
        if let Some(above) = self.open.last_mut() {
            above.is_touched |= left.is_touched;
            above.is_kept |= left.is_kept;
        }
    }

    fn gone(&mut self, path: &[u8]) {
        let folder = self.go_to(path);
        let parent = drydock_tar::split_leaf(path).0;
        // What was in something that is gone itself, or is no folder any more, goes with it.
        if folder.path == parent {
            folder.is_touched = true;
            folder.own_gone += 1;
            self.gone.push(path.to_vec());
        }
    }

    fn there(&mut self, number: usize, is_same: bool) {
        let (path, look) = self.after.get(number).expect("it has this number");
        let stays = is_same || look.is_left_out;
        let folder = self.go_to(path);
        folder.is_touched |= !stays;
        folder.is_kept |= stays;
        self.wanted[number] = !stays;
        if look.file_type == FileType::Directory && !look.is_left_out {
            let first_gone = self.gone.len();
            self.open.push(Folder {
                number: Some(number),
                path: path.to_vec(),
                is_touched: false,
                is_kept: false,
                first_gone,
                own_gone: 0,
            });
        }
    }

    fn finish(mut self) -> Vec<Change> {
        while self.open.len() > 1 {
            self.leave();
        }
        let there = self.wanted.iter().enumerate().filter(|(_, wanted)| **wanted).map(|(number, _)| {
            let (path, look) = self.after.get(number).expect("it has this number");
            Change::There(path.to_vec(), *look)
        });
        let gone = self.gone.into_iter().map(Change::Gone);
        let mut changes: Vec<Change> =
            there.chain(gone).chain(self.emptied.into_iter().map(Change::Emptied)).collect();
        Change::sort(&mut changes);
        changes
    }
}

impl Change {
    /// Puts them in the order in which they belong into a layer.
    pub(super) fn sort(changes: &mut [Self]) {
        changes.sort_by_cached_key(Self::place);
    }

    /// Where it belongs: no name has a NUL, and two of them come before everything else in a folder.
    fn place(&self) -> Vec<u8> {
        match self {
            Self::There(path, _) => key(path).collect(),
            Self::Gone(path) => {
                let (parent, leaf) = drydock_tar::split_leaf(path);
                key(parent).chain([0, 0]).chain(leaf.iter().copied()).collect()
            }
            Self::Emptied(path) => key(path).chain([0, 0]).collect(),
        }
    }
}

fn is_below(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/"))
}

/// How a file looks; `device` is that of the file system.
pub(super) fn look(dir: BorrowedFd<'_>, leaf: &[u8], device: Option<(u32, u32)>) -> rustix::io::Result<Look> {
    let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    if leaf.is_empty() {
        flags |= AtFlags::EMPTY_PATH;
    }
    let facts = statx(dir, leaf, flags, StatxFlags::BASIC_STATS)?;
    let of_device = (facts.stx_dev_major, facts.stx_dev_minor);
    let raw = u32::from(facts.stx_mode);
    let file_type = FileType::from_raw_mode(raw);
    let is_dir = file_type == FileType::Directory;
    // On an overlay, files are of other devices than folders: only of these it says something where the kernel does not.
    let is_mount = if facts.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        facts.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    } else {
        is_dir && device.is_some_and(|device| device != of_device)
    };
    Ok(Look {
        is_left_out: is_mount && device.is_some(),
        file_type,
        mode: raw & 0o7777,
        owner: Owner { uid: facts.stx_uid, gid: facts.stx_gid },
        size: if is_dir { 0 } else { facts.stx_size },
        modified: time(facts.stx_mtime),
        device: Device { major: facts.stx_rdev_major, minor: facts.stx_rdev_minor },
        links: if is_dir { 0 } else { facts.stx_nlink },
        inode: if is_dir { 0 } else { facts.stx_ino },
        of_device,
        changed: time(facts.stx_ctime),
    })
}

fn time(time: StatxTimestamp) -> Time {
    Time { seconds: time.tv_sec, nanoseconds: time.tv_nsec }
}
