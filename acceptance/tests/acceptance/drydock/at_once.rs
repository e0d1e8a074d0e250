//! Commands at once on one repository or with one cache, some of them killed.

pub(crate) mod builds;
mod creators;
mod exports;
mod works;

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::Layout;
use drydock_acceptance::project::{self, Project, succeed};
use drydock_acceptance::scenario::User;
use drydock_fake_registry::Fake;
use libtest_mimic::Trial;
use serde_json::Value;
use tar::EntryType as Type;

use super::registries::{named, sources};
use super::served::Served;
use super::{Repository, tar_of};
use crate::killed::noise;
use crate::{Built, rounds, with_executables};

/// This module's tests, without those of whole builds.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    let mut trials = exports::trials(executables);
    trials.extend(creators::trials(executables));
    trials.extend(with_executables(
        executables,
        [("drydock::at_once::writers_and_readers", |executables: &Built| {
            writers_and_readers_at_once(executables, rounds(ROUNDS)?)
        })],
    ));
    trials
}

/// Rounds in the suite.
const ROUNDS: u32 = 5;

/// Two imports, an export, a clean-up and an exporter, with names that share blobs.
fn writers_and_readers_at_once(executables: &Built, rounds: u32) -> Result<()> {
    // Two images that share two of three layers.
    let source = Repository::new(executables)?;
    let letters = |seed| noise(seed, 300_000).into_iter().map(|byte| char::from(b'a' + byte % 16)).collect();
    let layer = |seed| -> Result<Vec<u8>> {
        let content: String = letters(seed);
        tar_of(&[(Type::Regular, &format!("file{seed}"), &content)])
    };
    for (name, last) in [("x", 3), ("y", 4)] {
        source.write_image(name, &[layer(1)?, layer(2)?, layer(last)?])?;
    }
    let digests = [named(&source.path("x"))?, named(&source.path("y"))?];
    // By the network, and from files.
    let fakes = ["x", "y"].map(|name| -> Result<Fake> {
        let served = Served::image(&source.layout(name))?;
        Ok(Fake::start(move |request, _| served.answer(request)))
    });
    let [x, y] = fakes;
    let (x, y) = (x?, y?);
    let dir = tempfile::tempdir()?;
    let rules = sources(dir.path(), &[&x.host, &y.host], "")?;
    let by_network = [&x, &y].map(|fake| format!("docker://{}/x/y", fake.host));
    let by_file = ["x", "y"].map(|name| format!("oci:{}", source.path(name).display()));
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    project.write_layer("lib", "launch = true", "library\n")?;
    project.analyze()?;
    let repository = project.path("layout-repo");
    let drydock = |words: &[&str]| -> Command {
        let mut command = source.command(words);
        command.env("CNB_OCI_LAYOUT_PATH", &repository);
        command
    };
    let layout =
        |name: &str| Layout::new(repository.join("index.docker.io/library").join(name).join("latest"));
    for (name, from) in ["a", "b"].into_iter().zip(&by_file) {
        succeed(&mut drydock(&["import", from, name]))?;
    }
    for round in 0..rounds {
        // Each name stands for the other image each time.
        let turn = usize::try_from(round + 1)? % 2;
        project.write("app/file", format!("round {round}"))?;
        let out = dir.path().join("out");
        let target = format!("oci:{}", out.display());
        let mut exporter = project.exporter()?;
        exporter.arg("app");
        let mut works = [
            drydock(&["--sources", &rules, "import", &by_network[turn], "a"]),
            drydock(&["import", &by_file[1 - turn], "b"]),
            drydock(&["export", "a", &target]),
            drydock(&["gc"]),
            exporter,
        ];
        let started: Vec<_> = works
            .iter_mut()
            .map(|work| work.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn())
            .collect::<Result<_, _>>()?;
        for (number, child) in started.into_iter().enumerate() {
            let output = child.wait_with_output()?;
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            ensure!(output.status.success(), "round {round}: work {number}: {}\n{said}", output.status);
        }
        for (name, want) in [("a", &digests[turn]), ("b", &digests[1 - turn])] {
            layout(name).verify().with_context(|| format!("round {round}: {name}"))?;
            ensure!(named(layout(name).dir())? == *want, "round {round}: {name} is another image");
        }
        layout("app").verify().with_context(|| format!("round {round}: app"))?;
        let found = project::succeed(&mut drydock(&["--json", "--quiet", "verify"]))?.stdout;
        let found: Value = serde_json::from_slice(&found)?;
        let found = found.as_array().context("a list")?;
        // The run image besides.
        ensure!(found.len() == 4 && found.iter().all(|one| one["status"] == "whole"), "{round}: {found:?}");
        Layout::new(&out).verify().with_context(|| format!("round {round}: what was exported"))?;
        ensure!(digests.contains(&named(&out)?), "round {round}: another image was exported");
        fs::remove_dir_all(&out)?;
    }
    Ok(())
}
