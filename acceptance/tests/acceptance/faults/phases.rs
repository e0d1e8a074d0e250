//! The phases, on builds with a previous image and a cache.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use drydock_acceptance::here;
use drydock_acceptance::project::{APP_IMAGE, Project, RUN_IMAGE, RUN_LAYOUT, succeed};
use drydock_acceptance::scenario::User;
use drydock_acceptance::stage::{chmod, copy};
use libtest_mimic::Trial;

use super::{Scene, Start};
use crate::extending::Extending;
use crate::killed::noise;
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("faults::analyzer", analyzer),
            ("faults::restorer", restorer),
            ("faults::exporter", exporter),
            ("faults::exporter_with_a_cache_image", exporter_with_a_cache_image),
            ("faults::rebaser", rebaser),
            ("faults::creator", creator),
            ("faults::extender", extender),
        ],
    )
}

/// What phases write to.
const KEPT: [&str; 3] = ["layout-repo", "layers", "cache"];
const CACHE: [&str; 2] = ["-cache-dir", "cache"];
const NAMES: [&str; 2] = [APP_IMAGE, "other.com/team/app:second"];

/// Of a phase that fails by itself, or before its own work, when it reads its files.
fn scene<'a>(name: &'a str, project: &'a Project, exits: &'a [i32], start: Start<'a>) -> Scene<'a> {
    let layouts = "layout-repo";
    Scene {
        name,
        root: project.path(""),
        start,
        exits,
        prepare: None,
        done: None,
        layouts,
        kept: &KEPT,
        on_disks: true,
        without: &[],
    }
}

/// A project that was built twice, the second time with one layer as it was, and with a newer version of app and layers.
fn built_before(executables: &Built, cache: &[&str]) -> Result<Project> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    for version in 0..3 {
        project.write("app/file", format!("version {version}\n"))?;
        project.write("app/folder/large", noise(version, 700_000))?;
        project.write_layer("stays", "launch = true\ncache = true", "stays\n")?;
        project.write_layer("changes", "launch = true\ncache = true", format!("version {version}\n"))?;
        project.write_layer("launches", "launch = true", format!("version {version}\n"))?;
        project.write_layer("builds", "build = true\ncache = true", format!("version {version}\n"))?;
        if version < 2 {
            project.write_layer("image", "launch = true", "only in the image\n")?;
        } else {
            fs::remove_dir_all(project.path("layers/acme_a/image"))?;
        }
        for (kind, layer) in [("launch", "launches"), ("cache", "builds")] {
            project
                .write(&format!("layers/sbom/{kind}/acme_a/{layer}/sbom.cdx.json"), format!("{version}"))?;
        }
        succeed(project.analyzer()?.arg(APP_IMAGE))?;
        if version < 2 {
            succeed(project.exporter()?.args(cache).args(NAMES))?;
        }
    }
    Ok(project)
}

fn analyzer(executables: &Built) -> Result<()> {
    let project = built_before(executables, &CACHE)?;
    let start = |words: &[&str]| {
        let mut command = project.phase(words, "analyzer")?;
        command.arg(APP_IMAGE);
        Ok(command)
    };
    scene("analyzer", &project, &[1, 3, 32], Box::new(start)).try_all()
}

fn restorer(executables: &Built) -> Result<()> {
    let project = built_before(executables, &CACHE)?;
    // What the builder has not made anew; something of an older build is there.
    let layers = project.path("layers");
    for left in ["acme_a/stays", "acme_a/launches", "acme_a/builds", "acme_a/launches.toml", "sbom"] {
        let path = layers.join(left);
        if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
            .with_context(|| format!("remove {}", path.display()))?;
    }
    let start = |words: &[&str]| {
        let mut command = project.restorer_under(words)?;
        command.args(CACHE);
        Ok(command)
    };
    scene("restorer", &project, &[1, 3, 42], Box::new(start)).try_all()
}

/// An export may have put another image in the place of the one that the analyzer saw.
fn analyzed_again(project: &Project) -> Start<'_> {
    Box::new(|words| {
        let mut command = project.phase(words, "analyzer")?;
        command.arg(APP_IMAGE);
        Ok(command)
    })
}

fn exporter(executables: &Built) -> Result<()> {
    let project = built_before(executables, &CACHE)?;
    let start = |words: &[&str]| {
        let mut command = project.exporter_under(words)?;
        command.args(CACHE).args(NAMES);
        Ok(command)
    };
    let scene = scene("exporter", &project, &[1, 3, 62], Box::new(start));
    Scene { prepare: Some(analyzed_again(&project)), kept: &["layout-repo", "cache"], ..scene }.try_all()
}

fn exporter_with_a_cache_image(executables: &Built) -> Result<()> {
    const CACHE: [&str; 2] = ["-cache-image", "app-cache"];
    let project = built_before(executables, &CACHE)?;
    let start = |words: &[&str]| {
        let mut command = project.exporter_under(words)?;
        command.args(CACHE).arg(APP_IMAGE);
        Ok(command)
    };
    let scene = scene("exporter with a cache image", &project, &[1, 3, 62], Box::new(start));
    Scene { prepare: Some(analyzed_again(&project)), kept: &["layout-repo"], ..scene }.try_all()
}

fn rebaser(executables: &Built) -> Result<()> {
    let project = built_before(executables, &[])?;
    let run = project.path(RUN_LAYOUT);
    fs::remove_dir_all(&run)?;
    copy(&here("images/run-v2"), &run)?;
    let start = |words: &[&str]| {
        let mut command = project.rebaser_under(words)?;
        command.args(["-previous-image", APP_IMAGE]).args(NAMES);
        Ok(command)
    };
    scene("rebaser", &project, &[1, 3, 72], Box::new(start)).try_all()
}

fn creator(executables: &Built) -> Result<()> {
    let project = built_before(executables, &CACHE)?;
    let buildpack = "cnb/buildpacks/acme_a/1";
    project.write(
        &format!("{buildpack}/buildpack.toml"),
        "api = \"0.10\"\n[buildpack]\nid = \"acme/a\"\nversion = \"1\"\nsbom-formats = [\"application/vnd.cyclonedx+json\"]\n[[targets]]\nos = \"linux\"\n",
    )?;
    project.write("cnb/order.toml", "[[order]]\n[[order.group]]\nid = \"acme/a\"\nversion = \"1\"\n")?;
    let build = "#!/bin/sh\nset -e\napp=$PWD\ncd \"$CNB_LAYERS_DIR\"\nmkdir -p made\ncat \"$app/file\" >made/file\n\
                 for layer in made stays; do printf '[types]\\nlaunch = true\\ncache = true\\n' >$layer.toml; done\n\
                 printf '[[processes]]\\ntype = \"web\"\\ncommand = [\"server\"]\\n' >launch.toml\n";
    for (name, text) in [("detect", "#!/bin/sh\n"), ("build", build)] {
        // Another process writes it: one that this process has open for writing could not be run meanwhile.
        let (text_file, program) = (format!("{name}.text"), format!("{buildpack}/bin/{name}"));
        project.write(&text_file, text)?;
        fs::create_dir_all(project.path(&format!("{buildpack}/bin")))?;
        succeed(Command::new("cp").arg(project.path(&text_file)).arg(project.path(&program)))?;
        chmod(&project.path(&program), 0o755)?;
    }
    let start = |words: &[&str]| {
        // As in a new container.
        super::empty(&project.path("layers"))?;
        let mut command = project.phase(words, "creator")?;
        command.args(["-run-image", RUN_IMAGE, "-launcher"]).arg(project.path("cnb/launcher"));
        for (variable, path) in [
            ("CNB_APP_DIR", "app"),
            ("CNB_BUILDPACKS_DIR", "cnb/buildpacks"),
            ("CNB_ORDER_PATH", "cnb/order.toml"),
            ("CNB_PLATFORM_DIR", "platform"),
            ("CNB_BUILD_CONFIG_DIR", "build-config"),
        ] {
            command.env(variable, project.path(path));
        }
        command.args(CACHE).args(["-tag", NAMES[1], NAMES[0]]);
        Ok(command)
    };
    let exits = [1, 3, 12, 20, 21, 22, 32, 42, 51, 52, 62];
    // What is left in the layers directory depends on the previous image.
    Scene { kept: &["layout-repo"], ..scene("creator", &project, &exits, Box::new(start)) }.try_all()
}

/// With a cache of instructions.
fn extender(executables: &Built) -> Result<()> {
    let extending = Extending::new(executables)?;
    let project = &extending.project;
    fs::create_dir(project.path("kaniko"))?;
    extending.generate(
        "run.Dockerfile",
        "ARG base_image\nFROM ${base_image}\nUSER root\nRUN mkdir -p /opt/new && echo new >/opt/new/file && rm /etc/motd\n\
         COPY file /copied\nUSER 1000:1000\n",
    )?;
    extending.generate("context.run/file", "of the context\n")?;
    let root = extending.root()?;
    let fresh = extending.scratch.path().join("fresh");
    copy_all(&root, &fresh)?;
    // Where the image's file system is the root, other programs are in the project.
    for program in ["strace", "prlimit"] {
        succeed(Command::new("cp").arg(format!("/usr/bin/{program}")).arg(project.path("")))?;
    }
    let start = |words: &[&str]| {
        fs::remove_dir_all(&root).context("remove the root")?;
        copy_all(&fresh, &root)?;
        // The watch stays outside.
        let (patient, words) = words.split_at(words.len().min(4));
        let program = words.first().map(|program| project.path(program).display().to_string());
        let inside: Vec<&str> =
            program.iter().map(String::as_str).chain(words.iter().skip(1).copied()).collect();
        let mut command = extending.extender_inside(patient, &inside, &root, "run")?;
        command.env("SOURCE_DATE_EPOCH", "1700000000");
        Ok(command)
    };
    let scene = scene("extender", project, &[1, 3, 102], Box::new(start));
    Scene { on_disks: false, kept: &["layout-repo", "layers"], ..scene }.try_all()
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    succeed(Command::new("cp").arg("-a").arg(from).arg(to)).map(drop)
}
