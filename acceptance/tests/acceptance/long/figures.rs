//! What builds cost, and whether that stays level.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::here;
use drydock_acceptance::project::succeed;
use drydock_acceptance::tools::STRACE;
use serde::Deserialize;
use walkdir::WalkDir;

use super::{CHANGES, ROUNDS};

/// What one build takes; nothing if it was not measured.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Costs {
    /// System calls, but for those that wait for another thread.
    calls: u64,
    /// Memory of the process with most, in bytes.
    memory: u64,
}

impl Costs {
    /// Of a command, which is made with the words that start it; it must succeed.
    pub(super) fn of(
        starter: &[&str],
        is_measured: bool,
        command: impl FnOnce(&[&str]) -> Result<Command>,
    ) -> Result<Self> {
        #[derive(Deserialize)]
        struct Measured {
            rss: u64,
        }
        if !is_measured {
            succeed(&mut command(starter)?)?;
            return Ok(Self::default());
        }
        let dir = tempfile::tempdir().context("make a folder")?;
        let (table, measure) = (dir.path().join("calls"), here("bench/measure.py"));
        let [table_path, measure] = [&table, &measure].map(|path| path.to_str());
        let (table_path, measure) = (table_path.context("UTF-8")?, measure.context("UTF-8")?);
        let count = [STRACE.name, "-f", "-c", "-U", "name,calls", "-o", table_path];
        let starter = [&["python3", measure][..], &count, starter].concat();
        let output = succeed(&mut command(&starter)?)?;
        let Measured { rss } = serde_json::from_slice(&output.stdout).with_context(|| output.text())?;
        let mut calls = 0;
        for line in fs::read_to_string(&table).context("read what strace wrote")?.lines() {
            let mut words = line.split_whitespace();
            if let (Some(name), Some(Ok(count))) = (words.next(), words.next().map(str::parse::<u64>))
                && !["total", "futex", "sched_yield", "restart_syscall"].contains(&name)
            {
                calls += count;
            }
        }
        ensure!(calls > 0, "strace has counted nothing");
        Ok(Self { calls, memory: rss })
    }

    pub(super) fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.memory = self.memory.max(other.memory);
    }
}

/// What there was after one build.
#[derive(Debug, Clone, Copy)]
struct Figure {
    costs: Costs,
    /// On the disk, what has several names once.
    bytes: u64,
    /// Files and folders, by their names.
    files: u64,
}

/// What there was after each of many builds.
#[derive(Debug)]
pub(super) struct Figures {
    name: &'static str,
    rounds: u32,
    all: Vec<Figure>,
}

/// The mean of a few builds, and the most of all that is not summed up.
#[derive(Debug)]
struct Summary {
    calls: u64,
    memory: u64,
    bytes: u64,
    files: u64,
}

impl Figures {
    /// For so many rebuilds, after a first build.
    pub(super) fn new(name: &'static str, rounds: u32) -> Self {
        Self { name, rounds, all: Vec::new() }
    }

    /// How many are compared: whole turns of all changes, at most 48 of them.
    fn window(&self) -> u32 {
        (self.rounds / 3).min(48) / CHANGES * CHANGES
    }

    /// What was made for the first time is in place after one turn.
    fn first(&self) -> std::ops::Range<u32> {
        CHANGES..CHANGES + self.window()
    }

    fn last(&self) -> std::ops::Range<u32> {
        self.rounds + 1 - self.window()..self.rounds + 1
    }

    /// Whether the costs of a round are looked at.
    pub(super) fn is_measured(&self, round: u32) -> bool {
        self.first().contains(&round) || self.last().contains(&round)
    }

    /// Notes what a build cost, and what is in these folders now.
    pub(super) fn add(&mut self, round: u32, costs: Costs, dirs: &[&Path]) -> Result<()> {
        ensure!(self.all.len() == round as usize, "each round is noted");
        let mut figure = Figure { costs, bytes: 0, files: 0 };
        let mut seen = BTreeSet::new();
        for entry in dirs.iter().flat_map(WalkDir::new) {
            let facts = entry.context("list what is there")?.metadata()?;
            figure.files += 1;
            if seen.insert((facts.dev(), facts.ino())) {
                figure.bytes += facts.blocks() * 512;
            }
        }
        self.all.push(figure);
        Ok(())
    }

    fn summary(&self, rounds: std::ops::Range<u32>) -> Summary {
        let figures = &self.all[rounds.start as usize..rounds.end as usize];
        let most = |of: fn(&Figure) -> u64| figures.iter().map(of).max().unwrap_or_default();
        Summary {
            calls: figures.iter().map(|figure| figure.costs.calls).sum::<u64>() / figures.len() as u64,
            memory: most(|figure| figure.costs.memory),
            bytes: most(|figure| figure.bytes),
            files: most(|figure| figure.files),
        }
    }

    /// The last ones are as the first ones, but for a few parts in a hundred.
    pub(super) fn are_level(&self) -> Result<()> {
        let (first, last) = (self.summary(self.first()), self.summary(self.last()));
        let told = format!("{} rebuilds ({}): {first:?} at first, {last:?} at last", self.rounds, self.name);
        if self.rounds > ROUNDS {
            #[expect(clippy::print_stderr, reason = "who asks for many wants the figures")]
            {
                eprintln!("{told}");
            }
        }
        for (first, last, slack) in [
            (first.calls, last.calls, 0),
            (first.memory, last.memory, 1 << 20),
            (first.bytes, last.bytes, 64 << 10),
            (first.files, last.files, 0),
        ] {
            ensure!(last <= first + first / 20 + slack, "something grows: {told}");
        }
        Ok(())
    }
}
