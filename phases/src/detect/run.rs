//! Running `bin/detect`, and reading the build plan that it writes.
//!
//! Specification: `buildpack.md` § Phase #1: Detection.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::{fs, io};

use anyhow::{Context as _, bail};
use drydock_spec::analyzed::Target;
use drydock_spec::buildpack::ModuleKind;
use drydock_spec::plan::{BuildPlan, PlanSections};
use tempfile::TempDir;

use super::Inputs;
use super::report::Report;
use crate::buildpacks::Module;
use crate::env::{BuildEnv, Invocation};
use crate::file::{exists, read_toml, read_toml_if_exists};
use crate::process::{self, Program, Signals};
use crate::{Error, Level};

/// The exit code that says "not for me".
const FAIL: i32 = 100;

/// The build plan's name in its folder.
const PLAN: &str = "plan.toml";

/// What a `bin/detect` came to.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// What it printed on either stream.
    pub(super) output: Arc<[u8]>,
    /// How it ended.
    pub(super) verdict: Verdict,
}

/// How a `bin/detect` ended.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    /// It takes part, in one of these ways.
    Pass(Vec<PlanSections>),
    /// It does not take part.
    Fail,
    /// It does not know: its exit code, unless that is none of its own.
    Exit(Option<i32>),
    /// It could not be run, or is not usable, for this reason.
    Unusable(String),
}

impl Run {
    /// One that was not even started.
    pub(super) fn unusable(reason: impl Into<String>) -> Self {
        Self { output: Arc::from([]), verdict: Verdict::Unusable(reason.into()) }
    }
}

/// What all runs of a detection share.
#[derive(Debug)]
pub(super) struct Runner<'a> {
    /// Where, and with what.
    pub(super) inputs: &'a Inputs,
    /// The environment before what is each module's own.
    pub(super) env: BuildEnv,
    /// What the run image runs on.
    pub(super) target: Target,
    /// What the processes are told if this one is to end.
    pub(super) signals: &'a Signals,
}

impl Runner<'_> {
    /// Runs several at a time; the results come in the order of the modules. If a signal ends them, the report gets
    /// what they printed until then.
    pub(super) fn run_all(&self, modules: &[&Module], report: &mut Report) -> Result<Vec<Run>, Error> {
        // Until all plans' folders are gone.
        let held = self.signals.hold();
        let mut outputs = vec![Vec::new(); modules.len()];
        let (mut programs, mut plan_dirs) = (Vec::new(), Vec::new());
        for (module, output) in modules.iter().zip(&mut outputs) {
            plan_dirs.push(self.prepare(module).map(|prepared| {
                let (plan_dir, command) = prepared?;
                programs.push(Program { command, output });
                Some(plan_dir)
            }));
        }
        let ended = held.end_left(process::run_all(programs, &held));
        let outputs = outputs.into_iter().map(Arc::<[u8]>::from);
        if ended.is_err() {
            for (module, output) in modules.iter().zip(outputs.clone()) {
                report.printed(Level::Info, &module.id, &module.full_name(), &output);
            }
        }
        let mut ended = ended?.into_iter();
        let runs = modules.iter().zip(plan_dirs).zip(outputs).map(|((module, plan_dir), output)| {
            let verdict = plan_dir.and_then(|plan_dir| match plan_dir {
                Some(dir) => verdict(module, dir.path(), ended.next().expect("every program has ended")),
                None => pass(module, fixed_plan(module)?),
            });
            let verdict = verdict.unwrap_or_else(|error| Verdict::Unusable(format!("{error:#}")));
            Run { output, verdict }
        });
        Ok(runs.collect())
    }

    /// The folder of its plan and what to run, unless its plan is there without running anything.
    fn prepare(&self, module: &Module) -> anyhow::Result<Option<(TempDir, Command)>> {
        let executable = executable(module);
        if module.kind == ModuleKind::Extension && !exists(&executable)? {
            return Ok(None);
        }
        let dir = tempfile::Builder::new()
            .prefix("plan.")
            .tempdir_in(&self.inputs.temp_dir)
            .with_context(|| format!("failed to make a folder in `{}`", self.inputs.temp_dir.display()))?;
        let plan_path = dir.path().join(PLAN);
        fs::write(&plan_path, "").with_context(|| format!("failed to write `{}`", plan_path.display()))?;

        let mut command = Command::new(&executable);
        command.arg(&self.inputs.platform_dir).arg(&plan_path);
        command.current_dir(&self.inputs.app_dir);
        command.env_clear().envs(self.variables(module, &plan_path)?);
        Ok(Some((dir, command)))
    }

    fn variables(&self, module: &Module, plan_path: &Path) -> anyhow::Result<Vec<(OsString, OsString)>> {
        self.env.variables(&Invocation {
            api: module.buildpack_api().map_err(|error| error.cause)?,
            root_dir: (module.kind.dir_variable(), &module.root_dir),
            clear_env: module.info.clear_env,
            platform_dir: &self.inputs.platform_dir,
            build_config_dir: &self.inputs.build_config_dir,
            paths: &[("CNB_BUILD_PLAN_PATH", plan_path)],
            target: &self.target,
            exec_env: &self.inputs.exec_env,
        })
    }
}

fn executable(module: &Module) -> PathBuf {
    module.root_dir.join("bin").join("detect")
}

/// The plan of an extension that has no `bin/detect`.
fn fixed_plan(module: &Module) -> anyhow::Result<BuildPlan> {
    let plan = read_toml_if_exists(&module.root_dir.join("detect").join(PLAN))?;
    Ok(plan.unwrap_or_default())
}

fn verdict(module: &Module, plan_dir: &Path, ended: io::Result<ExitStatus>) -> anyhow::Result<Verdict> {
    let status = ended.with_context(|| format!("failed to run `{}`", executable(module).display()))?;
    match status.code() {
        Some(0) => pass(module, read_toml(&plan_dir.join(PLAN))?),
        Some(FAIL) => Ok(Verdict::Fail),
        code => Ok(Verdict::Exit(code)),
    }
}

/// Checks a build plan.
fn pass(module: &Module, plan: BuildPlan) -> anyhow::Result<Verdict> {
    let alternatives = plan.alternatives();
    let (kind, id) = (module.kind, &module.id);
    let requires = || alternatives.iter().flat_map(|sections| &sections.requires);
    if kind == ModuleKind::Extension && requires().next().is_some() {
        bail!("{kind} {id} outputs \"requires\" which is not allowed");
    }
    if let Some(require) = requires().find(|require| !require.version.is_empty()) {
        bail!(
            "{kind} {id} has a \"version\" key in what it requires of `{}`, which is not supported; \
             \"metadata.version\" should be used instead",
            require.name
        );
    }
    Ok(Verdict::Pass(alternatives))
}
