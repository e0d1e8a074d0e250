//! A file system for one sandbox: the shared files of an image, and above them a folder that takes what is written.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::copy::copy;
use crate::ids::Ids;
use crate::room::Room;
use crate::session::Session;

/// The file system; dropped, it is no longer mounted.
#[derive(Debug)]
pub struct Tree {
    path: PathBuf,
    mounted: bool,
}

impl Tree {
    /// Puts an empty layer on `lower`: by the kernel, or where that refuses, on a copy, of which `note` is told, and which `going` ends.
    pub fn over(
        lower: &Path,
        session: &Session,
        name: &str,
        room: &Room,
        note: &dyn Fn(&str),
        going: &dyn Fn() -> io::Result<()>,
    ) -> Result<Self> {
        let make = |part: &str| session.make(&format!("{name}/{part}"));
        let above = Above { upper: make("upper")?, work: make("work")? };
        let path = make("root")?;
        make_alike(&above.upper, lower)?;
        match mount_overlay(&[lower], Some(&above), &path, room) {
            Ok(()) => Ok(Self { path, mounted: true }),
            Err(error) => {
                note(&format!(
                    "the kernel refuses an overlay ({error}): files are copied, which takes longer"
                ));
                copy(lower, &path, &[], going)?;
                Ok(Self { path, mounted: false })
            }
        }
    }

    /// Mounts folders one over the other, the topmost first, at `path`, an empty folder. What is written goes to `above`; without that,
    /// nothing can be written.
    pub fn stacked(lowers: &[&Path], above: Option<&Above>, path: &Path, room: &Room) -> Result<Self> {
        if lowers.len() > MAX_LOWER {
            bail!("at most {MAX_LOWER} folders can be stacked, and these are {}", lowers.len());
        }
        if let (Some(above), [top, ..]) = (above, lowers) {
            make_alike(&above.upper, top)?;
        }
        // The kernel takes no single folder that cannot be written to.
        if let ([only], None) = (lowers, above) {
            return Ok(Self { path: (*only).to_owned(), mounted: false });
        }
        mount_overlay(lowers, above, path, room).with_context(|| {
            format!(
                "the kernel refuses an overlay at `{}`: where the cache lies on one already, as in a container, \
                 or on a network, set XDG_CACHE_HOME to a folder of another file system",
                path.display()
            )
        })?;
        Ok(Self { path: path.to_owned(), mounted: true })
    }

    /// A folder in memory at `path`, an empty folder, of at most `size` bytes if that is said. Everybody can write to it.
    pub fn in_memory(path: &Path, size: Option<u64>) -> Result<Self> {
        let size = size.map_or(String::new(), |size| format!(",size={size}"));
        let options = CString::new(format!("mode=1777{size}")).context("a number has no zero byte")?;
        mount("tmpfs", path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options.as_c_str()))
            .with_context(|| format!("cannot mount a folder in memory at `{}`", path.display()))?;
        Ok(Self { path: path.to_owned(), mounted: true })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.mounted {
            // At the latest it goes with this process, whose mounts are its own.
            let _ = unmount(&self.path, UnmountFlags::DETACH);
        }
    }
}

/// So many folders can be stacked: the kernel takes a page of options, in which each is a short path.
pub const MAX_LOWER: usize = 200;

/// Where what is written to a stack of folders goes. Both are on one file system.
#[derive(Debug)]
pub struct Above {
    /// The folder that has it in the end: as it is, or as the kernel's overlay says that something is gone.
    pub upper: PathBuf,
    /// A folder of the kernel's.
    pub work: PathBuf,
}

/// Gives a folder the owner and the permissions of another, on which it is to lie.
pub fn make_alike(dir: &Path, lower: &Path) -> Result<()> {
    let facts = fs::metadata(lower).with_context(|| format!("cannot read `{}`", lower.display()))?;
    let mode = fs::Permissions::from_mode(facts.mode() & 0o7777);
    chown(dir, Some(facts.uid()), Some(facts.gid()))
        .and_then(|()| fs::set_permissions(dir, mode))
        .with_context(|| format!("cannot change the owner of `{}`", dir.display()))
}

fn mount_overlay(lowers: &[&Path], above: Option<&Above>, at: &Path, room: &Room) -> io::Result<()> {
    // Open folders have short paths without characters that mean something in options.
    let mut opened = Vec::new();
    let mut short = |path: &Path| -> io::Result<String> {
        let dir = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
        opened.push(dir);
        Ok(path)
    };
    let lowers: Vec<String> = lowers.iter().map(|lower| short(lower)).collect::<io::Result<_>>()?;
    let mut options = vec![format!("lowerdir={}", lowers.join(":"))];
    if let Some(Above { upper, work }) = above {
        options.extend([format!("upperdir={}", short(upper)?), format!("workdir={}", short(work)?)]);
    }
    // What is above says all by itself: nothing there is meant to be looked up below under another name.
    let further = match room.ids {
        Ids::All => "redirect_dir=off,metacopy=off,index=off",
        Ids::Several | Ids::One => "userxattr",
    };
    options.push(further.to_owned());
    let options = CString::new(options.join(","))?;
    Ok(mount("overlay", at, "overlay", MountFlags::empty(), Some(options.as_c_str()))?)
}

/// By which attribute of a folder the overlays of such a room note that it hides what is below it.
pub fn opaque_attribute(ids: Ids) -> &'static str {
    match ids {
        Ids::All => "trusted.overlay.opaque",
        Ids::Several | Ids::One => "user.overlay.opaque",
    }
}

/// What lies in an image at a path there, opened to be looked at, or with `flags`. No link leads out of `root`.
fn open(root: &Path, path: &str, flags: OFlags) -> io::Result<fs::File> {
    let dir = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = Some(path.trim_start_matches('/')).filter(|path| !path.is_empty()).unwrap_or(".");
    Ok(openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?.into())
}

/// Where something of an image is, by its path there; links are followed. No link leads out of `root`.
pub fn find(root: &Path, path: &str) -> io::Result<PathBuf> {
    let file = open(root, path, OFlags::PATH)?;
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Whether an image has a file at a path.
pub fn is_file(root: &Path, path: &str) -> io::Result<bool> {
    match open(root, path, OFlags::PATH).and_then(|file| file.metadata()) {
        Err(error) if is_missing(&error) => Ok(false),
        facts => facts.map(|facts| facts.is_file()),
    }
}

/// The names in a folder of an image, sorted, at most `limit` of them; none if there is no such folder.
pub fn list(root: &Path, path: &str, limit: usize) -> io::Result<Vec<String>> {
    let dir = match open(root, path, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(dir) => dir,
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." && names.len() < limit {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A file of an image by its path there, to be read; none if there is none. No link leads out of `root`.
pub fn file(root: &Path, path: &str) -> io::Result<Option<fs::File>> {
    // To open a device may do something.
    if !is_file(root, path)? {
        return Ok(None);
    }
    open(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).map(Some)
}

/// A text file of an image by its path there; none if there is none, or if it is longer than `limit`. No link leads out of `root`.
pub fn read(root: &Path, path: &str, limit: u64) -> io::Result<Option<String>> {
    let Some(file) = file(root, path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(if bytes.len() as u64 > limit { None } else { String::from_utf8(bytes).ok() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        fs::write(root.join("etc/passwd"), "root").unwrap();
        symlink("/etc/passwd", root.join("absolute")).unwrap();
        symlink("../../secret", root.join("out")).unwrap();
        symlink(dir.path(), root.join("host")).unwrap();
        for (path, want) in [
            ("/etc/passwd", Some("root")),
            ("absolute", Some("root")),
            ("out", None),
            ("host/secret", None),
            ("etc", None),
            ("none", None),
        ] {
            assert_eq!(read(&root, path, 10).unwrap().as_deref(), want, "{path}");
        }
        assert_eq!(read(&root, "etc/passwd", 3).unwrap(), None);
        assert_eq!(list(&root, "/etc", 10).unwrap(), ["passwd"]);
        assert!(list(&root, "none", 10).unwrap().is_empty());
        assert!(list(&root, "host", 10).is_err() || list(&root, "host", 10).unwrap().is_empty());
        let passwd = fs::canonicalize(root.join("etc/passwd")).unwrap();
        assert_eq!(find(&root, "absolute").unwrap(), passwd);
        assert!(find(&root, "out").is_err() && find(&root, "host/secret").is_err());
        for (path, want) in [("/absolute", true), ("etc", false), ("out", false), ("none/x", false)] {
            assert_eq!(is_file(&root, path).unwrap(), want, "{path}");
        }
    }
}
