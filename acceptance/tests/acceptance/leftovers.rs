//! What killed phases leave in the layers directory, and what no tar can hold.

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{self, APP_IMAGE, APP_LAYOUT, Project};
use drydock_acceptance::scenario::User;
use drydock_acceptance::tools::STRACE;
use drydock_acceptance::tree;
use libtest_mimic::Trial;

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("leftovers::of_killed_phases", of_killed_phases),
            ("leftovers::are_in_no_layer", are_in_no_layer),
            ("leftovers::sockets_are_named", sockets_are_named),
        ],
    )
}

/// Temporary files in the layers directory.
fn temporary(project: &Project) -> Result<Vec<String>> {
    let tree = tree::read(&project.path("layers"))?;
    let names = tree.keys().map(|path| path.display().to_string());
    Ok(names.filter(|path| path.contains(".drydock-")).collect())
}

fn of_killed_phases(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    project.analyze()?;
    let starter = [STRACE.name, "-f", "-qqq", "-o", "/dev/null", "-e"];
    // The exporter's first rename puts a blob in its place; `report.toml` is the last.
    for attempt in 1..=40 {
        project.write("app/file", format!("{attempt}"))?;
        let inject = format!("inject=renameat:signal=KILL:when={attempt}");
        let starter = [&starter[..], &[inject.as_str()]].concat();
        let output = project::run(project.exporter_under(&starter)?.arg(APP_IMAGE))?;
        if output.exit == 0 || !temporary(&project)?.is_empty() {
            break;
        }
    }
    ensure!(!temporary(&project)?.is_empty(), "no kill left anything: this test shows nothing");
    project.analyze()?;
    let left = temporary(&project)?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

fn are_in_no_layer(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    project.write_layer("lib", "launch = true", "library")?;
    project.write("layers/sbom/launch/acme_a/lib/sbom.cdx.json", "{}")?;
    project.analyze()?;
    project.export()?;
    let layers = |project: &Project| -> Result<Vec<String>> {
        project.layout(APP_LAYOUT).verify()?.remove(0).diff_ids()
    };
    let before = layers(&project)?;
    for path in ["", "config/", "acme_a/", "sbom/launch/acme_a/lib/"] {
        project.write(&format!("layers/{path}.drydock-1-0"), "left")?;
    }
    project.export()?;
    ensure!(layers(&project)? == before, "temporary files are in layers");
    Ok(())
}

fn sockets_are_named(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    project.write_layer("lib", "launch = true", "library")?;
    let _sockets: Vec<UnixListener> = ["app/a socket", "layers/acme_a/lib/socket"]
        .into_iter()
        .map(|path| UnixListener::bind(project.path(path)).context("make a socket"))
        .collect::<Result<_>>()?;
    project.analyze()?;
    let output = project.export()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let warnings: Vec<_> = stderr.lines().filter(|line| line.contains("Sockets are left out")).collect();
    ensure!(warnings.len() == 1, "{stderr}");
    for path in ["app/a socket", "layers/acme_a/lib/socket"] {
        ensure!(warnings[0].contains(&project.path(path).display().to_string()), "{stderr}");
    }
    Ok(())
}
