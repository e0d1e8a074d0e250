//! Carries a plan out: in the file system in which this process runs itself, which is changed step by step ([`carry_out`]), or each step in
//! a file system that the caller has mounted for it ([`perform`]). What a step has changed is a layer.
//!
//! Programs are run by the caller ([`Runner`]). What is no part of the image is left alone: mounts, `/proc`, `/sys`, `/dev`, and the
//! folders that the caller names.

mod apply;
mod archive;
mod bring;
mod context;
mod layer;
mod overlay;
mod scope;
mod snapshot;
mod target;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_any_change;
#[cfg(test)]
mod tests_archives;
#[cfg(test)]
mod tests_cache;
#[cfg(test)]
mod tests_contexts;
mod users;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use drydock_encode::pipeline::{self, Blob, Job, Settings};
use drydock_io::sink::Sink;
use drydock_layout::ImageLayer;
use drydock_model::digest::{DiffId, Digest};

pub(crate) use self::bring::digest as digest_of_copied;
pub use self::bring::{copy_path, digest_of_path};
pub use self::context::{Context, Going};
pub use self::overlay::{MountPoint, add_mount_points, layer_of_upper};
use self::scope::Scope;
use self::snapshot::{Change, Snapshot};
use self::target::Target;
pub use self::users::{Identity, identify};
use crate::cache::{Cache, Known, mounted};
use crate::plan::{Action, Command, From, Plan, Program, Step};

/// Where a plan is carried out.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The root of the file system.
    pub root: &'a Path,
    /// Folders that are no part of the image, as paths in it.
    pub left_out: &'a [PathBuf],
    /// A folder for scripts, which is no part of the image, for this process. It is there.
    pub scripts: &'a Path,
    /// Where programs see that folder.
    pub scripts_inside: &'a Path,
}

/// How layers are made.
#[derive(Debug, Clone, Copy)]
pub struct Layers<'a> {
    /// Where their files are made, outside of the image.
    pub dir: &'a Path,
    /// How they are compressed.
    pub settings: Settings,
    /// No file in them is later than this, in seconds since 1970.
    pub latest: Option<i64>,
}

/// A layer that was made.
#[derive(Debug)]
pub struct Layer {
    /// The instruction that made it, as it is written.
    pub text: String,
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// The layer.
    pub blob: Blob,
}

/// Gives what `COPY` and `ADD` bring.
pub trait Contexts {
    /// The folder that is meant.
    fn open(&mut self, from: &From) -> Result<&mut Context>;

    /// Downloads a file, which is read from its beginning, with the time of its last change if the server tells that.
    fn download(&mut self, url: &str) -> Result<File>;

    /// The digest of what is mounted of a folder, or would be.
    fn mounted(&mut self, from: &From, path: &str) -> Result<Digest> {
        digest_of_path(self.open(from)?, path)
    }
}

/// Runs programs.
pub trait Runner {
    /// Why a program did not do what it should.
    type Failure;

    /// Runs `words` with the variables `env` and in the folder of the program, as `identity`; its exit code must be 0. The folder is
    /// there.
    fn run(&self, words: &[String], program: &Program, identity: &Identity) -> Result<(), Self::Failure>;
}

/// Why a plan was not carried out to its end.
#[derive(Debug, thiserror::Error)]
pub enum Failure<F> {
    /// Files could not be changed, or looked at.
    #[error("{}", told(*line, text))]
    Files {
        /// Where the instruction stands in the Dockerfile.
        line: usize,
        /// The instruction, as it is written.
        text: String,
        /// Why it failed.
        source: anyhow::Error,
    },
    /// A program failed.
    #[error("{}", told(*line, text))]
    Program {
        /// Where the instruction stands in the Dockerfile.
        line: usize,
        /// The instruction, as it is written.
        text: String,
        /// Why it failed, as the runner says.
        failure: F,
    },
}

/// An instruction for those who are told of it: an image's `ONBUILD` stands on no line of the Dockerfile.
pub fn told(line: usize, text: &str) -> String {
    if line == 0 { format!("ONBUILD {text:.1000}") } else { format!("line {line}: {text:.1000}") }
}

/// What a step has made.
#[derive(Debug)]
pub enum Made {
    /// A layer that is in no layout yet.
    New(Layer),
    /// A layer in the cache.
    Kept {
        /// The instruction that made it, as it is written.
        text: String,
        /// The layer.
        layer: Box<ImageLayer>,
    },
}

impl Made {
    fn diff_id(&self) -> &DiffId {
        match self {
            Self::New(layer) => &layer.diff_id,
            Self::Kept { layer, .. } => &layer.diff_id,
        }
    }
}

/// How layers are made and kept.
#[derive(Debug)]
pub struct Making<'a> {
    /// How they are made.
    pub layers: Layers<'a>,
    /// Where they are kept, if they are: then they are made there.
    pub cache: Option<Cache<'a>>,
}

/// Carries a plan out. `begins` is told of each step before it begins, and whether what it did is known from before. Without `making`, no
/// layers are made.
///
/// After a failure, the file system is left as it is.
pub fn carry_out<R: Runner>(
    plan: &Plan,
    place: &Place<'_>,
    contexts: &mut dyn Contexts,
    mut making: Option<&mut Making<'_>>,
    runner: &R,
    begins: &dyn Fn(&Step, bool),
) -> Result<Vec<Made>, Failure<R::Failure>> {
    let mut made = Vec::new();
    let mut before = None;
    for step in &plan.steps {
        let files = |source| Failure::Files { line: step.line, text: step.text.clone(), source };
        let cache = making.as_mut().and_then(|making| making.cache.as_mut());
        let known = cache.map(|cache| cache.find(step, contexts)).transpose().map_err(files)?.flatten();
        begins(step, known.is_some());
        let done = match (known, making.as_deref()) {
            (Some(Known::Nothing), _) => None,
            (Some(Known::Layer(layer)), _) => {
                apply::apply(&layer, place).map_err(files)?;
                before = None;
                Some(Made::Kept { text: step.text.clone(), layer })
            }
            (None, None) => {
                perform(step, place, contexts, runner)?;
                None
            }
            (None, Some(making)) => {
                let look = || Snapshot::take(place.root, place.left_out);
                let seen = before.take().map_or_else(look, Ok).map_err(files)?;
                let brought = perform(step, place, contexts, runner)?;
                let now = look().map_err(files)?;
                let changes = now.changes_since(&seen);
                before = Some(now);
                keep(&changes, place, making, step, &brought).map_err(files)?
            }
        };
        if let Some(cache) = making.as_mut().and_then(|making| making.cache.as_mut()) {
            cache.done(done.as_ref().map(Made::diff_id));
        }
        made.extend(done);
    }
    Ok(made)
}

/// Makes the layer of a step that brought this, in the cache if there is one.
fn keep(
    changes: &[Change],
    place: &Place<'_>,
    making: &Making<'_>,
    step: &Step,
    brought: &[Digest],
) -> Result<Option<Made>> {
    let Some(cache) = &making.cache else {
        return Ok(make_layer(place.root, changes, &making.layers, &step.text)?.map(Made::New));
    };
    let room = cache.begin(step, brought)?;
    let layers = Layers { dir: &room.blobs_dir(), ..making.layers };
    let layer = make_layer(place.root, changes, &layers, &step.text)?;
    Ok(match room.keep(layer)? {
        Known::Nothing => None,
        Known::Layer(layer) => Some(Made::Kept { text: step.text.clone(), layer }),
    })
}

/// Does what one step says, in the file system at the root of `place`. Gives what it brought or saw of contexts, as
/// [`cache::brought`](crate::cache::brought) does.
pub fn perform<R: Runner>(
    step: &Step,
    place: &Place<'_>,
    contexts: &mut dyn Contexts,
    runner: &R,
) -> Result<Vec<Digest>, Failure<R::Failure>> {
    let files = |source| Failure::Files { line: step.line, text: step.text.clone(), source };
    let program = |failure| Failure::Program { line: step.line, text: step.text.clone(), failure };
    let mut scope = Scope::open(place.root).map_err(files)?;
    match &step.action {
        Action::Run(run) => {
            let prepared = Prepared::of(run, place, &mut scope).map_err(files)?;
            let ran = runner.run(&prepared.words, &prepared.program, &prepared.identity);
            prepared.finish().map_err(files)?;
            ran.map_err(program)?;
            mounted(run, contexts).map_err(files)
        }
        Action::Copy(copying) => {
            let owner = copying.chown.as_deref().map(|text| users::owner(&mut scope, text));
            let owner = owner.transpose().map_err(files)?;
            let mut target = Target::new(&mut scope, owner, copying.chmod.as_ref());
            let brought = bring::bring(contexts, copying, &mut target).map_err(files)?;
            target.finish().map_err(files)?;
            Ok(vec![brought])
        }
        Action::MakeDir { path, user } => {
            make_dir(&mut scope, path, user).map_err(files)?;
            Ok(Vec::new())
        }
    }
}

fn make_dir(scope: &mut Scope, path: &str, user: &str) -> Result<()> {
    if Target::new(scope, None, None).is_dir(path.as_bytes())? {
        return Ok(());
    }
    let owner = users::identify_in(scope, user)?.owner;
    Target::new(scope, Some(owner), None).make_dirs(path.as_bytes()).map(drop)
}

/// What a step has changed in the file system at `root`, as a layer; none if that is nothing.
fn make_layer(root: &Path, changes: &[Change], layers: &Layers<'_>, text: &str) -> Result<Option<Layer>> {
    if changes.is_empty() {
        return Ok(None);
    }
    let source = |sink: &mut dyn Sink| layer::write(root, changes, layers.latest, sink);
    let beside = drydock_io::dir::Place::by_path(&layers.dir.join("layer"));
    let job = Job { source: &source, known: None, blob: Some(&beside), copy: None };
    let done = pipeline::run(&[job], layers.settings).map_err(pipeline::Error::into_source);
    let done = done?.pop().context("the pipeline returns what it did")?;
    let blob = done.blob.context("the pipeline writes the blob that it was asked for")?;
    Ok(Some(Layer { text: text.to_owned(), diff_id: done.diff_id, blob }))
}

/// A program that can be run.
struct Prepared {
    words: Vec<String>,
    program: Program,
    identity: Identity,
    script: Option<PathBuf>,
}

impl Prepared {
    fn of(program: &Program, place: &Place<'_>, scope: &mut Scope) -> Result<Self> {
        let identity = users::identify_in(scope, &program.user)?;
        let mut program = program.clone();
        program.env.append(&mut program.proxies);
        program.env.entry("HOME".to_owned()).or_insert_with(|| identity.home.clone());
        Target::new(scope, None, None).make_dirs(program.dir.as_bytes())?;
        let (words, script) = match &program.command {
            Command::Words(words) => (words.clone(), None),
            Command::Script(text) => {
                let name = format!("script-{}", std::process::id());
                let path = place.scripts.join(&name);
                let write = || {
                    fs::write(&path, text)?;
                    fs::set_permissions(&path, Permissions::from_mode(0o755))
                };
                write().with_context(|| format!("cannot write the script `{}`", path.display()))?;
                (vec![place.scripts_inside.join(name).display().to_string()], Some(path))
            }
        };
        Ok(Self { words, program, identity, script })
    }

    fn finish(self) -> Result<()> {
        let Some(path) = self.script else { return Ok(()) };
        fs::remove_file(&path).with_context(|| format!("cannot remove the script `{}`", path.display()))
    }
}
