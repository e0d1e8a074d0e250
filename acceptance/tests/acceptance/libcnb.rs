//! A buildpack made with libcnb.rs (`libcnb-buildpack/`), which reads and writes the Buildpack API's files in its own way.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::app_build::AppBuild;
use drydock_acceptance::project::succeed;
use drydock_acceptance::scenario::Operation;
use drydock_acceptance::{executables, here};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(executables, [("libcnb::a_whole_build", a_whole_build)])
}

fn a_whole_build(executables: &Built) -> Result<()> {
    let executables = executables.get()?.dir();
    let build = AppBuild::new(&here("libcnb-buildpack"), &[])?;
    install_buildpack(&build.stage.path("cnb/buildpacks/acme_greeter/0.1.0/bin"))?;

    let log = build.create(executables, &BTreeMap::new())?;
    says(
        &log,
        &[
            "Installing the greeter",
            "Getting the tools",
            "Adding layer 'acme/greeter:greeter'",
            "Adding layer 'acme/greeter:settings'",
            "Adding layer 'buildpacksio/lifecycle:launch.sbom'",
            "Adding cache layer 'acme/greeter:greeter'",
        ],
    )?;
    let first = build.image()?;
    labels(&first.config["config"]["Labels"])?;

    let unpacked = build.unpack()?;
    ensure!(unpacked.config["Entrypoint"] == json!(["/cnb/process/hello"]), "{}", unpacked.config);
    files(&unpacked.root)?;
    let printed = |variable: Option<(&str, &str)>| -> Result<String> {
        Ok(succeed(unpacked.entrypoint()?.envs(variable))?.text())
    };
    ensure!(printed(None)? == "Hello, world!\n", "the app prints {:?}", printed(None)?);
    let other = printed(Some(("GREETING", "Salut")))?;
    ensure!(other == "Salut, world!\n", "with a variable, the app prints {other:?}");
    let marked = printed(Some(("MARK", ".")))?;
    ensure!(marked == "Hello, world.?!\n", "with a variable that is appended to, the app prints {marked:?}");

    // The library finds its layer's metadata as it left them, and the same image comes of it.
    build.stage.apply(&[Operation::Empty("/layers".into())])?;
    let log = build.create(executables, &BTreeMap::new())?;
    says(&log, &["The greeter is there", "The tools are there", "Reusing layer 'acme/greeter:greeter'"])?;
    let second = build.image()?;
    ensure!(second.layers == first.layers, "{:?} became {:?}", first.layers, second.layers);
    Ok(())
}

/// One executable under both names. A program copies it: a file that this process had open for writing could not be
/// started while another thread starts something.
pub(crate) fn install_buildpack(bin: &Path) -> Result<()> {
    let built = executables::build_apart(&here("libcnb-buildpack")).context("build the buildpack")?;
    fs::create_dir(bin).with_context(|| format!("make {}", bin.display()))?;
    succeed(Command::new("cp").arg(built).arg(bin.join("detect")))?;
    fs::hard_link(bin.join("detect"), bin.join("build")).context("link bin/build to bin/detect")
}

fn says(log: &str, lines: &[&str]) -> Result<()> {
    for line in lines {
        ensure!(log.lines().any(|found| found.contains(line)), "{line:?} is not in the log:\n{log}");
    }
    Ok(())
}

fn labels(labels: &Value) -> Result<()> {
    ensure!(labels["com.example.greeter"] == "installed", "the labels are {labels}");
    let label = |name: &str| -> Result<Value> {
        let text = labels[name].as_str().with_context(|| format!("the label {name}"))?;
        serde_json::from_str(text).with_context(|| format!("parse the label {name}"))
    };
    let metadata = label("io.buildpacks.lifecycle.metadata")?;
    let buildpack = &metadata["buildpacks"][0];
    ensure!(buildpack["key"] == "acme/greeter", "the lifecycle's metadata are {metadata}");
    let greeter = &buildpack["layers"]["greeter"];
    let found = ["build", "launch", "cache", "data"].map(|key| &greeter[key]);
    ensure!(found == [&json!(false), &json!(true), &json!(true), &json!({"version": 3})], "{greeter}");
    ensure!(metadata["sbom"]["sha"].is_string(), "no SBOM layer in {metadata}");
    let build = label("io.buildpacks.build.metadata")?;
    let process = &build["processes"][0];
    let wanted = json!({
        "type": "hello", "command": ["greet"], "args": null, "direct": true, "buildpackID": "acme/greeter",
    });
    ensure!(*process == wanted, "the process is {process}, not {wanted}");
    Ok(())
}

/// What the image must hold of the layers.
fn files(root: &Path) -> Result<()> {
    let expected = [
        ("acme_greeter/settings/env.launch/GREETING.default", "Hello"),
        ("acme_greeter/settings/env/MARK.append", "!"),
        ("acme_greeter/settings/env/MARK.delim", "?"),
        ("sbom/launch/acme_greeter/sbom.spdx.json", r#"{"spdxVersion":"SPDX-2.3","name":"app"}"#),
    ];
    for (path, content) in expected {
        let path = root.join("layers").join(path);
        let found = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        ensure!(found == content, "{} holds {found:?}", path.display());
    }
    let sbom = fs::read(root.join("layers/sbom/launch/acme_greeter/greeter/sbom.cdx.json"))
        .context("read the layer's SBOM")?;
    let sbom: Value = serde_json::from_slice(&sbom).context("parse the layer's SBOM")?;
    ensure!(sbom["components"][0]["name"] == "greeter", "the layer's SBOM is {sbom}");
    ensure!(!root.join("layers/sbom/build").exists(), "the image has the build's SBOM");
    Ok(())
}
