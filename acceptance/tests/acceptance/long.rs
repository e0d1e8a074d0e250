//! Long use: one app is built again and again, with changes and without, and nothing grows by that: room on the disk, files,
//! memory, and what a build has to do.

mod figures;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::here;
use drydock_acceptance::project::{APP_IMAGE, APP_LAYOUT, Project, succeed};
use drydock_acceptance::sandboxed::Who;
use drydock_acceptance::scenario::User;
use drydock_acceptance::stage::chmod;
use libtest_mimic::Trial;
use tempfile::TempDir;

use self::figures::{Costs, Figures};
use crate::building::{Houses, with_houses};
use crate::killed::noise;
use crate::{Built, rounds, test};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>, houses: &Arc<Houses>) -> Vec<Trial> {
    let built = Arc::clone(executables);
    let mut trials = vec![test("long::phases", move || by_phases(&built, rounds(ROUNDS)?))];
    // A whole build takes five times as long.
    trials.extend(with_houses(
        executables,
        houses,
        [("long::builds", |built: &Built, houses: &Houses| {
            by_drydock(built, houses, (rounds(5 * ROUNDS_OF_BUILDS)? / 5).max(ROUNDS_OF_BUILDS))
        })],
    ));
    trials
}

/// Rebuilds in the suite.
const ROUNDS: u32 = 24;
const ROUNDS_OF_BUILDS: u32 = 16;

/// What is different from the build before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    App,
    Layer,
    Nothing,
    /// A cached layer is not there any more; in the next build it is again.
    Dropped,
}

/// So many changes there are.
const CHANGES: u32 = 4;

impl Change {
    fn of(round: u32) -> Self {
        [Self::App, Self::Layer, Self::Nothing, Self::Dropped][(round % CHANGES) as usize]
    }
}

/// The store keeps what was replaced for ten minutes, for whoever may be reading: a library that puts the clock ahead by more.
struct Later(TempDir);

impl Later {
    fn make() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("drydock-later-").tempdir().context("make a folder")?;
        chmod(dir.path(), 0o755)?;
        let mut compiler = Command::new("gcc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(dir.path().join("ahead.so"));
        succeed(compiler.arg(here("tests/acceptance/long/ahead.c")))?;
        Ok(Self(dir))
    }

    fn preload(&self) -> PathBuf {
        self.0.path().join("ahead.so")
    }
}

/// Analyzer, restorer and exporter, with a cache, each build in a new layers directory and eleven minutes after the last one.
fn by_phases(built: &Built, rounds: u32) -> Result<()> {
    let later = Later::make()?;
    let preload = format!("LD_PRELOAD={}", later.preload().display());
    let project = Project::new(built.get()?.dir(), User::Root)?;
    for file in 0..50 {
        project.write(&format!("app/src/{file}"), noise(file, 4000))?;
    }
    let mut figures = Figures::new("phases", rounds);
    for round in 0..=rounds {
        let what = || format!("round {round}");
        let is_measured = figures.is_measured(round);
        let run = |phase: &dyn Fn(&[&str]) -> Result<Command>, further: &[&str]| -> Result<Costs> {
            let patient = ["timeout", "--foreground", "--signal=KILL", "120", "env", &preload];
            Costs::of(&patient, is_measured, |starter| {
                let mut command = phase(starter)?;
                command.args(further);
                Ok(command)
            })
        };
        for name in ["acme_a", "sbom"] {
            remove(&project.path("layers").join(name))?;
        }
        let change = Change::of(round);
        if change == Change::App {
            project.write("app/version", format!("{round:09}"))?;
        }
        let mut costs =
            run(&|starter| project.phase(starter, "analyzer"), &[APP_IMAGE]).with_context(what)?;
        costs.add(
            run(&|starter| project.restorer_under(starter), &["-cache-dir", "cache"]).with_context(what)?,
        );
        let is_back = project.path("layers/acme_a/stays/file").exists();
        ensure!(is_back == (round > 0), "{}: is the layer restored: {is_back}", what());
        let version = round.div_ceil(CHANGES);
        for (name, types, seed) in [
            ("stays", "launch = true\ncache = true", 0),
            ("changes", "launch = true\ncache = true", version),
            ("tool", "build = true\ncache = true", version),
            ("comes-and-goes", "cache = true", 1),
        ] {
            if name == "comes-and-goes" && change == Change::Dropped {
                remove(&project.path("layers/acme_a").join(name))?;
                remove(&project.path("layers/acme_a").join(format!("{name}.toml")))?;
                continue;
            }
            let content = noise(seed as usize, 100_000);
            let is_there = fs::read(project.path(&format!("layers/acme_a/{name}/file")))
                .is_ok_and(|file| file == content);
            if is_there {
                project.write(&format!("layers/acme_a/{name}.toml"), format!("[types]\n{types}\n"))?;
            } else {
                project.write_layer(name, types, content)?;
            }
        }
        let arguments = ["-cache-dir", "cache", APP_IMAGE];
        costs.add(run(&|starter| project.exporter_under(starter), &arguments).with_context(what)?);
        figures.add(round, costs, &[&project.path("layout-repo"), &project.path("cache")])?;
    }
    let app = project.layout(APP_LAYOUT);
    app.verify()?;
    ensure!(app.faults()?.is_empty(), "{:#?}", app.faults()?);
    figures.are_level()
}

/// A layer of 100 files that is kept as long as the app's file `layer` says the same, and one that comes and goes.
const BUILD: &str = "#!/bin/sh
set -eu
layer=$CNB_LAYERS_DIR/data version=$(cat layer)
if [ \"$(cat \"$layer/0\" 2>/dev/null)\" != \"$version\" ]; then
    rm -rf \"$layer\"; mkdir \"$layer\"
    for file in $(seq 0 99); do echo \"$version\" >\"$layer/$file\"; done
fi
printf '[types]\\nlaunch = true\\ncache = true\\n' >\"$layer.toml\"
other=$CNB_LAYERS_DIR/other
if [ -e drop ]; then
    rm -rf \"$other\" \"$other.toml\"
else
    mkdir -p \"$other\"; [ -e \"$other/file\" ] || seq 0 9999 >\"$other/file\"
    printf '[types]\\ncache = true\\n' >\"$other.toml\"
fi
printf '[[processes]]\\ntype = \"web\"\\ncommand = [\"cat\", \"name\"]\\n' >\"$CNB_LAYERS_DIR/launch.toml\"
";

/// `drydock build`, as an ordinary user, and every fourth time `drydock gc` eleven minutes later.
fn by_drydock(built: &Built, houses: &Houses, rounds: u32) -> Result<()> {
    let later = Later::make()?;
    let house = houses.with_script(built, Who::Ordinary, BUILD)?;
    let mut figures = Figures::new("builds", rounds);
    for round in 0..=rounds {
        let what = || format!("round {round}");
        let change = Change::of(round);
        if change == Change::App {
            house.write("app/name", &format!("{round:09}\n"))?;
        }
        if change == Change::Layer || round == 0 {
            house.write("app/layer", &format!("{round:09}\n"))?;
        }
        if change == Change::Dropped {
            house.write("app/drop", "")?;
        } else {
            remove(&house.path("app/drop"))?;
        }
        house.own()?;
        let costs = Costs::of(&["env"], figures.is_measured(round), |starter| {
            let inner = house.patient(&house.build_arguments(&["--network", "none"])?);
            let mut command = Command::new(starter[0]);
            command.args(&starter[1..]).arg(inner.get_program()).args(inner.get_args());
            command.current_dir(house.path("")).env_clear();
            command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
            Ok(command)
        });
        let costs = costs.with_context(what)?;
        house.is_clean().with_context(what)?;
        if round % CHANGES == CHANGES - 1 {
            let mut gc = house.patient(&["gc"]);
            succeed(gc.env("LD_PRELOAD", later.preload())).with_context(what)?;
        }
        figures.add(round, costs, &[&house.path("layout-repo"), &house.path("home")])?;
    }
    house.image()?;
    figures.are_level()
}

/// Removes a file or a folder, which need not be there.
fn remove(path: &Path) -> Result<()> {
    succeed(Command::new("rm").arg("-rf").arg(path)).map(drop)
}
