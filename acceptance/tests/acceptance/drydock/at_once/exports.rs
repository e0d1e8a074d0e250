//! Exporters at once: to several names, to one, and beside everything else that can be done with an image.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::Layout;
use drydock_acceptance::project::{Project, succeed};
use drydock_acceptance::run::Output;
use drydock_acceptance::scenario::User;
use drydock_acceptance::tools::{Image, SKOPEO};
use libtest_mimic::Trial;
use serde::Deserialize;
use tar::EntryType as Type;

use super::super::{Repository, is_tidy, tar_of};
use super::works::{Moments, Work, at_once};
use crate::killed::noise;
use crate::{Built, rounds, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("drydock::at_once::exporters_to_eight_names", |built| {
                exporters(built, &|number| format!("team/app{number}"))
            }),
            ("drydock::at_once::exporters_to_one_name", |built| {
                exporters(built, &|_| "team/app0".to_owned())
            }),
            ("drydock::at_once::an_exporter_beside_everything", an_exporter_beside_everything),
        ],
    )
}

/// Rounds in the suite: from nothing, over what was there, and with kills.
const ROUNDS: u32 = 4;
const EXPORTERS: usize = 8;

/// The manifest that an exporter says it has written.
pub(super) fn reported(project: &Project) -> Result<String> {
    #[derive(Deserialize)]
    struct Report {
        image: Digest,
    }
    #[derive(Deserialize)]
    struct Digest {
        digest: String,
    }
    let text = fs::read_to_string(project.path("layers/report.toml")).context("read the report")?;
    Ok(toml::from_str::<Report>(&text)?.image.digest)
}

/// What a layout names, which must be whole; none if there is no layout.
pub(super) fn named(layout: &Layout) -> Result<Option<String>> {
    if !layout.dir().join("index.json").exists() {
        return Ok(None);
    }
    let images = layout.verify()?;
    ensure!(images.len() == 1, "{} images are in {}", images.len(), layout.dir().display());
    Ok(Some(images[0].descriptor.digest.clone()))
}

/// An exporter of a project into a repository. What is to be killed has no program around it.
fn exporter(project: &Project, repository: &PathBuf, is_killed: bool, name: &str) -> Result<Command> {
    let mut exporter = if is_killed { project.exporter_under(&["env"])? } else { project.exporter()? };
    exporter.env("CNB_OCI_LAYOUT_PATH", repository).arg(name);
    Ok(exporter)
}

/// Nobody holds a lock any more.
pub(super) fn did_not_wait(output: &Output) -> Result<()> {
    ensure!(!output.text().contains("Waiting for"), "it waits for a lock that is left:\n{}", output.text());
    Ok(())
}

/// Eight at once, `name` says to which names; in every other round, half of them are killed.
fn exporters(executables: &Built, name: &dyn Fn(usize) -> String) -> Result<()> {
    let projects: Vec<Project> =
        (0..EXPORTERS).map(|_| Project::new(executables.get()?.dir(), User::Root)).collect::<Result<_>>()?;
    let repository = projects[0].path("layout-repo");
    let names: Vec<String> = (0..EXPORTERS).map(name).collect();
    let layouts: Vec<Layout> = BTreeSet::from_iter(&names)
        .into_iter()
        .map(|name| Layout::new(repository.join("index.docker.io").join(name).join("latest")))
        .collect();
    for (number, project) in projects.iter().enumerate() {
        project.write_layer("shared", "launch = true", noise(0, 100_000))?;
        project.write_layer("own", "launch = true", noise(number + 1, 100_000))?;
    }
    let mut moments = Moments::of(Duration::ZERO);
    for round in 0..rounds(ROUNDS)? {
        let what = || format!("round {round}");
        if round.is_multiple_of(3) && round > 0 {
            fs::remove_dir_all(repository.join("index.docker.io/team"))?;
        }
        for (number, project) in projects.iter().enumerate() {
            project.write("app/file", format!("round {round} of {number}"))?;
            let mut analyzer = project.analyzer()?;
            succeed(analyzer.env("CNB_OCI_LAYOUT_PATH", &repository).arg(&names[number]))?;
        }
        let before: Vec<_> = layouts.iter().map(named).collect::<Result<_>>()?;
        let is_killed = |number: usize| round % 2 == 1 && number.is_multiple_of(2);
        let works = projects.iter().enumerate().map(|(number, project)| {
            let command = exporter(project, &repository, is_killed(number), &names[number])?;
            let work = Work::new(format!("exporter {number}"), command);
            Ok(if is_killed(number) { work.killed_after(moments.next()) } else { work })
        });
        let (ended, took) = at_once(works.collect::<Result<_>>()?)?;
        if round == 0 {
            moments = Moments::of(took);
        }
        for (number, ended) in ended.iter().enumerate() {
            ended.with(if is_killed(number) { &[0, 137] } else { &[0] }).with_context(what)?;
        }
        let left: Vec<_> = layouts.iter().map(named).collect::<Result<_>>().with_context(what)?;
        for number in (0..EXPORTERS).filter(|number| is_killed(*number)) {
            let output = succeed(&mut exporter(&projects[number], &repository, false, &names[number])?);
            did_not_wait(&output.with_context(what)?).with_context(what)?;
        }
        let new: Vec<String> = projects.iter().map(reported).collect::<Result<_>>()?;
        for (layout, (before, left)) in layouts.iter().zip(before.iter().zip(&left)) {
            let is_new = left.as_ref().is_some_and(|left| new.contains(left));
            ensure!(is_new || round % 2 == 1 && left == before, "{}: {left:?} was left", what());
            let faults = layout.faults()?;
            ensure!(faults.is_empty(), "{}: {faults:#?}", what());
            ensure!(named(layout)?.is_some_and(|named| new.contains(&named)), "{}", what());
        }
        let scratch = tempfile::tempdir()?;
        let any = &layouts[round as usize % layouts.len()];
        Image::new(any.dir(), "latest", scratch.path())?.config().with_context(what)?;
        is_tidy(&repository).with_context(what)?;
    }
    Ok(())
}

/// One image: exported, imported, tagged, verified, read by skopeo, and in every other round removed, all at once and beside a
/// clean-up. In every third round one of the writers is killed.
fn an_exporter_beside_everything(executables: &Built) -> Result<()> {
    const WRITERS: [&str; 4] = ["export", "import", "tag", "gc"];
    let source = Repository::new(executables)?;
    source.write_image("x", &[tar_of(&[(Type::Regular, "file", &"imported".repeat(9000))])?])?;
    let imported = named(&source.layout("x"))?.context("it is there")?;
    let from = format!("oci:{}", source.path("x").display());
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    let repository = project.path("layout-repo");
    project.write_layer("lib", "launch = true", noise(1, 200_000))?;
    project.analyze()?;
    let drydock = |starter: &[&str], words: &[&str]| -> Command {
        let mut command = source.command_under(starter, words);
        command.env("CNB_OCI_LAYOUT_PATH", &repository);
        command
    };
    let patient = ["timeout", "--foreground", "--signal=KILL", "120"];
    let layout =
        |name: &str| Layout::new(repository.join("index.docker.io/library").join(name).join("latest"));
    let out = tempfile::tempdir()?;
    let mut moments = Moments::of(Duration::ZERO);
    for round in 0..rounds(ROUNDS)? {
        let what = || format!("round {round}");
        project.write("app/file", format!("before round {round}"))?;
        did_not_wait(&succeed(&mut exporter(&project, &repository, false, "app")?)?)?;
        let before = reported(&project)?;
        let copied = named(&layout("copy"))?;
        project.write("app/file", format!("round {round}"))?;
        let killed = (round % 3 == 2).then(|| WRITERS[round as usize / 3 % WRITERS.len()]);
        let is_removed = round % 2 == 1;
        let work = |name: &'static str, words: &[&str]| {
            let starter: &[&str] = if killed == Some(name) { &[] } else { &patient };
            Work::new(name, drydock(starter, words))
        };
        let mut skopeo = Command::new(patient[0]);
        skopeo.args(&patient[1..]).args([
            SKOPEO.name,
            "copy",
            "--quiet",
            "--preserve-digests",
            "oci:app:latest",
            "oci:out:latest",
        ]);
        skopeo.current_dir(out.path());
        std::os::unix::fs::symlink(layout("app").dir(), out.path().join("app"))?;
        let mut works = vec![
            (
                "export",
                Work::new("export", exporter(&project, &repository, killed == Some("export"), "app")?),
            ),
            ("import", work("import", &["import", &from, "app"])),
            ("tag", work("tag", &["tag", "app", "copy"])),
            ("gc", work("gc", &["gc"])),
            ("verify", work("verify", &["--json", "verify"])),
            ("skopeo", Work::new("skopeo", skopeo)),
        ];
        if is_removed {
            works.push(("rm", work("rm", &["rm", "app"])));
        }
        let names: Vec<&str> = works.iter().map(|(name, _)| *name).collect();
        let works = works
            .into_iter()
            .map(|(name, work)| if killed == Some(name) { work.killed_after(moments.next()) } else { work });
        let (ended, took) = at_once(works.collect())?;
        if round == 0 {
            moments = Moments::of(took);
        }
        for (name, ended) in names.iter().zip(&ended) {
            // Who reads an image that is removed meanwhile finds none.
            let reads = ["tag", "skopeo"].contains(name);
            let mut exits = vec![0];
            exits.extend([1, 3].into_iter().filter(|_| is_removed && reads));
            exits.extend((killed == Some(*name)).then_some(137));
            ended.with(&exits).with_context(what)?;
        }
        let left = named(&layout("app")).with_context(what)?;
        let tagged = named(&layout("copy")).with_context(what)?;
        let next = succeed(&mut exporter(&project, &repository, false, "app")?).with_context(what)?;
        did_not_wait(&next).with_context(what)?;
        let images = [&before, &imported, &reported(&project)?].map(|digest| Some(digest.clone()));
        let is_one = |digest: &Option<String>| images.contains(digest);
        ensure!(
            is_one(&left) && (killed.is_some() || left != images[0]) || is_removed && left.is_none(),
            "{}: {left:?} is left",
            what()
        );
        ensure!(is_one(&tagged) || tagged == copied, "{}: {tagged:?} was tagged", what());
        if ended[5].exit == 0 {
            let read = named(&Layout::new(out.path().join("out"))).with_context(what)?;
            ensure!(is_one(&read), "{}: skopeo has read {read:?}", what());
        }
        succeed(&mut drydock(&patient, &["gc"])).with_context(what)?;
        succeed(&mut drydock(&patient, &["verify"])).with_context(what)?;
        is_tidy(&repository).with_context(what)?;
        for entry in fs::read_dir(out.path())? {
            let path = entry?.path();
            if path.is_symlink() { fs::remove_file(path)? } else { fs::remove_dir_all(path)? }
        }
    }
    Ok(())
}
