//! `ADD` unpacks archives: tars, plain or compressed by gzip or zstd.

use std::fs::File;
use std::io::{BufReader, Read, Seek as _};

use anyhow::{Context as _, Result, bail, ensure};
use drydock_encode::compress::{Format, decompressed};
use drydock_tar::{Archive, Entry, Kind, Member};

use super::scope::{join, names};
use super::target::{Facts, Special, Target, shown};

/// How the archive in a file is compressed; none if it is no archive, and is copied as it is.
pub(super) fn format_of(file: &mut File) -> Result<Option<Format>> {
    let mut beginning = Vec::new();
    file.take(8).read_to_end(&mut beginning)?;
    let format = match beginning.as_slice() {
        [0x1f, 0x8b, ..] => Format::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Format::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            bail!("it is compressed by xz, which is not supported; {INSTEAD}")
        }
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => {
            bail!("it is compressed by bzip2, which is not supported; {INSTEAD}")
        }
        _ => Format::Plain,
    };
    file.rewind()?;
    let mut block = Vec::new();
    let read = decompressed(BufReader::new(&mut *file), format)?.take(512).read_to_end(&mut block);
    file.rewind()?;
    // What cannot be decompressed is no archive either.
    let is_tar = read.is_ok() && block.len() == 512 && &block[257..262] == b"ustar";
    Ok(is_tar.then_some(format))
}

const INSTEAD: &str = "compress it by gzip or zstd, or add `--unpack=false`";

/// Unpacks an archive into the folder `into`. What is in it has the owners and permissions that the archive says, whatever the folder
/// has. Links on the way are followed within the file system; no name leads out of it.
pub(super) fn unpack(file: File, format: Format, into: &[u8], target: &mut Target<'_>) -> Result<()> {
    let input = BufReader::new(decompressed(BufReader::new(file), format)?);
    let mut archive = Archive::new(input);
    target.make_dirs(into)?;
    let mut target = Target::new(target.scope, None, None);
    while let Some(Member { entry, mut contents }) = archive.read_next()? {
        let name = String::from_utf8_lossy(entry.name).into_owned();
        unpack_one(&entry, &mut contents, into, &mut target)
            .with_context(|| format!("`{name}` of the archive"))?;
    }
    target.finish()
}

fn unpack_one(
    entry: &Entry<'_>,
    contents: &mut dyn Read,
    into: &[u8],
    target: &mut Target<'_>,
) -> Result<()> {
    let below = clean(entry.name)?;
    let path = join(into, &below);
    let facts =
        Facts { mode: entry.mode, owner: entry.owner, modified: Some(entry.modified), xattrs: entry.xattrs };
    if below.is_empty() {
        ensure!(entry.kind == Kind::Dir, "it has no name");
        return Ok(());
    }
    match entry.kind {
        Kind::Dir => target.dir(&path, &facts, true),
        Kind::File { .. } => target.file(&path, contents, &facts),
        Kind::Symlink { target: to } => target.special(&path, Special::Symlink(to), &facts),
        Kind::HardLink { target: to } => target.hard_link(into, &below, &clean(to)?),
        Kind::Fifo => target.special(&path, Special::Fifo, &facts),
        Kind::CharDevice(device) => target.special(&path, Special::CharDevice(device), &facts),
        Kind::BlockDevice(device) => target.special(&path, Special::BlockDevice(device), &facts),
    }
}

/// A name without what means nothing.
fn clean(name: &[u8]) -> Result<Vec<u8>> {
    let mut path = Vec::new();
    for name in names(name) {
        ensure!(name != b"..", "`{}` leads out of the folder that it is unpacked to", shown(name));
        path = join(&path, name);
    }
    Ok(path)
}
