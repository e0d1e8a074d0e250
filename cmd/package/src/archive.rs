//! The archive: `lifecycle.toml`, and a folder `lifecycle` with executables, links and software bills of materials.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};
use tempfile::NamedTempFile;

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

/// Writes entries, in their order, as a gzip-compressed tar. Everything belongs to root, and was changed at `time`
/// (seconds since 1970).
pub fn write(to: impl Write, entries: &[Entry], time: u64) -> Result<()> {
    // The name and time that gzip has fields for stay empty.
    let mut tar = tar::Builder::new(GzBuilder::new().write(to, Compression::best()));
    for Entry { path, content } in entries {
        let (kind, mode, bytes): (_, _, &[u8]) = match content {
            Content::Dir => (EntryType::Directory, 0o755, &[]),
            Content::Executable(bytes) => (EntryType::Regular, 0o755, bytes),
            Content::File(bytes) => (EntryType::Regular, 0o644, bytes),
            Content::Link(_) => (EntryType::Symlink, 0o777, &[]),
        };
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(time);
        header.set_size(bytes.len() as u64);
        match content {
            Content::Link(target) => tar.append_link(&mut header, path, target),
            _ => tar.append_data(&mut header, path, bytes),
        }
        .with_context(|| format!("add {path} to the archive"))?;
    }
    tar.into_inner().and_then(|gzip| gzip.finish()?.flush()).context("finish the archive")
}

/// Writes entries to a file, at once: whoever looks finds the old archive or the new one.
pub fn write_file(path: &Path, entries: &[Entry], time: u64) -> Result<()> {
    let folder = path.parent().context("the archive's path has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let file =
        NamedTempFile::new_in(folder).with_context(|| format!("make a file in {}", folder.display()))?;
    write(file.as_file(), entries, time)?;
    set_mode(file.as_file(), 0o644).context("change the archive's mode")?;
    file.persist(path).with_context(|| format!("write {}", path.display()))?;
    Ok(())
}

fn set_mode(file: &File, mode: u32) -> std::io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))
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
        ]
    }

    #[test]
    fn it_reads_back() {
        let mut bytes = Vec::new();
        write(&mut bytes, &sample(), 315_532_801).unwrap();
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
        assert_eq!(modes, [0o644, 0o755, 0o755, 0o777]);
    }

    #[test]
    fn two_files_have_the_same_bytes_and_anyone_may_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["one/a.tgz", "two/b.tgz"].map(|name| dir.path().join(name));
        for file in &files {
            write_file(file, &sample(), 1).unwrap();
            write_file(file, &sample(), 1).unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o644);
            assert_eq!(file.parent().unwrap().read_dir().unwrap().count(), 1);
        }
        assert!(fs::read(&files[0]).unwrap() == fs::read(&files[1]).unwrap());
    }
}
