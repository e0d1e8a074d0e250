//! Upper folders of overlays: what was written to one, put on its base as a layer, gives what the kernel shows of both.
//!
//! Three bytes of an input are one deed, in the base or in the upper folder: what, where, and which. What cannot be done is not done.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{BufReader, Seek as _};
use std::num::NonZeroUsize;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use drydock_encode::compress::Compression;
use drydock_encode::pipeline::Settings;
use drydock_extend::in_place::{Layers, layer_of_upper};
use drydock_images::files::{Files, NodeKind};
use drydock_tar::{Archive, Entry, Kind, NO_XATTRS, Owner, Time};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

use super::{Target, roughly};

pub(crate) const TARGET: Target = Target {
    name: "upper",
    longest: 96,
    words: &[b"\x80\0\0", b"\x81\0\0", b"\x82\0\0", b"\x83\0\0", b"\x84\0\0", b"\x01\0\0", b"\0\0\0"],
    can_use: |_, _| false,
    run,
};

/// How an ordinary user's mounts note that a folder hides what is below it.
const OPAQUE: &str = "user.overlay.opaque";

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File(u64),
    Symlink(String),
    Dir {
        mode: u32,
        opaque: bool,
    },
    /// It hides what is below it.
    Whiteout,
}

/// Folders come before what is in them.
type Tree = BTreeMap<String, Node>;

fn run(input: &[u8]) -> String {
    let dir = tempfile::tempdir().expect("there is room");
    // Not every file system has such attributes.
    let has_opaque = make_opaque(dir.path()).is_ok();
    let (mut base, mut upper) = (Tree::new(), Tree::new());
    for &[what, at, which] in input.as_chunks().0 {
        let path = path(at);
        let node = match what % 6 {
            0 => Node::File(which.into()),
            1 => Node::Symlink(self::path(which)),
            2 => Node::Dir { mode: 0o700 | u32::from(which % 8), opaque: false },
            // Such a folder says all that is in it.
            3 => Node::Dir { mode: 0o755, opaque: has_opaque },
            4 => Node::Whiteout,
            _ => {
                remove(if what < 0x80 { &mut base } else { &mut upper }, &path);
                continue;
            }
        };
        match node {
            Node::Whiteout | Node::Dir { opaque: true, .. } if what < 0x80 => {}
            node => put(if what < 0x80 { &mut base } else { &mut upper }, &path, node),
        }
    }
    let [before, above, blobs] = ["before", "upper", "blobs"].map(|name| dir.path().join(name));
    fs::create_dir(&blobs).expect("there is room");
    make(&before, &base);
    make(&above, &upper);
    let settings = Settings { threads: NonZeroUsize::MIN, compression: Compression::NONE, write_out: false };
    let layers = Layers { dir: &blobs, settings, latest: Some(0) };
    let layer = layer_of_upper(&above, OPAQUE, &before, &layers, "").expect("all of it can be in a layer");
    let mut files = Files::new();
    for (number, (path, node)) in (0..).zip(&base) {
        files.apply(0, number, &entry(path, node), None).expect("the base is sound");
    }
    let mut entries = 0;
    if let Some(mut layer) = layer {
        layer.blob.file.file().rewind().expect("it is a file");
        let tar = File::open(layer.blob.file.path()).expect("it is there");
        let mut archive = Archive::new(BufReader::new(tar));
        while let Some(member) = archive.read_next().expect("it is a tar") {
            files.apply(1, entries, &member.entry, None).expect("every entry fits");
            entries += 1;
        }
    }
    let mut found = Tree::new();
    files.walk(&mut |path, _, node| {
        let node = match &node.kind {
            NodeKind::Symlink(target) => Node::Symlink(String::from_utf8_lossy(target).into_owned()),
            NodeKind::Dir(_) => Node::Dir { mode: node.mode, opaque: false },
            _ => Node::File(node.size()),
        };
        found.insert(String::from_utf8_lossy(path).into_owned(), node);
    });
    // The root is not of interest.
    found.remove("");
    assert_eq!(found, shown(base, &upper));
    format!("{}{}", roughly(usize::try_from(entries).unwrap_or(0)), roughly(found.len()))
}

/// What the kernel shows of an upper folder on a base.
fn shown(base: Tree, upper: &Tree) -> Tree {
    let mut shown = base;
    for (path, node) in upper {
        match node {
            Node::Dir { mode, opaque: false } if matches!(shown.get(path), Some(Node::Dir { .. })) => {
                shown.insert(path.clone(), Node::Dir { mode: *mode, opaque: false });
            }
            node => {
                remove(&mut shown, path);
                match node {
                    Node::Whiteout => {}
                    Node::Dir { mode, .. } => {
                        shown.insert(path.clone(), Node::Dir { mode: *mode, opaque: false });
                    }
                    node => drop(shown.insert(path.clone(), node.clone())),
                }
            }
        }
    }
    shown
}

/// Few names, so that much happens to each; one is the beginning of another.
fn path(number: u8) -> String {
    const NAMES: [&str; 4] = ["a", "a.c", "b", "c"];
    let name = |shift: u8| NAMES[usize::from(number >> shift & 3)];
    match number >> 6 {
        0 => name(0).to_owned(),
        1 => format!("{}/{}", name(0), name(2)),
        _ => format!("{}/{}/{}", name(0), name(2), name(4)),
    }
}

/// Puts something into a folder, which is made.
fn put(tree: &mut Tree, path: &str, node: Node) {
    for (at, _) in path.match_indices('/') {
        let dir = tree.entry(path[..at].to_owned()).or_insert(Node::Dir { mode: 0o755, opaque: false });
        if !matches!(dir, Node::Dir { .. }) {
            return;
        }
    }
    if !matches!(node, Node::Dir { .. }) {
        remove(tree, path);
    }
    if !tree.contains_key(path) || matches!(tree[path], Node::Dir { .. }) {
        tree.insert(path.to_owned(), node);
    }
}

fn remove(tree: &mut Tree, path: &str) {
    let below = format!("{path}/");
    tree.retain(|other, _| other != path && !other.starts_with(&below));
}

fn make(root: &Path, tree: &Tree) {
    fs::create_dir(root).expect("there is room");
    for (path, node) in tree {
        let path = root.join(path);
        match node {
            Node::File(size) => {
                let file = File::create_new(&path).expect("there is room");
                file.set_len(*size).expect("there is room");
            }
            Node::Symlink(target) => symlink(target, &path).expect("there is room"),
            Node::Whiteout => {
                let made = mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0);
                made.expect("everybody may make a whiteout");
            }
            Node::Dir { mode, opaque } => {
                fs::create_dir(&path).expect("there is room");
                fs::set_permissions(&path, Permissions::from_mode(*mode)).expect("it is ours");
                if *opaque {
                    make_opaque(&path).expect("another one could be made so");
                }
            }
        }
    }
}

fn make_opaque(dir: &Path) -> rustix::io::Result<()> {
    setxattr(dir, OPAQUE, b"y", XattrFlags::empty())
}

fn entry<'a>(path: &'a str, node: &'a Node) -> Entry<'a> {
    let (kind, mode) = match node {
        Node::File(size) => (Kind::File { size: *size }, 0o644),
        Node::Symlink(target) => (Kind::Symlink { target: target.as_bytes() }, 0o777),
        Node::Dir { mode, .. } => (Kind::Dir, *mode),
        Node::Whiteout => unreachable!("no base has one"),
    };
    let modified = Time { seconds: 0, nanoseconds: 0 };
    Entry { name: path.as_bytes(), kind, mode, owner: Owner::ROOT, modified, xattrs: NO_XATTRS }
}
