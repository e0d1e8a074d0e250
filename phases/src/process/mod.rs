//! Runs what buildpacks and extensions bring along: `bin/detect`, `bin/generate` and `bin/build`.
//!
//! Each runs in a process group of its own, reads nothing, and has both of its output streams in one, which passes on as
//! it comes. A signal that asks this process to end is passed on to the groups. When the program itself has ended, what
//! it left running may say what it still has to say, and is then ended, too. Where nobody reads what they print, they wait;
//! what is left of it some time after a signal is dropped.
//!
//! One thread looks after all programs that run at a time, so that none needs more than itself.

mod left;
mod signals;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, PipeReader, Read as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

pub use signals::{Held, Signals};

use crate::{Error, Kind, Output};

/// How many programs run at a time at most.
const PARALLEL: usize = 16;

/// How long a program that was given a signal may take to end. Container engines wait for 10 seconds before they kill
/// everything; all that is done after a signal is done by then.
const GRACE: Duration = Duration::from_secs(5);
/// What a program left behind may be silent for so long (`exec > >(tee …)` has something to say until it ends) …
const SILENCE: Duration = Duration::from_millis(500);
/// … and speak for so long …
const LAST_WORDS: Duration = Duration::from_secs(2);
/// … and has so long to end once it is asked to.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long the kernel may take to end what is killed: a process that waits for a disk ends only when that answers.
const BURIAL: Duration = Duration::from_secs(1);

/// The most that a pipe holds, unless root has made it larger.
const LARGEST_PIPE: usize = 1 << 20;

/// What to run.
pub(crate) struct Program<'a> {
    /// The executable with its arguments, environment and working directory.
    pub(crate) command: Command,
    /// Where it goes what is printed.
    pub(crate) output: &'a mut dyn Output,
}

/// Runs one program. The inner error tells why it did not start or could not go on.
///
/// Fails with [`Kind::Interrupted`] if a signal came in, however the program took it, and with [`Kind::Phase`] if it
/// could not be looked after. Nothing of it runs any more, whatever is returned.
pub(crate) fn run(program: Program<'_>, signals: &Held<'_>) -> Result<io::Result<ExitStatus>, Error> {
    let mut ended = run_all(vec![program], signals)?;
    Ok(ended.pop().expect("as many have ended as there were"))
}

/// Runs programs like [`run`], several at a time; results come in the order of the programs.
pub(crate) fn run_all(
    programs: Vec<Program<'_>>,
    signals: &Held<'_>,
) -> Result<Vec<io::Result<ExitStatus>>, Error> {
    let mut waiting: VecDeque<_> = programs.into_iter().enumerate().collect();
    let mut running: Vec<Running<'_>> = Vec::new();
    let mut ended = BTreeMap::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut interrupted = None;
    loop {
        if let Some(signal) = signals.take() {
            interrupted = Some(signal);
            waiting.clear();
            for program in &mut running {
                program.pass_on(signal);
            }
        }
        while running.len() < PARALLEL
            && let Some((place, mut program)) = waiting.pop_front()
        {
            match program.start() {
                Ok((child, reader)) => running.push(Running::new(place, child, reader, program.output)),
                // No more processes are allowed: there is room when one has ended.
                Err(error) if error.kind() == ErrorKind::WouldBlock && !running.is_empty() => {
                    waiting.push_front((place, program));
                    break;
                }
                Err(error) => {
                    ended.insert(place, Err(error));
                }
            }
        }
        let running_before = running.len();
        for mut program in std::mem::take(&mut running) {
            match program.attend(&mut buffer)? {
                Some(status) => {
                    ended.insert(program.place, status);
                }
                None => running.push(program),
            }
        }
        if running.is_empty() && waiting.is_empty() {
            break;
        }
        // Where one has ended, another may begin. What happens after the signals were taken ends the wait.
        if running.len() == running_before {
            wait(&running, signals).context("failed to wait for a process")?;
        }
    }
    match interrupted {
        Some(signal) => {
            signals.end_soon(signal);
            Err(Error::new(Kind::Interrupted(signal), anyhow!("interrupted by {}", signals::name(signal))))
        }
        None => Ok(ended.into_values().collect()),
    }
}

/// `exit status 1` or `signal: SIGTERM`.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal().and_then(Signal::from_named_raw)) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {}", signals::name(signal)),
        (None, None) => status.to_string(),
    }
}

impl Program<'_> {
    fn start(&mut self) -> io::Result<(Child, PipeReader)> {
        let (reader, writer) = io::pipe()?;
        ioctl_fionbio(&reader, true)?;
        self.command.process_group(0).stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let child = self.command.spawn().map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => io::Error::new(
                error.kind(),
                format!(
                    "{error}: no more processes are allowed; raise `ulimit -u`, or the container's limit"
                ),
            ),
            _ => error,
        });
        // The command holds our ends for writing: as long as one is open, the output does not end.
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok((child?, reader))
    }
}

/// Waits until there is something to attend to.
fn wait(running: &[Running<'_>], signals: &Held<'_>) -> io::Result<()> {
    let mut fds = vec![PollFd::from_borrowed_fd(signals.wake(), PollFlags::IN)];
    for program in running {
        if program.is_blocked() {
            fds.extend(program.output.room().map(|room| PollFd::from_borrowed_fd(room, PollFlags::OUT)));
        } else if program.is_open {
            fds.push(PollFd::new(&program.reader, PollFlags::IN));
        }
    }
    let next = running.iter().filter_map(Running::due).min();
    let left = next.map(|next| next.saturating_duration_since(Instant::now()));
    let left = left.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
    match poll(&mut fds, left.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A program that was started, and all that it started: a process group.
struct Running<'a> {
    place: usize,
    child: Child,
    group: Pid,
    reader: PipeReader,
    output: &'a mut dyn Output,
    /// What was read and for which there was no room yet.
    kept: Vec<u8>,
    /// From then on what there is no room for is dropped, as nobody seems to read it.
    drop_at: Option<Instant>,
    /// Whether anybody can still write to the pipe.
    is_open: bool,
    /// How the program itself ended.
    status: Option<ExitStatus>,
    /// Whether it was ended because it asked for the terminal.
    wants_terminal: bool,
    /// Whether nothing of it is left but output.
    is_over: bool,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    /// The program runs; killed at that time, if it was given a signal.
    Runs { kill_at: Option<Instant> },
    /// The program has ended; what it left is asked to end when it is silent for a time, or else at `latest`.
    Lingers { silent_at: Instant, latest: Instant },
    /// What it left was asked to end.
    Asked { kill_at: Instant },
    /// All were killed.
    Killed { give_up_at: Instant },
}

impl Stage {
    fn ends_at(self) -> Option<Instant> {
        match self {
            Self::Runs { kill_at } => kill_at,
            Self::Lingers { silent_at, latest } => Some(silent_at.min(latest)),
            Self::Asked { kill_at: at } | Self::Killed { give_up_at: at } => Some(at),
        }
    }
}

impl<'a> Running<'a> {
    fn new(place: usize, child: Child, reader: PipeReader, output: &'a mut dyn Output) -> Self {
        let (group, stage) = (Pid::from_child(&child), Stage::Runs { kill_at: None });
        Self {
            place,
            child,
            group,
            reader,
            output,
            kept: Vec::new(),
            drop_at: None,
            is_open: true,
            status: None,
            wants_terminal: false,
            is_over: false,
            stage,
        }
    }

    /// Sends the whole group a signal. Must not be called once the group is gone: its number may be another's.
    fn send(&self, signal: Signal) {
        // Whatever cannot be reached by it, because it is another user's, is waited for in vain, and left.
        let _ = kill_process_group(self.group, signal);
    }

    fn pass_on(&mut self, signal: Signal) {
        self.drop_at.get_or_insert_with(|| Instant::now() + GRACE);
        if self.is_over {
            return;
        }
        self.send(signal);
        if let Stage::Runs { kill_at: kill_at @ None } = &mut self.stage {
            *kill_at = Some(Instant::now() + GRACE);
        }
    }

    fn kill(&mut self) {
        self.send(Signal::KILL);
        self.stage = Stage::Killed { give_up_at: Instant::now() + BURIAL };
    }

    /// Does what is due. Returns how the program ended when it is over with all that it started.
    fn attend(&mut self, buffer: &mut [u8]) -> anyhow::Result<Option<io::Result<ExitStatus>>> {
        if self.status.is_none() {
            self.status = self.child.try_wait().context("failed to wait for a process")?;
        }
        // Seen before the output is read: whatever they printed is there by then.
        self.is_over = self.is_over || self.status.is_some() && self.is_gone();
        let spoke = self.pass_output(buffer).context("failed to pass on output")?;
        let now = Instant::now();
        if self.drop_at.is_some_and(|at| at <= now) {
            self.kept.clear();
        }
        if !self.is_over {
            self.go_on(spoke, now);
        }
        Ok((self.is_over && !self.is_blocked()).then(|| self.ended()))
    }

    /// Brings it nearer to its end.
    fn go_on(&mut self, spoke: bool, now: Instant) {
        // Who cannot speak is not silent.
        let is_unheard = self.is_blocked() && self.drop_at.is_none();
        match self.stage {
            Stage::Runs { .. } if self.status.is_some() => {
                self.stage = Stage::Lingers { silent_at: now + SILENCE, latest: now + LAST_WORDS };
            }
            Stage::Runs { .. } if self.is_stopped_by_terminal() => {
                self.wants_terminal = true;
                self.kill();
            }
            Stage::Lingers { .. } if is_unheard => {
                self.stage = Stage::Lingers { silent_at: now + SILENCE, latest: now + LAST_WORDS };
            }
            Stage::Lingers { latest, .. } if spoke => {
                self.stage = Stage::Lingers { silent_at: now + SILENCE, latest };
            }
            _ => {}
        }
        let is_due = self.stage.ends_at().is_some_and(|end| end <= now);
        match self.stage {
            Stage::Lingers { .. } if is_due || !self.is_open => {
                self.send(Signal::TERM);
                self.stage = Stage::Asked { kill_at: now + FAREWELL };
            }
            Stage::Runs { .. } | Stage::Asked { .. } if is_due => self.kill(),
            Stage::Killed { .. } if is_due => self.is_over = true,
            _ => {}
        }
    }

    /// Whether there is no room for more of its output.
    fn is_blocked(&self) -> bool {
        !self.kept.is_empty()
    }

    /// When there is something to do although nothing happens.
    fn due(&self) -> Option<Instant> {
        let stage = if self.is_over { None } else { self.stage.ends_at() };
        let drop = if self.is_blocked() { self.drop_at } else { None };
        stage.into_iter().chain(drop).min()
    }

    fn ended(&self) -> io::Result<ExitStatus> {
        match self.status {
            Some(status) if !self.wants_terminal => Ok(status),
            Some(_) => Err(io::Error::other("it asks for input from the terminal, which it is not given")),
            None => Err(io::Error::other("it was killed, and does not end")),
        }
    }

    /// Passes on what is in the pipe, but no endless stream. Returns whether there was anything.
    fn pass_output(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        self.offer_kept();
        let mut passed = 0;
        while self.is_open && !self.is_blocked() && passed < LARGEST_PIPE {
            match self.reader.read(buffer) {
                Ok(0) => self.is_open = false,
                Ok(count) => {
                    self.kept.extend_from_slice(&buffer[..count]);
                    self.offer_kept();
                    passed += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(passed > 0)
    }

    fn offer_kept(&mut self) {
        let mut taken = 0;
        while taken < self.kept.len() {
            match self.output.offer(&self.kept[taken..]) {
                0 => break,
                count => taken += count,
            }
        }
        self.kept.drain(..taken);
    }

    /// Whether no process of the group is left, once the program itself is none: those that it left are then children of
    /// this process.
    fn is_gone(&self) -> bool {
        loop {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            match waitid(WaitId::Pgid(Some(self.group)), options) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    /// Whether the program was stopped because it is in the background of the terminal that it turned to.
    fn is_stopped_by_terminal(&self) -> bool {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let stopped = waitid(WaitId::Pid(self.group), options).ok().flatten();
        let signal = stopped.and_then(|status| status.stopping_signal());
        signal.is_some_and(|signal| [Signal::TTIN, Signal::TTOU].map(Signal::as_raw).contains(&signal))
    }
}

/// What is given up must not go on running.
impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.status.is_none() || !self.is_gone() {
            self.send(Signal::KILL);
        }
    }
}
