//! What an export takes from the image before, and what it leaves for the next one: layers, cache, names, dates.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::Image;
use drydock_acceptance::project::{self, APP_IMAGE, APP_LAYOUT, Project, succeed};
use drydock_acceptance::scenario::User;
use drydock_acceptance::{sha256, tree};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("reused::a_layer_without_contents", a_layer_without_contents),
            ("reused::a_corrupt_layer", a_corrupt_layer),
            ("reused::a_label_that_cannot_be_read", a_label_that_cannot_be_read),
            ("reused::the_volume_cache", the_volume_cache),
            ("reused::further_names", further_names),
            ("reused::the_date", the_date),
        ],
    )
}

/// A project that was exported and analyzed again: with one launch layer.
fn exported(executables: &Built) -> Result<Project> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    project.write_layer("lib", "launch = true", "library\n")?;
    project.analyze()?;
    project.export()?;
    project.analyze()?;
    Ok(project)
}

fn image(project: &Project) -> Result<Image> {
    Ok(project.layout(APP_LAYOUT).verify()?.remove(0))
}

/// The position of the launch layer, above those of the run image.
fn launch_layer(image: &Image) -> Result<usize> {
    let history = image.config["history"].as_array().context("a history")?;
    let is_ours = |entry: &Value| entry["created_by"].as_str().is_some_and(|by| by.contains("'lib'"));
    history.iter().position(is_ours).context("the history names the layer")
}

fn a_layer_without_contents(executables: &Built) -> Result<()> {
    let project = exported(executables)?;
    let before = image(&project)?;
    fs::remove_dir_all(project.path("layers/acme_a/lib")).context("remove the layer")?;
    let output = project.export()?;
    ensure!(output.text().contains("Reusing layer 'acme/a:lib'"), "{}", output.text());
    let after = image(&project)?;
    ensure!(after.descriptor == before.descriptor, "{:?} became {:?}", before.descriptor, after.descriptor);
    Ok(())
}

fn a_corrupt_layer(executables: &Built) -> Result<()> {
    let project = exported(executables)?;
    let before = image(&project)?;
    let layer = &before.layers[launch_layer(&before)?];
    let blob = project.layout(APP_LAYOUT).blob_path(&layer.digest);
    let mut bytes = fs::read(&blob)?;
    bytes[20] ^= 1;
    fs::write(&blob, bytes).context("damage the blob")?;

    // Without contents there is nothing to make it of.
    fs::rename(project.path("layers/acme_a/lib"), project.path("lib")).context("move the layer")?;
    let files = tree::read(&project.path("layout-repo"))?;
    let output = project::run(project.exporter()?.arg(APP_IMAGE))?;
    ensure!(output.exit == 62, "exit code {}\n{}", output.exit, output.text());
    for wanted in ["'acme/a:lib'", "corrupt", &layer.digest["sha256:".len()..]] {
        ensure!(output.text().contains(wanted), "{wanted} is not mentioned:\n{}", output.text());
    }
    let changed = tree::differences(&files, &tree::read(&project.path("layout-repo"))?);
    ensure!(changed.is_empty(), "{}", changed.join("\n"));

    // With contents it is made again.
    fs::rename(project.path("lib"), project.path("layers/acme_a/lib")).context("move the layer back")?;
    let output = project.export()?;
    ensure!(output.text().contains("made again"), "{}", output.text());
    ensure!(image(&project)?.descriptor == before.descriptor, "it became another image");
    let faults = project.layout(APP_LAYOUT).faults()?;
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// It counts as none, with a warning: the app can be built anew.
fn a_label_that_cannot_be_read(executables: &Built) -> Result<()> {
    const LABEL: &str = "io.buildpacks.lifecycle.metadata";
    for label in ["", "{", "\"text\"", r#"{"app": 1}"#, r#"{"buildpacks": [{"key": 1}]}"#] {
        let project = exported(executables)?;
        relabel(&project, LABEL, label)?;
        let output = project.analyze()?;
        ensure!(output.text().contains(LABEL), "{label:?}: no warning:\n{}", output.text());
        let analyzed = fs::read_to_string(project.path("layers/analyzed.toml"))?;
        ensure!(!analyzed.contains("library/app"), "{label:?}: the image is taken over:\n{analyzed}");
        let output = project.export()?;
        ensure!(output.text().contains("Adding layer 'acme/a:lib'"), "{label:?}: {}", output.text());
        image(&project)?;
    }
    Ok(())
}

/// Changes a label of the app image, with all digests true.
fn relabel(project: &Project, key: &str, label: &str) -> Result<()> {
    let layout = project.layout(APP_LAYOUT);
    let image = layout.images()?.remove(0);
    let put = |value: &Value| -> Result<(String, usize)> {
        let text = value.to_string();
        let digest = sha256(text.as_bytes());
        fs::write(layout.blob_path(&digest), &text).context("write a blob")?;
        Ok((digest, text.len()))
    };
    let mut config = image.config;
    config["config"]["Labels"][key] = json!(label);
    let manifest = fs::read(layout.blob_path(&image.descriptor.digest))?;
    let mut manifest: Value = serde_json::from_slice(&manifest)?;
    let (digest, size) = put(&config)?;
    manifest["config"]["digest"] = json!(digest);
    manifest["config"]["size"] = json!(size);
    let mut index: Value = layout.json("index.json")?;
    let (digest, size) = put(&manifest)?;
    index["manifests"][0]["digest"] = json!(digest);
    index["manifests"][0]["size"] = json!(size);
    project.write(&format!("{APP_LAYOUT}/index.json"), index.to_string())
}

/// Its form is the Go lifecycle's, which may be the next to use it.
fn the_volume_cache(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    project.write_layer("both", "launch = true\ncache = true", "both\n")?;
    project.write_layer("cached", "cache = true", "cached\n")?;
    project
        .write("layers/acme_a/cached.toml", "[types]\ncache = true\n[metadata]\nn = 1\nhtml = \"<&>\"\n")?;
    project.write("layers/sbom/cache/acme_a/cached/sbom.cdx.json", "{}")?;
    project.analyze()?;
    let export = || succeed(project.exporter()?.args(["-cache-dir", "cache", APP_IMAGE]));
    export()?;
    let committed = project.path("cache/committed");
    let text = fs::read_to_string(committed.join("io.buildpacks.lifecycle.cache.metadata"))?;
    let metadata: Value = serde_json::from_str(&text).context("the cache's metadata")?;
    let layers = &metadata["buildpacks"][0]["layers"];
    let sha = |value: &Value| value["sha"].as_str().unwrap_or_default().to_owned();
    let (both, cached, sbom) = (sha(&layers["both"]), sha(&layers["cached"]), sha(&metadata["sbom"]));
    let wanted = format!(
        "{{\"sbom\":{{\"sha\":\"{sbom}\"}},\"buildpacks\":[{{\"key\":\"acme/a\",\"version\":\"1\",\"layers\":{{\
         \"both\":{{\"sha\":\"{both}\",\"data\":null,\"build\":false,\"launch\":true,\"cache\":true}},\
         \"cached\":{{\"sha\":\"{cached}\",\"data\":{{\"html\":\"\\u003c\\u0026\\u003e\",\"n\":1}},\
         \"build\":false,\"launch\":false,\"cache\":true}}}}}}]}}\n"
    );
    ensure!(text == wanted, "the cache's metadata is\n{text}not\n{wanted}");

    let names: BTreeSet<String> = [&both, &cached, &sbom].iter().map(|sha| format!("{sha}.tar")).collect();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(&committed).context("list the cache")? {
        let name = entry?.file_name().display().to_string();
        if let Some(sha) = name.strip_suffix(".tar") {
            ensure!(sha256(&fs::read(committed.join(&name))?) == sha, "{name} holds something else");
            found.insert(name);
        }
    }
    ensure!(found == names, "the cache holds {found:?}, not {names:?}");
    ensure!(image(&project)?.diff_ids()?.contains(&both), "cache and image differ");

    let before = tree::read(&project.path("cache"))?;
    project.analyze()?;
    export()?;
    let changed = tree::differences(&before, &tree::read(&project.path("cache"))?);
    ensure!(changed.is_empty(), "a second export changes the cache:\n{}", changed.join("\n"));
    fs::remove_file(project.path("layers/acme_a/cached.toml")).context("remove a layer")?;
    export()?;
    ensure!(!committed.join(format!("{cached}.tar")).exists(), "a layer that is gone stays in the cache");
    Ok(())
}

fn further_names(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    succeed(project.analyzer()?.args([
        "-tag",
        "localhost:5000/team/app:v2",
        "-tag",
        "[::1]:5000/app",
        APP_IMAGE,
    ]))?;
    let names = [APP_IMAGE, "localhost:5000/team/app:v2", "[::1]:5000/app", "docker.io/library/app:latest"];
    succeed(project.exporter()?.args(names))?;
    let paths = [
        ("index.docker.io/library/app/latest", "latest"),
        ("localhost:5000/team/app/v2", "v2"),
        ("[::1]:5000/app/latest", "latest"),
    ];
    let mut digests = BTreeSet::new();
    let mut tags = Vec::new();
    for (path, name) in paths {
        let layout = project.layout(&format!("layout-repo/{path}"));
        let faults = layout.faults()?;
        ensure!(faults.is_empty(), "{path}: {}", faults.join("\n"));
        let image = layout.verify()?.remove(0);
        let annotations = image.descriptor.annotations.unwrap_or_default();
        let found = annotations.get(drydock_acceptance::layout::REF_NAME);
        ensure!(found.is_some_and(|found| found == name), "{path} is annotated {annotations:?}");
        digests.insert(image.descriptor.digest);
        tags.push(layout.dir().display().to_string());
    }
    ensure!(digests.len() == 1, "the names stand for {digests:?}");
    let report: toml::Table = toml::from_str(&fs::read_to_string(project.path("layers/report.toml"))?)?;
    let digest = digests.pop_first();
    ensure!(report["image"]["digest"].as_str() == digest.as_deref(), "report.toml: {report}");
    ensure!(report["image"]["tags"] == toml::Value::from(tags), "report.toml: {report}");
    Ok(())
}

fn the_date(executables: &Built) -> Result<()> {
    let project = exported(executables)?;
    for (epoch, created, is_ignored) in [
        (None, "1980-01-01T00:00:01Z", false),
        (Some("0"), "1970-01-01T00:00:00Z", false),
        (Some("1700000000"), "2023-11-14T22:13:20Z", false),
        (Some("yesterday"), "1980-01-01T00:00:01Z", true),
    ] {
        let mut command = project.exporter()?;
        command.envs(epoch.map(|epoch| ("SOURCE_DATE_EPOCH", epoch)));
        let output = succeed(command.arg(APP_IMAGE))?;
        let says = output.text().contains("Ignoring invalid SOURCE_DATE_EPOCH");
        ensure!(says == is_ignored, "{epoch:?}: {}", output.text());
        let config = image(&project)?.config;
        ensure!(config["created"] == json!(created), "{epoch:?}: created {}", config["created"]);
        for entry in config["history"].as_array().context("a history")? {
            ensure!(entry["created"] == json!(created), "{epoch:?}: the history has {entry}");
        }
    }
    Ok(())
}
