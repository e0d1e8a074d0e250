//! The folders of a layout: made where they are missing, and undone with all that was put into them.
//!
//! Others may be able to exchange them, and what root does must not be done elsewhere then: each is opened from the one above
//! it, and used as it was opened.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use drydock_io::dir::{Dir, Place};
use drydock_io::lock::Lock;
use rustix::fs::FileType;

use super::collect::is;
use super::error::{IoContext as _, LayoutError};
use super::files::Early;

/// What goes if nothing is published.
#[derive(Debug, Default)]
pub(super) struct Undo {
    /// Outermost first.
    dirs: Vec<Place>,
    files: Mutex<Vec<Place>>,
    /// The path of `index.json` and its text before, if it was there.
    index: Option<(PathBuf, Option<Vec<u8>>)>,
}

impl Undo {
    /// A file is about to be put here: if nothing has this name, the file goes in case of failure. What cannot be
    /// looked at is not this transaction's.
    pub(super) fn will_place(&self, place: &Place) {
        if matches!(place.look(), Ok(None)) {
            self.files.lock().unwrap_or_else(PoisonError::into_inner).push(place.clone());
        }
    }

    /// Only as long as this is the text of `index.json`, blobs are undone: another one may lead to them.
    pub(super) fn only_beside(&mut self, index: PathBuf, text: Option<Vec<u8>>) {
        self.index = Some((index, text));
    }

    /// The folders that were made.
    pub(super) fn made(&self) -> &[Place] {
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
            && Early::default().read(path).ok() != *before
        {
            return;
        }
        // What cannot be removed now is removed by a later export: a failure here changes nothing for anybody.
        for file in self.files.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let _ = file.remove();
        }
        for dir in self.dirs.iter().rev() {
            let _ = dir.remove_dir();
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
    // One fails nine times in ten beside somebody who does nothing else.
    const TRIES: usize = 1000;
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
pub(super) fn make_layout_dir(root: &Path, path: &Path, undo: &mut Undo) -> Result<Dir, LayoutError> {
    check_apart(path)?;
    check_blobs(path)?;
    let by_path = |place: &Place| Dir::open(place.path()).map(Ok);
    for dir in root.ancestors().collect::<Vec<_>>().into_iter().rev() {
        if let (false, Some(parent), Some(name)) = (dir.is_dir(), dir.parent(), dir.file_name()) {
            make_dir(&Dir::open(parent).at("open", parent)?, name, &by_path, undo)?;
        }
    }
    let root = Dir::open(root).at("open", root)?;
    below(&root, path).try_fold(root.clone(), |dir, name| {
        let within = |place: &Place| {
            let entered = dir.enter_within(name, &root)?;
            Ok(entered.ok_or_else(|| leads_out(place, &root)))
        };
        let made = make_dir(&dir, name, &within, undo)?;
        if is_link(&dir.place(name)) {
            check_apart(&fs::canonicalize(made.path()).at("resolve", made.path())?)?;
        }
        Ok(made)
    })
}

/// The folders from the layout directory down to the layout, which must be there.
pub(super) fn open_layout_dir(root: &Path, path: &Path) -> Result<Vec<Dir>, LayoutError> {
    let root = Dir::open(root).at("open", root)?;
    let mut dirs = vec![root.clone()];
    for name in below(&root, path) {
        let place = dirs[dirs.len() - 1].place(name);
        let entered = dirs[dirs.len() - 1].enter_within(name, &root).at("open", place.path())?;
        dirs.push(entered.ok_or_else(|| leads_out(&place, &root))?);
    }
    Ok(dirs)
}

fn below<'a>(root: &Dir, path: &'a Path) -> impl Iterator<Item = &'a OsStr> {
    path.strip_prefix(root.path()).expect("a LayoutPath lies under its LayoutDir").iter()
}

fn leads_out(place: &Place, root: &Dir) -> LayoutError {
    let reason = format!("it is a symbolic link that leads out of `{}`", root.path().display());
    LayoutError::Malformed { path: place.path().to_owned(), reason }
}

/// Makes the folders of blobs. They are the layout's own: blobs behind a link are also somebody else's.
pub(super) fn make_blobs_dir(layout: &Dir, undo: &mut Undo) -> Result<Dir, LayoutError> {
    ["blobs", "sha256"].into_iter().try_fold(layout.clone(), |dir, name| {
        let own = |_: &Place| dir.enter(name).map(Ok);
        make_dir(&dir, OsStr::new(name), &own, undo).map_err(|error| {
            let place = dir.place(name);
            if !is_link(&place) {
                return error;
            }
            let reason =
                "it is a symbolic link, and a layout that is written to has a folder of its own there: \
                          put a copy of the folder in place of the link"
                    .to_owned();
            LayoutError::Malformed { path: place.path().to_owned(), reason }
        })
    })
}

fn is_link(place: &Place) -> bool {
    place.look().is_ok_and(|found| found.is_some_and(|found| is(FileType::Symlink, &found)))
}

/// Makes a folder of mode 0755 whatever the umask; one that is there already will do, if it can be entered: the inner
/// error of `enter` says why it will not.
fn make_dir(
    parent: &Dir,
    name: &OsStr,
    enter: &dyn Fn(&Place) -> io::Result<Result<Dir, LayoutError>>,
    undo: &mut Undo,
) -> Result<Dir, LayoutError> {
    let place = parent.place(name);
    let path = place.path();
    let source = match parent.make(name) {
        Ok(()) => {
            undo.dirs.push(place.clone());
            let made = parent.enter(name).at("open", path)?;
            made.set_mode(0o755).at("set the mode of", path)?;
            return Ok(made);
        }
        Err(source) => source,
    };
    let source = match enter(&place) {
        Ok(entered) => return entered,
        // It was there, and was not for a moment; but a link that leads nowhere stays.
        Err(why) if why.kind() == ErrorKind::NotFound && !is_link(&place) => {
            if source.kind() == ErrorKind::AlreadyExists { why } else { source }
        }
        Err(why) if matches!(why.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => source,
        // It may well be a folder.
        Err(why) if source.kind() == ErrorKind::AlreadyExists => return Err(why).at("look at", path),
        Err(_) => source,
    };
    Err(LayoutError::Io { action: "make folder", path: path.to_owned(), source })
}
