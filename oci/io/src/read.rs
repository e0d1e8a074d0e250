//! Reading what others wrote: regular files only, opened without waiting for anybody, and no more bytes than a limit.
//!
//! A FIFO, a device or a socket in place of a file is an error ([`ErrorKind::InvalidInput`]), and so is a file with more
//! bytes than the caller can have use for ([`ErrorKind::FileTooLarge`]). Symlinks are followed.
//!
//! What cannot be looked at may well be there: [`look`] tells that from what is not there, and `Path::exists` and its like do not.

use std::borrow::Borrow;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

/// What lies at a path; none if nothing does.
pub fn look(path: &Path) -> io::Result<Option<Metadata>> {
    unless_missing(fs::metadata(path))
}

/// Whether a folder lies at a path.
pub fn is_dir(path: &Path) -> io::Result<bool> {
    Ok(look(path)?.is_some_and(|found| found.is_dir()))
}

/// What lies at a path; of a symlink, that itself.
pub fn look_at_link(path: &Path) -> io::Result<Option<Metadata>> {
    unless_missing(fs::symlink_metadata(path))
}

fn unless_missing(found: io::Result<Metadata>) -> io::Result<Option<Metadata>> {
    match found {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        found => found.map(Some),
    }
}

/// Opens a regular file for reading.
pub fn open(path: &Path) -> io::Result<File> {
    open_at(CWD, path)
}

/// Opens a regular file whose path begins at `dir`.
pub fn open_at(dir: impl AsFd, path: &Path) -> io::Result<File> {
    open_with(dir, path, OFlags::empty())
}

/// The same, but not behind a symlink at the end of the path.
pub(crate) fn open_own_at(dir: impl AsFd, path: &Path) -> io::Result<File> {
    open_with(dir, path, OFlags::NOFOLLOW)
}

fn open_with(dir: impl AsFd, path: &Path, flags: OFlags) -> io::Result<File> {
    regular(openat(dir, path, flags | FLAGS, Mode::empty())?.into())
}

/// Without NONBLOCK, a FIFO would be waited for; a regular file does not care.
pub(crate) const FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The file, if it is a regular one.
pub(crate) fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

pub(crate) fn not_regular() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "not a regular file")
}

/// Reads a regular file of at most `limit` bytes.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_all(open(path)?, limit)
}

/// Reads a regular file of at most `limit` bytes, which must be UTF-8.
pub fn read_to_string(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?)
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, error.utf8_error()))
}

/// Reads the rest of a file, which has at most `limit` bytes.
pub fn read_all(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let too_large = || io::Error::new(ErrorKind::FileTooLarge, format!("more than {limit} bytes"));
    let size = file.metadata()?.len();
    if size > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).map_err(|_| too_large())?);
    // It may grow meanwhile, and files of the kernel have no size.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(too_large()) } else { Ok(bytes) }
}

/// Reads a file from some position on, wherever others are in it, and whether or not it grows.
#[derive(Debug, Clone)]
pub struct ReadAt<F> {
    /// The file.
    pub file: F,
    /// Where the next byte is read.
    pub at: u64,
}

impl<F: Borrow<File>> Read for ReadAt<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.borrow().read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::mkfifoat;

    use super::*;

    #[test]
    fn only_regular_files_within_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), b"12345").unwrap();
        symlink("file", path("link")).unwrap();
        mkfifoat(CWD, path("fifo"), Mode::RWXU).unwrap();
        symlink("/dev/zero", path("device")).unwrap();
        for (name, limit, want) in [
            ("file", 5, Ok("12345")),
            ("file", 4, Err(ErrorKind::FileTooLarge)),
            ("link", 5, Ok("12345")),
            ("fifo", 5, Err(ErrorKind::InvalidInput)),
            ("device", 5, Err(ErrorKind::InvalidInput)),
            (".", 5, Err(ErrorKind::InvalidInput)),
            ("missing", 5, Err(ErrorKind::NotFound)),
        ] {
            let got = read_to_string(&path(name), limit);
            assert_eq!(got.as_deref().map_err(io::Error::kind), want, "{name}");
        }
        for (name, want) in [("file", Some(true)), ("none", None), ("file/below", None), (".", Some(false))] {
            assert_eq!(look(&path(name)).unwrap().map(|found| found.is_file()), want, "{name}");
        }
        symlink("loop", path("loop")).unwrap();
        assert!(look(&path("loop")).is_err(), "it is not known what is there");
        assert!(look_at_link(&path("loop")).unwrap().is_some_and(|found| found.is_symlink()));
        // Files of the kernel say that they are empty.
        assert_eq!(read(Path::new("/proc/version"), 3).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }
}
