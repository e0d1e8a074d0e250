//! Commands are killed, at moments that are spread over the time that each takes: what they leave is the old image or the
//! new one, whole, and the next run does all that was to be done and clears up.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use drydock_acceptance::project::{run, succeed};
use drydock_fake_registry::Fake;
use libtest_mimic::Trial;
use serde_json::Value;

use super::registries::sources;
use super::served::Served;
use super::{Repository, registry_faults};
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("drydock::import_is_killed", import_is_killed),
            ("drydock::flatten_is_killed", flatten_is_killed),
            ("drydock::tag_is_killed", tag_is_killed),
            ("drydock::rm_is_killed", rm_is_killed),
            ("drydock::gc_is_killed", gc_is_killed),
        ],
    )
}

/// How often each command is killed.
const KILLS: u32 = 20;
/// In how many rounds, at most.
const ROUNDS: u32 = 100;
/// No command is taken to be over before that.
const SHORTEST: Duration = Duration::from_millis(5);

/// With an image of three layers, and a smaller one.
fn repository(executables: &Built) -> Result<(Repository, Served)> {
    let (repository, served) = registry_faults::image(executables)?;
    super::copy(&drydock_acceptance::here("images/run"), &repository.path("run"))?;
    Ok((repository, served))
}

/// What names stand for.
fn digests(repository: &Repository, names: &[&str]) -> Result<Vec<Option<Value>>> {
    let digest = |name: &&str| -> Result<Option<Value>> {
        let there = repository.path(name).join("index.json").exists();
        there.then(|| super::registries::named(&repository.path(name))).transpose()
    };
    names.iter().map(digest).collect()
}

/// Kills a command [`KILLS`] times. `prepare` makes something to do, and gives the command for the round; `names` are those that it
/// changes: each stands for what it stood for before, or will after the next run, which must succeed unless `is_done`
/// says that it found nothing left to do.
fn kill(
    repository: &Repository,
    names: &[&str],
    prepare: &dyn Fn(u32) -> Result<Vec<String>>,
    is_done: &dyn Fn(i32) -> bool,
) -> Result<()> {
    let command = |starter: &[&str], words: &[String]| -> Command {
        repository.command_under(starter, &words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let words = prepare(0)?;
    let begin = Instant::now();
    succeed(&mut command(&[], &words))?;
    let mut duration = begin.elapsed();
    let mut kills = 0;
    for round in 1..=ROUNDS {
        let words = prepare(round)?;
        let before = digests(repository, names)?;
        // The fractional parts of multiples of the golden ratio are spread evenly, however many are taken.
        let delay =
            duration.max(SHORTEST).mul_f64(0.9 * (f64::from(round) * 0.618_033_988_75).fract()).as_secs_f64();
        let delay = format!("{delay:.6}");
        let begin = Instant::now();
        let output = run(&mut command(&["timeout", "--foreground", "--signal=KILL", &delay], &words))?;
        let what =
            || format!("{words:?}, killed after {delay}: exit code {}\n{}", output.exit, output.text());
        // 124: the time was over, but all was done.
        ensure!([0, 124, 137].contains(&output.exit), "{}", what());
        if output.exit == 137 {
            kills += 1;
        } else {
            // The machine has become faster.
            duration = duration.min(begin.elapsed());
        }
        let found = repository.json(0, &["verify"]).with_context(what)?;
        let mut found = found.as_array().context("a list")?.iter();
        ensure!(found.all(|one| one["status"] == "whole"), "{found:?} is left: {}", what());
        let left = digests(repository, names)?;
        let next = run(&mut command(&[], &words))?;
        ensure!(next.exit == 0 || is_done(next.exit), "{}\nthen: {}", what(), next.text());
        let after = digests(repository, names)?;
        for (name, ((before, left), after)) in names.iter().zip(before.iter().zip(&left).zip(&after)) {
            ensure!(left == before || left == after, "{name} is {left:?}: {}", what());
        }
        if next.exit != 0 {
            repository.text(&["gc"])?;
        }
        repository.is_tidy().with_context(what)?;
        if kills == KILLS {
            return Ok(());
        }
    }
    bail!("only {kills} were killed in time")
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().copied().map(str::to_owned).collect()
}

/// From a registry and from a compressed archive; over nothing or over an image.
fn import_is_killed(executables: &Built) -> Result<()> {
    let (repository, served) = repository(executables)?;
    let fake = Fake::start(move |request, _| served.answer(request));
    let dir = tempfile::tempdir()?;
    let file = sources(dir.path(), &[&fake.host], "")?;
    let archive = dir.path().join("archive.tar");
    repository.text(&["--quiet", "export", "image", &format!("oci-archive:{}", archive.display())])?;
    succeed(Command::new("gzip").arg("-1").arg(&archive))?;
    let by_network = format!("docker://{}/x/y", fake.host);
    let by_file = format!("oci-archive:{}.gz", archive.display());
    let prepare = |from: &str, round: u32| {
        // Otherwise its blobs would be there already.
        match fs::remove_dir_all(repository.path("new")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        if round.is_multiple_of(2) {
            repository.text(&["tag", "run", "new"])?;
        }
        Ok(words(&["--sources", &file, "import", from, "new"]))
    };
    kill(&repository, &["new"], &|round| prepare(&by_network, round), &|_| false)?;
    kill(&repository, &["new"], &|round| prepare(&by_file, round), &|_| false)
}

fn flatten_is_killed(executables: &Built) -> Result<()> {
    let (repository, _) = repository(executables)?;
    repository.text(&["tag", "run", "flat"])?;
    let prepare = |round: u32| {
        let compression = ["gzip", "none", "zstd"][usize::try_from(round)? % 3];
        Ok(words(&["flatten", "image", "flat", "--compression", compression]))
    };
    kill(&repository, &["flat", "image"], &prepare, &|_| false)
}

fn tag_is_killed(executables: &Built) -> Result<()> {
    let (repository, _) = repository(executables)?;
    let prepare = |round: u32| {
        for name in ["one", "two"].into_iter().filter(|name| repository.path(name).exists()) {
            // Otherwise its blobs would be there already.
            fs::remove_dir_all(repository.path(name).join("blobs"))?;
            fs::remove_file(repository.path(name).join("index.json"))?;
        }
        repository.text(&["tag", if round.is_multiple_of(2) { "run" } else { "image" }, "two"])?;
        Ok(words(&["tag", if round.is_multiple_of(2) { "image" } else { "run" }, "one", "two"]))
    };
    kill(&repository, &["one", "two", "image", "run"], &prepare, &|_| false)
}

fn rm_is_killed(executables: &Built) -> Result<()> {
    let (repository, _) = repository(executables)?;
    let prepare = |_| {
        repository.text(&["tag", "image", "gone", "gone:second"])?;
        Ok(words(&["rm", "gone", "gone:second"]))
    };
    kill(&repository, &["gone", "gone:second", "image"], &prepare, &|exit| exit == 3)
}

fn gc_is_killed(executables: &Built) -> Result<()> {
    let (repository, _) = repository(executables)?;
    let prepare = |_| {
        for name in ["image", "run"] {
            for number in 0..200 {
                fs::write(repository.path(name).join(format!("blobs/sha256/.drydock-99-{number}")), "left")?;
            }
        }
        Ok(words(&["gc"]))
    };
    kill(&repository, &["image", "run"], &prepare, &|_| false)
}
