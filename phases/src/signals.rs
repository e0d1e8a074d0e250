//! Signals that would end a phase while others work for it, and that it has to pass on to them.

use std::fmt;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

/// Signals that ask a process to end.
const ASKING_TO_END: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];

/// The handlers of a process for signals that ask it to end. They do what is done without them, except while the
/// signals are held.
///
/// An executable sets them once, before it starts threads that matter.
pub struct Signals {
    end_process: Arc<AtomicBool>,
    received: Vec<(Signal, UnixStream)>,
}

impl Signals {
    /// Sets the handlers.
    pub fn handle() -> io::Result<Self> {
        let end_process = Arc::new(AtomicBool::new(true));
        let received = ASKING_TO_END
            .into_iter()
            .map(|signal| {
                let (reader, writer) = UnixStream::pair()?;
                reader.set_nonblocking(true)?;
                signal_hook::flag::register_conditional_default(signal.as_raw(), Arc::clone(&end_process))?;
                signal_hook::low_level::pipe::register(signal.as_raw(), writer)?;
                Ok((signal, reader))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { end_process, received })
    }

    /// From now on until the value is dropped, these signals do not end the process, but can be asked for.
    pub fn hold(&self) -> Held<'_> {
        self.end_process.store(false, Ordering::SeqCst);
        Held(self)
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").finish_non_exhaustive()
    }
}

/// While it lives, signals do not end the process.
#[derive(Debug)]
pub struct Held<'a>(&'a Signals);

impl Held<'_> {
    /// What becomes readable when a signal comes in.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.received.iter().map(|(_, reader)| reader.as_fd())
    }

    /// A signal that has come in since the last time; does not wait for one.
    pub fn take(&self) -> io::Result<Option<Signal>> {
        for (signal, reader) in &self.0.received {
            // One signal, sent again before it was asked for, counts once.
            match (&*reader).read(&mut [0; 64]) {
                Ok(1..) => return Ok(Some(*signal)),
                Ok(0) => {}
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.end_process.store(true, Ordering::SeqCst);
    }
}

/// A signal's name, like `SIGTERM`.
pub fn name(signal: Signal) -> &'static str {
    signal_hook::low_level::signal_name(signal.as_raw()).unwrap_or("a signal")
}
