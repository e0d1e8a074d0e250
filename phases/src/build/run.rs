//! Runs a buildpack's executable: its output passes through, signals are passed on to it.

use std::io::{self, PipeReader, Read as _, Write};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::signals::{self, Held};

/// How long to wait for more output once the executable has ended. What it started may still have something to say
/// (`exec > >(tee …)`), or may keep its output open for ever (a daemon).
const LINGER: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// How an executable ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// What it says.
    pub(super) status: ExitStatus,
    /// The last signal that was passed on to it.
    pub(super) signal: Option<Signal>,
}

/// Why an executable could not be run to its end.
#[derive(Debug)]
pub(super) enum RunError {
    /// It did not start.
    Start(io::Error),
    /// It started, but could not be waited for.
    Wait(anyhow::Error),
}

/// Runs a command in a process group of its own, so that a signal reaches all that it starts. Both of its output
/// streams go to `output`, as they come.
pub(super) fn run(
    mut command: Command,
    output: &mut dyn Write,
    held: Option<&Held<'_>>,
) -> Result<Ended, RunError> {
    let (reader, writer) = io::pipe().map_err(RunError::Start)?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().map_err(RunError::Start)?).stderr(writer);
    let mut child = command.process_group(0).spawn().map_err(RunError::Start)?;
    // Its ends of the pipe go with it: then the pipe ends with the child.
    drop(command);
    attend(&mut child, reader, output, held).map_err(RunError::Wait)
}

fn attend(
    child: &mut Child,
    reader: PipeReader,
    output: &mut dyn Write,
    held: Option<&Held<'_>>,
) -> anyhow::Result<Ended> {
    let pid = Pid::from_child(child);
    let (ended, ends) = io::pipe().context("make a pipe")?;
    let signal = thread::scope(|scope| {
        // The child stays unreaped, and so its number its own, until no signal is passed on any more.
        scope.spawn(move || {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            // If this fails, so does the wait below, which says so.
            let _ = retry_on_intr(|| waitid(WaitId::Pid(pid), options));
            drop(ends);
        });
        let signal = pass_through(pid, reader, &ended, output, held);
        if signal.is_err() {
            // The error at hand says more than one of this.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        signal
    });
    let status = child.wait().context("wait for its end")?;
    Ok(Ended { status, signal: signal? })
}

/// Copies output and passes on signals until the child has ended and its output too. Returns the last signal.
fn pass_through(
    pid: Pid,
    mut reader: PipeReader,
    ended: &PipeReader,
    output: &mut dyn Write,
    held: Option<&Held<'_>>,
) -> anyhow::Result<Option<Signal>> {
    let mut buffer = vec![0; 64 * 1024];
    let (mut is_open, mut is_running) = (true, true);
    let mut last_signal = None;
    while is_open || is_running {
        // A descriptor is watched as long as something can come of it.
        let watch = |wanted: bool| if wanted { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = Vec::from_iter(is_open.then(|| PollFd::new(&reader, watch(true))));
        fds.extend(is_running.then(|| PollFd::new(ended, watch(true))));
        fds.extend(
            held.iter().flat_map(|held| held.fds()).map(|fd| PollFd::from_borrowed_fd(fd, watch(true))),
        );
        match poll(&mut fds, (!is_running).then_some(&LINGER)) {
            Err(Errno::INTR) => continue,
            Ok(0) => break,
            result => result.context("wait for output")?,
        };
        let has_output = is_open && !fds[0].revents().is_empty();
        let has_ended = is_running && !fds[usize::from(is_open)].revents().is_empty();
        while let Some(signal) = held.map_or(Ok(None), Held::take).context("receive a signal")? {
            last_signal = Some(signal);
            match kill_process_group(pid, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("pass on {}", signals::name(signal)));
                }
            }
        }
        if has_output {
            let count = reader.read(&mut buffer).context("read its output")?;
            is_open = count > 0;
            output.write_all(&buffer[..count]).and_then(|()| output.flush()).context("pass on its output")?;
        }
        is_running &= !has_ended;
    }
    Ok(last_signal)
}

/// `exit status 1` or `signal: SIGTERM`.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal().and_then(Signal::from_named_raw)) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {}", signals::name(signal)),
        (None, None) => status.to_string(),
    }
}
