//! The lock file: the digest of each image that was imported, so that the next import brings the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use drydock_model::digest::Digest;
use drydock_spec::toml_text;
use serde::{Deserialize, Serialize};

use super::{FILE_LIMIT, SourcesError};

/// The version of the format.
const VERSION: u32 = 1;

/// Digests by the names that [`Found`](super::Found) has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    #[serde(default)]
    images: BTreeMap<String, Digest>,
}

impl Default for Lock {
    fn default() -> Self {
        Self { version: VERSION, images: BTreeMap::new() }
    }
}

impl Lock {
    /// The lock file of a file of sources: beside it, `sources.lock` for `sources.toml`.
    pub fn path(sources: &Path) -> PathBuf {
        sources.with_extension("lock")
    }

    /// Reads a file of at most [`FILE_LIMIT`] bytes; nothing is locked if there is none.
    pub fn read(path: &Path) -> Result<Self, SourcesError> {
        let error = |reason: String| SourcesError { path: path.to_owned(), reason };
        let text = match drydock_io::read::read_to_string(path, FILE_LIMIT) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other.map_err(|e| error(e.to_string()))?,
        };
        let lock: Self = toml_text::from_str(&text).map_err(|e| error(e.to_string()))?;
        if lock.version == VERSION {
            Ok(lock)
        } else {
            Err(error(format!(
                "its version is {}, and {VERSION} is the only one that is known",
                lock.version
            )))
        }
    }

    /// Replaces the file as a whole.
    pub fn write(&self, path: &Path) -> Result<(), SourcesError> {
        let error = |reason: String| SourcesError { path: path.to_owned(), reason };
        let table = toml_text::to_string(self).map_err(|e| error(e.to_string()))?;
        let text = format!("# Written by `drydock import --lock`.\n{table}");
        drydock_io::file::write_atomically(path, text.as_bytes()).map_err(|e| error(e.to_string()))
    }

    /// The digest that a name is locked to.
    pub fn get(&self, name: &str) -> Option<Digest> {
        self.images.get(name).copied()
    }

    /// Locks a name to a digest.
    pub fn set(&mut self, name: &str, digest: Digest) {
        self.images.insert(name.to_owned(), digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = Lock::path(&dir.path().join("sources.toml"));
        assert_eq!(path, dir.path().join("sources.lock"));
        assert_eq!(Lock::read(&path).unwrap(), Lock::default());
        let mut lock = Lock::default();
        lock.set("hub/library/node:22", Digest::of(b"a"));
        lock.set("hub/library/node:20", Digest::of(b"b"));
        lock.write(&path).unwrap();
        assert_eq!(Lock::read(&path).unwrap(), lock);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.find("node:20") < text.find("node:22"), "{text}");
        for (text, want) in [
            ("version = 2", "its version is 2"),
            ("images = {}", "missing field `version`"),
            ("version = 1\nimages = { a = 'sha256:1' }", "is not a digest"),
            ("version = 1\ntags = {}", "unknown field `tags`"),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = Lock::read(&path).unwrap_err().to_string();
            assert!(message.contains(want) && message.contains("sources.lock"), "{message}");
        }
        std::fs::write(&path, format!("version = '{}'", "1".repeat(100_000))).unwrap();
        assert!(Lock::read(&path).unwrap_err().to_string().len() < 1000);
    }
}
