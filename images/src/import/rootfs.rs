//! A plain file tree as an image of one layer.
//!
//! Of a tar, entries are kept as they are. A folder is archived in the order of its names: with owners if the process may be
//! anybody, else all is root's; a file's further names are hard links to the first one; extended attributes are those of files
//! and folders that mean the same everywhere: capabilities, and what programs have noted.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use drydock_encode::compress::decompressed;
use drydock_io::sink::Sink;
use drydock_layout::Transaction;
use drydock_model::config::{History, ImageConfig};
use drydock_model::manifest::{Annotations, Descriptor, Manifest};
use drydock_model::media;
use drydock_model::platform::Platform;
use drydock_tar::{
    Archive, Device, Entry, Found, Kind, Member, Owner, Time, Walk, Whiteout, Xattrs, open_file,
    write_contents, write_end, write_padding,
};
use rustix::buffer::spare_capacity;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, openat, readlinkat, statat,
};
use rustix::io::Errno;

use super::Options;
use super::archive::{Watched, format_of};
use super::error::SourceError;
use crate::files::{Files, MAX_PATH};
use crate::watch::Watch;
use crate::write;

/// What made the layer, for the history.
const MADE_BY: &str = "drydock import rootfs";

/// When images were made of which that does not matter, as buildpacks have it.
const CREATED: &str = "1980-01-01T00:00:01Z";

/// Bytes of an extended attribute, and of the names of a file's: what Linux takes.
const MOST_ATTRIBUTES: usize = 64 << 10;

/// Attributes of programs' own, which are about this disk.
const OWN: [&[u8]; 2] = [b"user.drydock.", b"user.overlay."];

/// Writes all but the name.
pub(super) fn write(
    path: &Path,
    transaction: &Transaction,
    options: &Options,
    watch: &dyn Watch,
) -> Result<Descriptor> {
    let read = || format!("cannot read `{}`", path.display());
    let facts = fs::metadata(path).with_context(read)?;
    if facts.is_dir() {
        check_apart(path, &transaction.blobs_dir())?;
    }
    watch.begin("importing", if facts.is_dir() { 0 } else { facts.len() });
    let source = |sink: &mut dyn Sink| {
        let written = if facts.is_dir() { folder(path, sink, watch) } else { tar(path, sink, watch) };
        written.with_context(read)
    };
    let layer = write::layer(&source, transaction, options.write)?;
    watch.end();
    let diff_id = layer.diff_id;
    let layer = layer.put(transaction)?;
    let platform = options.platforms.first().cloned().unwrap_or_else(Platform::host);
    let created = Some(CREATED.to_owned());
    let mut config = ImageConfig {
        created: created.clone(),
        history: vec![History { created, created_by: MADE_BY.to_owned(), ..History::default() }],
        ..ImageConfig::empty(&platform)
    };
    config.rootfs.diff_ids.push(diff_id);
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::MANIFEST.to_owned(),
        config: transaction.put_bytes(media::CONFIG, &serde_json::to_vec(&config)?)?,
        layers: vec![layer],
        annotations: Annotations::new(),
        rest: serde_json::Map::new(),
    };
    let root = transaction.put_bytes(media::MANIFEST, &serde_json::to_vec(&manifest)?)?;
    Ok(Descriptor { platform: Some(platform), ..root })
}

/// Fails if a folder has what is being written in it.
fn check_apart(path: &Path, blobs: &Path) -> Result<()> {
    let real =
        |path: &Path| fs::canonicalize(path).with_context(|| format!("cannot read `{}`", path.display()));
    let (path, blobs) = (real(path)?, real(blobs)?);
    ensure!(
        !blobs.starts_with(&path),
        "the new image would lie in the folder that it is made of: choose a layout repository outside of `{}`",
        path.display()
    );
    Ok(())
}

/// Copies the entries of a tar, each of which must be one that a layer may have.
fn tar(path: &Path, sink: &mut dyn Sink, watch: &dyn Watch) -> Result<()> {
    let file = drydock_io::read::open(path)?;
    let format = format_of(&file)?;
    let input = BufReader::with_capacity(256 << 10, Watched { inner: file, watch });
    let input = BufReader::with_capacity(256 << 10, decompressed(input, format)?);
    let mut archive = Archive::new(input);
    let (mut files, mut number) = (Files::new(), 0);
    while let Some(Member { entry, mut contents }) = archive.read_next().map_err(SourceError::Tar)? {
        let refused = |reason| SourceError::entry(entry.name, reason);
        files.apply(0, number, &entry, None).map_err(refused)?;
        number += 1;
        entry.write(sink)?;
        loop {
            let piece =
                contents.fill_buf().map_err(drydock_tar::ArchiveError::Read).map_err(SourceError::Tar)?;
            if piece.is_empty() {
                break;
            }
            sink.write_all(piece)?;
            let n = piece.len();
            contents.consume(n);
        }
        if let Kind::File { size } = entry.kind {
            write_padding(size, sink)?;
        }
    }
    // What follows the archive must be in order, too.
    crate::layer::drain(&mut archive.into_inner())
        .map_err(|source| SourceError::Compression { path: path.to_owned(), source })?;
    write_end(sink)?;
    Ok(())
}

/// Archives a folder.
fn folder(path: &Path, sink: &mut dyn Sink, watch: &dyn Watch) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, path, flags, Mode::empty())?;
    let mut walk = Walk::new(path, root)?;
    let keeps_owners = rustix::process::geteuid().is_root();
    let name = RefCell::new(Vec::new());
    // Of files that have several names: the first one. They are few.
    let mut first_names: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let full = || path.join(std::ffi::OsStr::from_bytes(&name.borrow()));
    while let Some(Found { dir, path: above, leaf, file_type }) = walk.find_next()? {
        watch.advance(0)?;
        let slash: &[u8] = if above.is_empty() || leaf.is_empty() { b"" } else { b"/" };
        *name.borrow_mut() = [above, slash, leaf].concat();
        // In a layer, it would take away another file.
        ensure!(Whiteout::of(leaf).is_none(), "`{}` has the name of a whiteout", full().display());
        ensure!(
            name.borrow().len() <= MAX_PATH,
            "`{:.300}` has a path of more than {MAX_PATH} bytes",
            full().display()
        );
        let failed = || format!("cannot read `{}`", full().display());
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        let stat = statat(dir, leaf, flags).with_context(failed)?;
        let (kind, target);
        let mut contents: Option<File> = None;
        let mut xattrs = Xattrs::new();
        match file_type {
            FileType::Directory => {
                name.borrow_mut().push(b'/');
                xattrs = attributes(dir).with_context(failed)?;
                kind = Kind::Dir;
            }
            FileType::RegularFile if first_names.contains_key(&(stat.st_dev, stat.st_ino)) => {
                target = first_names[&(stat.st_dev, stat.st_ino)].clone();
                kind = Kind::HardLink { target: &target };
            }
            FileType::RegularFile => {
                let file = File::from(open_file(dir, leaf).with_context(failed)?);
                xattrs = attributes(&file).with_context(failed)?;
                kind = Kind::File { size: file.metadata().with_context(failed)?.len() };
                contents = Some(file);
                if stat.st_nlink > 1 {
                    first_names.insert((stat.st_dev, stat.st_ino), name.borrow().clone());
                }
            }
            FileType::Symlink => {
                target = readlinkat(dir, leaf, Vec::new()).with_context(failed)?.into_bytes();
                kind = Kind::Symlink { target: &target };
            }
            FileType::Fifo => kind = Kind::Fifo,
            FileType::CharacterDevice => kind = Kind::CharDevice(device(&stat)),
            FileType::BlockDevice => kind = Kind::BlockDevice(device(&stat)),
            // Sockets are of those who listen.
            _ => {
                watch.note(&format!("`{}` is left out: it is a socket", full().display()));
                continue;
            }
        }
        let owner = if keeps_owners { Owner { uid: stat.st_uid, gid: stat.st_gid } } else { Owner::ROOT };
        let modified = Time { seconds: stat.st_mtime, nanoseconds: 0 };
        let mode = stat.st_mode & 0o7777;
        Entry { name: &name.borrow(), kind, mode, owner, modified, xattrs: &xattrs }.write(sink)?;
        if let (Some(file), Kind::File { size }) = (contents, kind) {
            write_contents(&file, size, sink, &full)?;
        }
    }
    write_end(sink)?;
    Ok(())
}

/// The extended attributes that mean the same on every machine.
fn attributes(file: impl AsFd) -> rustix::io::Result<Xattrs> {
    let mut names = Vec::with_capacity(MOST_ATTRIBUTES);
    match flistxattr(&file, spare_capacity(&mut names)) {
        Err(Errno::NOTSUP) => return Ok(Xattrs::new()),
        listed => listed?,
    };
    let is_kept = |name: &&[u8]| {
        *name == b"security.capability"
            || name.starts_with(b"user.") && !OWN.iter().any(|own| name.starts_with(own))
    };
    let mut found = Xattrs::new();
    for name in names.split(|byte| *byte == 0).filter(is_kept) {
        let mut value = Vec::with_capacity(MOST_ATTRIBUTES);
        match fgetxattr(&file, name, spare_capacity(&mut value)) {
            // Gone meanwhile.
            Err(Errno::NODATA) => continue,
            read => read?,
        };
        value.shrink_to_fit();
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}

fn device(stat: &Stat) -> Device {
    Device { major: rustix::fs::major(stat.st_rdev), minor: rustix::fs::minor(stat.st_rdev) }
}
