//! Trees of files on the disk, as builds find them: buildpacks, and the source of an app, or the context of a Dockerfile, from an
//! archive.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result};
use drydock_encode::compress::Format;
use drydock_tar::Time;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::layers::is_run;
use super::tree::{Member, MemberKind, Tree};
use crate::import::{SourceError, format_of};
use crate::watch::Watch;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// All is there.
    Done,
    /// The file is neither a tar nor a zip file.
    NoArchive,
}

/// How a file is made.
struct Look {
    mode: u32,
    /// Now, if none; then a folder has not `mode` either, but that of all folders.
    modified: Option<Time>,
}

impl Look {
    fn plain(executable: bool) -> Self {
        Self { mode: if executable { 0o755 } else { 0o644 }, modified: None }
    }
}

/// Says how each file of a tree is made.
type Decide<'d> = dyn Fn(&Member<'_>) -> Result<Look> + 'd;

/// Unpacks the source of an app into a folder that is empty and nobody else's: a tar, compressed or not, or a zip file. Links may lead
/// anywhere, and nothing is written where they lead to: whoever follows them must keep to the folder.
pub fn source(archive: &Path, to: &Path, watch: &dyn Watch) -> Result<Placed> {
    unpack(archive, to, watch, &|member| Ok(Look::plain(member.executable)))
}

/// Unpacks the context of a Dockerfile in the same way, with permissions and times as a tar has them.
pub fn context(archive: &Path, to: &Path, watch: &dyn Watch) -> Result<Placed> {
    unpack(archive, to, watch, &|member| {
        let kept = |(mode, modified): (u32, Time)| Look { mode: mode & 0o7777, modified: Some(modified) };
        Ok(member.facts.map_or_else(|| Look::plain(member.executable), kept))
    })
}

fn unpack(archive: &Path, to: &Path, watch: &dyn Watch, decide: &Decide<'_>) -> Result<Placed> {
    let tree = Tree::at(archive)?;
    let may_be = match &tree {
        Tree::Folder(..) => false,
        Tree::Zip(_) => true,
        Tree::Tar(path) => is_tar(path)?,
    };
    if !may_be {
        return Ok(Placed::NoArchive);
    }
    watch.begin("unpacking", archive.metadata().map_or(0, |facts| facts.len()));
    place(&tree, to, watch, decide)?;
    watch.end();
    Ok(Placed::Done)
}

/// Whether a file is a tar, or compressed.
fn is_tar(path: &Path) -> Result<bool> {
    /// Where every tar that is not very old says that it is one.
    const MAGIC: (u64, &[u8; 5]) = (257, b"ustar");
    /// Bytes that end every tar: zeros.
    const END: u64 = 1024;
    let failed = || format!("cannot read `{}`", path.display());
    let mut file = drydock_io::read::open(path).with_context(failed)?;
    if format_of(&file).with_context(failed)? != Format::Plain {
        return Ok(true);
    }
    let mut magic = Vec::new();
    file.seek(SeekFrom::Start(MAGIC.0)).with_context(failed)?;
    Read::by_ref(&mut file).take(5).read_to_end(&mut magic).with_context(failed)?;
    if magic == MAGIC.1 {
        return Ok(true);
    }
    // One without files is nothing but its end.
    let mut end = Vec::new();
    file.rewind().with_context(failed)?;
    file.take(END).read_to_end(&mut end).with_context(failed)?;
    Ok(end.len() as u64 == END && end.iter().all(|byte| *byte == 0))
}

/// Makes the files of a buildpack or an extension in a folder that is empty and nobody else's, with the modes that they have in
/// a builder.
pub(super) fn module(tree: &Tree, to: &Path, watch: &dyn Watch) -> Result<()> {
    place(tree, to, watch, &|member| Ok(Look::plain(member.executable || is_run(member.path))))
}

/// Makes the files of a tree. No file lies in what is no folder of the tree ([`Tree`]), so nothing is followed.
fn place(tree: &Tree, to: &Path, watch: &dyn Watch, decide: &Decide<'_>) -> Result<()> {
    make_dir(to)?;
    // What is in a folder changes its time, and may need permissions that it will not have.
    let mut folders = Vec::new();
    tree.visit(watch, &mut |member, contents| {
        let Look { mode, modified } = decide(member)?;
        let inner = |path: &[u8]| to.join(OsStr::from_bytes(path));
        let path = inner(member.path);
        let failed = || format!("cannot make `{}`", path.display());
        for (at, _) in member.path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            make_dir(&inner(&member.path[..at]))?;
        }
        match member.kind {
            MemberKind::Dir => {
                make_dir(&path)?;
                folders.extend(modified.map(|time| (path.clone(), mode, time)));
                return Ok(());
            }
            MemberKind::File { size } => {
                let mut file = File::create_new(&path).with_context(failed)?;
                let copied = io::copy(&mut contents.take(size.saturating_add(1)), &mut file);
                if copied.with_context(failed)? != size {
                    return Err(SourceError::entry(member.path, "has another size than it is said to").into());
                }
                file.set_permissions(Permissions::from_mode(mode)).with_context(failed)?;
            }
            MemberKind::Symlink { target } => {
                symlink(OsStr::from_bytes(target), &path).with_context(failed)?;
            }
            MemberKind::HardLink { target } => fs::hard_link(inner(target), &path).with_context(failed)?,
        }
        modified.map_or(Ok(()), |time| set_time(&path, time))
    })?;
    for (path, mode, time) in folders.iter().rev() {
        fs::set_permissions(path, Permissions::from_mode(*mode))
            .with_context(|| format!("cannot make `{}`", path.display()))?;
        set_time(path, *time)?;
    }
    Ok(())
}

/// Of a file, not of what a link leads to.
fn set_time(path: &Path, time: Time) -> Result<()> {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .with_context(|| format!("cannot set the time of `{}`", path.display()))
}

fn make_dir(path: &Path) -> Result<()> {
    let made = match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        made => made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755))),
    };
    made.with_context(|| format!("cannot make `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use drydock_io::sink::{MemorySink, Sink as _};
    use drydock_tar::{Entry, Kind, NO_XATTRS, Owner, write_end};
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder};
    use rawzip::path::EntryPath;
    use rawzip::{CompressionMethod, ZipArchiveWriter};
    use rustix::fs::{Mode, mkfifoat};

    use super::*;
    use crate::watch::Nobody;

    /// Names, modes as the kernel has them, and what is in a file or where a link leads to.
    type Entries<'a> = [(&'a str, u32, &'a str)];

    const FILE: u32 = 0o100_644;
    const PROGRAM: u32 = 0o100_755;
    const FOLDER: u32 = 0o040_700;
    const LINK: u32 = 0o120_777;
    const FIFO: u32 = 0o010_644;

    fn zip(entries: &Entries<'_>, method: CompressionMethod) -> Vec<u8> {
        let mut archive = ZipArchiveWriter::new(Vec::new());
        for (name, mode, text) in entries {
            if *mode == FOLDER {
                let path = EntryPath::verbatim(format!("{name}/").into_bytes());
                archive.new_dir(path).unix_permissions(*mode).create().unwrap();
                continue;
            }
            let path = EntryPath::verbatim(name.as_bytes());
            let file = archive.new_file(path).compression_method(method).unix_permissions(*mode);
            let (mut entry, config) = file.start().unwrap();
            let output = if method == CompressionMethod::DEFLATE {
                let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::fast()));
                writer.write_all(text.as_bytes()).unwrap();
                let (encoder, output) = writer.finish().unwrap();
                encoder.finish().unwrap();
                output
            } else {
                let mut writer = config.wrap(&mut entry);
                writer.write_all(text.as_bytes()).unwrap();
                writer.finish().unwrap().1
            };
            entry.finish(output).unwrap();
        }
        archive.finish().unwrap()
    }

    fn tar(entries: &Entries<'_>) -> Vec<u8> {
        let mut tar = MemorySink::default();
        for (name, mode, text) in entries {
            let kind = match *mode {
                FOLDER => Kind::Dir,
                LINK => Kind::Symlink { target: text.as_bytes() },
                FIFO => Kind::Fifo,
                _ => Kind::File { size: text.len() as u64 },
            };
            let (owner, modified) = (Owner::ROOT, Time { seconds: 1, nanoseconds: 0 });
            let entry =
                Entry { name: name.as_bytes(), kind, mode: mode & 0o777, owner, modified, xattrs: NO_XATTRS };
            entry.write(&mut tar).unwrap();
            if let Kind::File { size } = kind {
                tar.write_all(text.as_bytes()).unwrap();
                drydock_tar::write_padding(size, &mut tar).unwrap();
            }
        }
        write_end(&mut tar).unwrap();
        tar.into_bytes()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// What is unpacked of an archive: a line a file; or why it is refused.
    fn unpacked(archive: &[u8]) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("archive"), dir.path().join("to"));
        fs::write(&from, archive).unwrap();
        let placed = source(&from, &to, &Nobody).map_err(|error| format!("{error:#}"));
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1 + usize::from(to.exists()),
            "nothing beside it"
        );
        if placed? == Placed::NoArchive {
            return Err("no archive".to_owned());
        }
        let mut lines = Vec::new();
        let mut folders = vec![to.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let (name, facts) =
                    (path.strip_prefix(&to).unwrap().display(), path.symlink_metadata().unwrap());
                let mode = facts.permissions().mode() & 0o7777;
                lines.push(if facts.is_dir() {
                    folders.push(path.clone());
                    format!("{name}/ {mode:o}")
                } else if facts.is_symlink() {
                    format!("{name} > {}", fs::read_link(&path).unwrap().display())
                } else {
                    format!("{name} {mode:o} {}", fs::read_to_string(&path).unwrap())
                });
            }
        }
        lines.sort();
        Ok(lines.join(", "))
    }

    #[test]
    fn archives_are_unpacked() {
        let entries = [
            ("a", FOLDER, ""),
            ("a/b", FILE, "text"),
            ("./c/d", PROGRAM, "run"),
            ("a/l", LINK, "../c/d"),
            ("/e", FILE, ""),
            ("f", LINK, "/etc"),
            ("g", LINK, "../../a/../.."),
        ];
        let want =
            "a/ 755, a/b 644 text, a/l > ../c/d, c/ 755, c/d 755 run, e 644 , f > /etc, g > ../../a/../..";
        for archive in [
            zip(&entries, CompressionMethod::STORE),
            zip(&entries, CompressionMethod::DEFLATE),
            tar(&entries),
            gzip(&tar(&entries)),
        ] {
            assert_eq!(unpacked(&archive).as_deref(), Ok(want));
        }
        for empty in [zip(&[], CompressionMethod::STORE), tar(&[]), gzip(&tar(&[]))] {
            assert_eq!(unpacked(&empty).as_deref(), Ok(""));
        }
    }

    #[test]
    fn what_does_harm_is_refused() {
        let cases: [(&Entries<'_>, &str); 9] = [
            (&[("../a", FILE, "x")], "has a `..`"),
            (&[("a/../../b", FILE, "x")], "has a `..`"),
            (&[("l", LINK, "/etc"), ("l/passwd", FILE, "x")], "lies in something that is no folder"),
            (
                &[("d", FOLDER, ""), ("d/l", LINK, ".."), ("d/l/x", FILE, "x")],
                "lies in something that is no folder",
            ),
            (
                &[("d", FOLDER, ""), ("l", LINK, "d"), ("l/x", FILE, "x")],
                "lies in something that is no folder",
            ),
            (&[("a", FILE, "x"), ("a", FILE, "y")], "comes twice"),
            (&[("a", FILE, "x"), ("a/b", FILE, "y")], "lies in something that is no folder"),
            (&[("", FILE, "x")], "has no name"),
            (&[(".wh.a", FILE, "x")], "whiteout"),
        ];
        for (entries, says) in cases {
            for archive in [zip(entries, CompressionMethod::DEFLATE), tar(entries)] {
                let error = unpacked(&archive).unwrap_err();
                assert!(error.contains(says), "{entries:?}: {error}");
            }
        }
        let fifo = zip(&[("f", FIFO, "")], CompressionMethod::STORE);
        assert!(unpacked(&fifo).unwrap_err().contains("neither a file nor a folder"));
        let nowhere = zip(&[("l", LINK, "")], CompressionMethod::STORE);
        assert!(unpacked(&nowhere).unwrap_err().contains("a link to nothing"));
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let text = "a".repeat(1000);
        let entries = [("file", FILE, text.as_str())];
        let plain = zip(&entries, CompressionMethod::STORE);
        let at = plain.windows(4).position(|window| window == b"aaaa").unwrap();
        let (mut changed, mut larger, mut other) = (plain.clone(), plain.clone(), plain.clone());
        changed[at] = b'b';
        // In the list at the end: the size without compression, and the way of compression.
        let listed = plain.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
        larger[listed + 24..listed + 28].copy_from_slice(&u32::MAX.wrapping_sub(1).to_le_bytes());
        other[listed + 10] = 12;
        for (archive, says) in [
            (&changed[..], "cannot make"),
            (&larger[..], "Invalid size"),
            (&other[..], "in a way that is not known"),
            (&plain[..plain.len() - 10], "malformed"),
            (b"", "no archive"),
            (b"some text", "no archive"),
            (&tar(&entries)[..700], "end of file"),
        ] {
            let error = unpacked(archive).unwrap_err();
            assert!(error.contains(says), "{says}: {error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        mkfifoat(CWD, &fifo, Mode::RWXU).unwrap();
        let refused = source(&fifo, &dir.path().join("to"), &Nobody).unwrap_err();
        assert!(format!("{refused:#}").contains("not a regular file"), "{refused:#}");
    }

    #[test]
    fn contexts_keep_permissions_times_and_links() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("archive"), dir.path().join("to"));
        let entries = [("d", FOLDER, ""), ("d/private", 0o100_600, "x"), ("out", LINK, "/etc")];
        for archive in [tar(&entries), gzip(&tar(&entries))] {
            fs::write(&from, archive).unwrap();
            assert_eq!(context(&from, &to, &Nobody).unwrap(), Placed::Done);
            for (name, mode) in [("d", 0o700), ("d/private", 0o600), ("out", 0o777)] {
                let facts = to.join(name).symlink_metadata().unwrap();
                assert_eq!((facts.mode() & 0o7777, facts.mtime()), (mode, 1), "{name}");
            }
            assert_eq!(fs::read_link(to.join("out")).unwrap(), Path::new("/etc"));
            fs::remove_dir_all(&to).unwrap();
        }
        let outside = [("l", LINK, "/etc"), ("l/passwd", FILE, "x")];
        fs::write(&from, tar(&outside)).unwrap();
        assert!(format!("{:#}", context(&from, &to, &Nobody).unwrap_err()).contains("no folder"));
    }
}
