//! The context: the folder that `COPY` and `ADD` bring files from, and nothing outside of it.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use drydock_tar::{Found, NO_XATTRS, Owner, Time, Walk, open_file, split_leaf};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat, fstat, openat, readlinkat, statat};

use super::{Contexts, Download};
use super::archive;
use super::scope::{Scope, join, names, push};
use super::target::{Facts, Special, Target};
use crate::language::{IgnoreRules, Pattern};
use crate::plan::{Copying, From, Origin};

/// The folder, and what of it is left out.
#[derive(Debug)]
pub struct Context {
    path: PathBuf,
    scope: Scope,
    ignore: IgnoreRules,
}

/// Where there is nothing but the context of the build.
impl Contexts for Context {
    fn open(&mut self, from: &From) -> Result<&mut Context> {
        ensure!(*from == From::Context, "there is no context but that of the build");
        Ok(self)
    }

    fn download(&mut self, url: &str) -> Result<Download> {
        bail!("`{url}` cannot be downloaded here; put the file into the context")
    }
}

/// A file or a folder of the context.
struct Source {
    /// As it was named, cleaned.
    path: Vec<u8>,
    /// Where that leads.
    resolved: Vec<u8>,
    stat: Stat,
}

/// Brings what a `COPY` or an `ADD` asks for.
pub(super) fn bring(contexts: &mut dyn Contexts, copying: &Copying, target: &mut Target<'_>) -> Result<()> {
    let to: Vec<u8> = names(copying.target.as_bytes()).fold(Vec::new(), |path, name| join(&path, name));
    let is_folder = copying.target.ends_with('/');
    for origin in &copying.sources {
        match origin {
            Origin::Text { name, contents } => {
                let path = place(&to, name.as_bytes(), is_folder, target)?;
                let facts = Facts { mode: 0o644, owner: Owner::ROOT, modified: None, xattrs: NO_XATTRS };
                target.file(&path, &mut contents.as_bytes(), &facts)?;
            }
            Origin::Url { url, .. } => bail!("`{url}` cannot be downloaded"),
            Origin::Context(pattern) => {
                let context = contexts.open(&copying.from)?;
                let sources = context.find(pattern, &copying.exclude)?;
                if sources.len() > 1 && !is_folder {
                    bail!(
                        "`{pattern}` is several files, so `{0}` must be a folder; write `{0}/`",
                        copying.target
                    );
                }
                for source in sources {
                    let brought = context.bring_one(&source, copying, &to, target);
                    brought.with_context(|| {
                        format!("`{}` of the context", String::from_utf8_lossy(&source.path))
                    })?;
                }
            }
        }
    }
    Ok(())
}

impl Context {
    /// The folder at `path`.
    pub fn open(path: &Path, ignore: IgnoreRules) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), scope: Scope::open(path)?, ignore })
    }

    fn bring_one(
        &mut self,
        source: &Source,
        copying: &Copying,
        to: &[u8],
        target: &mut Target<'_>,
    ) -> Result<()> {
        if is_dir(&source.stat) {
            return self.bring_contents(source, copying, to, target);
        }
        let (parent, leaf) = split_leaf(&source.resolved);
        let dir = self.scope.dir(parent)?;
        let name = split_leaf(&source.path).1;
        let is_folder = copying.target.ends_with('/');
        if copying.unpacks
            && let Some(mut file) = open(dir, leaf)?
            && let Some(format) = archive::format_of(&mut file)?
        {
            return archive::unpack(file, format, to, target);
        }
        let path = place(to, name, is_folder, target)?;
        // What is named is what a link there leads to.
        let path = target.scope.resolve(&path, true)?;
        bring_file(dir, leaf, &path, target)
    }

    fn bring_contents(
        &mut self,
        source: &Source,
        copying: &Copying,
        to: &[u8],
        target: &mut Target<'_>,
    ) -> Result<()> {
        let resolved = target.make_dirs(to)?;
        let of_target = identity(&fstat(target.scope.dir(&resolved)?)?);
        let Self { path: context, scope, ignore } = self;
        let root = list(scope.dir(&source.resolved)?)?;
        let mut walk = Walk::new(context, root)?;
        loop {
            let is_left_out = |path: &[u8]| {
                copying.exclude.leaves_out(path)
                    || ignore.leaves_out(&join(&source.path, path))
                    || ignore.leaves_out(&join(&source.resolved, path))
            };
            // Where nothing of a folder can be wanted, it is not looked into; nor is that which is being filled.
            let has_exceptions = ignore.has_exceptions() || copying.exclude.has_exceptions();
            let mut enters = |dir: BorrowedFd<'_>, path: &[u8], leaf: &[u8]| {
                let stat = statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW);
                (has_exceptions || !is_left_out(&join(path, leaf)))
                    && !stat.is_ok_and(|stat| identity(&stat) == of_target)
            };
            let Some(Found { dir, path, leaf, file_type }) = walk.find_next_where(&mut enters)? else {
                break;
            };
            let below = join(path, leaf);
            let is_dir = file_type == FileType::Directory;
            if is_left_out(&below) || is_dir && !leaf.is_empty() {
                continue;
            }
            let path = join(to, &below);
            if is_dir {
                let stat = fstat(dir)?;
                target.dir(&path, &facts(&stat), false)?;
            } else {
                bring_file(dir, leaf, &path, target)
                    .with_context(|| format!("`{}`", String::from_utf8_lossy(&below)))?;
            }
        }
        Ok(())
    }

    /// What a path or a pattern names, in byte order.
    fn find(&mut self, pattern: &str, exclude: &IgnoreRules) -> Result<Vec<Source>> {
        let mut clean: Vec<&str> = Vec::new();
        for name in pattern.split('/') {
            match name {
                "" | "." => {}
                ".." => {
                    clean.pop();
                }
                name => clean.push(name),
            }
        }
        let is_pattern = clean.iter().any(|name| Pattern::is_needed(name));
        let mut paths = vec![Vec::new()];
        for name in clean {
            if Pattern::is_needed(name) {
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
            let resolved = self.scope.resolve(&path, true);
            let resolved = resolved.with_context(|| format!("`{pattern}` is not in the context"))?;
            let is_left_out = |path: &[u8]| !path.is_empty() && self.ignore.leaves_out(path);
            if is_left_out(&path) || is_left_out(&resolved) {
                // What is in a folder that is left out may be wanted all the same.
                let stat = self.stat(&resolved)?.filter(|stat| is_dir(stat) && self.ignore.has_exceptions());
                if stat.is_none() && is_pattern {
                    continue;
                }
                if stat.is_none() {
                    bail!(
                        "`{pattern}` is left out of the context by its .dockerignore; take the rule out, or leave it"
                    );
                }
            }
            match self.stat(&resolved)? {
                Some(stat) if is_dir(&stat) || !exclude.leaves_out(split_leaf(&path).1) => {
                    found.push(Source { path, resolved, stat });
                }
                Some(_) => {}
                None if is_pattern => {}
                None => {
                    return Err(anyhow!(
                        "`{pattern}` is not in the context `{}`; put it there",
                        self.path.display()
                    ));
                }
            }
        }
        Ok(found)
    }

    /// All names in these folders that fit.
    fn expand(&mut self, dirs: &[Vec<u8>], pattern: &Pattern) -> Result<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        for dir in dirs {
            let resolved = self.scope.resolve(dir, true)?;
            let is_dir = resolved.is_empty() || self.stat(&resolved)?.is_some_and(|stat| is_dir(&stat));
            if !is_dir {
                continue;
            }
            let listed = list(self.scope.dir(&resolved)?)?;
            let mut buffer = Vec::with_capacity(32 << 10);
            let mut entries = RawDir::new(listed, buffer.spare_capacity_mut());
            while let Some(entry) = entries.next() {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if !matches!(name, b"." | b"..") && pattern.matches(name) {
                    found.push(join(dir, name));
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn stat(&mut self, resolved: &[u8]) -> Result<Option<Stat>> {
        let (parent, leaf) = split_leaf(resolved);
        let leaf = if leaf.is_empty() { b"." } else { leaf };
        let dir = match self.scope.dir(parent) {
            Ok(dir) => dir,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if is_missing(&error.into()) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Which file it is.
fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn list(dir: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    openat(dir, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a regular file; none if it is something else.
fn open(dir: BorrowedFd<'_>, leaf: &[u8]) -> Result<Option<File>> {
    let stat = statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let file = File::from(open_file(dir, leaf)?);
    Ok(file.metadata()?.is_file().then_some(file))
}

/// Where a file goes: into a folder under its own name, or to the very path.
fn place(to: &[u8], name: &[u8], is_folder: bool, target: &mut Target<'_>) -> Result<Vec<u8>> {
    Ok(if is_folder || target.is_dir(to)? { join(to, name) } else { to.to_vec() })
}

/// Copies something that is no folder.
fn bring_file(dir: BorrowedFd<'_>, leaf: &[u8], path: &[u8], target: &mut Target<'_>) -> Result<()> {
    let stat = statat(dir, leaf, AtFlags::SYMLINK_NOFOLLOW)?;
    let facts = facts(&stat);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let mut file = open(dir, leaf)?.context("it was replaced meanwhile")?;
            target.file(path, &mut file, &facts)
        }
        FileType::Symlink => {
            let link = readlinkat(dir, leaf, Vec::new())?;
            target.special(path, Special::Symlink(link.as_bytes()), &facts)
        }
        // Of a program that runs, or ran, in the folder.
        FileType::Socket => Ok(()),
        _ => {
            bail!("it is neither a file nor a folder nor a link; remove it, or leave it out by .dockerignore")
        }
    }
}

/// What comes is root's, whoever had it.
fn facts(stat: &Stat) -> Facts<'static> {
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Facts {
        mode: stat.st_mode & 0o7777,
        owner: Owner::ROOT,
        modified: Some(Time { seconds: stat.st_mtime, nanoseconds }),
        xattrs: NO_XATTRS,
    }
}
