//! Builds of one app and of two at once, with one cache, beside a clean-up of it and of the repository.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::Layout;
use drydock_acceptance::project::succeed;
use drydock_acceptance::sandboxed::{House, Who};
use libtest_mimic::Trial;

use super::super::is_tidy;
use super::works::{Moments, Work, at_once};
use crate::building::{EVERYBODY, GREETER, Houses, with_houses};
use crate::{Built, rounds};

/// This module's test.
pub(crate) fn trials(executables: &Arc<Built>, houses: &Arc<Houses>) -> Vec<Trial> {
    with_houses(executables, houses, [("drydock::at_once::builds_with_one_cache", builds_with_one_cache)])
}

/// Rounds in the suite, for root and for the ordinary user: the second with a kill.
const ROUNDS: u32 = 2;

fn builds_with_one_cache(built: &Built, houses: &Houses) -> Result<()> {
    let rounds = rounds(ROUNDS)?;
    for who in EVERYBODY {
        // With temporary folders of unpacked images as a killed command leaves them, to be removed while others are made.
        let house = houses.with_script(built, who, GREETER)?;
        at_once_in(&house, rounds).with_context(|| format!("{who:?}"))?;
        if who == Who::Ordinary {
            let strangers = house.strangers()?;
            ensure!(strangers.is_empty(), "these belong to somebody else: {strangers:?}");
        }
    }
    Ok(())
}

/// The arguments of a build of this image. All of them share a cache for layers, besides that of unpacked images.
fn arguments<'a>(house: &'a House, image: &'a str, further: &[&'a str]) -> Result<Vec<&'a str>> {
    let usual = house.build_arguments(&["--cache", "home/layers", "--network", "none"])?;
    let mut words = [&usual[..], further].concat();
    words[1] = image;
    Ok(words)
}

fn digest(house: &House, image: &str) -> Result<String> {
    let layout = Layout::new(house.path("layout-repo/index.docker.io/library").join(image).join("latest"));
    Ok(layout.verify()?.pop().context("an image")?.descriptor.digest)
}

/// Until the kernel has ended all that was in the room of a killed build.
fn until_nothing_runs(house: &House) -> Result<()> {
    let begin = Instant::now();
    while !house.processes().is_empty() {
        ensure!(begin.elapsed() < Duration::from_mins(1), "these go on: {:#?}", house.processes());
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn at_once_in(house: &House, rounds: u32) -> Result<()> {
    let images = ["app", "app", "other"];
    let mut moments = Moments::of(Duration::ZERO);
    for round in 0..rounds {
        let what = || format!("round {round}");
        house.write("app/name", &format!("the app of round {round}\n"))?;
        house.own()?;
        let is_killed = |number: usize| round % 2 == 1 && number == round as usize / 2 % 4;
        // Images are unpacked anew from time to time.
        if round.is_multiple_of(4) {
            remove(&house.path("home/.cache/drydock/roots"))?;
        }
        let trust: &[&str] = if round.is_multiple_of(3) { &["--trust-builder"] } else { &[] };
        let mut commands: Vec<_> =
            images.iter().map(|image| arguments(house, image, trust)).collect::<Result<_>>()?;
        commands.push(vec!["gc"]);
        let works = commands.iter().enumerate().map(|(number, words)| {
            let name = format!("{} {}", words[0], words.get(1).unwrap_or(&""));
            if is_killed(number) {
                Work::new(name, house.command(words)).killed_after(moments.next())
            } else {
                Work::new(name, house.patient(words))
            }
        });
        let (ended, took) = at_once(works.collect())?;
        if round == 0 {
            moments = Moments::of(took);
        }
        for (number, ended) in ended.iter().enumerate() {
            ended.with(if is_killed(number) { &[0, 137] } else { &[0] }).with_context(what)?;
        }
        until_nothing_runs(house).with_context(what)?;
        for image in ["app", "other"] {
            let made = digest(house, image).with_context(what)?;
            let next = succeed(&mut house.patient(&arguments(house, image, trust)?)).with_context(what)?;
            ensure!(!next.text().contains("aiting for"), "{}: a lock is left:\n{}", what(), next.text());
            let was_killed = ended.iter().zip(images).any(|(one, of)| one.exit == 137 && of == image);
            ensure!(
                was_killed || digest(house, image)? == made,
                "{}: {image} is another image alone",
                what()
            );
        }
        ensure!(digest(house, "app")? == digest(house, "other")?, "{}: the same app, two images", what());
        succeed(&mut house.patient(&["gc"])).with_context(what)?;
        succeed(&mut house.patient(&["verify"])).with_context(what)?;
        house.is_clean().with_context(what)?;
        is_tidy(&house.path("layout-repo")).with_context(what)?;
        is_tidy(&house.path("home")).with_context(what)?;
    }
    Ok(())
}

/// Files of images may have no permissions for their owner, and owners of their own.
fn remove(path: &Path) -> Result<()> {
    succeed(std::process::Command::new("rm").arg("-rf").arg(path)).map(drop)
}
