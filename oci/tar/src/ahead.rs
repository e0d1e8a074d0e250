//! Files that are not in memory are asked for before their turn comes: a disk needs hardly longer for many than for one.

use std::io::IoSliceMut;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Advice, Mode, OFlags, fadvise, openat};
use rustix::io::{self, Errno, ReadWriteFlags, preadv2, retry_on_intr};

use drydock_io::file::HERE;

/// Where bytes were when they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    /// There was nothing to wait for, as far as the file system can tell.
    InMemory,
    /// The disk had to be waited for.
    OnDisk,
}

/// So much of a file is asked for. When it is read, the kernel goes on by itself.
const BEGINNING: Option<NonZeroU64> = NonZeroU64::new(512 << 10);

/// Opens a file of a layer. If a FIFO has taken its place, that does not wait for a writer.
pub(super) fn open(dir: BorrowedFd<'_>, leaf: &[u8]) -> io::Result<impl AsFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat(dir, leaf, flags, Mode::empty())
}

/// Reads on where the file is.
pub(super) fn read(file: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Contents)> {
    match preadv2(&file, &mut [IoSliceMut::new(buffer)], HERE, ReadWriteFlags::NOWAIT) {
        Ok(n) => Ok((n, Contents::InMemory)),
        Err(error) => {
            let contents = if error == Errno::AGAIN { Contents::OnDisk } else { Contents::InMemory };
            Ok((retry_on_intr(|| io::read(&file, &mut *buffer))?, contents))
        }
    }
}

/// Asks for the beginning of a file without waiting for it, and says where it was. If anything is wrong with the file, that is found
/// when it is read.
pub(super) fn ask_for(dir: BorrowedFd<'_>, leaf: &[u8]) -> Contents {
    let Ok(file) = open(dir, leaf) else { return Contents::InMemory };
    match preadv2(&file, &mut [IoSliceMut::new(&mut [0])], 0, ReadWriteFlags::NOWAIT) {
        Err(Errno::AGAIN) if fadvise(&file, 0, BEGINNING, Advice::WillNeed).is_ok() => Contents::OnDisk,
        _ => Contents::InMemory,
    }
}
