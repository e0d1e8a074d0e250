//! What can go wrong: messages that are built up from the inside out, and the exit code they end in.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use crate::text::lossy;

/// The launch failed (`platform.md` § launcher, exit codes).
const LAUNCH: i32 = 82;
/// The platform API is missing, malformed or not supported.
const PLATFORM_API: i32 = 11;
/// A buildpack's API is malformed or not supported.
const BUILDPACK_API: i32 = 12;
/// Any other failure.
const GENERIC: i32 = 1;

/// Why the launcher ends: `failed to …`, and the exit code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The whole message, in one line.
    pub(crate) message: String,
    /// The exit code of the launcher.
    pub(crate) code: i32,
}

impl Failure {
    pub(crate) fn platform_api(message: impl fmt::Display) -> Self {
        Self { message: format!("failed to {message}"), code: PLATFORM_API }
    }

    pub(crate) fn buildpack_api(message: impl fmt::Display) -> Self {
        Self { message: format!("failed to {message}"), code: BUILDPACK_API }
    }

    pub(crate) fn metadata(cause: impl fmt::Display) -> Self {
        Self { message: format!("failed to read metadata: {cause}"), code: GENERIC }
    }

    pub(crate) fn launch(cause: impl fmt::Display) -> Self {
        Self { message: format!("failed to launch: {cause}"), code: LAUNCH }
    }
}

/// A message, from the outermost action to the cause.
#[derive(Debug, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self(message.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<IoError> for Error {
    fn from(error: IoError) -> Self {
        Self::new(error)
    }
}

pub(crate) trait Context<T> {
    /// Puts what was attempted before the message.
    fn context(self, action: impl fmt::Display) -> Result<T, Error>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn context(self, action: impl fmt::Display) -> Result<T, Error> {
        self.map_err(|cause| Error(format!("{action}: {cause}")))
    }
}

/// A system call that failed on a path.
#[derive(Debug, PartialEq, Eq)]
pub struct IoError {
    /// The name of the call.
    pub call: &'static str,
    /// The path it was given.
    pub path: alloc::vec::Vec<u8>,
    /// Why it failed.
    pub reason: Reason,
}

/// Why a file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The kernel says so.
    Errno(Errno),
    /// It is a folder, or something that one waits for, or that has no end.
    NotAFile,
    /// It has more bytes than this.
    LargerThan(usize),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(errno) => errno.fmt(f),
            Self::NotAFile => f.write_str("not a regular file"),
            Self::LargerThan(limit) => write!(f, "more than {limit} bytes"),
        }
    }
}

impl IoError {
    pub(crate) fn is_not_found(&self) -> bool {
        self.reason == Reason::Errno(Errno::NOENT)
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.call, lossy(&self.path), self.reason)
    }
}

/// An error number of the kernel's (the numbers here are those of every architecture that Linux has in common).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// No such file or directory.
    pub const NOENT: Self = Self(2);
    /// Permission denied.
    pub const ACCES: Self = Self(13);
    /// Is a directory.
    pub const ISDIR: Self = Self(21);
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "operation not permitted",
            2 => "no such file or directory",
            5 => "input/output error",
            7 => "argument list too long",
            8 => "exec format error",
            9 => "bad file descriptor",
            11 => "resource temporarily unavailable",
            12 => "cannot allocate memory",
            13 => "permission denied",
            14 => "bad address",
            20 => "not a directory",
            21 => "is a directory",
            22 => "invalid argument",
            23 => "too many open files in system",
            24 => "too many open files",
            26 => "text file busy",
            36 => "file name too long",
            40 => "too many levels of symbolic links",
            number => return write!(f, "errno {number}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_from_the_action_to_the_cause() {
        let cause = IoError { call: "open", path: b"/a\xff".to_vec(), reason: Reason::Errno(Errno::NOENT) };
        let error = Err::<(), _>(cause).context("modify env").context("outer").unwrap_err();
        let failure = Failure::launch(error);
        assert_eq!(
            failure.message,
            "failed to launch: outer: modify env: open /a\u{fffd}: no such file or directory"
        );
        assert_eq!(failure.code, 82);
        assert_eq!(Errno(999).to_string(), "errno 999");
    }
}
