//! What analyzer and exporter say to input that they cannot use: one row for each kind of damage. Every row is run as an
//! ordinary user, over an image that was exported before, and all files must be as they were.

mod run_images;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{self, APP_IMAGE, APP_LAYOUT, Project};
use drydock_acceptance::scenario::User;
use drydock_acceptance::{sha256, tree};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{Built, test};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    let mut trials = run_images::trials(executables);
    trials.extend([
        table(executables, "bad_input::arguments_of_the_analyzer", Phase::Analyzer, arguments_of_both),
        table(executables, "bad_input::arguments_of_the_exporter", Phase::Exporter, || {
            [arguments_of_both(), arguments_of_the_exporter()].concat()
        }),
        table(executables, "bad_input::files_of_the_analyzer", Phase::Analyzer, files_of_the_analyzer),
        table(executables, "bad_input::files_of_the_exporter", Phase::Exporter, files_of_the_exporter),
    ]);
    trials
}

/// A table as a test.
fn table(executables: &Arc<Built>, name: &str, phase: Phase, rows: fn() -> Vec<Row>) -> Trial {
    let executables = Arc::clone(executables);
    test(name, move || check_all(&executables, phase, &rows()))
}

#[derive(Clone, Copy)]
enum Phase {
    Analyzer,
    Exporter,
}

/// What is done to a project before a phase runs on it.
#[derive(Clone)]
enum Damage {
    Nothing,
    /// Path and new content.
    Write(&'static str, &'static str),
    Remove(&'static str),
    /// Takes all rights to a file or folder.
    Lock(&'static str),
    /// Takes the right to write to a folder.
    Freeze(&'static str),
    /// Sets a variable, or takes it away.
    Env(&'static [(&'static str, Option<&'static str>)]),
    /// Anything else.
    Do(fn(&Project) -> Result<()>),
}
use Damage::{Do, Env, Freeze, Lock, Nothing, Remove, Write};

/// Damage, arguments, the exit code, and what standard error must hold.
type Row = (Damage, &'static [&'static str], i32, &'static [&'static str]);

const APP: &[&str] = &[APP_IMAGE];

fn check_all(executables: &Built, phase: Phase, rows: &[Row]) -> Result<()> {
    let executables = executables.for_everyone()?;
    let mut wrong = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let project = built_before(Project::new(executables, User::Cnb)?)?;
        if let Err(error) = check(&project, phase, row) {
            let (damage, arguments, ..) = row;
            wrong.push(format!("row {} {}{arguments:?}: {error:#}", number + 1, damage.name()));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(())
}

/// A project that has an image with one launch layer, and was analyzed since.
fn built_before(project: Project) -> Result<Project> {
    project.write_layer("lib", "launch = true\ncache = true", "library\n")?;
    project.write("layers/acme_a/store.toml", "[metadata]\nkey = 1\n")?;
    project.own()?;
    project.analyze()?;
    project.export()?;
    project.analyze()?;
    Ok(project)
}

fn check(project: &Project, phase: Phase, (damage, arguments, exit, says): &Row) -> Result<()> {
    let mut command = match phase {
        Phase::Analyzer => project.analyzer()?,
        Phase::Exporter => project.exporter()?,
    };
    damage.apply(project, &mut command)?;
    let before = tree::read(&project.path(""))?;
    let output = project::run(command.args(*arguments))?;
    let text = output.text();
    let complaint = String::from_utf8(output.stderr).context("what it says is UTF-8")?;
    ensure!(output.exit == *exit, "exit code {}, not {exit}\n{text}", output.exit);
    for wanted in says.iter().chain(&["ERROR"]) {
        ensure!(complaint.contains(wanted), "standard error lacks {wanted:?}\n{text}");
    }
    ensure!(!text.contains("panicked"), "it panicked\n{text}");
    let changed = tree::differences(&before, &tree::read(&project.path(""))?);
    ensure!(changed.is_empty(), "files have changed:\n{}\n{text}", changed.join("\n"));
    Ok(())
}

impl Damage {
    fn name(&self) -> String {
        match self {
            Write(path, text) => format!("{path} = {text:?} "),
            Remove(path) => format!("without {path} "),
            Lock(path) | Freeze(path) => format!("no access to {path} "),
            Env(variables) => format!("{variables:?} "),
            Nothing | Do(_) => String::new(),
        }
    }

    fn apply(&self, project: &Project, command: &mut Command) -> Result<()> {
        let chmod = |path: &str, mode| fs::set_permissions(project.path(path), Permissions::from_mode(mode));
        match self {
            Nothing => {}
            Write(path, text) => {
                project.write(path, text)?;
                project.own()?;
            }
            Remove(path) => {
                let path = project.path(path);
                if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }?;
            }
            Lock(path) => chmod(path, 0)?,
            Freeze(path) => chmod(path, 0o555)?,
            Env(variables) => {
                for (name, value) in *variables {
                    match value {
                        Some(value) => command.env(name, value),
                        None => command.env_remove(name),
                    };
                }
            }
            Do(damage) => {
                damage(project)?;
                project.own()?;
            }
        }
        Ok(())
    }
}

const UNASKED: Damage = Env(&[("CNB_USE_OCI_LAYOUT", None)]);

/// Rows that hold for both phases, whose exit code does not depend on the phase.
fn arguments_of_both() -> Vec<Row> {
    vec![
        // The Platform API.
        (Env(&[("CNB_PLATFORM_API", None)]), APP, 11, &["please set 'CNB_PLATFORM_API'"]),
        (Env(&[("CNB_PLATFORM_API", Some("new"))]), APP, 11, &["'new'"]),
        (Env(&[("CNB_PLATFORM_API", Some("0.99"))]), APP, 11, &["'0.99'"]),
        // Flags.
        (Nothing, &["-no-such-flag"], 2, &["no-such-flag"]),
        (Nothing, &["-layers"], 2, &["layers"]),
        (Nothing, &["-log-level", "loud", APP_IMAGE], 1, &["invalid level"]),
        // Where layouts are.
        (
            Env(&[("CNB_USE_LAYOUT", Some("false"))]),
            APP,
            3,
            &["CNB_USE_OCI_LAYOUT is `true`", "CNB_USE_LAYOUT is `false`"],
        ),
        (
            Env(&[("CNB_LAYOUT_DIR", Some("/elsewhere"))]),
            APP,
            3,
            &["CNB_OCI_LAYOUT_PATH is `", "CNB_LAYOUT_DIR is `/elsewhere`"],
        ),
        (Nothing, &["-daemon", APP_IMAGE], 3, &["exporting to multiple targets is unsupported"]),
        (Env(&[("CNB_USE_DAEMON", Some("true"))]), APP, 3, &["exporting to multiple targets is unsupported"]),
        // Experimental features.
        (
            Env(&[("CNB_USE_OCI_LAYOUT", None), ("CNB_USE_LAYOUT", Some("true"))]),
            APP,
            1,
            &["CNB_EXPERIMENTAL_MODE", "CNB_USE_OCI_LAYOUT=true"],
        ),
        (Env(&[("CNB_EXPERIMENTAL_MODE", Some("error"))]), APP, 1, &["CNB_EXPERIMENTAL_MODE=error"]),
        (Env(&[("CNB_EXPERIMENTAL_MODE", Some("loud"))]), APP, 3, &["CNB_EXPERIMENTAL_MODE", "`loud`"]),
        // Values.
        (Env(&[("CNB_USE_OCI_LAYOUT", Some("yes"))]), APP, 3, &["CNB_USE_OCI_LAYOUT", "`yes`"]),
        (Env(&[("CNB_USER_ID", Some("root"))]), APP, 3, &["CNB_USER_ID", "`root`"]),
        (Env(&[("CNB_GROUP_ID", Some("-1"))]), APP, 3, &["CNB_GROUP_ID", "`-1`"]),
        (Nothing, &["-uid", "4294967296", APP_IMAGE], 3, &["-uid", "`4294967296`"]),
        (Nothing, &["-gid=", "-uid=1e3", APP_IMAGE], 3, &["-uid", "`1e3`"]),
        (Nothing, &["-layout=maybe", APP_IMAGE], 3, &["-layout", "`maybe`"]),
        // Names.
        (Nothing, &[], 3, &["failed to parse arguments"]),
        (Nothing, &["Capital/Letters"], 3, &["could not parse reference", "`Capital/Letters`"]),
        (Nothing, &["two words"], 3, &["could not parse reference", "`two words`"]),
        (Nothing, &["app:"], 3, &["could not parse reference", "`app:`"]),
        (Nothing, &["app:-tag"], 3, &["could not parse reference", "`app:-tag`"]),
        (Nothing, &["app@sha256:12"], 3, &["could not parse reference", "`app@sha256:12`"]),
        (Nothing, &["../../etc/app"], 3, &["could not parse reference", "`../../etc/app`"]),
        (Nothing, &["acme/../../../app"], 3, &["could not parse reference", "`acme/../../../app`"]),
        (Nothing, &["example.com:http/app"], 3, &["could not parse reference", "`example.com:http/app`"]),
        (Nothing, &["/etc/app"], 3, &["could not parse reference", "`/etc/app`"]),
        (Nothing, &["-cache-image", "A B", APP_IMAGE], 3, &["could not parse reference", "`A B`"]),
    ]
}

fn arguments_of_the_exporter() -> Vec<Row> {
    vec![
        (UNASKED, APP, 62, &["CNB_USE_OCI_LAYOUT=true", "-layout"]),
        (Nothing, &[APP_IMAGE, "Other"], 3, &["could not parse reference", "`Other`"]),
        (Nothing, &["-run-image", "acme/run", APP_IMAGE], 3, &["-run-image is unsupported"]),
        (Nothing, &["-image", "acme/run", APP_IMAGE], 3, &["-image is unsupported"]),
        (Nothing, &["-parallel=maybe", APP_IMAGE], 3, &["-parallel", "`maybe`"]),
        (Nothing, &["-layer-compression", "lzma", APP_IMAGE], 3, &["-layer-compression", "`lzma`", "`zstd`"]),
        (Nothing, &["-layer-compression", "gzip:10", APP_IMAGE], 3, &["`gzip:10`"]),
        (Nothing, &["-process-type", "worker", APP_IMAGE], 62, &["worker"]),
        (Nothing, &["-cache-dir", "nowhere", APP_IMAGE], 1, &["failed to create volume cache", "nowhere"]),
        (Nothing, &["-cache-dir", "app/file", APP_IMAGE], 1, &["app/file", "not a folder"]),
    ]
}

fn files_of_the_analyzer() -> Vec<Row> {
    vec![
        (UNASKED, APP, 32, &["CNB_USE_OCI_LAYOUT=true", "-layout"]),
        (Nothing, &["-previous-image", "A", APP_IMAGE], 3, &["could not parse reference", "`A`"]),
        (Nothing, &["-run-image", "A", APP_IMAGE], 3, &["could not parse reference", "`A`"]),
        (Nothing, &["-tag", "A", APP_IMAGE], 3, &["could not parse reference", "`A`"]),
        (Nothing, &[APP_IMAGE, "other"], 3, &["received 2 arguments, but expected 1"]),
        // run.toml and stack.toml.
        (Write("cnb/run.toml", "images = ["), APP, 3, &["cnb/run.toml", "line 1"]),
        (Write("cnb/run.toml", "[[images]]\nimage = 7"), APP, 3, &["cnb/run.toml", "line 2", "7"]),
        (
            Write("cnb/run.toml", "[[images]]\nimage = 'Q'"),
            APP,
            3,
            &["could not parse reference", "`Q`", "cnb/run.toml"],
        ),
        (Write("cnb/run.toml", ""), APP, 3, &["-run-image", "cnb/run.toml"]),
        (Remove("cnb/run.toml"), APP, 3, &["-run-image", "cnb/run.toml"]),
        (Lock("cnb/run.toml"), APP, 3, &["cnb/run.toml", "ermission denied"]),
        (
            Env(&[("CNB_PLATFORM_API", Some("0.11")), ("CNB_STACK_PATH", Some("app/file"))]),
            APP,
            3,
            &["app/file", "line 1"],
        ),
        (
            Env(&[("CNB_PLATFORM_API", Some("0.11")), ("CNB_STACK_PATH", Some("app/stack.toml"))]),
            APP,
            3,
            &["missing run image metadata", "app/stack.toml"],
        ),
        // The previous image.
        (
            Write("layout-repo/index.docker.io/library/app/latest/index.json", "[]"),
            APP,
            32,
            &["previous image", "index.json", "remove"],
        ),
        (Remove("layout-repo/index.docker.io/library/app/latest/oci-layout"), APP, 32, &["oci-layout"]),
        (Lock(APP_LAYOUT), APP, 32, &[APP_LAYOUT, "ermission denied"]),
        (
            Do(|project| spoil_config(project, APP_LAYOUT, b"no JSON")),
            APP,
            32,
            &["previous image", "blobs/sha256"],
        ),
        // What it writes.
        (Freeze("layers"), APP, 32, &["layers/analyzed.toml", "ermission denied"]),
        (Nothing, &["-analyzed", "app/file/analyzed.toml", APP_IMAGE], 32, &["app/file"]),
    ]
}

fn files_of_the_exporter() -> Vec<Row> {
    const OLD_API: &str = "[[group]]\nid = 'acme/a'\nversion = '1'\napi = '0.1'";
    vec![
        // group.toml
        (Remove("layers/group.toml"), APP, 1, &["failed to read group file", "layers/group.toml"]),
        (Lock("layers/group.toml"), APP, 1, &["layers/group.toml", "ermission denied"]),
        (Write("layers/group.toml", "[[group"), APP, 1, &["layers/group.toml", "line 1"]),
        (Write("layers/group.toml", "[[group]]\nid = 1"), APP, 1, &["layers/group.toml", "line 2"]),
        (Write("layers/group.toml", "group = 'a'"), APP, 1, &["layers/group.toml", "line 1"]),
        (Write("layers/group.toml", OLD_API), APP, 12, &["'acme/a@1'", "'0.1'"]),
        // analyzed.toml
        (Remove("layers/analyzed.toml"), APP, 3, &["layers/analyzed.toml", "analyzer"]),
        (Lock("layers/analyzed.toml"), APP, 3, &["layers/analyzed.toml", "ermission denied"]),
        (Write("layers/analyzed.toml", "= 1"), APP, 3, &["layers/analyzed.toml", "line 1"]),
        (Write("layers/analyzed.toml", "[run-image]\nreference = []"), APP, 3, &["analyzed.toml", "line 2"]),
        (Write("layers/analyzed.toml", "[[metadata]]\n"), APP, 3, &["layers/analyzed.toml", "line 1"]),
        (Write("layers/analyzed.toml", ""), APP, 3, &["run image not found", "layers/analyzed.toml"]),
        (Write("layers/analyzed.toml", "[run-image]\nreference = 'X'"), APP, 3, &["`X`"]),
        // A name without a digest is what an extension leaves that chose the run image.
        (
            Write("layers/analyzed.toml", "[run-image]\nreference = 'x'"),
            APP,
            62,
            &["library/x/latest", "skopeo"],
        ),
        (
            Write("layers/analyzed.toml", "[run-image]\nreference = '/etc@sha256:0'"),
            APP,
            3,
            &["/etc@sha256:0"],
        ),
        // run.toml
        (Write("cnb/run.toml", "images = 1"), APP, 3, &["cnb/run.toml", "line 1"]),
        (Lock("cnb/run.toml"), APP, 3, &["cnb/run.toml", "ermission denied"]),
        // config/metadata.toml
        (Remove("layers/config/metadata.toml"), APP, 62, &["layers/config/metadata.toml", "builder"]),
        (Lock("layers/config/metadata.toml"), APP, 62, &["config/metadata.toml", "ermission denied"]),
        (Write("layers/config/metadata.toml", "processes = 1"), APP, 62, &["metadata.toml", "line 1"]),
        (
            Write("layers/config/metadata.toml", "[[slices]]\npaths = 'a'"),
            APP,
            62,
            &["metadata.toml", "line 2"],
        ),
        (Write("layers/config/metadata.toml", "[[labels]]\nkey = 1"), APP, 62, &["metadata.toml", "line 2"]),
        (
            Write("layers/config/metadata.toml", "[[processes]]\ntype = '../x'\ncommand = ['c']"),
            APP,
            62,
            &["../x"],
        ),
        (Write("layers/config/metadata.toml", "[[slices]]\npaths = ['[']"), APP, 62, &["`[`"]),
        // project-metadata.toml
        (Write("layers/project-metadata.toml", "source = 1"), APP, 62, &["project-metadata.toml", "line 1"]),
        (Write("layers/project-metadata.toml", "[source"), APP, 62, &["project-metadata.toml", "line 1"]),
        // Buildpacks' layers
        (
            Write("layers/acme_a/lib.toml", "[types"),
            APP,
            62,
            &["'[acme/a:lib]'", "acme_a/lib.toml", "line 1"],
        ),
        (Write("layers/acme_a/lib.toml", "[types]\nlaunch = 'yes'"), APP, 62, &["acme_a/lib.toml", "line 2"]),
        (Lock("layers/acme_a/lib.toml"), APP, 62, &["'[acme/a:lib]'", "ermission denied"]),
        (Write("layers/acme_a/store.toml", "metadata = 1"), APP, 62, &["acme_a/store.toml", "line 1"]),
        (Write("layers/acme_a/store.toml", "{"), APP, 62, &["acme_a/store.toml", "line 1"]),
        (Lock("layers/acme_a"), APP, 62, &["layers/acme_a", "ermission denied"]),
        (Lock("layers/acme_a/lib"), APP, 62, &["layers/acme_a/lib", "ermission denied"]),
        (Remove("layers/acme_a/lib"), APP, 62, &["'acme/a:lib'", "cache=true"]),
        (
            Write("layers/acme_a/new.toml", "[types]\nlaunch = true"),
            APP,
            62,
            &["cannot reuse 'acme/a:new'", "previous image has no metadata"],
        ),
        (
            Do(|project| {
                project.write("layers/acme_a/lib.toml", "[types]\nlaunch = true")?;
                fs::remove_dir_all(project.path("layers/acme_a/lib"))?;
                fs::remove_dir_all(project.path(APP_LAYOUT)).context("remove the previous image")
            }),
            APP,
            62,
            &["'acme/a:lib'", "previous image"],
        ),
        // App and launcher
        (Remove("app"), APP, 62, &["/app`"]),
        (Lock("app/file"), APP, 62, &["app/file", "ermission denied"]),
        (Remove("cnb/launcher"), APP, 62, &["cnb/launcher"]),
        (Lock("cnb/launcher"), APP, 62, &["cnb/launcher", "ermission denied"]),
        // What it writes
        (Freeze(APP_LAYOUT), APP, 62, &[APP_LAYOUT, "ermission denied"]),
        (Freeze("layout-repo/index.docker.io/library"), &["new"], 62, &["library/new", "ermission denied"]),
        (Write("layout-repo/index.docker.io/library/new", ""), &["new"], 62, &["library/new"]),
        (Write("layout-repo/index.docker.io/library/new/latest", ""), &["new"], 62, &["library/new/latest"]),
        (
            Do(|project| symlink("/tmp", project.path("layout-repo/index.docker.io/out")).context("link")),
            &["out/app"],
            62,
            &["layout-repo/index.docker.io/out", "symbolic link"],
        ),
    ]
}

/// Gives a layout another config, with all digests and sizes true.
fn spoil_config(project: &Project, layout: &str, config: &[u8]) -> Result<()> {
    let digest = project.layout(layout).images()?.remove(0).descriptor.digest;
    let mut manifest: Value = serde_json::from_slice(&fs::read(project.layout(layout).blob_path(&digest))?)?;
    manifest["config"]["digest"] = json!(put_blob(project, layout, config)?);
    manifest["config"]["size"] = json!(config.len());
    put_manifest(project, layout, manifest.to_string().as_bytes())
}

fn put_blob(project: &Project, layout: &str, bytes: &[u8]) -> Result<String> {
    let digest = sha256(bytes);
    fs::write(project.layout(layout).blob_path(&digest), bytes).context("write a blob")?;
    Ok(digest)
}

/// Makes these bytes the manifest of the only image.
fn put_manifest(project: &Project, layout: &str, manifest: &[u8]) -> Result<()> {
    let mut index: Value = project.layout(layout).json("index.json")?;
    index["manifests"] = json!([{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": put_blob(project, layout, manifest)?,
        "size": manifest.len(),
    }]);
    project.write(&format!("{layout}/index.json"), index.to_string())
}
