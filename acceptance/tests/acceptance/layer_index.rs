//! What has not changed since it was restored, exported or checked is not read; what has changed in any way is.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{APP_IMAGE, APP_LAYOUT, Project, run, succeed};
use drydock_acceptance::scenario::User;
use libtest_mimic::Trial;

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("layer_index::unchanged_files_are_not_read", unchanged_files_are_not_read),
            ("layer_index::changed_layers_are_exported_as_they_are", changed_layers_are_exported_as_they_are),
            ("layer_index::damaged_blobs_and_tars_are_noticed", damaged_blobs_and_tars_are_noticed),
            ("layer_index::another_owner_is_another_layer", another_owner_is_another_layer),
        ],
    )
}

const CACHES: [[&str; 2]; 2] = [["-cache-dir", "cache"], ["-cache-image", "example.com/acme/cache:app"]];
const TYPES: &str = "[types]\nlaunch = true\ncache = true\n";
/// Content of a layer's files, of one size.
const ONE: &str = "one one one\n";
const TWO: &str = "two two two\n";

/// A project whose image and cache were exported.
fn exported(executables: &Built, cache: [&str; 2]) -> Result<Project> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    project.write_layer("lib", "launch = true\ncache = true", ONE)?;
    project.write("layers/acme_a/lib/other", TWO)?;
    project.analyze()?;
    succeed(project.exporter()?.args(cache).arg(APP_IMAGE))?;
    Ok(project)
}

/// Begins the next build: an empty layers folder, then what analyzer, restorer and a buildpack do that keeps its layer.
fn restore(project: &Project, cache: [&str; 2]) -> Result<()> {
    fs::remove_dir_all(project.path("layers/acme_a")).context("empty the layers folder")?;
    project.analyze()?;
    succeed(project.restorer()?.args(cache))?;
    ensure!(project.path("layers/acme_a/lib/file").exists(), "nothing was restored");
    project.write("layers/acme_a/lib.toml", TYPES)
}

/// Exports, and gives what system calls opened and read.
fn traced_export(project: &Project, cache: [&str; 2], index: &str) -> Result<String> {
    let trace = project.path("trace");
    let path = trace.to_str().context("a path of text")?;
    let strace = ["strace", "-f", "-y", "-e", "trace=openat,read,pread64,preadv2", "-o", path];
    let mut exporter = project.exporter_under(&strace)?;
    succeed(exporter.env("CNB_LAYER_INDEX", index).args(cache).arg(APP_IMAGE))?;
    fs::read_to_string(&trace).context("read the trace")
}

fn digest(project: &Project) -> Result<String> {
    Ok(project.layout(APP_LAYOUT).verify()?.remove(0).descriptor.digest.clone())
}

fn unchanged_files_are_not_read(executables: &Built) -> Result<()> {
    for cache in CACHES {
        let project = exported(executables, cache)?;
        let first = digest(&project)?;
        for build in 0..2 {
            restore(&project, cache)?;
            let trace = traced_export(&project, cache, "true")?;
            // Also files of the app, base layers, and tars of the cache.
            let read = |line: &&str| {
                let is_read = line.contains("read(") || line.contains("pread");
                let of_blob = line.contains("blobs/sha256/") && line.contains("\\37\\213");
                (line.contains("openat(") && line.contains("acme_a/lib>, \""))
                    || (is_read && (line.contains(".tar>") || of_blob))
            };
            let found: Vec<_> = trace.lines().filter(read).collect();
            ensure!(found.is_empty(), "build {build} with {cache:?} has read: {found:#?}");
            ensure!(digest(&project)? == first, "another image");
        }
        let trace = traced_export(&project, cache, "false")?;
        ensure!(
            trace.contains("acme_a/lib>, \"file\""),
            "with CNB_LAYER_INDEX=false everything is read:\n{trace}"
        );
        ensure!(digest(&project)? == first, "another image");
    }
    Ok(())
}

/// What is done to the restored layer.
type Edit = fn(&Path) -> Result<()>;

const EDITS: [(&str, Edit); 6] = [
    ("in place, with the old time", |layer| overwrite(&layer.join("file"), TWO)),
    ("two files swapped", |layer| {
        for (from, to) in [("file", "aside"), ("other", "file"), ("aside", "other")] {
            fs::rename(layer.join(from), layer.join(to))?;
        }
        Ok(())
    }),
    ("the folder replaced", |layer| {
        fs::remove_dir_all(layer)?;
        fs::create_dir(layer)?;
        fs::write(layer.join("file"), TWO)?;
        Ok(fs::write(layer.join("other"), ONE)?)
    }),
    ("only the mode", |layer| drydock_acceptance::stage::chmod(&layer.join("file"), 0o600)),
    ("a file removed", |layer| Ok(fs::remove_file(layer.join("other"))?)),
    ("a file more", |layer| Ok(fs::write(layer.join("more"), "")?)),
];

/// Other bytes, the same size, the time of modification put back.
fn overwrite(path: &Path, bytes: &str) -> Result<()> {
    let modified = fs::metadata(path)?.modified()?;
    let mut file = File::options().write(true).open(path)?;
    file.write_all(bytes.as_bytes())?;
    Ok(file.set_modified(modified)?)
}

fn changed_layers_are_exported_as_they_are(executables: &Built) -> Result<()> {
    for cache in CACHES {
        for (context, edit) in EDITS {
            let project = exported(executables, cache)?;
            let first = digest(&project)?;
            restore(&project, cache)?;
            edit(&project.path("layers/acme_a/lib")).context(context)?;
            succeed(project.exporter()?.args(cache).arg(APP_IMAGE))?;
            let changed = digest(&project)?;
            ensure!(changed != first, "{context}, {cache:?}: the old layer was exported");
            let mut exporter = project.exporter()?;
            succeed(exporter.env("CNB_LAYER_INDEX", "false").args(cache).arg(APP_IMAGE))?;
            ensure!(digest(&project)? == changed, "{context}, {cache:?}: a full read finds another layer");
        }
    }
    Ok(())
}

/// Blobs and tars that were known, with the time of modification put back.
fn damaged_blobs_and_tars_are_noticed(executables: &Built) -> Result<()> {
    for folder in [format!("{APP_LAYOUT}/blobs/sha256"), "cache/committed".to_owned()] {
        let cache = CACHES[0];
        let project = exported(executables, cache)?;
        let first = digest(&project)?;
        restore(&project, cache)?;
        for entry in fs::read_dir(project.path(&folder))? {
            let path = entry?.path();
            let bytes = fs::read(&path)?;
            let is_layer =
                bytes.starts_with(&[0x1f, 0x8b]) || path.extension().is_some_and(|ending| ending == "tar");
            if is_layer && fs::metadata(&path)?.len() < 1 << 20 {
                let modified = fs::metadata(&path)?.modified()?;
                // A link to the run image's blob must not damage that.
                fs::remove_file(&path)?;
                let mut file = File::create(&path)?;
                file.write_all(&bytes.iter().map(|byte| byte ^ 1).collect::<Vec<_>>())?;
                file.set_modified(modified)?;
            }
        }
        let output = run(project.exporter()?.args(cache).arg(APP_IMAGE))?;
        ensure!(output.exit == 0, "{folder}: {}", output.text());
        ensure!(digest(&project)? == first, "{folder}: another image");
        for entry in fs::read_dir(project.path("cache/committed"))? {
            let path = entry?.path();
            let stem = path.file_stem().context("it has a name")?.display().to_string();
            if stem.starts_with("sha256:") {
                ensure!(
                    drydock_acceptance::sha256(&fs::read(&path)?) == stem,
                    "{} is damaged",
                    path.display()
                );
            }
        }
    }
    Ok(())
}

/// The restorer notes trees for the owner that it is told of.
fn another_owner_is_another_layer(executables: &Built) -> Result<()> {
    let cache = CACHES[0];
    let project = exported(executables, cache)?;
    let first = digest(&project)?;
    restore(&project, cache)?;
    let export = |index: &str| -> Result<String> {
        let mut exporter = project.exporter()?;
        let owner = [("CNB_USER_ID", "0"), ("CNB_GROUP_ID", "1234")];
        run(exporter.envs(owner).env("CNB_LAYER_INDEX", index).args(cache).arg(APP_IMAGE))?;
        digest(&project)
    };
    let (with, without) = (export("true")?, export("false")?);
    ensure!(with == without && with != first, "{first}, then {with} and {without}");
    Ok(())
}
