//! What `drydock` shows on a terminal, which `script` of util-linux plays, and only there.

use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::succeed;
use libtest_mimic::Trial;
use tar::EntryType as Type;

use super::carrying::text;
use super::{Repository, tar_of};
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("drydock::bars_are_for_terminals", bars_are_for_terminals),
            ("drydock::colours_are_for_terminals", colours_are_for_terminals),
        ],
    )
}

/// What a terminal of 100 columns gets; the command must succeed.
fn on_terminal(repository: &Repository, variables: &[(&str, &str)], arguments: &[&str]) -> Result<String> {
    let line = format!(
        "stty cols 100; exec timeout --foreground --signal=KILL 120 {} {}",
        text(&repository.executable),
        arguments.join(" ")
    );
    let mut command = Command::new("script");
    command.args(["-qefc", &line, "/dev/null"]).stdin(Stdio::null()).env_clear();
    command.env("PATH", "/usr/bin:/bin").env("TERM", "xterm").env("LC_ALL", "C");
    command.env("CNB_OCI_LAYOUT_PATH", repository.dir.path()).envs(variables.iter().copied());
    String::from_utf8(succeed(&mut command)?.stdout).context("a terminal gets UTF-8")
}

fn with_image(executables: &Built) -> Result<Repository> {
    let repository = Repository::new(executables)?;
    repository.write_image("app", &[tar_of(&[(Type::Regular, "f", &"x".repeat(3_000_000))])?])?;
    Ok(repository)
}

fn bars_are_for_terminals(executables: &Built) -> Result<()> {
    let repository = with_image(executables)?;
    let out = tempfile::tempdir()?;
    let archive = format!("oci-archive:{}", text(&out.path().join("app.tar")));
    for (task, arguments) in [
        ("exporting", &["export", "app", &archive][..]),
        ("importing", &["import", &archive, "again"]),
        ("verifying", &["verify"]),
        ("reading layers", &["flatten", "app", "flat"]),
    ] {
        let bar = format!("{task} [");
        let shown = on_terminal(&repository, &[], arguments)?;
        ensure!(shown.contains(&bar) && shown.contains(" MB "), "{arguments:?} has no bar: {shown:?}");
        let (_, cleared) = shown.rsplit_once("\x1b[2K").context("the bar is not cleared")?;
        ensure!(!cleared.contains(&bar), "{arguments:?} leaves its bar: {shown:?}");
        let quiet = on_terminal(&repository, &[], &[&["--quiet"], arguments].concat())?;
        ensure!(!quiet.contains(task), "{arguments:?} is not quiet: {quiet:?}");
        let output = repository.run(arguments)?;
        ensure!(output.exit == 0, "{arguments:?}: exit code {}\n{}", output.exit, output.text());
        let said = output.text();
        ensure!(!said.contains(&bar) && !said.contains('\x1b'), "{arguments:?} without a terminal: {said:?}");
    }
    Ok(())
}

fn colours_are_for_terminals(executables: &Built) -> Result<()> {
    const GREEN: &str = "\x1b[32m";
    let repository = with_image(executables)?;
    let verify = ["verify"];
    for (variables, is_coloured) in [
        (&[][..], true),
        (&[("NO_COLOR", "")], true),
        (&[("NO_COLOR", "1")], false),
        (&[("CNB_NO_COLOR", "true")], false),
    ] {
        let shown = on_terminal(&repository, variables, &verify)?;
        ensure!(shown.contains("whole"), "{shown:?}");
        ensure!(shown.contains(GREEN) == is_coloured, "{variables:?}: {shown:?}");
    }
    let plain = repository.text(&verify)?;
    ensure!(plain.contains("whole") && !plain.contains('\x1b'), "{plain:?}");
    Ok(())
}
