//! Extensions generate Dockerfiles for the build image and the run image, one extension after the other.
//!
//! Specification: `image_extension.md` § Phase: Generation, `platform.md` § Detector.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, anyhow, bail};
use drydock_model::reference::ImageRef;
use drydock_spec::analyzed::{Analyzed, RunImage, Target};
use drydock_spec::buildpack::ModuleKind;
use drydock_spec::extend::ExtendConfig;
use drydock_spec::group::GroupElement;
use drydock_spec::plan::{BuildpackPlan, Plan};
use drydock_spec::run::RunToml;
use drydock_tar::remove_all;
use tempfile::TempDir;
use walkdir::WalkDir;

use super::Inputs;
use super::dockerfile::{RunDockerfile, check_build, check_run};
use crate::buildpacks::{Module, dir_name};
use crate::env::{BuildEnv, Invocation};
use crate::file::{exists, is_dir, read_text_if_exists, read_toml_if_exists, write};
use crate::process::{self, Held, Program, Signals, describe};
use crate::{Error, Kind, Log, limits};

const BUILD_DOCKERFILE: &str = "build.Dockerfile";
const RUN_DOCKERFILE: &str = "run.Dockerfile";
const EXTEND_CONFIG: &str = "extend-config.toml";

/// What generating needs besides the detector's inputs.
pub(super) struct Generator<'a> {
    /// Where, and with what.
    pub(super) inputs: &'a Inputs,
    /// The environment before what is each extension's own.
    pub(super) env: BuildEnv,
    /// What the run image runs on.
    pub(super) target: Target,
    /// What the processes are told if this one is to end.
    pub(super) signals: &'a Signals,
    /// Where extensions' output and warnings go.
    pub(super) log: &'a dyn Log,
}

/// What an extension generated.
#[derive(Debug)]
struct Generated {
    /// The name of its folder.
    dir_name: String,
    /// Where its files are.
    output_dir: PathBuf,
    /// What it does to the run image, if anything.
    run: Option<RunDockerfile>,
    /// Whether a later extension replaces the run image, so that what this one does to it has no effect.
    ignored: bool,
}

impl Generator<'_> {
    /// Runs the extensions of the group. Returns the plan without what they provide, and what the analyzer found with
    /// the run image that they want.
    pub(super) fn generate(
        &self,
        extensions: &[GroupElement],
        mut plan: Plan,
        mut analyzed: Analyzed,
    ) -> Result<(Plan, Analyzed), Error> {
        let run_toml = read_run(&self.inputs.run_path, self.log)
            .map_err(|error| Error::new(Kind::General, error.context("failed to initialize generator")))?;
        let in_place = self.inputs.platform_api.has_stable_extensions();
        // Until all temporary folders are gone.
        let held = self.signals.hold();
        let temporary = if in_place { None } else { Some(self.temporary_dir("cnb-extensions-generated.")?) };
        let parent = temporary.as_ref().map_or(self.inputs.generated_dir.as_path(), TempDir::path);

        let mut generated = Vec::new();
        for extension in extensions {
            let part = plan.part_of(&extension.id, true);
            let names: Vec<String> = part.entries.iter().map(|require| require.name.clone()).collect();
            generated.push(self.run(extension, &part, parent, &held)?);
            plan = plan.without(&names);
        }

        let (new_base, extend) = run_image_from(&mut generated);
        if let Some(base) = new_base {
            self.switch_run_image(&mut analyzed, base, &run_toml);
        }
        if extend && let Some(run_image) = &mut analyzed.run_image {
            run_image.extend = true;
        }
        for generated in &generated {
            if in_place {
                generated.leave_out_ignored()?;
            } else {
                generated.copy_by_image(&self.inputs.generated_dir)?;
            }
        }
        Ok((plan, analyzed))
    }

    fn temporary_dir(&self, prefix: &str) -> Result<TempDir, Error> {
        let parent = &self.inputs.temp_dir;
        let dir = tempfile::Builder::new().prefix(prefix).tempdir_in(parent);
        dir.with_context(|| format!("failed to make a folder in `{}`", parent.display())).map_err(unusable)
    }

    /// Lets one extension generate, and checks what it generated.
    fn run(
        &self,
        extension: &GroupElement,
        plan: &BuildpackPlan,
        parent: &Path,
        held: &Held<'_>,
    ) -> Result<Generated, Error> {
        let GroupElement { id, version, .. } = extension;
        let module = self.inputs.store.load(ModuleKind::Extension, id, version).map_err(unusable)?;
        let dir_name = dir_name(id).map_err(unusable)?;
        let output_dir = parent.join(&dir_name);
        remove(&output_dir).map_err(unusable)?;
        drydock_io::file::make_dirs(&output_dir)
            .with_context(|| format!("failed to make folder `{}`", output_dir.display()))
            .map_err(unusable)?;
        if exists(&module.root_dir.join("bin").join("generate")).map_err(|error| unusable(error.into()))? {
            self.run_executable(&module, &output_dir, plan, held)?;
        } else {
            copy_tree(&module.root_dir.join("generate"), &output_dir).map_err(unusable)?;
        }
        let run = self.check(id, &output_dir).map_err(unusable)?;
        Ok(Generated { dir_name, output_dir, run, ignored: false })
    }

    fn run_executable(
        &self,
        module: &Module,
        output_dir: &Path,
        plan: &BuildpackPlan,
        held: &Held<'_>,
    ) -> Result<(), Error> {
        let plan_dir = self.temporary_dir("plan.")?;
        let plan_path = plan_dir.path().join("plan.toml");
        write(&plan_path, plan.to_toml().as_bytes()).map_err(unusable)?;
        let inputs = self.inputs;
        let variables = self.env.variables(&Invocation {
            api: module.buildpack_api()?,
            root_dir: (module.kind.dir_variable(), &module.root_dir),
            clear_env: module.info.clear_env,
            platform_dir: &inputs.platform_dir,
            build_config_dir: &inputs.build_config_dir,
            paths: &[("CNB_BP_PLAN_PATH", &plan_path), ("CNB_OUTPUT_DIR", output_dir)],
            target: &self.target,
            // Generating knows no execution environment.
            exec_env: "",
        });
        let executable = module.root_dir.join("bin").join("generate");
        let mut command = Command::new(&executable);
        command.arg(output_dir).arg(&inputs.platform_dir).arg(&plan_path).current_dir(&inputs.app_dir);
        command.env_clear().envs(variables.map_err(unusable)?);
        let doing = || format!("extension `{}`: `{}`", module.full_name(), executable.display());
        let failed = |cause: anyhow::Error| Error::new(Kind::ExtensionFailed, cause.context(doing()));
        let program = Program { command, output: &mut *self.log.output(&module.id) };
        let status = held
            .end_left(process::run(program, held))
            .map_err(|error| error.context(doing()))?
            .map_err(|error| failed(error.into()))?;
        if status.success() { Ok(()) } else { Err(failed(anyhow!(describe(status)))) }
    }

    /// Checks what an extension generated, and returns what it does to the run image.
    fn check(&self, id: &str, output_dir: &Path) -> anyhow::Result<Option<RunDockerfile>> {
        let config = output_dir.join(EXTEND_CONFIG);
        if let Some(arg) = read_toml_if_exists::<ExtendConfig>(&config)?.unwrap_or_default().reserved_arg() {
            bail!("extension {id}: `{}` may not set the argument `{arg}`", config.display());
        }
        let invalid = |name: &str| format!("failed to parse {name} for extension {id}");
        let mut warnings = Vec::new();
        let mut run = None;
        if let Some(text) = read_text_if_exists(&output_dir.join(RUN_DOCKERFILE))? {
            let (dockerfile, odd) = check_run(&text).with_context(|| invalid(RUN_DOCKERFILE))?;
            (run, warnings) = (Some(dockerfile), odd);
        }
        if let Some(text) = read_text_if_exists(&output_dir.join(BUILD_DOCKERFILE))? {
            warnings.extend(check_build(&text).with_context(|| invalid(BUILD_DOCKERFILE))?);
        }
        for warning in warnings {
            self.log.warn(&warning);
        }
        let has_context = |name: &str| is_dir(&output_dir.join(name));
        if has_context("context")? && (has_context("context.build")? || has_context("context.run")?) {
            bail!(
                "extension {id}: image-specific context dir is provided together with a shared context; \
                 leave out either `context`, or `context.build` and `context.run`"
            );
        }
        Ok(run)
    }

    fn switch_run_image(&self, analyzed: &mut Analyzed, base: String, run_toml: &RunToml) {
        let old = analyzed.run_image.as_ref().map_or("", |run_image| &run_image.image);
        if self.inputs.platform_api.has_targets() && base == old {
            return;
        }
        if !contains(run_toml, &base) {
            self.log.warn(&format!("new runtime base image '{base}' not found in run metadata"));
        }
        analyzed.run_image =
            Some(RunImage { reference: base.clone(), image: base, extend: false, target: None });
    }
}

impl Generated {
    /// Renames a `run.Dockerfile` that has no effect, so that the extender does not apply it.
    fn leave_out_ignored(&self) -> Result<(), Error> {
        if self.run.is_none() || !self.ignored {
            return Ok(());
        }
        let path = self.output_dir.join(RUN_DOCKERFILE);
        fs::rename(&path, self.output_dir.join("run.Dockerfile.ignore"))
            .with_context(|| format!("failed to rename `{}`", path.display()))
            .map_err(unusable)
    }

    /// Copies Dockerfiles to `<generated>/{build,run}/<id>/`, as before Platform API 0.13.
    fn copy_by_image(&self, generated_dir: &Path) -> Result<(), Error> {
        let run_name = if self.ignored { "Dockerfile.ignore" } else { "Dockerfile" };
        for (image, dockerfile, name) in
            [("build", BUILD_DOCKERFILE, "Dockerfile"), ("run", RUN_DOCKERFILE, run_name)]
        {
            let from = self.output_dir.join(dockerfile);
            let to = generated_dir.join(image).join(&self.dir_name);
            remove(&to).map_err(unusable)?;
            if !exists(&from).map_err(|error| unusable(error.into()))? {
                continue;
            }
            let copy = || -> io::Result<()> {
                drydock_io::file::make_dirs(&to)?;
                fs::copy(&from, to.join(name))?;
                match fs::copy(self.output_dir.join(EXTEND_CONFIG), to.join(EXTEND_CONFIG)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                }
            };
            copy().with_context(|| format!("failed to copy to `{}`", to.display())).map_err(unusable)?;
        }
        Ok(())
    }
}

/// Removes an extension's folder: what a buildpack's `bin/detect` has put there would be carried out as root.
fn remove(dir: &Path) -> anyhow::Result<()> {
    remove_all(dir).with_context(|| format!("failed to remove `{}`", dir.display()))
}

/// What extensions together make of the run image: the base that the last one to name any names, and whether it is
/// extended from there on. What came before it has no effect.
fn run_image_from(generated: &mut [Generated]) -> (Option<String>, bool) {
    let (mut new_base, mut extend) = (None, false);
    for generated in generated.iter_mut().rev() {
        let Some(run) = &generated.run else { continue };
        if new_base.is_some() {
            generated.ignored = true;
            continue;
        }
        extend |= run.extends;
        new_base.clone_from(&run.new_base);
    }
    (new_base, extend)
}

/// Whether `run.toml` has the image, by whatever digest.
fn contains(run_toml: &RunToml, image: &str) -> bool {
    let names = run_toml.images.iter().flat_map(|entry| std::iter::once(&entry.image).chain(&entry.mirrors));
    let wanted = without_digest(image);
    names.into_iter().any(|name| without_digest(name) == wanted)
}

/// An image's full name with its tag.
fn without_digest(image: &str) -> String {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    name.parse::<ImageRef>().map_or_else(|_| name.to_owned(), |name| name.to_string())
}

fn read_run(path: &Path, log: &dyn Log) -> anyhow::Result<RunToml> {
    Ok(read_toml_if_exists(path)?.unwrap_or_else(|| {
        log.info(&format!("No run metadata found at path \"{}\"", path.display()));
        RunToml::default()
    }))
}

/// Copies folders, files and links; nothing if there is no such folder.
fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    if !exists(from)? {
        return Ok(());
    }
    for entry in WalkDir::new(from).min_depth(1) {
        let entry = entry.with_context(|| format!("failed to read `{}`", from.display()))?;
        let below = entry.path().strip_prefix(from).expect("the walk began there");
        let target = to.join(below);
        let copy = || -> io::Result<()> {
            let kind = entry.file_type();
            if kind.is_dir() {
                drydock_io::file::make_dirs(&target)
            } else if kind.is_symlink() {
                symlink(fs::read_link(entry.path())?, &target)
            } else if !kind.is_file() {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
            } else if entry.metadata()?.len() > limits::COPIED {
                Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("more than {} bytes", limits::COPIED),
                ))
            } else {
                fs::copy(entry.path(), &target).map(drop)
            }
        };
        copy().with_context(|| format!("failed to copy `{}`", entry.path().display()))?;
    }
    Ok(())
}

/// What an extension left cannot be used, or there is no place for it.
fn unusable(cause: anyhow::Error) -> Error {
    Error::new(Kind::Generate, cause)
}
