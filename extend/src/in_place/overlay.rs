//! File systems that lie in layers one over the other: what was written to one by the kernel's overlay, as a layer of an image, and a
//! folder below that for the mounts of a program.
//!
//! What the kernel notes there: <https://docs.kernel.org/filesystems/overlayfs.html>. Overlays must be mounted without `redirect_dir` and
//! `metacopy`: then all that is of a file lies in the folder where it was written.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use drydock_tar::{Device, Found, NO_XATTRS, Owner, Walk, split_leaf};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, Stat, fgetxattr, openat};
use rustix::io::Errno;

use super::scope::{Scope, names, push};
use super::snapshot::{Change, look};
use super::target::{Facts, Target, shown};
use super::{Layer, Layers, make_layer};

/// What was written to `upper`, which lay on what is now at `before`, as a layer; none if that is nothing. Nothing is mounted on `upper`
/// any more. Folders with the attribute `opaque` hide what is below: which one it is depends on how the overlay was mounted, and
/// programs may have set the other one.
pub fn layer_of_upper(
    upper: &Path,
    opaque: &str,
    before: &Path,
    layers: &Layers<'_>,
    text: &str,
) -> Result<Option<Layer>> {
    let changes = changes(upper, opaque, before)
        .with_context(|| format!("cannot look at what was written to `{}`", upper.display()))?;
    make_layer(upper, &changes, layers, text)
}

fn changes(upper: &Path, opaque: &str, before: &Path) -> Result<Vec<Change>> {
    let mut before = Scope::open(before)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut walk = Walk::new(upper, openat(CWD, upper, flags, Mode::empty())?)?;
    let mut changes = Vec::new();
    while let Some(Found { dir, path, leaf, file_type }) = walk.find_next()? {
        let mut below = path.to_vec();
        push(&mut below, leaf);
        let look = look(dir, leaf, None).with_context(|| shown(&below))?;
        let mut gone = |path: Vec<u8>| -> Result<()> {
            if find(&mut before, &path)?.is_some() {
                changes.push(Change::Gone(path));
            }
            Ok(())
        };
        match file_type {
            // When nobody listens any more, it means nothing: no layer has it, nor what was in its place.
            FileType::Socket => gone(below)?,
            FileType::CharacterDevice if look.device == (Device { major: 0, minor: 0 }) => gone(below)?,
            _ => {
                let hides = file_type == FileType::Directory && is_opaque(dir, opaque)?;
                changes.push(Change::There(below.clone(), look));
                if hides && is_full(&mut before, &below)? {
                    changes.push(Change::Emptied(below));
                }
            }
        }
    }
    Change::sort(&mut changes);
    Ok(changes)
}

/// The kernel notes it of new folders, too, where there is nothing to hide.
fn is_opaque(dir: BorrowedFd<'_>, attribute: &str) -> Result<bool> {
    let mut value = [0; 1];
    match fgetxattr(dir, attribute, &mut value) {
        // Longer values are something else.
        Ok(length) => Ok(length == 1 && value == *b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error).context("read an extended attribute"),
    }
}

/// Whether something is in a folder, which need not be there.
fn is_full(scope: &mut Scope, path: &[u8]) -> Result<bool> {
    let dir = match scope.list(path) {
        Err(error) if error.downcast_ref().is_some_and(is_missing) => return Ok(false),
        dir => dir?,
    };
    for entry in Dir::new(dir)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is at a path; no link on the way is followed.
fn find(scope: &mut Scope, path: &[u8]) -> Result<Option<Stat>> {
    match scope.stat(path) {
        Err(error) if error.downcast_ref().is_some_and(is_missing) => Ok(None),
        found => found,
    }
}

/// Whether there is no such folder: nothing, or something else.
fn is_missing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

/// Where something is mounted for a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountPoint<'a> {
    /// A folder, by its path in the image.
    Dir(&'a str),
    /// A file.
    File(&'a str),
}

/// Makes in `points`, an empty folder, what of these is missing in the file system at `before`. With `points` between that and what takes
/// what is written, no runtime makes it in the latter, and folders on the way look as they did.
pub fn add_mount_points(before: &Path, points: &Path, wanted: &[MountPoint<'_>]) -> Result<()> {
    let failed = || format!("cannot make mount points in `{}`", points.display());
    let mut before = Scope::open(before).with_context(failed)?;
    let mut made = Scope::open(points).with_context(failed)?;
    let mut target = Target::new(&mut made, None, None);
    for point in wanted {
        let (MountPoint::Dir(path) | MountPoint::File(path)) = point;
        let failed = || format!("cannot make the mount point `{path}` in `{}`", points.display());
        add_mount_point(&mut before, &mut target, point, &failed)?;
    }
    target.finish().with_context(failed)
}

/// `failed` is what is said where the system refuses something.
fn add_mount_point(
    before: &mut Scope,
    target: &mut Target<'_>,
    point: &MountPoint<'_>,
    failed: &dyn Fn() -> String,
) -> Result<()> {
    let (MountPoint::Dir(path) | MountPoint::File(path)) = point;
    let resolved = before.resolve(path.as_bytes(), true).with_context(failed)?;
    if let Some(stat) = find(before, &resolved).with_context(failed)? {
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        ensure!(
            is_dir == matches!(point, MountPoint::Dir(_)),
            "`{path}` cannot be mounted: one is a folder, and the other is none"
        );
        return Ok(());
    }
    let (parent, _) = split_leaf(&resolved);
    let mut on_way = Vec::new();
    for name in names(parent) {
        push(&mut on_way, name);
        if let Some(stat) = find(before, &on_way).with_context(failed)? {
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            ensure!(is_dir, "`{path}` cannot be mounted: `{}` is no folder", shown(&on_way));
            target.dir(&on_way, &Facts::of(&stat)).with_context(failed)?;
        }
    }
    match point {
        MountPoint::Dir(_) => {
            target.make_dirs(&resolved).with_context(failed)?;
        }
        MountPoint::File(_) => {
            let facts = Facts { mode: 0o644, owner: Owner::ROOT, modified: None, xattrs: NO_XATTRS };
            target.file(&resolved, &mut io::empty(), &facts).with_context(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use rustix::fs::{XattrFlags, mknodat, setxattr};

    use super::*;

    const OPAQUE: &str = "user.overlay.opaque";

    fn told(changes: &[Change]) -> Vec<String> {
        let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let tell = |change: &Change| match change {
            Change::There(path, _) => text(path),
            Change::Gone(path) => format!("- {}", text(path)),
            Change::Emptied(path) => format!("= {}", text(path)),
        };
        changes.iter().map(tell).collect()
    }

    #[test]
    fn what_the_kernel_notes_is_what_a_layer_says() {
        let temp = tempfile::tempdir().unwrap();
        let (upper, before) = (temp.path().join("upper"), temp.path().join("before"));
        for dir in ["full", "empty", "kept/inner"] {
            fs::create_dir_all(before.join(dir)).unwrap();
        }
        for file in ["full/old", "kept/file", "kept/gone", "was-file"] {
            fs::write(before.join(file), "").unwrap();
        }
        for dir in ["full", "empty", "kept", "new/inner", "was-file"] {
            fs::create_dir_all(upper.join(dir)).unwrap();
        }
        for name in ["kept/socket", "kept/new-socket"] {
            let _ = std::os::unix::net::UnixListener::bind(upper.join(name)).unwrap();
        }
        fs::write(before.join("kept/socket"), "").unwrap();
        for dir in ["full", "empty", "new", "new/inner", "was-file"] {
            setxattr(upper.join(dir), OPAQUE, b"y", XattrFlags::empty()).unwrap();
        }
        fs::write(upper.join("full/new"), "").unwrap();
        for whiteout in ["kept/gone", "kept/never"] {
            mknodat(CWD, upper.join(whiteout), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        }
        let found = told(&changes(&upper, OPAQUE, &before).unwrap());
        let want = [
            "empty",
            "full",
            "= full",
            "full/new",
            "kept",
            "- kept/gone",
            "- kept/socket",
            "new",
            "new/inner",
            "was-file",
        ];
        assert_eq!(found, want);
        // What this mount does not use, a program has set.
        let found = told(&changes(&upper, "trusted.overlay.opaque", &before).unwrap());
        assert!(!found.contains(&"= full".to_owned()), "{found:?}");
    }

    #[test]
    fn mount_points_look_like_what_is_there() {
        let temp = tempfile::tempdir().unwrap();
        let (points, before) = (temp.path().join("points"), temp.path().join("before"));
        fs::create_dir(&points).unwrap();
        fs::create_dir_all(before.join("etc")).unwrap();
        fs::create_dir_all(before.join("run/deep")).unwrap();
        fs::set_permissions(before.join("run"), fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("run", before.join("link")).unwrap();
        fs::write(before.join("etc/hosts"), "x").unwrap();
        fs::write(before.join("file"), "x").unwrap();
        let (dir, file) = (MountPoint::Dir, MountPoint::File);
        add_mount_points(
            &before,
            &points,
            &[dir("/etc"), file("/etc/hosts"), file("/link/secrets/a"), dir("/run/deep"), dir("/proc")],
        )
        .unwrap();
        let mut found: Vec<String> = fs::read_dir(&points)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, ["proc", "run"]);
        let facts = |path: std::path::PathBuf| {
            let facts = fs::metadata(path).unwrap();
            (facts.mode(), facts.mtime(), facts.mtime_nsec())
        };
        assert_eq!(facts(points.join("run")), facts(before.join("run")));
        assert!(points.join("run/secrets/a").is_file() && !points.join("run/deep").exists());
        for (point, says) in [
            (dir("/file/x"), "`/file` is no folder"),
            (dir("/file"), "`/file` cannot be mounted"),
            (file("/etc"), "`/etc` cannot be mounted"),
        ] {
            let error = add_mount_points(&before, &points, &[point]).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
