//! Files on disk as entries of a layer's tar, written or only looked at.

use std::io::{self, ErrorKind};
use std::mem::replace;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, FileType, Stat, fstat, lstat, major, minor, readlinkat, statat};
use rustix::io::Errno;

use drydock_io::sink::Sink;
use drydock_tar::{Device, Kind, Origin, Owner, TarError, open_file, split_leaf, write_contents, write_end};

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
    /// Of the directories above, the layer's root first, each with the length of its path. Empty in the root.
    above: Vec<(usize, Outliner)>,
    /// The length of the path of the directory that is outlined.
    length: usize,
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
        Ok(Self { out, ..Self::to_look_at(root, owner, outliner) })
    }

    /// Begins the outline of a directory below a layer's root, as if it were a root itself.
    pub(super) fn to_look_at(root: &'a LayerRoot, owner: Owner, outliner: Outliner) -> Self {
        let (above, name, target) = (Vec::new(), Vec::new(), Vec::new());
        Self { root, owner, out: None, outliner, above, length: 0, name, target }
    }

    /// To begin with in a directory below this one.
    pub(super) fn outliner_below(&self) -> Outliner {
        self.outliner.emptied()
    }

    /// Ends the tar.
    pub(super) fn end(mut self) -> Result<Outline, TarError> {
        self.leave_to(0);
        self.out.map_or(Ok(()), write_end).map_err(TarError::Write)?;
        Ok(self.outliner.finish())
    }

    /// Adds the root, which is open as `dir`; `is_below`: of a layer's directory.
    pub(super) fn add_open_root(&mut self, dir: BorrowedFd<'_>, is_below: bool) -> Result<(), TarError> {
        self.set_name(b"", b"");
        self.add_open(dir, is_below)
    }

    /// Goes down into the directory at `path` below the root, which is open as `dir`, from one that is on its way.
    pub(super) fn enter(&mut self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), TarError> {
        self.leave_to(split_leaf(path).0.len());
        let below = self.outliner.emptied();
        self.above.push((self.length, replace(&mut self.outliner, below)));
        self.length = path.len();
        self.set_name(path, b"");
        self.add_open(dir, true)
    }

    /// Goes back up to the directory whose path has this length.
    fn leave_to(&mut self, length: usize) {
        while self.length > length
            && let Some((above, outliner)) = self.above.pop()
        {
            let below = replace(&mut self.outliner, outliner);
            self.outliner.add_below(&below.finish());
            self.length = above;
        }
    }

    /// Adds a directory below with all that is in it, which was looked at by itself.
    pub(super) fn add_below(&mut self, below: &Outline) {
        self.outliner.add_below(below);
    }

    fn add_open(&mut self, dir: BorrowedFd<'_>, is_below: bool) -> Result<(), TarError> {
        let stat = fstat(dir).map_err(|e| self.unreadable("look up", e))?;
        if is_below {
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
        self.leave_to(path.len());
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
