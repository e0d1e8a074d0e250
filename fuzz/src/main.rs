//! Throws mutated input at what parses, for a while:
//! `cargo run --profile fuzz -p drydock-fuzz -- TARGET SECONDS [SEED]`.
//!
//! A panic, an abort, a hang or hunger for memory is a finding: the process ends with an error, and the input is
//! in `target/fuzz/TARGET`. `… -- TARGET FILE` runs that one again. What to do then: mend the cause, and put the
//! input, as small as it can be made, into `fuzz/corpus/TARGET/`.
//!
//! Which code an input reaches cannot be seen without an instrumented build. What guides the search in its place
//! is what a target says of each input: one of which something new is said is kept, and mutated further.
#![expect(clippy::print_stdout, reason = "it tells what it does")]

mod corpus;
mod mutate;
mod runner;
mod targets;

use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use rustix::fs::statvfs;
use rustix::process::{Resource, Rlimit, setrlimit};

use mutate::Random;
use runner::Runner;
use targets::{TARGETS, Target};

/// An input that needs more memory is a finding: address space, in bytes.
const MEMORY: u64 = 1 << 30;
/// Targets make their files there, in memory, if there is [`ROOM`]: on a disk that takes many times as long.
const IN_MEMORY: &str = "/dev/shm";
/// Bytes.
const ROOM: u64 = 1 << 30;
/// So many inputs are kept beside the seeds.
const KEPT: usize = 2000;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (name, what, seed) = match arguments[..] {
        [name, what] => (name, what, 1),
        [name, what, seed] => (name, what, seed.parse().context("the seed must be a number")?),
        _ => bail!("usage: drydock-fuzz TARGET SECONDS [SEED], or drydock-fuzz TARGET FILE"),
    };
    let target = TARGETS.iter().find(|target| target.name == name).with_context(|| {
        format!("no target `{name}`; there are {}", TARGETS.each_ref().map(|target| target.name).join(", "))
    })?;
    if statvfs(IN_MEMORY).is_ok_and(|facts| facts.f_bavail * facts.f_frsize >= ROOM) {
        // Whoever has set another one before has a reason.
        let _ = tempfile::env::override_temp_dir(Path::new(IN_MEMORY));
    }
    setrlimit(Resource::As, Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) })?;
    if let Ok(seconds) = what.parse() {
        return fuzz(target, Duration::from_secs(seconds), seed);
    }
    let input = fs::read(what).with_context(|| format!("cannot read `{what}`"))?;
    println!("{}", (target.run)(&input));
    Ok(())
}

/// Runs a target on its seeds, and on what mutation makes of them.
fn fuzz(target: &Target, time: Duration, seed: u64) -> Result<()> {
    let mut inputs = corpus::seeds(target)?;
    let seeds = inputs.len();
    let mut runner = Runner::new(target)?;
    println!(
        "{name}: {seeds} seeds; the input in work is in {}",
        runner.path().display(),
        name = target.name
    );
    for input in &inputs {
        runner.run(input)?;
    }
    let mut random = Random::new(seed);
    let until = Instant::now() + time;
    while Instant::now() < until {
        let [base, other] = [(); 2].map(|()| &inputs[random.below(inputs.len())]);
        let input = mutate::mutate(base, other, target, &mut random);
        if runner.run(&input)? {
            if inputs.len() == seeds + KEPT {
                inputs.swap_remove(seeds + random.below(KEPT));
            }
            inputs.push(input);
        }
    }
    println!("{}: {}", target.name, runner.finish()?);
    Ok(())
}
