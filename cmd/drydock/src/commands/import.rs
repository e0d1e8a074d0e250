//! `drydock import`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use drydock_encode::compress::Compression;
use drydock_images::import::{self, BuildPlace, Imported, Opened};
use drydock_images::{Name, Repository, Unknown, Watch as _, flatten};
use drydock_io::file::remove_stale;
use drydock_layout::{Durability, Image, LayoutError};
use drydock_model::digest::Digest;
use drydock_model::platform::Platform;
use drydock_model::reference::ImageRef;
use drydock_registry::sources::{Found, Kind, Lock, Place, Source};
use drydock_sandbox::room::Room;
use serde_json::json;

use super::sandboxed::from_dockerfile::{Building, Built, Origin, can_be_had};
use super::{Context, cores};
use crate::cli_import::Import;
use crate::exit::Usage;
use crate::output::{bytes, printable};
use crate::progress::{Progress, Signals};
use crate::remote;
use crate::rules::Rules;

/// How images are imported.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(super) platform: Option<Platform>,
    pub(super) flatten: bool,
    pub(super) compression: Compression,
}

/// What came of one.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Done {
    /// Of an image from a registry there is what it is called in the lock file, and its digest there.
    Imported { to: Name, imported: Imported, locked: Option<(String, Digest)> },
    /// By a Dockerfile.
    Built(Box<Built>),
}

/// Imports one image, or, without a source, all that the file of sources lists. There is a room if something is to be built.
pub(crate) fn import(
    context: &mut Context,
    room: Option<&Room>,
    rules: &Rules,
    options: &Import,
) -> Result<u8> {
    let mut lock = if options.lock || options.locked { Some(rules.lock()?) } else { None };
    let sources = sources(rules, options)?;
    let Import { platform, flatten, compression, .. } = options;
    let request = Request { platform: platform.clone(), flatten: *flatten, compression: *compression };
    for source in &sources {
        let importer = Importer {
            repository: &context.repository,
            progress: &context.progress,
            rules,
            request: request.clone(),
            name: options.name.as_deref(),
            lock: lock.as_ref().map(|(_, lock)| lock).filter(|_| options.locked),
        };
        let building =
            Building { room, options: &options.dockerfile, json: context.json, quiet: context.quiet };
        let locked = match importer.any(source, Some(&building))? {
            Done::Imported { to, imported, locked } => {
                told(context, &to, &imported)?;
                locked.into_iter().collect()
            }
            Done::Built(built) => {
                built.tell(context)?;
                built.locked
            }
        };
        if let Some((path, lock)) = lock.as_mut().filter(|_| options.lock && !locked.is_empty()) {
            for (name, digest) in &locked {
                lock.set(name, *digest);
            }
            lock.write(path)?;
        }
    }
    Ok(0)
}

/// What is to be imported.
pub(super) fn sources(rules: &Rules, options: &Import) -> Result<Vec<import::Source>> {
    let sources: Vec<import::Source> = match &options.source {
        Some(source) => vec![source.clone()],
        None => rules.sources.images().map(import::Source::Named).collect(),
    };
    if sources.is_empty() {
        return Err(Usage("the file of sources lists no `images`".to_owned()).into());
    }
    Ok(sources)
}

/// Imports images.
pub(crate) struct Importer<'a> {
    pub(super) repository: &'a Repository,
    pub(super) progress: &'a Progress,
    pub(super) rules: &'a Rules,
    pub(super) request: Request,
    pub(super) name: Option<&'a str>,
    /// Nothing but what this has.
    pub(super) lock: Option<&'a Lock>,
}

impl Importer<'_> {
    fn any(&self, source: &import::Source, building: Option<&Building<'_>>) -> Result<Done> {
        let rules = self.rules;
        let permit = |kind, place: &str| rules.sources.permit(kind, place);
        if let Some(option) = building.and_then(|building| building.options.given())
            && !is_built(rules, source)
        {
            return Err(
                Usage(format!("{option} is for what is built by a Dockerfile: `dockerfile:…`")).into()
            );
        }
        match source {
            import::Source::Layout { dir, tag } => {
                let dir = real(dir)?;
                let by = permit(Kind::Layout, &dir)?;
                self.path(Kind::Layout, Path::new(&dir), tag.as_deref(), by)
            }
            import::Source::Archive { file, tag } => {
                let file = real(file)?;
                let by = permit(Kind::Archive, &file)?;
                self.path(Kind::Archive, Path::new(&file), tag.as_deref(), by)
            }
            import::Source::Rootfs(path) => {
                let path = real(path)?;
                let by = permit(Kind::Rootfs, &path)?;
                self.path(Kind::Rootfs, Path::new(&path), None, by)
            }
            import::Source::Url(url) => {
                let by = permit(Kind::Archive, url)?;
                self.url(Kind::Archive, url, None, by)
            }
            import::Source::RootfsUrl(url) => {
                let by = permit(Kind::Rootfs, url)?;
                self.url(Kind::Rootfs, url, None, by)
            }
            import::Source::Registry(name) => {
                self.first_of(&rules.sources.find(&format!("docker://{name}"), self.lock)?, building)
            }
            import::Source::Named(name) => self.first_of(&rules.sources.find(name, self.lock)?, building),
            import::Source::Dockerfile(place) => {
                let (origin, by) = match place {
                    BuildPlace::Path(path) => {
                        let path = real(path)?;
                        let by = permit(Kind::Dockerfile, &path)?;
                        (Origin::Path(path.into()), by)
                    }
                    BuildPlace::Url(url) => (Origin::Url(url.clone()), permit(Kind::Dockerfile, url)?),
                    BuildPlace::Git(text) => {
                        let address = text.parse()?;
                        let by = rules.sources.permit_git(&address)?;
                        (Origin::Git(address), by)
                    }
                };
                let name = self.name.ok_or_else(|| {
                    Usage(
                        "what is built has no name: say after the source what it is to be called".to_owned(),
                    )
                })?;
                self.build(building, &origin, name, by)
            }
        }
    }

    fn build(
        &self,
        building: Option<&Building<'_>>,
        origin: &Origin,
        name: &str,
        by: Option<&Source>,
    ) -> Result<Done> {
        let building = building.context("what is to be imported is no image")?;
        Ok(Done::Built(Box::new(building.build(self, origin, &self.repository.locate(name)?, by)?)))
    }

    /// From the first place that has it.
    fn first_of(&self, found: &Found<'_>, building: Option<&Building<'_>>) -> Result<Done> {
        let kind = found.source.map_or(Kind::Registry, |source| source.kind);
        let mut places = found.places.clone();
        places.retain(can_be_had);
        let Progress { signals, .. } = self.progress;
        let place = |place: &Place| self.place(kind, place, found, building);
        let done = first_of(&places, signals, &|text| self.progress.say(text), place)?;
        done.with_context(|| format!("`{}` was not fetched", found.name))
    }

    fn place(
        &self,
        kind: Kind,
        place: &Place,
        found: &Found<'_>,
        building: Option<&Building<'_>>,
    ) -> Result<Done> {
        let origin = match (kind, place) {
            (_, Place::Git(address)) => Some(Origin::Git(address.clone())),
            (Kind::Dockerfile, Place::Path(path, _)) => Some(Origin::Path(path.clone())),
            (Kind::Dockerfile, Place::Url(url, _)) => Some(Origin::Url(url.clone())),
            _ => None,
        };
        match (origin, place) {
            (Some(origin), _) => {
                let usual = origin.usual_name(&found.name);
                self.build(building, &origin, self.name.unwrap_or(&usual), found.source)
            }
            (None, Place::Image(reference)) => {
                let registry = self.rules.registry(found.source)?;
                let signals = &self.progress.signals;
                let (opened, digest) =
                    signals.at_once(|| remote::open(&registry, reference, self.progress))?;
                let (to, imported) = self.opened(&opened, Some(&name_of(found)), found.source)?;
                Ok(Done::Imported { to, imported, locked: Some((found.name.clone(), digest)) })
            }
            (None, Place::Path(path, tag)) => self.path(kind, path, tag.as_deref(), found.source),
            (None, Place::Url(url, tag)) => self.url(kind, url, tag.as_deref(), found.source),
            (None, Place::Git(_)) => unreachable!("it is the origin of a build"),
        }
    }

    fn path(&self, kind: Kind, path: &Path, tag: Option<&str>, by: Option<&Source>) -> Result<Done> {
        let near = self.repository.dir().path();
        let opened = match kind {
            Kind::Layout => Opened::layout(path, tag)?,
            Kind::Rootfs => Opened::rootfs(path),
            _ => Opened::archive(path, tag, near, self.progress)?,
        };
        let (to, imported) = self.opened(&opened, None, by)?;
        Ok(Done::Imported { to, imported, locked: None })
    }

    fn url(&self, kind: Kind, url: &str, tag: Option<&str>, by: Option<&Source>) -> Result<Done> {
        let near = self.repository.dir().path().to_owned();
        let write = || format!("cannot write to `{}`", near.display());
        drydock_io::file::make_dirs(&near).with_context(write)?;
        remove_stale(&near).with_context(write)?;
        let file = remote::download(&self.rules.registry(by)?, url, &near, self.progress)?;
        self.path(kind, file.path(), tag, by)
    }

    fn opened(
        &self,
        opened: &Opened<'_>,
        called: Option<&str>,
        by: Option<&Source>,
    ) -> Result<(Name, Imported)> {
        let name = self.name.or(called).or(opened.name()).ok_or_else(|| {
            let text =
                "the image has no name where it comes from: say after the source what it is to be called";
            Usage(text.to_owned())
        })?;
        let to = self.repository.locate(name)?;
        let options = options(&self.request, by)?;
        let imported = import::import(opened, self.repository, &to, &options, self.progress)?;
        Ok((to, imported))
    }

    /// The image that a Dockerfile names: from the repository, or else brought there. Then the second is for the lock file.
    pub(super) fn base(&self, name: &str, platform: &Platform) -> Result<(Image, Option<(String, Digest)>)> {
        let reference: ImageRef = name.parse()?;
        // A digest is no name for what is written: what has one is brought under a tag that says it.
        let called = match reference.digest() {
            Some(digest) => {
                format!("{}/{}:sha256-{}", reference.registry(), reference.repository(), digest.hex())
            }
            None => name.to_owned(),
        };
        for name in [name, &called] {
            match self.repository.image(name, platform) {
                // What is locked is looked for where the lock file says.
                Ok(_) if self.lock.is_some() && reference.digest().is_none() => break,
                // The only image of a layout is given whatever its platform.
                Ok(image) if is_for(&image, platform) => return Ok((image, None)),
                Ok(_) => {}
                Err(error) if error.is::<Unknown>() => {}
                Err(error) if matches!(error.downcast_ref(), Some(LayoutError::NoPlatform { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(pin) = reference.digest()
            && let Some(image) = self.pinned(name, pin, platform)?
        {
            return Ok((image, None));
        }
        self.progress.note(&format!("`{name}` is not in the repository for {platform}"));
        self.progress.advance(0)?;
        let request = Request { platform: Some(platform.clone()), flatten: false, ..self.request.clone() };
        let Self { repository, progress, rules, lock, .. } = *self;
        let importer = Importer { repository, progress, rules, request, name: Some(&called), lock };
        match importer.any(&import::Source::Registry(name.to_owned()), None)? {
            Done::Imported { locked, .. } => {
                let image = self.repository.image(&called, platform)?;
                let own = image.config.platform();
                ensure!(is_for(&image, platform), "`{name}` is for {own}, not for {platform}");
                Ok((image, locked))
            }
            Done::Built(_) => unreachable!("what comes from a registry is not built"),
        }
    }

    /// What a name with a digest means, if what stands before that has it in the repository.
    fn pinned(&self, name: &str, pin: Digest, platform: &Platform) -> Result<Option<Image>> {
        let tagged = name.split('@').next().unwrap_or_default();
        match self.repository.open(tagged) {
            Ok((_, layout)) => match layout.pinned_image(pin, platform) {
                Ok(image) => Ok(Some(image).filter(|image| is_for(image, platform))),
                Err(LayoutError::NoManifest { .. } | LayoutError::NoPlatform { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            },
            Err(error) if error.is::<Unknown>() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether an image runs on machines of a platform; of one that does not say, nobody knows better.
fn is_for(image: &Image, platform: &Platform) -> bool {
    let own = image.config.platform();
    own.architecture.is_empty() || own.is_same_machine(platform)
}

/// What the first place gives that has it; why the others do not is said. None if there is no place.
pub(super) fn first_of<P, T>(
    places: &[P],
    signals: &Signals,
    say: &dyn Fn(&str),
    get: impl Fn(&P) -> Result<T>,
) -> Result<Option<T>> {
    let Some((last, others)) = places.split_last() else { return Ok(None) };
    for place in others {
        match get(place) {
            Err(error) if signals.exit_code().is_none() => {
                say(&printable(&format!("warning: not from the first place: {error:#}")));
            }
            done => return done.map(Some),
        }
    }
    get(last).map(Some)
}

/// Whether it is built by a Dockerfile. What cannot be found is told of when it is imported.
pub(super) fn is_built(rules: &Rules, source: &import::Source) -> bool {
    match source {
        import::Source::Dockerfile(_) => true,
        import::Source::Named(name) => {
            let by = rules.sources.find(name, None).ok().and_then(|found| found.source);
            by.is_some_and(|source| matches!(source.kind, Kind::Dockerfile | Kind::Git))
        }
        _ => false,
    }
}

/// The platforms that are asked for, within what the source allows; all, if there is none.
pub(super) fn platforms(wanted: Option<&Platform>, by: Option<&Source>) -> Result<Vec<Platform>> {
    let allowed = by.map_or(&[][..], |source| source.platforms.as_slice());
    match wanted {
        None => Ok(allowed.to_vec()),
        Some(wanted) if allowed.is_empty() || allowed.iter().any(|other| other.is_same(wanted)) => {
            Ok(vec![wanted.clone()])
        }
        Some(wanted) => Err(Usage(format!("the source is not for platform {wanted}")).into()),
    }
}

/// How it is imported: as is asked for, within what the source allows.
fn options(request: &Request, by: Option<&Source>) -> Result<import::Options> {
    let platforms = platforms(request.platform.as_ref(), by)?;
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
