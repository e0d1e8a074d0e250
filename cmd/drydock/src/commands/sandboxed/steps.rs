//! The sandboxes of a build, and what each phase is told and sees in its own.
//!
//! | phase | its files | sees besides |
//! |---|---|---|
//! | analyzer | none but the phases | layers, layout repository |
//! | detector | the builder's | layers; app, platform (read-only) |
//! | restorer | none but the phases | layers, cache; layout repository (read-only) |
//! | builder | the builder's | layers, app; platform (read-only) |
//! | extender | the builder's, or the run image's | layers (what it writes there is gone afterwards), the log, a folder for what it makes; that image's layout, the app if it is used (read-only) |
//! | exporter | none but the phases | layers, cache, layout repository; app, extended run image (read-only) |
//! | creator | the builder's | all of these |
//!
//! No program of the builder runs where the layout repository or the cache is to be seen, unless the creator is asked for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use drydock_images::{Name, Repository};
use drydock_io::access::User;
use drydock_sandbox::bundle::{Mount, Network, Sandbox};
use drydock_sandbox::tree;
use drydock_spec::run::{RunToml, StackToml};
use drydock_spec::toml_text;
use rustix::process::geteuid;

use super::extend::{ENV, EXTENDED};
use super::inputs::Inputs;
use super::lifecycle::Lifecycle;
use super::set;
use crate::cli_sandboxed::Build;
use crate::exit::Usage;

/// Where the phases see what is theirs.
const LIFECYCLE: &str = "/cnb/lifecycle";
pub(super) const LAYOUT_REPO: &str = "/layout-repo";
pub(super) const LAYERS: &str = "/layers";
const PLATFORM: &str = "/platform";
const CACHE: &str = "/cache";

/// Bytes that a file may have in which a builder names its run images.
const MAX_RUN_TOML: u64 = 1 << 20;

/// A phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Analyze,
    Detect,
    Restore,
    /// Extensions change the files that the buildpacks run on.
    ExtendBuild,
    /// Extensions add to the run image.
    ExtendRun,
    Build,
    Export,
    Create,
}

impl Phase {
    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Analyze => "analyzer",
            Self::Detect => "detector",
            Self::Restore => "restorer",
            Self::ExtendBuild => "extender-build",
            Self::ExtendRun => "extender-run",
            Self::Build => "builder",
            Self::Export => "exporter",
            Self::Create => "creator",
        }
    }

    /// Its executable.
    pub(super) fn executable(self) -> &'static str {
        if self.extends() { "extender" } else { self.name() }
    }

    /// Whether it runs among the builder's files, which it may change for itself.
    pub(super) fn is_in_builder(self) -> bool {
        matches!(self, Self::Detect | Self::Build | Self::Create)
    }

    /// Whether it runs among the files of an image that extensions change.
    pub(super) fn extends(self) -> bool {
        matches!(self, Self::ExtendBuild | Self::ExtendRun)
    }

    /// Whether it runs nothing but what others wrote.
    pub(super) fn is_foreign(self) -> bool {
        matches!(self, Self::Detect | Self::Build)
    }
}

/// What all phases of a build have in common.
pub(super) struct Steps<'a> {
    pub(super) options: &'a Build,
    pub(super) inputs: &'a Inputs,
    /// Who the buildpacks are.
    pub(super) user: User,
    /// Whom they can talk to.
    pub(super) network: Network,
    /// The builder's environment.
    pub(super) env: Vec<String>,
    /// The builder, as the phases name it, where extensions take part.
    pub(super) build_image: Option<String>,
    /// What extensions made of the run image.
    pub(super) extended: Option<PathBuf>,
    /// The layout repository.
    pub(super) repository: &'a Path,
    pub(super) lifecycle: Lifecycle,
    /// The app image, as the phases name it; then its further names.
    pub(super) names: Vec<String>,
    pub(super) run_image: Option<String>,
    pub(super) previous_image: Option<String>,
    /// Buildpacks that are not the builder's.
    pub(super) buildpacks: Vec<Mount>,
    pub(super) quiet: bool,
    pub(super) color: bool,
}

/// An image's name as the phases understand it, which have the layout repository elsewhere.
pub(super) fn inner_name(name: &Name, repository: &Path) -> Result<String> {
    if !name.text().starts_with(['/', '.']) {
        return Ok(name.text().to_owned());
    }
    let Ok(below) = name.path().path().strip_prefix(repository) else {
        bail!("`{name}` is not in the layout repository `{}`", repository.display());
    };
    Ok(format!("{LAYOUT_REPO}/{}", below.display()))
}

impl Steps<'_> {
    /// The builder, as the phases name it: only those that are ours can extend it.
    pub(super) fn inner_builder(&self, repository: &Repository) -> Result<String> {
        if self.lifecycle.dir.is_none() {
            bail!(
                "image extensions take part, and the builder's own lifecycle cannot extend images in layouts: leave --lifecycle out"
            );
        }
        inner_name(&repository.locate(self.options.builder()?)?, self.repository)
    }

    /// The sandbox of a phase, with these files.
    pub(super) fn sandbox(&self, phase: Phase, root: &Path) -> Sandbox {
        // Who has other users' files to prepare must be root; an ordinary user has none.
        let is_superuser = geteuid().is_root() && !phase.is_foreign() || phase.extends();
        let user = if is_superuser { User { uid: 0, gid: 0 } } else { self.user };
        let mut mounts = self.mounts(phase);
        if phase.is_in_builder() {
            mounts.extend(self.buildpacks.iter().chain(&self.options.sandboxed.volume).cloned());
        }
        Sandbox {
            root: root.to_owned(),
            writable_root: phase.is_in_builder() || phase.extends(),
            args: self.args(phase),
            env: self.environment(phase),
            working_dir: if phase.is_in_builder() { self.options.workspace.clone() } else { "/".to_owned() },
            user,
            groups: Vec::new(),
            // As everywhere where images are made: `sudo` works.
            new_privileges: phase.extends(),
            mounts,
            network: self.network.clone(),
            limits: self.options.sandboxed.limits(),
            terminal: false,
        }
    }

    fn args(&self, phase: Phase) -> Vec<String> {
        let mut args = vec![format!("{LIFECYCLE}/{}", phase.executable())];
        let mut flag = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
        let (analyzes, exports) =
            (matches!(phase, Phase::Analyze | Phase::Create), matches!(phase, Phase::Export | Phase::Create));
        if phase != Phase::Analyze && phase != Phase::Restore {
            flag("-app", &self.options.workspace);
        }
        if analyzes {
            for (name, value) in [("-run-image", &self.run_image), ("-previous-image", &self.previous_image)]
            {
                if let Some(value) = value {
                    flag(name, value);
                }
            }
            for tag in &self.names[1..] {
                flag("-tag", tag);
            }
        }
        if exports || phase == Phase::Restore {
            flag("-cache-dir", CACHE);
        }
        if let Some(name) = self.build_image.as_deref().filter(|_| phase == Phase::Restore) {
            flag("-build-image", name);
        }
        // Of the exporter, too: where it looks otherwise, buildpacks can put something.
        if phase.extends() || phase == Phase::Export {
            flag("-extended", EXTENDED);
        }
        if phase.extends() {
            flag("-kind", if phase == Phase::ExtendBuild { "build" } else { "run" });
        }
        if let Some(process) = self.options.default_process.as_deref().filter(|_| exports) {
            flag("-process-type", process);
        }
        if self.options.clear_cache {
            match phase {
                Phase::Analyze | Phase::Restore => args.push("-skip-layers".to_owned()),
                Phase::Create => args.push("-skip-restore".to_owned()),
                _ => {}
            }
        }
        if exports || analyzes {
            // A name may look like a flag.
            args.push("--".to_owned());
        }
        if phase == Phase::Export {
            args.extend(self.names.iter().cloned());
        } else if analyzes {
            args.push(self.names[0].clone());
        }
        args
    }

    fn environment(&self, phase: Phase) -> Vec<String> {
        let mut env = if phase.is_in_builder() { self.env.clone() } else { Vec::new() };
        let ids = [self.user.uid, self.user.gid].map(|id| id.to_string());
        for (name, value) in [
            ("CNB_PLATFORM_API", self.lifecycle.api),
            ("CNB_USE_OCI_LAYOUT", "true"),
            ("CNB_OCI_LAYOUT_PATH", LAYOUT_REPO),
            ("CNB_BUILD_LOG", "auto"),
            ("CNB_USER_ID", &ids[0]),
            ("CNB_GROUP_ID", &ids[1]),
        ] {
            set(&mut env, name, value);
        }
        if phase == Phase::ExtendBuild {
            set(&mut env, "CNB_EXTENDED_ENV", &format!("{EXTENDED}/{ENV}"));
        }
        if self.lifecycle.dir.is_none() {
            // Others take layouts for an experiment.
            set(&mut env, "CNB_EXPERIMENTAL_MODE", "silent");
        }
        if self.quiet {
            set(&mut env, "CNB_LOG_LEVEL", "error");
        }
        if !self.color {
            set(&mut env, "CNB_NO_COLOR", "true");
        }
        if let Some(time) = self.options.creation_time {
            set(&mut env, "SOURCE_DATE_EPOCH", &time.to_string());
        }
        env
    }

    fn mounts(&self, phase: Phase) -> Vec<Mount> {
        let Inputs { layers, workspace, platform, cache, .. } = self.inputs;
        let mount =
            |from: &Path, to: &str, writable| Mount { from: from.to_owned(), to: to.to_owned(), writable };
        let mut mounts = Vec::new();
        if !phase.extends() {
            mounts.push(mount(layers, LAYERS, true));
        }
        mounts.extend(self.lifecycle.dir.as_deref().map(|dir| mount(dir, LIFECYCLE, false)));
        let mut add = |from: &Path, to: &str, writable| mounts.push(mount(from, to, writable));
        let app = self.options.workspace.as_str();
        let repository = self.repository;
        match phase {
            Phase::Analyze => add(repository, LAYOUT_REPO, true),
            Phase::Detect => {
                add(workspace, app, false);
                add(platform, PLATFORM, false);
            }
            Phase::Restore => {
                add(cache, CACHE, true);
                add(repository, LAYOUT_REPO, false);
            }
            // The rest of what they see depends on what they are to do.
            Phase::ExtendBuild | Phase::ExtendRun => {}
            Phase::Build => {
                add(workspace, app, true);
                add(platform, PLATFORM, false);
            }
            Phase::Export => {
                add(workspace, app, false);
                add(cache, CACHE, true);
                add(repository, LAYOUT_REPO, true);
                if let Some(extended) = &self.extended {
                    add(extended, &format!("{EXTENDED}/run"), false);
                }
            }
            Phase::Create => {
                add(workspace, app, true);
                add(platform, PLATFORM, false);
                add(cache, CACHE, true);
                add(repository, LAYOUT_REPO, true);
            }
        }
        mounts
    }
}

/// No volume may hide what the phases are given; below that, it may be. The app has a place of its own.
pub(super) fn refuse_hiding(options: &Build) -> Result<(), Usage> {
    let app = options.workspace.as_str();
    let own = [LAYERS, LIFECYCLE, PLATFORM, CACHE, LAYOUT_REPO, EXTENDED];
    let lies_in = |path: &str, dir: &str| Path::new(path).starts_with(dir);
    if let Some(taken) = own.iter().find(|path| lies_in(path, app) || lies_in(app, path)) {
        return Err(Usage(format!("--workspace {app}: the phases need `{taken}` for themselves")));
    }
    for Mount { to, .. } in &options.sandboxed.volume {
        if let Some(hidden) = own.iter().chain([&app]).find(|path| lies_in(path, to)) {
            return Err(Usage(format!("a volume at `{to}` would hide `{hidden}`, which the phases need")));
        }
    }
    Ok(())
}

/// The run images that a builder names.
pub(super) fn run_images(builder: &Path) -> Result<Vec<String>> {
    let read = |name| read_cnb(builder, name);
    // What cannot be parsed is for the phases to say.
    let new = read("run.toml")?.and_then(|text| toml_text::from_str::<RunToml>(&text).ok());
    let old = read("stack.toml")?.and_then(|text| toml_text::from_str::<StackToml>(&text).ok());
    let images = new.into_iter().flat_map(|toml| toml.images).chain(old.map(|toml| toml.run_image));
    Ok(images.flat_map(|one| [one.image].into_iter().chain(one.mirrors)).collect())
}

/// A file in which a builder names run images; none if it is not there.
fn read_cnb(builder: &Path, name: &str) -> Result<Option<String>> {
    tree::read(builder, &format!("/cnb/{name}"), MAX_RUN_TOML)
        .with_context(|| format!("cannot read the builder's /cnb/{name} in `{}`", builder.display()))
}

/// A folder for the phases that run among no files of the builder's: with those in which it names run images.
pub(super) fn make_bare(dir: &Path, builder: &Path) -> Result<()> {
    let cnb = dir.join("cnb");
    drydock_io::file::make_dirs(&cnb).with_context(|| format!("cannot make `{}`", cnb.display()))?;
    for name in ["run.toml", "stack.toml"] {
        if let Some(text) = read_cnb(builder, name)? {
            let path = cnb.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
        }
    }
    Ok(())
}
