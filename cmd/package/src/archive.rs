//! Archives: entries as a tar, and files that appear at once.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};
use tempfile::NamedTempFile;

/// When all files were changed last, in seconds since 1970: the second that builder tools give to files.
const TIME: u64 = 315_532_801;

/// One entry of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path in the archive.
    pub path: String,
    /// What is there.
    pub content: Content,
}

/// What an entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A folder.
    Dir,
    /// A file that can be run.
    Executable(Vec<u8>),
    /// Any other file.
    File(Vec<u8>),
    /// A symbolic link, and where it leads.
    Link(String),
}

/// A tar of these entries, in their order. Everything belongs to root, and was changed at the same time.
pub fn tar(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for Entry { path, content } in entries {
        add(&mut tar, path, content).with_context(|| format!("add {path} to the archive"))?;
    }
    tar.into_inner().context("finish the archive")
}

fn add(tar: &mut tar::Builder<Vec<u8>>, path: &str, content: &Content) -> Result<()> {
    let (kind, mode, bytes): (_, _, &[u8]) = match content {
        Content::Dir => (EntryType::Directory, 0o755, &[]),
        Content::Executable(bytes) => (EntryType::Regular, 0o755, bytes),
        Content::File(bytes) => (EntryType::Regular, 0o644, bytes),
        Content::Link(_) => (EntryType::Symlink, 0o777, &[]),
    };
    let mut header = Header::new_ustar();
    // Not `set_path`: it takes no absolute path, which names in layers are.
    let name = header.as_old_mut().name.get_mut(..path.len()).context("the path is too long")?;
    name.copy_from_slice(path.as_bytes());
    if let Content::Link(target) = content {
        header.set_link_name(target)?;
    }
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(TIME);
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    Ok(tar.append(&header, bytes)?)
}

/// The bytes, gzip-compressed. The name and time that gzip has fields for stay empty.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(bytes).and_then(|()| gzip.finish()).context("compress with gzip")
}

/// Writes a file at once: whoever looks finds the old one or the new one.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().context("the archive's path has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let mut file =
        NamedTempFile::new_in(folder).with_context(|| format!("make a file in {}", folder.display()))?;
    let write = file.write_all(bytes);
    write
        .and_then(|()| file.as_file().set_permissions(Permissions::from_mode(0o644)))
        .with_context(|| format!("write {}", path.display()))?;
    file.persist(path).with_context(|| format!("write {}", path.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn sample() -> Vec<Entry> {
        let entry = |path: &str, content| Entry { path: path.to_owned(), content };
        vec![
            entry("lifecycle.toml", Content::File(b"x = 1\n".to_vec())),
            entry("lifecycle", Content::Dir),
            entry("lifecycle/lifecycle", Content::Executable(vec![7; 100_000])),
            entry("lifecycle/analyzer", Content::Link("lifecycle".to_owned())),
            entry("/cnb", Content::Dir),
        ]
    }

    #[test]
    fn it_reads_back() {
        let bytes = gzip(&tar(&sample()).unwrap()).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let mut found = Vec::new();
        let mut modes = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header().clone();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            assert_eq!(header.mtime().unwrap(), 315_532_801);
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let content = match header.entry_type() {
                EntryType::Directory => Content::Dir,
                EntryType::Symlink => {
                    let target = entry.link_name().unwrap().unwrap();
                    Content::Link(target.display().to_string())
                }
                _ if header.mode().unwrap() & 0o100 != 0 => Content::Executable(bytes),
                _ => Content::File(bytes),
            };
            modes.push(header.mode().unwrap());
            found.push(Entry { path: entry.path().unwrap().display().to_string(), content });
        }
        assert_eq!(found, sample());
        assert_eq!(modes, [0o644, 0o755, 0o755, 0o777, 0o755]);
        let long = Entry { path: "x".repeat(101), content: Content::Dir };
        assert!(tar(&[long]).is_err());
    }

    #[test]
    fn files_appear_at_once_and_anyone_may_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one/a.tgz");
        for text in ["old", "new"] {
            write_file(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o644);
            assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 1);
        }
    }
}
