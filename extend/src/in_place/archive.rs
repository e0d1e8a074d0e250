//! `ADD` unpacks archives: tars, plain or compressed by gzip, bzip2, xz or zstd.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _};

use anyhow::{Context as _, Result, bail, ensure};
use bzip2::bufread::MultiBzDecoder;
use drydock_encode::compress::{Format, decompressed};
use drydock_tar::{Archive, Entry, Kind, Member};
use lzma_rust2::XzReader;

use super::scope::{join, names};
use super::target::{Facts, Special, Target, shown};

/// Bytes of memory for an archive compressed by xz; `xz -9` takes half of that.
const MAX_XZ_MEMORY: u32 = 128 << 20;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed {
    /// As layers are, too.
    As(Format),
    Bzip2,
    Xz,
}

impl Packed {
    /// How the archive in a file is compressed; none if it is no archive, and is copied as it is.
    pub(super) fn of(file: &mut File) -> Result<Option<Self>> {
        let mut beginning = Vec::new();
        file.take(8).read_to_end(&mut beginning)?;
        let packed = match beginning.as_slice() {
            [0x1f, 0x8b, ..] => Self::As(Format::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::As(Format::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            _ => Self::As(Format::Plain),
        };
        file.rewind()?;
        let mut block = Vec::new();
        let read = packed.read(&*file)?.take(512).read_to_end(&mut block);
        file.rewind()?;
        // What cannot be decompressed is no archive either.
        if read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::OutOfMemory) {
            bail!(
                "it takes more than {MAX_XZ_MEMORY} bytes of memory to unpack it; compress it by `xz -9` at most, or add `--unpack=false`"
            );
        }
        let is_tar = read.is_ok() && block.len() == 512 && &block[257..262] == b"ustar";
        Ok(is_tar.then_some(packed))
    }

    /// What is in a file that is compressed so.
    fn read<'a>(self, file: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        let file = BufReader::new(file);
        Ok(match self {
            Self::As(format) => Box::new(decompressed(file, format)?),
            Self::Bzip2 => Box::new(MultiBzDecoder::new(file)),
            Self::Xz => Box::new(XzReader::new_mem_limit(file, true, MAX_XZ_MEMORY >> 10)),
        })
    }
}

/// Unpacks an archive into the folder `into`. What is in it has the owners and permissions that the archive says, whatever the folder
/// has. Links on the way are followed within the file system; no name leads out of it.
pub(super) fn unpack(file: impl Read, packed: Packed, into: &[u8], target: &mut Target<'_>) -> Result<()> {
    let mut archive = Archive::new(BufReader::new(packed.read(file)?));
    target.make_dirs(into)?;
    let mut target = Target::new(target.scope, None, None);
    while let Some(Member { entry, mut contents }) = archive.read_next()? {
        let name = String::from_utf8_lossy(entry.name).into_owned();
        unpack_one(&entry, &mut contents, into, &mut target)
            .with_context(|| format!("`{name:.300}` of the archive"))?;
    }
    target.finish()
}

/// Makes one entry, below the folder `into`.
pub(super) fn unpack_one(
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
        Kind::Dir => target.dir(&path, &facts),
        Kind::File { .. } => target.file(&path, contents, &facts),
        Kind::Symlink { target: to } => target.special(&path, Special::Symlink(to), &facts),
        Kind::HardLink { target: to } => target.hard_link(into, &below, &clean(to)?),
        Kind::Fifo => target.special(&path, Special::Fifo, &facts),
        Kind::CharDevice(device) => target.special(&path, Special::CharDevice(device), &facts),
        Kind::BlockDevice(device) => target.special(&path, Special::BlockDevice(device), &facts),
    }
}

/// A name without what means nothing.
pub(super) fn clean(name: &[u8]) -> Result<Vec<u8>> {
    let mut path = Vec::new();
    for name in names(name) {
        ensure!(name != b"..", "`{}` leads out of the folder that it is unpacked to", shown(name));
        path = join(&path, name);
    }
    Ok(path)
}
