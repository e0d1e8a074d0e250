//! The folders of a layout: made where they are missing, and undone with all that was put into them.

use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::mem;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use drydock_io::lock::Lock;
use drydock_io::read::{look, look_at_link};

use super::blobs_dir;
use super::error::{IoContext as _, LayoutError};

/// What goes if nothing is published.
#[derive(Debug, Default)]
pub(super) struct Undo {
    /// Outermost first.
    dirs: Vec<PathBuf>,
    files: Mutex<Vec<PathBuf>>,
    /// The path of `index.json` and its text before, if it was there.
    index: Option<(PathBuf, Option<Vec<u8>>)>,
}

impl Undo {
    /// A file is about to be put here: if nothing has this name, the file goes in case of failure. What cannot be
    /// looked at is not this transaction's.
    pub(super) fn will_place(&self, path: &Path) {
        if fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            self.files.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
        }
    }

    /// Only as long as this is the text of `index.json`, blobs are undone: another one may lead to them.
    pub(super) fn only_beside(&mut self, index: PathBuf, text: Option<Vec<u8>>) {
        self.index = Some((index, text));
    }

    /// The folders that were made.
    pub(super) fn made(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Everything stays.
    pub(super) fn forget(&mut self) {
        self.dirs.clear();
        self.forget_files();
    }

    /// Files stay, and folders with something in them.
    pub(super) fn forget_files(&mut self) {
        self.files.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some((path, before)) = &self.index
            && fs::read(path).ok() != *before
        {
            return;
        }
        // What cannot be removed now is removed by a later export: a failure here changes nothing for anybody.
        for file in self.files.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let _ = fs::remove_file(file);
        }
        for dir in self.dirs.iter().rev() {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// The same before there is a lock: folders stay if somebody else has it, who is about to put something there.
#[derive(Debug)]
pub(super) struct Unlocked {
    layout: PathBuf,
    pub(super) undo: Undo,
}

impl Unlocked {
    /// For the layout in this folder.
    pub(super) fn new(layout: &Path) -> Self {
        Self { layout: layout.to_owned(), undo: Undo::default() }
    }

    /// For whoever has the lock.
    pub(super) fn locked(mut self) -> Undo {
        mem::take(&mut self.undo)
    }
}

impl Drop for Unlocked {
    fn drop(&mut self) {
        if self.undo.made().is_empty() {
            return;
        }
        let lock = Lock::try_acquire(&self.layout);
        if matches!(lock, Ok(None)) {
            self.undo.forget();
        }
        // While the lock is held.
        drop(mem::take(&mut self.undo));
    }
}

/// Does it again as long as folders go meanwhile: others remove those above theirs that have become empty.
pub(super) fn while_folders_go<T>(
    mut make: impl FnMut() -> Result<T, LayoutError>,
) -> Result<T, LayoutError> {
    const TRIES: usize = 100;
    for _ in 1..TRIES {
        match make() {
            Err(LayoutError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            result => return result,
        }
    }
    make()
}

/// Fails if a layout in this folder would be among the blobs of another one.
pub fn check_apart(path: &Path) -> Result<(), LayoutError> {
    let is_inside = |dir: &&Path| dir.ends_with("blobs") && dir.parent().is_some_and(is_layout);
    match path.ancestors().find(is_inside).and_then(Path::parent) {
        Some(layout) => Err(LayoutError::Inside { path: path.to_owned(), layout: layout.to_owned() }),
        None => Ok(()),
    }
}

fn is_layout(dir: &Path) -> bool {
    ["index.json", "oci-layout"].iter().any(|file| dir.join(file).is_file())
}

/// Fails if another layout is where the blobs of one in this folder would be.
fn check_blobs(layout: &Path) -> Result<(), LayoutError> {
    let blobs = layout.join("blobs");
    let below = fs::read_dir(&blobs).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    match below.chain([blobs.clone()]).find(|dir| is_layout(dir)) {
        Some(path) if !is_layout(layout) => Err(LayoutError::Inside { path, layout: layout.to_owned() }),
        _ => Ok(()),
    }
}

/// Makes the folders from the layout directory down to the layout; no symlink may lead out of the former,
/// or into another layout.
pub(super) fn make_layout_dir(root: &Path, path: &Path, undo: &mut Undo) -> Result<(), LayoutError> {
    check_apart(path)?;
    check_blobs(path)?;
    for dir in root.ancestors().collect::<Vec<_>>().into_iter().rev() {
        if !dir.is_dir() {
            make_dir(dir, undo)?;
        }
    }
    let real_root = fs::canonicalize(root).at("resolve", root)?;
    let below = path.strip_prefix(root).expect("a LayoutPath lies under its LayoutDir");
    let mut dir = root.to_owned();
    for part in below {
        dir.push(part);
        make_dir(&dir, undo)?;
        let real = fs::canonicalize(&dir).at("resolve", &dir)?;
        check_apart(&real)?;
        if !real.starts_with(&real_root) {
            let reason = format!("it is a symbolic link that leads out of `{}`", root.display());
            return Err(LayoutError::Malformed { path: dir, reason });
        }
    }
    Ok(())
}

/// Makes the folders of blobs. They are the layout's own: blobs behind a link are also somebody else's.
pub(super) fn make_blobs_dir(layout: &Path, undo: &mut Undo) -> Result<(), LayoutError> {
    for dir in [layout.join("blobs"), blobs_dir(layout)] {
        make_dir(&dir, undo)?;
        if fs::symlink_metadata(&dir).at("look at", &dir)?.is_symlink() {
            let reason =
                "it is a symbolic link, and a layout that is written to has a folder of its own there: \
                          put a copy of the folder in place of the link"
                    .to_owned();
            return Err(LayoutError::Malformed { path: dir, reason });
        }
    }
    Ok(())
}

/// Makes a folder of mode 0755 whatever the umask; one that is there already will do.
fn make_dir(path: &Path, undo: &mut Undo) -> Result<(), LayoutError> {
    let source = match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => {
            undo.dirs.push(path.to_owned());
            return fs::set_permissions(path, Permissions::from_mode(0o755)).at("set the mode of", path);
        }
        Err(source) => match look(path) {
            Ok(Some(found)) if found.is_dir() => return Ok(()),
            // It was there, and is not any more.
            Ok(None)
                if source.kind() == ErrorKind::AlreadyExists && matches!(look_at_link(path), Ok(None)) =>
            {
                ErrorKind::NotFound.into()
            }
            // It may well be a folder.
            Err(why) if source.kind() == ErrorKind::AlreadyExists => return Err(why).at("look at", path),
            _ => source,
        },
    };
    Err(LayoutError::Io { action: "make folder", path: path.to_owned(), source })
}
