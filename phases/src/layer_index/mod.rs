//! What restorers and exporters know of files beside a cache, so that what has not changed is not read again.
//!
//! `layer-index.json`, in the folder of the cache, has digests by how files look ([`Seen`]): of layers' tars by the outlines of their trees,
//! of tars in the cache and of blobs in layouts by themselves. The exporter writes it; the restorer adds the trees that it has
//! extracted, where it knows that their tar has the outline that the tree has now: other lifecycles make other tars.
//! Without it, everything is read.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drydock_io::file::write_atomically;
use drydock_io::read;
use drydock_layout::seen::{Print, Seen, Time, file_time, settle};
use drydock_model::digest::{DiffId, Digest};
use serde::{Deserialize, Serialize};

use crate::layer_tar::Outline;
use crate::{Log, limits};

/// What is known.
#[derive(Debug, Default)]
pub struct LayerIndex {
    /// None: nothing is ever known.
    path: Option<PathBuf>,
    seen: Arc<Seen>,
    /// [`Outline::shape`] of tars.
    shapes: BTreeMap<DiffId, Digest>,
}

/// The form of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    seen: Seen,
    shapes: BTreeMap<DiffId, Digest>,
}

impl LayerIndex {
    /// What a file keeps. Nothing, if there is none, if it cannot be read, or if others than this user and root can write it.
    pub fn read(path: Option<&Path>) -> Self {
        let Some(path) = path else { return Self::default() };
        let kept = Kept::read(path).ok();
        let (seen, shapes) =
            kept.map_or_else(|| (Seen::nothing(), BTreeMap::new()), |kept| (kept.seen.still(), kept.shapes));
        Self { path: Some(path.to_owned()), seen: Arc::new(seen), shapes }
    }

    /// An empty one that is to take its place.
    #[must_use]
    pub fn successor(&self) -> Self {
        Self { path: self.path.clone(), seen: Arc::new(self.seen.emptied()), shapes: BTreeMap::new() }
    }

    /// Digests of files.
    pub fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }

    /// Whether there is any use in looking.
    pub fn is_of_use(&self) -> bool {
        self.path.is_some()
    }

    /// Whether a tree with this outline is known to make the tar with this diff ID.
    pub fn knows(&self, outline: &Outline, diff_id: &DiffId) -> bool {
        let digest = outline.print.and_then(|print| self.seen.digest(&print));
        digest == Some(diff_id.of_plain_blob())
    }

    /// Notes that a tree that looked so after `since` made this tar.
    pub fn made(&mut self, outline: &Outline, diff_id: &DiffId, since: Time) {
        self.shapes.insert(*diff_id, outline.shape);
        self.note(outline.print.as_ref(), diff_id.of_plain_blob(), since);
    }

    /// Notes that a tree that was extracted from this tar looks so since `since`.
    pub fn extracted(&mut self, outline: &Outline, diff_id: &DiffId, since: Time) {
        if self.shapes.get(diff_id) == Some(&outline.shape) {
            self.note(outline.print.as_ref(), diff_id.of_plain_blob(), since);
        }
    }

    /// Notes files that have just been written or checked; waits a moment for those that were written, as a rule.
    pub fn add_files(&mut self, files: &[(PathBuf, Digest)]) {
        let look = |(path, digest): &(PathBuf, Digest)| {
            let print = read::open(path).and_then(|file| Print::of(&file)).ok().flatten();
            print.map(|print| (print, *digest))
        };
        let mut since = file_time();
        let mut prints: Vec<_> = files.iter().filter_map(look).collect();
        if prints.iter().any(|(print, _)| !print.is_settled(since)) {
            settle();
            since = file_time();
            prints = files.iter().filter_map(look).collect();
        }
        for (print, digest) in prints {
            self.note(Some(&print), digest, since);
        }
    }

    /// Notes that what looked so after `since` has this digest.
    pub fn note(&mut self, print: Option<&Print>, digest: Digest, since: Time) {
        if let Some(print) = print {
            Arc::make_mut(&mut self.seen).note(print, digest, since);
        }
    }

    /// Keeps it for the next phase or build; without it that one reads more.
    pub fn write(self, log: &dyn Log) {
        let Some(path) = self.path else { return };
        let seen = Arc::unwrap_or_clone(self.seen).still();
        let kept = serde_json::to_vec(&Kept { seen, shapes: self.shapes });
        let written = kept.map_err(io::Error::from).and_then(|kept| write_atomically(&path, &kept));
        if let Err(error) = written {
            log.debug(&format!("The layer index `{}` cannot be written: {error}", path.display()));
        }
    }
}

impl Kept {
    fn read(path: &Path) -> io::Result<Self> {
        const OTHERS_WRITE: u32 = 0o022;
        let file = fs::symlink_metadata(path)?;
        let user = rustix::process::geteuid().as_raw();
        if ![user, 0].contains(&file.uid()) || file.mode() & OTHERS_WRITE != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(serde_json::from_str(&read::read_to_string(path, limits::DOCUMENT)?)?)
    }
}

#[cfg(test)]
mod tests;
