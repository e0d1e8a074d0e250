//! What is in the way of an image while it is published, and in which order it gets to the disk.

use std::fs;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{APP_IMAGE, APP_LAYOUT, Project, succeed};
use drydock_acceptance::stage::{GID, UID};
use drydock_acceptance::tools::STRACE;
use libtest_mimic::Trial;

use super::{built_before, refused};
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("store::all_names_or_none", all_names_or_none),
            ("store::no_room_for_the_report", no_room_for_the_report),
            ("store::a_file_in_the_way_of_an_output", a_file_in_the_way_of_an_output),
            ("store::on_the_disk_before_anything_goes", on_the_disk_before_anything_goes),
        ],
    )
}

/// Further names of the app image, and where the second one is.
const NAMES: [&str; 3] = [APP_IMAGE, "app:second", "other.com/team/app:third"];
const SECOND: &str = "layout-repo/index.docker.io/library/app/second";

fn all_names_or_none(executables: &Built) -> Result<()> {
    for (in_the_way, says) in
        [("index.json", "index.json"), ("oci-layout", "oci-layout"), ("blobs/sha256/x", "")]
    {
        let project = built_before(executables)?;
        fs::create_dir_all(project.path(SECOND).join(in_the_way))?;
        if says.is_empty() {
            succeed(project.exporter()?.args(NAMES))?;
        } else {
            refused(&project, project.exporter()?.args(NAMES), 62, &format!("{SECOND}/{says}"))?;
        }
    }
    Ok(())
}

fn no_room_for_the_report(executables: &Built) -> Result<()> {
    let project = built_before(executables)?;
    fs::remove_file(project.path("layers/report.toml"))?;
    fs::create_dir(project.path("layers/report.toml"))?;
    refused(&project, project.exporter()?.args(NAMES), 62, "layers/report.toml")?;
    fs::write(project.path("file"), "")?;
    let mut exporter = project.exporter()?;
    exporter.arg("-report").arg(project.path("file/report.toml"));
    refused(&project, exporter.args(NAMES), 62, "file/report.toml")
}

/// As root, who makes the folder usable for the user that it goes on as.
fn a_file_in_the_way_of_an_output(executables: &Built) -> Result<()> {
    let project = Project::new(executables.for_everyone()?, drydock_acceptance::scenario::User::Root)?;
    project.analyze()?;
    project.write("layout-repo/index.docker.io/library/app", "not a folder")?;
    let ids = [format!("-uid={UID}"), format!("-gid={GID}")];
    refused(&project, project.exporter()?.args(ids).arg(APP_IMAGE), 62, "index.docker.io/library/app/latest")
}

/// What a trace of an export says: each `index.json` gets its name when all blobs and it are on the disk, and nothing
/// goes before.
fn on_the_disk_before_anything_goes(executables: &Built) -> Result<()> {
    let project = built_before(executables)?;
    let trace = |sync: &str| -> Result<Vec<String>> {
        let log = project.path("calls");
        let log = log.to_str().context("the path is UTF-8")?;
        let calls = "trace=fsync,fdatasync,rename,renameat,renameat2,linkat,link,unlink,unlinkat";
        let starter = [STRACE.name, "-f", "-y", "-qqq", "-o", log, "-e", calls];
        project.write("app/file", format!("sync {sync}"))?;
        project.analyze()?;
        let mut exporter = project.exporter_under(&starter)?;
        succeed(exporter.env("CNB_LAYOUT_SYNC", sync).args(&NAMES[..2]))?;
        Ok(fs::read_to_string(log)?.lines().map(str::to_owned).collect())
    };
    let calls = trace("true")?;
    for layout in [APP_LAYOUT, SECOND] {
        let dir = project.path(layout);
        let dir = dir.to_str().context("the path is UTF-8")?;
        let index = calls
            .iter()
            .position(|call| call.contains("rename") && call.contains(&format!("<{dir}>, \"index.json\"")));
        let index = index.with_context(|| format!("no rename to {dir}/index.json"))?;
        let synced = |path: &str| {
            calls[..index].iter().any(|call| call.contains("sync(") && call.contains(&format!("<{path}>")))
        };
        let image = project.layout(layout).verify()?.remove(0);
        for descriptor in image.layers.iter().chain([&image.descriptor, &image.config_descriptor]) {
            let blob = project.layout(layout).blob_path(&descriptor.digest);
            ensure!(synced(&blob.display().to_string()), "{} was not synced", blob.display());
        }
        ensure!(synced(&format!("{dir}/blobs/sha256")), "the folder of blobs was not synced");
        let after = |call: &String| call.contains("sync(") && call.contains(&format!("<{dir}>"));
        ensure!(calls[index..].iter().any(after), "{dir} was not synced after the rename");
        let removed = |call: &&String| {
            call.contains("unlink") && call.contains("blobs/sha256>") && !call.contains(".drydock-")
        };
        let early: Vec<_> = calls[..index].iter().filter(removed).collect();
        ensure!(early.is_empty(), "removed before the new image is there: {early:?}");
    }
    let calls = trace("false")?;
    ensure!(!calls.iter().any(|call| call.contains("sync(")), "synced all the same");
    Ok(())
}
