//! The run image that tests export onto, before anything of ours has touched it: the judges must agree on it.

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::tools::Image;
use drydock_acceptance::{run_image, tree};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::test;

/// This module's tests.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        test("tools::run_image_is_the_same_each_time", run_image_is_the_same_each_time),
        test("tools::everyone_reads_the_run_image", everyone_reads_the_run_image),
    ]
}

fn run_image_is_the_same_each_time() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    run_image::write(&one)?;
    run_image::write(&two)?;
    let found = tree::differences(&tree::read(&one)?, &tree::read(&two)?);
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

fn everyone_reads_the_run_image() -> Result<()> {
    let dir = tempfile::tempdir()?;
    // A registry's port makes a colon in the path, which tools take for the start of a name.
    let layout = dir.path().join("localhost:5000/acme/run/base");
    let image = run_image::write(&layout)?;
    let judged = Image::new(&layout, run_image::NAME, dir.path())?;
    judged.judge(&image.tree)?;
    let config: Value = judged.config()?;
    ensure!(config["config"]["Labels"] == image.config["config"]["Labels"], "skopeo reads {config}");

    let other = dir.path().join("other");
    std::fs::create_dir(&other).context("make a folder")?;
    let container = Image::new(&layout, run_image::NAME, &other)?.container()?;
    let printed = container.run(&["sh", "-c", "id -u; pwd; cat /etc/motd"])?;
    let printed = String::from_utf8(printed).context("read what the container printed")?;
    ensure!(printed == "1000\n/home/cnb\nGrüße\n", "the container printed {printed:?}");
    Ok(())
}
