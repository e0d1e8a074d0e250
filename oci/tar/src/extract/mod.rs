//! Extraction of a layer's tar below one directory, whatever the tar holds.
//!
//! Files are made relative to handles of the directories that hold them, and no handle is opened through a symlink
//! ([`Trail`](super::trail::Trail)); names are taken apart beforehand, and `..` is refused. So nothing outside is
//! created, changed or read, wherever symlinks point that are in the archive or were there before.
//!
//! The tar is read once: another thread hashes it meanwhile, and a third makes some of the files if the tar is large
//! ([`helper`]). What was made is removed again if the hash is wrong. Until then no new directory has permissions that
//! would be in the way of that.

mod entry;
mod helper;
mod input;
mod make;
mod names;
mod restore;

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::thread;

use drydock_model::digest::DiffId;

use self::helper::Sharing;
use self::input::{Input, hash_chunks};
use self::restore::Restorer;

/// Chunks that wait to be hashed, at most.
const QUEUE: usize = 4;

/// Why a tar was not extracted.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The tar ends early or cannot be read.
    #[error("cannot read the tar")]
    Read(#[source] io::Error),
    /// This is no tar, or one of a kind that is not understood.
    #[error("the tar is malformed after {offset} bytes: {reason}")]
    Malformed {
        /// Where in the tar the offending header begins.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The tar holds something that does not belong where it is extracted to.
    #[error("the tar's entry `{entry}` is refused: {reason}")]
    Refused {
        /// The entry's name.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file or directory cannot be made.
    #[error("cannot {action} `{}`", path.display())]
    Restore {
        /// What was tried: `create`, `write`, ….
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// These are not the contents that were asked for.
    #[error("the tar has the digest {found}, not {expected}")]
    Mismatch {
        /// What was asked for.
        expected: DiffId,
        /// What was read.
        found: DiffId,
    },
    /// No thread can be started to hash the tar, or to make files.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// Extraction failed, and what had been made until then cannot be removed either.
    #[error("cannot remove `{}` again after a failure: {why}", path.display())]
    NotUndone {
        /// Why extraction failed.
        #[source]
        cause: Box<ExtractError>,
        /// What is left.
        path: PathBuf,
        /// Why it cannot be removed.
        why: io::Error,
    },
}

/// Extracts the tar with this diff ID: entries called `below/…` become files `into/…`.
///
/// `below` is absolute; names in the tar are taken as absolute, with or without a slash at the beginning. `into` must
/// exist. Entries for `below` and the directories above it are skipped; any other entry outside is an error, and so is
/// a device, or an entry in a directory that is a symlink on disk.
///
/// Restored are directories, files, symlinks (with any target), hard links to what is in `into`, and FIFOs, each with
/// its permissions, but not with its owner or times. A directory that exists stays as it is and gets what is in the
/// tar; anything else that exists is replaced, never written through. Directories that the tar leaves out are made with
/// the permissions that the process gives to new directories.
///
/// After an error, everything that was made is removed again; only what was replaced is lost.
///
/// Several threads may extract into the same directory, if the tars have nothing in common but directories that are
/// there before: what one extraction makes, it may remove.
pub fn extract(tar: impl Read, diff_id: DiffId, below: &Path, into: &Path) -> Result<(), ExtractError> {
    extract_sharing(tar, diff_id, below, into, Sharing::default())
}

fn extract_sharing(
    tar: impl Read,
    diff_id: DiffId,
    below: &Path,
    into: &Path,
    sharing: Sharing,
) -> Result<(), ExtractError> {
    let mut restorer = Restorer::new(below, into, sharing)?;
    let extracted = extract_and_hash(tar, &mut restorer).and_then(|found| {
        if found == diff_id {
            restorer.finish_directories()
        } else {
            Err(ExtractError::Mismatch { expected: diff_id, found })
        }
    });
    extracted.map_err(|cause| undo(cause, restorer.made(), into))
}

fn extract_and_hash(tar: impl Read, restorer: &mut Restorer) -> Result<DiffId, ExtractError> {
    let (to_hasher, from_reader) = sync_channel(QUEUE);
    thread::scope(|scope| {
        let hasher = thread::Builder::new()
            .name("hash tar".into())
            .spawn_scoped(scope, move || hash_chunks(&from_reader))
            .map_err(ExtractError::Thread)?;
        let mut input = Input::new(tar, to_hasher);
        restorer.restore_all(&mut input)?;
        input.finish()?;
        Ok(hasher.join().expect("hashing does not panic"))
    })
}

/// Removes what was made.
fn undo<'a>(mut cause: ExtractError, made: impl Iterator<Item = &'a [u8]>, into: &Path) -> ExtractError {
    use std::os::unix::ffi::OsStrExt as _;
    for path in made {
        let path = into.join(std::ffi::OsStr::from_bytes(path));
        let removed = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) => Err(error),
        };
        match removed {
            Ok(()) => {}
            // Removed with what holds it, or replaced in the course.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(why) => cause = ExtractError::NotUndone { cause: Box::new(cause), path, why },
        }
    }
    cause
}

#[cfg(test)]
mod sharing_tests;
#[cfg(test)]
mod tests;
