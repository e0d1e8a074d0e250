//! Archives that `ADD` unpacks.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

use lzma_rust2::{XzOptions, XzWriter};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};

use super::tests::{Stage, context};

fn owned_by(uid: u32) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_uid(uid.into());
    header.set_mode(0o4755);
    header.set_size(0);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "f", std::io::empty()).unwrap();
    archive.into_inner().unwrap()
}

fn tar_of(entries: &[(&str, char, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, kind, what) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o750);
        header.set_mtime(11);
        header.set_uid(rustix::process::getuid().as_raw().into());
        header.set_gid(rustix::process::getgid().as_raw().into());
        header.set_entry_type(tar::EntryType::new(*kind as u8));
        let bytes = name.as_bytes();
        header.as_old_mut().name[..bytes.len()].copy_from_slice(bytes);
        if matches!(kind, '1' | '2') {
            header.set_link_name_literal(what).unwrap();
            header.set_size(0);
            header.set_cksum();
            archive.append(&header, std::io::empty()).unwrap();
        } else {
            header.set_size(what.len() as u64);
            header.set_cksum();
            archive.append(&header, what.as_bytes()).unwrap();
        }
    }
    archive.into_inner().unwrap()
}

/// An archive compressed by xz that says of itself that it takes 4 GiB of memory.
fn demanding(mut archive: Vec<u8>) -> Vec<u8> {
    const BLOCK: usize = 12;
    let length = (usize::from(archive[BLOCK]) + 1) * 4 - 4;
    let filter = archive.windows(2).position(|bytes| bytes == [0x21, 1]).unwrap();
    archive[filter + 2] = 40;
    let mut crc = flate2::Crc::new();
    crc.update(&archive[BLOCK..BLOCK + length]);
    archive[BLOCK + length..BLOCK + length + 4].copy_from_slice(&crc.sum().to_le_bytes());
    archive
}

#[test]
fn archives_are_unpacked() {
    let stage = context();
    let tar = tar_of(&[
        ("./", '5', ""),
        ("d/", '5', ""),
        ("d/f", '0', "1"),
        ("h", '1', "d/f"),
        ("h", '1', "./h"),
        ("l", '2', "/etc/passwd"),
        ("abs/x", '0', "2"),
        ("/top", '0', "3"),
    ]);
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let bzip2 = |bytes: &[u8]| {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let xz = |bytes: &[u8]| {
        let mut encoder = XzWriter::new(Vec::new(), XzOptions::with_preset(1)).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    stage.write("context/t.tar", &tar);
    stage.write("context/t.tgz", gzip(&tar));
    stage.write("context/t.tar.xz", xz(&tar));
    stage.write("context/t.tbz2", bzip2(&tar));
    stage.write("context/text.gz", gzip(b"no archive"));
    stage.write("context/text.xz", xz(b"no archive"));
    for (text, dir) in [
        ("ADD t.tar /x", "x"),
        ("ADD t.tgz /y/", "y"),
        ("ADD t.* /z/", "z"),
        ("ADD t.tar.xz /v", "v"),
        ("ADD t.tbz2 /w", "w"),
    ] {
        stage.copy(text, "").unwrap();
        let tree = stage.tree(&format!("root/{dir}"));
        let found: Vec<_> = tree.iter().map(|(path, what)| (path.as_str(), what.as_str())).collect();
        let want = [
            ("abs", "/"),
            ("abs/x", "2"),
            ("d", "/"),
            ("d/f", "1"),
            ("h", "1"),
            ("l", "-> /etc/passwd"),
            ("top", "3"),
        ];
        assert_eq!(found, want, "{text}");
        let facts = fs::metadata(stage.path(&format!("root/{dir}/d/f"))).unwrap();
        assert_eq!((facts.mode() & 0o7777, facts.mtime(), facts.nlink()), (0o750, 11, 2));
    }
    // A link that is there is followed, but within the file system.
    stage.copy("ADD t.tar /", "").unwrap();
    assert_eq!(stage.read("root/usr/x"), "2");
    stage.copy("COPY t.tar /copied", "").unwrap();
    stage.copy("ADD text.gz /text.gz", "").unwrap();
    stage.copy("ADD text.xz /text.xz", "").unwrap();
    assert_eq!(fs::read(stage.path("root/text.xz")).unwrap(), xz(b"no archive"));
    assert_eq!(fs::read(stage.path("root/copied")).unwrap(), tar);
    assert_eq!(fs::read(stage.path("root/text.gz")).unwrap(), gzip(b"no archive"));

    for (name, bytes, want) in [
        ("up.tar", tar_of(&[("../up", '0', "")]), "leads out of the folder"),
        ("link.tar", tar_of(&[("h", '1', "../../etc/passwd")]), "leads out of the folder"),
        ("root.tar", tar_of(&[("d", '5', ""), ("d", '0', "")]), "is a folder, and cannot be replaced"),
        ("nobody.tar", owned_by(u32::MAX), "an owner has too large a number"),
        ("cut.tar", tar[..700].to_vec(), "the tar"),
        ("self.tar", tar_of(&[("h", '1', "h")]), "`/h` is a link to itself"),
        ("large.tar.xz", demanding(xz(&tar)), "takes more than 134217728 bytes of memory"),
    ] {
        stage.write(&format!("context/{name}"), bytes);
        let error = stage.copy(&format!("ADD {name} /bad"), "").expect_err(name);
        assert!(error.contains(want), "{name}: {error}");
    }
    assert!(!stage.path("up").exists());
}

#[test]
fn capabilities_of_unpacked_programs_stay() {
    let stage = Stage::new();
    // cap_net_raw, permitted and effective.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    stage.write("probe", "");
    let may = lsetxattr(stage.path("probe"), "security.capability", &capability, XattrFlags::empty()).is_ok();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_pax_extensions([("SCHILY.xattr.security.capability", &capability[..])]).unwrap();
    archive.get_mut().extend(tar_of(&[("ping", '0', "1")]));
    stage.write("context/t.tar", archive.into_inner().unwrap());
    let added = stage.copy("ADD t.tar /x", "");
    assert_eq!(added.is_ok(), may, "{added:?}");
    if may {
        let mut found = [0; 64];
        let length = lgetxattr(stage.path("root/x/ping"), "security.capability", &mut found).unwrap();
        assert_eq!(found[..length], capability);
    }
}

#[test]
fn attributes_of_unpacked_folders_stay() {
    let stage = Stage::new();
    fs::create_dir(stage.path("probe")).unwrap();
    let may = lsetxattr(stage.path("probe"), "user.acme", b"1", XattrFlags::empty()).is_ok();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_pax_extensions([("SCHILY.xattr.user.acme", &b"value"[..])]).unwrap();
    archive.get_mut().extend(tar_of(&[("dir", '5', "")]));
    stage.write("context/t.tar", archive.into_inner().unwrap());
    let added = stage.copy("ADD t.tar /x", "");
    assert_eq!(added.is_ok(), may, "{added:?}");
    if may {
        let mut found = [0; 64];
        let length = lgetxattr(stage.path("root/x/dir"), "user.acme", &mut found).unwrap();
        assert_eq!(&found[..length], b"value");
    }
}
