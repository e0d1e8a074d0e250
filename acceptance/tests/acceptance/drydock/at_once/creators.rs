//! Creators at once with one cache, of either kind.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::Layout;
use drydock_acceptance::project::{APP_LAYOUT, Project, RUN_IMAGE, succeed};
use drydock_acceptance::scenario::User;
use drydock_acceptance::sha256;
use libtest_mimic::Trial;
use serde_json::Value;

use super::super::is_tidy;
use super::exports::{did_not_wait, named, reported};
use super::works::{Moments, Work, at_once};
use crate::killed::noise;
use crate::{Built, rounds, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("drydock::at_once::creators_with_one_cache", |built| creators(built, Cache::Folder)),
            ("drydock::at_once::creators_with_one_cache_image", |built| creators(built, Cache::Image)),
        ],
    )
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cache {
    Folder,
    Image,
}

/// Rounds in the suite: with a kill in every other one.
const ROUNDS: u32 = 4;
const CREATORS: usize = 3;
const CACHE_IMAGE: &str = "index.docker.io/acme/cache/latest";

/// Two layers with what the app says that is in them; made anew only if that has changed.
const BUILD: &str = r#"#!/bin/sh
set -eu
for name in common own; do
    layer=$CNB_LAYERS_DIR/$name
    if ! cmp -s "$name" "$layer/file"; then
        rm -rf "$layer"; mkdir "$layer"; cp "$name" "$layer/file"
    fi
    printf '[types]\nlaunch = true\ncache = true\n' >"$layer.toml"
done
"#;

/// A project with a buildpack; projects with different numbers have different apps.
fn project(executables: &Built, number: usize) -> Result<Project> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    let buildpack = "cnb/buildpacks/acme_a/1";
    let described = "api = '0.10'\n[buildpack]\nid = 'acme/a'\nversion = '1'\n[[targets]]\n";
    project.write(&format!("{buildpack}/buildpack.toml"), described)?;
    for (name, script) in [("detect", "#!/bin/sh\n"), ("build", BUILD)] {
        let path = format!("{buildpack}/bin/{name}");
        project.write(&path, script)?;
        fs::set_permissions(project.path(&path), Permissions::from_mode(0o755))?;
    }
    project.write("cnb/order.toml", "[[order]]\n[[order.group]]\nid = 'acme/a'\nversion = '1'\n")?;
    fs::create_dir(project.path("platform"))?;
    project.write("app/common", noise(0, 100_000))?;
    project.write("app/own", noise(number + 1, 100_000))?;
    Ok(project)
}

/// A creator as in a new container: nothing is left in its layers directory.
fn creator(project: &Project, first: &Project, cache: Cache, is_killed: bool) -> Result<Command> {
    for entry in fs::read_dir(project.path("layers"))? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    let mut creator = if is_killed { project.creator_under(&["env"])? } else { project.creator()? };
    for (flag, path) in
        [("-buildpacks", "cnb/buildpacks"), ("-order", "cnb/order.toml"), ("-platform", "platform")]
    {
        creator.arg(flag).arg(project.path(path));
    }
    match cache {
        Cache::Folder => creator.arg("-cache-dir").arg(first.path("cache")),
        Cache::Image => {
            creator.args(["-cache-image", "acme/cache"]).env("CNB_OCI_LAYOUT_PATH", first.path("layout-repo"))
        }
    };
    creator.args(["-run-image", RUN_IMAGE, "app"]);
    Ok(creator)
}

/// What the cache says that it has is there and right, and nothing else is.
fn check_cache(first: &Project, cache: Cache) -> Result<()> {
    if cache == Cache::Image {
        let layout = Layout::new(first.path("layout-repo").join(CACHE_IMAGE));
        ensure!(named(&layout)?.is_some(), "there is no cache");
        let faults = layout.faults()?;
        ensure!(faults.is_empty(), "{faults:#?}");
        return Ok(());
    }
    let names = |dir: &Path| -> Result<BTreeSet<String>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().display().to_string())).collect()
    };
    let dir = first.path("cache");
    ensure!(names(&dir)? == BTreeSet::from(["committed".to_owned()]), "{:?}", names(&dir)?);
    let committed = dir.join("committed");
    let metadata = "io.buildpacks.lifecycle.cache.metadata";
    let described: Value = serde_json::from_slice(&fs::read(committed.join(metadata))?)?;
    let layers = described["buildpacks"][0]["layers"].as_object().context("layers are described")?;
    let shas = layers.values().filter_map(|layer| layer["sha"].as_str());
    let mut wanted: BTreeSet<String> = shas.map(|sha| format!("{sha}.tar")).collect();
    ensure!(wanted.len() == 2, "{described}");
    for name in &wanted {
        ensure!(format!("{}.tar", sha256(&fs::read(committed.join(name))?)) == *name, "{name} is damaged");
    }
    wanted.insert(metadata.to_owned());
    ensure!(names(&committed)? == wanted, "{:?}", names(&committed)?);
    Ok(())
}

/// Two of one app and one of another; in every other round one of them is killed.
fn creators(executables: &Built, cache: Cache) -> Result<()> {
    let projects: Vec<Project> =
        [0, 0, 1].into_iter().map(|number| project(executables, number)).collect::<Result<_>>()?;
    let first = &projects[0];
    // Each writes its image to a repository of its own, or all to names of the first one's.
    let layout = |number: usize| match cache {
        Cache::Folder => projects[number].layout(APP_LAYOUT),
        Cache::Image => first.layout(APP_LAYOUT),
    };
    let mut moments = Moments::of(Duration::ZERO);
    for round in 0..rounds(ROUNDS)? {
        let what = || format!("round {round}");
        for (number, project) in projects.iter().enumerate() {
            project.write("app/version", format!("{}", number / 2 + round as usize))?;
            if round.is_multiple_of(3) {
                project.write("app/own", noise(round as usize * 2 + number / 2, 100_000))?;
            }
        }
        let is_killed = |number: usize| round % 2 == 1 && number == round as usize / 2 % CREATORS;
        let before: Vec<_> = (0..CREATORS).map(|number| named(&layout(number))).collect::<Result<_>>()?;
        let works = projects.iter().enumerate().map(|(number, project)| {
            let work =
                Work::new(format!("creator {number}"), creator(project, first, cache, is_killed(number))?);
            Ok(if is_killed(number) { work.killed_after(moments.next()) } else { work })
        });
        let (ended, took) = at_once(works.collect::<Result<_>>()?)?;
        if round == 0 {
            moments = Moments::of(took);
        }
        for (number, ended) in ended.iter().enumerate() {
            ended.with(if is_killed(number) { &[0, 137] } else { &[0] }).with_context(what)?;
        }
        let left: Vec<_> =
            (0..CREATORS).map(|number| named(&layout(number))).collect::<Result<_>>().with_context(what)?;
        let made: Vec<_> = projects.iter().map(|project| reported(project).ok()).collect();
        let mut new = Vec::new();
        for (number, project) in projects.iter().enumerate() {
            let output = succeed(&mut creator(project, first, cache, false)?).with_context(what)?;
            did_not_wait(&output).with_context(what)?;
            check_cache(first, cache).with_context(what)?;
            let again = reported(project)?;
            let same = made[number].as_ref().is_none_or(|made| *made == again);
            ensure!(same, "{}: creator {number} makes {again} alone, and made {:?}", what(), made[number]);
            new.push(Some(again));
        }
        for (left, before) in left.iter().zip(&before) {
            ensure!(new.contains(left) || round % 2 == 1 && left == before, "{}: {left:?}", what());
        }
        for project in &projects {
            is_tidy(&project.path("layout-repo")).with_context(what)?;
        }
    }
    Ok(())
}
