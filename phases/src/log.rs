//! Where a phase says what it does.

use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;

use crate::create::Step;

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For whoever looks for a fault.
    Debug,
    /// What happens.
    Info,
    /// Something is not as it should be; the phase goes on.
    Warn,
    /// Why the phase fails.
    Error,
}

/// Takes the output of programs without ever waiting for whoever reads it.
pub trait Output {
    /// Takes as many of the bytes as there is room for, and tells how many: 0 if there is none.
    fn offer(&mut self, bytes: &[u8]) -> usize;

    /// What becomes writable when there is room again; none if there always is.
    fn room(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl Output for Vec<u8> {
    fn offer(&mut self, bytes: &[u8]) -> usize {
        self.extend_from_slice(bytes);
        bytes.len()
    }
}

/// Receives what phases say. Implementations decide on colour, and on which levels are shown.
pub trait Log: Sync {
    /// One message of one or more lines, without a newline at its end.
    fn log(&self, level: Level, message: &str);

    /// The same of what the buildpack or extension with this ID printed.
    fn quote(&self, level: Level, _module: &str, message: &str) {
        self.log(level, message);
    }

    /// A line like `===> ANALYZING`; what is said from now on is said by that phase.
    fn phase(&self, step: Step);

    /// Where the output of the buildpack or extension with this ID goes, byte for byte as it comes.
    fn output(&self, module: &str) -> Box<dyn Output + '_>;

    /// Where the same goes if it tells why the phase fails: to the errors, so that all is in one place and in order. Without
    /// an ID, it is what the phase says.
    fn error_output(&self, module: &str) -> Box<dyn Write + Send + '_>;

    /// What was said until now, as the lines of a build log ([`drydock_spec::build_log`]), if that is to be kept beside the
    /// image. They may be others' than this phase's, and in files that others can write to.
    fn so_far(&self) -> Option<io::Result<Box<dyn Read + '_>>> {
        None
    }

    /// At [`Level::Debug`].
    fn debug(&self, message: &str) {
        self.log(Level::Debug, message);
    }

    /// At [`Level::Info`].
    fn info(&self, message: &str) {
        self.log(Level::Info, message);
    }

    /// At [`Level::Warn`].
    fn warn(&self, message: &str) {
        self.log(Level::Warn, message);
    }

    /// At [`Level::Error`].
    fn error(&self, message: &str) {
        self.log(Level::Error, message);
    }
}
