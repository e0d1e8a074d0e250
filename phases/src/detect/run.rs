//! Running `bin/detect`, and reading the build plan that it writes.
//!
//! Specification: `buildpack.md` § Phase #1: Detection.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io, thread};

use anyhow::{Context as _, bail};
use drydock_spec::analyzed::Target;
use drydock_spec::buildpack::ModuleKind;
use drydock_spec::plan::{BuildPlan, PlanSections};

use super::Inputs;
use crate::buildpacks::Module;
use crate::env::{BuildEnv, Invocation};
use crate::file::{read_toml, read_toml_if_exists};

/// How many processes run at a time at most.
const PARALLEL: usize = 16;

/// The exit code that says "not for me".
const FAIL: i32 = 100;

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
}

impl Runner<'_> {
    /// Runs several at a time; the results come in the order of the modules.
    pub(super) fn run_all(&self, modules: &[&Module]) -> Vec<Run> {
        let next = AtomicUsize::new(0);
        let results: Mutex<BTreeMap<usize, Run>> = Mutex::default();
        let work = || {
            while let place = next.fetch_add(1, Ordering::Relaxed)
                && let Some(module) = modules.get(place)
            {
                let run = self.run(module);
                results.lock().unwrap_or_else(PoisonError::into_inner).insert(place, run);
            }
        };
        thread::scope(|scope| {
            for _ in 1..modules.len().min(PARALLEL) {
                // Without a further thread the others do its share.
                if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
        results.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
    }

    fn run(&self, module: &Module) -> Run {
        let mut output = Vec::new();
        let verdict = self.detect(module, &mut output);
        Run {
            output: output.into(),
            verdict: verdict.unwrap_or_else(|error| Verdict::Unusable(format!("{error:#}"))),
        }
    }

    fn detect(&self, module: &Module, output: &mut Vec<u8>) -> anyhow::Result<Verdict> {
        let executable = module.root_dir.join("bin").join("detect");
        if module.kind == ModuleKind::Extension && !executable.exists() {
            let plan = read_toml_if_exists(&module.root_dir.join("detect").join("plan.toml"))?;
            return pass(module, plan.unwrap_or_default());
        }
        let dir = tempfile::Builder::new()
            .prefix("plan.")
            .tempdir_in(&self.inputs.temp_dir)
            .with_context(|| format!("failed to make a folder in `{}`", self.inputs.temp_dir.display()))?;
        let plan_path = dir.path().join("plan.toml");
        fs::write(&plan_path, "").with_context(|| format!("failed to write `{}`", plan_path.display()))?;

        let mut command = Command::new(&executable);
        command.arg(&self.inputs.platform_dir).arg(&plan_path);
        command.current_dir(&self.inputs.app_dir);
        command.env_clear().envs(self.variables(module, &plan_path)?);
        let status = run_to_end(command, output)
            .with_context(|| format!("failed to run `{}`", executable.display()))?;
        match status.code() {
            Some(0) => pass(module, read_toml(&plan_path)?),
            Some(FAIL) => Ok(Verdict::Fail),
            code => Ok(Verdict::Exit(code)),
        }
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

/// Runs a command to its end with nothing to read, and with both of its streams in one.
pub(super) fn run_to_end(mut command: Command, output: &mut dyn Write) -> io::Result<ExitStatus> {
    let (mut reader, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn()?;
    // The command holds our ends for writing: as long as one is open, reading does not end.
    drop(command);
    let copied = io::copy(&mut reader, output);
    let status = child.wait()?;
    copied?;
    Ok(status)
}
