//! `drydock import`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use drydock_encode::compress::Compression;
use drydock_images::import::{self, Imported, Opened};
use drydock_images::{Name, flatten};
use drydock_io::file::remove_stale;
use drydock_layout::Durability;
use drydock_model::digest::Digest;
use drydock_model::platform::Platform;
use drydock_registry::sources::{Found, Kind, Lock, Place, Source};
use serde_json::json;

use super::{Context, cores};
use crate::exit::Usage;
use crate::output::bytes;
use crate::remote;
use crate::rules::Rules;

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) platform: Option<Platform>,
    pub(crate) flatten: bool,
    pub(crate) compression: Compression,
    pub(crate) locking: Locking,
}

/// What is done with the lock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locking {
    /// Nothing.
    Off,
    /// Digests are written.
    Write,
    /// Only what it has is imported.
    Obey,
}

/// Imports one image, or, without a source, all that the file of sources lists.
pub(crate) fn import(
    context: &mut Context,
    rules: &Rules,
    source: Option<&import::Source>,
    name: Option<&str>,
    request: &Request,
) -> Result<u8> {
    let mut lock = if request.locking == Locking::Off { None } else { Some(rules.lock()?) };
    let sources: Vec<import::Source> = match source {
        Some(source) => vec![source.clone()],
        None => rules.sources.images().map(import::Source::Named).collect(),
    };
    if sources.is_empty() {
        return Err(Usage("the file of sources lists no `images`".to_owned()).into());
    }
    for source in &sources {
        let known = lock.as_ref().map(|(_, lock)| lock).filter(|_| request.locking == Locking::Obey);
        let found = Import { context: &mut *context, rules, name, request }.any(source, known)?;
        if let (Some((path, lock)), Some((name, digest)), Locking::Write) =
            (&mut lock, found, request.locking)
        {
            lock.set(&name, digest);
            lock.write(path)?;
        }
    }
    Ok(0)
}

/// An import that is under way.
struct Import<'a> {
    context: &'a mut Context,
    rules: &'a Rules,
    name: Option<&'a str>,
    request: &'a Request,
}

impl Import<'_> {
    /// Gives what an image from a registry is called in the lock file, and its digest there.
    fn any(mut self, source: &import::Source, lock: Option<&Lock>) -> Result<Option<(String, Digest)>> {
        let rules = self.rules;
        let permit = |kind, place: &str| rules.sources.permit(kind, place);
        match source {
            import::Source::Layout { dir, tag } => {
                let dir = real(dir)?;
                let by = permit(Kind::Layout, &dir)?;
                self.path(Kind::Layout, Path::new(&dir), tag.as_deref(), by)?;
            }
            import::Source::Archive { file, tag } => {
                let file = real(file)?;
                let by = permit(Kind::Archive, &file)?;
                self.path(Kind::Archive, Path::new(&file), tag.as_deref(), by)?;
            }
            import::Source::Rootfs(path) => {
                let path = real(path)?;
                let by = permit(Kind::Rootfs, &path)?;
                self.path(Kind::Rootfs, Path::new(&path), None, by)?;
            }
            import::Source::Url(url) => {
                let by = permit(Kind::Archive, url)?;
                self.url(Kind::Archive, url, None, by)?;
            }
            import::Source::RootfsUrl(url) => {
                let by = permit(Kind::Rootfs, url)?;
                self.url(Kind::Rootfs, url, None, by)?;
            }
            import::Source::Registry(name) => {
                return self.first_of(&rules.sources.find(&format!("docker://{name}"), lock)?);
            }
            import::Source::Named(name) => return self.first_of(&rules.sources.find(name, lock)?),
        }
        Ok(None)
    }

    /// From the first place that has it.
    fn first_of(&mut self, found: &Found<'_>) -> Result<Option<(String, Digest)>> {
        let kind = found.source.map_or(Kind::Registry, |source| source.kind);
        let (last, others) = found.places.split_last().context("what is found is somewhere")?;
        for place in others {
            match self.place(kind, place, found) {
                Ok(digest) => return Ok(digest.map(|digest| (found.name.clone(), digest))),
                Err(error) if self.context.progress.signals.exit_code().is_some() => return Err(error),
                Err(error) => {
                    let text = format!("warning: not from the first place: {error:#}");
                    self.context.progress.say(&crate::output::printable(&text));
                }
            }
        }
        let digest = self.place(kind, last, found)?;
        Ok(digest.map(|digest| (found.name.clone(), digest)))
    }

    fn place(&mut self, kind: Kind, place: &Place, found: &Found<'_>) -> Result<Option<Digest>> {
        match place {
            Place::Image(reference) => {
                let registry = self.rules.registry(found.source)?;
                let signals = &self.context.progress.signals;
                let (opened, digest) = signals.at_once(|| remote::open(&registry, reference))?;
                self.opened(&opened, Some(&name_of(found)), found.source)?;
                return Ok(Some(digest));
            }
            Place::Path(path, tag) => self.path(kind, path, tag.as_deref(), found.source)?,
            Place::Url(url, tag) => self.url(kind, url, tag.as_deref(), found.source)?,
        }
        Ok(None)
    }

    fn path(&mut self, kind: Kind, path: &Path, tag: Option<&str>, by: Option<&Source>) -> Result<()> {
        let near = self.context.repository.dir().path();
        let opened = match kind {
            Kind::Layout => Opened::layout(path, tag)?,
            Kind::Rootfs => Opened::rootfs(path),
            Kind::Archive | Kind::Registry => Opened::archive(path, tag, near, &self.context.progress)?,
        };
        self.opened(&opened, None, by)
    }

    fn url(&mut self, kind: Kind, url: &str, tag: Option<&str>, by: Option<&Source>) -> Result<()> {
        let near = self.context.repository.dir().path().to_owned();
        let write = || format!("cannot write to `{}`", near.display());
        fs::create_dir_all(&near).with_context(write)?;
        remove_stale(&near).with_context(write)?;
        let file = remote::download(&self.rules.registry(by)?, url, &near, &self.context.progress)?;
        self.path(kind, file.path(), tag, by)
    }

    fn opened(&mut self, opened: &Opened<'_>, called: Option<&str>, by: Option<&Source>) -> Result<()> {
        let name = self.name.or(called).or(opened.name()).ok_or_else(|| {
            let text =
                "the image has no name where it comes from: say after the source what it is to be called";
            Usage(text.to_owned())
        })?;
        let Self { context, request, .. } = self;
        let to = context.repository.locate(name)?;
        let options = options(request, by)?;
        let imported = import::import(opened, &context.repository, &to, &options, &context.progress)?;
        told(context, &to, &imported)
    }
}

/// How it is imported: as is asked for, within what the source allows.
fn options(request: &Request, by: Option<&Source>) -> Result<import::Options> {
    let allowed = by.map_or(&[][..], |source| source.platforms.as_slice());
    let platforms = match &request.platform {
        None => allowed.to_vec(),
        Some(wanted) if allowed.is_empty() || allowed.iter().any(|other| other.is_same(wanted)) => {
            vec![wanted.clone()]
        }
        Some(wanted) => {
            return Err(Usage(format!("the source is not for platform {wanted}")).into());
        }
    };
    let flatten = request.flatten || by.is_some_and(|source| source.flatten);
    let write = flatten::Options {
        compression: request.compression,
        threads: cores(),
        durability: Durability::OnDisk,
    };
    Ok(import::Options { platforms, flatten, write })
}

/// What an image from a registry is called here: as there, whichever mirror it comes from.
fn name_of(found: &Found<'_>) -> String {
    match (found.source, found.name.split_once('/')) {
        (Some(source), Some((_, rest))) => format!("{}/{rest}", source.location.trim_end_matches('/')),
        _ => found.name.clone(),
    }
}

/// The path that rules are about: links do not lead around them.
fn real(path: &Path) -> Result<String> {
    let cannot = || format!("cannot read `{}`", path.display());
    let path = fs::canonicalize(path).with_context(cannot)?;
    Ok(path.to_str().with_context(|| format!("the path `{}` is not UTF-8", path.display()))?.to_owned())
}

fn told(context: &mut Context, to: &Name, imported: &Imported) -> Result<()> {
    context.left(imported.left.as_ref());
    let Imported { digest, brought, .. } = imported;
    if context.json {
        let (shared, fetched, lacking) = (brought.shared, brought.fetched, &brought.lacking);
        return context.out.json(&json!({"name": to.text(), "digest": digest, "shared": shared,
            "fetched": fetched, "lacking": lacking}));
    }
    for lacking in &brought.lacking {
        context
            .progress
            .say(&format!("warning: blob {lacking} is named, but is not where the image comes from"));
    }
    if context.quiet {
        return Ok(());
    }
    let sizes = match (brought.fetched, brought.shared) {
        (0, 0) => String::new(),
        (fetched, 0) => format!(": {} fetched", bytes(fetched)),
        (fetched, shared) => format!(": {} fetched, {} there already", bytes(fetched), bytes(shared)),
    };
    context.out.line(&format!("{to} is {digest}{sizes}"))
}
