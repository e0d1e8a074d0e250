//! Tells how a build goes: on the screen as it comes, and in the log, which is kept beside the image ([`drydock_spec::build_log`]).
//!
//! What programs print is read by threads, line by line. Lines of secrets are put out of sight, on the screen and in the log, should a
//! program print them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use anyhow::{Context as _, Error, Result};
use drydock_images::Name;
use drydock_io::read::ReadAt;
use drydock_layout::Spool;
use drydock_spec::build_log::{DOCKERFILE, Line, MAX_LOG, Pieces, Stream, time};
use serde_json::json;

use super::{Building, Built};
use crate::commands::sandboxed::dockerfile::{Listener, StepOf};
use crate::exit::FAILED;
use crate::output::printable;
use crate::progress::{Progress, eprint_line};

/// Lines of a secret that are shorter stand everywhere, by chance.
const SHORTEST_SECRET: usize = 6;

/// So many lines of a program that failed are shown where nothing was shown before.
const LAST_LINES: usize = 20;

/// Who writes the log.
pub(super) struct Journal {
    shared: Arc<Mutex<Shared>>,
    /// They read what the program that runs prints.
    readers: Mutex<Vec<JoinHandle<()>>>,
    json: bool,
    quiet: bool,
}

struct Shared {
    /// None: it is not kept.
    spool: Option<Spool>,
    size: u64,
    /// What is put out of sight.
    secrets: Vec<String>,
    /// Where programs print to; none where nobody wants to see it.
    screen: Option<File>,
    /// What a program has printed last that nobody saw.
    last: VecDeque<String>,
    steps: usize,
    known: usize,
}

impl Journal {
    /// For an image of this name.
    pub(super) fn begin<'s>(
        to: &Name,
        secrets: impl Iterator<Item = &'s Vec<u8>>,
        building: &Building<'_>,
    ) -> Self {
        let spool = Spool::create(to.dir(), to.path()).map_err(|error| {
            warn_unlogged(&format!("{:#}", Error::from(error)));
        });
        let copy = |stream: BorrowedFd<'_>| stream.try_clone_to_owned().map(File::from).ok();
        let screen = match (building.quiet, building.json) {
            (true, _) => None,
            (false, true) => copy(io::stderr().as_fd()),
            (false, false) => copy(io::stdout().as_fd()),
        };
        let shared = Shared {
            spool: spool.ok(),
            size: 0,
            secrets: lines_of(secrets),
            screen,
            last: VecDeque::new(),
            steps: 0,
            known: 0,
        };
        let shared = Arc::new(Mutex::new(shared));
        Self { shared, readers: Mutex::default(), json: building.json, quiet: building.quiet }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    /// What the last program has printed was read.
    pub(super) fn pause(&self) {
        let readers = std::mem::take(&mut *self.readers.lock().unwrap_or_else(PoisonError::into_inner));
        for reader in readers {
            // One that has panicked has at worst left a line out.
            let _ = reader.join();
        }
    }

    /// How many steps there were, and how many of them were known.
    pub(super) fn steps(&self) -> (usize, usize) {
        let shared = self.lock();
        (shared.steps, shared.known)
    }

    /// What is in the log now, if it is kept.
    pub(super) fn so_far(&self) -> Result<Option<ReadAt<File>>> {
        let shared = self.lock();
        let copy = |spool: &Spool| anyhow::Ok(ReadAt { file: spool.file().try_clone()?, at: 0 });
        shared.spool.as_ref().map(copy).transpose().context("cannot read the log of the build")
    }

    /// The build has ended: the last line.
    pub(super) fn end(self, built: &Result<Built>, progress: &Progress) {
        self.pause();
        let mut shared = self.lock();
        if let Err(error) = built {
            let (text, last) = (format!("error: {error:#}"), std::mem::take(&mut shared.last));
            for line in last {
                eprint_line(&line);
            }
            shared.note(Stream::Stderr, &text, None);
        }
        let stopped = progress.signals.exit_code().unwrap_or(FAILED);
        let code = if built.is_ok() { 0 } else { stopped };
        shared.note(Stream::Stdout, "", Some(code));
    }
}

impl Listener for Journal {
    fn begins(&self, step: &StepOf<'_>) {
        self.pause();
        let mut shared = self.lock();
        shared.steps += 1;
        shared.known += usize::from(step.is_known);
        shared.last.clear();
        let (stage, number, of) = (&step.stage.name, step.number, step.stage.plan.steps.len());
        let known = if step.is_known { " (known)" } else { "" };
        let text = shared.hidden(&format!("[{stage} {number}/{of}] {}{known}", first_line(&step.step.text)));
        shared.note(Stream::Stdout, &text, None);
        if self.json {
            let (line, instruction) = (step.step.line, shared.hidden(&step.step.text));
            let event = json!({"event": "step", "stage": stage, "number": number, "of": of, "line": line,
                "instruction": instruction, "known": step.is_known});
            eprint_line(&event.to_string());
        } else if !self.quiet {
            eprint_line(&printable(&text));
        }
    }

    fn streams(&self) -> Result<(Stdio, Stdio)> {
        let stream = |stream: Stream| -> Result<Stdio> {
            let (reader, writer) = io::pipe().context("cannot make a pipe")?;
            let shared = Arc::clone(&self.shared);
            let reading = thread::Builder::new().spawn(move || follow(reader, stream, &shared));
            let reading = reading.context("cannot start a thread")?;
            self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reading);
            Ok(Stdio::from(OwnedFd::from(writer)))
        };
        self.pause();
        Ok((stream(Stream::Stdout)?, stream(Stream::Stderr)?))
    }
}

/// Reads until the last process has closed its end.
fn follow(mut from: PipeReader, stream: Stream, shared: &Mutex<Shared>) {
    let (mut pieces, mut buffer) = (Pieces::default(), vec![0; 64 << 10]);
    loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(n) if n > 0 => {
                let lines = pieces.push(&buffer[..n]);
                lock(shared).printed(stream, lines);
            }
            _ => break,
        }
    }
    lock(shared).printed(stream, pieces.rest().into_iter().collect());
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // A thread that panicked has at worst left a line out.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn hidden(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }

    /// Lines of a program.
    fn printed(&mut self, stream: Stream, lines: Vec<String>) {
        for line in lines {
            let line = self.hidden(&line);
            if let Some(screen) = &mut self.screen {
                // Where nobody reads, nobody is to be told.
                drop(screen.write_all(format!("{line}\n").as_bytes()));
            } else {
                self.last.push_back(printable(&line));
                self.last.drain(..self.last.len().saturating_sub(LAST_LINES));
            }
            self.note(stream, &line, None);
        }
    }

    /// A line of the log. What cannot be written is said once, and the build goes on.
    fn note(&mut self, stream: Stream, text: &str, exit: Option<u8>) {
        let line = |text: String| {
            let (time, phase) = (time(SystemTime::now()), DOCKERFILE.to_owned());
            format!("{}\n", Line { time, phase, buildpack: String::new(), stream, text, exit })
        };
        let text = line(self.hidden(text));
        let Some(spool) = self.spool.as_ref() else { return };
        let was_whole = self.size <= MAX_LOG;
        self.size += text.len() as u64;
        let written = match (self.size <= MAX_LOG, was_whole, exit) {
            (true, ..) | (_, _, Some(_)) => spool.file().write_all(text.as_bytes()),
            (false, true, None) => {
                let cut = line(format!("The log has more than {MAX_LOG} bytes: the rest is left out"));
                spool.file().write_all(cut.as_bytes())
            }
            (false, false, None) => Ok(()),
        };
        if let Err(error) = written {
            warn_unlogged(&format!("failed to write `{}`: {error}", spool.path().display()));
            self.spool = None;
        }
    }
}

/// The image is worth having without the log of its build.
pub(super) fn warn_unlogged(why: &str) {
    eprint_line(&printable(&format!("warning: the log of the build is not kept: {why}")));
}

/// The lines of secrets, the longest first: a part of one may be another.
fn lines_of<'s>(secrets: impl Iterator<Item = &'s Vec<u8>>) -> Vec<String> {
    let text = |secret: &'s Vec<u8>| std::str::from_utf8(secret).ok();
    let lines = secrets.filter_map(text).flat_map(str::lines).map(str::trim);
    let mut lines: Vec<String> =
        lines.filter(|line| line.len() >= SHORTEST_SECRET).map(str::to_owned).collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.len()));
    lines
}

fn first_line(text: &str) -> String {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    if lines.next().is_some() { format!("{first} …") } else { first.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_out_of_sight() {
        let secrets =
            [b"hunter2secret\n".to_vec(), b"short\n  key=hunter2secret-more\n".to_vec(), vec![0xff; 9]];
        let shared = Shared {
            spool: None,
            size: 0,
            secrets: lines_of(secrets.iter()),
            screen: None,
            last: VecDeque::new(),
            steps: 0,
            known: 0,
        };
        assert_eq!(shared.secrets, ["key=hunter2secret-more", "hunter2secret"]);
        for (text, want) in [
            ("it is hunter2secret!", "it is ***!"),
            ("key=hunter2secret-more", "***"),
            ("a short text", "a short text"),
        ] {
            assert_eq!(shared.hidden(text), want);
        }
    }

    #[test]
    fn instructions_are_told_in_a_line() {
        assert_eq!(first_line("RUN a"), "RUN a");
        assert_eq!(first_line("RUN <<EOF\na\nEOF"), "RUN <<EOF …");
    }
}
