//! Works that are done at the same time, some of them killed.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// A command among others.
pub(super) struct Work {
    name: String,
    command: Command,
    killed_after: Option<Duration>,
}

/// A work that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    name: String,
    /// 137 if it was killed.
    pub(super) exit: i32,
    said: String,
}

impl Work {
    /// Must be one that ends in time, or says that it did not.
    pub(super) fn new(name: impl Into<String>, command: Command) -> Self {
        Self { name: name.into(), command, killed_after: None }
    }

    /// Killed so long after it began. The command must be the process that is to be killed, without another one around it.
    pub(super) fn killed_after(self, after: Duration) -> Self {
        Self { killed_after: Some(after), ..self }
    }

    fn run(mut self, begin: &Barrier) -> Result<Ended> {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        begin.wait();
        let mut child = self.command.spawn().with_context(|| format!("start {}", self.name))?;
        if let Some(after) = self.killed_after {
            thread::sleep(after);
            child.kill()?;
        }
        let output = child.wait_with_output()?;
        let signal = output.status.signal().map_or(-1, |signal| 128 + signal);
        let said = [output.stdout, output.stderr].concat();
        Ok(Ended {
            name: self.name,
            exit: output.status.code().unwrap_or(signal),
            said: String::from_utf8_lossy(&said).into_owned(),
        })
    }
}

impl Ended {
    /// It must have ended with one of these exit codes.
    pub(super) fn with(&self, exits: &[i32]) -> Result<()> {
        ensure!(exits.contains(&self.exit), "{}: exit code {}\n{}", self.name, self.exit, self.said);
        Ok(())
    }
}

/// Does all of them, begun at the same moment; in their order, and how long all took.
pub(super) fn at_once(works: Vec<Work>) -> Result<(Vec<Ended>, Duration)> {
    let begin = Barrier::new(works.len());
    let start = Instant::now();
    let ended = thread::scope(|scope| {
        let threads: Vec<_> = works.into_iter().map(|work| scope.spawn(|| work.run(&begin))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<Ended>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))
        };
        threads.into_iter().map(join).collect::<Result<Vec<_>>>()
    });
    Ok((ended?, start.elapsed()))
}

/// Moments in a time that works take, spread evenly, however many are taken.
#[derive(Debug)]
pub(super) struct Moments {
    of: Duration,
    number: u32,
}

impl Moments {
    pub(super) fn of(of: Duration) -> Self {
        Self { of, number: 0 }
    }

    pub(super) fn next(&mut self) -> Duration {
        self.number += 1;
        // As the fractional parts of multiples of the golden ratio are.
        self.of.mul_f64((f64::from(self.number) * 0.618_033_988_75).fract())
    }
}
