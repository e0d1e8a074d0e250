//! Faults of the system while an image is published: whatever fails, the old image or the new one is there, whole.

use std::fs;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{self, APP_IMAGE, APP_LAYOUT, Project, succeed};
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
            ("store::faults_of_system_calls", faults_of_system_calls),
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

/// System calls, what they fail with, and how many of their calls at most.
const FAULTS: [(&str, &str, usize); 14] = [
    ("statx", "EIO", 40),
    ("newfstatat", "EIO", 30),
    ("fstat", "EIO", 30),
    ("openat", "EMFILE", 40),
    ("read", "EIO", 30),
    ("pread64", "EIO", 30),
    ("write", "ENOSPC", 30),
    ("rename", "EROFS", 20),
    ("link", "EMLINK", 10),
    ("fsync", "EIO", 20),
    ("mkdir", "ENOSPC", 10),
    ("flock", "ENOLCK", 4),
    ("fchmod", "EPERM", 10),
    ("unlink", "EIO", 10),
];

fn faults_of_system_calls(executables: &Built) -> Result<()> {
    let project = built_before(executables)?;
    let app = project.layout(APP_LAYOUT);
    let mut failures = 0;
    for (call, error, most) in FAULTS {
        for number in 0..most {
            let when = number + 1;
            project.write("app/file", format!("{call} {number}"))?;
            project.analyze()?;
            let old = app.verify()?.remove(0).descriptor.digest;
            let inject = format!("inject={call}:error={error}:when={when}");
            let starter = [STRACE.name, "-f", "-qqq", "-o", "/dev/null", "-e", &inject];
            let output = project::run(project.exporter_under(&starter)?.args(NAMES))?;
            let left = app.verify().with_context(|| format!("{call} number {when} failed with {error}"))?;
            let left = &left.first().context("no image is left")?.descriptor.digest;
            let said =
                || format!("{call} number {when}, {error}: exit code {}\n{}", output.exit, output.text());
            if output.exit == 0 || output.text().contains("the image is saved") {
                // Not needed, as a clone is not; or after the image was there.
            } else {
                // 1, 3 and 127: before the phase's own work, when it is started and reads its files.
                ensure!([1, 3, 62, 127].contains(&output.exit), "{}", said());
                ensure!(*left == old, "a failure changed the image: {}", said());
            }
            failures += usize::from(output.exit != 0);
        }
        let next = succeed(project.exporter()?.args(NAMES)).context("the next export");
        next.with_context(|| format!("after faults of {call}"))?;
        let faults = app.faults()?;
        ensure!(faults.is_empty(), "after faults of {call}:\n{}", faults.join("\n"));
    }
    ensure!(failures >= 50, "only {failures} exports failed");
    Ok(())
}

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
            .position(|call| call.contains("rename") && call.contains(&format!("{dir}/index.json")));
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
            call.contains("unlink") && call.contains("blobs/sha256/") && !call.contains(".drydock-")
        };
        let early: Vec<_> = calls[..index].iter().filter(removed).collect();
        ensure!(early.is_empty(), "removed before the new image is there: {early:?}");
    }
    let calls = trace("false")?;
    ensure!(!calls.iter().any(|call| call.contains("sync(")), "synced all the same");
    Ok(())
}
