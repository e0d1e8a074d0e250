//! `COPY` and `ADD`: what they bring, and what that is by its digest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{self, Seek as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use drydock_model::digest::{Digest, HashingWriter};
use drydock_model::hash::Hasher;
use drydock_tar::{Device, NO_XATTRS, Owner, Xattrs, split_leaf};
use rustix::fs::{FileType, Stat, fstat, major, minor, readlinkat};

use super::Contexts;
use super::archive::{self, Packed};
use super::context::{Context, Item, Source, clean, is_dir, open};
use super::layer::xattrs;
use super::scope::{Scope, join, names, push};
use super::target::{Facts, Special, Target};
use crate::language::IgnoreRules;
use crate::plan::{Copying, From, Origin};

/// The permissions of what was downloaded.
const DOWNLOADED: u32 = 0o600;

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
            Origin::Url { url, name, checksum, unpacks } => {
                let mut file = download(contexts, url, checksum.as_ref())?;
                if *unpacks && let Some(packed) = Packed::of(&mut file)? {
                    archive::unpack(&file, packed, &to, target)?;
                    continue;
                }
                let path = match name {
                    Some(name) => place(&to, name.as_bytes(), is_folder, target)?,
                    None => to.clone(),
                };
                ensure!(
                    name.is_some() || !is_folder && !target.is_dir(&path)?,
                    "`{}` is a folder, and the address has no file's name at its end; name the file in the target",
                    copying.target
                );
                let facts = Facts { mode: DOWNLOADED, owner: Owner::ROOT, ..Facts::of(&fstat(&file)?) };
                target.file(&path, &mut file, &facts)?;
            }
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
                    bring_one(context, &source, copying, &to, is_folder, target)
                        .with_context(|| of_context(&source))?;
                }
            }
            Origin::WithParents(pattern) => {
                let context = contexts.open(&copying.from)?;
                for source in context.find_deep(pattern, &copying.exclude)? {
                    bring_with_parents(context, &source, pattern, copying, &to, target)
                        .with_context(|| of_context(&source))?;
                }
            }
        }
    }
    Ok(())
}

fn of_context(source: &Source) -> String {
    let path = if source.path.is_empty() { b"." } else { &source.path[..] };
    format!("`{}` of the context", String::from_utf8_lossy(path))
}

/// Brings something into the folder `to`, with the folders that it is in there.
fn bring_with_parents(
    context: &mut Context,
    source: &Source,
    pattern: &str,
    copying: &Copying,
    to: &[u8],
    target: &mut Target<'_>,
) -> Result<()> {
    let mut into = to.to_vec();
    for (name, stat, facts) in parents(context, source, pattern)? {
        push(&mut into, name);
        if !target.is_dir(&into)? {
            target.dir(&into, &facts.facts(&stat))?;
        }
    }
    bring_one(context, source, copying, &into, true, target)
}

/// The folders that come with something: from the beginning, or from a `/./` in the pattern on. A folder is the last of them itself.
fn parents<'a>(
    context: &mut Context,
    source: &'a Source,
    pattern: &str,
) -> Result<Vec<(&'a [u8], Stat, CopiedFacts)>> {
    let before = pattern.split_once("/./").map_or("", |(before, _)| before);
    let cut = clean(before).len();
    let folders = if is_dir(&source.stat) { &source.path[..] } else { split_leaf(&source.path).0 };
    let mut path = Vec::new();
    let mut found = Vec::new();
    for (number, name) in names(folders).enumerate() {
        push(&mut path, name);
        if number >= cut {
            let keeps = context.keeps_owners();
            let dir = context.open_dir(&path)?;
            let stat = fstat(&dir)?;
            let item = Item { below: b"", dir: dir.as_fd(), leaf: b"", stat: &stat };
            found.push((name, stat, CopiedFacts::of(&item, keeps)?));
        }
    }
    Ok(found)
}

/// The digest of all that a `COPY` or an `ADD` brings: of names, contents, permissions and owners, but of no times. What the
/// instruction says itself is no part of it.
pub(crate) fn digest(contexts: &mut dyn Contexts, copying: &Copying) -> Result<Digest> {
    let mut sum = Sum(Hasher::new());
    for origin in &copying.sources {
        match origin {
            Origin::Text { .. } => {}
            Origin::Url { checksum: Some(checksum), .. } => sum.add(b"url", checksum.hex().as_bytes()),
            Origin::Url { url, .. } => {
                let file = download(contexts, url, None)?;
                sum.add(b"url", digest_of(file)?.hex().as_bytes());
            }
            Origin::Context(pattern) => {
                let context = contexts.open(&copying.from)?;
                let sources = context.find(pattern, &copying.exclude)?;
                sum.add_sources(context, &sources, &copying.exclude)?;
            }
            Origin::WithParents(pattern) => {
                let context = contexts.open(&copying.from)?;
                let sources = context.find_deep(pattern, &copying.exclude)?;
                for source in &sources {
                    for (name, stat, facts) in parents(context, source, pattern)? {
                        sum.add_facts(name, &stat, &facts);
                    }
                }
                sum.add_sources(context, &sources, &copying.exclude)?;
            }
        }
    }
    Ok(Digest::from_hash(sum.0))
}

/// The digest of a file or a folder of a context.
pub fn digest_of_path(context: &mut Context, path: &str) -> Result<Digest> {
    let mut sum = Sum(Hasher::new());
    let source = context.find_path(path)?;
    sum.add_all(context, &source, &IgnoreRules::default())?;
    Ok(Digest::from_hash(sum.0))
}

/// Copies the file or the folder of a context that is digested as [`digest_of_path`] to a new name in the folder `dir`.
pub fn copy_path(context: &mut Context, path: &str, dir: &Path, name: &str) -> Result<()> {
    let source = context.find_path(path)?;
    let mut scope = Scope::open(dir)?;
    let mut target = Target::new(&mut scope, None, None);
    let copying = Copying {
        from: From::Context,
        sources: Vec::new(),
        target: String::new(),
        chown: None,
        chmod: None,
        exclude: IgnoreRules::default(),
        unpacks: false,
    };
    bring_one(context, &source, &copying, name.as_bytes(), false, &mut target)
        .with_context(|| of_context(&source))?;
    target.finish()
}

/// Texts, each with its length, so that none can be taken for another.
struct Sum(Hasher);

impl Sum {
    fn add(&mut self, name: &[u8], value: &[u8]) {
        for text in [name, value] {
            self.0.update(&(text.len() as u64).to_le_bytes());
            self.0.update(text);
        }
    }

    fn add_sources(
        &mut self,
        context: &mut Context,
        sources: &[Source],
        exclude: &IgnoreRules,
    ) -> Result<()> {
        for source in sources {
            self.add(b"source", &source.path);
            self.add_all(context, source, exclude)?;
        }
        Ok(())
    }

    fn add_facts(&mut self, path: &[u8], stat: &Stat, facts: &CopiedFacts) {
        self.add(b"path", path);
        let Owner { uid, gid } = facts.owner;
        self.add(b"facts", format!("{:o} {uid}:{gid}", stat.st_mode).as_bytes());
        for (name, value) in &facts.xattrs {
            self.add(name, value);
        }
    }

    fn add_all(&mut self, context: &mut Context, source: &Source, exclude: &IgnoreRules) -> Result<()> {
        let keeps = context.keeps_owners();
        let mut links = Links::default();
        let mut add = |item: Item<'_>| {
            let named = || format!("`{}`", String::from_utf8_lossy(item.below));
            let added = self.add_item(&item, keeps, &mut links);
            if item.below.is_empty() { added } else { added.with_context(named) }
        };
        context.each(source, exclude, None, &mut add).with_context(|| of_context(source))
    }

    fn add_item(&mut self, item: &Item<'_>, keeps: bool, links: &mut Links) -> Result<()> {
        if let Some(first) = links.find(item, item.below) {
            self.add(b"same", item.below);
            self.add(b"as", first);
            return Ok(());
        }
        self.add_facts(item.below, item.stat, &CopiedFacts::of(item, keeps)?);
        match FileType::from_raw_mode(item.stat.st_mode) {
            FileType::RegularFile => {
                let file = open(item.dir, item.leaf)?.context("it was replaced meanwhile")?;
                self.add(b"contents", digest_of(file)?.hex().as_bytes());
            }
            FileType::Symlink => {
                self.add(b"link", readlinkat(item.dir, item.leaf, Vec::new())?.as_bytes());
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                self.add(b"device", &item.stat.st_rdev.to_le_bytes());
            }
            _ => {}
        }
        Ok(())
    }
}

fn digest_of(mut file: File) -> io::Result<Digest> {
    let mut hash = HashingWriter::new(io::sink());
    io::copy(&mut file, &mut hash)?;
    let (_, digest, _) = hash.finish();
    Ok(digest)
}

/// Downloads a file, and checks it.
fn download(contexts: &mut dyn Contexts, url: &str, checksum: Option<&Digest>) -> Result<File> {
    let mut file = contexts.download(url)?;
    if let Some(wanted) = checksum {
        let found = digest_of(file.try_clone()?)?;
        ensure!(
            found == *wanted,
            "what was downloaded has the digest {found}, not {wanted}; see whether the address is the right one"
        );
        file.rewind()?;
    }
    Ok(file)
}

fn bring_one(
    context: &mut Context,
    source: &Source,
    copying: &Copying,
    to: &[u8],
    is_folder: bool,
    target: &mut Target<'_>,
) -> Result<()> {
    let keeps = context.keeps_owners();
    if is_dir(&source.stat) {
        let resolved = target.make_dirs(to)?;
        let of_target = fstat(target.scope.dir(&resolved)?)?;
        let mut links = Links::default();
        return context.each(source, &copying.exclude, Some(&of_target), &mut |item| {
            let path = join(to, item.below);
            if let Some(first) = links.find(&item, &path) {
                return target.hard_link(b"", &path, first);
            }
            let facts = CopiedFacts::of(&item, keeps)?;
            if is_dir(item.stat) {
                return target.dir(&path, &facts.facts(item.stat));
            }
            bring_file(&item, keeps, &path, &facts.facts(item.stat), target)
                .with_context(|| format!("`{}`", String::from_utf8_lossy(item.below)))
        });
    }
    let name = split_leaf(&source.path).1;
    context.each(source, &copying.exclude, None, &mut |item| {
        if copying.unpacks
            && let Some(mut file) = open(item.dir, item.leaf)?
            && let Some(packed) = Packed::of(&mut file)?
        {
            return archive::unpack(&file, packed, to, target);
        }
        let path = place(to, name, is_folder, target)?;
        // What is named is what a link there leads to.
        let path = target.scope.resolve(&path, true)?;
        let facts = CopiedFacts::of(&item, keeps)?;
        bring_file(&item, keeps, &path, &facts.facts(item.stat), target)
    })
}

/// The first names of files that have several: what are two names of one file stay so.
#[derive(Default)]
struct Links(HashMap<(u64, u64), Vec<u8>>);

impl Links {
    /// The first name of a file; none if this is it, as which `name` is noted.
    fn find(&mut self, item: &Item<'_>, name: &[u8]) -> Option<&[u8]> {
        if is_dir(item.stat) || item.stat.st_nlink < 2 {
            return None;
        }
        match self.0.entry((item.stat.st_dev, item.stat.st_ino)) {
            Entry::Occupied(first) => Some(first.into_mut()),
            Entry::Vacant(entry) => {
                entry.insert(name.to_vec());
                None
            }
        }
    }
}

/// Where a file goes: into a folder under its own name, or to the very path.
fn place(to: &[u8], name: &[u8], is_folder: bool, target: &mut Target<'_>) -> Result<Vec<u8>> {
    Ok(if is_folder || target.is_dir(to)? { join(to, name) } else { to.to_vec() })
}

/// Copies something that is no folder.
fn bring_file(
    item: &Item<'_>,
    keeps: bool,
    path: &[u8],
    facts: &Facts<'_>,
    target: &mut Target<'_>,
) -> Result<()> {
    let Stat { st_mode, st_rdev, .. } = *item.stat;
    let device = Device { major: major(st_rdev), minor: minor(st_rdev) };
    match FileType::from_raw_mode(st_mode) {
        FileType::RegularFile => {
            let mut file = open(item.dir, item.leaf)?.context("it was replaced meanwhile")?;
            target.file(path, &mut file, facts)
        }
        FileType::Symlink => {
            let link = readlinkat(item.dir, item.leaf, Vec::new())?;
            target.special(path, Special::Symlink(link.as_bytes()), facts)
        }
        // Of a program that runs, or ran, in the folder.
        FileType::Socket => Ok(()),
        FileType::Fifo => target.special(path, Special::Fifo, facts),
        FileType::CharacterDevice if keeps => target.special(path, Special::CharDevice(device), facts),
        FileType::BlockDevice if keeps => target.special(path, Special::BlockDevice(device), facts),
        _ => {
            bail!("it is neither a file nor a folder nor a link; remove it, or leave it out by .dockerignore")
        }
    }
}

/// What is kept of a file beside its contents.
struct CopiedFacts {
    owner: Owner,
    xattrs: Xattrs,
}

impl CopiedFacts {
    /// From the build's context, what comes is root's, whoever had it.
    fn of(item: &Item<'_>, keeps: bool) -> Result<Self> {
        let Stat { st_uid: uid, st_gid: gid, st_mode, .. } = *item.stat;
        if !keeps {
            return Ok(Self { owner: Owner::ROOT, xattrs: Xattrs::new() });
        }
        let xattrs = match FileType::from_raw_mode(st_mode) {
            FileType::Directory => xattrs(item.dir)?,
            FileType::RegularFile => {
                xattrs(open(item.dir, item.leaf)?.context("it was replaced meanwhile")?)?
            }
            _ => Xattrs::new(),
        };
        Ok(Self { owner: Owner { uid, gid }, xattrs })
    }

    fn facts(&self, stat: &Stat) -> Facts<'_> {
        Facts { owner: self.owner, xattrs: &self.xattrs, ..Facts::of(stat) }
    }
}
