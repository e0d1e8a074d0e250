//! Where an executable is built does not show in it. Here it is the launcher, which takes seconds to build;
//! `acceptance/clients/reproducible.sh` does so with all that ships.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use drydock_package::compile::{Folders, LAUNCHER, build};
use drydock_package::{cargo, workspace};

/// The launcher's bytes, built anew.
fn launcher(workspace: &Path, target: &Path, cargo_home: &Path) -> Result<Vec<u8>> {
    let built = build(LAUNCHER, &Folders::new(workspace, target, cargo_home)?)?;
    fs::read(&built).with_context(|| format!("read {}", built.display()))
}

#[test]
fn the_launcher_is_the_same_from_other_folders() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let path = |name: &str| temp.path().join(name);
    let here = launcher(&workspace(), &path("target"), &cargo::home()?)?;

    let copy = path("somewhere/else/drydock");
    fs::create_dir_all(copy.join("cmd/launcher"))?;
    let mut command = Command::new("cp");
    for part in ["Cargo.toml", "Cargo.lock", "build.rs", "src", "env"] {
        command.arg(workspace().join("cmd/launcher").join(part));
    }
    let copied = command.arg("-r").arg(copy.join("cmd/launcher")).status()?;
    ensure!(copied.success(), "cp failed: {copied}");
    // What was downloaded is the same, by another name.
    fs::create_dir(path("home"))?;
    symlink(cargo::home()?.join("registry"), path("home/registry"))?;
    let there = launcher(&copy, &path("home/target"), &path("home"))?;

    ensure!(here == there, "the launchers differ: {} and {} bytes", here.len(), there.len());
    let text = String::from_utf8_lossy(&here);
    for folder in [temp.path(), &fs::canonicalize(workspace())?, &cargo::home()?] {
        ensure!(!text.contains(&*folder.to_string_lossy()), "the launcher names {}", folder.display());
    }
    Ok(())
}
