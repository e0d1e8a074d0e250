//! Dependencies run one way, and no phase can reach a network.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use drydock_package::{cargo, workspace};

/// What each package of the project may depend on of the others, directly. Who is not here may depend on all.
const ALLOWED: [(&str, &[&str]); 12] = [
    ("drydock-model", &[]),
    ("drydock-io", &[]),
    ("drydock-spec", &["drydock-env", "drydock-model"]),
    ("drydock-encode", &["drydock-io", "drydock-model"]),
    ("drydock-tar", &["drydock-io", "drydock-model"]),
    ("drydock-layout", &["drydock-io", "drydock-model"]),
    ("drydock-registry", &["drydock-io", "drydock-model", "drydock-spec"]),
    ("drydock-sandbox", &["drydock-io", "drydock-tar"]),
    ("drydock-extend", &["drydock-encode", "drydock-io", "drydock-layout", "drydock-model", "drydock-tar"]),
    (
        "drydock-phases",
        &[
            "drydock-encode",
            "drydock-env",
            "drydock-extend",
            "drydock-io",
            "drydock-layout",
            "drydock-model",
            "drydock-spec",
            "drydock-tar",
        ],
    ),
    (
        "drydock-images",
        &["drydock-encode", "drydock-io", "drydock-layout", "drydock-model", "drydock-spec", "drydock-tar"],
    ),
    (
        "drydock-cli",
        &[
            "drydock-encode",
            "drydock-extend",
            "drydock-images",
            "drydock-io",
            "drydock-layout",
            "drydock-model",
            "drydock-registry",
            "drydock-sandbox",
            "drydock-spec",
            "drydock-tar",
        ],
    ),
];

/// What is for people at a terminal, and not for phases.
const FOR_PEOPLE: [&str; 9] = [
    "clap_complete",
    "clap_derive",
    "clap_mangen",
    "drydock-cli",
    "drydock-images",
    "drydock-registry",
    "drydock-sandbox",
    "indicatif",
    "strsim",
];

/// Packages that open connections, or that whatever opens one needs.
const NETWORK: [&str; 14] = [
    "async-std",
    "attohttpc",
    "curl",
    "h2",
    "hyper",
    "isahc",
    "mio",
    "native-tls",
    "openssl",
    "reqwest",
    "rustls",
    "socket2",
    "tokio",
    "ureq",
];

/// The names in `cargo tree`, without tests' dependencies.
fn tree(package: &str, depth: &str) -> Result<BTreeSet<String>> {
    let mut command = cargo::command();
    command.args(["tree", "--locked", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"]);
    command.args(["--depth", depth, "--package", package]).current_dir(workspace());
    let output = command.output().context("run cargo tree")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).context("read what cargo tree printed")?;
    let names = text.lines().filter_map(|line| line.split(' ').next()).filter(|name| *name != package);
    Ok(names.map(str::to_owned).collect())
}

#[test]
fn dependencies_run_one_way() -> Result<()> {
    let allowed: BTreeMap<_, _> = ALLOWED.into();
    for (package, allowed) in allowed {
        let found = tree(package, "1")?;
        let ours = found.iter().filter(|name| name.starts_with("drydock-"));
        let wrong: Vec<_> = ours.filter(|name| !allowed.contains(&name.as_str())).collect();
        ensure!(wrong.is_empty(), "{package} must not depend on {wrong:?}");
        ensure!(
            allowed.iter().all(|name| found.contains(*name)),
            "{package} may depend on less than is allowed here: {found:?}"
        );
    }
    Ok(())
}

/// None of these is in a package's tree; `there` are in it, so that it is known to be the tree.
fn reaches_none(package: &str, forbidden: &[&str], there: &[&str]) -> Result<()> {
    let found = tree(package, "1000")?;
    ensure!(there.iter().all(|name| found.contains(*name)), "this is not the tree: {found:?}");
    let wrong: Vec<_> = forbidden.iter().filter(|name| found.contains(**name)).collect();
    ensure!(wrong.is_empty(), "{package} reaches {wrong:?}");
    Ok(())
}

#[test]
fn no_phase_reaches_a_network() -> Result<()> {
    reaches_none("drydock", &NETWORK, &["drydock-phases", "serde"])
}

#[test]
fn images_reach_no_network() -> Result<()> {
    reaches_none("drydock-images", &NETWORK, &["drydock-layout", "serde"])
}

#[test]
fn no_phase_reaches_what_is_for_people() -> Result<()> {
    reaches_none("drydock", &FOR_PEOPLE, &["clap", "drydock-layout"])?;
    reaches_none("drydock-images", &["clap", "indicatif"], &["drydock-layout"])
}
