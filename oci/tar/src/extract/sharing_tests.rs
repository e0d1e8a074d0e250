//! Two threads make what one would have made.

use proptest::prelude::*;
use tar::EntryType::{self, Directory, Fifo, Link, Regular, Symlink};

use super::helper::Sharing;
use super::tests::{BELOW, Entries, Place, describe, tar_of};
use super::*;

const ALONE: Sharing = Sharing { from: u64::MAX, few: 0, many: 0 };
const AT_ONCE: Sharing = Sharing { from: 0, few: 6, many: 8 };
/// As soon as the helper has something to make, the reading thread does the rest.
const BY_TURNS: Sharing = Sharing { from: 0, few: 1, many: 1 };
/// The helper makes every file.
const ALL: Sharing = Sharing { from: 0, few: u64::MAX, many: u64::MAX };

const ALL_SHARINGS: [(&str, Sharing); 4] =
    [("alone", ALONE), ("at once", AT_ONCE), ("by turns", BY_TURNS), ("all", ALL)];

fn extract_into(place: &Place, tar: &[u8], sharing: Sharing) -> Result<(), ExtractError> {
    extract_sharing(tar, DiffId::of(tar), Path::new(BELOW), &place.root(), sharing)
}

/// What is on disk afterwards; or the error, without the name of the temporary directory.
fn outcome(tar: &[u8], sharing: Sharing) -> Result<Vec<String>, String> {
    let place = Place::new();
    fs::write(place.root().join("old"), "old").unwrap();
    fs::create_dir(place.root().join("kept")).unwrap();
    let extracted = extract_into(&place, tar, sharing);
    place.assert_outside_is_untouched("");
    extracted.map(|()| describe(&place.root())).map_err(|error| {
        let mut left = describe(&place.root());
        left.retain(|line| !line.starts_with("old "));
        assert_eq!(left, ["kept/ 755"], "{error}");
        format!("{error:?}").replace(&*place.root().to_string_lossy(), "")
    })
}

/// `count` files of `size` bytes, in directories of seven each, some of them below others.
fn many_files(count: usize, size: usize) -> Vec<(String, EntryType, String)> {
    (0..count)
        .map(|i| {
            let dir = i / 7;
            let name = format!("/layers/many/{}/d{dir}/f{i}", dir % 13);
            (name, Regular, format!("{i:size$}"))
        })
        .collect()
}

fn borrowed(entries: &[(String, EntryType, String)]) -> Vec<(&str, EntryType, &str)> {
    entries.iter().map(|(name, kind, text)| (&**name, *kind, &**text)).collect()
}

/// An archive with modes that differ, and a file of several chunks here and there.
#[test]
fn thousands_of_files_come_back() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut expected = Vec::new();
    let big: Vec<u8> = (0..700_000_u32).map(|i| (i.wrapping_mul(i) >> 7).to_le_bytes()[0]).collect();
    for i in 0..3000_usize {
        let dir = i / 9;
        let path = format!("a{}/b{}/c{dir}/f{i}", dir % 3, dir % 11);
        let mode = [0o644, 0o755, 0o4755, 0o600, 0o2711, 0o444][i % 6];
        let contents = match i % 500 {
            77 => &big[i..],
            0..20 => b"",
            _ => &big[i..i + i % 997],
        };
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(Regular);
        header.set_mode(mode);
        header.set_size(contents.len() as u64);
        builder.append_data(&mut header, format!("layers/{path}"), contents).unwrap();
        expected.push((path, mode, contents));
    }
    let tar = builder.into_inner().unwrap();
    for (context, sharing) in [("by turns", BY_TURNS), ("all", ALL), ("default", Sharing::default())] {
        let place = Place::new();
        extract_into(&place, &tar, sharing).unwrap();
        for (path, mode, contents) in &expected {
            use std::os::unix::fs::PermissionsExt as _;
            let path = place.root().join(path);
            assert!(fs::read(&path).unwrap() == *contents, "{context}: {}", path.display());
            let found = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
            assert_eq!(found, *mode, "{context}: {}", path.display());
        }
    }
}

#[test]
fn what_comes_later_finds_what_came_before() {
    type Outcome<'a> = Result<&'a [&'a str], &'a str>;
    let table: &[(&str, Entries<'_>, Outcome<'_>)] = &[
        ("file, file", &[("/layers/d/x", Regular, "1"), ("/layers/d/x", Regular, "2")], Ok(&["d/x 644 2"])),
        (
            "file, symlink",
            &[("/layers/d/x", Regular, "1"), ("/layers/d/x", Symlink, "to")],
            Ok(&["d/x -> to"]),
        ),
        (
            "symlink, file",
            &[("/layers/d/x", Symlink, "to"), ("/layers/d/x", Regular, "1")],
            Ok(&["d/x 644 1"]),
        ),
        ("file, FIFO", &[("/layers/d/x", Regular, "1"), ("/layers/d/x", Fifo, "")], Ok(&["d/x 644 special"])),
        (
            "file, directory",
            &[("/layers/d/x", Regular, "1"), ("/layers/d/x", Directory, ""), ("/layers/d/x/y", Regular, "y")],
            Ok(&["d/x/ 755", "d/x/y 644 y"]),
        ),
        (
            "file, hard link to it, file",
            &[
                ("/layers/d/x", Regular, "1"),
                ("/layers/e/h", Link, "/layers/d/x"),
                ("/layers/d/x", Regular, "2"),
            ],
            Ok(&["d/x 644 2", "e/h 644 1"]),
        ),
        (
            "files, hard link in place of one",
            &[
                ("/layers/d/x", Regular, "1"),
                ("/layers/d/h", Regular, "2"),
                ("/layers/d/h", Link, "/layers/d/x"),
            ],
            Ok(&["d/h 644 1", "d/x 644 1"]),
        ),
        (
            "file, something in it",
            &[("/layers/d/x", Regular, "1"), ("/layers/d/x/y/z", Regular, "2")],
            Err("something else than a directory"),
        ),
        (
            "file, directory in it",
            &[("/layers/d/x", Regular, "1"), ("/layers/d/x/y", Directory, "")],
            Err("something else than a directory"),
        ),
        (
            "file, hard link to something in it",
            &[("/layers/d/x", Regular, "1"), ("/layers/d/h", Link, "/layers/d/x/y")],
            Err("something else than a directory"),
        ),
        (
            "directory, file, directory",
            &[
                ("/layers/d/x", Directory, ""),
                ("/layers/d/x", Regular, "1"),
                ("/layers/d/x/y", Directory, ""),
            ],
            Err("in its place is a directory"),
        ),
        (
            "two errors",
            &[
                ("/layers/d", Regular, ""),
                ("/layers/e/x", Directory, ""),
                ("/layers/e/x", Regular, ""),
                ("/etc", Regular, ""),
            ],
            Err("/layers/e/x` is refused: in its place is a directory"),
        ),
    ];
    let before = many_files(150, 3000);
    for (context, entries, expected) in table {
        let tar = tar_of(&[&borrowed(&before)[..], entries].concat());
        for (name, sharing) in ALL_SHARINGS.into_iter().chain([("default", Sharing::default())]) {
            let place = Place::new();
            let extracted = extract_into(&place, &tar, sharing);
            let mut lines = describe(&place.root());
            match expected {
                Ok(expected) => {
                    extracted.unwrap_or_else(|error| panic!("{context}, {name}: {error}"));
                    lines.retain(|line| !line.starts_with("many") && !matches!(&**line, "d/ 755" | "e/ 755"));
                    assert_eq!(lines, *expected, "{context}, {name}");
                }
                Err(expected) => {
                    let error = extracted.unwrap_err().to_string();
                    assert!(error.contains(expected), "{context}, {name}: {error}");
                    assert_eq!(lines, [""; 0], "{context}, {name}");
                }
            }
        }
    }
}

#[test]
fn late_errors_leave_nothing() {
    let files = many_files(250, 3000);
    let entries = borrowed(&files);
    let whole = tar_of(&entries);
    let with = |entry| tar_of(&[&entries[..], &[entry], &entries[..]].concat());
    let table = [
        ("wrong digest", whole.clone(), DiffId::of(b"another")),
        ("refused", with(("/etc/x", Regular, "")), DiffId::of(b"")),
        ("refused at its place", with(("/layers/taken", Regular, "")), DiffId::of(b"")),
        ("ends early", whole[..whole.len() * 2 / 3 + 700].to_vec(), DiffId::of(b"")),
        ("malformed", [&whole[..whole.len() - 1024], &[b'x'; 4096]].concat(), DiffId::of(b"")),
    ];
    for (context, tar, diff_id) in table {
        for (name, sharing) in ALL_SHARINGS {
            let place = Place::new();
            fs::create_dir(place.root().join("taken")).unwrap();
            // So that not everything is removed with one directory.
            fs::create_dir_all(place.root().join("many/3")).unwrap();
            extract_sharing(&tar[..], diff_id, Path::new(BELOW), &place.root(), sharing).unwrap_err();
            let left = describe(&place.root());
            assert_eq!(left, ["many/ 755", "many/3/ 755", "taken/ 755"], "{context}, {name}");
        }
    }
}

/// A tar without an end: one that is read after the helper has failed would be read forever.
#[test]
fn nothing_is_read_for_long_after_the_helper_failed() {
    let place = Place::new();
    fs::create_dir(place.root().join("taken")).unwrap();
    let mut tar = tar_of(&[("/layers/taken", Regular, ""), ("/layers/endless", Regular, "")]);
    // The size of the second file.
    tar[512 + 124..512 + 136].copy_from_slice(b"77777777777\0");
    tests::seal(&mut tar);
    let tar = tar[..1024].chain(io::repeat(b'x'));
    let error = extract_sharing(tar, DiffId::of(b""), Path::new(BELOW), &place.root(), BY_TURNS).unwrap_err();
    assert!(error.to_string().contains("in its place is a directory"), "{error}");
    assert_eq!(describe(&place.root()), ["taken/ 755"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes in whatever order: what is on disk, or the error, is that of a single thread.
    #[test]
    fn threads_make_no_difference(
        entries in prop::collection::vec(
            (
                "/layers(/(a|b|kept|old))?/(a|b|c)",
                prop::sample::select(&[Regular, Regular, Regular, Directory, Symlink, Link, Fifo][..]),
                "/layers(/(a|b|kept|old))?/(a|b|c)",
            ),
            1..14,
        ),
        padding in prop::sample::select(&[0_usize, 40][..]),
    ) {
        let mut all = many_files(padding, 20);
        all.extend(entries);
        let tar = tar_of(&borrowed(&all));
        let expected = outcome(&tar, ALONE);
        for (name, sharing) in ALL_SHARINGS {
            prop_assert_eq!(&outcome(&tar, sharing), &expected, "{}", name);
        }
    }
}
