//! `ls`, `inspect`, `tree`, `diff`, `sbom`, `verify`, and what is said of wrong names.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{APP_LAYOUT, Project, succeed};
use drydock_acceptance::scenario::User;
use drydock_acceptance::tools::{self, SKOPEO};
use drydock_acceptance::{here, run_image, tree};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::carrying::text;
use super::{Repository, copy};
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("drydock::ls_lists_what_there_is", ls_lists_what_there_is),
            ("drydock::inspect_agrees_with_skopeo", inspect_agrees_with_skopeo),
            ("drydock::inspect_knows_who_built_an_image", inspect_knows_who_built_an_image),
            ("drydock::sboms_one_by_one_or_merged", sboms_one_by_one_or_merged),
            ("drydock::tree_tells_what_layers_do", tree_tells_what_layers_do),
            ("drydock::diff_is_that_of_what_is_unpacked", diff_is_that_of_what_is_unpacked),
            ("drydock::verify_finds_nothing_in_what_is_whole", verify_finds_nothing_in_what_is_whole),
            ("drydock::wrong_names_and_flags", wrong_names_and_flags),
            ("drydock::json_is_documented", json_is_documented),
        ],
    )
}

fn ls_lists_what_there_is(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run", "run-two-platforms", "run-sparse"])?;
    copy(
        &here("../layout-repo-example/index.docker.io/cnb"),
        &repository.dir.path().join("index.docker.io/cnb"),
    )?;
    repository.text(&["tag", "run", "run:linked"])?;
    let listed = repository.json(0, &["ls"])?;
    let of = |name: &str| -> Result<&Value> {
        let all = listed.as_array().context("a list")?;
        all.iter().find(|one| one["name"] == name).with_context(|| format!("{name} is not in {listed}"))
    };
    ensure!(
        of("cnb/my-full-stack-run:bionic")?["own"] == of("cnb/my-full-stack-run:bionic")?["size"],
        "{listed}"
    );
    ensure!(
        of("run-two-platforms:latest")?["platforms"] == json!(["linux/amd64", "linux/arm64"]),
        "{listed}"
    );
    ensure!(of("run-sparse:latest")?["lacking"] == 2, "{listed}");
    let run = of("run:latest")?;
    ensure!(run["linked"] == run["size"] && run["own"] == 0 && run["copied"] == 0, "{run}");
    let two = of("run-two-platforms:latest")?;
    let sum = two["own"].as_u64().zip(two["copied"].as_u64()).map(|(own, copied)| own + copied);
    ensure!(sum == two["size"].as_u64() && two["linked"] == 0 && two["copied"] != 0, "{two}");

    let names = repository.text(&["ls", "--format", "{name}", "run*:latest"])?;
    ensure!(names == "run-sparse:latest\nrun-two-platforms:latest\nrun:latest\n", "{names}");
    let table = repository.text(&["ls"])?;
    ensure!(table.starts_with("REPOSITORY ") && !table.contains('\x1b'), "{table}");
    repository.refused(2, "is no pattern", &["ls", "["])?;
    repository.refused(2, "there are name, repository", &["ls", "--format", "{nome}"])?;

    fs::write(repository.path("run").join("index.json"), "{")?;
    repository.refused(1, "damaged: run:latest: ", &["ls"])?;
    let bare = Repository::new(executables)?;
    ensure!(bare.json(0, &["ls"])? == json!([]));
    bare.refused(4, "--layout-dir", &["--layout-dir", "nowhere", "ls"])
}

fn inspect_agrees_with_skopeo(executables: &Built) -> Result<()> {
    let repository = Repository::new(executables)?;
    let path = repository.path("base");
    fs::create_dir_all(path.parent().context("it has a parent")?)?;
    let base = run_image::write(&path)?;
    let scratch = tempfile::tempdir()?;
    let config = tools::Image::new(&path, run_image::NAME, scratch.path())?.config()?;
    let raw = SKOPEO.run(scratch.path(), &["inspect", "--raw", "oci:layout:latest"])?;

    let found = repository.json(0, &["inspect", "base"])?;
    ensure!(found["digest"] == base.digest.as_str() && found["problems"] == json!([]), "{found}");
    for (ours, theirs) in [("user", "User"), ("env", "Env"), ("cmd", "Cmd"), ("workingDir", "WorkingDir")] {
        ensure!(found["config"][ours] == config["config"][theirs], "{ours}: {found}");
    }
    ensure!(
        found["labels"] == config["config"]["Labels"] && found["created"] == config["created"],
        "{found}"
    );
    ensure!(found["layers"][0]["madeBy"] == "busybox --install", "{found}");
    ensure!(found["layers"][1]["diffId"] == config["rootfs"]["diff_ids"][1], "{found}");
    let output = repository.run(&["inspect", "--raw", "base"])?;
    ensure!(output.stdout == raw, "the manifest is not printed as it is");
    let by_path = repository.json(0, &["inspect", path.to_str().context("a path is UTF-8")?])?;
    ensure!(by_path["digest"] == found["digest"], "{by_path}");
    repository.refused(0, "busybox --install", &["inspect", "base"])
}

/// An app image of the exporter, with SBOM files, in the repository.
fn app(executables: &Built) -> Result<Repository> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    project.write_layer("lib", "launch = true", "library\n")?;
    let component =
        |name: &str| json!({"bomFormat": "CycloneDX", "components": [{"name": name}]}).to_string();
    project.write("layers/sbom/launch/acme_a/lib/sbom.cdx.json", component("lib"))?;
    project.write("layers/sbom/launch/acme_a/sbom.cdx.json", component("app"))?;
    project.write("layers/sbom/launch/acme_a/sbom.spdx.json", "{\"spdxVersion\": \"SPDX-2.3\"}\n")?;
    project
        .write("project-metadata.toml", "[source]\ntype = \"git\"\n[source.version]\ncommit = \"abc\"\n")?;
    let metadata = fs::read_to_string(project.path("layers/config/metadata.toml"))?;
    let metadata = format!("{metadata}\n[[buildpacks]]\nid = \"acme/a\"\nversion = \"1\"\n");
    project.write("layers/config/metadata.toml", metadata)?;
    succeed(project.analyzer()?.arg("app"))?;
    let metadata = project.path("project-metadata.toml");
    succeed(project.exporter()?.arg("-project-metadata").arg(metadata).arg("app"))?;
    let repository = Repository::new(executables)?;
    copy(&project.path(APP_LAYOUT), &repository.path("app"))?;
    Ok(repository)
}

fn inspect_knows_who_built_an_image(executables: &Built) -> Result<()> {
    let repository = app(executables)?;
    let found = repository.json(0, &["inspect", "app"])?;
    ensure!(found["buildpacks"] == json!([{"id": "acme/a", "version": "1"}]), "{found}");
    ensure!(found["processes"][0]["type"] == "web" && found["processes"][0]["command"] == json!(["server"]));
    ensure!(found["source"]["version"]["commit"] == "abc", "{found}");
    ensure!(found["runImage"]["image"] == "example.com/acme/run:base", "{found}");
    ensure!(found["sboms"].as_array().map(Vec::len) == Some(3), "{found}");
    let made: Vec<&str> =
        found["layers"].as_array().context("a list")?.iter().filter_map(|it| it["madeBy"].as_str()).collect();
    for wanted in ["acme/a:lib", "app", "launcher", "SBOM", "buildpacks' configuration"] {
        ensure!(made.contains(&wanted), "{wanted} is not in {made:?}");
    }
    let listed = repository.json(0, &["ls"])?;
    ensure!(listed[0]["base"] == "example.com/acme/run:base", "{listed}");
    let verified = repository.json(0, &["verify", "app"])?;
    ensure!(verified[0]["status"] == "whole", "{verified}");
    Ok(())
}

fn sboms_one_by_one_or_merged(executables: &Built) -> Result<()> {
    let repository = app(executables)?;
    let listed = repository.json(0, &["sbom", "app"])?;
    let mut of: Vec<_> =
        listed.as_array().context("a list")?.iter().filter_map(|it| it["of"].as_str()).collect();
    of.sort_unstable();
    ensure!(of == ["acme_a", "acme_a", "acme_a:lib"], "{listed}");
    let spdx = repository.text(&["sbom", "app", "--format", "spdx"])?;
    ensure!(spdx == "{\"spdxVersion\": \"SPDX-2.3\"}\n", "one file is printed as it is: {spdx}");
    let merged = repository.json(0, &["sbom", "app", "--format", "cyclonedx"])?;
    ensure!(merged["components"] == json!([{"name": "lib"}, {"name": "app"}]), "{merged}");
    let lib = repository.json(0, &["sbom", "app", "--format", "cyclonedx", "--layer", "acme_a:lib"])?;
    ensure!(lib["components"] == json!([{"name": "lib"}]), "{lib}");
    repository.refused(1, "has no such SBOM files", &["sbom", "app", "--format", "syft"])?;
    repository.text(&["sbom", "app", "--output", "out"])?;
    let files = tree::read(&repository.dir.path().join("out"))?;
    let files: Vec<_> =
        files.keys().filter_map(|path| path.to_str()).filter(|path| path.ends_with("json")).collect();
    ensure!(
        files == ["acme_a/lib/sbom.cdx.json", "acme_a/sbom.cdx.json", "acme_a/sbom.spdx.json"],
        "{files:?}"
    );
    Ok(())
}

fn tree_tells_what_layers_do(executables: &Built) -> Result<()> {
    let repository = Repository::new(executables)?;
    let path = repository.path("base");
    fs::create_dir_all(path.parent().context("it has a parent")?)?;
    let base = run_image::write(&path)?;
    let found = repository.json(0, &["tree", "base"])?;
    let entry = |number: usize, path: &str| -> Value {
        let entries = found["layers"][number]["entries"].as_array().into_iter().flatten();
        let entry = entries.clone().find(|entry| entry["path"] == path).cloned().unwrap_or_default();
        json!([entry["change"], entry["kind"], entry["size"], entry["before"]])
    };
    let (issue, old) = ("the first layer's\n".len(), "ID=debian\nVERSION_ID=\"12\"\n".len());
    ensure!(entry(0, "etc/issue") == json!(["added", "file", issue, 0]), "{}", entry(0, "etc/issue"));
    ensure!(entry(0, "bin/sh") == json!(["added", "symlink", 0, 0]), "{}", entry(0, "bin/sh"));
    ensure!(entry(0, "usr/bin/userland") == json!(["added", "hard link", 0, 0]));
    ensure!(entry(1, "etc/issue") == json!(["removed", "whiteout", 0, issue]), "{}", entry(1, "etc/issue"));
    let changed = entry(1, "etc/os-release");
    ensure!(changed[0] == "changed" && changed[3] == old, "{changed}");
    ensure!(found["wasted"] == issue + old && found["layers"][0]["wasted"] == found["wasted"]);
    let names =
        found["files"].as_u64().zip(found["folders"].as_u64()).map(|(files, folders)| files + folders);
    // The root, too, is a folder.
    ensure!(names == Some(base.tree.len() as u64 + 1), "{names:?}, not {}", base.tree.len() + 1);
    let one = repository.json(0, &["tree", "base", "--layer", "2"])?;
    ensure!(one["layers"].as_array().map(Vec::len) == Some(1) && one["layers"][0] == found["layers"][1]);
    let text = repository.text(&["tree", "base", "--layer", "2"])?;
    ensure!(text.contains("  -      -18 B  etc/issue\n"), "{text}");
    repository.refused(2, "has 2 layers", &["tree", "base", "--layer", "3"])
}

/// umoci unpacks both images, and what differs there must be what is said to differ.
fn diff_is_that_of_what_is_unpacked(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run", "run-v2"])?;
    let unpacked = |name: &str| -> Result<tree::Tree> {
        let scratch = tempfile::tempdir()?;
        let names = drydock_acceptance::layout::Layout::new(repository.path(name)).json("index.json")?;
        let names: Value = names;
        let annotation = &names["manifests"][0]["annotations"][drydock_acceptance::layout::REF_NAME];
        let image = annotation.as_str().context("the image has a name")?.to_owned();
        tree::read(&tools::Image::new(&repository.path(name), &image, scratch.path())?.unpack()?)
    };
    repository.text(&["tag", "run", "a"])?;
    repository.text(&["tag", "run-v2", "b"])?;
    let (before, after) = (unpacked("a")?, unpacked("b")?);
    let paths: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let different = paths.into_iter().filter(|path| before.get(*path) != after.get(*path));
    let different: Vec<String> = different.map(|path| path.display().to_string()).collect();
    ensure!(!different.is_empty(), "the images must differ");

    let found = repository.json(1, &["diff", "a", "b"])?;
    let told: Vec<_> =
        found["files"].as_array().context("a list")?.iter().filter_map(|it| it["path"].as_str()).collect();
    ensure!(told == different, "{told:?} are said to differ, {different:?} do");
    ensure!(found["environment"] == json!([{"name": "PATCHED", "before": null, "after": "yes"}]), "{found}");
    ensure!(found["layers"].as_array().map(Vec::len) == Some(3), "{found}");
    repository.refused(1, "PATCHED: yes", &["diff", "a", "b"])?;
    repository.refused(0, "do not differ", &["diff", "a", "run"])
}

fn verify_finds_nothing_in_what_is_whole(executables: &Built) -> Result<()> {
    let images =
        ["run", "run-v2", "run-no-labels", "run-arm64", "run-two-platforms", "run-docker", "run-sparse"];
    let repository = Repository::with(executables, &images)?;
    copy(
        &here("../layout-repo-example/index.docker.io/cnb"),
        &repository.dir.path().join("index.docker.io/cnb"),
    )?;
    let found = repository.json(0, &["verify"])?;
    let found = found.as_array().context("a list")?;
    ensure!(found.len() == images.len() + 1, "{found:?}");
    for one in found {
        let want = if one["name"] == "run-sparse:latest" { ("sparse", 2) } else { ("whole", 0) };
        ensure!(one["status"] == want.0 && one["problems"] == json!([]), "{one}");
        ensure!(one["lacks"].as_array().map(Vec::len) == Some(want.1), "{one}");
    }
    let output = repository.run(&["--json", "verify", "run"])?;
    let events = String::from_utf8(output.stderr)?;
    for line in events.lines() {
        let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        ensure!(event["task"] == "verifying", "{event}");
    }
    ensure!(events.contains("begin") && events.contains("end"), "{events}");
    let lines = String::from_utf8(repository.run(&["verify", "run"])?.stderr)?;
    ensure!(lines.starts_with("verifying: "), "{lines}");
    ensure!(repository.run(&["--quiet", "verify", "run"])?.text().is_empty(), "-q says something");
    Ok(())
}

fn wrong_names_and_flags(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run", "run-arm64", "run-two-platforms"])?;
    for arguments in
        [&["inspect", "rum"][..], &["verify", "run:lates"], &["tag", "runn", "x"], &["rm", "rrun"]]
    {
        repository.refused(3, "did you mean `run:latest`", arguments)?;
    }
    repository.refused(3, "`drydock ls` lists", &["inspect", "something-else"])?;
    repository.refused(2, "could not parse reference", &["inspect", "Upper"])?;
    repository.refused(2, "similar subcommand exists: 'inspect'", &["inspct", "run"])?;
    repository.refused(3, "linux/arm64", &["inspect", "run-two-platforms", "--platform", "linux/s390x"])?;
    repository.refused(2, "linux/arm64", &["inspect", "run", "--platform", "arm64"])?;
    let digest = format!("run@sha256:{}", "0".repeat(64));
    repository.refused(2, "name the new image with a tag", &["tag", "run", &digest])?;
    repository.refused(2, "name the new image with a tag", &["flatten", "run", &digest])?;
    let inside = repository.path("run").join("blobs/x");
    copy(&here("images/run"), &inside)?;
    let (path, target) = (text(&inside), format!("oci:{}", text(&inside)));
    let source = format!("oci:{}", text(&here("images/run")));
    for arguments in [
        &["tag", "run", "library/run/latest:blobs"][..],
        &["tag", "run", "library/run/latest/blobs"],
        &["flatten", "run", "library/run/latest/blobs:x"],
        &["import", &source, "library/run/latest/blobs:x"],
        &["export", "run", &target],
        &["rm", "library/run/latest/blobs:x"],
        &["inspect", path],
    ] {
        repository.refused(2, "lies among the blobs of the image at", arguments)?;
    }
    ensure!(!repository.text(&["ls"])?.contains("blobs"), "it is listed");
    ensure!(repository.json(0, &["gc", "--dry-run"])?["layouts"] == json!([]), "it is cleaned");
    let help = repository.text(&["--help"])?;
    ensure!(help.contains("Exit codes:") && help.contains("130"), "{help}");
    ensure!(repository.text(&["completions", "bash"])?.contains("_drydock"), "no completions");
    ensure!(repository.text(&["man", "flatten"])?.contains(".TH drydock-flatten"), "no manual page");
    Ok(())
}

/// Every field of every answer is in `JSON.md`.
fn json_is_documented(executables: &Built) -> Result<()> {
    let text = fs::read_to_string(here("../cmd/drydock/JSON.md")).context("read JSON.md")?;
    let repository = app(executables)?;
    copy(&here("images/run-sparse"), &repository.path("run:sparse"))?;
    copy(&here("images/run-docker"), &repository.path("run:docker"))?;
    fs::write(repository.path("app").join(".drydock-1-1"), "")?;
    for (exit, arguments) in [
        (0, &["ls"][..]),
        (0, &["inspect", "app"]),
        (0, &["tree", "app"]),
        (1, &["diff", "app", "run:docker"]),
        (0, &["sbom", "app"]),
        (0, &["verify"]),
        (0, &["gc", "--dry-run"]),
        (0, &["tag", "app", "other"]),
        (0, &["flatten", "app", "flat"]),
        (0, &["rm", "other"]),
        (0, &["export", "app", "oci:elsewhere"]),
        (0, &["import", "oci:elsewhere", "again"]),
    ] {
        let answer = repository.json(exit, arguments)?;
        let mut keys = BTreeSet::new();
        collect_keys(&answer, &mut keys);
        for key in keys {
            ensure!(text.contains(&format!("`{key}`")), "JSON.md does not tell of `{key}` of {arguments:?}");
        }
    }
    Ok(())
}

/// The names of all fields, but for those that images themselves have given.
fn collect_keys(json: &Value, keys: &mut BTreeSet<String>) {
    match json {
        Value::Array(items) => items.iter().for_each(|item| collect_keys(item, keys)),
        Value::Object(fields) => {
            for (key, value) in fields {
                keys.insert(key.clone());
                if !matches!(key.as_str(), "labels" | "annotations" | "source" | "more") || value.is_array() {
                    collect_keys(value, keys);
                }
            }
        }
        _ => {}
    }
}
