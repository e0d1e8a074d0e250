//! Files that are not in memory are asked for before their turn comes: a disk needs hardly longer for many than for one.

use std::io::IoSliceMut;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Advice, Mode, OFlags, fadvise, openat};
use rustix::io::{self, Errno, ReadWriteFlags, preadv2, retry_on_intr};

/// As the offset of a read: where the file is.
const HERE: u64 = u64::MAX;

/// Where bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// There was nothing to wait for, as far as the file system can tell.
    Memory,
    /// The disk had to be waited for.
    Disk,
}

/// So much of a file is asked for. When it is read, the kernel goes on by itself.
const BEGINNING: Option<NonZeroU64> = NonZeroU64::new(512 << 10);

/// Opens a file to be archived, not through a symlink. If a FIFO has taken its place, that does not wait for a writer.
pub fn open_file(dir: BorrowedFd<'_>, leaf: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat(dir, leaf, flags, Mode::empty())
}

/// Reads on where the file is.
pub(crate) fn read(file: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Origin)> {
    match preadv2(&file, &mut [IoSliceMut::new(buffer)], HERE, ReadWriteFlags::NOWAIT) {
        Ok(n) => Ok((n, Origin::Memory)),
        Err(error) => {
            let origin = if error == Errno::AGAIN { Origin::Disk } else { Origin::Memory };
            Ok((retry_on_intr(|| io::read(&file, &mut *buffer))?, origin))
        }
    }
}

/// Asks for the beginning of a file without waiting for it, and says where it was. If anything is wrong with the file, that is found
/// when it is read.
pub(crate) fn ask_for(dir: BorrowedFd<'_>, leaf: &[u8]) -> Origin {
    let Ok(file) = open_file(dir, leaf) else { return Origin::Memory };
    match preadv2(&file, &mut [IoSliceMut::new(&mut [0])], 0, ReadWriteFlags::NOWAIT) {
        Err(Errno::AGAIN) if fadvise(&file, 0, BEGINNING, Advice::WillNeed).is_ok() => Origin::Disk,
        _ => Origin::Memory,
    }
}
