//! `COPY` and `ADD`: what they bring, and what that is by its digest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use drydock_model::digest::Digest;
use drydock_model::hash::Hasher;
use drydock_tar::{Device, NO_XATTRS, Owner, Xattrs, split_leaf};
use rustix::fs::{FileType, Stat, fstat, major, minor, readlinkat};

use super::Contexts;
use super::archive::{self, Packed};
use super::context::{Context, Going, Item, Source, clean, is_dir, open};
use super::layer::xattrs;
use super::scope::{Scope, join, names, push};
use super::target::{Facts, Special, Target, shown};
use crate::language::IgnoreRules;
use crate::plan::{Copying, From, Origin};

/// The permissions of what was downloaded.
const DOWNLOADED: u32 = 0o600;

/// Brings what a `COPY` or an `ADD` asks for. Gives the [`digest`] of what it was when it was read.
pub(super) fn bring(
    contexts: &mut dyn Contexts,
    copying: &Copying,
    target: &mut Target<'_>,
) -> Result<Digest> {
    let mut sum = Sum(Hasher::new());
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
                let (mut file, found) = download(contexts, url, checksum.as_ref())?;
                sum.add(b"url", found.hex().as_bytes());
                if *unpacks && let Some(packed) = Packed::of(&mut file)? {
                    archive::unpack(file, packed, &to, target)?;
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
                    sum.add(b"source", &source.path);
                    bring_one(context, &source, copying, &to, is_folder, target, &mut sum)
                        .with_context(|| of_context(&source))?;
                }
            }
            Origin::WithParents(pattern) => {
                let context = contexts.open(&copying.from)?;
                for source in context.find_deep(pattern, &copying.exclude)? {
                    bring_with_parents(context, &source, pattern, copying, &to, target, &mut sum)
                        .with_context(|| of_context(&source))?;
                }
            }
        }
    }
    Ok(Digest::from_hash(sum.0))
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
    sum: &mut Sum,
) -> Result<()> {
    let mut into = to.to_vec();
    for (name, stat, facts) in parents(context, source, pattern)? {
        sum.add_facts(name, &stat, &facts);
        push(&mut into, name);
        if !target.is_dir(&into)? {
            target.dir(&into, &facts.facts(&stat))?;
        }
    }
    sum.add(b"source", &source.path);
    bring_one(context, source, copying, &into, true, target, sum)
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
                let (_, found) = download(contexts, url, None)?;
                sum.add(b"url", found.hex().as_bytes());
            }
            Origin::Context(pattern) => {
                let context = contexts.open(&copying.from)?;
                for source in context.find(pattern, &copying.exclude)? {
                    sum.add_source(context, &source, copying)?;
                }
            }
            Origin::WithParents(pattern) => {
                let context = contexts.open(&copying.from)?;
                for source in context.find_deep(pattern, &copying.exclude)? {
                    for (name, stat, facts) in parents(context, &source, pattern)? {
                        sum.add_facts(name, &stat, &facts);
                    }
                    sum.add_source(context, &source, copying)?;
                }
            }
        }
    }
    Ok(Digest::from_hash(sum.0))
}

/// The digest of a file or a folder of a context.
pub fn digest_of_path(context: &mut Context, path: &str) -> Result<Digest> {
    let mut sum = Sum(Hasher::new());
    let source = context.find_path(path)?;
    sum.add_all(context, &source, &plain(), None, &mut |_, _, _| Ok(()))
        .with_context(|| of_context(&source))?;
    Ok(Digest::from_hash(sum.0))
}

/// Copies the file or the folder of a context to a new name in the folder `dir`. Gives the digest of what it was when it was read, which
/// is that of [`digest_of_path`].
pub fn copy_path(context: &mut Context, path: &str, dir: &Path, name: &str) -> Result<Digest> {
    let mut sum = Sum(Hasher::new());
    let source = context.find_path(path)?;
    let mut scope = Scope::open(dir)?;
    let mut target = Target::new(&mut scope, None, None);
    bring_one(context, &source, &plain(), name.as_bytes(), false, &mut target, &mut sum)
        .with_context(|| of_context(&source))?;
    target.finish()?;
    Ok(Digest::from_hash(sum.0))
}

/// What is wanted of something that is taken just as it is.
fn plain() -> Copying {
    Copying {
        from: From::Context,
        sources: Vec::new(),
        target: String::new(),
        chown: None,
        chmod: None,
        exclude: IgnoreRules::default(),
        unpacks: false,
    }
}

/// Something that is brought, as it is read.
enum What<'a> {
    /// Another name of the file that came under this one.
    Same(&'a [u8]),
    File(&'a mut dyn Read),
    Archive(Packed, &'a mut dyn Read),
    Link(&'a [u8]),
    /// All that has no contents.
    Other(FileType),
}

/// Brings something, or only looks at it.
type Put<'p> = &'p mut dyn FnMut(&Item<'_>, &Facts<'_>, What<'_>) -> Result<()>;

/// Texts, each with its length, so that none can be taken for another.
struct Sum(Hasher);

impl Sum {
    fn add(&mut self, name: &[u8], value: &[u8]) {
        for text in [name, value] {
            self.0.update(&(text.len() as u64).to_le_bytes());
            self.0.update(text);
        }
    }

    fn add_source(&mut self, context: &mut Context, source: &Source, copying: &Copying) -> Result<()> {
        self.add(b"source", &source.path);
        self.add_all(context, source, copying, None, &mut |_, _, _| Ok(()))
            .with_context(|| of_context(source))
    }

    fn add_facts(&mut self, path: &[u8], stat: &Stat, facts: &CopiedFacts) {
        self.add(b"path", path);
        let Owner { uid, gid } = facts.owner;
        self.add(b"facts", format!("{:o} {uid}:{gid}", stat.st_mode).as_bytes());
        for (name, value) in &facts.xattrs {
            self.add(name, value);
        }
    }

    /// Adds the file of a source, or all that is in its folder but the folder that is `being_filled`, and gives it to `put`: what that
    /// reads is what is added.
    fn add_all(
        &mut self,
        context: &mut Context,
        source: &Source,
        copying: &Copying,
        being_filled: Option<&Stat>,
        put: Put<'_>,
    ) -> Result<()> {
        let how = How {
            keeps: context.keeps_owners(),
            unpacks: copying.unpacks && !is_dir(&source.stat),
            going: context.going(),
        };
        let mut links = Links::default();
        context.each(source, &copying.exclude, being_filled, &mut |item| {
            let added = self.add_item(&item, &how, &mut links, put);
            let named = || format!("`{}`", String::from_utf8_lossy(item.below));
            if item.below.is_empty() { added } else { added.with_context(named) }
        })
    }

    fn add_item(&mut self, item: &Item<'_>, how: &How, links: &mut Links, put: Put<'_>) -> Result<()> {
        let copied = CopiedFacts::of(item, how.keeps)?;
        let facts = copied.facts(item.stat);
        if let Some(first) = links.find(item) {
            self.add(b"same", item.below);
            self.add(b"as", first);
            return put(item, &facts, What::Same(first));
        }
        self.add_facts(item.below, item.stat, &copied);
        match FileType::from_raw_mode(item.stat.st_mode) {
            FileType::RegularFile => {
                let mut file = open(item.dir, item.leaf)?.context("it was replaced meanwhile")?;
                let packed = if how.unpacks { Packed::of(&mut file)? } else { None };
                let mut file = Hashing { file, hash: Hasher::new(), going: &*how.going };
                match packed {
                    Some(packed) => {
                        self.add(b"unpacked", b"");
                        put(item, &facts, What::Archive(packed, &mut file))?;
                    }
                    None => put(item, &facts, What::File(&mut file))?,
                }
                // There may be more than was wanted of it.
                io::copy(&mut file, &mut io::sink())?;
                self.add(b"contents", Digest::from_hash(file.hash).hex().as_bytes());
            }
            FileType::Symlink => {
                let link = readlinkat(item.dir, item.leaf, Vec::new())?;
                self.add(b"link", link.as_bytes());
                put(item, &facts, What::Link(link.as_bytes()))?;
            }
            kind => {
                if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
                    self.add(b"device", &item.stat.st_rdev.to_le_bytes());
                }
                put(item, &facts, What::Other(kind))?;
            }
        }
        Ok(())
    }
}

/// How things are read.
struct How {
    /// With owners and attributes.
    keeps: bool,
    /// Archives are looked for.
    unpacks: bool,
    going: Going,
}

/// A file, and the hash of what was read of it.
struct Hashing<'a> {
    file: File,
    hash: Hasher,
    going: &'a dyn Fn() -> io::Result<()>,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.going)()?;
        let length = self.file.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

/// Downloads a file, and checks it; gives its digest, too.
fn download(contexts: &mut dyn Contexts, url: &str, checksum: Option<&Digest>) -> Result<(File, Digest)> {
    let mut file = Hashing { file: contexts.download(url)?, hash: Hasher::new(), going: &|| Ok(()) };
    io::copy(&mut file, &mut io::sink())?;
    let Hashing { mut file, hash, .. } = file;
    let found = Digest::from_hash(hash);
    if let Some(wanted) = checksum {
        ensure!(
            found == *wanted,
            "what was downloaded has the digest {found}, not {wanted}; see whether the address is the right one"
        );
    }
    file.rewind()?;
    Ok((file, found))
}

fn bring_one(
    context: &mut Context,
    source: &Source,
    copying: &Copying,
    to: &[u8],
    is_folder: bool,
    target: &mut Target<'_>,
    sum: &mut Sum,
) -> Result<()> {
    let keeps = context.keeps_owners();
    if is_dir(&source.stat) {
        let resolved = target.make_dirs(to)?;
        let of_target = target.scope.dir(&resolved).and_then(|dir| Ok(fstat(dir)?));
        let of_target = of_target.with_context(|| format!("cannot look at `{}`", shown(&resolved)))?;
        return sum.add_all(context, source, copying, Some(&of_target), &mut |item, facts, what| {
            let path = join(to, item.below);
            match what {
                What::Same(first) => target.hard_link(b"", &path, &join(to, first)),
                what => bring_item(item, keeps, &path, facts, what, target),
            }
        });
    }
    let name = split_leaf(&source.path).1;
    sum.add_all(context, source, copying, None, &mut |item, facts, what| {
        if let What::Archive(packed, contents) = what {
            return archive::unpack(contents, packed, to, target);
        }
        let path = place(to, name, is_folder, target)?;
        // What is named is what a link there leads to.
        let path = target.scope.resolve(&path, true)?;
        bring_item(item, keeps, &path, facts, what, target)
    })
}

/// The first names of files that have several: what are two names of one file stay so.
#[derive(Default)]
struct Links(HashMap<(u64, u64), Vec<u8>>);

impl Links {
    /// The first name of a file; none if this is it.
    fn find(&mut self, item: &Item<'_>) -> Option<&[u8]> {
        if is_dir(item.stat) || item.stat.st_nlink < 2 {
            return None;
        }
        match self.0.entry((item.stat.st_dev, item.stat.st_ino)) {
            Entry::Occupied(first) => Some(first.into_mut()),
            Entry::Vacant(entry) => {
                entry.insert(item.below.to_vec());
                None
            }
        }
    }
}

/// Where a file goes: into a folder under its own name, or to the very path.
fn place(to: &[u8], name: &[u8], is_folder: bool, target: &mut Target<'_>) -> Result<Vec<u8>> {
    Ok(if is_folder || target.is_dir(to)? { join(to, name) } else { to.to_vec() })
}

/// Brings something that has no other name yet, and is not unpacked.
fn bring_item(
    item: &Item<'_>,
    keeps: bool,
    path: &[u8],
    facts: &Facts<'_>,
    what: What<'_>,
    target: &mut Target<'_>,
) -> Result<()> {
    let Stat { st_rdev, .. } = *item.stat;
    let device = Device { major: major(st_rdev), minor: minor(st_rdev) };
    match what {
        What::File(contents) => target.file(path, contents, facts),
        What::Link(to) => target.special(path, Special::Symlink(to), facts),
        What::Other(FileType::Directory) => target.dir(path, facts),
        // Of a program that runs, or ran, in the folder.
        What::Other(FileType::Socket) => Ok(()),
        What::Other(FileType::Fifo) => target.special(path, Special::Fifo, facts),
        What::Other(FileType::CharacterDevice) if keeps => {
            target.special(path, Special::CharDevice(device), facts)
        }
        What::Other(FileType::BlockDevice) if keeps => {
            target.special(path, Special::BlockDevice(device), facts)
        }
        What::Same(_) | What::Archive(..) | What::Other(_) => {
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
