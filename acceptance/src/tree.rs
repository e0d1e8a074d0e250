//! A tree of files as a value, so that what a tool unpacked can be compared with what went in.

use std::collections::BTreeMap;
use std::fs::{self, FileType};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use walkdir::WalkDir;

/// All entries under a folder, by their path in it. The folder itself does not count.
pub type Tree = BTreeMap<PathBuf, Node>;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is, and holds.
    pub kind: Kind,
    /// Permissions with setuid, setgid and sticky bit. Links have none of their own: 0o777.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Dir,
    /// A file, with its size in bytes and the digest of its content.
    File(u64, String),
    /// Another name of the file at this path, which comes first in the order of paths.
    HardLink(PathBuf),
    /// A symbolic link and its target.
    Symlink(PathBuf),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A device.
    Device,
}

/// Reads the tree under `root`. Links are not followed.
pub fn read(root: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut linked = BTreeMap::new();
    for entry in WalkDir::new(root).min_depth(1).sort_by_file_name() {
        let entry = entry?;
        let path = entry.path().strip_prefix(root).context("a walk stays under its start")?.to_owned();
        let metadata = entry.metadata()?;
        let first = match entry.file_type() {
            kind if kind.is_file() && metadata.nlink() > 1 => {
                linked.insert((metadata.dev(), metadata.ino()), path.clone())
            }
            _ => None,
        };
        let kind = match first {
            Some(first) => {
                linked.insert((metadata.dev(), metadata.ino()), first.clone());
                Kind::HardLink(first)
            }
            None => kind(entry.file_type(), entry.path())
                .with_context(|| format!("read {}", entry.path().display()))?,
        };
        tree.insert(
            path,
            Node { kind, mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() },
        );
    }
    Ok(tree)
}

fn kind(file_type: FileType, path: &Path) -> Result<Kind> {
    Ok(match file_type {
        kind if kind.is_dir() => Kind::Dir,
        kind if kind.is_symlink() => Kind::Symlink(fs::read_link(path)?),
        kind if kind.is_fifo() => Kind::Fifo,
        kind if kind.is_socket() => Kind::Socket,
        kind if kind.is_file() => {
            let content = fs::read(path)?;
            Kind::File(content.len() as u64, crate::sha256(&content))
        }
        kind if kind.is_block_device() || kind.is_char_device() => Kind::Device,
        kind => bail!("no known kind: {kind:?}"),
    })
}

/// One line for each entry that is not the same in both.
pub fn differences(want: &Tree, got: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, node) in want {
        match got.get(path) {
            None => found.push(format!("{} is not there", path.display())),
            Some(other) if other != node => {
                found.push(format!("{}: {other:?}, expected {node:?}", path.display()));
            }
            Some(_) => {}
        }
    }
    let new = got.keys().filter(|path| !want.contains_key(*path));
    found.extend(new.map(|path| format!("{} is not expected", path.display())));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn make(root: &Path) -> Tree {
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("dir/file"), "content").unwrap();
        fs::hard_link(root.join("dir/file"), root.join("dir/name")).unwrap();
        symlink("dir/file", root.join("link")).unwrap();
        read(root).unwrap()
    }

    #[test]
    fn equal_trees_are_equal() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let tree = make(one.path());
        assert_eq!(tree.len(), 4);
        assert_eq!(tree[Path::new("dir/name")].kind, Kind::HardLink("dir/file".into()));
        assert_eq!(tree[Path::new("link")].kind, Kind::Symlink("dir/file".into()));
        assert!(differences(&tree, &make(two.path())).is_empty());
    }

    #[test]
    fn every_change_is_seen() {
        let changes: [fn(&Path); 6] = [
            |root| fs::write(root.join("dir/file"), "contents").unwrap(),
            |root| fs::set_permissions(root.join("dir"), fs::Permissions::from_mode(0o1777)).unwrap(),
            |root| fs::write(root.join("new"), "").unwrap(),
            |root| fs::remove_file(root.join("link")).unwrap(),
            |root| {
                fs::remove_file(root.join("link")).unwrap();
                symlink("elsewhere", root.join("link")).unwrap();
            },
            |root| {
                fs::remove_file(root.join("dir/name")).unwrap();
                fs::copy(root.join("dir/file"), root.join("dir/name")).unwrap();
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let before = make(dir.path());
            change(dir.path());
            assert_eq!(differences(&before, &read(dir.path()).unwrap()).len(), 1, "change {number}");
        }
    }
}
