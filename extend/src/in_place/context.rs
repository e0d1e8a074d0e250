//! A context: a folder that `COPY` and `ADD` bring files from, and nothing outside of it.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use drydock_io::lock::Identity;
use drydock_tar::{Found, Walk, open_file, split_leaf};
use rustix::fs::{AtFlags, FileType, RawDir, Stat, fstat, statat};

use super::Contexts;
use super::scope::{Scope, join, push};
use crate::language::{IgnoreRules, Pattern};
use crate::plan::From;

/// What is asked again and again while files are read: its error ends that, and is the result.
pub type Going = Rc<dyn Fn() -> io::Result<()>>;

/// The folder, and what of it is left out.
pub struct Context {
    path: PathBuf,
    scope: Scope,
    ignore: IgnoreRules,
    /// Folders that are left out by whatever name they come.
    without: Vec<Identity>,
    keeps_owners: bool,
    going: Going,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("path", &self.path)
            .field("ignore", &self.ignore)
            .finish_non_exhaustive()
    }
}

/// Where there is nothing but the context of the build.
impl Contexts for Context {
    fn open(&mut self, from: &From) -> Result<&mut Context> {
        ensure!(*from == From::Context, "there is no context but that of the build");
        Ok(self)
    }

    fn download(&mut self, url: &str) -> Result<File> {
        bail!("`{url}` cannot be downloaded here; put the file into the context")
    }
}

/// A file or a folder of the context.
pub(super) struct Source {
    /// As it was named, cleaned.
    pub(super) path: Vec<u8>,
    /// Where that leads.
    resolved: Vec<u8>,
    pub(super) stat: Stat,
}

/// Something that is brought: the file of a source, or something in its folder.
pub(super) struct Item<'a> {
    /// Its path in the source, which is empty if it is the source.
    pub(super) below: &'a [u8],
    /// The folder that it is in, or itself if it is a folder.
    pub(super) dir: BorrowedFd<'a>,
    /// Its name there.
    pub(super) leaf: &'a [u8],
    pub(super) stat: &'a Stat,
}

impl Context {
    /// The folder at `path`. What comes from there is root's.
    pub fn open(path: &Path, ignore: IgnoreRules) -> Result<Self> {
        Ok(Self::of(path, Scope::of_folder(path)?, ignore))
    }

    fn of(path: &Path, scope: Scope, ignore: IgnoreRules) -> Self {
        let (path, going) = (path.to_owned(), Rc::new(|| Ok(())));
        Self { path, scope, ignore, without: Vec::new(), keeps_owners: false, going }
    }

    /// Without these folders, whatever names they have.
    #[must_use]
    pub fn without(self, without: Vec<Identity>) -> Self {
        Self { without, ..self }
    }

    /// Read only as long as this says so.
    #[must_use]
    pub fn while_going(self, going: Going) -> Self {
        Self { going, ..self }
    }

    pub(super) fn going(&self) -> Going {
        Rc::clone(&self.going)
    }

    /// The root of an image or of a stage. What comes from there keeps owners and attributes.
    pub fn of_root(path: &Path) -> Result<Self> {
        Ok(Self { keeps_owners: true, ..Self::of(path, Scope::open(path)?, IgnoreRules::default()) })
    }

    pub(super) fn keeps_owners(&self) -> bool {
        self.keeps_owners
    }

    /// Shows the file of a source, or all that is in its folder, without what is left out: folders come before what is in them. A
    /// folder that is `being_filled` is not looked into.
    pub(super) fn each(
        &mut self,
        source: &Source,
        exclude: &IgnoreRules,
        being_filled: Option<&Stat>,
        show: &mut dyn FnMut(Item<'_>) -> Result<()>,
    ) -> Result<()> {
        let Self { path: context, scope, ignore, without, going, .. } = self;
        if !is_dir(&source.stat) {
            let (parent, leaf) = split_leaf(&source.resolved);
            let failed = scope.told("cannot look at", &source.resolved);
            let found = scope.dir(parent).and_then(|dir| {
                let stat = statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW)?;
                Ok((dir, stat))
            });
            let (dir, stat) = found.context(failed)?;
            return show(Item { below: b"", dir, leaf, stat: &stat });
        }
        let mut walk = Walk::new(context, scope.list(&source.resolved)?)?;
        loop {
            let any = |leaves_out: fn(&IgnoreRules, &[u8]) -> bool, path: &[u8]| {
                leaves_out(exclude, path)
                    || leaves_out(ignore, &join(&source.path, path))
                    || leaves_out(ignore, &join(&source.resolved, path))
            };
            let mut enters = |dir: BorrowedFd<'_>, path: &[u8], leaf: &[u8]| {
                let stat = statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW);
                // Where nothing of a folder can be wanted, it is not looked into.
                !any(IgnoreRules::leaves_all_out, &join(path, leaf))
                    && !stat.is_ok_and(|stat| {
                        let found = Identity::from(&stat);
                        being_filled.is_some_and(|filled| found == filled.into()) || without.contains(&found)
                    })
            };
            let Some(Found { dir, path, leaf, file_type }) = walk.find_next_where(&mut enters)? else {
                return Ok(());
            };
            going()?;
            let below = join(path, leaf);
            let is_dir = file_type == FileType::Directory;
            if any(IgnoreRules::leaves_out, &below) || is_dir && !leaf.is_empty() {
                continue;
            }
            let stat = if is_dir { fstat(dir)? } else { statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW)? };
            show(Item { below: &below, dir, leaf, stat: &stat })?;
        }
    }

    /// What a path or a pattern names, in byte order.
    pub(super) fn find(&mut self, pattern: &str, exclude: &IgnoreRules) -> Result<Vec<Source>> {
        self.find_names(pattern, exclude, false)
    }

    /// The same where `**` are any folders, or none.
    pub(super) fn find_deep(&mut self, pattern: &str, exclude: &IgnoreRules) -> Result<Vec<Source>> {
        self.find_names(pattern, exclude, true)
    }

    fn find_names(&mut self, pattern: &str, exclude: &IgnoreRules, is_deep: bool) -> Result<Vec<Source>> {
        let names = clean(pattern);
        let is_pattern = names.iter().any(|name| Pattern::is_needed(name));
        let mut paths = vec![Vec::new()];
        for (name, is_last) in names.iter().zip((1..=names.len()).map(|number| number == names.len())) {
            if *name == "**" && is_deep {
                // Behind it is all that is in a folder, which the folder brings by itself.
                if !is_last {
                    paths = self.folders(&paths)?;
                }
            } else if Pattern::is_needed(name) {
                let pattern = Pattern::of_name(name).map_err(anyhow::Error::msg)?;
                paths = self.expand(&paths, &pattern)?;
            } else {
                for path in &mut paths {
                    push(path, name.as_bytes());
                }
            }
        }
        let mut found = Vec::new();
        for path in paths {
            let source = self.look_at(path, pattern, is_pattern)?;
            found
                .extend(source.filter(|source| {
                    is_dir(&source.stat) || !exclude.leaves_out(split_leaf(&source.path).1)
                }));
        }
        Ok(found)
    }

    /// What a path names, in which no character means anything else.
    pub(super) fn find_path(&mut self, path: &str) -> Result<Source> {
        let names = clean(path).into_iter().fold(Vec::new(), |path, name| join(&path, name.as_bytes()));
        let found = self.look_at(names, path, false)?;
        found.with_context(|| format!("`{path}` is not in the context"))
    }

    /// What is at a path, which `written` asks for; none if that is a pattern to which it need not be there.
    fn look_at(&mut self, path: Vec<u8>, written: &str, is_pattern: bool) -> Result<Option<Source>> {
        let resolved = self.scope.resolve(&path, true)?;
        let stat = self.scope.stat(&resolved)?;
        let is_left_out = |path: &[u8]| !path.is_empty() && self.ignore.leaves_out(path);
        if stat.as_ref().is_some_and(|stat| self.without.contains(&stat.into())) {
            ensure!(is_pattern, "`{written}` holds images or a cache, which are no part of the context");
            return Ok(None);
        }
        if is_left_out(&path) || is_left_out(&resolved) {
            // What is in a folder that is left out may be wanted all the same.
            let all = self.ignore.leaves_all_out(&path) || self.ignore.leaves_all_out(&resolved);
            let may_have_more = stat.as_ref().is_some_and(is_dir) && !all;
            match (may_have_more, is_pattern) {
                (true, _) => {}
                (false, true) => return Ok(None),
                (false, false) => bail!(
                    "`{written}` is left out of the context by its .dockerignore; take the rule out, or leave it"
                ),
            }
        }
        match stat {
            Some(stat) => Ok(Some(Source { path, resolved, stat })),
            None if is_pattern => Ok(None),
            None => {
                if self.keeps_owners {
                    return Err(anyhow!("`{written}` is not in the stage or image that it is copied from"));
                }
                let context = self.path.display();
                Err(anyhow!("`{written}` is not in the context `{context}`; put it there"))
            }
        }
    }

    /// The folder at a path, links followed.
    pub(super) fn open_dir(&mut self, path: &[u8]) -> Result<OwnedFd> {
        let resolved = self.scope.resolve(path, true)?;
        self.scope.list(&resolved)
    }

    /// These folders, and all below them.
    fn folders(&mut self, paths: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
        let Self { path: context, scope, ignore, .. } = self;
        let mut found: Vec<Vec<u8>> = paths.to_vec();
        for path in paths {
            let resolved = scope.resolve(path, true)?;
            if !scope.stat(&resolved)?.is_some_and(|stat| is_dir(&stat)) {
                continue;
            }
            let mut walk = Walk::new(context, scope.list(&resolved)?)?;
            let mut enters = |_: BorrowedFd<'_>, below: &[u8], leaf: &[u8]| {
                !ignore.leaves_all_out(&join(path, &join(below, leaf)))
            };
            while let Some(found_next) = walk.find_next_where(&mut enters)? {
                let Found { path: below, leaf, file_type, .. } = found_next;
                if file_type == FileType::Directory && leaf.is_empty() {
                    found.push(join(path, below));
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// All names in these folders that fit.
    fn expand(&mut self, dirs: &[Vec<u8>], pattern: &Pattern) -> Result<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        for dir in dirs {
            let resolved = self.scope.resolve(dir, true)?;
            let is_dir = resolved.is_empty() || self.scope.stat(&resolved)?.is_some_and(|stat| is_dir(&stat));
            if !is_dir {
                continue;
            }
            let listed = self.scope.list(&resolved)?;
            let mut buffer = Vec::with_capacity(32 << 10);
            let mut entries = RawDir::new(listed, buffer.spare_capacity_mut());
            while let Some(entry) = entries.next() {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                let path = join(dir, name);
                let is_there = !matches!(name, b"." | b"..") && !self.ignore.leaves_all_out(&path);
                if is_there && pattern.matches(name) {
                    found.push(path);
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// The names in a path that was written, without those that mean nothing. Nothing is above the context.
pub(super) fn clean(path: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names
}

pub(super) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Opens a regular file; none if it is something else.
pub(super) fn open(dir: BorrowedFd<'_>, leaf: &[u8]) -> Result<Option<File>> {
    let stat = statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let file = File::from(open_file(dir, leaf)?);
    Ok(file.metadata()?.is_file().then_some(file))
}
