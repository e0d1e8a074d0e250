//! What is in the way of a file that a phase reads, and is none: something that one waits for, that has no end, or that is
//! huge, or nested without end. Each phase ends as it does where the file is malformed, soon and in little memory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::here;
use drydock_acceptance::project;
use drydock_acceptance::run::{self, Output};
use drydock_acceptance::scenario::{Operation, Scenario, User};
use drydock_acceptance::stage::Stage;
use libtest_mimic::Trial;

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(executables, [("foreign_files::are_files_within_limits", are_files_within_limits)])
}

/// Anything that allocates more than this ends in an abort.
const ADDRESS_SPACE: &str = "--as=2000000000";

/// A phase, with what it reads.
struct Phase {
    name: &'static str,
    user: User,
    arguments: &'static [&'static str],
    reads: &'static [Read],
}

/// A file that a phase reads.
enum Read {
    /// If it is malformed, the phase fails.
    Needed(&'static str),
    /// If it is malformed, the phase goes on with a warning.
    Tried(&'static str),
    /// Any regular file will do, whatever is in it.
    Taken(&'static str),
}
use Read::{Needed, Taken, Tried};

const PHASES: [Phase; 5] = [
    Phase {
        name: "analyzer",
        user: User::Root,
        arguments: &["my-app-image"],
        reads: &[Needed("cnb/run.toml")],
    },
    Phase {
        name: "detector",
        user: User::Cnb,
        arguments: &[],
        reads: &[
            Needed("cnb/order.toml"),
            Needed("cnb/run.toml"),
            Needed("cnb/buildpacks/acme_a/1/buildpack.toml"),
            Needed("cnb/extensions/acme_e/1/extension.toml"),
            Tried("cnb/extensions/acme_e/1/detect/plan.toml"),
            Needed("cnb/extensions/acme_e/1/generate/build.Dockerfile"),
            Needed("cnb/extensions/acme_e/1/generate/extend-config.toml"),
            Needed("cnb/build-config/env/OTHER"),
            Needed("platform/env/NAME"),
            Needed("layers/analyzed.toml"),
        ],
    },
    Phase {
        name: "restorer",
        user: User::Root,
        arguments: &["-cache-dir", "/cache"],
        reads: &[
            Needed("layers/group.toml"),
            Tried("layers/analyzed.toml"),
            Tried("cache/committed/io.buildpacks.lifecycle.cache.metadata"),
        ],
    },
    Phase {
        name: "builder",
        user: User::Cnb,
        arguments: &[],
        reads: &[
            Needed("layers/group.toml"),
            Needed("layers/plan.toml"),
            Needed("layers/analyzed.toml"),
            Needed("cnb/buildpacks/acme_a/1/buildpack.toml"),
            Needed("cnb/build-config/env/OTHER"),
            Needed("platform/env/NAME"),
            Needed("layers/acme_a/other.toml"),
            Needed("layers/acme_a/launch.toml"),
            Needed("layers/acme_a/build.toml"),
            Taken("layers/acme_a/tool/env/NAME"),
        ],
    },
    Phase {
        name: "exporter",
        user: User::Root,
        arguments: &[
            "-launcher",
            "/cnb/stand-in/launcher",
            "-launcher-sbom",
            "/cnb/sbom",
            "-app",
            "/workspace",
            "-cache-dir",
            "/cache",
            "my-app-image",
        ],
        reads: &[
            Needed("layers/group.toml"),
            Needed("layers/analyzed.toml"),
            Needed("layers/config/metadata.toml"),
            Needed("layers/project-metadata.toml"),
            Needed("layers/acme_a/tool.toml"),
            Needed("layers/acme_a/store.toml"),
            Needed("cnb/run.toml"),
            Taken("cnb/sbom/launcher.sbom.cdx.json"),
            Tried("cache/committed/io.buildpacks.lifecycle.cache.metadata"),
        ],
    },
];

/// No TOML, JSON or Dockerfile, and no value of a variable.
const MALFORMED: &str = "= \0";

fn are_files_within_limits(executables: &Built) -> Result<()> {
    let stage = stage()?;
    let mut wrong = Vec::new();
    for phase in &PHASES {
        for read in phase.reads {
            if let Err(error) = check(&stage, executables, phase, read) {
                wrong.push(format!("{}, {}: {error:#}", phase.name, read.path()));
            }
        }
        let output = phase.run(&stage, executables)?;
        ensure!(output.exit == 0, "{}: exit code {}\n{}", phase.name, output.exit, output.text());
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(())
}

impl Read {
    fn path(&self) -> &'static str {
        let (Needed(path) | Tried(path) | Taken(path)) = self;
        path
    }
}

/// Runs the phase with each obstacle in the file's place.
fn check(stage: &Stage, executables: &Built, phase: &Phase, read: &Read) -> Result<()> {
    let (path, aside) = (stage.path(read.path()), stage.path("aside"));
    let was_there = path.exists();
    if was_there {
        fs::rename(&path, &aside).context("move the file aside")?;
    }
    let checked = check_obstacles(stage, executables, phase, read);
    if was_there {
        fs::rename(&aside, &path).context("move the file back")?;
    }
    checked
}

fn check_obstacles(stage: &Stage, executables: &Built, phase: &Phase, read: &Read) -> Result<()> {
    let path = stage.path(read.path());
    let name = format!("/{}", read.path());
    let run = |obstacle: &str| -> Result<Output> {
        let output = phase.run(stage, executables).with_context(|| obstacle.to_owned())?;
        fs::remove_file(&path).with_context(|| format!("{obstacle}: it was replaced"))?;
        ensure!(output.exit != 137, "{obstacle}: it was waited for\n{}", output.text());
        Ok(output)
    };
    stage.apply(&[Operation::Write(name.clone(), MALFORMED.to_owned())])?;
    let malformed = run("malformed")?.exit;
    match read {
        Needed(_) => ensure!(malformed != 0, "a malformed file is none that is needed"),
        Tried(_) | Taken(_) => ensure!(malformed == 0, "exit code {malformed} where it is malformed"),
    }
    for obstacle in ["FIFO", "device", "huge", "deep"] {
        match obstacle {
            // What is only taken has no depth.
            // Whatever is in these will do.
            "deep" if matches!(read, Taken(_)) || name.contains("/env/") => continue,
            "deep" if name.ends_with(".metadata") => fs::write(&path, "[".repeat(10_000))?,
            "deep" => fs::write(&path, format!("a = {}", "[".repeat(10_000)))?,
            "FIFO" => stage.apply(&[Operation::Fifo(name.clone())])?,
            "device" => stage.apply(&[Operation::Symlink(name.clone(), "/dev/zero".to_owned())])?,
            _ => File::create(&path)?.set_len(1 << 36).context("make a huge file")?,
        }
        let output = run(obstacle)?;
        let (exit, said) = (output.exit, output.text());
        let as_it_should = if let Taken(_) = read { exit != 0 } else { exit == malformed };
        ensure!(as_it_should, "{obstacle}: exit code {exit}, not {malformed}\n{said}");
        // What is wrong in a document is said of its copy, too, and a link is copied as one.
        let is_copied = obstacle == "deep" || obstacle == "device" && name.contains("/generate/");
        let named = if is_copied { name.rsplit('/').next().unwrap_or_default() } else { &name };
        ensure!(said.contains(named), "{obstacle}: it is not named\n{said}");
        ensure!(!said.contains("panicked"), "{obstacle}: it panicked\n{said}");
    }
    Ok(())
}

impl Phase {
    fn run(&self, stage: &Stage, executables: &Built) -> Result<Output> {
        let environment: BTreeMap<&str, String> = run::environment();
        let mut command = run::command(stage, executables.get()?.dir(), self.user, &environment);
        command.args(["/usr/bin/prlimit", ADDRESS_SPACE, &format!("/cnb/lifecycle/{}", self.name)]);
        project::run(command.args(self.arguments))
    }
}

/// A builder with a buildpack, which leaves the files of its layer alone that are there, and an extension.
fn stage() -> Result<Stage> {
    let files = [
        ("cnb/order.toml", ORDER),
        ("cnb/run.toml", "[[images]]\nimage = \"acme/run:base\"\n"),
        ("cnb/buildpacks/acme_a/1/buildpack.toml", BUILDPACK),
        ("cnb/buildpacks/acme_a/1/bin/detect", "#!/bin/sh\n"),
        ("cnb/buildpacks/acme_a/1/bin/build", BUILD),
        (
            "cnb/extensions/acme_e/1/extension.toml",
            "api = \"0.10\"\n[extension]\nid = \"acme/e\"\nversion = \"1\"\n",
        ),
        ("cnb/extensions/acme_e/1/detect/plan.toml", ""),
        ("cnb/extensions/acme_e/1/generate/build.Dockerfile", "ARG base_image\nFROM ${base_image}\n"),
        ("cnb/extensions/acme_e/1/generate/extend-config.toml", ""),
        ("cnb/build-config/env/OTHER", "value"),
        ("cnb/sbom/launcher.sbom.cdx.json", "{}"),
        ("cnb/stand-in/launcher", "stand-in"),
        ("platform/env/NAME", "value"),
        ("layers/acme_a/store.toml", "[metadata]\nkey = 1\n"),
        ("layers/project-metadata.toml", ""),
        ("workspace/file", "content"),
    ];
    let mut setup: Vec<Operation> =
        files.map(|(path, text)| Operation::Write(format!("/{path}"), text.to_owned())).into();
    for executable in ["detect", "build"] {
        setup.push(Operation::ChangeMode(format!("/cnb/buildpacks/acme_a/1/bin/{executable}"), 0o755));
    }
    let scenario = Scenario {
        dir: Path::new("/nonexistent").to_owned(),
        images: [("index.docker.io/acme/run/base".to_owned(), "run".to_owned())].into(),
        setup,
        steps: Vec::new(),
    };
    Stage::new(&scenario, &here("images"))
}

const ORDER: &str = r#"
[[order]]
[[order.group]]
id = "acme/a"
version = "1"
[[order-extensions]]
[[order-extensions.group]]
id = "acme/e"
version = "1"
"#;

const BUILDPACK: &str = r#"
api = "0.10"
[buildpack]
id = "acme/a"
version = "1"
"#;

const BUILD: &str = r#"#!/bin/sh
set -e
mkdir -p "$1/tool/env"
printf '[types]\nbuild = true\nlaunch = true\ncache = true\n' >"$1/tool.toml"
for file in other.toml launch.toml build.toml tool/env/NAME; do
    [ -e "$1/$file" ] || [ -L "$1/$file" ] || : >"$1/$file"
done
"#;
