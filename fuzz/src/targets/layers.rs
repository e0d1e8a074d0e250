//! Layers of an image, one over the other: what they amount to is the same by whichever way it is found out.
//!
//! The parts of an input are tars, lowest first.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use drydock_encode::compress::Compression;
use drydock_images::export::{Rights, unpack};
use drydock_images::files::Files;
use drydock_images::watch::Nobody;
use drydock_images::{Repository, flatten, layer, tree};
use drydock_layout::{Durability, Image, Layout};
use drydock_model::digest::Digest;
use drydock_model::platform::Platform;
use serde_json::json;

use super::tar::seal;
use super::{Target, parts, roughly};

pub(crate) const TARGET: Target = Target {
    name: "layers",
    longest: 1 << 14,
    words: &[
        b"\n====\n",
        b"../",
        b"/",
        b".wh.",
        b".wh..wh..opq",
        b".wh..wh.",
        b"ustar\x0000",
        b"a/b",
        b"a/",
        b"16 path=/l/a/x\n",
        b"20 linkpath=/l/a/y\n",
        b"28 SCHILY.xattr.user.a=value\n",
        b"11 size=9\n",
    ],
    can_use: |_, bytes| bytes.get(257..262) == Some(b"ustar"),
    run,
};

fn run(input: &[u8]) -> String {
    let dir = tempfile::tempdir().expect("there is room");
    let repository = Repository::new(&dir.path().join("r")).expect("it is a path");
    let image = write(&repository, input);
    fs::write(dir.path().join("canary"), "canary").expect("there is room");
    let told = tree::tree(&image, None, &Nobody);
    let write = flatten::Options {
        compression: Compression::NONE,
        threads: NonZeroUsize::MIN,
        durability: Durability::InMemory,
    };
    let to = repository.locate("flat").expect("it is a name");
    let flat = flatten::flatten(&image, &to, write, &Nobody);
    let out = dir.path().join("out");
    let unpacked = unpack(&image, &out, Rights::User, &Nobody);
    assert_eq!(fs::read(dir.path().join("canary")).expect("it is there"), b"canary");
    let said = match (&told, &flat) {
        (Ok(told), Ok(_)) => {
            let layout = Layout::open(to.path()).expect("what was written can be read");
            let flat = layout.image(&Platform::linux("amd64")).expect("it is one image");
            assert_eq!(names(&flat), names(&image), "one layer has other files than all");
            if unpacked.is_ok() {
                assert_eq!(on_disk(&out), without_devices(names(&image)), "other files are unpacked");
            }
            format!("{}{}", roughly(told.files), roughly(told.folders))
        }
        (Err(error), Err(_)) => format!("{error:#}"),
        (told, flat) => {
            // Attributes and contents are read by the one only.
            assert!(flat.is_err(), "it can be flattened, and not be told: {told:?}");
            format!("{:#}", flat.as_ref().expect_err("it is one"))
        }
    };
    let left: Vec<_> = fs::read_dir(dir.path())
        .expect("it is a folder")
        .map(|entry| entry.expect("it is there").file_name())
        .collect();
    assert_eq!(left.len(), if unpacked.is_ok() { 3 } else { 2 }, "something is left: {left:?}");
    drydock_tar::remove_all(&out).expect("what was unpacked can be removed");
    let unpacked = unpacked.map_or_else(|error| format!("{error:#}"), |_| "unpacked".into());
    format!("{said};{unpacked}").replace(&*dir.path().to_string_lossy(), "")
}

/// An image of these layers.
fn write(repository: &Repository, input: &[u8]) -> Image {
    let name = repository.locate("a").expect("it is a name");
    let blobs = name.path().path().join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("there is room");
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).expect("there is room");
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    };
    let layers: Vec<_> = parts(input)
        .take(8)
        .map(|part| {
            let mut tar = part.to_vec();
            seal(&mut tar);
            put("application/vnd.oci.image.layer.v1.tar", &tar)
        })
        .collect();
    let ids: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    let config =
        json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": ids}});
    let config = put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    let manifest = put("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(name.path().path().join("index.json"), index.to_string()).expect("there is room");
    fs::write(name.path().path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
        .expect("there is room");
    let layout = Layout::open(name.path()).expect("it was just written");
    layout.image(&Platform::linux("amd64")).expect("it is one image")
}

/// Files by path: what they are, and bytes in them.
type Names = BTreeMap<Vec<u8>, (&'static str, u64)>;

fn names(image: &Image) -> Names {
    let mut files = Files::new();
    for (number, layer) in image.layers().enumerate() {
        let applied = layer::entries(&layer, &Nobody, &mut |at, member| {
            files.apply(number, at, &member.entry, None).expect("it could be applied before");
            Ok(())
        });
        applied.expect("it could be read before");
    }
    let mut names = Names::new();
    files.walk(&mut |path, _, node| {
        names.insert(path.to_vec(), (node.kind_name(), node.size()));
    });
    names
}

/// Only root makes those.
fn without_devices(mut names: Names) -> Names {
    names.retain(|_, (kind, _)| *kind != "device");
    names
}

fn on_disk(root: &Path) -> Names {
    let mut names = Names::new();
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.expect("root can list everything");
        let path = entry.path().strip_prefix(root).expect("it is below").as_os_str().as_bytes().to_vec();
        let facts = entry.path().symlink_metadata().expect("it is there");
        let kind = facts.file_type();
        let found = if kind.is_dir() {
            ("folder", 0)
        } else if kind.is_symlink() {
            ("symlink", 0)
        } else if kind.is_fifo() {
            ("fifo", 0)
        } else {
            ("file", facts.size())
        };
        names.insert(path, found);
    }
    names
}
