//! Tar files as folders: what is in them by name, read wherever it lies. Nothing is unpacked, so that no name leads
//! anywhere.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use drydock_encode::compress::{Format, decompressed};
use drydock_io::read::ReadAt;
use drydock_tar::{Archive as Tar, Kind, Member};

use super::error::SourceError;
use super::store::{Files, Stored};
use crate::watch::Watch;

/// An archive may have so many entries.
pub const MAX_ENTRIES: usize = 100_000;

/// The name of an entry may have so many bytes.
pub const MAX_NAME: usize = 512;

/// An archive that is compressed may have so many bytes without that: so many are on the disk meanwhile.
pub const MAX_UNPACKED: u64 = 1 << 38;

/// Links that are followed from a name to a file.
const MAX_LINKS: usize = 8;

/// A tar file, and where in it everything is.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    file: Arc<File>,
    entries: BTreeMap<String, Place>,
}

#[derive(Debug)]
enum Place {
    File {
        at: u64,
        size: u64,
    },
    /// Another entry's name.
    Link(String),
}

/// Which names entries may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Only such as begin at the archive's own root.
    Relative,
    /// Those that begin with a slash mean the same.
    Any,
}

impl Names {
    fn of(self, entry: &[u8]) -> Result<String, SourceError> {
        let slashes = entry.iter().take_while(|byte| self == Self::Any && **byte == b'/').count();
        name(entry, &entry[slashes..])
    }
}

impl Archive {
    /// Reads the headers of a tar file. One that is compressed is first decompressed into a file without a name in the
    /// folder `scratch`.
    pub(super) fn open(path: &Path, scratch: &Path, names: Names, watch: &dyn Watch) -> Result<Self> {
        let read = || format!("cannot read `{}`", path.display());
        let file = drydock_io::read::open(path).with_context(read)?;
        let file = match format_of(&file).with_context(read)? {
            Format::Plain => file,
            format => unpacked(&file, format, path, scratch, watch)?,
        };
        Self::index(path, file, names).with_context(read)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn index(path: &Path, file: File, names: Names) -> Result<Self> {
        let length = file.metadata()?.len();
        let mut entries = BTreeMap::new();
        let mut next = 0;
        loop {
            let input = BufReader::with_capacity(4096, ReadAt { file: &file, at: next });
            let mut tar = Tar::new(input);
            let Some(Member { entry, .. }) = tar.read_next().map_err(SourceError::Tar)? else { break };
            let place = match entry.kind {
                Kind::File { size } => Some(Place::File { at: 0, size }),
                Kind::HardLink { target } => Some(Place::Link(name(target, target)?)),
                Kind::Symlink { target } => Some(Place::Link(beside(entry.name, target)?)),
                Kind::Dir => None,
                _ => {
                    return Err(
                        SourceError::entry(entry.name, "is neither a file nor a folder nor a link").into()
                    );
                }
            };
            let known = if place.is_some() { Some(names.of(entry.name)?) } else { None };
            let input = tar.into_inner();
            let at = input.get_ref().at - input.buffer().len() as u64;
            let size = if let Some(Place::File { size, .. }) = place { size } else { 0 };
            let end = at.checked_add(size).filter(|&end| end <= length);
            let end = end.ok_or(SourceError::Truncated { size, left: length.saturating_sub(at) })?;
            next = end.next_multiple_of(512);
            if let (Some(place), Some(known)) = (place, known) {
                let place = if let Place::File { .. } = place { Place::File { at, size } } else { place };
                if entries.len() == MAX_ENTRIES {
                    return Err(SourceError::entry(known.as_bytes(), "is one too many").into());
                }
                if entries.contains_key(&known) {
                    return Err(SourceError::entry(known.as_bytes(), "comes twice").into());
                }
                entries.insert(known, place);
            }
        }
        Ok(Self { path: path.to_owned(), file: Arc::new(file), entries })
    }

    fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = name;
        for _ in 0..=MAX_LINKS {
            match self.entries.get(name)? {
                Place::File { at, size } => return Some((*at, *size)),
                Place::Link(target) => name = target,
            }
        }
        None
    }
}

impl Files for Archive {
    fn open(&self, name: &str) -> Result<Option<Stored<'_>>> {
        Ok(self.find(name).map(|(at, size)| {
            let reader: Box<dyn Read + Send> =
                Box::new(ReadAt { file: Arc::clone(&self.file), at }.take(size));
            Stored { reader, size }
        }))
    }
}

/// How a file begins.
pub(crate) fn format_of(file: &File) -> io::Result<Format> {
    let mut magic = Vec::new();
    ReadAt { file, at: 0 }.take(4).read_to_end(&mut magic)?;
    Ok(format_of_bytes(&magic))
}

/// How bytes are compressed that begin like this.
pub(super) fn format_of_bytes(bytes: &[u8]) -> Format {
    match bytes {
        [0x1f, 0x8b, ..] => Format::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Format::Zstd,
        _ => Format::Plain,
    }
}

/// What is in a compressed file, as a file that goes with its handle.
fn unpacked(file: &File, format: Format, path: &Path, scratch: &Path, watch: &dyn Watch) -> Result<File> {
    let write = || format!("cannot write to `{}`", scratch.display());
    watch.begin("decompressing", file.metadata()?.len());
    let mut to = tempfile::tempfile_in(scratch).with_context(write)?;
    let read = Watched { inner: ReadAt { file, at: 0 }, watch };
    let input = decompressed(BufReader::with_capacity(256 << 10, read), format)?;
    let mut input = BufReader::with_capacity(256 << 10, input.take(MAX_UNPACKED + 1));
    let mut size = 0;
    loop {
        let piece = input.fill_buf();
        let piece = piece.map_err(|source| SourceError::Compression { path: path.to_owned(), source })?;
        if piece.is_empty() {
            break;
        }
        size += piece.len() as u64;
        if size > MAX_UNPACKED {
            return Err(SourceError::TooLarge { limit: MAX_UNPACKED }.into());
        }
        to.write_all(piece).with_context(write)?;
        let n = piece.len();
        input.consume(n);
    }
    to.rewind()?;
    watch.end();
    Ok(to)
}

/// A reader that says how far it is.
pub(crate) struct Watched<'a, R> {
    pub(crate) inner: R,
    pub(crate) watch: &'a dyn Watch,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.watch.advance(n as u64)?;
        Ok(n)
    }
}

/// An entry's name without `./`. What may not stand in an archive of images is an error.
fn name(entry: &[u8], text: &[u8]) -> Result<String, SourceError> {
    let refused = |reason| SourceError::entry(entry, reason);
    if text.len() > MAX_NAME {
        return Err(refused("has too long a name"));
    }
    let text = std::str::from_utf8(text).map_err(|_| refused("has a name that is not UTF-8"))?;
    if text.starts_with('/') {
        return Err(refused("has an absolute name or target"));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(refused("has a `..` that leads out of the archive"));
    }
    Ok(parts.join("/"))
}

/// The name that a symlink leads to.
fn beside(entry: &[u8], target: &[u8]) -> Result<String, SourceError> {
    let refused = |reason| SourceError::entry(entry, reason);
    let entry_name = name(entry, entry)?;
    let target = std::str::from_utf8(target).map_err(|_| refused("leads to a name that is not UTF-8"))?;
    if target.starts_with('/') {
        return Err(refused("has an absolute name or target"));
    }
    let mut parts: Vec<&str> = entry_name.split('/').collect();
    parts.pop();
    for part in target.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            parts.pop().ok_or_else(|| refused("has a `..` that leads out of the archive"))?;
        } else {
            parts.push(part);
        }
    }
    Ok(parts.join("/"))
}

/// The nearest folder above a path that is there, for files that are needed for a while.
pub(super) fn scratch_near(path: &Path) -> PathBuf {
    let is_there = |dir: &&Path| dir.is_dir();
    path.ancestors().find(is_there).unwrap_or(Path::new("/")).to_owned()
}
