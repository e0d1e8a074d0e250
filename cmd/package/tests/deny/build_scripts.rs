//! What runs on the machine of whoever builds: only the build scripts that `deny.toml` lists. That none of them downloads
//! anything is seen where builds have no network: `acceptance/clients/reproducible.sh`.

use std::collections::BTreeSet;

use crate::{Package, deny, packages};

#[test]
fn build_scripts_are_listed() {
    let is_script = |package: &Package| package.targets.iter().any(|target| target.kind == ["custom-build"]);
    let packages = packages().unwrap().into_iter();
    let with_script = packages.filter(|package| package.source.is_some() && is_script(package));
    let found: BTreeSet<String> = with_script.map(|package| package.name).collect();
    let listed = deny().unwrap().bans.build.allow_build_scripts;
    assert_eq!(found, listed, "left: packages that have build scripts; right: those that deny.toml lists");
}
