//! Changes of a file system as the tar of a layer.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use drydock_io::sink::Sink;
use drydock_tar::{
    Entry, Kind, NO_XATTRS, Owner, Time, Whiteout, Xattrs, open_file, split_leaf, write_contents, write_end,
};
use rustix::fs::{FileType, Mode, OFlags, fgetxattr, flistxattr, openat, readlinkat};
use rustix::io::Errno;

use super::scope::{Scope, join};
use super::snapshot::{Change, Look};
use super::target::{is_kept, shown};

/// Writes the layer. Times are whole seconds, and none is after `latest`.
pub(super) fn write(root: &Path, changes: &[Change], latest: Option<i64>, sink: &mut dyn Sink) -> Result<()> {
    let mut writer = Writer { scope: Scope::open(root)?, latest, links: HashMap::new() };
    for change in changes {
        match change {
            Change::There(path, look) => {
                writer
                    .there(path, look, sink)
                    .with_context(|| format!("cannot put `{}` into the layer", shown(path)))?;
            }
            Change::Gone(path) => {
                let (parent, leaf) = split_leaf(path);
                whiteout(parent, Whiteout::Name(leaf), sink)?;
            }
            Change::Emptied(path) => whiteout(path, Whiteout::Opaque, sink)?,
        }
    }
    Ok(write_end(sink)?)
}

fn whiteout(dir: &[u8], whiteout: Whiteout<'_>, sink: &mut dyn Sink) -> Result<()> {
    let entry = Entry {
        name: &join(dir, &whiteout.leaf()),
        kind: Kind::File { size: 0 },
        mode: 0,
        owner: Owner::ROOT,
        modified: Time { seconds: 0, nanoseconds: 0 },
        xattrs: NO_XATTRS,
    };
    Ok(entry.write(sink)?)
}

struct Writer {
    scope: Scope,
    latest: Option<i64>,
    /// The first name of each file that has several.
    links: HashMap<((u32, u32), u64), Vec<u8>>,
}

impl Writer {
    fn there(&mut self, path: &[u8], look: &Look, sink: &mut dyn Sink) -> Result<()> {
        let (parent, leaf) = split_leaf(path);
        ensure!(
            Whiteout::of(leaf).is_none(),
            "a name that begins with `.wh.` says in a layer that something is gone; remove the file, or call it otherwise"
        );
        let mut entry = self.entry(path, look);
        let dir = self.scope.dir(parent)?;
        match look.file_type {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let xattrs = xattrs(openat(dir, leaf, flags, Mode::empty())?)?;
                let name = [path, b"/"].concat();
                Ok(Entry { name: &name, kind: Kind::Dir, xattrs: &xattrs, ..entry }.write(sink)?)
            }
            FileType::Symlink => {
                let target = readlinkat(dir, leaf, Vec::new())?;
                entry.mode = 0o777;
                Ok(Entry { kind: Kind::Symlink { target: target.as_bytes() }, ..entry }.write(sink)?)
            }
            FileType::RegularFile => {
                if look.links > 1 {
                    if let Some(target) = self.links.get(&(look.of_device, look.inode)) {
                        return Ok(Entry { kind: Kind::HardLink { target }, ..entry }.write(sink)?);
                    }
                    self.links.insert((look.of_device, look.inode), path.to_vec());
                }
                let dir = self.scope.dir(parent)?;
                let file = File::from(open_file(dir, leaf)?);
                let metadata = file.metadata()?;
                ensure!(metadata.is_file() && metadata.ino() == look.inode, "it was replaced meanwhile");
                let xattrs = xattrs(&file)?;
                let size = look.size;
                Entry { kind: Kind::File { size }, xattrs: &xattrs, ..entry }.write(sink)?;
                write_contents(&file, size, sink, &|| PathBuf::from(shown(path)))?;
                Ok(())
            }
            FileType::Fifo => Ok(Entry { kind: Kind::Fifo, ..entry }.write(sink)?),
            FileType::CharacterDevice => {
                Ok(Entry { kind: Kind::CharDevice(look.device), ..entry }.write(sink)?)
            }
            FileType::BlockDevice => Ok(Entry { kind: Kind::BlockDevice(look.device), ..entry }.write(sink)?),
            FileType::Socket | FileType::Unknown => bail!("it is of a kind that no layer has"),
        }
    }

    fn entry<'a>(&self, path: &'a [u8], look: &Look) -> Entry<'a> {
        let seconds = look.modified.seconds.max(0);
        let seconds = self.latest.map_or(seconds, |latest| seconds.min(latest));
        Entry {
            name: path,
            kind: Kind::Fifo,
            mode: look.mode,
            owner: look.owner,
            modified: Time { seconds, nanoseconds: 0 },
            xattrs: NO_XATTRS,
        }
    }
}

/// Bytes in a list of attributes or in a value, as the kernel limits them.
const MOST: usize = 64 << 10;

/// The attributes of a file that belong into a layer.
pub(super) fn xattrs(file: impl AsFd) -> Result<Xattrs> {
    let mut list = Vec::with_capacity(1 << 10);
    let listed = loop {
        list.clear();
        match flistxattr(&file, rustix::buffer::spare_capacity(&mut list)) {
            Err(Errno::RANGE) if list.capacity() < MOST => list.reserve(MOST),
            Err(Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
            other => break other,
        }
    };
    listed.context("list extended attributes")?;
    let mut xattrs = Xattrs::new();
    for name in list.split(|&byte| byte == 0) {
        if !is_kept(name) {
            continue;
        }
        let mut value = Vec::with_capacity(MOST);
        match fgetxattr(&file, name, rustix::buffer::spare_capacity(&mut value)) {
            Err(Errno::NODATA) => continue,
            other => other.context("read an extended attribute")?,
        };
        xattrs.insert(name.to_vec(), value);
    }
    Ok(xattrs)
}
