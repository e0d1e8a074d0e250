//! Files that are put into a file system.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use anyhow::{Context as _, Result, ensure};
use drydock_tar::{Device, NO_XATTRS, Owner, Time, Xattrs, split_leaf};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fsetxattr, linkat, makedev, mkdirat, mknodat, openat, renameat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::scope::{Scope, join};
use crate::plan::Permissions;

/// Where files are put, and as whose.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) scope: &'a mut Scope,
    /// Whose they are, whatever is said of them.
    pub(super) owner: Option<Owner>,
    /// Which permissions they have, whatever is said of them.
    pub(super) chmod: Option<&'a Permissions>,
    /// Times of folders, which are set when they are full.
    times: Vec<(Vec<u8>, Time)>,
}

/// What is said of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) mode: u32,
    pub(super) owner: Owner,
    /// None: now.
    pub(super) modified: Option<Time>,
    pub(super) xattrs: &'a Xattrs,
}

impl Facts<'_> {
    /// As something is, but for its attributes.
    pub(super) fn of(stat: &Stat) -> Self {
        let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        Self {
            mode: stat.st_mode & 0o7777,
            owner: Owner { uid: stat.st_uid, gid: stat.st_gid },
            modified: Some(Time { seconds: stat.st_mtime, nanoseconds }),
            xattrs: NO_XATTRS,
        }
    }
}

/// Something that is neither a file nor a folder.
#[derive(Debug, Clone, Copy)]
pub(super) enum Special<'a> {
    Symlink(&'a [u8]),
    Fifo,
    CharDevice(Device),
    BlockDevice(Device),
}

/// While it is written, a file is called so, with a number that nothing else there has.
const TEMPORARY: &str = ".drydock-extend";

impl<'a> Target<'a> {
    pub(super) fn new(scope: &'a mut Scope, owner: Option<Owner>, chmod: Option<&'a Permissions>) -> Self {
        Self { scope, owner, chmod, times: Vec::new() }
    }

    /// Whether there is a folder; links to it are followed.
    pub(super) fn is_dir(&mut self, path: &[u8]) -> Result<bool> {
        let resolved = self.scope.resolve(path, true)?;
        Ok(resolved.is_empty() || self.kind(&resolved)? == Some(FileType::Directory))
    }

    fn kind(&mut self, resolved: &[u8]) -> Result<Option<FileType>> {
        Ok(self.scope.stat(resolved)?.map(|stat| FileType::from_raw_mode(stat.st_mode)))
    }

    /// Makes a folder with all above it that are missing, with mode 0755; where it is then. What is there stays as it is.
    pub(super) fn make_dirs(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let resolved = self.scope.resolve(path, true)?;
        let mut end = 0;
        while end < resolved.len() {
            end = resolved[end + 1..]
                .iter()
                .position(|&byte| byte == b'/')
                .map_or(resolved.len(), |at| end + 1 + at);
            let (parent, leaf) = split_leaf(&resolved[..end]);
            let dir = self.scope.dir(parent).with_context(|| format!("cannot open `{}`", shown(parent)))?;
            match mkdirat(dir, leaf, Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    let owner = self.owner.unwrap_or(Owner::ROOT);
                    let what = &resolved[..end];
                    set(dir, leaf, owner, 0o755).with_context(|| format!("cannot make `{}`", shown(what)))?;
                }
                Err(Errno::EXIST) => {
                    let what = &resolved[..end];
                    ensure!(
                        self.kind(what)? == Some(FileType::Directory),
                        "`{}` is there and is no folder; remove it before, or choose another target",
                        shown(what)
                    );
                }
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot make the folder `{}`", shown(&resolved[..end])));
                }
            }
        }
        Ok(resolved)
    }

    /// Makes a folder, or gives one that is there these facts.
    pub(super) fn dir(&mut self, path: &[u8], facts: &Facts<'_>) -> Result<()> {
        let resolved = self.make_dirs(path)?;
        if resolved.is_empty() {
            return Ok(());
        }
        let mode = self.chmod.map_or(facts.mode, |chmod| chmod.of(facts.mode, true));
        let owner = self.owner.unwrap_or(facts.owner);
        let (parent, leaf) = split_leaf(&resolved);
        let dir = self.scope.dir(parent)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let set = || {
            set(dir, leaf, owner, mode)?;
            if facts.xattrs.is_empty() {
                return Ok(());
            }
            set_xattrs(openat(dir, leaf, flags, Mode::empty())?, facts.xattrs)
        };
        set().with_context(|| format!("cannot make `{}`", shown(&resolved)))?;
        self.times.extend(facts.modified.map(|time| (resolved, time)));
        Ok(())
    }

    /// Writes a file, in place of what is there unless that is a folder. Only links on the way are followed.
    pub(super) fn file(&mut self, path: &[u8], contents: &mut dyn Read, facts: &Facts<'_>) -> Result<()> {
        let (parent, leaf) = self.place(path)?;
        let mut write = || -> Result<()> {
            let dir = self.scope.dir(&parent)?;
            let (mut file, temporary) = create(dir)?;
            let temporary = temporary.as_bytes();
            let done = io::copy(contents, &mut file).map_err(anyhow::Error::from).and_then(|_| {
                let mode = self.chmod.map_or(facts.mode, |chmod| chmod.of(facts.mode, false));
                set(dir, temporary, self.owner.unwrap_or(facts.owner), mode)?;
                // Afterwards: another owner takes capabilities away.
                set_xattrs(&file, facts.xattrs)?;
                set_time(dir, temporary, facts.modified)?;
                Ok(renameat(dir, temporary, dir, leaf.as_slice())?)
            });
            if done.is_err() {
                // What failed is told; this is only what is left of it.
                let _ = unlinkat(dir, temporary, AtFlags::empty());
            }
            done
        };
        write().map_err(mounted).with_context(|| format!("cannot write `{}`", shown(path)))
    }

    /// Makes something that is neither a file nor a folder, in place of what is there unless that is a folder.
    pub(super) fn special(&mut self, path: &[u8], special: Special<'_>, facts: &Facts<'_>) -> Result<()> {
        let (parent, leaf) = self.place(path)?;
        let mut make = || -> Result<()> {
            let dir = self.scope.dir(&parent)?;
            remove(dir, &leaf)?;
            let mode = self.chmod.map_or(facts.mode, |chmod| chmod.of(facts.mode, false));
            let raw = Mode::from_raw_mode(mode);
            let device = |device: Device| makedev(device.major, device.minor);
            match special {
                Special::Symlink(target) => symlinkat(target, dir, leaf.as_slice())?,
                Special::Fifo => mknodat(dir, leaf.as_slice(), FileType::Fifo, raw, 0)?,
                Special::CharDevice(it) => {
                    mknodat(dir, leaf.as_slice(), FileType::CharacterDevice, raw, device(it))?;
                }
                Special::BlockDevice(it) => {
                    mknodat(dir, leaf.as_slice(), FileType::BlockDevice, raw, device(it))?;
                }
            }
            let owner = self.owner.unwrap_or(facts.owner);
            if matches!(special, Special::Symlink(_)) {
                own(dir, &leaf, owner)?;
            } else {
                set(dir, &leaf, owner, mode)?;
            }
            set_time(dir, &leaf, facts.modified)
        };
        make().map_err(mounted).with_context(|| format!("cannot make `{}`", shown(path)))
    }

    /// Gives a file another name; both paths begin at `from`.
    pub(super) fn hard_link(&mut self, from: &[u8], path: &[u8], to: &[u8]) -> Result<()> {
        let (parent, leaf) = self.place(&join(from, path))?;
        let (to_parent, to_leaf) = self.place(&join(from, to))?;
        if (&parent, &leaf) == (&to_parent, &to_leaf) {
            // Removed first, it would be gone.
            let is_there = self.kind(&join(&parent, &leaf))?.is_some();
            ensure!(is_there, "`{}` is a link to itself", shown(path));
            return Ok(());
        }
        let mut link = || -> Result<()> {
            let dir = rustix::io::fcntl_dupfd_cloexec(self.scope.dir(&parent)?, 0)?;
            remove(&dir, &leaf)?;
            let to = self.scope.dir(&to_parent)?;
            Ok(linkat(to, to_leaf.as_slice(), dir, leaf.as_slice(), AtFlags::empty())?)
        };
        link().with_context(|| format!("cannot link `{}` to `{}`", shown(path), shown(to)))
    }

    /// The folder that something is to be in, made if need be, and its name there.
    fn place(&mut self, path: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
        let resolved = self.scope.resolve(path, false)?;
        ensure!(!resolved.is_empty(), "the root folder cannot be replaced; name a path in it");
        ensure!(
            self.kind(&resolved)? != Some(FileType::Directory),
            "`{}` is a folder, and cannot be replaced by something else; remove it before",
            shown(&resolved)
        );
        let (parent, leaf) = split_leaf(&resolved);
        Ok((self.make_dirs(parent)?, leaf.to_vec()))
    }

    /// Sets the times of folders: when everything is in them.
    pub(super) fn finish(self) -> Result<()> {
        for (path, time) in self.times.iter().rev() {
            let (parent, leaf) = split_leaf(path);
            set_time(self.scope.dir(parent)?, leaf, Some(*time))
                .with_context(|| format!("cannot set the time of `{}`", shown(path)))?;
        }
        Ok(())
    }
}

/// Makes a new file in a folder; gives its name, too.
fn create(dir: BorrowedFd<'_>) -> Result<(File, String)> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let attempt = |number: u64| {
        let name = format!("{TEMPORARY}-{number}");
        match openat(dir, name.as_str(), flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::EXIST) => None,
            made => Some(made.map(|file| (File::from(file), name))),
        }
    };
    Ok((0..).find_map(attempt).context("there is one more number")??)
}

/// Says why something cannot be replaced.
fn mounted(error: anyhow::Error) -> anyhow::Error {
    if error.downcast_ref::<Errno>() == Some(&Errno::BUSY) {
        return error.context(
            "something is mounted there, which is no part of the image; choose another path, or do without the mount",
        );
    }
    error
}

/// Whether an attribute belongs to a file wherever it is: capabilities, and what users say of it, but not what the kernel notes in a
/// folder of an overlay.
pub(super) fn is_kept(name: &[u8]) -> bool {
    name == b"security.capability" || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
}

/// A path of the image, for messages.
pub(super) fn shown(path: &[u8]) -> String {
    format!("/{:.1000}", String::from_utf8_lossy(path).trim_start_matches('/'))
}

/// Sets owner and permissions of what is no link.
fn set(dir: impl std::os::fd::AsFd, leaf: &[u8], owner: Owner, mode: u32) -> Result<()> {
    own(&dir, leaf, owner)?;
    // Afterwards: another owner takes setuid and setgid away.
    Ok(chmodat(dir, leaf, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?)
}

fn own(dir: impl std::os::fd::AsFd, leaf: &[u8], Owner { uid, gid }: Owner) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    Ok(chownat(dir, leaf, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn set_xattrs(file: impl std::os::fd::AsFd, xattrs: &Xattrs) -> Result<()> {
    for (name, value) in xattrs.iter().filter(|(name, _)| is_kept(name)) {
        fsetxattr(&file, name.as_slice(), value, XattrFlags::empty())
            .with_context(|| format!("set {}", String::from_utf8_lossy(name)))?;
    }
    Ok(())
}

fn set_time(dir: impl std::os::fd::AsFd, leaf: &[u8], modified: Option<Time>) -> Result<()> {
    let Some(Time { seconds, nanoseconds }) = modified else { return Ok(()) };
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(dir, leaf, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn remove(dir: impl std::os::fd::AsFd, leaf: &[u8]) -> Result<()> {
    match unlinkat(dir, leaf, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
