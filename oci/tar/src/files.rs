//! Files on disk as entries of a tar.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, FileType, Stat, fstat, lstat, major, minor, readlinkat, statat};
use rustix::io::Errno;

use super::ahead::{self, Contents};
use super::error::TarError;
use super::header::{Header, Kind, Owner, write_end, write_padding};
use super::place::Place;
use drydock_io::sink::Sink;

/// Writes entries for files below a place, all with one owner.
pub(super) struct Files<'a> {
    place: &'a Place,
    owner: Owner,
    out: &'a mut dyn Sink,
    /// The current entry's name in the archive: the place's, a slash, the path below the place.
    name: Vec<u8>,
    /// Memory for the targets of symlinks.
    target: Vec<u8>,
}

impl<'a> Files<'a> {
    /// Begins the tar with the directories above the place.
    pub(super) fn begin(place: &'a Place, owner: Owner, out: &'a mut dyn Sink) -> Result<Self, TarError> {
        place.write_parents(out).map_err(TarError::Write)?;
        Ok(Self { place, owner, out, name: Vec::new(), target: Vec::new() })
    }

    /// Ends the tar.
    pub(super) fn end(self) -> Result<(), TarError> {
        write_end(self.out).map_err(TarError::Write)
    }

    /// Adds the directory at `path` below the place (empty: the place itself), which is open as `dir`.
    pub(super) fn add_open_dir(&mut self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), TarError> {
        self.set_name(path, b"");
        let stat = fstat(dir).map_err(|e| self.unreadable("look up", e))?;
        self.write_header(Kind::Dir, permissions(&stat))
    }

    /// Adds the place itself, which is not a directory.
    pub(super) fn add_place(&mut self) -> Result<(), TarError> {
        let path = &self.place.dir;
        let stat = lstat(path).map_err(TarError::read("look up", path))?;
        self.set_name(b"", b"");
        self.add_named(CWD, path.as_os_str().as_bytes(), FileType::from_raw_mode(stat.st_mode)).map(drop)
    }

    /// Adds `leaf`, which is in the directory at `path` below the place, open as `dir`. Sockets are left out.
    ///
    /// `file_type` is what it was when it was listed. If it isn't any more, that is an error. Tells where a file's contents were.
    pub(super) fn add(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &[u8],
        leaf: &[u8],
        file_type: FileType,
    ) -> Result<Contents, TarError> {
        self.set_name(path, leaf);
        self.add_named(dir, leaf, file_type)
    }

    fn add_named(
        &mut self,
        dir: BorrowedFd<'_>,
        leaf: &[u8],
        file_type: FileType,
    ) -> Result<Contents, TarError> {
        match file_type {
            FileType::RegularFile => return self.add_file(dir, leaf),
            FileType::Symlink => self.add_symlink(dir, leaf)?,
            FileType::Socket => {}
            _ => {
                let stat = statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|e| self.unreadable("look up", e))?;
                if FileType::from_raw_mode(stat.st_mode) != file_type {
                    return Err(TarError::Changed(self.path()));
                }
                let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
                let kind = match file_type {
                    FileType::Directory => Kind::Dir,
                    FileType::Fifo => Kind::Fifo,
                    FileType::CharacterDevice => Kind::CharDevice { major, minor },
                    FileType::BlockDevice => Kind::BlockDevice { major, minor },
                    _ => return Err(self.unreadable("archive", ErrorKind::Unsupported)),
                };
                self.write_header(kind, permissions(&stat))?;
            }
        }
        Ok(Contents::InMemory)
    }

    fn add_symlink(&mut self, dir: BorrowedFd<'_>, leaf: &[u8]) -> Result<(), TarError> {
        let memory = std::mem::take(&mut self.target);
        let target = match readlinkat(dir, leaf, memory) {
            Ok(target) => target.into_bytes(),
            Err(Errno::INVAL) => return Err(TarError::Changed(self.path())),
            Err(error) => return Err(self.unreadable("read the symlink", error)),
        };
        self.write_header(Kind::Symlink { target: &target }, 0o777)?;
        self.target = target;
        Ok(())
    }

    /// Looks the file up by its name, since an empty one then needs no more: most of a file's cost is opening it. If
    /// another file takes its place before it is opened, what can be read differs from the size, or is no less right.
    fn add_file(&mut self, dir: BorrowedFd<'_>, leaf: &[u8]) -> Result<Contents, TarError> {
        let stat = statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| self.unreadable("look up", e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(TarError::Changed(self.path()));
        }
        let size =
            u64::try_from(stat.st_size).map_err(|_| self.unreadable("look up", ErrorKind::InvalidData))?;
        self.write_header(Kind::File { size }, permissions(&stat))?;
        if size == 0 {
            return Ok(Contents::InMemory);
        }
        let file = match ahead::open(dir, leaf) {
            Ok(file) => file,
            Err(Errno::LOOP) => return Err(TarError::Changed(self.path())),
            Err(error) => return Err(self.unreadable("open", error)),
        };
        let Self { place, name, out, .. } = self;
        write_contents(&file, size, *out, &|| path_on_disk(place, name))
    }

    fn write_header(&mut self, kind: Kind<'_>, mode: u32) -> Result<(), TarError> {
        let header = Header { name: &self.name, kind, mode, owner: self.owner };
        header.write(self.out).map_err(TarError::Write)
    }

    fn set_name(&mut self, path: &[u8], leaf: &[u8]) {
        self.name.clear();
        self.name.extend_from_slice(&self.place.name);
        for part in [path, leaf] {
            if !part.is_empty() {
                if !self.name.ends_with(b"/") {
                    self.name.push(b'/');
                }
                self.name.extend_from_slice(part);
            }
        }
    }

    /// The current entry on disk.
    fn path(&self) -> PathBuf {
        path_on_disk(self.place, &self.name)
    }

    fn unreadable(&self, action: &'static str, error: impl Into<io::Error>) -> TarError {
        TarError::read(action, &self.path())(error)
    }
}

/// With setuid, setgid and sticky bits.
fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// Writes the contents of a file, which must have exactly `size` bytes, and pads them. Tells where they were.
///
/// `path` tells the file's path for an error.
pub(super) fn write_contents(
    file: impl AsFd,
    size: u64,
    out: &mut dyn Sink,
    path: &dyn Fn() -> PathBuf,
) -> Result<Contents, TarError> {
    let mut left = size;
    // Whether it has been seen that nothing follows. An empty file is not read at all.
    let mut at_end = size == 0;
    let changed = || TarError::Changed(path());
    let mut contents = Contents::InMemory;
    let mut read = |buffer: &mut [u8]| -> Result<usize, TarError> {
        let (n, found) = ahead::read(&file, buffer).map_err(|e| TarError::read("read", &path())(e))?;
        if found == Contents::OnDisk {
            contents = found;
        }
        Ok(n)
    };
    while left > 0 {
        let space = out.space().map_err(TarError::Write)?;
        // If there is room, one byte more than there should be: a second read to find the end is then not needed.
        let wanted = usize::try_from(left.saturating_add(1)).unwrap_or(usize::MAX).min(space.len());
        let n = read(&mut space[..wanted])?;
        if n == 0 || n as u64 > left {
            return Err(changed());
        }
        at_end = n as u64 == left && n < wanted;
        out.advance(n);
        left -= n as u64;
    }
    if !at_end && read(&mut [0])? > 0 {
        return Err(changed());
    }
    write_padding(size, out).map_err(TarError::Write)?;
    Ok(contents)
}

fn path_on_disk(place: &Place, name: &[u8]) -> PathBuf {
    let below = &name[place.name.len()..];
    place.join(below.strip_prefix(b"/").unwrap_or(below))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;

    use super::*;
    use drydock_io::sink::{MemorySink, WriterSink};

    /// Whether a file of 1000 bytes is taken for one of `size` bytes.
    fn taken_for(size: u64, sink: &mut dyn Sink, file: &Path) -> bool {
        let file = File::open(file).unwrap();
        match write_contents(&file, size, sink, &|| "the file".into()) {
            Ok(_) => true,
            Err(TarError::Changed(path)) => {
                assert_eq!(path, Path::new("the file"));
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_file_that_shrinks_or_grows_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, [1; 1000]).unwrap();
        for (size, expected) in [(1000, true), (999, false), (1001, false), (100_000, false)] {
            assert_eq!(taken_for(size, &mut MemorySink::default(), &path), expected, "{size}");
            // Here the buffer ends where the file does.
            let mut sink = WriterSink::new(Vec::new());
            sink.write_all(&vec![0; (128 << 10) - 1000]).unwrap();
            assert_eq!(taken_for(size, &mut sink, &path), expected, "{size}");
        }
    }
}
