//! Commands that build in sandboxes: faults of `drydock` itself, in its room.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::succeed;
use drydock_acceptance::sandboxed::{House, Who};
use drydock_acceptance::sha256;
use libtest_mimic::Trial;

use super::{Scene, Start};
use crate::building::{GREETER, Houses, with_houses};
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>, houses: &Arc<Houses>) -> Vec<Trial> {
    let mut trials = with_houses(
        executables,
        houses,
        [("faults::build", build), ("faults::build_with_a_trusted_builder", build_with_a_trusted_builder)],
    );
    trials.extend(with_executables(
        executables,
        [
            ("faults::import_of_a_dockerfile", import_of_a_dockerfile),
            ("faults::a_log_costs_no_image", a_log_costs_no_image),
        ],
    ));
    trials
}

/// Makes the room that `drydock` would make, and tells it that it is inside: what it starts there is not followed by strace, and
/// neither would it be itself.
const IN_ROOM: &str = "export DRYDOCK_ROOM=$(readlink /proc/self/ns/mnt) && exec \"$@\"";

fn in_room<'a>(house: &'a House, arguments: Vec<&'a str>) -> Start<'a> {
    Box::new(move |words| {
        let inner = house.command(&arguments);
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--kill-child", "--", "sh", "-c", IN_ROOM, "sh"])
            .args(words);
        // Without the words that make a namespace.
        command.args(inner.get_args().skip(2)).current_dir(house.path("")).stdin(std::process::Stdio::null());
        command.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Ok(command)
    })
}

fn scene<'a>(name: &'a str, house: &'a House, exits: &'a [i32], arguments: Vec<&'a str>) -> Scene<'a> {
    let start = in_room(house, arguments);
    Scene {
        name,
        root: house.path(""),
        start,
        exits,
        // What killed commands left of unpacked images is removed by that.
        prepare: Some(in_room(house, vec!["gc"])),
        done: None,
        layouts: "layout-repo",
        kept: &[],
        on_disks: false,
        without: &[],
    }
}

/// Of phases, and of what is around them.
const EXITS: [i32; 12] = [1, 2, 4, 20, 21, 22, 32, 42, 51, 52, 62, 92];

fn build(executables: &Built, houses: &Houses) -> Result<()> {
    let house = houses.with_script(executables, Who::Root, GREETER)?;
    house.built(&[])?;
    house.write("app/name", "a newer app\n")?;
    scene("build", &house, &EXITS, house.build_arguments(&[])?).try_all()?;
    house.is_clean()
}

fn build_with_a_trusted_builder(executables: &Built, houses: &Houses) -> Result<()> {
    let house = houses.with_script(executables, Who::Root, GREETER)?;
    let arguments = house.build_arguments(&["--trust-builder", "--network", "none"])?;
    scene("build with a trusted builder", &house, &EXITS, arguments).try_all()?;
    house.is_clean()
}

fn import_of_a_dockerfile(executables: &Built) -> Result<()> {
    let house = with_dockerfile(executables)?;
    let arguments = ["import", "dockerfile:app", "app", "--creation-time", "1000000000", "--network", "none"];
    scene("import of a Dockerfile", &house, &EXITS, arguments.to_vec()).try_all()?;
    house.is_clean()
}

/// Where no phase is needed.
fn with_dockerfile(executables: &Built) -> Result<House> {
    let dir = tempfile::tempdir().context("make a folder")?;
    let (cnb, app) = (dir.path().join("cnb"), dir.path().join("app"));
    for folder in [&cnb, &app] {
        fs::create_dir(folder)?;
    }
    let dockerfile = "FROM acme/run:base\nUSER 0\nCOPY . /src/\nRUN echo hello >/greeting\n";
    fs::write(app.join("Dockerfile"), dockerfile)?;
    House::new(&executables.for_everyone()?.join("drydock"), Path::new("/nowhere"), Who::Root, &cnb, &app)
}

/// A folder is where a blob of the log is to be, and of nothing else.
fn a_log_costs_no_image(executables: &Built) -> Result<()> {
    let house = with_dockerfile(executables)?;
    let blob = sha256(b"{}").replace(':', "/");
    let in_the_way = house.path("layout-repo/index.docker.io/library/app/latest/blobs").join(&blob);
    fs::create_dir_all(&in_the_way)?;
    for flatten in [&[][..], &["--flatten"]] {
        let words = [&["import", "dockerfile:app", "app", "--network", "none"], flatten].concat();
        let output = succeed(&mut house.patient(&words))?;
        let warning = "warning: the log of the build is not kept: failed to write";
        ensure!(output.text().contains(warning) && output.text().contains(&blob), "{}", output.text());
        house.published()?;
    }
    house.is_clean()
}
