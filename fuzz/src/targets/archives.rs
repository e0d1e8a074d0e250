//! Archives of images and of file trees that are imported: what comes of it is whole, or nothing.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use drydock_encode::compress::Compression;
use drydock_images::import::{self, Opened};
use drydock_images::watch::Nobody;
use drydock_images::{Repository, flatten};
use drydock_layout::{Durability, Layout};

use super::Target;
use super::tar::seal;

pub(crate) const TARGET: Target = Target {
    name: "archives",
    longest: 1 << 15,
    words: &[
        b"../",
        b"/",
        b"\0",
        b"ustar\x0000",
        b"manifest.json",
        b"index.json",
        b"blobs/sha256/",
        b"layer.tar",
        b"[{\"Config\": \"c.json\", \"Layers\": []}]",
        b"{\"schemaVersion\": 2, \"manifests\": []}",
        b"\"mediaType\": \"application/vnd.oci.image.index.v1+json\"",
        b"\"annotations\": {\"org.opencontainers.image.ref.name\": \"a\"}",
        b".wh.",
        b".wh..wh..opq",
    ],
    can_use: |_, bytes| bytes.get(257..262) == Some(b"ustar"),
    run,
};

fn run(input: &[u8]) -> String {
    let mut tar = input.to_vec();
    seal(&mut tar);
    let dir = tempfile::tempdir().expect("there is room");
    let file = dir.path().join("archive.tar");
    fs::write(&file, tar).expect("there is room");
    fs::write(dir.path().join("canary"), "canary").expect("there is room");
    let near = dir.path().join("repository");
    let repository = Repository::new(&near).expect("it is a path");
    let import = |name: &str, opened: anyhow::Result<Opened<'_>>| {
        let write = flatten::Options {
            compression: Compression::default(),
            threads: NonZeroUsize::MIN,
            durability: Durability::InMemory,
        };
        let options = import::Options { platforms: Vec::new(), flatten: name == "flat", write };
        let to = repository.locate(name).expect("it is a name");
        let before = names(dir.path());
        let imported = opened.and_then(|opened| import::import(&opened, &repository, &to, &options, &Nobody));
        match imported {
            Ok(imported) => {
                let layout = Layout::open(to.path()).expect("what was imported can be read");
                assert_eq!(layout.named().len(), 1, "one name, one image");
                assert_eq!(layout.named()[0].digest, imported.digest);
                assert_eq!(imported.left, None);
                "ok".to_owned()
            }
            Err(error) => {
                assert_eq!(names(dir.path()), before, "something is left: {error:#}");
                format!("{error:#}")
            }
        }
    };
    let image = || Opened::archive(&file, None, &near, &Nobody);
    let said = import("image", image());
    // What is no image may be a tree.
    let more = if said == "ok" { import("flat", image()) } else { import("tree", Ok(Opened::rootfs(&file))) };
    let said = format!("{said};{more}");
    assert_eq!(fs::read(dir.path().join("canary")).expect("it is there"), b"canary");
    said.replace(&*dir.path().to_string_lossy(), "")
}

/// All that is below a folder.
fn names(dir: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter();
    entries.map(|entry| entry.expect("it can be listed").path().display().to_string()).collect()
}
