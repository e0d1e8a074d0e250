//! Power failures while an image is published: whenever the power fails, the old image or the new one is there, whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::Layout;
use drydock_acceptance::power::{Disk, Luck, TRACED};
use drydock_acceptance::project::{APP_IMAGE, APP_LAYOUT, Project, RUN_LAYOUT, succeed};
use drydock_acceptance::scenario::User;
use drydock_acceptance::tools::STRACE;
use drydock_acceptance::trace::Call;
use drydock_acceptance::{here, stage, tree};
use libtest_mimic::Trial;

use super::built_before;
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("store::power_fails_in_a_first_export", first_export),
            ("store::power_fails_in_an_export", later_export),
            ("store::power_fails_in_a_rebase", rebase),
            ("store::power_failures_show", power_failures_show),
        ],
    )
}

/// What may be on the disk in the end, each time that the power may fail.
const LUCK: [Luck; 5] = [Luck::None, Luck::Names, Luck::Some(1), Luck::Some(2), Luck::Some(3)];

fn first_export(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    project.write_layer("stays", "launch = true", "stays")?;
    project.analyze()?;
    whole_at_every_cut(&project, Project::exporter_under, &[])
}

fn later_export(executables: &Built) -> Result<()> {
    let project = built_before(executables)?;
    project.write_layer("comes", "launch = true", "comes")?;
    whole_at_every_cut(&project, Project::exporter_under, &["app:second"])
}

fn rebase(executables: &Built) -> Result<()> {
    let project = built_before(executables)?;
    let run = project.path(RUN_LAYOUT);
    fs::remove_dir_all(&run)?;
    stage::copy(&here("images/run-v2"), &run)?;
    whole_at_every_cut(&project, Project::rebaser_under, &[])
}

/// Without syncing, the same way of looking finds what is broken.
fn power_failures_show(executables: &Built) -> Result<()> {
    let project = built_before(executables)?;
    let cuts = Cuts::of(&project, Project::exporter_under, &[], "false")?;
    ensure!(!cuts.broken.is_empty(), "nothing is broken: {:?}", cuts.found);
    Ok(())
}

type Phase = fn(&Project, &[&str]) -> Result<Command>;

fn whole_at_every_cut(project: &Project, phase: Phase, names: &[&str]) -> Result<()> {
    let cuts = Cuts::of(project, phase, names, "true")?;
    ensure!(cuts.broken.is_empty(), "{} of {:?}: {:#?}", cuts.broken.len(), cuts.found, cuts.broken);
    ensure!(cuts.found.len() == 2, "the old and the new image: {:?}", cuts.found);
    ensure!(cuts.found.values().sum::<usize>() > 100, "too few cuts: {:?}", cuts.found);
    Ok(())
}

/// What is there after each possible power failure.
struct Cuts {
    /// Images that are whole by digest (empty: none, nor was there one before), and how often.
    found: BTreeMap<String, usize>,
    /// What is wrong with others.
    broken: Vec<String>,
}

impl Cuts {
    fn of(project: &Project, phase: Phase, names: &[&str], sync: &str) -> Result<Self> {
        let repository = project.path("layout-repo");
        let before = image(&repository)?;
        let mut disk = Disk::new(&repository)?;
        let trace = project.path("trace");
        let to = trace.to_str().context("the path is UTF-8")?;
        let starter = [STRACE.name, "-f", "-y", "-qqq", "-s", "4096", "-o", to, "-e", TRACED];
        succeed(phase(project, &starter)?.env("CNB_LAYOUT_SYNC", sync).arg(APP_IMAGE).args(names))?;
        let after = image(&repository)?;
        ensure!(before != after, "there is no new image");
        let mut calls = Call::parse(&fs::read_to_string(&trace)?);
        calls.retain(Call::succeeded);
        disk.look_ahead(&calls)?;
        let mut cuts = Self { found: BTreeMap::new(), broken: Vec::new() };
        for (number, call) in calls.iter().enumerate() {
            if !disk.replay(call)? {
                continue;
            }
            for luck in LUCK {
                let dir = project.path("cut");
                disk.after_failure(luck, &dir)?;
                match image(&dir) {
                    Ok(image) if image == before || image == after => {
                        if number % 8 == 0 && matches!(luck, Luck::Some(_)) {
                            next_one_succeeds(project, phase, names, &dir)?;
                        }
                        *cuts.found.entry(image).or_default() += 1;
                    }
                    Ok(image) => cuts.broken.push(format!("{number}, {luck:?}: {image}")),
                    Err(error) => cuts.broken.push(format!("{number}, {luck:?}: {error:#}")),
                }
                fs::remove_dir_all(&dir)?;
            }
        }
        let dir = project.path("cut");
        disk.after_failure(Luck::None, &dir)?;
        if image(&dir).ok().as_ref() != Some(&after) {
            cuts.broken.push("the new image is not on the disk when all is said to be done".to_owned());
        }
        fs::remove_dir_all(dir)?;
        Ok(cuts)
    }
}

/// The digest of the app's image, which is whole; empty if there is none.
fn image(repository: &Path) -> Result<String> {
    let below = APP_LAYOUT.strip_prefix("layout-repo/").context("it is in the repository")?;
    let layout = repository.join(below);
    if !layout.join("index.json").exists() {
        return Ok(String::new());
    }
    let images = Layout::new(layout).verify()?;
    Ok(images.first().context("an image")?.descriptor.digest.clone())
}

/// The same again makes the image, and leaves nothing that was begun before.
fn next_one_succeeds(project: &Project, phase: Phase, names: &[&str], dir: &Path) -> Result<()> {
    let (repository, aside) = (project.path("layout-repo"), project.path("aside"));
    fs::rename(&repository, &aside)?;
    stage::copy(dir, &repository)?;
    succeed(phase(project, &["env"])?.arg(APP_IMAGE).args(names))?;
    ensure!(!image(&repository)?.is_empty(), "no image");
    let tree = tree::read(&repository)?;
    let left = tree.keys().find(|path| path.to_string_lossy().contains(".drydock-"));
    ensure!(left.is_none(), "left: {left:?}");
    fs::remove_dir_all(&repository)?;
    Ok(fs::rename(aside, repository)?)
}
