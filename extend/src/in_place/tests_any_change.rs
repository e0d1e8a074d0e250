//! Whatever changes in a file system: the layer makes of the old one the new one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use drydock_io::sink::MemorySink;
use proptest::prelude::*;

use super::layer;
use super::snapshot::Snapshot;

/// Something that a program may do. What cannot be done is not done.
#[derive(Debug, Clone)]
enum Deed {
    Write(String, u8),
    MakeDir(String),
    Remove(String),
    Rename(String, String),
    Link(String, String),
    Symlink(String, String),
    ChangeMode(String, u32),
}

impl Deed {
    fn is_done(&self, root: &Path) -> bool {
        let at = |path: &String| root.join(path);
        match self {
            Self::Write(path, byte) => fs::write(at(path), [*byte; 3]).is_ok(),
            Self::MakeDir(path) => fs::create_dir(at(path)).is_ok(),
            Self::Remove(path) => drydock_tar::remove_all(&at(path)).is_ok(),
            Self::Rename(from, to) => fs::rename(at(from), at(to)).is_ok(),
            Self::Link(from, to) => fs::hard_link(at(from), at(to)).is_ok(),
            Self::Symlink(target, path) => symlink(target, at(path)).is_ok(),
            Self::ChangeMode(path, mode) => {
                let is_link = at(path).is_symlink();
                !is_link && fs::set_permissions(at(path), Permissions::from_mode(*mode)).is_ok()
            }
        }
    }
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    // Few names, so that much happens to each; one is the beginning of another.
    let path = || "[ab](\\.c)?(/[abc]){0,2}";
    let deed = prop_oneof![
        3 => (path(), any::<u8>()).prop_map(|(path, byte)| Deed::Write(path, byte)),
        3 => path().prop_map(Deed::MakeDir),
        5 => path().prop_map(Deed::Remove),
        2 => (path(), path()).prop_map(|(from, to)| Deed::Rename(from, to)),
        1 => (path(), path()).prop_map(|(from, to)| Deed::Link(from, to)),
        1 => (path(), path()).prop_map(|(target, path)| Deed::Symlink(target, path)),
        1 => (path(), prop::sample::select(vec![0o700, 0o755, 0o750])).prop_map(|(path, mode)| Deed::ChangeMode(path, mode)),
    ];
    prop::collection::vec(deed, 0..25)
}

/// Folders with folders with files.
fn populate(root: &Path) {
    for dir in ["a", "b", "b.c"] {
        for below in ["a", "b", "c"] {
            fs::create_dir_all(root.join(dir).join(below)).unwrap();
            for file in ["a", "b"] {
                fs::write(root.join(dir).join(below).join(file), file).unwrap();
            }
        }
    }
}

/// What is there, by paths: kind, permissions, and contents, target or the first name of the same file.
type Tree = BTreeMap<String, (char, u32, Vec<u8>)>;

fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let facts = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let mode = facts.mode() & 0o7777;
            let what = if facts.is_dir() {
                left.push(path);
                ('5', mode, Vec::new())
            } else if facts.is_symlink() {
                ('2', 0o777, fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes())
            } else {
                ('0', mode, fs::read(&path).unwrap())
            };
            tree.insert(name, what);
        }
    }
    tree
}

/// The names of files that have several: for each the first in the order of a walk.
fn links(root: &Path, tree: &Tree) -> BTreeMap<String, String> {
    let mut first = BTreeMap::new();
    let files = tree.iter().filter(|(_, (kind, ..))| *kind == '0').map(|(name, _)| name);
    let mut files: Vec<&String> = files.collect();
    files.sort_by_key(|name| name.replace('/', "\0"));
    files
        .into_iter()
        .filter_map(|name| {
            let facts = fs::symlink_metadata(root.join(name)).unwrap();
            let first = first.entry(facts.ino()).or_insert_with(|| name.clone());
            (first != name).then(|| (name.clone(), first.clone()))
        })
        .collect()
}

fn remove_below(tree: &mut Tree, dir: &str) {
    let dir = format!("{dir}/");
    tree.retain(|name, _| !name.starts_with(&dir));
}

/// As the specification of layers says; gives the hard links, too.
fn apply(tree: &mut Tree, layer: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(layer);
    let mut links = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let name = name.trim_end_matches('/').to_owned();
        let (dir, leaf) = name.rsplit_once('/').unwrap_or(("", &name));
        if leaf == ".wh..wh..opq" {
            remove_below(tree, dir);
            continue;
        }
        if let Some(gone) = leaf.strip_prefix(".wh.") {
            let gone = if dir.is_empty() { gone.to_owned() } else { format!("{dir}/{gone}") };
            assert!(tree.remove(&gone).is_some(), "{gone} was not there");
            remove_below(tree, &gone);
            continue;
        }
        assert!(dir.is_empty() || tree[dir].0 == '5', "{name} is in no folder");
        let kind = char::from(entry.header().entry_type().as_byte());
        let mode = entry.header().mode().unwrap();
        let target = entry.link_name_bytes().map(Cow::into_owned);
        let what = match kind {
            '1' => {
                let target = String::from_utf8(target.unwrap()).unwrap();
                links.insert(name.clone(), target.clone());
                tree[&target].clone()
            }
            '2' => (kind, mode, target.unwrap()),
            _ => {
                let mut contents = Vec::new();
                entry.read_to_end(&mut contents).unwrap();
                (kind, mode, contents)
            }
        };
        if what.0 != '5' {
            remove_below(tree, &name);
        }
        tree.insert(name, what);
    }
    links
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_layer_makes_of_the_old_the_new(first in deeds(), then in deeds()) {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        populate(root);
        for deed in &first {
            deed.is_done(root);
        }
        let mut tree = read(root);
        let before = Snapshot::take(root, &[]).unwrap();
        let is_any_done = then.iter().filter(|deed| deed.is_done(root)).count() > 0;
        let changes = Snapshot::take(root, &[]).unwrap().changes_since(&before);
        let mut sink = MemorySink::default();
        layer::write(root, &changes, None, &mut sink).unwrap();
        let links_of_layer = apply(&mut tree, &sink.into_bytes());
        let now = read(root);
        prop_assert_eq!(&tree, &now);
        prop_assert!(is_any_done || changes.is_empty());
        let links = links(root, &now);
        prop_assert!(links_of_layer.iter().all(|link| links.get(link.0) == Some(link.1)), "{links_of_layer:?} {links:?}");
    }
}
