//! What is kept to be quicker the next time, and locks of images: whatever is in there, nothing is believed that was not noted.
//!
//! The parts of an input are the layer index, what is proven of blobs, and a lock file. `BOOT` stands for the kernel's name for the time
//! since it was started, where the index has it.

use std::fs;
use std::path::Path;

use drydock_images::verify::Proven;
use drydock_layout::seen::Seen;
use drydock_model::digest::Digest;
use drydock_registry::sources::Lock;

use super::{Target, parts, roughly};

pub(crate) const TARGET: Target = Target {
    name: "notes",
    longest: 1 << 11,
    words: &[
        b"\n====\n",
        b"BOOT",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x80",
        b"application/vnd.oci.image.layer.v1.tar+gzip",
        b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        b"sha256:",
        b"version = 1\n",
        b"[images]\n",
        b"'a' = 'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'\n",
    ],
    can_use: |_, _| false,
    run,
};

fn run(input: &[u8]) -> String {
    let dir = tempfile::tempdir().expect("there is room");
    let mut parts = parts(input);
    let [index, proven, lock] = [(); 3].map(|()| parts.next().unwrap_or_default());
    let said = [layer_index(index), blobs(proven, dir.path()), locked(lock, dir.path())].join(";");
    said.replace(&*dir.path().to_string_lossy(), "")
}

fn layer_index(bytes: &[u8]) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the kernel tells");
    let bytes = match bytes.strip_prefix(b"BOOT") {
        Some(rest) => [boot.trim().as_bytes(), rest].concat(),
        None => bytes.to_vec(),
    };
    let seen = Seen::from_bytes(&bytes);
    let [one, other] = [Digest::of(b"one"), Digest::of(b"other")];
    assert!(!seen.knows_of(&one, &other), "nobody has noted that");
    // At most so many bytes, and the same once more, if it is of this time.
    let most = 64 << 10;
    let again = seen.to_bytes(most);
    assert!(
        again.len() <= most && (again.len() <= bytes.len() || again.len() == 52),
        "{} bytes",
        again.len()
    );
    assert_eq!(Seen::from_bytes(&again).to_bytes(most), again);
    assert!(seen.to_bytes(100).len() <= 100);
    let mut noted = seen.clone();
    noted.note_of(&one, &other);
    assert!(noted.knows_of(&one, &other) && !noted.knows_of(&other, &one));
    format!("{}", roughly(again.len()))
}

fn blobs(bytes: &[u8], dir: &Path) -> String {
    let [path, again] = ["proven", "again"].map(|name| dir.join(name));
    fs::write(&path, bytes).expect("there is room");
    Proven::read(&path).write(&again).expect("there is room");
    let text = fs::read_to_string(&again).expect("it is UTF-8");
    Proven::read(&again).write(&path).expect("there is room");
    assert_eq!(fs::read_to_string(&path).expect("it is UTF-8"), text, "it is not the same once more");
    format!("{}", roughly(text.lines().count()))
}

fn locked(bytes: &[u8], dir: &Path) -> String {
    let path = dir.join("sources.lock");
    fs::write(&path, bytes).expect("there is room");
    let mut lock = match Lock::read(&path) {
        Ok(lock) => lock,
        Err(error) => return error.to_string(),
    };
    let digest = Digest::of(b"locked");
    lock.set("acme/new", digest);
    lock.write(&path).expect("there is room");
    let again = Lock::read(&path).expect("it was written by us");
    assert_eq!((&again, again.get("acme/new")), (&lock, Some(digest)));
    "locked".into()
}
