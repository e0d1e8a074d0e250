//! What is in blobs that were decompressed once.
//!
//! What a digest stands for does not change: of a blob that is hashed and has its digest, it is known what tar it holds, however long ago that was found
//! out, and whatever layout it was in. So it is hashed each time, and decompressed once.
//!
//! The file has a line for each blob: `<digits of its digest> <media type of its compression> <digits of the tar's digest>`. It is a cache: what is missing,
//! or not what a configuration says, is found out anew, and so is everything once the file is too large.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use drydock_encode::compress::Format;
use drydock_io::file::write_atomically;
use drydock_io::read::read_to_string;
use drydock_model::digest::{DiffId, Digest};

/// A blob's digest, and the media type of what is compressed as it is said to be.
pub(super) type Key = (Digest, &'static str);

/// Bytes that the file may have: about 40,000 blobs.
const MAX_FILE: u64 = 8 << 20;

/// What tars blobs hold.
#[derive(Debug, Default)]
pub struct Proven(BTreeMap<Key, DiffId>);

impl Proven {
    /// What a file says; nothing if it cannot be read.
    pub fn read(path: &Path) -> Self {
        let text = read_to_string(path, MAX_FILE).unwrap_or_default();
        Self(text.lines().filter_map(parse).collect())
    }

    /// Writes it to a file, whose folder must be there.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let line = |((blob, media_type), tar): (&Key, &DiffId)| {
            format!("{} {media_type} {}\n", blob.hex(), tar.of_plain_blob().hex())
        };
        let text: String = self.0.iter().map(line).collect();
        write_atomically(path, text.as_bytes())
    }

    /// The tar in a blob, if it is what all of these say.
    pub(super) fn tar(&self, key: &Key, expected: &BTreeSet<DiffId>) -> Option<DiffId> {
        self.0.get(key).copied().filter(|tar| expected.iter().all(|one| one == tar))
    }

    pub(super) fn insert(&mut self, key: Key, tar: DiffId) {
        self.0.insert(key, tar);
    }
}

fn parse(line: &str) -> Option<(Key, DiffId)> {
    let mut words = line.split(' ');
    let (blob, media_type, tar) = (words.next()?, words.next()?, words.next()?);
    let key = (format!("sha256:{blob}").parse().ok()?, Format::of(media_type).ok()?.media_type());
    Some((key, format!("sha256:{tar}").parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proven_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proven");
        let (blob, tar) = (Digest::of(b"blob"), DiffId::of(b"tar"));
        let key = |format: Format| (blob, format.media_type());
        let mut proven = Proven::read(&path);
        proven.insert(key(Format::Gzip), tar);
        proven.write(&path).unwrap();
        let read = Proven::read(&path);
        let says =
            |read: &Proven, format, ids: &[DiffId]| read.tar(&key(format), &ids.iter().copied().collect());
        assert_eq!(says(&read, Format::Gzip, &[tar]), Some(tar));
        assert_eq!(says(&read, Format::Zstd, &[tar]), None, "another compression, another tar");
        assert_eq!(
            says(&read, Format::Gzip, &[tar, DiffId::of(b"other")]),
            None,
            "not what is expected: look"
        );

        let line = std::fs::read_to_string(&path).unwrap();
        for damaged in [
            &line[1..],
            &line.replace("gzip", "lzma"),
            &line[..line.len() - 2],
            "\u{0}",
            &line.replace(' ', "\t"),
        ] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(says(&Proven::read(&path), Format::Gzip, &[tar]), None, "{damaged:?}");
        }
        std::fs::write(&path, line.repeat(1 + (8 << 20) / line.len())).unwrap();
        assert!(Proven::read(&path).0.is_empty(), "too large");
    }
}
