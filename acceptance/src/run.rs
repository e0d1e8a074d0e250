//! Runs a scenario's steps, each in a mount namespace whose root is the stage.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::compare;
use crate::scenario::{Scenario, Step, User};
use crate::snapshot;
use crate::stage::{GID, Stage, UID};

/// What is in a phase's environment when a scenario says nothing else; `CNB_USER_ID` and `CNB_GROUP_ID` come with it.
const ENVIRONMENT: [(&str, &str); 8] = [
    ("PATH", "/usr/bin:/bin"),
    ("HOME", "/home/cnb"),
    ("LC_ALL", "C"),
    ("CNB_PLATFORM_API", "0.14"),
    ("CNB_EXPERIMENTAL_MODE", "quiet"),
    ("CNB_NO_COLOR", "true"),
    ("CNB_USE_LAYOUT", "true"),
    ("CNB_LAYOUT_DIR", "/layout-repo"),
];

/// How long one step may take; after that it is killed, and the exit code is 137.
const PATIENCE_SECONDS: u32 = 120;

/// What a program did.
#[derive(Debug)]
pub struct Output {
    /// Its exit code; 128 and the signal's number when a signal ended it.
    pub exit: i32,
    /// All that it wrote there.
    pub stdout: Vec<u8>,
    /// All that it wrote there.
    pub stderr: Vec<u8>,
}

impl Output {
    /// All that was written, for people.
    pub fn text(&self) -> String {
        [&self.stdout, &self.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
    }
}

/// Runs the scenario with the executables of a folder and the images of another, and says what is not as it should be.
/// Steps after one that fails run all the same: what they say may explain it.
pub fn scenario(scenario: &Scenario, images: &Path, executables: &Path) -> Result<Vec<String>> {
    let stage = Stage::new(scenario, images)?;
    let mut differences = Vec::new();
    for (number, (step, expected)) in scenario.steps.iter().enumerate() {
        let name = || format!("step {} ({})", number + 1, step.phase);
        stage.apply(&step.setup).with_context(name)?;
        let output = run_step(step, &stage, executables).with_context(name)?;
        let found = snapshot::take(&stage, scenario, &step.phase, &output).with_context(|| {
            format!("{}, exit code {}: {}", name(), output.exit, String::from_utf8_lossy(&output.stderr))
        })?;
        let found = compare::differences(step, expected, &found);
        differences.extend(found.into_iter().map(|difference| format!("{}: {difference}", name())));
    }
    Ok(differences)
}

fn run_step(step: &Step, stage: &Stage, executables: &Path) -> Result<Output> {
    let mut environment = environment();
    for (name, value) in &step.env {
        match value {
            Some(value) => environment.insert(name, value.clone()),
            None => environment.remove(name.as_str()),
        };
    }
    let program = step.program.clone().unwrap_or_else(|| format!("/cnb/lifecycle/{}", step.phase));
    command(stage, executables, step.user, &environment).arg(program).args(&step.args).output().map_or_else(
        |error| Err(error).context("start unshare (package util-linux)"),
        |output| {
            let exit = output.status.code().context("the program that watches the time was killed")?;
            Ok(Output { exit, stdout: output.stdout, stderr: output.stderr })
        },
    )
}

/// A phase's environment when nothing else is said.
pub fn environment() -> BTreeMap<&'static str, String> {
    let fixed = ENVIRONMENT.iter().map(|(name, value)| (*name, (*value).to_owned()));
    fixed.chain([("CNB_USER_ID", UID.to_string()), ("CNB_GROUP_ID", GID.to_string())]).collect()
}

/// A command that runs its arguments, to be added, on the stage: as `user`, in `/workspace`, with this environment and
/// no other, with `executables` at `/cnb/lifecycle`, for a limited time.
pub fn command(
    stage: &Stage,
    executables: &Path,
    user: User,
    environment: &BTreeMap<&str, String>,
) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--signal=KILL", &PATIENCE_SECONDS.to_string()]);
    command.args(["unshare", "--mount", "sh", "-c", include_str!("enter.sh"), "enter.sh"]);
    command.arg(stage.root()).arg(executables);
    if user == User::Cnb {
        let (uid, gid) = (UID.to_string(), GID.to_string());
        command.args(["/usr/bin/setpriv", "--reuid", &uid, "--regid", &gid, "--clear-groups", "--"]);
    }
    command.args(["/usr/bin/env", "-i", "--chdir=/workspace"]);
    command.args(environment.iter().map(|(name, value)| format!("{name}={value}")));
    command.stdin(Stdio::null());
    command
}
