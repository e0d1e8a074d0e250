//! Any tree comes back from its tar as it was: by our own extraction, by the `tar` crate and by GNU tar.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read as _, Write as _};
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use rustix::fs::{CWD, Mode};
use tar::EntryType;

use drydock_model::digest::DiffId;
use drydock_tar::{Extraction, extract};

use super::testing::{USER, written};
use super::{DirLayer, LayerSource as _, slice_layers};

/// What there is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Dir { mode: u32 },
    File { mode: u32, contents: Vec<u8> },
    Symlink { target: OsString },
    Fifo { mode: u32 },
}

/// By paths relative to the tree's root, which is there with the empty path.
type Tree = BTreeMap<PathBuf, Node>;

/// The `tar` crate misreads names in extended headers that have a newline, so there is none here.
fn name() -> impl Strategy<Value = OsString> {
    let bytes = |pattern: &str| prop::string::bytes_regex(pattern).unwrap();
    prop_oneof![
        4 => bytes("(?-u)[a-c]{1,2}"),
        2 => bytes("(?-u)[a-z. ]{90,120}"),
        1 => bytes("(?-u)[a-z-]{150,255}"),
        2 => bytes("[äß語€ a]{1,60}"),
        2 => bytes("(?s-u)[^/\\x00\n]{1,200}"),
    ]
    .prop_filter("names nothing", |name| name != b"." && name != b"..")
    .prop_map(|name| OsStr::from_bytes(&name).to_owned())
}

/// Permissions that leave the tree readable.
fn node() -> impl Strategy<Value = Node> {
    let target = prop_oneof![
        name(),
        Just("../x".into()),
        Just("/nowhere/at all".into()),
        prop::collection::vec(name(), 1..4).prop_map(|names| names.join(OsStr::new("/"))),
    ];
    let size = prop_oneof![Just(0), Just(1), Just(511), Just(512), Just(513), 0..2000_usize, Just(600_000)];
    prop_oneof![
        3 => (0..0o10_000_u32).prop_map(|mode| Node::Dir { mode: mode | 0o700 }),
        4 => (0..0o10_000_u32, size, any::<u8>())
            .prop_map(|(mode, size, byte)| Node::File { mode: mode | 0o400, contents: vec![byte; size] }),
        2 => target.prop_map(|target| Node::Symlink { target }),
        1 => (0..0o10_000_u32).prop_map(|mode| Node::Fifo { mode }),
    ]
}

/// A tree of up to 30 nodes, some of which are in others.
fn tree() -> impl Strategy<Value = Tree> {
    let places = prop::collection::vec((any::<prop::sample::Index>(), name(), node()), 0..30);
    places.prop_map(|places| {
        let mut tree = Tree::from([(PathBuf::new(), Node::Dir { mode: 0o755 })]);
        let mut dirs = vec![PathBuf::new()];
        for (parent, name, node) in places {
            let path = parent.get(&dirs).join(name);
            if path.as_os_str().len() < 2000 && !tree.contains_key(&path) {
                if matches!(node, Node::Dir { .. }) {
                    dirs.push(path.clone());
                }
                tree.insert(path, node);
            }
        }
        tree
    })
}

fn put_on_disk(tree: &Tree, root: &Path) {
    for (path, node) in tree {
        let path = root.join(path);
        match node {
            Node::Dir { .. } => fs::create_dir_all(&path).unwrap(),
            Node::File { contents, .. } => fs::write(&path, contents).unwrap(),
            Node::Symlink { target } => symlink(target, &path).unwrap(),
            Node::Fifo { .. } => rustix::fs::mkfifoat(CWD, &path, Mode::RWXU).unwrap(),
        }
        if let Node::Dir { mode } | Node::File { mode, .. } | Node::Fifo { mode } = node {
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
    }
}

fn read_from_disk(root: &Path) -> Tree {
    fn add(root: &Path, path: &Path, tree: &mut Tree) {
        let full = root.join(path);
        let metadata = fs::symlink_metadata(&full).unwrap();
        let mode = metadata.mode() & 0o7777;
        let node = if metadata.is_dir() {
            for entry in fs::read_dir(&full).unwrap() {
                add(root, &path.join(entry.unwrap().file_name()), tree);
            }
            Node::Dir { mode }
        } else if metadata.is_symlink() {
            Node::Symlink { target: fs::read_link(&full).unwrap().into_os_string() }
        } else if metadata.file_type().is_fifo() {
            Node::Fifo { mode }
        } else {
            Node::File { mode, contents: fs::read(&full).unwrap() }
        };
        tree.insert(path.to_owned(), node);
    }
    let mut tree = Tree::new();
    add(root, Path::new(""), &mut tree);
    tree
}

/// What the `tar` crate reads of the archive below `root`.
fn read_with_tar_crate(tar: &[u8], root: &Path) -> Tree {
    let mut tree = Tree::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = Path::new(OsStr::from_bytes(&entry.path_bytes())).to_owned();
        let mode = entry.header().mode().unwrap();
        assert_eq!(entry.header().mtime().unwrap(), 315_532_801);
        let Ok(path) = path.strip_prefix(root).map(Path::to_owned) else {
            assert!(root.starts_with(&path), "{}", path.display());
            continue;
        };
        assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (1000, 1000));
        let node = match entry.header().entry_type() {
            EntryType::Directory => Node::Dir { mode },
            EntryType::Symlink => {
                assert_eq!(mode, 0o777);
                Node::Symlink { target: OsStr::from_bytes(&entry.link_name_bytes().unwrap()).to_owned() }
            }
            EntryType::Fifo => Node::Fifo { mode },
            EntryType::Regular => {
                let mut contents = Vec::new();
                entry.read_to_end(&mut contents).unwrap();
                Node::File { mode, contents }
            }
            other => panic!("{other:?}"),
        };
        assert!(tree.insert(path, node).is_none());
    }
    tree
}

/// What GNU tar makes of the archive below `root`.
fn extract_with_gnu_tar(tar: &[u8], root: &Path) -> Tree {
    let into = tempfile::tempdir().unwrap();
    let mut gnu = Command::new("tar")
        .args(["--extract", "--preserve-permissions", "--no-same-owner", "--file=-", "--directory"])
        .arg(into.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    gnu.stdin.take().unwrap().write_all(tar).unwrap();
    assert!(gnu.wait().unwrap().success());
    read_from_disk(&into.path().join(root.strip_prefix("/").unwrap()))
}

fn extract_all(tar: &[u8], named: &Path, into: &Path) {
    let (diff_id, limit) = (DiffId::of(tar), tar.len() as u64);
    extract(tar, &Extraction { diff_id, named, into, limit, threads: NonZeroUsize::MIN }).unwrap();
}

/// Extraction gives nobody more rights.
fn without_special_modes(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    for node in tree.values_mut() {
        if let Node::Dir { mode } | Node::File { mode, .. } | Node::Fifo { mode } = node {
            *mode &= 0o777;
        }
    }
    tree
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_back(tree in tree()) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        put_on_disk(&tree, &root);
        prop_assert_eq!(&read_from_disk(&root), &tree);

        let layer = DirLayer::new(&root, USER);
        let tar = written(|out| layer.write(out));
        prop_assert!(tar == written(|out| layer.write(out)), "a second tar differs");
        prop_assert_eq!(&read_with_tar_crate(&tar, &root), &tree);
        prop_assert_eq!(&extract_with_gnu_tar(&tar, &root), &tree);

        let into = dir.path().join("into");
        extract_all(&tar, &root, &into);
        prop_assert_eq!(&read_from_disk(&into), &without_special_modes(&tree));
        // And again in place of what is there.
        extract_all(&tar, &root, &into);
        prop_assert_eq!(&read_from_disk(&into), &without_special_modes(&tree));

        // The one slice of an app without slices holds the same in another order.
        let slices = slice_layers(&root, &[], &[], USER).unwrap();
        prop_assert_eq!(slices.len(), 1);
        let slice = written(|out| slices[0].write(out));
        prop_assert_eq!(slice.len(), tar.len());
        prop_assert_eq!(&read_with_tar_crate(&slice, &root), &tree);
    }
}

#[test]
fn names_with_newlines_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (root, into) = (dir.path().join("tree"), dir.path().join("into"));
    let mut tree = Tree::from([(PathBuf::new(), Node::Dir { mode: 0o755 })]);
    tree.insert("é\n13 path=x\n".into(), Node::Symlink { target: "ü\n".into() });
    put_on_disk(&tree, &root);
    extract_all(&written(|out| DirLayer::new(&root, USER).write(out)), &root, &into);
    assert_eq!(read_from_disk(&into), tree);
}
