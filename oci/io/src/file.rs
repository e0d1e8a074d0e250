//! Files that appear whole or not at all: written beside their place under a temporary name, then renamed.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, fcntl_setfl, flock, openat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::dir::Place;
use crate::read;

/// The name of all that is temporary begins with this: what a killed process left behind [is known by it](is_temporary).
pub const TEMPORARY_PREFIX: &str = ".drydock-";

/// Whether a name is one that is given to what is temporary: [`TEMPORARY_PREFIX`], `kind`, a process's number, `-`, and a number.
/// Others may begin like it, and are somebody's.
pub fn is_temporary(name: &OsStr, kind: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let rest = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY_PREFIX)?.strip_prefix(kind));
    rest.and_then(|rest| rest.split_once('-'))
        .is_some_and(|(process, serial)| is_number(process) && is_number(serial))
}

/// Makes a folder with all above it; one that is there will do. If that cannot be looked at, this is the error.
pub fn make_dirs(path: &Path) -> io::Result<()> {
    match fs::create_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match read::look(path)? {
            Some(found) if found.is_dir() => Ok(()),
            _ => Err(error),
        },
        made => made,
    }
}

/// A file without its final name. Dropped before [`TempFile::persist`], it is removed.
#[derive(Debug)]
pub struct TempFile {
    file: File,
    /// None once it has its final name.
    place: Option<Place>,
}

impl TempFile {
    /// A new, empty file of mode 0644 (whatever the umask) in `dir`, which must exist.
    pub fn create_in(dir: &Path) -> io::Result<Self> {
        Self::create(&Place::by_path(&dir.join(TEMPORARY_PREFIX)), 0o644)
    }

    /// The same in the folder of a place.
    pub fn create_beside(place: &Place) -> io::Result<Self> {
        Self::create(place, 0o644)
    }

    pub(crate) fn create(beside: &Place, mode: u32) -> io::Result<Self> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        loop {
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            let place = beside.beside(&format!("{TEMPORARY_PREFIX}{}-{serial}", std::process::id()));
            match place.create_new(mode, OFlags::empty()) {
                Ok(file) => {
                    let temporary = Self { file, place: Some(place) };
                    temporary.file.set_permissions(fs::Permissions::from_mode(mode))?;
                    // Where files cannot be locked, nobody takes this one for a killed process's either.
                    let locked = flock(&temporary.file, FlockOperation::NonBlockingLockExclusive);
                    let is_removed = temporary.file.metadata()?.nlink() == 0;
                    if locked != Err(Errno::WOULDBLOCK) && !is_removed {
                        return Ok(temporary);
                    }
                }
                // A killed process of the same number left it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The open file.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Where it is until it is persisted.
    pub fn path(&self) -> &Path {
        self.place().path()
    }

    fn place(&self) -> &Place {
        self.place.as_ref().expect("it is taken only by `persist`, which consumes the value")
    }

    /// Gives the file its final name, in place of whatever has that name.
    pub fn persist(self, to: &Path) -> io::Result<()> {
        self.persist_at(&Place::by_path(to))
    }

    /// The same in a folder that is open.
    pub fn persist_at(mut self, to: &Place) -> io::Result<()> {
        self.place().rename(to)?;
        self.place = None;
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            // Nobody can be told here; the next writer removes what is left.
            let _ = place.remove();
        }
    }
}

/// Where a user wants something to be written. Links are followed. A regular file is replaced in one step and keeps its mode; what is
/// there and is none (a pipe, a device) stays there, and is written to.
#[derive(Debug)]
pub enum Destination {
    /// A file that has its name when it is finished.
    File(TempFile, PathBuf),
    /// What is there.
    There(File),
}

impl Destination {
    /// Opens it; a pipe that nobody reads is waited for.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mode = match fs::metadata(path) {
            Ok(there) if there.is_file() => there.mode() & 0o777,
            Ok(_) => return OpenOptions::new().write(true).open(path).map(Self::There),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0o644,
            Err(error) => return Err(error),
        };
        let path = behind_links(path)?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // What killed processes left; other users' stays.
        let _ = remove_stale(dir);
        Ok(Self::File(TempFile::create(&Place::by_path(&dir.join(TEMPORARY_PREFIX)), mode)?, path))
    }

    /// The open file.
    pub fn file(&mut self) -> &mut File {
        match self {
            Self::File(temporary, _) => temporary.file(),
            Self::There(file) => file,
        }
    }

    /// All is written: what is a file is on the disk, and has its name.
    pub fn finish(self) -> io::Result<()> {
        match self {
            Self::File(mut temporary, path) => {
                temporary.file().sync_all()?;
                temporary.persist(&path)
            }
            Self::There(_) => Ok(()),
        }
    }
}

/// What is at a path and is not replaced by a file: a device, or a pipe, which must have a reader; links are followed. What is written is added at
/// its end. Links of other users, who would choose a device, are not followed. None if nothing is there, or a file, or a folder.
pub fn open_there(path: &Path) -> io::Result<Option<File>> {
    let link = read::look_at_link(path)?.filter(fs::Metadata::is_symlink);
    if link.is_some_and(|link| ![0, geteuid().as_raw()].contains(&link.uid())) {
        return Ok(None);
    }
    // What a process has as its output may be a file.
    let is_own = fs::read_link(path).is_ok_and(|to| to.starts_with("/proc"));
    if !is_own && fs::metadata(path).map_or(true, |there| there.is_file() || there.is_dir()) {
        return Ok(None);
    }
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::empty()).map_err(|error| match error {
        Errno::NXIO => io::Error::new(io::ErrorKind::NotConnected, "nobody reads what is written to it"),
        error => error.into(),
    })?;
    fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(Some(file.into()))
}

/// Where a link leads to, and a link there; there need not be anything.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    /// As many as the kernel follows.
    const MAX_LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..=MAX_LINKS {
        match fs::read_link(&path) {
            Ok(to) => path = path.parent().unwrap_or(Path::new("")).join(to),
            // There is nothing, or no link.
            Err(_) => return Ok(path),
        }
    }
    Err(Errno::LOOP.into())
}

/// Opens a file to read it and to write at its end; a new one has mode 0644. It must be a regular file, and no symlink. If
/// what is in it does not end with a line feed, one is added: a killed process left half a line.
pub fn open_to_append(path: &Path) -> io::Result<File> {
    // Without NONBLOCK, a FIFO would be waited for; a regular file does not care.
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = match openat(CWD, path, flags, Mode::from_raw_mode(0o644)) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link")),
        Err(error) => return Err(error.into()),
    };
    let size = match file.metadata()? {
        metadata if metadata.is_file() => metadata.len(),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    };
    let mut last = [b'\n'];
    if size > 0 {
        file.read_at(&mut last, size - 1)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// Removes the temporary files in a folder that killed processes left. Those of processes that run are locked.
pub fn remove_stale(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_temporary(&name, "") && entry.file_type()?.is_file() {
            let file = read::open(&entry.path())?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

/// Puts `bytes` at `path` in one step, with mode 0644: a reader finds the old file or the new one, whole.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with_mode(path, bytes, 0o644)
}

/// [`write_atomically`] what only the owner may read: mode 0600 from the beginning.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with_mode(path, bytes, 0o600)
}

fn write_with_mode(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    Place::by_path(path).write(bytes, mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn replaces_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.json");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o644);
        write_private(&path, b"three").unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), mode()), (b"three".as_slice(), 0o600));
        assert_eq!(names(dir.path()), ["index.json"]);
    }

    #[test]
    fn what_killed_processes_left_is_told_from_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let others = [
            ".drydock-",
            ".drydock--1",
            ".drydock-1",
            ".drydock-1-",
            ".drydock-1-0-1",
            ".drydock-1-x",
            ".drydock-notes",
            ".drydock-unpacked-1-0",
            "drydock-1-0",
            "group.toml",
        ];
        for name in [".drydock-1-0", ".drydock-4194304-17"].iter().chain(&others) {
            fs::write(path(name), "left").unwrap();
        }
        std::os::unix::fs::symlink("group.toml", path(".drydock-1-1")).unwrap();
        let running = TempFile::create_in(dir.path()).unwrap();
        remove_stale(dir.path()).unwrap();
        let running = running.path().file_name().unwrap().to_str().unwrap().to_owned();
        let mut want = [&others[..], &[".drydock-1-1", &running]].concat();
        want.sort_unstable();
        let mut left = names(dir.path());
        left.sort();
        assert_eq!(left, want);
    }

    #[test]
    fn only_regular_files_are_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for (before, after) in [(None, "x"), (Some(""), "x"), (Some("a\n"), "a\nx"), (Some("a"), "a\nx")] {
            if let Some(before) = before {
                fs::write(path("log"), before).unwrap();
            }
            open_to_append(&path("log")).unwrap().write_all(b"x").unwrap();
            assert_eq!(fs::read_to_string(path("log")).unwrap(), after);
            fs::remove_file(path("log")).unwrap();
        }
        std::os::unix::fs::symlink("target", path("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("fifo"), rustix::fs::Mode::RWXU).unwrap();
        for (name, want) in
            [("link", "symbolic link"), ("fifo", "not a regular"), (".", "directory"), ("no/log", "No such")]
        {
            let error = open_to_append(&path(name)).unwrap_err().to_string();
            assert!(error.contains(want), "{name}: {error}");
        }
        assert!(!path("target").exists());
    }

    #[test]
    fn destinations_stay_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("in")).unwrap();
        fs::write(path("in/file"), "old").unwrap();
        fs::set_permissions(path("in/file"), fs::Permissions::from_mode(0o640)).unwrap();
        for (link, to) in [("link", "in/second"), ("in/second", "file"), ("new", "in/none"), ("loop", "loop")]
        {
            std::os::unix::fs::symlink(to, path(link)).unwrap();
        }
        for (name, real, mode) in
            [("in/file", "in/file", 0o640), ("link", "in/file", 0o640), ("new", "in/none", 0o644)]
        {
            let before = fs::metadata(path(real)).map(|there| there.ino()).ok();
            for finished in [false, true] {
                let mut destination = Destination::open(&path(name)).unwrap();
                destination.file().write_all(name.as_bytes()).unwrap();
                if finished {
                    destination.finish().unwrap();
                }
            }
            assert_eq!(fs::read_to_string(path(real)).unwrap(), name);
            let after = fs::symlink_metadata(path(real)).unwrap();
            assert!(after.is_file() && Some(after.ino()) != before, "{name}");
            assert_eq!(after.mode() & 0o777, mode, "{name}");
        }
        assert!(fs::symlink_metadata(path("link")).unwrap().is_symlink());
        rustix::fs::mkfifoat(CWD, path("fifo"), Mode::RWXU).unwrap();
        std::os::unix::fs::symlink("fifo", path("to-fifo")).unwrap();
        let reader = std::thread::spawn({
            let fifo = path("fifo");
            move || fs::read(fifo).unwrap()
        });
        let mut destination = Destination::open(&path("to-fifo")).unwrap();
        destination.file().write_all(b"through").unwrap();
        destination.finish().unwrap();
        assert_eq!(reader.join().unwrap(), b"through");
        for (name, left) in [("loop", "symbolic links"), ("in", "directory"), ("no/file", "No such")] {
            let error = Destination::open(&path(name)).unwrap_err().to_string();
            assert!(error.contains(left), "{name}: {error}");
        }
        assert_eq!(names(&path("in")).len(), 3);
    }

    #[test]
    fn dropped_before_its_name_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        drop(TempFile::create_in(dir.path()).unwrap());
        assert!(names(dir.path()).is_empty());
    }
}
