//! What `deny.toml` says of dependencies holds for every package that is linked, run while building or used in tests.

mod build_scripts;
mod licences;
mod versions;

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use drydock_package::{cargo, workspace};
use serde::Deserialize;

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    /// Each as `name@version`.
    skip: Vec<Skipped>,
    build: Build,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Build {
    allow_build_scripts: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Skipped {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

fn deny() -> Result<Deny> {
    let text = fs::read_to_string(workspace().join("deny.toml")).context("read deny.toml")?;
    toml::from_str(&text).context("parse deny.toml")
}

/// The packages of both workspaces, whatever they are needed for, on the platforms that the executables are built for.
fn packages() -> Result<Vec<Package>> {
    let manifests = ["Cargo.toml", "cmd/launcher/Cargo.toml"];
    let mut packages = Vec::new();
    for manifest in manifests {
        let mut command = cargo::command();
        command.args(["metadata", "--locked", "--format-version=1", "--manifest-path"]);
        command.arg(workspace().join(manifest));
        for architecture in ["x86_64", "aarch64"] {
            command.args(["--filter-platform", &format!("{architecture}-unknown-linux-gnu")]);
        }
        let output = command.stderr(Stdio::inherit()).output().context("run cargo metadata")?;
        ensure!(output.status.success(), "cargo metadata failed for {manifest}");
        let metadata: Metadata = serde_json::from_slice(&output.stdout).context("parse what it printed")?;
        packages.extend(metadata.packages);
    }
    Ok(packages)
}
