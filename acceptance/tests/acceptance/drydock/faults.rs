//! Faults of the system in commands that write ([`crate::faults`]).

use std::fs;
use std::process::Command;
use std::sync::Arc;

use anyhow::Result;
use drydock_acceptance::here;
use drydock_acceptance::project::succeed;
use drydock_fake_registry::Fake;
use libtest_mimic::Trial;

use super::Repository;
use super::registries::sources;
use crate::faults::{Scene, Start};
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("faults::import_of_archives", import_of_archives),
            ("faults::import_from_registries", import_from_registries),
            ("faults::export", export),
            ("faults::flatten", flatten),
            ("faults::tag", tag),
            ("faults::rm", rm),
            ("faults::gc", gc),
        ],
    )
}

/// With an image of three layers and what refers to it, a smaller one by three names, and archives.
fn repository(executables: &Built) -> Result<Repository> {
    let (repository, _) = super::registry_faults::image(executables)?;
    for name in ["run", "new", "new:second"] {
        super::copy(&here("images/run"), &repository.path(name))?;
    }
    crate::store::put_artifact(&repository.layout("image"))?;
    let dir = repository.dir.path();
    fs::create_dir(dir.join("out"))?;
    for kind in ["oci-archive", "docker-archive"] {
        repository.text(&["--quiet", "export", "image", &format!("{kind}:{}", dir.join(kind).display())])?;
    }
    succeed(Command::new("gzip").arg("-1").arg(dir.join("oci-archive")))?;
    Ok(repository)
}

fn scene<'a>(name: &'a str, repository: &'a Repository, words: &'a [&'a str]) -> Scene<'a> {
    Scene {
        name,
        root: repository.dir.path().to_owned(),
        start: start(repository, words),
        exits: &[4],
        prepare: None,
        done: None,
        layouts: "index.docker.io",
        kept: &["index.docker.io", "out"],
        on_disks: true,
        without: &[],
    }
}

fn start<'a>(repository: &'a Repository, words: &'a [&'a str]) -> Start<'a> {
    Box::new(|starter| Ok(repository.command_under(starter, words)))
}

fn import_of_archives(executables: &Built) -> Result<()> {
    let repository = repository(executables)?;
    let layout = format!("oci:{}", repository.path("run").display());
    for words in [
        &["import", "oci-archive:oci-archive.gz", "new"][..],
        &["import", "docker-archive:docker-archive", "new", "--flatten"],
        &["import", &layout, "a/b/c"],
    ] {
        scene(&words.join(" "), &repository, words).try_all()?;
    }
    Ok(())
}

fn import_from_registries(executables: &Built) -> Result<()> {
    let (_source, served) = super::registry_faults::image(executables)?;
    let fake = Fake::start(move |request, _| served.answer(request));
    let dir = tempfile::tempdir()?;
    let rules = sources(dir.path(), &[&fake.host], "")?;
    let from = format!("docker://{}/x/y", fake.host);
    let repository = Repository::new(executables)?;
    super::copy(&here("images/run"), &repository.path("run"))?;
    fs::create_dir(repository.dir.path().join("out"))?;
    let words = ["--sources", &rules, "import", &from, "run"];
    let scene = scene("import docker", &repository, &words);
    // The library that looks names up panics where it gets no thread.
    Scene { on_disks: false, without: &["clone3"], ..scene }.try_all()
}

fn export(executables: &Built) -> Result<()> {
    let repository = repository(executables)?;
    for to in ["oci-archive:out/archive", "docker-archive:out/archive", "oci:out/layout", "dir:out/dir"] {
        let words = ["export", "image", to];
        let start: Start<'_> = Box::new(|starter| {
            // It must not be there.
            let dir = repository.dir.path().join("out/dir");
            if dir.exists() {
                fs::remove_dir_all(&dir)?;
            }
            Ok(repository.command_under(starter, &words))
        });
        Scene { start, ..scene(to, &repository, &words) }.try_all()?;
    }
    Ok(())
}

fn flatten(executables: &Built) -> Result<()> {
    scene("flatten", &repository(executables)?, &["flatten", "image", "new"]).try_all()
}

fn tag(executables: &Built) -> Result<()> {
    scene("tag", &repository(executables)?, &["tag", "image", "new", "other"]).try_all()
}

fn rm(executables: &Built) -> Result<()> {
    let repository = repository(executables)?;
    let done = Some((3, start(&repository, &["gc"])));
    Scene { done, ..scene("rm", &repository, &["rm", "new"]) }.try_all()
}

fn gc(executables: &Built) -> Result<()> {
    let repository = repository(executables)?;
    for name in ["image", "run"] {
        for file in ["blobs/sha256/.drydock-99-1", ".drydock-99-2", ".drydock-log-99-0"] {
            fs::write(repository.path(name).join(file), "left")?;
        }
    }
    scene("gc", &repository, &["gc"]).try_all()
}
