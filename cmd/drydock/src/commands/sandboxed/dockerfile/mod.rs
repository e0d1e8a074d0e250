//! Builds an image of a Dockerfile: each stage on the files of its base, each step in a layer above that, each `RUN` in a sandbox.
//!
//! What a step writes is kept in the cache, with its layer, under the key of the step ([`drydock_extend::cache`]): the next build puts the
//! next step on it, and unpacks nothing.
//!
//! A command that builds enters a room as the superuser, opens a [`Shop`], builds, brings the layers into its image (`base.layers()` by
//! [`drydock_layout::Transaction::bring`], others by `bring_blob`), drops what was built, and ends the shop.

mod contexts;
mod kept;
mod mounts;
mod program;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use drydock_encode::pipeline;
use drydock_extend::cache;
use drydock_extend::in_place::{Failure, Layers, Place, layer_of_upper, perform, told};
use drydock_extend::language::IgnoreRules;
use drydock_extend::plan::{Action, Base, Build, Mount, Network, PlannedStage, Step};
use drydock_images::Watch as _;
use drydock_io::file::TempFile;
use drydock_io::lock::Identity;
use drydock_layout::{Image, blobs_dir};
use drydock_model::config::{History, ImageConfig};
use drydock_model::digest::{DiffId, Digest};
use drydock_model::manifest::Descriptor;
use drydock_model::platform::Platform;
use drydock_sandbox::bundle;
use drydock_sandbox::ids::Ids;
use drydock_sandbox::limits::Limits;
use drydock_sandbox::roots::Root;
use drydock_sandbox::tree::{Above, MAX_LOWER, Tree, make_alike, opaque_attribute};
use drydock_spec::time::rfc3339;

use self::contexts::{Contexts, Stack};
pub(super) use self::kept::forget;
use self::kept::{Done, Kept, LayerNote};
use self::mounts::{Maker, Mounts};
use self::program::{Programs, SCRIPTS};
use super::Shop;
use super::inputs::open_to_all;
use crate::progress::Progress;

/// A Dockerfile that is built, and what it is given.
pub(crate) struct Task<'a> {
    /// What it comes to.
    pub(crate) build: &'a Build,
    /// The image that `FROM` (of a platform), `COPY --from` or a mount names.
    pub(crate) image: &'a dyn Fn(&str, Option<&Platform>) -> Result<Image>,
    /// The folder that files come from.
    pub(crate) context: &'a Path,
    /// What of it is left out.
    pub(crate) ignore: &'a IgnoreRules,
    /// Folders that are no part of it, whatever they are called there.
    pub(crate) without: &'a [Identity],
    /// Secrets, by their IDs. They get into no layer, no key and no log.
    pub(crate) secrets: &'a BTreeMap<String, Vec<u8>>,
    /// Downloads what is at a URL into a new file in a folder, with the time of its last change if the server tells that.
    pub(crate) download: &'a dyn Fn(&str, &Path) -> Result<TempFile>,
    /// How layers are compressed.
    pub(crate) settings: pipeline::Settings,
    /// No file of a layer is later than this, in seconds since 1970 (`SOURCE_DATE_EPOCH`); all is said to have been made at this time.
    pub(crate) latest: Option<i64>,
    /// What each program may use.
    pub(crate) limits: Limits,
    /// Whether what earlier builds made is taken.
    pub(crate) uses_cache: bool,
    /// Whom it tells of its steps, and what programs print to.
    pub(crate) listener: &'a dyn Listener,
}

/// Who is told how a build goes.
pub(crate) trait Listener {
    /// A step begins, or is known from an earlier build.
    fn begins(&self, step: &StepOf<'_>);

    /// Standard output and standard error of the next program.
    fn streams(&self) -> Result<(Stdio, Stdio)>;
}

/// A step, for those who watch.
pub(crate) struct StepOf<'a> {
    /// Its stage; `stage.plan.steps` has all of it.
    pub(crate) stage: &'a PlannedStage,
    /// From 1 on.
    pub(crate) number: usize,
    pub(crate) step: &'a Step,
    /// Whether it was done before.
    pub(crate) is_known: bool,
}

/// What came of it.
pub(crate) struct Built {
    /// The image that the wanted stage begins from, through other stages if need be; none: from nothing. Its layers come first.
    pub(crate) base: Option<Image>,
    /// The layers above the base's, the lowest first.
    pub(crate) layers: Vec<BuiltLayer>,
    /// The configuration with its history; diff IDs are those of the layers when it is written (`NewImage`).
    pub(crate) config: ImageConfig,
    /// What the layers lie in stays as long as this is not dropped.
    pub(crate) _kept: HashMap<String, Root>,
}

/// A layer in the cache.
pub(crate) struct BuiltLayer {
    pub(crate) diff_id: DiffId,
    pub(crate) descriptor: Descriptor,
    /// A folder with `blobs/sha256` that has it, as [`drydock_layout::Transaction::bring_blob`] takes it.
    pub(crate) dir: PathBuf,
}

/// What a stage has come to.
struct Stage {
    base: Option<Image>,
    stack: Stack,
    /// The steps that changed something, above the base, the lowest first.
    layers: Vec<(Done, LayerNote)>,
    /// Of its files.
    key: Digest,
    history: Vec<History>,
    created: Option<String>,
}

impl Shop {
    /// Builds the wanted stage, with all that it needs.
    pub(crate) fn build_dockerfile(&self, task: &Task<'_>, progress: &Progress) -> Result<Built> {
        self.check(task)?;
        let users = self.room.users().context("cannot read the users of this namespace")?;
        let contexts = Contexts::new(self, task, progress);
        let mut builder =
            Builder { shop: self, task, progress, users: &users, contexts, kept: Kept::new(self, &users) };
        let built = builder.build();
        // Nothing is mounted any more where this is moved from.
        drop(builder.contexts);
        let kept = builder.kept.finish();
        let (stage, mut config) = built?;
        let kept = kept?;
        config.history = stage.history;
        config.created = stage.created;
        let layer = |(done, LayerNote { diff_id, descriptor }): (Done, LayerNote)| -> Result<BuiltLayer> {
            let dir = kept.get(&done.name).context("all that was used is kept")?.dir().to_owned();
            Ok(BuiltLayer { diff_id, descriptor, dir })
        };
        let layers = stage.layers.into_iter().map(layer).collect::<Result<_>>()?;
        Ok(Built { base: stage.base, layers, config, _kept: kept })
    }

    /// What can be known to be impossible, before anything is done.
    fn check(&self, task: &Task<'_>) -> Result<()> {
        if self.room.ids == Ids::One {
            bail!(
                "files of images belong to several users, and there is only one user id: give this user subordinate ids \
                 (/etc/subuid, /etc/subgid; apt-get install uidmap), or build as root"
            );
        }
        // Of each stage that is done, how many folders it takes at least: what is copied is in a layer of its own.
        let mut done: Vec<usize> = Vec::new();
        for stage in &task.build.stages {
            let mut folders = match stage.base {
                Base::Stage(number) => done.get(number).copied().unwrap_or(1),
                Base::Scratch | Base::Image { .. } => 1,
            };
            for step in &stage.plan.steps {
                let line = step.line;
                if matches!(step.action, Action::Copy(_)) {
                    check_height(folders, line)?;
                    folders += 1;
                }
                let Action::Run(program) = &step.action else { continue };
                if program.network == Network::Host && self.network != bundle::Network::Host {
                    bail!(
                        "line {line}: RUN --network=host reaches all of this machine: it is to be allowed by --network host"
                    );
                }
                for mount in &program.mounts {
                    if let Mount::Secret { id, required: true, .. } = mount
                        && !task.secrets.contains_key(id)
                    {
                        bail!("line {line}: the secret `{id}` is not given: add --secret id={id},src=FILE");
                    }
                }
            }
            done.push(folders);
        }
        Ok(())
    }
}

/// Whether a step can be done on so many folders, with one for mounts and the one that it writes to.
fn check_height(folders: usize, line: usize) -> Result<()> {
    if folders + 2 > MAX_LOWER {
        bail!("line {line}: the image has too many layers: put several instructions into one");
    }
    Ok(())
}

struct Builder<'a> {
    shop: &'a Shop,
    task: &'a Task<'a>,
    progress: &'a Progress,
    users: &'a str,
    contexts: Contexts<'a>,
    kept: Kept<'a>,
}

impl Builder<'_> {
    fn build(&mut self) -> Result<(Stage, ImageConfig)> {
        let mut done: Vec<Stage> = Vec::new();
        for planned in &self.task.build.stages {
            let mut stage = self.begin(planned, &done)?;
            let mut made = Vec::new();
            for (number, step) in planned.plan.steps.iter().enumerate() {
                // It says whether a signal came, or the time is over.
                self.progress.advance(0)?;
                made.push(self.step(planned, number + 1, step, &mut stage)?);
            }
            let makes_layer = |step: usize| made.get(step) == Some(&true);
            stage.history.extend(planned.plan.history(stage.created.as_deref(), &makes_layer));
            self.contexts.add_stage(stage.stack.clone());
            done.push(stage);
        }
        let stage = done.pop().context("a Dockerfile has a stage")?;
        let config = self.task.build.stages.last().context("a Dockerfile has a stage")?.plan.config.clone();
        Ok((stage, config))
    }

    fn begin(&mut self, planned: &PlannedStage, done: &[Stage]) -> Result<Stage> {
        Ok(match &planned.base {
            Base::Stage(number) => {
                let Stage { base, stack, layers, key, history, created } =
                    done.get(*number).context("a stage is done before those that need it")?;
                Stage {
                    base: base.clone(),
                    stack: stack.clone(),
                    layers: layers.clone(),
                    key: *key,
                    history: history.clone(),
                    created: created.clone(),
                }
            }
            Base::Scratch => {
                let empty = self.contexts.folder("scratch")?;
                open_to_all(&empty, 0o755)?;
                let key = cache::first_key("scratch");
                Stage {
                    base: None,
                    stack: vec![empty],
                    layers: Vec::new(),
                    key,
                    history: Vec::new(),
                    created: None,
                }
            }
            Base::Image { name, platform } => {
                let (image, files) = self.contexts.image(name, Some(platform))?;
                let mut config = image.config.clone();
                config.complete_history(image.layers().count());
                Stage {
                    base: Some(image.clone()),
                    stack: vec![files.to_owned()],
                    layers: Vec::new(),
                    key: cache::first_key(&image.digest().to_string()),
                    history: config.history,
                    created: config.created,
                }
            }
        })
    }

    /// Gives whether the step makes a layer.
    fn step(
        &mut self,
        planned: &PlannedStage,
        number: usize,
        step: &Step,
        stage: &mut Stage,
    ) -> Result<bool> {
        let failed = || told(step.line, &step.text);
        let brought = cache::brought(step, &mut self.contexts).with_context(failed)?;
        let known = self.kept.find(&self.name(stage, step, &brought), self.task.uses_cache)?;
        let is_known = known.is_some();
        self.task.listener.begins(&StepOf { stage: planned, number, step, is_known });
        let done = match known {
            Some(done) => done,
            None => self.perform(step, stage)?,
        };
        stage.key = cache::key_after(&stage.key, done.note.layer.as_ref().map(|layer| &layer.diff_id));
        stage.created = rfc3339(done.note.created);
        let Some(layer) = done.note.layer.clone() else { return Ok(false) };
        stage.stack.insert(0, done.files.clone());
        stage.layers.push((done, layer));
        Ok(true)
    }

    /// The name under which a step is kept that brings this.
    fn name(&self, stage: &Stage, step: &Step, brought: &[Digest]) -> String {
        Kept::name(&cache::key(&stage.key, step, brought), &self.task.settings, self.task.latest)
    }

    /// Does what a step says, in a folder above what its stage has come to.
    fn perform(&mut self, step: &Step, stage: &Stage) -> Result<Done> {
        check_height(stage.stack.len(), step.line)?;
        let dir = self.contexts.folder("steps")?;
        let make = |dir: &Path, name: &str| -> Result<PathBuf> {
            let path = dir.join(name);
            drydock_io::file::make_dirs(&path)
                .with_context(|| format!("cannot make `{}`", path.display()))?;
            Ok(path)
        };
        let work = self.contexts.folder("work")?;
        let above = Above { upper: make(&dir, "files")?, work: make(&work, "work")? };
        let (at, points, scripts) = (make(&work, "root")?, make(&work, "points")?, make(&work, "scripts")?);
        open_to_all(&scripts, 0o755)?;
        let lowers: Vec<&Path> = stage.stack.iter().map(PathBuf::as_path).collect();
        let before = Tree::stacked(&lowers, None, &make(&work, "before")?, &self.shop.room)?;
        let mut programs = Programs {
            shop: self.shop,
            task: self.task,
            progress: self.progress,
            name: format!("run-{}", dir.file_name().unwrap_or_default().display()),
            root: at.clone(),
            mounts: Mounts::default(),
            scripts: scripts.clone(),
        };
        let mut below = lowers.clone();
        if let Action::Run(program) = &step.action {
            let Self { shop, task, progress, users, contexts, .. } = self;
            let failed = || told(step.line, &step.text);
            programs.mounts =
                Maker { shop, task, progress, users, contexts }.make(program).with_context(failed)?;
            make_alike(&points, before.path())?;
            programs.add_mount_points(program, before.path(), &points).with_context(failed)?;
            below.insert(0, &points);
        }
        let tree = Tree::stacked(&below, Some(&above), &at, &self.shop.room)?;
        let place =
            Place { root: tree.path(), left_out: &[], scripts: &scripts, scripts_inside: Path::new(SCRIPTS) };
        let brought = perform(step, &place, &mut self.contexts, &programs).map_err(|failure| {
            let doing = failure.to_string();
            let (Failure::Files { source, .. } | Failure::Program { failure: source, .. }) = failure;
            source.context(doing)
        })?;
        self.contexts.forget_downloads();
        let name = self.name(stage, step, &brought);
        // It may be known all the same, if the context has changed meanwhile.
        if let Some(known) = self.kept.find(&name, self.task.uses_cache)? {
            return Ok(known);
        }
        // From here on, what was written does not change. Layers have no `/`: it stays as it is below.
        drop((tree, programs));
        make_alike(&above.upper, before.path())?;
        let blobs = make(&blobs_dir(&dir), "")?;
        let layers = Layers { dir: &blobs, settings: self.task.settings, latest: self.task.latest };
        let layer = layer_of_upper(
            &above.upper,
            opaque_attribute(self.shop.room.ids),
            before.path(),
            &layers,
            &step.text,
        )
        .with_context(|| told(step.line, &step.text))?;
        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        self.kept.add(name, dir, layer, self.task.latest.unwrap_or(now))
    }
}
