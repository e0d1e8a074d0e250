use std::fs;
use std::process::Command;

use drydock_io::sink::{MemorySink, Sink as _};
use proptest::prelude::*;
use tar::EntryType::{self, Directory, Regular, Symlink};

use super::*;
use crate::entry::NO_XATTRS;
use crate::testing::{seal, tar_of};
use crate::write::{write_end, write_padding};

/// An entry of its own memory, with contents.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    name: Vec<u8>,
    kind: Kind<'static>,
    target: Vec<u8>,
    mode: u32,
    owner: Owner,
    modified: Time,
    xattrs: Xattrs,
    contents: Vec<u8>,
}

const NO_TARGET: &[u8] = b"";

impl Owned {
    fn entry(&self) -> Entry<'_> {
        let kind = match self.kind {
            Kind::Symlink { .. } => Kind::Symlink { target: &self.target },
            Kind::HardLink { .. } => Kind::HardLink { target: &self.target },
            kind => kind,
        };
        let Self { name, mode, owner, modified, xattrs, .. } = self;
        Entry { name, kind, mode: *mode, owner: *owner, modified: *modified, xattrs }
    }

    fn of(Member { entry, mut contents }: Member<'_, impl BufRead>) -> Result<Self, ArchiveError> {
        let mut read = Vec::new();
        contents.read_to_end(&mut read).map_err(ArchiveError::Read)?;
        let (kind, target) = match entry.kind {
            Kind::Symlink { target } => (Kind::Symlink { target: NO_TARGET }, target),
            Kind::HardLink { target } => (Kind::HardLink { target: NO_TARGET }, target),
            Kind::File { size } => (Kind::File { size }, NO_TARGET),
            Kind::Dir => (Kind::Dir, NO_TARGET),
            Kind::Fifo => (Kind::Fifo, NO_TARGET),
            Kind::CharDevice(device) => (Kind::CharDevice(device), NO_TARGET),
            Kind::BlockDevice(device) => (Kind::BlockDevice(device), NO_TARGET),
        };
        Ok(Self {
            name: entry.name.to_vec(),
            kind,
            target: target.to_vec(),
            mode: entry.mode,
            owner: entry.owner,
            modified: entry.modified,
            xattrs: entry.xattrs.clone(),
            contents: read,
        })
    }
}

fn read_all(tar: &[u8]) -> Result<Vec<Owned>, ArchiveError> {
    let mut archive = Archive::new(tar);
    let mut all = Vec::new();
    while let Some(member) = archive.read_next()? {
        all.push(Owned::of(member)?);
    }
    Ok(all)
}

fn owned() -> impl Strategy<Value = Owned> {
    let text = |most| {
        prop_oneof![
            prop::collection::vec(1..=255_u8, 1..most),
            prop::collection::vec(prop::sample::select(&b"ab/"[..]), 1..most)
        ]
    };
    let device =
        || any::<(u16, u16)>().prop_map(|(major, minor)| Device { major: major.into(), minor: minor.into() });
    let kind = prop_oneof![
        Just(Kind::File { size: 0 }),
        Just(Kind::Dir),
        Just(Kind::Fifo),
        Just(Kind::Symlink { target: NO_TARGET }),
        Just(Kind::HardLink { target: NO_TARGET }),
        device().prop_map(Kind::CharDevice),
        device().prop_map(Kind::BlockDevice),
    ];
    let owner = (0..u32::MAX, 0..u32::MAX).prop_map(|(uid, gid)| Owner { uid, gid });
    let time = (any::<i32>(), prop_oneof![Just(0), 0..1_000_000_000_u32])
        .prop_map(|(seconds, nanoseconds)| Time { seconds: i64::from(seconds) * 5, nanoseconds });
    let attribute = ("[a-z.]{1,20}", prop::collection::vec(any::<u8>(), 0..30));
    let attributes = prop::collection::btree_map(attribute.0.prop_map(String::into_bytes), attribute.1, 0..3);
    let contents = prop_oneof![Just(0), Just(512), 0..2000_usize].prop_map(|size| vec![b'c'; size]);
    (text(300), kind, text(300), 0..0o10_000_u32, owner, time, attributes, contents).prop_map(
        |(name, kind, target, mode, owner, modified, xattrs, contents)| {
            let is_link = matches!(kind, Kind::Symlink { .. } | Kind::HardLink { .. });
            let is_file = matches!(kind, Kind::File { .. });
            let contents = if is_file { contents } else { Vec::new() };
            let kind = if is_file { Kind::File { size: contents.len() as u64 } } else { kind };
            let target = if is_link { target } else { Vec::new() };
            Owned { name, kind, target, mode, owner, modified, xattrs, contents }
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(all in prop::collection::vec(owned(), 0..6)) {
        let mut out = MemorySink::default();
        for owned in &all {
            owned.entry().write(&mut out).unwrap();
            out.write_all(&owned.contents).unwrap();
            write_padding(owned.contents.len() as u64, &mut out).unwrap();
        }
        write_end(&mut out).unwrap();
        let tar = out.into_bytes();
        prop_assert_eq!(&read_all(&tar).unwrap(), &all);
        // What is in files is passed over if nobody reads it.
        let mut archive = Archive::new(&tar[..]);
        for owned in &all {
            prop_assert_eq!(archive.read_next().unwrap().unwrap().entry, owned.entry());
        }
        prop_assert!(archive.read_next().unwrap().is_none());
    }
}

/// GNU tar writes numbers that do not fit into octal digits in base 256, and long names before the entry.
#[test]
fn archives_of_gnu_tar_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let long = "n".repeat(150);
    fs::write(dir.path().join(&long), "contents").unwrap();
    let gnu = |options: &[&str]| {
        let mut tar = Command::new("tar");
        tar.args(["--create", "--file=-", "--mode=4711", "--owner=:3000000", "--group=:5"]).args(options);
        let output = tar.arg("--directory").arg(dir.path()).arg(&long).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    for (options, seconds, nanoseconds) in [
        (&["--format=gnu", "--mtime=1950-01-01 00:00:00Z"][..], -631_152_000, 0),
        (&["--format=gnu", "--mtime=2300-01-01 00:00:00Z"], 10_413_792_000, 0),
        (&["--format=pax", "--mtime=2020-01-01 00:00:00.25Z"], 1_577_836_800, 250_000_000),
    ] {
        let expected = Owned {
            name: long.clone().into_bytes(),
            kind: Kind::File { size: 8 },
            target: Vec::new(),
            mode: 0o4711,
            owner: Owner { uid: 3_000_000, gid: 5 },
            modified: Time { seconds, nanoseconds },
            xattrs: NO_XATTRS.clone(),
            contents: b"contents".to_vec(),
        };
        assert_eq!(read_all(&gnu(options)).unwrap(), [expected], "{options:?}");
    }
}

#[test]
fn attributes_that_no_record_can_hold_are_not_written() {
    for name in ["", "user.a=b"] {
        let xattrs = Xattrs::from([(name.into(), b"x".to_vec())]);
        let (owner, modified) = (Owner::ROOT, Time { seconds: 0, nanoseconds: 0 });
        let entry = Entry { name: b"a", kind: Kind::Dir, mode: 0, owner, modified, xattrs: &xattrs };
        assert_eq!(entry.write(&mut MemorySink::default()).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn malformed_archives_are_errors() {
    let good = tar_of(&[("a", Regular, "a")]);
    let x = |records: &str| tar_of(&[("x", EntryType::XHeader, records), ("a", Regular, "")]);
    let with_field = |at: usize, field: &[u8]| {
        let mut tar = good.clone();
        tar[at..][..field.len()].copy_from_slice(field);
        seal(&mut tar);
        tar
    };
    let mut wrong_sum = good.clone();
    wrong_sum[0] = b'.';
    let (half, long) = ("x".repeat(1 << 19), "x".repeat((1 << 20) + 1));
    for (context, tar) in [
        ("checksum", wrong_sum),
        ("lonely zeros", [&[0; 512], &good[..]].concat()),
        ("not a tar", vec![b'x'; 2048]),
        ("record too long", x("99 path=b\n")),
        ("record without a length", x("path=b\n")),
        ("record without a key", x("5 ab\n")),
        ("record of length 0", x("0 path=b\n")),
        ("size is no number", x("12 size=-12\n")),
        ("time is no number", x("11 mtime=x\n")),
        ("owner too large", x("18 uid=4294967296\n")),
        ("owner that is nobody", x("18 gid=4294967295\n")),
        ("sparse", x("22 GNU.sparse.major=1\n")),
        ("GNU sparse", tar_of(&[("a", EntryType::GNUSparse, "")])),
        ("unknown", tar_of(&[("a", EntryType::new(b'Z'), "")])),
        ("negative size", with_field(124, &[0xff; 12])),
        ("size beyond all numbers", with_field(124, &[0x80, 0xff, 0xff, 0xff, 0xff])),
        ("digits that are not octal", with_field(124, b"00000000008\0")),
        ("device's number too large", {
            let mut tar = with_field(329, &[0x80, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
            tar[156] = b'3';
            seal(&mut tar);
            tar
        }),
        ("extended header without an entry", tar_of(&[("x", EntryType::XHeader, "10 path=x\n")])),
        ("extended header too large", x(&long)),
        (
            "extended headers too large together",
            tar_of(&[
                ("x", EntryType::GNULongName, &half),
                ("x", EntryType::GNULongLink, &half),
                ("x", EntryType::GNULongName, "x"),
                ("a", Regular, ""),
            ]),
        ),
    ] {
        let error = read_all(&tar).unwrap_err();
        assert!(matches!(error, ArchiveError::Malformed { .. }), "{context}: {error}");
    }
}

#[test]
fn long_names_come_in_several_forms() {
    let (long, target) = (format!("{}/{}", "a".repeat(150), "b".repeat(150)), "t".repeat(300));
    let record = |key: &str, value: &str| {
        let length = key.len() + value.len() + 3 + 3;
        format!("{length} {key}={value}\n")
    };
    let pax = record("path", &long) + &record("linkpath", &target);
    // An empty value takes back what came before.
    let taken_back = "9 path=y\n8 path=\n".to_owned() + &pax;
    let (gnu_name, gnu_target) = (long.clone() + "\0", target.clone() + "\0");
    for (context, tar) in [
        ("pax", tar_of(&[("x", EntryType::XHeader, &pax), ("cut", Symlink, "cut")])),
        ("taken back", tar_of(&[("x", EntryType::XHeader, &taken_back), ("cut", Symlink, "cut")])),
        (
            "gnu",
            tar_of(&[
                ("././@LongLink", EntryType::GNULongName, &gnu_name),
                ("././@LongLink", EntryType::GNULongLink, &gnu_target),
                ("cut", Symlink, "cut"),
            ]),
        ),
    ] {
        let all = read_all(&tar).unwrap();
        assert_eq!(
            (&all[0].name, &all[0].target),
            (&long.clone().into(), &target.clone().into()),
            "{context}"
        );
    }
}

#[test]
fn global_headers_and_old_directories_are_understood() {
    let mut tar = tar_of(&[
        ("old/", Regular, ""),
        ("old/file", Regular, ""),
        ("g", EntryType::XGlobalHeader, "18 comment=hello\n"),
        ("new", Directory, ""),
    ]);
    for header in [0, 512] {
        tar[header + 156] = 0;
    }
    seal(&mut tar);
    let all = read_all(&tar).unwrap();
    let kinds: Vec<_> = all.iter().map(|owned| (&*owned.name, owned.kind)).collect();
    assert_eq!(
        kinds,
        [(&b"old/"[..], Kind::Dir), (b"old/file", Kind::File { size: 0 }), (b"new", Kind::Dir)]
    );
}
