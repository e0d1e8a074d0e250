//! Signals that would end a phase while others work for it, and that it has to pass on to them.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process, set_child_subreaper};
use signal_hook::low_level::{self, pipe};
use signal_hook::{SigId, flag};

use super::left::Left;
use crate::Error;

/// Signals that ask a process to end.
const ASKING_TO_END: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];

/// How long a process that is to end may take to say what is left to say, which nobody may read.
const FAREWELL: Duration = Duration::from_secs(2);

/// The handlers of a process for signals that ask it to end. They do what is done without them, except while the
/// signals are held.
///
/// An executable sets them once, before it starts threads that matter.
pub struct Signals {
    /// If nothing else in this process starts programs.
    left: Option<Left>,
    end_process: Arc<AtomicBool>,
    /// The number of the last one that was held, or 0.
    received: Arc<AtomicUsize>,
    /// Becomes readable when a signal comes in, and when a child has ended or stopped.
    wake: UnixStream,
    handlers: Vec<SigId>,
}

impl Signals {
    /// Sets the handlers, and makes the process the parent of those that lose theirs below it: it can then tell when
    /// all that its children started has ended.
    ///
    /// A signal that the process was started to ignore (by `nohup`, or in the background of a shell) stays ignored.
    pub fn handle() -> io::Result<Self> {
        set_child_subreaper(Some(getpid()))?;
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let mut signals = Self {
            left: None,
            end_process: Arc::new(AtomicBool::new(true)),
            received: Arc::default(),
            wake,
            handlers: vec![pipe::register(Signal::CHILD.as_raw(), waker.try_clone()?)?],
        };
        let ignored = ignored(&fs::read_to_string("/proc/self/status").unwrap_or_default());
        for signal in ASKING_TO_END.map(Signal::as_raw) {
            if ignored & (1 << (signal - 1)) != 0 {
                continue;
            }
            let end_process = Arc::clone(&signals.end_process);
            // The first process of a container dies of no signal: for it, ending is exiting.
            signals.handlers.push(if getpid().is_init() {
                flag::register_conditional_shutdown(signal, 128 + signal, end_process)
            } else {
                flag::register_conditional_default(signal, end_process)
            }?);
            let (received, number) = (Arc::clone(&signals.received), signal.unsigned_abs() as usize);
            signals.handlers.push(flag::register_usize(signal, received, number)?);
            signals.handlers.push(pipe::register(signal, waker.try_clone()?)?);
        }
        Ok(signals)
    }

    /// The same for an executable that starts programs one after the other, or waits for all: what these leave running can be ended.
    pub fn handle_alone() -> io::Result<Self> {
        let mut signals = Self::handle()?;
        signals.left = Some(Left::from_now());
        Ok(signals)
    }

    /// From now on until the value is dropped, these signals do not end the process, but can be asked for.
    pub fn hold(&self) -> Held<'_> {
        self.end_process.store(false, Ordering::SeqCst);
        Held(self)
    }

    /// Lets a signal do to this process what it does while nobody holds it, so that whoever waits for the process is
    /// told of the signal.
    pub fn raise(&self, signal: Signal) {
        // There is always the right to send oneself a signal.
        let _ = kill_process(getpid(), signal);
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handlers.drain(..).for_each(|handler| {
            low_level::unregister(handler);
        });
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").finish_non_exhaustive()
    }
}

/// While it lives, signals do not end the process. One that came in and that nobody took ends it afterwards.
#[derive(Debug)]
pub struct Held<'a>(&'a Signals);

impl Held<'_> {
    /// Ends what programs have left running, whatever came of them: it must not change what comes next.
    pub(crate) fn end_left<T>(&self, ran: Result<T, Error>) -> Result<T, Error> {
        let ended = self.0.left.as_ref().map_or(Ok(()), Left::end);
        let value = ran?;
        ended?;
        Ok(value)
    }

    /// What becomes readable when there may be a signal to take, and when a child has ended or stopped.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }

    /// Has the signal end the process in a moment, if there are still handlers by then.
    pub(super) fn end_soon(&self, signal: Signal) {
        let alive = Arc::downgrade(&self.0.end_process);
        // Where there may be no thread, only another signal ends what waits.
        let _ = thread::Builder::new().name("end".into()).spawn(move || {
            thread::sleep(FAREWELL);
            if alive.strong_count() > 0 {
                let _ = kill_process(getpid(), signal);
            }
        });
    }

    /// The last signal that has come in since the last time; does not wait for one.
    pub fn take(&self) -> Option<Signal> {
        // What woke is taken away first: a signal that comes in from here on wakes again.
        while matches!((&self.0.wake).read(&mut [0; 64]), Ok(1..)) {}
        let number = self.0.received.swap(0, Ordering::SeqCst);
        ASKING_TO_END.into_iter().find(|signal| signal.as_raw().unsigned_abs() as usize == number)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.end_process.store(true, Ordering::SeqCst);
        if let Some(signal) = self.take() {
            self.0.raise(signal);
        }
    }
}

/// The signals that a process ignores, signal 1 in the lowest bit; `status` is what the kernel tells of the process.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// A signal's name, like `SIGTERM`.
pub(crate) fn name(signal: Signal) -> &'static str {
    low_level::signal_name(signal.as_raw()).unwrap_or("a signal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_signals_are_ignored() {
        let status = |mask: &str| format!("Name:\tsh\nSigBlk:\tffff\nSigIgn:\t{mask}\nSigCgt:\t7\n");
        for (status, want) in [
            (status("0000000000000001"), 1 << (Signal::HUP.as_raw() - 1)),
            (status("0000000000001006"), 0x1006),
            (status("none"), 0),
            (String::new(), 0),
        ] {
            assert_eq!(ignored(&status), want, "{status}");
        }
    }
}
