use std::fs::{self, File, Permissions};
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use drydock_io::sink::MemorySink;
use drydock_layout::seen::{file_time, settle};
use drydock_model::digest::DiffId;
use drydock_tar::Owner;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::layer_tar::{DirLayer, LayerSource as _, slice_layers};
use crate::memory_log::MemoryLog;

const OWNER: Owner = Owner { uid: 1000, gid: 1000 };

/// Where executables are made: in memory, where temporary folders may be, looks tell nothing.
pub(crate) fn dir_on_disk() -> TempDir {
    let here = std::env::current_exe().unwrap();
    tempfile::tempdir_in(here.parent().unwrap()).unwrap()
}

/// The outline and the diff ID of a tree that is read.
fn read(layer: &dyn crate::layer_tar::LayerSource) -> (Outline, DiffId) {
    let mut tar = MemorySink::default();
    let outline = layer.write(&mut tar).unwrap().unwrap();
    (outline, DiffId::of(&tar.into_bytes()))
}

/// What somebody does to a tree of files `f0` to `f3`, in the folders `d0` and `d1`, with links `l`.
#[derive(Debug, Clone)]
pub(crate) enum Edit {
    /// Other bytes, the same size, and the old time of modification.
    InPlace(PathBuf),
    /// The same bytes again.
    Rewritten(PathBuf),
    /// One file has the other's name.
    Swapped(PathBuf, PathBuf),
    /// A new file in place of the old one, of the same size and time; its inode may be the old one's.
    Replaced(PathBuf),
    /// A copy of the folder with other contents in it.
    FolderReplaced(PathBuf),
    Mode(PathBuf, u32),
    Linked(PathBuf, PathBuf),
    Removed(PathBuf),
    Added(PathBuf),
    Target(PathBuf),
}

pub(crate) fn edits() -> impl Strategy<Value = Edit> {
    let dir = || (0..2).prop_map(|n| PathBuf::from(format!("d{n}")));
    let file = || (dir(), 0..4).prop_map(|(dir, n)| dir.join(format!("f{n}")));
    prop_oneof![
        file().prop_map(Edit::InPlace),
        file().prop_map(Edit::Rewritten),
        (file(), file()).prop_map(|(a, b)| Edit::Swapped(a, b)),
        file().prop_map(Edit::Replaced),
        dir().prop_map(Edit::FolderReplaced),
        (file(), prop_oneof![Just(0o600), Just(0o644), Just(0o755)])
            .prop_map(|(file, mode)| Edit::Mode(file, mode)),
        (dir(), prop_oneof![Just(0o700), Just(0o755)]).prop_map(|(dir, mode)| Edit::Mode(dir, mode)),
        (file(), file()).prop_map(|(a, b)| Edit::Linked(a, b)),
        file().prop_map(Edit::Removed),
        dir().prop_map(|dir| Edit::Added(dir.join("new"))),
        dir().prop_map(|dir| Edit::Target(dir.join("l"))),
    ]
}

pub(crate) fn make(tree: &Path) {
    for dir in ["d0", "d1"] {
        fs::create_dir_all(tree.join(dir)).unwrap();
        for file in 0..4 {
            fs::write(tree.join(dir).join(format!("f{file}")), format!("{dir} {file} ").repeat(7)).unwrap();
        }
        symlink("f0", tree.join(dir).join("l")).unwrap();
    }
}

impl Edit {
    /// What is not there any more is left alone.
    pub(crate) fn apply(&self, tree: &Path) -> std::io::Result<()> {
        match self {
            Self::InPlace(path) => overwrite(&tree.join(path), |byte| byte ^ 1),
            Self::Rewritten(path) => overwrite(&tree.join(path), |byte| byte),
            Self::Swapped(a, b) => {
                let (a, b, aside) = (tree.join(a), tree.join(b), tree.with_extension("aside"));
                fs::rename(&a, &aside)?;
                let swapped = fs::rename(&b, &a);
                fs::rename(&aside, if swapped.is_ok() { &b } else { &a })
            }
            Self::Replaced(path) => {
                let path = tree.join(path);
                let (old, modified) = (fs::read(&path)?, fs::metadata(&path)?.modified()?);
                fs::remove_file(&path)?;
                fs::write(&path, vec![b'x'; old.len()])?;
                File::options().write(true).open(&path)?.set_modified(modified)
            }
            Self::FolderReplaced(path) => {
                let (path, copy) = (tree.join(path), tree.with_extension("copy"));
                fs::create_dir(&copy)?;
                for entry in fs::read_dir(&path)? {
                    let (from, to) = (entry?.path(), copy.join("x"));
                    let to = to.with_file_name(from.file_name().unwrap());
                    if from.is_symlink() {
                        symlink(fs::read_link(&from)?, to)?;
                    } else {
                        fs::write(&to, vec![b'y'; fs::read(&from)?.len()])?;
                        File::options()
                            .write(true)
                            .open(&to)?
                            .set_modified(fs::metadata(&from)?.modified()?)?;
                    }
                }
                fs::remove_dir_all(&path)?;
                fs::rename(copy, path)
            }
            Self::Mode(path, mode) => fs::set_permissions(tree.join(path), Permissions::from_mode(*mode)),
            Self::Linked(from, to) if from != to => {
                let _ = fs::remove_file(tree.join(to));
                fs::hard_link(tree.join(from), tree.join(to))
            }
            Self::Linked(..) => Ok(()),
            Self::Removed(path) => fs::remove_file(tree.join(path)),
            Self::Added(path) => fs::write(tree.join(path), "new"),
            Self::Target(path) => {
                fs::remove_file(tree.join(path))?;
                symlink("f1", tree.join(path))
            }
        }
    }
}

fn overwrite(path: &Path, change: impl Fn(u8) -> u8) -> std::io::Result<()> {
    let (old, modified) = (fs::read(path)?, fs::metadata(path)?.modified()?);
    let mut file = File::options().write(true).open(path)?;
    file.rewind()?;
    file.write_all(&old.into_iter().map(change).collect::<Vec<_>>())?;
    file.set_modified(modified)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    /// Edits one after the other, each right after what was known before it.
    #[test]
    fn what_is_known_is_what_a_full_read_finds(edits in prop::collection::vec(edits(), 1..6)) {
        let (dir, kept) = (dir_on_disk(), dir_on_disk());
        let tree = dir.path().join("tree");
        make(&tree);
        settle();
        let mut index = LayerIndex::read(Some(kept.path()));
        for edit in edits {
            let layers: [Box<dyn crate::layer_tar::LayerSource>; 2] =
                [Box::new(DirLayer::new(&tree, OWNER)), Box::new(slice_layers(&tree, &[], &[], OWNER).unwrap().remove(0))];
            let before: Vec<_> = layers.iter().map(|layer| {
                let since = file_time();
                let (outline, diff_id) = read(&**layer);
                assert_eq!(layer.look().unwrap(), Some(outline));
                index.made(&outline, &diff_id, since);
                diff_id
            }).collect();
            // It may fail where an earlier one has removed what it takes.
            let _ = edit.apply(&tree);
            let slices = slice_layers(&tree, &[], &[], OWNER).unwrap().remove(0);
            let after: [Box<dyn crate::layer_tar::LayerSource>; 2] = [Box::new(DirLayer::new(&tree, OWNER)), Box::new(slices)];
            for (layer, before) in after.iter().zip(before) {
                let outline = layer.look().unwrap().unwrap();
                let (_, now) = read(&**layer);
                prop_assert!(!index.knows(&outline, &before) || now == before, "{edit:?} was not seen");
            }
        }
    }
}

/// Without edits everything is known, also in the next process, and nothing that has just been written.
#[test]
fn unchanged_trees_are_known() {
    let (dir, kept) = (dir_on_disk(), dir_on_disk());
    let (tree, folder) = (dir.path().join("tree"), kept.path());
    make(&tree);
    let layer = DirLayer::new(&tree, OWNER);
    for (is_settled, context) in [(false, "just written"), (true, "settled")] {
        if is_settled {
            settle();
        }
        let since = file_time();
        let mut index = LayerIndex::read(Some(folder)).successor();
        let (outline, diff_id) = read(&layer);
        index.made(&outline, &diff_id, since);
        index.write(&MemoryLog::default());
        let index = LayerIndex::read(Some(folder));
        let look = layer.look().unwrap().unwrap();
        assert_eq!(index.knows(&look, &diff_id), is_settled, "{context}");
        assert!(!index.knows(&look, &DiffId::of(b"another")));
        let other = DirLayer::new(&tree, Owner { uid: 1, gid: 1 }).look().unwrap().unwrap();
        assert!(!index.knows(&other, &diff_id), "the owner is in the tar");
    }
}

/// What was extracted is known if a tree of that shape made the tar.
#[test]
fn extracted_trees_are_known_by_their_shape() {
    let (dir, kept) = (dir_on_disk(), dir_on_disk());
    let tree = dir.path().join("tree");
    make(&tree);
    let layer = DirLayer::new(&tree, OWNER);
    let mut index = LayerIndex::read(Some(kept.path()));
    let (outline, diff_id) = read(&layer);
    // Not settled yet, so that only its shape is known.
    index.made(&outline, &diff_id, file_time());
    fs::remove_dir_all(&tree).unwrap();
    make(&tree);
    settle();
    let since = file_time();
    let again = layer.look().unwrap().unwrap();
    assert_eq!(again.shape, outline.shape);
    index.extracted(&again, &DiffId::of(b"another tar"), since);
    assert!(!index.knows(&again, &diff_id) && !index.knows(&again, &DiffId::of(b"another tar")));
    fs::set_permissions(tree.join("d0/f0"), Permissions::from_mode(0o600)).unwrap();
    settle();
    let since = file_time();
    let other = layer.look().unwrap().unwrap();
    index.extracted(&other, &diff_id, since);
    assert!(!index.knows(&other, &diff_id), "another mode is another tar");
    assert!(index.rules_out(&other, &diff_id) && !index.rules_out(&again, &diff_id));
    assert!(!index.rules_out(&other, &DiffId::of(b"another tar")), "its shape is not known");
    index.extracted(&again, &diff_id, since);
    assert!(index.knows(&again, &diff_id));
}

#[test]
fn an_index_that_others_could_have_written_is_none() {
    type Damage = fn(&Path);
    let dir = dir_on_disk();
    let (tree, folder) = (dir.path().join("tree"), dir.path().join("cache"));
    make(&tree);
    settle();
    let layer = DirLayer::new(&tree, OWNER);
    let since = file_time();
    let (outline, diff_id) = read(&layer);
    let write = || {
        let mut index = LayerIndex::read(Some(&folder)).successor();
        index.made(&outline, &diff_id, since);
        index.write(&MemoryLog::default());
    };
    let knows = || LayerIndex::read(Some(&folder)).knows(&outline, &diff_id);
    let damages: [(&str, Damage); 6] = [
        ("writable by others", |folder| fs::set_permissions(folder, Permissions::from_mode(0o757)).unwrap()),
        ("too short", |folder| change(folder, |bytes| bytes.truncate(40))),
        ("a byte more", |folder| change(folder, |bytes| bytes.push(0))),
        ("another boot", |folder| change(folder, |bytes| bytes[0] ^= 1)),
        ("the clock was set by 17 ms", |folder| change(folder, |bytes| bytes[36 + 3] ^= 1)),
        ("another fact", |folder| change(folder, |bytes| bytes[52..].fill(0))),
    ];
    for (context, damage) in damages {
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        write();
        assert!(knows(), "before: {context}");
        damage(&folder);
        assert!(!knows(), "{context}");
        fs::remove_dir(&folder).unwrap();
    }
    assert!(!LayerIndex::read(None).knows(&outline, &diff_id));
}

fn change(folder: &Path, change: fn(&mut Vec<u8>)) {
    let mut bytes = read_attribute(folder).unwrap();
    change(&mut bytes);
    rustix::fs::setxattr(folder, ATTRIBUTE, &bytes, XattrFlags::empty()).unwrap();
}

/// What comes first counts most.
#[test]
fn as_much_is_kept_as_there_is_room_for() {
    let dir = dir_on_disk();
    let mut index = LayerIndex::read(Some(dir.path()));
    let digests: Vec<_> = (0..20_000_u32).map(|n| Digest::of(&n.to_le_bytes())).collect();
    for pair in digests.windows(2) {
        Arc::make_mut(&mut index.seen).note_of(&pair[0], &pair[1]);
    }
    index.write(&MemoryLog::default());
    let index = LayerIndex::read(Some(dir.path()));
    let known = digests.windows(2).take_while(|pair| index.seen.knows_of(&pair[0], &pair[1])).count();
    assert!(known >= 100, "only {known} facts");
    assert!(known * 16 < MOST);
}
