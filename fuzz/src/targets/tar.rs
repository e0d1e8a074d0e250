//! Archives that are extracted: nothing outside the one directory changes, and nothing is left of a bad one.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use drydock_model::digest::DiffId;
use drydock_tar::{Extraction, extract};

use super::Target;

pub(crate) const TARGET: Target = Target {
    name: "tar",
    longest: 1 << 14,
    words: &[
        b"../",
        b"/l/a/",
        b"/l/a",
        b"\0",
        b"ustar\x0000",
        b"16 path=/l/a/x\n",
        b"20 linkpath=/l/a/y\n",
        b"11 size=9\n",
    ],
    can_use: |_, bytes| bytes.get(257..262) == Some(b"ustar"),
    run,
};

const BLOCK: usize = 512;

fn run(input: &[u8]) -> String {
    let mut tar = input.to_vec();
    seal(&mut tar);
    let dir = tempfile::tempdir().expect("there is room");
    let write = |name: &str| fs::write(dir.path().join(name), "canary").expect("there is room");
    write("canary");
    fs::create_dir(dir.path().join("in")).expect("there is room");
    write("in/canary");
    let into = dir.path().join("in/layer");
    let extraction = Extraction {
        diff_id: DiffId::of(&tar),
        named: Path::new("/l/a"),
        into: &into,
        limit: 1 << 20,
        threads: NonZeroUsize::MIN.saturating_add(1),
    };
    let extracted = extract(&tar[..], &extraction);
    assert_eq!(names(dir.path()), ["canary", "in"]);
    let beside: &[&str] = if extracted.is_ok() { &["canary", "layer"] } else { &["canary"] };
    assert_eq!(names(&dir.path().join("in")), beside);
    for name in ["canary", "in/canary"] {
        assert_eq!(fs::read(dir.path().join(name)).expect("it is there"), b"canary");
    }
    // Folders without rights are in the way of who removes the rest.
    drydock_tar::remove_all(&into).expect("what was extracted can be removed");
    format!("{extracted:?}")
}

/// Makes checksums right, without which nothing else of a header is looked at.
pub(super) fn seal(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(BLOCK).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("it is a folder");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
