//! Extraction of a tar that one is not sure of: whatever it holds, only one directory is made, and what is in it.
//!
//! Files are made relative to handles of the directories that hold them, and no handle is opened through a symlink
//! ([`Trail`](super::Trail)); names are taken apart beforehand, and `..` is refused. So nothing outside is created, changed or
//! read, wherever symlinks point. Since the directory is new, so is everything in it: nothing is ever replaced.

mod input;
mod late;
mod make;
#[cfg(test)]
mod model;
mod names;
mod small;
mod sync;

use std::fs;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;

use drydock_model::digest::DiffId;

use self::input::{HashedInput, Hashing};
use self::make::Maker;
use self::small::Shared;
use crate::error::ArchiveError;
use crate::read::Archive;
use crate::remove::remove_all;

/// What to extract, and where to.
#[derive(Debug, Clone, Copy)]
pub struct Extraction<'a> {
    /// Of the tar.
    pub diff_id: DiffId,
    /// What the directory is called in the tar; absolute. Names in the tar are taken as absolute, with or without a slash at the
    /// beginning.
    pub named: &'a Path,
    /// The directory to make. What is there is removed; the directory that it is in must exist.
    pub into: &'a Path,
    /// Bytes that the tar may have. So many are on the disk at most, and an entry takes 512 of them.
    pub limit: u64,
    /// How many threads make its files; one more hashes it.
    pub threads: NonZeroUsize,
}

/// Why a tar was not extracted.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// It cannot be read, or is larger than the limit.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// It holds something that does not belong where it is extracted to.
    #[error("the tar's entry `{entry:.300}` is refused: {reason}")]
    Refused {
        /// The entry's name.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// These are not the contents that were asked for.
    #[error("the tar has the digest {found}, not {expected}")]
    Mismatch {
        /// What was asked for.
        expected: DiffId,
        /// What was read.
        found: DiffId,
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

/// Extracts a tar: entries called `named/…` become files `into/…`.
///
/// Entries for directories above `named` are skipped. Any other entry outside is an error, and so is a device, a second entry for
/// one path, and one that comes before the directory that it is in, or whose path in `into` has more than 4096 bytes; and so
/// are directories that their owner may not write to, read or search once their paths have 32 MiB in all.
///
/// Restored are directories, files, symlinks (with any target), hard links to what is in `into`, and FIFOs: each with its
/// permissions, but without setuid, setgid and sticky bits, and not with its owner, times and extended attributes.
///
/// The tar is read to its end, and hashed. After an error, nothing of it is left. Of several errors, any one may be told.
pub fn extract(tar: impl Read, extraction: &Extraction<'_>) -> Result<(), ExtractError> {
    let Extraction { diff_id: expected, named, into, limit, threads } = *extraction;
    let failure = |action| move |source| ExtractError::Restore { action, path: into.to_owned(), source };
    remove_all(into).map_err(failure("remove"))?;
    fs::create_dir(into).map_err(failure("create"))?;
    let shared = Shared::default();
    let extracted = thread::scope(|scope| {
        let mut archive = Archive::new(HashedInput::new(tar, limit, Hashing::start(scope)));
        let mut maker = Maker::new(scope, &shared, named, into, threads.get() - 1)?;
        maker.make_all(&mut archive)?;
        let found = archive.into_inner().finish().map_err(ArchiveError::Read)?;
        if found == expected {
            maker.finish_directories()
        } else {
            Err(ExtractError::Mismatch { expected, found })
        }
    });
    extracted.map_err(|cause| match remove_all(into) {
        Ok(()) => cause,
        Err(why) => ExtractError::NotUndone { cause: Box::new(cause), path: into.to_owned(), why },
    })
}

#[cfg(test)]
mod tests;
