//! Run images that analyzer or exporter cannot use.

use std::fs;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use drydock_acceptance::project::{Project, RUN_LAYOUT};
use drydock_acceptance::{here, sha256, stage};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::Damage::{Do, Lock, Remove, Write};
use super::{APP, Phase, Row, put_manifest, spoil_config, table};
use crate::Built;

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    vec![
        table(executables, "bad_input::run_images_of_the_analyzer", Phase::Analyzer, || {
            [of_both(32), of_the_analyzer()].concat()
        }),
        table(executables, "bad_input::run_images_of_the_exporter", Phase::Exporter, || {
            [of_both(62), of_the_exporter()].concat()
        }),
    ]
}

/// What either phase refuses; with this exit code.
fn of_both(exit: i32) -> Vec<Row> {
    const RUN: &[&str] = &["run image", RUN_LAYOUT];
    const INDEX: &str = "layout-repo/example.com/acme/run/base/index.json";
    const MARKER: &str = "layout-repo/example.com/acme/run/base/oci-layout";
    vec![
        (Remove(RUN_LAYOUT), APP, exit, &[RUN_LAYOUT, "skopeo copy"]),
        (Remove(INDEX), APP, exit, &[RUN_LAYOUT, "index.json"]),
        (Lock(INDEX), APP, exit, &["base/index.json", "ermission denied"]),
        (Lock(RUN_LAYOUT), APP, exit, &[RUN_LAYOUT, "ermission denied"]),
        (Write(INDEX, ""), APP, exit, &["base/index.json", "malformed"]),
        (Write(INDEX, "{"), APP, exit, &["base/index.json", "malformed"]),
        (Write(INDEX, "[]"), APP, exit, &["base/index.json", "malformed"]),
        (
            Write(INDEX, r#"{"schemaVersion": 2, "manifests": 1}"#),
            APP,
            exit,
            &["base/index.json", "malformed"],
        ),
        (
            Write(INDEX, r#"{"schemaVersion": 2, "manifests": [{"digest": "nothing", "size": 1}]}"#),
            APP,
            exit,
            &["base/index.json", "malformed"],
        ),
        (
            Write(
                INDEX,
                r#"{"schemaVersion": 2, "manifests": [{"mediaType": "a/b", "digest": "md5:0", "size": 1}]}"#,
            ),
            APP,
            exit,
            RUN,
        ),
        (Write(INDEX, r#"{"schemaVersion": 2, "manifests": []}"#), APP, exit, RUN),
        (Remove(MARKER), APP, exit, &["base/oci-layout"]),
        (Write(MARKER, "nothing"), APP, exit, &["base/oci-layout", "malformed"]),
        (
            Write(MARKER, r#"{"imageLayoutVersion": 1}"#),
            APP,
            exit,
            &["base/oci-layout", "imageLayoutVersion"],
        ),
        (
            Write(MARKER, r#"{"imageLayoutVersion": "2.0.0"}"#),
            APP,
            exit,
            &["base/oci-layout", "imageLayoutVersion"],
        ),
        (Do(|project| damage_blob(project, Blob::Manifest, &Harm::Remove)), APP, exit, RUN),
        (
            Do(|project| damage_blob(project, Blob::Manifest, &Harm::Flip)),
            APP,
            exit,
            &["blobs/sha256", "corrupt"],
        ),
        (
            Do(|project| damage_blob(project, Blob::Manifest, &Harm::Cut)),
            APP,
            exit,
            &["blobs/sha256", "corrupt"],
        ),
        (Do(|project| damage_blob(project, Blob::Config, &Harm::Remove)), APP, exit, RUN),
        (
            Do(|project| damage_blob(project, Blob::Config, &Harm::Flip)),
            APP,
            exit,
            &["blobs/sha256", "corrupt"],
        ),
        (
            Do(|project| damage_blob(project, Blob::Config, &Harm::Cut)),
            APP,
            exit,
            &["blobs/sha256", "corrupt"],
        ),
        (Do(|project| damage_blob(project, Blob::Config, &Harm::Folder)), APP, exit, &["blobs/sha256"]),
    ]
}

fn of_the_exporter() -> Vec<Row> {
    const NEW: &[&str] = &["new"];
    vec![
        (Do(|project| damage_blob(project, Blob::Layer, &Harm::Flip)), NEW, 62, &["blobs/sha256", "corrupt"]),
        (Do(|project| damage_blob(project, Blob::Layer, &Harm::Cut)), NEW, 62, &["blobs/sha256", "corrupt"]),
        (Do(|project| damage_blob(project, Blob::Layer, &Harm::Folder)), NEW, 62, &["blobs/sha256"]),
        (Do(replace_run_image), APP, 62, &["run image", V1_DIGEST, V2_DIGEST]),
    ]
}

fn of_the_analyzer() -> Vec<Row> {
    vec![
        (Do(|project| spoil_manifest(project, b"{")), APP, 32, &["blobs/sha256", "malformed"]),
        (Do(|project| spoil_manifest(project, b"{\"layers\": 1}")), APP, 32, &["blobs/sha256", "malformed"]),
        (Do(|project| spoil_config(project, RUN_LAYOUT, b"{")), APP, 32, &["blobs/sha256", "malformed"]),
        (
            Do(|project| spoil_config(project, RUN_LAYOUT, b"{\"config\": {\"Env\": 1}}")),
            APP,
            32,
            &["blobs/sha256", "malformed"],
        ),
        (
            Do(|project| {
                let config = json!({"os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
                spoil_config(project, RUN_LAYOUT, config.to_string().as_bytes())
            }),
            APP,
            32,
            &["diff_ids"],
        ),
        (
            Do(|project| {
                change_config(project, |config| {
                    config.as_object_mut().map(|config| config.remove("os"));
                })
            }),
            APP,
            32,
            &["failed to find OS", RUN_LAYOUT],
        ),
        (Do(foreign_platforms), APP, 32, &["linux/s390x", "windows/amd64"]),
    ]
}

const V1_DIGEST: &str = "sha256:d236adfe8074a8947914eae1ca4906c94db1cf6a8576b482a06fcc9eba7c9802";
const V2_DIGEST: &str = "sha256:ccb26d81f4e59a72d6d8adf8908e870133ebac57a3ededb3a5b1da73fde7357b";

#[derive(Clone, Copy)]
enum Blob {
    Manifest,
    Config,
    Layer,
}

enum Harm {
    Remove,
    /// One bit is another.
    Flip,
    /// The last byte is missing.
    Cut,
    /// A folder instead of a file.
    Folder,
}

/// Harms a blob of the run image.
fn damage_blob(project: &Project, blob: Blob, harm: &Harm) -> Result<()> {
    let layout = project.layout(RUN_LAYOUT);
    let image = layout.images()?.pop().context("there is an image")?;
    let path = layout.blob_path(match blob {
        Blob::Manifest => &image.descriptor.digest,
        Blob::Config => &image.config_descriptor.digest,
        Blob::Layer => &image.layers.first().context("there is a layer")?.digest,
    });
    let mut bytes = fs::read(&path)?;
    // The file itself may be the app image's too, under another name.
    fs::remove_file(&path).context("remove a blob")?;
    match harm {
        Harm::Flip => bytes[0] ^= 1,
        Harm::Cut => drop(bytes.pop()),
        Harm::Remove => return Ok(()),
        Harm::Folder => return fs::create_dir(&path).context("make a folder"),
    }
    fs::write(path, bytes).context("write a blob")
}

fn change_config(project: &Project, change: fn(&mut Value)) -> Result<()> {
    let mut config = project.layout(RUN_LAYOUT).images()?.remove(0).config;
    change(&mut config);
    spoil_config(project, RUN_LAYOUT, config.to_string().as_bytes())
}

fn spoil_manifest(project: &Project, manifest: &[u8]) -> Result<()> {
    put_manifest(project, RUN_LAYOUT, manifest)
}

/// An index of images for machines that no test runs on.
fn foreign_platforms(project: &Project) -> Result<()> {
    let mut index: Value = project.layout(RUN_LAYOUT).json("index.json")?;
    let descriptor = index["manifests"][0].clone();
    let other = |digest: String, os, architecture| {
        let mut other = descriptor.clone();
        other["digest"] = json!(digest);
        other["platform"] = json!({"os": os, "architecture": architecture});
        other
    };
    index["manifests"] =
        json!([other(sha256(b"one"), "linux", "s390x"), other(sha256(b"two"), "windows", "amd64"),]);
    project.write(&format!("{RUN_LAYOUT}/index.json"), index.to_string())
}

/// The run image's next version takes its place.
fn replace_run_image(project: &Project) -> Result<()> {
    fs::remove_dir_all(project.path(RUN_LAYOUT)).context("remove the run image")?;
    stage::copy(&here("images/run-v2"), &project.path(RUN_LAYOUT))
}
