//! `drydock import dockerfile:…`: what buildah makes of the same Dockerfiles, and Dockerfiles that are wrong.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{self, succeed};
use drydock_acceptance::{here, run_image, tree};
use libtest_mimic::Trial;

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("dockerfiles::as_buildah_builds", as_buildah_builds),
            ("dockerfiles::what_is_wrong_is_said_before_anything_runs", what_is_wrong),
        ],
    )
}

/// A script compares what both make of the cases in `clients/dockerfiles` that need no network.
fn as_buildah_builds(executables: &Built) -> Result<()> {
    let work = tempfile::tempdir()?;
    let mut script = Command::new("python3");
    script.arg("-B").arg(here("clients/dockerfiles.py"));
    // A user namespace, in which the tests may be, allows no more.
    script.args(["--quick", "--isolation", "chroot", "--driver", "overlay", "--work"]).arg(work.path());
    script.arg("--drydock").arg(executables.get()?.dir().join("drydock"));
    let output = succeed(&mut script)?;
    ensure!(output.text().contains(" cases, 0 failed"), "{}", output.text());
    Ok(())
}

/// Dockerfiles, each behind a line with the number of the line that is wrong, and with the beginning of what is said.
const MALFORMED: &str = include_str!("dockerfiles/malformed.txt");

fn what_is_wrong(executables: &Built) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (repository, context, home) =
        (dir.path().join("layouts"), dir.path().join("context"), dir.path().join("home"));
    for name in ["a", "x", "y", "z"] {
        let layout = repository.join("index.docker.io/library").join(name).join("latest");
        fs::create_dir_all(layout.parent().context("a layout is in a folder")?)?;
        run_image::write(&layout)?;
    }
    for path in [&context, &home] {
        fs::create_dir(path)?;
    }
    fs::write(context.join("a"), "")?;
    // Nothing is looked for in registries.
    fs::create_dir_all(home.join(".config/drydock"))?;
    fs::write(
        home.join(".config/drydock/sources.toml"),
        format!(
            "strict = true\n[source.here]\nkind = \"dockerfile\"\nlocation = \"{}\"\n",
            dir.path().display()
        ),
    )?;
    let before = tree::read(&repository)?;
    let cases: Vec<&str> = MALFORMED.trim_start_matches("=== ").split("\n=== ").collect();
    ensure!(cases.len() >= 100, "there are {} cases", cases.len());
    for case in cases {
        let (head, text) = case.split_once('\n').unwrap_or((case, ""));
        let (line, said) = head.split_once(' ').context("a head has a line and what is said")?;
        fs::write(context.join("Dockerfile"), format!("{text}\n"))?;
        let mut command = Command::new(executables.get()?.dir().join("drydock"));
        command.args(["import", "dockerfile:context", "new"]).current_dir(dir.path());
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &home)
            .env("CNB_OCI_LAYOUT_PATH", &repository);
        let output = project::run(&mut command)?;
        let wanted = format!("Dockerfile: line {line}: {said}");
        ensure!(output.exit == 4, "exit code {}: {case}\n{}", output.exit, output.text());
        ensure!(output.text().contains(&wanted), "`{wanted}` is not said of\n{text}\n{}", output.text());
        ensure!(!output.text().contains("RAN"), "a program has run: {case}\n{}", output.text());
    }
    let changed = tree::differences(&before, &tree::read(&repository)?);
    ensure!(changed.is_empty(), "the repository has changed: {}", changed.join("\n"));
    let roots = home.join(".cache/drydock/roots");
    ensure!(!roots.exists(), "something was unpacked: {:?}", fs::read_dir(&roots)?.collect::<Vec<_>>());
    Ok(())
}
