//! The same build exported again, elsewhere, under other circumstances, or twice at once.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{APP_IMAGE, APP_LAYOUT, Project, succeed};
use drydock_acceptance::scenario::User;
use drydock_acceptance::tree::{self, Kind, Tree};
use libtest_mimic::Trial;
use rustix::fs::{FlockOperation, flock};

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("repeated::a_second_export_changes_nothing", a_second_export_changes_nothing),
            ("repeated::circumstances_do_not_matter", circumstances_do_not_matter),
            ("repeated::exports_to_one_layout_take_turns", exports_to_one_layout_take_turns),
        ],
    )
}

/// A project with a few layers, of several chunks each.
fn project(executables: &Built) -> Result<Project> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    for layer in ["a", "b", "c"] {
        let line = format!("{layer} and some text that repeats\n");
        project.write_layer(layer, "launch = true", line.repeat(60_000))?;
    }
    for file in 0..200 {
        project.write(&format!("app/dir/{file}"), format!("{file}\n").repeat(file))?;
    }
    project.analyze()?;
    Ok(project)
}

/// The layout as a value, with all contents and modes; which must be 0644 and 0755.
fn layout(project: &Project) -> Result<Tree> {
    let tree = tree::read(&project.path(APP_LAYOUT))?;
    ensure!(!tree.is_empty(), "there is no image");
    for (path, node) in &tree {
        let wanted = if node.kind == Kind::Dir { 0o755 } else { 0o644 };
        ensure!(node.mode == wanted, "{} has mode {:o}", path.display(), node.mode);
    }
    Ok(tree)
}

fn a_second_export_changes_nothing(executables: &Built) -> Result<()> {
    let project = project(executables)?;
    project.export()?;
    let first = layout(&project)?;
    project.export()?;
    same(&first, &layout(&project)?).context("exported twice")?;
    project.analyze()?;
    let output = project.export()?;
    ensure!(output.text().contains("Reusing layer 'acme/a:a'"), "nothing is reused:\n{}", output.text());
    same(&first, &layout(&project)?).context("exported with the layers of the image before")
}

fn same(first: &Tree, second: &Tree) -> Result<()> {
    let found = tree::differences(first, second);
    ensure!(found.is_empty(), "the layouts differ:\n{}", found.join("\n"));
    Ok(())
}

fn circumstances_do_not_matter(executables: &Built) -> Result<()> {
    let project = project(executables)?;
    let core = one_core()?;
    let starters: [&[&str]; 5] = [
        &["env"],
        &["taskset", "--cpu-list", &core],
        &["sh", "-c", r#"umask 0077; exec "$@""#, "sh"],
        &["sh", "-c", r#"umask 0; exec "$@""#, "sh"],
        &["env", "--chdir=/", "TZ=Asia/Tokyo", "LC_ALL=tr_TR.UTF-8", "HOME=/nowhere", "TMPDIR=/nowhere"],
    ];
    let mut first = None;
    for starter in starters {
        succeed(project.exporter_under(starter)?.arg(APP_IMAGE))?;
        let found = layout(&project)?;
        fs::remove_dir_all(project.path("layout-repo/index.docker.io")).context("remove the image")?;
        // The next export finds the same files with other times, and makes all folders anew.
        for file in walkdir::WalkDir::new(project.path("app")) {
            let file = file?;
            if file.file_type().is_file() {
                File::open(file.path())?.set_modified(std::time::SystemTime::now())?;
            }
        }
        match &first {
            None => first = Some(found),
            Some(first) => same(first, &found).with_context(|| format!("{starter:?}"))?,
        }
    }
    Ok(())
}

/// The number of a core that this process may use.
fn one_core() -> Result<String> {
    let status = fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = cores.and_then(|cores| cores.trim().split([',', '-']).next());
    Ok(first.context("the kernel lists the cores")?.to_owned())
}

fn exports_to_one_layout_take_turns(executables: &Built) -> Result<()> {
    let project = project(executables)?;
    fs::rename(project.path("app"), project.path("one")).context("rename the app")?;
    project.write("two/file", "another app\n")?;
    let start = |app: &str, image: &str| -> Result<Child> {
        let mut command = project.exporter()?;
        command.arg("-app").arg(project.path(app)).args(["-report", &format!("{app}.toml"), image]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start an export")
    };
    let mut digests = Vec::new();
    for (app, alone) in [("one", "alone:one"), ("two", "alone:two")] {
        ensure!(start(app, alone)?.wait_with_output()?.status.success(), "exporting {app} failed");
        let layout = project.layout(&format!("layout-repo/index.docker.io/library/alone/{app}"));
        digests.push(layout.verify()?.remove(0).descriptor.digest);
    }
    ensure!(digests[0] != digests[1], "the apps make one image");

    // While the layout is locked neither begins; then they are let go at the same moment.
    ensure!(start("one", APP_IMAGE)?.wait_with_output()?.status.success(), "the first export failed");
    let lock = File::open(project.path(APP_LAYOUT)).context("open the layout")?;
    flock(&lock, FlockOperation::LockExclusive).context("lock the layout")?;
    let mut exports = Vec::new();
    for app in ["one", "two"] {
        let mut export = start(app, APP_IMAGE)?;
        let mut lines = BufReader::new(export.stdout.take().context("its output is a pipe")?).lines();
        let waits = lines
            .by_ref()
            .find(|line| line.as_ref().is_ok_and(|line| line.contains("Waiting for another export")));
        ensure!(waits.is_some(), "the export of {app} does not wait");
        exports.push((export, lines));
    }
    drop(lock);
    for (export, lines) in exports {
        lines.collect::<Result<Vec<_>, _>>().context("read what it printed")?;
        let output = export.wait_with_output()?;
        ensure!(output.status.success(), "an export failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let layout = project.layout(APP_LAYOUT);
    let last = layout.verify()?.remove(0).descriptor.digest;
    ensure!(digests.contains(&last), "{last} is neither image");
    let faults = layout.faults()?;
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}
