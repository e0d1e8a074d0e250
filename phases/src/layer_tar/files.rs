//! Files on disk as entries of a layer's tar, written or only looked at.

use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, FileType, Stat, fstat, lstat, major, minor, readlinkat, statat};
use rustix::io::Errno;

use drydock_io::sink::Sink;
use drydock_tar::{Device, Kind, Origin, Owner, TarError, open_file, write_contents, write_end};

use super::outline::{Outline, Outliner};
use super::root::{LayerRoot, Parent};
use super::write_entry;

/// Writes entries for files below a layer's root, all with one owner.
pub(super) struct Files<'a, 'o> {
    root: &'a LayerRoot,
    owner: Owner,
    /// None: files are only looked at.
    out: Option<&'o mut dyn Sink>,
    outliner: Outliner,
    /// The current entry's name in the archive: the root's, a slash, the path below it.
    name: Vec<u8>,
    /// Memory for the targets of symlinks.
    target: Vec<u8>,
}

impl<'a, 'o> Files<'a, 'o> {
    /// Begins the tar with the directories above the root, which is open as `dir` if it is a directory.
    pub(super) fn begin(
        root: &'a LayerRoot,
        dir: Option<BorrowedFd<'_>>,
        owner: Owner,
        out: Option<&'o mut dyn Sink>,
    ) -> Result<Self, TarError> {
        let mut outliner = Outliner::new(dir, owner);
        let mut out = out;
        for Parent { name, mode, owner } in &root.parents {
            outliner.add(name, &Kind::Dir, *mode);
            outliner.add_owner(*owner);
            if let Some(out) = &mut out {
                write_entry(name, Kind::Dir, *mode, *owner, *out).map_err(TarError::Write)?;
            }
        }
        Ok(Self { root, owner, out, outliner, name: Vec::new(), target: Vec::new() })
    }

    /// Ends the tar.
    pub(super) fn end(self) -> Result<Outline, TarError> {
        self.out.map_or(Ok(()), write_end).map_err(TarError::Write)?;
        Ok(self.outliner.finish())
    }

    /// Adds the directory at `path` below the root (empty: the root itself), which is open as `dir`.
    pub(super) fn add_open_dir(&mut self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), TarError> {
        self.set_name(path, b"");
        let stat = fstat(dir).map_err(|e| self.unreadable("look up", e))?;
        if !path.is_empty() {
            self.outliner.look_at_other(&stat);
        }
        self.write_header(Kind::Dir, permissions(&stat))
    }

    /// Adds the root itself, which is not a directory.
    pub(super) fn add_root(&mut self) -> Result<(), TarError> {
        let path = &self.root.dir;
        let stat = lstat(path).map_err(TarError::read("look up", path))?;
        self.set_name(b"", b"");
        self.add_named(CWD, path.as_os_str().as_bytes(), FileType::from_raw_mode(stat.st_mode)).map(drop)
    }

    /// Adds `leaf`, which is in the directory at `path` below the root, open as `dir`. Sockets are left out.
    ///
    /// `file_type` is what it was when it was listed. If it isn't any more, that is an error. Tells where a file's contents were.
    pub(super) fn add(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &[u8],
        leaf: &[u8],
        file_type: FileType,
    ) -> Result<Origin, TarError> {
        self.set_name(path, leaf);
        self.add_named(dir, leaf, file_type)
    }

    fn add_named(
        &mut self,
        dir: BorrowedFd<'_>,
        leaf: &[u8],
        file_type: FileType,
    ) -> Result<Origin, TarError> {
        match file_type {
            FileType::RegularFile => return self.add_file(dir, leaf),
            FileType::Symlink => self.add_symlink(dir, leaf)?,
            FileType::Socket => {
                self.outliner.look_at_other(None);
                self.root.left_out.add(self.path());
            }
            _ => {
                let stat = statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|e| self.unreadable("look up", e))?;
                if FileType::from_raw_mode(stat.st_mode) != file_type {
                    return Err(TarError::Changed(self.path()));
                }
                self.outliner.look_at_other(&stat);
                let device = Device { major: major(stat.st_rdev), minor: minor(stat.st_rdev) };
                let kind = match file_type {
                    FileType::Directory => Kind::Dir,
                    FileType::Fifo => Kind::Fifo,
                    FileType::CharacterDevice => Kind::CharDevice(device),
                    FileType::BlockDevice => Kind::BlockDevice(device),
                    _ => return Err(self.unreadable("archive", ErrorKind::Unsupported)),
                };
                self.write_header(kind, permissions(&stat))?;
            }
        }
        Ok(Origin::Memory)
    }

    fn add_symlink(&mut self, dir: BorrowedFd<'_>, leaf: &[u8]) -> Result<(), TarError> {
        self.outliner.look_at_other(statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW).ok().as_ref());
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
    fn add_file(&mut self, dir: BorrowedFd<'_>, leaf: &[u8]) -> Result<Origin, TarError> {
        let stat = statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| self.unreadable("look up", e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(TarError::Changed(self.path()));
        }
        let size =
            u64::try_from(stat.st_size).map_err(|_| self.unreadable("look up", ErrorKind::InvalidData))?;
        self.outliner.look_at(&stat);
        self.write_header(Kind::File { size }, permissions(&stat))?;
        if size == 0 || self.out.is_none() {
            return Ok(Origin::Memory);
        }
        let file = match open_file(dir, leaf) {
            Ok(file) => file,
            Err(Errno::LOOP) => return Err(TarError::Changed(self.path())),
            Err(error) => return Err(self.unreadable("open", error)),
        };
        let Self { root, name, out, .. } = self;
        out.as_mut()
            .map_or(Ok(Origin::Memory), |out| write_contents(&file, size, *out, &|| path_on_disk(root, name)))
    }

    fn write_header(&mut self, kind: Kind<'_>, mode: u32) -> Result<(), TarError> {
        self.outliner.add(&self.name, &kind, mode);
        let Some(out) = &mut self.out else { return Ok(()) };
        write_entry(&self.name, kind, mode, self.owner, *out).map_err(TarError::Write)
    }

    fn set_name(&mut self, path: &[u8], leaf: &[u8]) {
        self.name.clear();
        self.name.extend_from_slice(&self.root.name);
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
        path_on_disk(self.root, &self.name)
    }

    fn unreadable(&self, action: &'static str, error: impl Into<io::Error>) -> TarError {
        TarError::read(action, &self.path())(error)
    }
}

/// With setuid, setgid and sticky bits.
fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

fn path_on_disk(root: &LayerRoot, name: &[u8]) -> PathBuf {
    let below = &name[root.name.len()..];
    root.join(below.strip_prefix(b"/").unwrap_or(below))
}
