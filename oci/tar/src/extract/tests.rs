use std::io::Cursor;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use proptest::prelude::*;
use tar::EntryType::{self, Block, Char, Continuous, Directory, Fifo, Link, Regular, Symlink};

use super::*;
use crate::testing::{Entries, Sandbox, describe, seal, tar_of};

/// What they are about, what is in them after something harmless, and why they are refused.
const HOSTILE: &[(&str, Entries<'static>, &str)] = &[
    ("absolute name elsewhere", &[("/etc/x", Regular, "x")], "it lies outside"),
    ("beside the directory", &[("/layers/bp/layer2/x", Regular, "x")], "it lies outside"),
    ("another layer", &[("/layers/bp/other/file", Regular, "x")], "it lies outside"),
    ("what describes the layer", &[("/layers/bp/layer.toml", Regular, "x")], "it lies outside"),
    ("what the next phase reads", &[("/layers/group.toml", Regular, "x")], "it lies outside"),
    ("new directory on the way", &[("/layers/bp2", Directory, "")], "it lies outside"),
    ("relative name elsewhere", &[("outside/x", Regular, "x")], "it lies outside"),
    ("dots up", &[("/layers/bp/layer/../other/file", Regular, "x")], "`..`"),
    ("dots at the beginning", &[("../outside/x", Regular, "x")], "`..`"),
    ("dots that stay inside", &[("/layers/bp/layer/a/../x", Regular, "x")], "`..`"),
    ("symlink for the directory", &[("/layers/bp/layer", Symlink, "../../outside")], "belongs a directory"),
    ("symlink for one above", &[("/layers/bp", Symlink, "../outside")], "belongs a directory"),
    ("file for what is above all", &[("/", Regular, "x")], "belongs a directory"),
    (
        "file behind a symlink",
        &[("/layers/bp/layer/a", Symlink, "../../../outside"), ("/layers/bp/layer/a/x", Regular, "x")],
        "something else than a directory",
    ),
    (
        "directory behind a symlink",
        &[("/layers/bp/layer/a", Symlink, "../../../outside"), ("/layers/bp/layer/a/x/", Directory, "")],
        "something else than a directory",
    ),
    (
        "FIFO behind a symlink",
        &[("/layers/bp/layer/a", Symlink, "../../../outside"), ("/layers/bp/layer/a/x", Fifo, "")],
        "something else than a directory",
    ),
    (
        "writing through a symlink",
        &[("/layers/bp/layer/a", Symlink, "../../../outside/secret"), ("/layers/bp/layer/a", Regular, "x")],
        "it comes twice",
    ),
    ("hard link outside", &[("/layers/bp/layer/a", Link, "/outside/secret")], "links to something outside"),
    (
        "hard link to another layer",
        &[("/layers/bp/layer/a", Link, "/layers/bp/other/file")],
        "links to something outside",
    ),
    (
        "hard link up",
        &[("/layers/bp/layer/a", Link, "/layers/bp/layer/../other/file")],
        "links to something outside",
    ),
    (
        "hard link behind a symlink",
        &[
            ("/layers/bp/layer/a", Symlink, "../other"),
            ("/layers/bp/layer/b", Link, "layers/bp/layer/a/file"),
        ],
        "is not there",
    ),
    ("hard link to the directory", &[("/layers/bp/layer/a", Link, "/layers/bp/layer")], "something outside"),
    ("hard link to what is missing", &[("/layers/bp/layer/a", Link, "/layers/bp/layer/b")], "is not there"),
    ("hard link to itself", &[("/layers/bp/layer/a", Link, "/layers/bp/layer/a")], "is not there"),
    ("character device", &[("/layers/bp/layer/a", Char, "")], "devices"),
    ("block device", &[("/layers/bp/layer/a", Block, "")], "devices"),
    (
        "file in a file",
        &[("/layers/bp/layer/a", Continuous, ""), ("/layers/bp/layer/a/x", Regular, "")],
        "something else than a directory",
    ),
    (
        "file for a directory",
        &[("/layers/bp/layer/a", Directory, ""), ("/layers/bp/layer/a", Regular, "")],
        "it comes twice",
    ),
    (
        "directory for a file",
        &[("/layers/bp/layer/a", Regular, ""), ("/layers/bp/layer/a", Directory, "")],
        "it comes twice",
    ),
    (
        "file in a directory that is left out",
        &[("/layers/bp/layer/a/b", Regular, "")],
        "does not come before",
    ),
];

#[test]
fn hostile_archives_are_refused() {
    for (context, entries, expected) in HOSTILE {
        let sandbox = Sandbox::new();
        // So that there is something to undo.
        let good = [("/layers/bp/layer", Directory, ""), ("/layers/bp/layer/good", Regular, "good")];
        let error = sandbox.extract(&tar_of(&[&good, *entries].concat())).unwrap_err();
        assert!(matches!(error, ExtractError::Refused { .. }), "{context}: {error}");
        assert!(error.to_string().contains(expected), "{context}: {error}");
        sandbox.assert_nothing_is_left(context);
    }
}

#[test]
fn what_a_layer_holds_comes_back() {
    let sandbox = Sandbox::new();
    let mut tar = tar_of(&[
        ("/", Directory, ""),
        ("/layers/", Directory, ""),
        ("layers/bp", Directory, ""),
        ("layers/bp/layer", Directory, ""),
        ("./layers/bp/layer/dir/", Directory, ""),
        ("/layers/bp/layer/dir/file", Regular, "contents"),
        ("/layers/bp/layer/dir/link", Symlink, "/anywhere/at all"),
        ("/layers/bp/layer/hard", Link, "layers/bp/layer/dir/file"),
        ("/layers/bp/layer/hard link to a link", Link, "/layers/bp/layer/dir/link"),
        ("/layers/bp/layer/pipe", Fifo, ""),
        ("/layers/bp/layer/empty", Regular, ""),
    ]);
    // Modes of entries by their numbers; the contents take one block.
    for (block, mode) in [(3, 0o2711), (4, 0o1555), (5, 0o6754), (11, 0o4000)] {
        tar[block * 512 + 100..][..8].copy_from_slice(format!("{mode:07o}\0").as_bytes());
    }
    seal(&mut tar);
    sandbox.extract(&tar).unwrap();
    let expected = [
        "dir/ 555",
        "dir/file 754 contents",
        "dir/link -> /anywhere/at all",
        "empty 0 ",
        "hard 754 contents",
        "hard link to a link -> /anywhere/at all",
        "pipe 644 special",
    ];
    assert_eq!(sandbox.describe(), expected);
    assert_eq!(fs::metadata(sandbox.root()).unwrap().permissions().mode() & 0o7777, 0o711);
    sandbox.assert_rest_is_untouched("");
}

#[test]
fn it_comes_in_place_of_what_is_there() {
    let tar = tar_of(&[("/layers/bp/layer/new", Regular, "new")]);
    let before: [fn(&Path); 3] = [
        |into| {
            fs::create_dir_all(into.join("old/er")).unwrap();
            symlink("../../../outside", into.join("new")).unwrap();
        },
        |into| fs::write(into, "").unwrap(),
        |into| symlink("../../outside", into).unwrap(),
    ];
    for make in before {
        let sandbox = Sandbox::new();
        make(&sandbox.root());
        sandbox.extract(&tar).unwrap();
        assert_eq!(sandbox.describe(), ["new 644 new"]);
        sandbox.assert_rest_is_untouched("");
    }
}

#[test]
fn the_wrong_contents_leave_nothing() {
    let sandbox = Sandbox::new();
    let tar = tar_of(&[("/layers/bp/layer/a", Directory, ""), ("/layers/bp/layer/a/b", Regular, "b")]);
    let wrong = DiffId::of(b"something else");
    let error = sandbox.extract_as(&tar[..], wrong, u64::MAX).unwrap_err();
    assert!(
        matches!(error, ExtractError::Mismatch { expected, found } if expected == wrong && found == DiffId::of(&tar))
    );
    sandbox.assert_nothing_is_left("");
    // What follows the archive's end counts as well.
    let longer = [&tar[..], b"x"].concat();
    sandbox.extract(&longer).unwrap();
    sandbox.extract_as(&longer[..], DiffId::of(&tar), u64::MAX).unwrap_err();
}

#[test]
fn no_more_is_extracted_than_the_limit() {
    let mut tar = tar_of(&[("/layers/bp/layer/endless", Regular, "")]);
    let length = tar.len() as u64;
    let sandbox = Sandbox::new();
    sandbox.extract_as(&tar[..], DiffId::of(&tar), length).unwrap();
    // The file's size, then contents without an end.
    tar[124..136].copy_from_slice(b"77777777777\0");
    seal(&mut tar);
    let endless = tar[..512].chain(io::repeat(b'x'));
    let error = sandbox.extract_as(endless, DiffId::of(b""), 3 << 20).unwrap_err();
    let ExtractError::Archive(ArchiveError::Read(cause)) = &error else { panic!("{error}") };
    assert_eq!(cause.to_string(), "it has more than 3145728 bytes");
    sandbox.assert_nothing_is_left("");
}

/// Deeper than the files that a process may usually have open.
#[test]
fn nothing_is_left_of_a_deep_tree() {
    let names: Vec<_> = (1..=2048).map(|depth| format!("/layers/bp/layer{}", "/d".repeat(depth))).collect();
    let mut tar = Vec::new();
    for name in &names {
        let record = |length: usize| format!("{length} path={name}\n");
        let length = (0..10_000).find(|&length| record(length).len() == length).unwrap();
        let end = tar.len().saturating_sub(1024);
        tar.truncate(end);
        tar.extend(tar_of(&[("x", EntryType::XHeader, &record(length)), ("", Directory, "")]));
    }
    let sandbox = Sandbox::new();
    sandbox.extract(&tar).unwrap();
    sandbox.extract_as(&tar[..], DiffId::of(b""), u64::MAX).unwrap_err();
    sandbox.assert_nothing_is_left("");
}

#[test]
fn an_archive_that_ends_early_leaves_nothing() {
    let tar = tar_of(&[
        ("/layers/bp/layer/a/", Directory, ""),
        ("/layers/bp/layer/a/b", Regular, &"b".repeat(1000)),
        ("/layers/bp/layer/c", Regular, "c"),
    ]);
    for end in (0..tar.len()).filter(|end| matches!(end % 512, 0 | 1 | 300 | 511)) {
        let sandbox = Sandbox::new();
        let whole_blocks = end % 512 == 0;
        let contents_cut = [1024, 1536, 2560].contains(&end);
        match sandbox.extract(&tar[..end]) {
            Ok(()) => assert!(whole_blocks && !contents_cut, "{end}"),
            Err(ExtractError::Archive(ArchiveError::Read(_))) => {
                sandbox.assert_nothing_is_left(&end.to_string());
            }
            Err(error) => panic!("{end}: {error}"),
        }
    }
}

#[test]
fn two_threads_extract_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    thread::scope(|scope| {
        for layer in ["one", "two", "three"] {
            let (into, named) = (dir.path().join(layer), PathBuf::from(format!("/layers/bp/{layer}")));
            scope.spawn(move || {
                let dirs = (0..7).map(|i| (format!("/layers/bp/{layer}/{i}"), Directory));
                let files = (0..200).map(|i| (format!("/layers/bp/{layer}/{}/{i}", i % 7), Regular));
                let all: Vec<_> = dirs.chain(files).collect();
                let entries: Vec<_> = all.iter().map(|(name, kind)| (&**name, *kind, "")).collect();
                let tar = tar_of(&entries);
                let (diff_id, limit, threads) = (DiffId::of(&tar), tar.len() as u64, NonZeroUsize::MIN);
                extract(&tar[..], &Extraction { diff_id, named: &named, into: &into, limit, threads })
                    .unwrap();
            });
        }
    });
    assert_eq!(describe(dir.path()).len(), 3 * (1 + 7 + 200));
}

/// More than batches take and threads have, of all sizes; links to files that have just come.
#[test]
fn small_and_large_files_come_side_by_side() {
    let sizes = [0_usize, 1, 300, 5000, 65_536, 65_537, 200_000];
    let text = |number: usize| "0123456789abcdef".repeat(sizes[number % sizes.len()].div_ceil(16));
    let name = |number: usize| format!("/layers/bp/layer/{}/{number}", number % 5);
    let mut all: Vec<_> =
        (0..5).map(|dir| (format!("/layers/bp/layer/{dir}"), Directory, String::new())).collect();
    for number in 0..600 {
        all.push((name(number), Regular, text(number)[..sizes[number % sizes.len()]].to_owned()));
        if number % 100 == 99 {
            all.push((format!("/layers/bp/layer/link{number}"), Link, name(number)));
        }
    }
    let tar = |all: &[(String, EntryType, String)]| {
        let entries: Vec<_> = all.iter().map(|(name, kind, text)| (&**name, *kind, &**text)).collect();
        tar_of(&entries)
    };
    let sandbox = Sandbox::new();
    sandbox.extract(&tar(&all)).unwrap();
    for (name, kind, text) in &all {
        let path = sandbox.root().join(name.strip_prefix("/layers/bp/layer/").unwrap());
        match *kind {
            Regular => assert!(fs::read(&path).unwrap() == text.as_bytes(), "{name}"),
            Link => assert_eq!(fs::metadata(&path).unwrap().nlink(), 2, "{name}"),
            _ => assert!(path.is_dir(), "{name}"),
        }
    }
    sandbox.assert_rest_is_untouched("");
    // One in a batch of many.
    for again in [0, 7, 300, 599] {
        let mut all = all.clone();
        all.insert(5 + again, (name(again), Regular, String::new()));
        let sandbox = Sandbox::new();
        let error = sandbox.extract(&tar(&all)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the tar's entry `{}` is refused: it comes twice", name(again))
        );
        sandbox.assert_nothing_is_left(&name(again));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the bytes: an error at worst, and nothing outside is touched.
    #[test]
    fn any_bytes_stay_inside(
        changes in prop::collection::vec((0..6144usize, any::<u8>()), 0..20),
        names in prop::collection::vec("(/?layers/bp)?(/(layer|a|b|\\.\\.|\\.)){0,3}", 5),
        types in prop::collection::vec(prop::sample::select(&b"0123455\0xLKgS"[..]), 5),
        fix_sums in any::<bool>(),
    ) {
        let entries: Vec<_> = names.iter().zip(&types).map(|(name, &entry_type)| {
            (&**name, EntryType::new(entry_type), "../../../outside")
        }).collect();
        let mut tar = tar_of(&entries);
        for (at, byte) in changes {
            if let Some(place) = tar.get_mut(at) {
                *place = byte;
            }
        }
        if fix_sums {
            seal(&mut tar);
        }
        let sandbox = Sandbox::new();
        match sandbox.extract_as(Cursor::new(&tar), DiffId::of(&tar), tar.len() as u64) {
            Ok(()) => sandbox.assert_rest_is_untouched(""),
            Err(_) => sandbox.assert_nothing_is_left(""),
        }
    }
}
