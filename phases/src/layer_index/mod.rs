//! What restorers and exporters know of files, so that what has not changed is not read again.
//!
//! The index has facts about files by how they look ([`Seen`]): the tars that trees make, the digests of tars in the cache and of blobs
//! in layouts. It is an extended attribute of the cache's folder, for every file in there would be in somebody's way: 16 bytes a fact,
//! and as many as the file system takes. The exporter writes it; the restorer adds the trees that it has extracted, where
//! it knows that their tar has the outline that the tree has now: other lifecycles make other tars. Without it, everything is read.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drydock_io::read;
use drydock_layout::seen::{Print, Seen, Time, file_time, settle};
use drydock_model::digest::{DiffId, Digest};
use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use crate::Log;
use crate::layer_tar::Outline;

const ATTRIBUTE: &str = "user.drydock.index";

/// Bytes of the attribute: what Linux takes.
const MOST: usize = 64 << 10;

/// What is known.
#[derive(Debug, Default)]
pub struct LayerIndex {
    /// The folder that has it. None: nothing is ever known.
    dir: Option<PathBuf>,
    seen: Arc<Seen>,
}

impl LayerIndex {
    /// That of a folder. Empty, if it has none, if it cannot be read, or if others than this user and root could have written it.
    pub fn read(dir: Option<&Path>) -> Self {
        let Some(dir) = dir else { return Self::default() };
        let seen = read_attribute(dir).map_or_else(|_| Seen::nothing(), |bytes| Seen::from_bytes(&bytes));
        Self { dir: Some(dir.to_owned()), seen: Arc::new(seen) }
    }

    /// An empty one that is to take its place.
    #[must_use]
    pub fn successor(&self) -> Self {
        Self { dir: self.dir.clone(), seen: Arc::new(self.seen.emptied()) }
    }

    /// Facts about files.
    pub fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }

    /// Whether there is any use in looking.
    pub fn is_of_use(&self) -> bool {
        self.dir.is_some()
    }

    /// Whether a tree with this outline is known to make the tar with this diff ID.
    pub fn knows(&self, outline: &Outline, diff_id: &DiffId) -> bool {
        outline.print.is_some_and(|print| self.seen.knows(&print, diff_id.of_plain_blob()))
    }

    /// Whether a tree with this outline is known to make another tar than that with this diff ID.
    pub fn rules_out(&self, outline: &Outline, diff_id: &DiffId) -> bool {
        let tar = diff_id.of_plain_blob();
        self.seen.knows_of(&tar, &tar) && !self.seen.knows_of(&outline.shape, &tar)
    }

    /// Notes that a tree that looked so after `since` made this tar.
    pub fn made(&mut self, outline: &Outline, diff_id: &DiffId, since: Time) {
        let (seen, tar) = (Arc::make_mut(&mut self.seen), diff_id.of_plain_blob());
        seen.note_of(&outline.shape, &tar);
        // That its shape is known.
        seen.note_of(&tar, &tar);
        self.note(outline.print.as_ref(), tar, since);
    }

    /// Notes that a tree that was extracted from this tar looks so since `since`.
    pub fn extracted(&mut self, outline: &Outline, diff_id: &DiffId, since: Time) {
        if self.seen.knows_of(&outline.shape, &diff_id.of_plain_blob()) {
            self.note(outline.print.as_ref(), diff_id.of_plain_blob(), since);
        }
    }

    /// Whether a tree with this outline is known to be plain: to have only what its tar brings back to this user.
    pub fn is_plain(&self, outline: &Outline) -> bool {
        outline.tree.is_some_and(|tree| self.seen.knows(&tree, plain()))
    }

    /// Notes that a tree that looked so after `since` is plain.
    pub fn note_plain(&mut self, outline: &Outline, since: Time) {
        self.note(outline.tree.as_ref(), plain(), since);
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
        let Some(dir) = self.dir else { return };
        if let Err(error) = write_attribute(&dir, &self.seen) {
            log.debug(&format!("The layer index of `{}` cannot be written: {error}", dir.display()));
        }
    }
}

/// What stands for a tree that is plain to this user.
fn plain() -> Digest {
    Digest::of(format!("plain {} {}", geteuid().as_raw(), getegid().as_raw()).as_bytes())
}

fn read_attribute(dir: &Path) -> io::Result<Vec<u8>> {
    const OTHERS_WRITE: u32 = 0o022;
    let dir = File::open(dir)?;
    let metadata = dir.metadata()?;
    let user = geteuid().as_raw();
    if ![user, 0].contains(&metadata.uid()) || metadata.mode() & OTHERS_WRITE != 0 {
        return Err(ErrorKind::PermissionDenied.into());
    }
    let mut bytes = vec![0; MOST];
    let length = fgetxattr(&dir, ATTRIBUTE, &mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// Writes as much as there is room for.
fn write_attribute(dir: &Path, seen: &Seen) -> io::Result<()> {
    /// Less is of no use.
    const LEAST: usize = 128;
    let dir = File::open(dir)?;
    let mut bytes = seen.to_bytes(MOST);
    loop {
        match fsetxattr(&dir, ATTRIBUTE, &bytes, XattrFlags::empty()) {
            Err(Errno::NOSPC | Errno::TOOBIG | Errno::RANGE) if bytes.len() > LEAST => {
                bytes = seen.to_bytes(bytes.len() * 3 / 4);
            }
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
