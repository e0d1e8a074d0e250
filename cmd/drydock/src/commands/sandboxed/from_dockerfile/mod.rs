//! `drydock import dockerfile:…`: builds what a folder, an archive or a git repository describes by a Dockerfile.
//!
//! | what | limit |
//! |---|---|
//! | a Dockerfile | [`drydock_extend::language::MAX_TEXT`] bytes |
//! | a `.dockerignore` | [`inputs::MAX_IGNORE`] bytes |
//! | a secret | [`MAX_SECRET`] bytes |
//! | an archive, as a tar | 64 GiB, 1,000,000 files |
//! | a git repository | [`drydock_registry::git::SIZE_LIMIT`] bytes, [`drydock_registry::git::TIME_LIMIT`] |

mod fetched;
mod inputs;
mod journal;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail};
use drydock_encode::pipeline::Settings;
use drydock_extend::language::parse;
use drydock_extend::plan::{Action, Base, Build, Wanted};
use drydock_images::assemble::{Parts, Placed as PlacedLayer, assemble};
use drydock_images::builder::place::{self, Placed};
use drydock_images::{Name, flatten};
use drydock_io::read::is_dir;
use drydock_layout::{Durability, Image, LayoutError};
use drydock_model::digest::Digest;
use drydock_model::manifest::Annotations;
use drydock_model::platform::Platform;
use drydock_model::reference::ImageRef;
use drydock_registry::git::{GitAddress, Revision};
use drydock_registry::sources::{Kind, Place, Source};
use drydock_sandbox::room::Room;
use drydock_spec::time::rfc3339;
use rustix::fs::Mode;
use rustix::process::umask;
use serde_json::json;

pub(super) use self::fetched::{Fetched, fetch, is_asked_for};
use self::inputs::Inputs;
use self::journal::{Journal, warn_unlogged};
use super::dockerfile::{BuiltLayer, Task, forget};
use super::{Shop, variable};
use crate::cli_import::{DockerfileOptions, Secret, SecretPlace};
use crate::commands::import::{Importer, platforms};
use crate::commands::{Context, cores};
use crate::env;
use crate::exit::Usage;
use crate::output::bytes;
use crate::remote;

/// Bytes that a secret may have.
pub(crate) const MAX_SECRET: u64 = 500 << 10;

/// What tools look for to find out where an image comes from.
const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
const SOURCE: &str = "org.opencontainers.image.source";
const REVISION: &str = "org.opencontainers.image.revision";

/// What is built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A folder, or a tar.
    Path(PathBuf),
    /// A tar.
    Url(String),
    /// A git repository, which was fetched before the room was entered.
    Git(GitAddress),
}

impl Origin {
    /// What the image is called of what a file of sources calls so, unless somebody says otherwise.
    pub(crate) fn usual_name(&self, name: &str) -> String {
        let name = name.split('#').next().unwrap_or_default();
        let endings = [".git", ".tar", ".tar.gz", ".tgz", ".tar.zst"];
        let name = endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
        let name = name.trim_end_matches('/');
        let Self::Git(GitAddress { revision, folder, .. }) = self else { return name.to_owned() };
        let tag = match revision {
            Revision::Head => "latest",
            Revision::Name(name) => name,
            Revision::Commit(commit) | Revision::OnBranch { commit, .. } => &commit[..12],
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let tag: String = tag.chars().map(|c| if is_plain(c) { c } else { '-' }).take(128).collect();
        let folder = folder.as_ref().map_or(String::new(), |folder| format!("/{}", folder.to_lowercase()));
        format!("{}{folder}:{}", name.to_lowercase(), tag.trim_start_matches(['.', '-']))
    }
}

/// Whether something can be built from a place: git repositories are where they could be had.
pub(crate) fn can_be_had(place: &Place) -> bool {
    match place {
        Place::Git(address) => fetched::find(address).is_ok(),
        _ => true,
    }
}

/// What it takes to build.
pub(crate) struct Building<'a> {
    /// There is one if a Dockerfile was asked for.
    pub(crate) room: Option<&'a Room>,
    pub(crate) options: &'a DockerfileOptions,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

/// What came of it.
pub(crate) struct Built {
    /// Digests of base images that were imported, by their names in the lock file.
    pub(crate) locked: Vec<(String, Digest)>,
    to: Name,
    image: Image,
    /// How many of its layers are the base's.
    of_base: usize,
    commit: Option<String>,
    /// How many steps there were, and how many of them were known.
    steps: (usize, usize),
    time: Duration,
    left: Option<String>,
}

impl Building<'_> {
    /// Builds an image and gives it a name, for one platform.
    pub(crate) fn build(
        &self,
        importer: &Importer<'_>,
        origin: &Origin,
        to: &Name,
        by: Option<&Source>,
    ) -> Result<Built> {
        let began = Instant::now();
        let room = self.room.context("a Dockerfile is built in a room")?;
        if !self.options.sandboxed.volume.is_empty() {
            let text = "a Dockerfile sees no --volume: RUN --mount=type=bind has what is in the context";
            return Err(Usage(text.to_owned()).into());
        }
        if to.path().digest().is_some() {
            return Err(LayoutError::NamedByDigest(to.path().path().to_owned()).into());
        }
        let platform = match platforms(importer.request.platform.as_ref(), by)?.as_slice() {
            [] => Platform::host(),
            [first, ..] => first.clone(),
        };
        let secrets = secrets(&self.options.secret)?;
        let latest = latest(self.options)?;
        let journal = Journal::begin(to, secrets.values(), self);
        // What is made has the permissions that it asks for, whoever started this.
        let before = umask(Mode::WGRP | Mode::WOTH);
        let shop = Shop::open(Room { ids: room.ids }, &self.options.sandboxed, &[], importer.progress);
        let built = shop.and_then(|shop| {
            let work =
                Work { building: self, importer, shop: &shop, journal: &journal, platform, secrets, latest };
            let built = work.build(origin, to, by, began);
            shop.end()?;
            built
        });
        umask(before);
        journal.end(&built, importer.progress);
        built
    }
}

/// A build that is under way.
struct Work<'a> {
    building: &'a Building<'a>,
    importer: &'a Importer<'a>,
    shop: &'a Shop,
    journal: &'a Journal,
    platform: Platform,
    secrets: BTreeMap<String, Vec<u8>>,
    latest: Option<i64>,
}

impl Work<'_> {
    fn build(&self, origin: &Origin, to: &Name, by: Option<&Source>, began: Instant) -> Result<Built> {
        let Importer { progress, rules, .. } = *self.importer;
        let options = self.building.options;
        let (root, commit) = self.source(origin, by)?;
        let mut inputs = Inputs::read(&root, options)?;
        inputs.leave_out(&self.shop.own_folders(to.dir())?)?;
        let wrong = || inputs.name.clone();
        let dockerfile = parse(&inputs.dockerfile).with_context(wrong)?;
        let args = arguments(&options.build_arg)?;
        let locked = RefCell::new(Vec::new());
        let found = RefCell::new(BTreeMap::new());
        let image = |name: &str, platform: &Platform| -> Result<Image> {
            let key = (name.to_owned(), platform.to_string());
            if let Some(image) = found.borrow().get(&key) {
                return Ok(Image::clone(image));
            }
            let (image, lock) = self.importer.base(name, platform)?;
            locked.borrow_mut().extend(lock);
            found.borrow_mut().insert(key, image.clone());
            Ok(image)
        };
        let wanted = Wanted { target: options.target.as_deref(), args: &args, platform: &self.platform };
        let mut configuration = |name: &str, platform: &Platform| Ok(image(name, platform)?.config);
        let planned = Build::of(&dockerfile, &wanted, &mut configuration).with_context(wrong)?;
        check_machine(&planned).with_context(wrong)?;
        let download = |url: &str, dir: &Path| {
            let by = rules.sources.permit(Kind::Dockerfile, url)?;
            remote::download(&rules.registry(by)?, url, dir, progress)
        };
        let threads = cores();
        let compression = self.importer.request.compression;
        let task = Task {
            build: &planned,
            image: &|name, platform| image(name, platform.unwrap_or(&self.platform)),
            context: &inputs.context,
            ignore: &inputs.ignore,
            without: &inputs.without,
            secrets: &self.secrets,
            download: &download,
            settings: Settings { threads, compression, write_out: false },
            latest: self.latest,
            limits: options.sandboxed.limits(),
            uses_cache: !options.no_cache,
            listener: self.journal,
        };
        let made = self.shop.build_dockerfile(&task, progress).with_context(wrong)?;
        self.journal.pause();

        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        let mut config = made.config.clone();
        if config.created.is_none() || self.latest.is_some() {
            config.created = rfc3339(self.latest.unwrap_or(now));
        }
        let placed = |layer: &BuiltLayer| PlacedLayer {
            diff_id: layer.diff_id,
            descriptor: layer.descriptor.clone(),
            dir: layer.dir.clone(),
        };
        let layers: Vec<PlacedLayer> = made.layers.iter().map(placed).collect();
        let base = made.base.as_ref();
        let annotations = annotations(&planned, base, origin, commit.as_deref())?;
        let parts = Parts { base, layers: &layers, config, annotations };
        let flat = self.importer.request.flatten || by.is_some_and(|source| source.flatten);
        let how = flatten::Options { compression, threads, durability: Durability::OnDisk };
        let mut log = self.journal.so_far().unwrap_or_else(|error| {
            warn_unlogged(&format!("{error:#}"));
            None
        });
        let log = log.as_mut().map(|log| log as &mut dyn std::io::Read);
        let assembled =
            assemble(parts, log, to, flat, how, progress).map_err(|error| forget_damaged(error, &layers))?;
        assembled.unlogged.iter().for_each(|why| warn_unlogged(why));
        let image = self.importer.repository.image(to.text(), &self.platform)?;
        Ok(Built {
            locked: locked.into_inner(),
            to: to.clone(),
            image,
            of_base: if flat { 0 } else { base.map_or(0, |base| base.layers().count()) },
            commit,
            steps: self.journal.steps(),
            time: began.elapsed(),
            left: assembled.left,
        })
    }

    /// The folder in which the source is, and its commit if it has one.
    fn source(&self, origin: &Origin, by: Option<&Source>) -> Result<(PathBuf, Option<String>)> {
        let Importer { progress, rules, .. } = *self.importer;
        let unpacked = |archive: &Path, shown: &str| -> Result<PathBuf> {
            let dir = self.shop.session.make("source")?;
            match place::context(archive, &dir, progress).with_context(|| format!("cannot unpack {shown}"))? {
                Placed::Done => Ok(dir),
                Placed::NoArchive => {
                    let text =
                        format!("{shown} is neither a folder nor a tar: a Dockerfile is in one of them");
                    Err(Usage(text).into())
                }
            }
        };
        match origin {
            Origin::Path(path) => {
                let find = || format!("cannot find `{}`", path.display());
                if is_dir(path).with_context(find)? {
                    return Ok((fs::canonicalize(path).with_context(find)?, None));
                }
                Ok((unpacked(path, &format!("`{}`", path.display()))?, None))
            }
            Origin::Url(url) => {
                let registry = rules.registry(by)?;
                let download = || remote::download(&registry, url, self.shop.session.dir(), progress);
                let file = progress.signals.at_once(download)?;
                Ok((unpacked(file.path(), "what was downloaded")?, None))
            }
            Origin::Git(address) => {
                let (archive, commit) = fetched::find(address)?;
                let root = unpacked(&archive, &format!("`{address}`"))?;
                let folder = address.folder.as_deref().unwrap_or(".");
                Ok((inputs::folder(&root, folder)?, Some(commit)))
            }
        }
    }
}

/// What the cache has of a step, and is damaged, is made anew by the next build.
fn forget_damaged(error: anyhow::Error, layers: &[PlacedLayer]) -> anyhow::Error {
    let Some(LayoutError::Corrupt { path, .. } | LayoutError::WrongSize { path, .. }) = error.downcast_ref()
    else {
        return error;
    };
    match layers.iter().find(|layer| path.starts_with(&layer.dir)).map(|layer| forget(&layer.dir)) {
        None => error,
        Some(Ok(())) => {
            anyhow!("{error:#}; it was kept of an earlier build, and is forgotten now: build again")
        }
        Some(Err(failed)) => failed.context(format!("{error:#}; build with --no-cache")),
    }
}

/// Programs are this machine's.
fn check_machine(build: &Build) -> Result<()> {
    let host = Platform::host();
    for stage in &build.stages {
        let platform = stage.plan.config.platform();
        let run = stage.plan.steps.iter().find(|step| matches!(step.action, Action::Run(_)));
        if let Some(step) = run.filter(|_| !platform.is_same_machine(&host)) {
            let from = "put it into a stage that begins with `FROM --platform=$BUILDPLATFORM`";
            bail!("line {}: RUN for {platform}, but this machine runs {host}: {from}", step.line);
        }
    }
    Ok(())
}

fn annotations(
    build: &Build,
    base: Option<&Image>,
    origin: &Origin,
    commit: Option<&str>,
) -> Result<Annotations> {
    let mut annotations = Annotations::new();
    if let Some(base) = base {
        let mut stage = build.stages.last().context("a Dockerfile has a stage")?;
        while let Base::Stage(number) = stage.base {
            stage = build.stages.get(number).context("a stage is there before those that need it")?;
        }
        if let Base::Image { name, .. } = &stage.base {
            annotations.insert(BASE_NAME.to_owned(), name.parse::<ImageRef>()?.to_string());
            annotations.insert(BASE_DIGEST.to_owned(), base.digest().to_string());
        }
    }
    if let (Origin::Git(address), Some(commit)) = (origin, commit) {
        annotations.insert(SOURCE.to_owned(), address.url.to_string());
        annotations.insert(REVISION.to_owned(), commit.to_owned());
    }
    Ok(annotations)
}

/// Arguments; of those without a value, the ones that are set.
fn arguments(texts: &[String]) -> Result<Vec<(String, String)>> {
    let found: Vec<_> = texts.iter().map(|text| variable(text)).collect::<Result<_>>()?;
    Ok(found.into_iter().flatten().collect())
}

fn secrets(asked: &[Secret]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for Secret { id, place } in asked {
        let cannot = || format!("cannot read the secret `{id}`");
        let value = match place {
            SecretPlace::File(path) => drydock_io::read::read(path, MAX_SECRET)
                .with_context(|| format!("cannot read `{}`", path.display()))
                .with_context(cannot)?,
            SecretPlace::Variable(name) => {
                use std::os::unix::ffi::OsStringExt as _;
                let value = env::handed_on(name).ok_or_else(|| anyhow!("the variable `{name}` is not set"));
                value.with_context(cannot)?.into_vec()
            }
        };
        if found.insert(id.clone(), value).is_some() {
            return Err(Usage(format!("the secret `{id}` is given twice")).into());
        }
    }
    Ok(found)
}

/// When everything is to have been made, in seconds since 1970.
fn latest(options: &DockerfileOptions) -> Result<Option<i64>> {
    let wrong = || Usage("the variable SOURCE_DATE_EPOCH is no number of seconds since 1970".to_owned());
    let seconds = match (options.creation_time, env::source_date_epoch()) {
        (Some(seconds), _) => i64::try_from(seconds).ok(),
        (None, None) => return Ok(None),
        (None, Some(text)) => text.to_str().and_then(|text| text.parse().ok()),
    };
    let seconds = seconds.filter(|seconds| rfc3339(*seconds).is_some());
    Ok(Some(seconds.ok_or_else(wrong)?))
}

impl Built {
    /// Says what came of it.
    pub(crate) fn tell(&self, context: &mut Context) -> Result<()> {
        context.left(self.left.as_ref());
        let layers: Vec<_> = self.image.layers().map(|layer| layer.descriptor).collect();
        let size: u64 = layers.iter().map(|layer| layer.size).sum();
        let (name, digest, time) = (self.to.text(), self.image.digest(), self.time.as_secs_f64());
        let (steps, known) = self.steps;
        let added = layers.len() - self.of_base.min(layers.len());
        if context.json {
            return context.out.json(&json!({
                "name": name, "digest": digest, "size": size, "commit": self.commit,
                "layers": {"reused": layers.len() - added, "added": added},
                "steps": {"known": known, "done": steps - known}, "seconds": time,
            }));
        }
        if context.quiet {
            return context.out.line(&digest.to_string());
        }
        context.out.line(&format!("{name} is {digest}"))?;
        if let Some(commit) = &self.commit {
            context.out.line(&format!("  of commit {commit}"))?;
        }
        let (size, of_base) = (bytes(size), layers.len() - added);
        context
            .out
            .line(&format!("  {size} in {} layers: {of_base} of the base, {added} added", layers.len()))?;
        context.out.line(&format!("  {time:.1} s: {steps} steps, {known} of them known"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_has_a_usual_name() {
        let git = |text: &str| Origin::Git(text.parse().unwrap());
        let path = || Origin::Path("/x".into());
        let hash = "0123456789abcdef0123456789abcdef01234567";
        for (origin, name, want) in [
            (path(), "ctx/shop", "ctx/shop"),
            (path(), "ctx/a/shop.tar.gz", "ctx/a/shop"),
            (git("https://h.io/a"), "code/a", "code/a:latest"),
            (git("https://h.io/a/.git"), "code/a/.git", "code/a:latest"),
            (git("https://h.io/a#v1.2"), "code/A.git#v1.2", "code/a:v1.2"),
            (git("https://h.io/a#rel/1:svc/b"), "code/a#rel/1:svc/b", "code/a/svc/b:rel-1"),
            (git(&format!("https://h.io/a#main@{hash}")), "code/a", "code/a:0123456789ab"),
        ] {
            assert_eq!(origin.usual_name(name), want);
            want.parse::<ImageRef>().unwrap();
        }
    }

    #[test]
    fn secrets_come_from_files_and_variables() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "open sesame\n").unwrap();
        let secret = |id: &str, place| Secret { id: id.to_owned(), place };
        let of_file = secret("a", SecretPlace::File(file.clone()));
        let found =
            secrets(&[of_file.clone(), secret("b", SecretPlace::Variable("PATH".to_owned()))]).unwrap();
        assert_eq!(found["a"], b"open sesame\n");
        assert!(!found["b"].is_empty());
        fs::write(&file, vec![0; 1 + (500 << 10)]).unwrap();
        for asked in [
            vec![of_file],
            vec![secret("a", SecretPlace::File(dir.path().join("none")))],
            vec![secret("a", SecretPlace::Variable("DRYDOCK_NO_SUCH_VARIABLE".to_owned()))],
            vec![secret("b", SecretPlace::Variable("PATH".to_owned())); 2],
        ] {
            assert!(secrets(&asked).is_err());
        }
    }
}
