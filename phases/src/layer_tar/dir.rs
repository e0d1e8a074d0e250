//! The layer of a directory with all that is in it.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use drydock_io::sink::Sink;
use drydock_tar::{Found, Origin, Owner, TarError, Walk};

use super::files::Files;
use super::look::look_at;
use super::root::LayerRoot;
use super::{LayerSource, LeftOut, Outline};

/// A directory and everything in it, under its own absolute path.
///
/// First come the directories above it (but `/`) with mode and owner as they are on disk, then the directory and its
/// tree, each directory's entries in the order of their names' bytes. Files keep their modes, with setuid, setgid and
/// sticky bits, and all get one owner. Symlinks are archived as they are, hard links as files of their own, FIFOs and
/// devices as such; sockets are left out, and so are extended attributes.
#[derive(Debug, Clone)]
pub struct DirLayer {
    dir: PathBuf,
    owner: Owner,
    left_out: LeftOut,
}

impl DirLayer {
    /// Of the directory `dir`; a relative path begins at the working directory.
    pub fn new(dir: &Path, owner: Owner) -> Self {
        Self { dir: dir.to_owned(), owner, left_out: LeftOut::default() }
    }
}

impl DirLayer {
    fn root(&self) -> Result<LayerRoot, TarError> {
        Ok(LayerRoot { left_out: self.left_out.clone(), ..LayerRoot::on_disk(&self.dir)? })
    }
}

impl LayerSource for DirLayer {
    fn write(&self, out: &mut dyn Sink) -> Result<Option<Outline>, TarError> {
        go_through(&self.root()?, self.owner, Some(out)).map(Some)
    }

    fn look(&self) -> Result<Option<Outline>, TarError> {
        look_at(&self.root()?, self.owner).map(Some)
    }

    fn left_out(&self) -> BTreeSet<PathBuf> {
        self.left_out.all()
    }
}

/// Writes the tar of everything at `root`, or only looks at it.
pub(super) fn go_through(
    root: &LayerRoot,
    owner: Owner,
    out: Option<&mut dyn Sink>,
) -> Result<Outline, TarError> {
    let handle = root.open()?;
    let mut files = Files::begin(root, handle.as_ref().map(|handle| handle.as_fd()), owner, out)?;
    if let Some(handle) = handle {
        files.add_open_root(handle.as_fd(), false)?;
        go_below(files, root, handle)
    } else {
        files.add_root()?;
        files.end()
    }
}

/// Goes on with what is in the directory at `root`, which is open as `handle`.
pub(super) fn go_below(
    mut files: Files<'_, '_>,
    root: &LayerRoot,
    handle: OwnedFd,
) -> Result<Outline, TarError> {
    let mut walk = Walk::new(&root.dir, handle)?;
    while let Some(Found { dir, path, leaf, file_type }) = walk.find_next()? {
        if file_type == FileType::Directory {
            files.enter(dir, path)?;
        } else if files.add(dir, path, leaf, file_type)? == Origin::Disk {
            walk.ask_ahead();
        }
    }
    files.end()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;
    use crate::layer_tar::testing::{Make, USER, diff_id, make, root_as, written};
    use drydock_model::digest::DiffId;

    /// The diff ID is that of the layer that the Go lifecycle made of the same tree.
    #[test]
    fn tar_is_that_of_the_go_lifecycle() {
        let dir = tempfile::tempdir().unwrap();
        let big: Vec<u8> = b"0123456789abcdef".iter().copied().cycle().take(300_001).collect();
        let (d, e, f, n) = ("d".repeat(60), "e".repeat(60), "f".repeat(60), "n".repeat(180));
        make(
            dir.path(),
            &[
                ("big", Make::File(0o644, &big)),
                ("dangling", Make::Symlink("/nowhere/at/all")),
                (&format!("{d}/{e}/{f}/long.txt"), Make::File(0o644, b"ustar prefix\n")),
                ("empty", Make::Dir(0o755)),
                ("file", Make::File(0o644, b"content\n")),
                ("link", Make::Symlink("file")),
                ("naïve/日本語.txt", Make::File(0o644, b"unicode\n")),
                (&n, Make::File(0o644, b"long name\n")),
                ("private", Make::File(0o600, b"p")),
                ("sp ace/back\\slash", Make::File(0o644, b"odd\n")),
                ("sticky", Make::Dir(0o1777)),
                ("sticky/f", Make::File(0o644, b"")),
                ("suid", Make::File(0o755, b"s")),
            ],
        );
        fs::hard_link(dir.path().join("file"), dir.path().join("hard")).unwrap();
        mkfifoat(CWD, dir.path().join("pipe"), Mode::from_raw_mode(0o644)).unwrap();
        rustix::fs::chmod(dir.path().join("pipe"), Mode::from_raw_mode(0o644)).unwrap();
        let _socket = UnixListener::bind(dir.path().join("socket")).unwrap();

        let root = root_as(dir.path(), "/layers/acme_a/l1");
        let tar = written(|out| go_through(&root, USER, Some(out)));
        let expected = "sha256:d813bf409a2dcbce6a76d1f21ddd367bb854e9747ae7b1029d31f64c437f402d";
        assert_eq!(DiffId::of(&tar).to_string(), expected);
    }

    #[test]
    fn writes_the_same_again() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), &[("a/b", Make::File(0o4755, b"x")), ("a-b", Make::Dir(0o2755))]);
        let layer = DirLayer::new(dir.path(), USER);
        assert_eq!(diff_id(&layer), diff_id(&layer));
    }

    /// Where the file system lets go of what is in memory. Elsewhere, this is one more tree.
    #[test]
    fn files_that_are_not_in_memory_are_archived_alike() {
        let dir = tempfile::tempdir().unwrap();
        let contents = vec![7; 20_000];
        let paths: Vec<_> = (0..200).map(|n| format!("{}/{n}", n % 3)).collect();
        let files: Vec<_> = paths
            .iter()
            .enumerate()
            .map(|(n, path)| (&path[..], Make::File(0o644, &contents[..n * 99])))
            .collect();
        make(dir.path(), &files);
        let layer = DirLayer::new(dir.path(), USER);
        let expected = diff_id(&layer);
        for path in &paths {
            let file = fs::File::open(dir.path().join(path)).unwrap();
            file.sync_all().unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
        assert_eq!(diff_id(&layer), expected);
    }

    #[test]
    fn a_symlink_in_place_of_the_directory_is_archived_as_one() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), &[("layer", Make::Symlink("elsewhere"))]);
        let tar = written(|out| DirLayer::new(&dir.path().join("layer"), USER).write(out));
        let mut archive = tar::Archive::new(&tar[..]);
        let entry = archive.entries().unwrap().last().unwrap().unwrap();
        assert_eq!(entry.link_name().unwrap().unwrap(), Path::new("elsewhere"));
        assert_eq!(entry.path().unwrap(), dir.path().join("layer"));
    }

    #[test]
    fn goes_as_deep_as_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let mut current = rustix::fs::open(dir.path(), rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
        let name = "d".repeat(200);
        for _ in 0..300 {
            rustix::fs::mkdirat(&current, name.as_str(), Mode::RWXU).unwrap();
            let flags = rustix::fs::OFlags::DIRECTORY;
            current = rustix::fs::openat(&current, name.as_str(), flags, Mode::empty()).unwrap();
        }
        let tar = written(|out| go_through(&root_as(dir.path(), "/d"), USER, Some(out)));
        let mut archive = tar::Archive::new(&tar[..]);
        let last = archive.entries().unwrap().last().unwrap().unwrap();
        assert_eq!(last.path_bytes().len(), "/d".len() + 300 * 201);
    }

    #[test]
    fn errors_name_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let error =
            DirLayer::new(&missing, USER).write(&mut drydock_io::sink::MemorySink::default()).unwrap_err();
        assert!(matches!(&error, TarError::Read { action: "open", path, .. } if *path == missing), "{error}");
    }
}
