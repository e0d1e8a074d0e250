//! What is given back is what would have been extracted, whatever was done to it.

use std::fs::{self, Permissions};
use std::num::NonZeroUsize;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use drydock_io::sink::MemorySink;
use drydock_layout::seen::{file_time, settle};
use drydock_spec::analyzed::{BuildpackLayers, Layer, LayersMetadata};
use drydock_spec::api::PlatformApi;
use drydock_spec::cache::{CacheMetadata, METADATA_NAME};
use drydock_spec::group::GroupElement;
use proptest::prelude::*;
use rustix::fs::{CWD, XattrFlags, lgetxattr, mkfifoat, setxattr};
use tempfile::TempDir;
use walkdir::WalkDir;

use super::*;
use crate::cache::CacheLocation;
use crate::layer_index::tests::{dir_on_disk, edits, make};
use crate::memory_log::MemoryLog;
use crate::restore::{Inputs, restore_group};

/// A layers directory and a cache with one layer, which was kept.
struct Setting {
    dir: TempDir,
    diff_id: DiffId,
}

impl Setting {
    /// As an export leaves it of a tree that `finish` completes.
    fn new(finish: fn(&Path)) -> Self {
        let dir = dir_on_disk();
        let (tree, committed) = (dir.path().join("layers/acme_a/lib"), dir.path().join("cache/committed"));
        fs::create_dir_all(&committed).unwrap();
        fs::create_dir_all(&tree).unwrap();
        make(&tree);
        finish(&tree);
        settle();
        let (since, mut tar) = (file_time(), MemorySink::default());
        let outline = DirLayer::new(&tree, Owner::ROOT).write(&mut tar).unwrap().unwrap();
        let tar = tar.into_bytes();
        let diff_id = DiffId::of(&tar);
        let setting = Self { dir, diff_id };
        fs::write(setting.tar(), tar).unwrap();
        let layer = Layer { sha: diff_id.to_string(), cache: true, ..Layer::default() };
        let layers = [("lib".to_owned(), layer)].into();
        let buildpacks = vec![BuildpackLayers { key: "acme/a".into(), layers, ..BuildpackLayers::default() }];
        let metadata = CacheMetadata { buildpacks, ..CacheMetadata::default() };
        fs::write(committed.join(METADATA_NAME), metadata.to_json().unwrap()).unwrap();
        let mut index = LayerIndex::read(Some(&committed)).successor();
        index.made(&outline, &diff_id, since);
        index.add_files(&[(setting.tar(), diff_id.of_plain_blob())]);
        index.write(&MemoryLog::default());
        fs::create_dir(setting.path("layers/.kept")).unwrap();
        fs::rename(tree, setting.kept()).unwrap();
        setting
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn tar(&self) -> PathBuf {
        self.path("cache/committed").join(format!("{}.tar", self.diff_id))
    }

    fn kept(&self) -> PathBuf {
        self.path("layers/.kept").join(self.diff_id.hex())
    }

    fn layer(&self) -> PathBuf {
        self.path("layers/acme_a/lib")
    }

    /// Restores, and gives what is there then. Nothing of what was kept is left.
    fn restore(&self, skip_layers: bool) -> Vec<String> {
        let inputs = Inputs {
            platform_api: PlatformApi::NEWEST,
            layout_dir: None,
            layers_dir: self.path("layers"),
            group_path: self.path("group.toml"),
            analyzed_path: self.path("analyzed.toml"),
            run_path: self.path("run.toml"),
            stack_path: self.path("stack.toml"),
            build_image: None,
            cache: Some(CacheLocation::Dir(self.path("cache"))),
            skip_layers,
            layer_index: Some(self.path("cache/committed")),
            owner: Owner::ROOT,
            threads: NonZeroUsize::new(2).unwrap(),
            early: drydock_layout::Early::default(),
        };
        let group = [GroupElement { id: "acme/a".into(), version: "1".into(), ..GroupElement::default() }];
        restore_group(&inputs, &group, &LayersMetadata::default(), &MemoryLog::default()).unwrap();
        assert!(!self.path("layers/.kept").exists());
        state(&self.layer())
    }

    /// What extraction makes.
    fn extracted(&self) -> Vec<String> {
        let _ = fs::remove_dir_all(self.layer());
        self.restore(false)
    }
}

/// All that can be told of a tree, but times.
fn state(tree: &Path) -> Vec<String> {
    let entries = WalkDir::new(tree).sort_by_file_name().into_iter().filter_map(Result::ok);
    let line = |entry: walkdir::DirEntry| {
        let (path, facts) = (entry.path(), fs::symlink_metadata(entry.path()).unwrap());
        let names = if facts.is_file() { facts.nlink() } else { 0 };
        let text = if facts.is_file() { fs::read_to_string(path).unwrap() } else { String::new() };
        let target = fs::read_link(path).unwrap_or_default();
        let mut value = [0; 8];
        let attribute = lgetxattr(path, "user.x", &mut value).unwrap_or(0);
        let below = path.strip_prefix(tree).unwrap();
        let (mode, owner) = (facts.mode(), (facts.uid(), facts.gid()));
        format!("{below:?} {mode:o} {owner:?} {names} {attribute} {text:?} {target:?}")
    };
    entries.map(line).collect()
}

/// Which file one in the tree is: a number may be that of a removed one.
fn identity(path: &Path) -> Option<(u64, i64, i64)> {
    let facts = fs::metadata(path.join("d0/f0")).ok()?;
    Some((facts.ino(), facts.ctime(), facts.ctime_nsec()))
}

fn nothing(_: &Path) {}

#[test]
fn an_unchanged_tree_is_given_back() {
    let setting = Setting::new(|tree| {
        mkfifoat(CWD, tree.join("pipe"), Mode::from_raw_mode(0o640)).unwrap();
        fs::set_permissions(tree.join("d0"), Permissions::from_mode(0o711)).unwrap();
    });
    let before = identity(&setting.kept());
    let found = setting.restore(false);
    assert_eq!(identity(&setting.layer()), before, "it was made anew");
    assert!(setting.path("layers/acme_a/lib.toml").exists());
    assert_eq!(found, setting.extracted());
    // A tree that was extracted is as good as one that was made.
    let before = identity(&setting.layer());
    fs::create_dir(setting.path("layers/.kept")).unwrap();
    fs::rename(setting.layer(), setting.kept()).unwrap();
    assert_eq!((setting.restore(false), identity(&setting.layer())), (found, before));
}

/// A layer that a buildpack completes in some way, and what that is.
type Completed = (&'static str, fn(&Path));

#[test]
fn what_no_tar_brings_back_is_not_given_back() {
    let completed: [Completed; 9] = [
        ("setuid", |tree| {
            fs::set_permissions(tree.join("d0/f0"), Permissions::from_mode(0o4755)).unwrap();
        }),
        ("sticky", |tree| fs::set_permissions(tree.join("d0"), Permissions::from_mode(0o1777)).unwrap()),
        ("setgid, itself", |tree| fs::set_permissions(tree, Permissions::from_mode(0o2755)).unwrap()),
        ("not searchable by its owner", |tree| {
            fs::set_permissions(tree.join("d1"), Permissions::from_mode(0o655)).unwrap();
        }),
        ("two names", |tree| fs::hard_link(tree.join("d0/f0"), tree.join("d1/link")).unwrap()),
        ("a second name elsewhere", |tree| {
            fs::hard_link(tree.join("d0/f0"), tree.join("../../../elsewhere")).unwrap();
        }),
        ("a socket", |tree| drop(UnixListener::bind(tree.join("s")).unwrap())),
        ("an attribute", |tree| {
            setxattr(tree.join("d0/f1"), "user.x", b"y", XattrFlags::empty()).unwrap();
        }),
        ("an attribute of itself", |tree| setxattr(tree, "user.x", b"y", XattrFlags::empty()).unwrap()),
    ];
    for (what, finish) in completed {
        let setting = Setting::new(finish);
        let before = identity(&setting.kept());
        let found = setting.restore(false);
        assert_ne!(identity(&setting.layer()), before, "{what}");
        assert_eq!(found, setting.extracted(), "{what}");
    }
}

/// That a tree is plain is found out once, and again when anything in it has changed.
#[test]
fn what_is_known_to_be_plain_is_plain() {
    let changes: [Completed; 5] = [
        ("nothing", nothing),
        ("an attribute", |tree| {
            setxattr(tree.join("d0/f1"), "user.x", b"y", XattrFlags::empty()).unwrap();
        }),
        ("an attribute of a folder", |tree| {
            setxattr(tree.join("d0"), "user.x", b"y", XattrFlags::empty()).unwrap();
        }),
        ("an attribute of itself", |tree| setxattr(tree, "user.x", b"y", XattrFlags::empty()).unwrap()),
        ("a socket in itself", |tree| drop(UnixListener::bind(tree.join("s")).unwrap())),
    ];
    for (what, change) in changes {
        let setting = Setting::new(nothing);
        setting.restore(false);
        let index = LayerIndex::read(Some(&setting.path("cache/committed")));
        let outline = || DirLayer::new(&setting.layer(), Owner::ROOT).look().unwrap().unwrap();
        assert!(index.is_plain(&outline()), "{what}");
        let before = identity(&setting.layer());
        change(&setting.layer());
        fs::create_dir(setting.path("layers/.kept")).unwrap();
        fs::rename(setting.layer(), setting.kept()).unwrap();
        let found = setting.restore(false);
        assert_eq!(identity(&setting.layer()) == before, what == "nothing", "{what}");
        assert_eq!(found, setting.extracted(), "{what}");
    }
}

/// What happens between two builds.
type Event = (&'static str, fn(&Setting));

#[test]
fn what_is_not_known_is_extracted() {
    let events: [Event; 6] = [
        ("the tar was written again", |setting| {
            fs::write(setting.tar(), fs::read(setting.tar()).unwrap()).unwrap();
        }),
        ("no index", |setting| {
            rustix::fs::removexattr(setting.path("cache/committed"), "user.drydock.index").unwrap();
        }),
        ("another layer", |setting| {
            fs::remove_dir_all(setting.kept()).unwrap();
            make(&setting.kept());
            fs::write(setting.kept().join("d0/f0"), "another").unwrap();
        }),
        ("a link", |setting| {
            fs::rename(setting.kept(), setting.path("elsewhere")).unwrap();
            symlink(setting.path("elsewhere"), setting.kept()).unwrap();
        }),
        ("a file", |setting| {
            fs::remove_dir_all(setting.kept()).unwrap();
            fs::write(setting.kept(), "").unwrap();
        }),
        ("it is there already", |setting| make(&setting.layer())),
    ];
    for (what, event) in events {
        let setting = Setting::new(nothing);
        let before = identity(&setting.kept());
        event(&setting);
        let found = setting.restore(false);
        assert_ne!(identity(&setting.layer()), before, "{what}");
        assert_eq!(found, setting.extracted(), "{what}");
    }
    // Without its tar, a layer does not come back.
    let setting = Setting::new(nothing);
    fs::remove_file(setting.tar()).unwrap();
    assert!(setting.restore(false).is_empty() && !setting.path("layers/acme_a/lib.toml").exists());
}

#[test]
fn what_is_not_restored_is_removed() {
    let setting = Setting::new(nothing);
    assert!(setting.restore(true).is_empty());
    let setting = Setting::new(nothing);
    let secret = setting.path("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("file"), "").unwrap();
    symlink(&secret, setting.path("layers/.kept/link")).unwrap();
    setting.restore(false);
    assert!(secret.join("file").exists());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn edited_trees_are_as_if_extracted(edits in prop::collection::vec(edits(), 1..4)) {
        let setting = Setting::new(nothing);
        for edit in &edits {
            // It may fail where an earlier one has removed what it takes.
            let _ = edit.apply(&setting.kept());
        }
        let found = setting.restore(false);
        prop_assert_eq!(found, setting.extracted(), "{:?}", edits);
    }
}
