//! Trees of files: a folder, a tar, compressed or not, or a zip file. Each file comes by a name that stays within the tree, after the
//! folders that it lies in, whoever made it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use drydock_encode::compress::decompressed;
use drydock_io::file::is_temporary;
use drydock_io::lock::Identity;
use drydock_io::sink::Sink;
use drydock_tar::{Archive, Found, Kind, Member as TarMember, Time, Walk, Whiteout, open_file};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, readlinkat, statat};

use super::zip;
use crate::files::MAX_PATH;
use crate::import::SourceError;
use crate::import::{Watched, format_of};
use crate::layer::drain;
use crate::watch::Watch;

/// A buildpack may have so many files.
pub const MAX_FILES: usize = 1_000_000;

/// The files of a buildpack may have so many bytes together.
pub const MAX_BYTES: u64 = 64 << 30;

/// A tree of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tree {
    /// Without these folders and files in it.
    Folder(PathBuf, Vec<Identity>),
    Tar(PathBuf),
    Zip(PathBuf),
}

/// A file of a tree.
#[derive(Debug)]
pub(super) struct Member<'a> {
    /// From the root of the tree: names joined with slashes.
    pub(super) path: &'a [u8],
    pub(super) kind: MemberKind<'a>,
    /// Whether anybody may run it.
    pub(super) executable: bool,
    /// Permissions, and when it was changed, as an archive has them.
    pub(super) facts: Option<(u32, Time)>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum MemberKind<'a> {
    File {
        size: u64,
    },
    Dir,
    /// As it was made: anything.
    Symlink {
        target: &'a [u8],
    },
    /// A file that came before, as a path in the tree.
    HardLink {
        target: &'a [u8],
    },
}

/// Takes a file, with what is in it.
pub(super) type Visit<'v> = dyn FnMut(&Member<'_>, &mut dyn Read) -> Result<()> + 'v;

impl Tree {
    /// What is at a path.
    pub(super) fn at(path: &Path) -> Result<Self> {
        let facts = fs::metadata(path).with_context(|| format!("cannot find `{}`", path.display()))?;
        if facts.is_dir() {
            return Ok(Self::Folder(path.to_owned(), Vec::new()));
        }
        let mut magic = Vec::new();
        let read = drydock_io::read::open(path).and_then(|file| file.take(4).read_to_end(&mut magic));
        read.with_context(|| format!("cannot read `{}`", path.display()))?;
        Ok(if zip::is_zip(&magic) { Self::Zip(path.to_owned()) } else { Self::Tar(path.to_owned()) })
    }

    /// Of a folder, all but these folders and files.
    pub(super) fn without(mut self, left_out: impl IntoIterator<Item = Identity>) -> Self {
        if let Self::Folder(_, without) = &mut self {
            without.extend(left_out);
        }
        self
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Folder(path, _) | Self::Tar(path) | Self::Zip(path) => path,
        }
    }

    /// Gives every file to `visit`: a folder's in the order of their names, an archive's in the order that they have there.
    pub(super) fn visit(&self, watch: &dyn Watch, visit: &mut Visit<'_>) -> Result<()> {
        let visited = match self {
            Self::Folder(path, without) => folder(path, without, watch, visit),
            Self::Tar(path) => tar(path, watch, visit),
            Self::Zip(path) => zip::visit(path, watch, visit),
        };
        visited.with_context(|| format!("cannot use `{}`", self.path().display()))
    }
}

fn tar(path: &Path, watch: &dyn Watch, visit: &mut Visit<'_>) -> Result<()> {
    let file = drydock_io::read::open(path)?;
    let format = format_of(&file)?;
    let input = BufReader::with_capacity(256 << 10, Watched { inner: file, watch });
    let mut archive = Archive::new(BufReader::with_capacity(256 << 10, decompressed(input, format)?));
    let mut guard = Guard::default();
    while let Some(TarMember { entry, mut contents }) = archive.read_next().map_err(SourceError::Tar)? {
        let refused = |reason| SourceError::entry(entry.name, reason);
        let path = guard.admit(entry.name, &entry.kind).map_err(refused)?;
        let target;
        let kind = match entry.kind {
            Kind::File { size } => MemberKind::File { size },
            Kind::Dir => MemberKind::Dir,
            Kind::Symlink { target } => MemberKind::Symlink { target },
            Kind::HardLink { target: name } => {
                target = clean(name).map_err(refused)?;
                MemberKind::HardLink { target: &target }
            }
            Kind::Fifo | Kind::CharDevice(_) | Kind::BlockDevice(_) => continue,
        };
        if !path.is_empty() {
            let facts = Some((entry.mode, entry.modified));
            visit(&Member { path: &path, kind, executable: entry.mode & 0o111 != 0, facts }, &mut contents)?;
        }
    }
    // What follows the archive must be in order, too.
    drain(&mut archive.into_inner())
        .map_err(|source| SourceError::Compression { path: path.to_owned(), source })?;
    Ok(())
}

fn folder(path: &Path, without: &[Identity], watch: &dyn Watch, visit: &mut Visit<'_>) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, path, flags, Mode::empty())?;
    let mut walk = Walk::new(path, root)?;
    let mut guard = Guard::default();
    let is_left_out = |dir: BorrowedFd<'_>, leaf: &[u8]| {
        let found = statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW);
        found.is_ok_and(|found| without.contains(&Identity::from(&found)))
    };
    let mut enters = |dir: BorrowedFd<'_>, _: &[u8], leaf: &[u8]| !is_left_out(dir, leaf);
    while let Some(Found { dir, path: above, leaf, file_type }) = walk.find_next_where(&mut enters)? {
        watch.advance(0)?;
        // The package itself may be about to be written there.
        if !leaf.is_empty() && (is_left_out(dir, leaf) || is_temporary(OsStr::from_bytes(leaf), "")) {
            continue;
        }
        let slash: &[u8] = if above.is_empty() || leaf.is_empty() { b"" } else { b"/" };
        let name = [above, slash, leaf].concat();
        let failed = || format!("cannot read `{}`", path.join(OsStr::from_bytes(&name)).display());
        let (mut contents, mut executable) = (None, false);
        let target;
        let kind = match file_type {
            FileType::Directory => Kind::Dir,
            FileType::RegularFile => {
                let file = File::from(open_file(dir, leaf).with_context(failed)?);
                let facts = file.metadata().with_context(failed)?;
                executable = std::os::unix::fs::MetadataExt::mode(&facts) & 0o111 != 0;
                contents = Some(file);
                Kind::File { size: facts.len() }
            }
            FileType::Symlink => {
                target = readlinkat(dir, leaf, Vec::new()).with_context(failed)?.into_bytes();
                Kind::Symlink { target: &target }
            }
            // Whatever else it is, it is refused.
            _ => Kind::Fifo,
        };
        let name = guard.admit(&name, &kind).map_err(|reason| SourceError::entry(&name, reason))?;
        let kind = match kind {
            Kind::File { size } => MemberKind::File { size },
            Kind::Symlink { target } => MemberKind::Symlink { target },
            _ => MemberKind::Dir,
        };
        let member = Member { path: &name, kind, executable, facts: None };
        match contents {
            Some(file) => visit(&member, &mut Watched { inner: file, watch })?,
            None => visit(&member, &mut std::io::empty())?,
        }
    }
    Ok(())
}

/// Copies the contents of a file of this size.
pub(super) fn copy(contents: &mut dyn Read, size: u64, sink: &mut dyn Sink) -> Result<()> {
    let mut left = size;
    while left > 0 {
        let space = sink.space()?;
        let wanted = usize::try_from(left).map_or(space.len(), |left| left.min(space.len()));
        let n = match contents.read(&mut space[..wanted]) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            n => n?,
        };
        anyhow::ensure!(n > 0, "it has become shorter while it was read");
        sink.advance(n);
        left -= n as u64;
    }
    Ok(())
}

/// Which files there were, lest one lies where another one leads to.
#[derive(Debug, Default)]
pub(super) struct Guard {
    known: HashMap<Vec<u8>, Known>,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Dir,
    File,
    Link,
}

impl Guard {
    /// The path of an entry of this name, without a slash at either end; or why it is refused.
    pub(super) fn admit(&mut self, name: &[u8], kind: &Kind<'_>) -> Result<Vec<u8>, &'static str> {
        let path = clean(name)?;
        let (known, size) = match kind {
            Kind::File { size } => (Known::File, *size),
            Kind::Dir => (Known::Dir, 0),
            Kind::Symlink { .. } => (Known::Link, 0),
            Kind::HardLink { target } => match self.known.get(&clean(target)?) {
                Some(Known::File) => (Known::File, 0),
                _ => return Err("is a hard link to something that is not there"),
            },
            Kind::Fifo | Kind::CharDevice(_) | Kind::BlockDevice(_) => {
                return Err("is neither a file nor a folder nor a link");
            }
        };
        if path.is_empty() {
            return if known == Known::Dir { Ok(path) } else { Err("has no name") };
        }
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            match self.known.get(&path[..at]) {
                Some(Known::Dir) => {}
                Some(_) => return Err("lies in something that is no folder"),
                None => {
                    self.known.insert(path[..at].to_vec(), Known::Dir);
                }
            }
        }
        match self.known.insert(path.clone(), known) {
            None => {}
            Some(Known::Dir) if known == Known::Dir => {}
            Some(_) => return Err("comes twice"),
        }
        self.bytes = self.bytes.saturating_add(size);
        if self.known.len() > MAX_FILES {
            return Err("is one file too many");
        }
        if self.bytes > MAX_BYTES {
            return Err("is too large, with all that comes before it");
        }
        Ok(path)
    }
}

/// A name as names joined with slashes.
fn clean(name: &[u8]) -> Result<Vec<u8>, &'static str> {
    if name.len() > MAX_PATH {
        return Err("has too long a name");
    }
    let parts: Vec<&[u8]> =
        name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        return Err("has a `..`");
    }
    // In a layer, it would take away what lower layers have.
    if parts.iter().any(|part| Whiteout::of(part).is_some()) {
        return Err("has the name of a whiteout");
    }
    Ok(parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use drydock_tar::Device;

    use super::*;

    type Named<'a> = (&'a str, Kind<'a>);

    #[test]
    fn names_stay_within_the_tree() {
        let file = Kind::File { size: 1 };
        let link = Kind::Symlink { target: b"/etc" };
        let hard = |target: &'static str| Kind::HardLink { target: target.as_bytes() };
        let device = Kind::CharDevice(Device { major: 1, minor: 3 });
        let cases: [(&[Named<'_>], Option<&str>); 19] = [
            (&[("./", Kind::Dir), ("./a", file), ("/b/c", file)], None),
            (&[("a", Kind::Dir), ("a/", Kind::Dir), ("a/b", file)], None),
            (&[("l", link)], None),
            (&[("a", file), ("b", hard("./a"))], None),
            (&[("../a", file)], Some("has a `..`")),
            (&[("a/../../b", file)], Some("has a `..`")),
            (&[("l", link), ("l/passwd", file)], Some("lies in something that is no folder")),
            (&[("d/l", link), ("d/l/x/y", file)], Some("lies in something that is no folder")),
            (&[("a", file), ("a/b", file)], Some("lies in something that is no folder")),
            (&[("a", file), ("./a", file)], Some("comes twice")),
            (&[("a/b", file), ("a", link)], Some("comes twice")),
            (&[("a", hard("/etc/shadow"))], Some("is a hard link to something that is not there")),
            (&[("a", hard("../x"))], Some("has a `..`")),
            (&[("l", link), ("a", hard("l"))], Some("is a hard link to something that is not there")),
            (&[("a/.wh.b", file)], Some("has the name of a whiteout")),
            (&[(".wh..wh..opq", file)], Some("has the name of a whiteout")),
            (&[("null", device)], Some("is neither a file nor a folder nor a link")),
            (&[("", file)], Some("has no name")),
            (
                &[("a", Kind::File { size: MAX_BYTES }), ("b", file)],
                Some("is too large, with all that comes before it"),
            ),
        ];
        for (entries, refused) in cases {
            let mut guard = Guard::default();
            let found = entries.iter().find_map(|(name, kind)| guard.admit(name.as_bytes(), kind).err());
            assert_eq!(found, refused, "{entries:?}");
        }
        assert_eq!(clean(&[b'a'; MAX_PATH + 1]), Err("has too long a name"));
    }
}
