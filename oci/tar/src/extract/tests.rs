use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use proptest::prelude::*;
use tar::EntryType;

use super::*;

pub(super) const BELOW: &str = "/layers";

/// Name, type, and the text that [`tar_of`] puts in.
pub(super) type Entries<'a> = &'a [(&'a str, EntryType, &'a str)];

/// An archive of these entries, whose names and targets are put into the headers as they are. The last text is the
/// target of links, and the contents of anything else.
pub(super) fn tar_of(entries: Entries<'_>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, entry_type, text) in entries {
        let mut header = tar::Header::new_ustar();
        let fields = header.as_ustar_mut().expect("was made as such");
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        let is_link = matches!(entry_type, EntryType::Link | EntryType::Symlink);
        if is_link {
            fields.linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        let contents = if is_link { "" } else { text };
        header.set_entry_type(*entry_type);
        let is_dir = *entry_type == EntryType::Directory || name.ends_with('/');
        header.set_mode(if is_dir { 0o755 } else { 0o644 });
        header.set_size(contents.len() as u64);
        header.set_cksum();
        builder.append(&header, contents.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Corrects the checksums of all headers.
pub(super) fn seal(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// A directory to extract into, beside one that must not be touched.
pub(super) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("into")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/secret"), "secret").unwrap();
        Self { dir }
    }

    pub(super) fn root(&self) -> PathBuf {
        self.dir.path().join("into")
    }

    fn extract(&self, tar: &[u8]) -> Result<(), ExtractError> {
        extract(tar, DiffId::of(tar), Path::new(BELOW), &self.root())
    }

    pub(super) fn assert_outside_is_untouched(&self, context: &str) {
        assert_eq!(describe(&self.dir.path().join("outside")), ["secret 644 secret"], "{context}");
        let names = fs::read_dir(self.dir.path()).unwrap().count();
        assert_eq!(names, 2, "{context}");
        assert_eq!(fs::metadata(self.dir.path().join("outside/secret")).unwrap().nlink(), 1, "{context}");
    }
}

/// What is in a directory: path, permissions (not a symlink's), contents or target.
pub(super) fn describe(dir: &Path) -> Vec<String> {
    fn add(path: &Path, name: &Path, lines: &mut Vec<String>) {
        let metadata = fs::symlink_metadata(path).unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        let name_text = name.display();
        if metadata.is_symlink() {
            lines.push(format!("{name_text} -> {}", fs::read_link(path).unwrap().display()));
        } else if metadata.is_dir() {
            lines.push(format!("{name_text}/ {mode:o}"));
            let mut names: Vec<_> =
                fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            for child in names {
                add(&path.join(&child), &name.join(&child), lines);
            }
        } else if metadata.is_file() {
            let contents = fs::read(path).unwrap();
            lines.push(format!("{name_text} {mode:o} {}", String::from_utf8_lossy(&contents)));
        } else {
            lines.push(format!("{name_text} {mode:o} special"));
        }
    }
    let mut lines = Vec::new();
    add(dir, Path::new(""), &mut lines);
    lines.remove(0);
    lines
}

#[test]
fn hostile_archives_are_refused() {
    use EntryType::{Block, Char, Continuous, Directory, Fifo, Link, Regular, Symlink};
    let table: &[(&str, Entries<'_>, &str)] = &[
        ("absolute name elsewhere", &[("/etc/x", Regular, "x")], "it lies outside"),
        ("sibling of the root", &[("/layers2/x", Regular, "x")], "it lies outside"),
        ("relative name elsewhere", &[("outside/x", Regular, "x")], "it lies outside"),
        ("dots up", &[("/layers/../outside/x", Regular, "x")], "`..`"),
        ("dots at the beginning", &[("../outside/x", Regular, "x")], "`..`"),
        ("dots that stay inside", &[("/layers/a/../x", Regular, "x")], "`..`"),
        ("symlink for the root", &[("/layers", Symlink, "../outside")], "belongs a directory"),
        ("file for what is above the root", &[("/", Regular, "x")], "belongs a directory"),
        (
            "file behind a symlink of the archive",
            &[("/layers/a", Symlink, "../outside"), ("/layers/a/x", Regular, "x")],
            "something else than a directory",
        ),
        (
            "directory behind a symlink of the archive",
            &[("/layers/a", Symlink, "../outside"), ("/layers/a/x/y", Directory, "")],
            "something else than a directory",
        ),
        (
            "file behind a symlink on disk",
            &[("/layers/dir/x", Regular, "x")],
            "something else than a directory",
        ),
        (
            "replacing behind a symlink",
            &[("/layers/dir/secret", Regular, "x")],
            "something else than a directory",
        ),
        ("hard link outside", &[("/layers/a", Link, "/outside/secret")], "links to something outside"),
        ("hard link up", &[("/layers/a", Link, "/layers/../outside/secret")], "links to something outside"),
        (
            "hard link behind a symlink",
            &[("/layers/a", Link, "/layers/dir/secret")],
            "something else than a directory",
        ),
        ("hard link to the root", &[("/layers/a", Link, "/layers")], "links to something outside"),
        ("hard link to itself", &[("/layers/a", Regular, ""), ("/layers/a", Link, "/layers/a")], "itself"),
        ("character device", &[("/layers/a", Char, "")], "devices"),
        ("block device", &[("/layers/a", Block, "")], "devices"),
        ("FIFO behind a symlink", &[("/layers/dir/a", Fifo, "")], "something else than a directory"),
        (
            "file in a file",
            &[("/layers/a", Continuous, ""), ("/layers/a/x", Regular, "")],
            "else than a directory",
        ),
        (
            "file for a directory",
            &[("/layers/a", Directory, ""), ("/layers/a", Regular, "")],
            "is a directory",
        ),
    ];
    for (context, entries, expected) in table {
        let place = Place::new();
        symlink("../outside", place.root().join("dir")).unwrap();
        let before = describe(&place.root());
        let error = place.extract(&tar_of(entries)).unwrap_err();
        assert!(matches!(error, ExtractError::Refused { .. }), "{context}: {error}");
        assert!(error.to_string().contains(expected), "{context}: {error}");
        place.assert_outside_is_untouched(context);
        assert_eq!(describe(&place.root()), before, "{context}");
    }
}

#[test]
fn symlinks_and_hard_links_in_the_way_are_replaced() {
    use EntryType::{Directory, Fifo, Link, Regular, Symlink};
    let table: &[(&str, Entries<'_>, &[&str])] = &[
        ("file", &[("/layers/file", Regular, "new")], &["file 644 new"]),
        (
            "directory",
            &[("/layers/file", Directory, ""), ("/layers/file/x", Regular, "x")],
            &["file/ 755", "file/x 644 x"],
        ),
        ("symlink", &[("/layers/file", Symlink, "/etc")], &["file -> /etc"]),
        ("fifo", &[("/layers/file", Fifo, "")], &["file 644 special"]),
        (
            "file of the archive",
            &[("/layers/file", Symlink, "../outside/secret"), ("/layers/file", Regular, "new")],
            &["file 644 new"],
        ),
        (
            "hard link to a symlink, then a file",
            &[
                ("/layers/h", Link, "layers/file"),
                ("/layers/h", Regular, "new"),
                ("/layers/file", Regular, ""),
            ],
            &["file 644 ", "h 644 new"],
        ),
    ];
    for (context, entries, expected) in table {
        let place = Place::new();
        symlink("../outside/secret", place.root().join("file")).unwrap();
        place.extract(&tar_of(entries)).unwrap();
        assert_eq!(&describe(&place.root()), expected, "{context}");
        place.assert_outside_is_untouched(context);
    }
}

#[test]
fn an_existing_file_is_replaced_not_written_to() {
    let place = Place::new();
    fs::write(place.root().join("a"), "old").unwrap();
    fs::hard_link(place.root().join("a"), place.root().join("other name")).unwrap();
    place.extract(&tar_of(&[("/layers/a", EntryType::Regular, "new")])).unwrap();
    assert_eq!(describe(&place.root()), ["a 644 new", "other name 644 old"]);
}

#[test]
fn existing_directories_stay_as_they_are() {
    let place = Place::new();
    fs::create_dir(place.root().join("a")).unwrap();
    fs::set_permissions(place.root().join("a"), fs::Permissions::from_mode(0o750)).unwrap();
    place
        .extract(&tar_of(&[
            ("/", EntryType::Directory, ""),
            ("/layers/", EntryType::Directory, ""),
            ("/layers/a/", EntryType::Directory, ""),
            ("/layers/a/b/c", EntryType::Regular, "c"),
            ("/layers/a/b", EntryType::Directory, ""),
        ]))
        .unwrap();
    assert_eq!(describe(&place.root()), ["a/ 750", "a/b/ 755", "a/b/c 644 c"]);
}

#[test]
fn the_wrong_contents_leave_nothing() {
    let place = Place::new();
    fs::create_dir(place.root().join("kept")).unwrap();
    let tar = tar_of(&[
        ("/layers/kept", EntryType::Directory, ""),
        ("/layers/kept/a", EntryType::Regular, "a"),
        ("/layers/b/c/d", EntryType::Regular, "d"),
        ("/layers/b/c/e", EntryType::Symlink, "../kept"),
        ("/layers/f", EntryType::Fifo, ""),
        ("/layers/f", EntryType::Directory, ""),
    ]);
    let wrong = DiffId::of(b"something else");
    let error = extract(&tar[..], wrong, Path::new(BELOW), &place.root()).unwrap_err();
    assert!(
        matches!(error, ExtractError::Mismatch { expected, found } if expected == wrong && found == DiffId::of(&tar))
    );
    assert_eq!(describe(&place.root()).len(), 1);
    // What follows the archive's end counts as well.
    let longer = [&tar[..], b"x"].concat();
    extract(&longer[..], DiffId::of(&longer), Path::new(BELOW), &place.root()).unwrap();
    extract(&longer[..], DiffId::of(&tar), Path::new(BELOW), &place.root()).unwrap_err();
}

#[test]
fn an_archive_that_ends_early_leaves_nothing() {
    let tar = tar_of(&[
        ("/layers/a/", EntryType::Directory, ""),
        ("/layers/a/b", EntryType::Regular, &"b".repeat(1000)),
        ("/layers/c", EntryType::Regular, "c"),
    ]);
    for end in (0..tar.len()).filter(|end| matches!(end % 512, 0 | 1 | 300 | 511)) {
        let place = Place::new();
        let whole_blocks = end % 512 == 0;
        let contents_cut = [1024, 1536, 2560].contains(&end);
        match place.extract(&tar[..end]) {
            Ok(()) => assert!(whole_blocks && !contents_cut, "{end}"),
            Err(ExtractError::Read(_)) => assert!(describe(&place.root()).is_empty(), "{end}"),
            Err(error) => panic!("{end}: {error}"),
        }
    }
}

#[test]
fn malformed_archives_are_errors() {
    let good = tar_of(&[("/layers/a", EntryType::Regular, "a")]);
    let x =
        |records: &str| tar_of(&[("x", EntryType::XHeader, records), ("/layers/a", EntryType::Regular, "")]);
    let mut wrong_sum = good.clone();
    wrong_sum[0] = b'.';
    let mut lonely_zeros = vec![0; 512];
    lonely_zeros.extend_from_slice(&good);
    for (context, tar) in [
        ("checksum", wrong_sum),
        ("lonely zeros", lonely_zeros),
        ("not a tar", vec![b'x'; 2048]),
        ("record too long", x("99 path=/layers/b\n")),
        ("record without a length", x("path=/layers/b\n")),
        ("record without a key", x("5 ab\n")),
        ("record of length 0", x("0 path=/layers/b\n")),
        ("size is no number", x("12 size=-12\n")),
        ("sparse", x("22 GNU.sparse.major=1\n")),
        ("GNU sparse", tar_of(&[("/layers/a", EntryType::GNUSparse, "")])),
        ("unknown", tar_of(&[("/layers/a", EntryType::new(b'Z'), "")])),
        ("extended header without an entry", tar_of(&[("x", EntryType::XHeader, "10 path=x\n")])),
        ("extended header too large", tar_of(&[("x", EntryType::XHeader, &"x".repeat((1 << 20) + 1))])),
    ] {
        let place = Place::new();
        let error = place.extract(&tar).unwrap_err();
        assert!(matches!(error, ExtractError::Malformed { .. }), "{context}: {error}");
        assert!(describe(&place.root()).is_empty(), "{context}");
    }
}

#[test]
fn long_names_come_in_several_forms() {
    let long = format!("/layers/{}/{}", "a".repeat(150), "b".repeat(150));
    let target = "t".repeat(300);
    let record = |key: &str, value: &str| {
        let length = key.len() + value.len() + 3 + 3;
        format!("{length} {key}={value}\n")
    };
    let pax = record("path", &long) + &record("linkpath", &target);
    let gnu_name = long.clone() + "\0";
    let gnu_target = target.clone() + "\0";
    for (context, tar) in [
        ("pax", tar_of(&[("x", EntryType::XHeader, &pax), ("cut", EntryType::Symlink, "cut")])),
        (
            "gnu",
            tar_of(&[
                ("././@LongLink", EntryType::GNULongName, &gnu_name),
                ("././@LongLink", EntryType::GNULongLink, &gnu_target),
                ("cut", EntryType::Symlink, "cut"),
            ]),
        ),
    ] {
        let place = Place::new();
        place.extract(&tar).unwrap();
        let path = place.root().join(long.strip_prefix("/layers/").unwrap());
        assert_eq!(fs::read_link(path).unwrap(), Path::new(&target), "{context}");
    }
    // A name in an extended header is looked at like any other.
    let pax = record("path", &format!("/layers/../{}", "a".repeat(200)));
    let tar = tar_of(&[("x", EntryType::XHeader, &pax), ("/layers/a", EntryType::Regular, "")]);
    assert!(matches!(Place::new().extract(&tar), Err(ExtractError::Refused { .. })));
}

#[test]
fn global_headers_and_old_directories_are_understood() {
    let mut tar = tar_of(&[
        ("layers/old/", EntryType::Regular, ""),
        ("layers/old/file", EntryType::Regular, ""),
        ("g", EntryType::XGlobalHeader, "18 comment=hello\n"),
        ("layers/new", EntryType::Regular, "x"),
    ]);
    for header in [0, 512] {
        tar[header + 156] = 0;
    }
    seal(&mut tar);
    let place = Place::new();
    place.extract(&tar).unwrap();
    assert_eq!(describe(&place.root()), ["new 644 x", "old/ 755", "old/file 644 "]);
}

#[test]
fn two_threads_extract_side_by_side() {
    let place = Place::new();
    fs::create_dir(place.root().join("bp")).unwrap();
    let tar_for = |layer: &str| {
        let names: Vec<_> = (0..200).map(|i| format!("/layers/bp/{layer}/{}/{i}", i % 7)).collect();
        let entries: Vec<_> = names.iter().map(|name| (&**name, EntryType::Regular, layer)).collect();
        tar_of(&entries)
    };
    thread::scope(|scope| {
        for layer in ["one", "two", "three"] {
            let (place, tar) = (&place, tar_for(layer));
            scope.spawn(move || place.extract(&tar).unwrap());
        }
    });
    assert_eq!(describe(&place.root()).len(), 1 + 3 * (1 + 7 + 200));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the bytes: an error at worst, and nothing outside is touched.
    #[test]
    fn any_bytes_stay_inside(
        changes in prop::collection::vec((0..6144usize, any::<u8>()), 0..20),
        names in prop::collection::vec("(/?layers)?(/(a|b|dir|\\.\\.|\\.)){0,3}", 3),
        types in prop::collection::vec(prop::sample::select(&b"0123456\0xLKgS"[..]), 3),
        fix_sums in any::<bool>(),
    ) {
        let entries: Vec<_> = names.iter().zip(&types).map(|(name, &entry_type)| {
            (&**name, EntryType::new(entry_type), "../outside")
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
        let place = Place::new();
        symlink("../outside", place.root().join("dir")).unwrap();
        let result = extract(Cursor::new(&tar), DiffId::of(&tar), Path::new(BELOW), &place.root());
        place.assert_outside_is_untouched("");
        if result.is_err() {
            prop_assert!(describe(&place.root()).len() <= 1);
        }
    }
}
