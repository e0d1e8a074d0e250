//! What can go wrong between here and a registry.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use drydock_model::digest::Digest;

use crate::auth::AuthError;

/// Why something was given up.
pub(crate) const TIME_IS_OVER: &str = "it is stopped: its time is over (--timeout)";

/// A failed operation: on what, and why. The message is the whole story; there is no source below it.
#[derive(Debug, thiserror::Error)]
#[error("{target}: {kind}")]
pub struct Error {
    /// The reference with its registry, or the registry alone.
    pub target: String,
    /// Why.
    pub kind: ErrorKind,
}

impl Error {
    pub(crate) fn new(target: impl Into<String>, kind: ErrorKind) -> Self {
        Self { target: target.into(), kind }
    }

    /// The one that a cause is, or that came out of [`io::Read`] as this cause.
    pub fn find<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause.downcast_ref().or(inner.and_then(|inner| inner.downcast_ref()))
    }
}

/// An error can come out of [`io::Read`]: `error.get_ref()` is an [`Error`] then.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ErrorKind {
    /// There is no such thing, or this user is not shown it.
    #[error("there is no such {what}")]
    NotFound {
        /// What was asked for: `manifest`, `blob`, `repository`.
        what: &'static str,
    },
    /// The registry wants other credentials than it got.
    #[error("{}", unauthorized(registry, *with_credentials, reason))]
    Unauthorized {
        /// The registry, as references name it.
        registry: String,
        /// Whether credentials were found and sent.
        with_credentials: bool,
        /// What the registry said.
        reason: String,
    },
    /// The credentials could not be found out.
    #[error(transparent)]
    Credentials(#[from] AuthError),
    /// The registry wants to be left alone, for longer than it was worth to wait.
    #[error("the registry gets too many requests{}", try_again(*wait))]
    TooManyRequests {
        /// How long, if it said so.
        wait: Option<Duration>,
    },
    /// What came, or what the registry says it has, is not what was asked for.
    #[error("expected digest {expected}, found {found}: it was damaged on the way or in the registry")]
    DigestMismatch {
        /// What it should have.
        expected: Digest,
        /// What it has.
        found: Digest,
    },
    /// A blob is longer or shorter than its descriptor says.
    #[error("expected {expected} bytes, found {found}")]
    LengthMismatch {
        /// What the descriptor says.
        expected: u64,
        /// What the registry has: the number, or `more`.
        found: String,
    },
    /// An answer is larger than any that makes sense.
    #[error("the answer has more than {limit} bytes")]
    TooLarge {
        /// What is read at most.
        limit: u64,
    },
    /// An answer that makes no sense.
    #[error("the answer is not what a registry says: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// Any other status than success.
    #[error("it answered with status {status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Status {
        /// The HTTP status.
        status: u16,
        /// The registry's explanation, if it gave any.
        message: String,
    },
    /// A redirect, or the place of an upload, that is not followed.
    #[error("it sends to {to}, which is not followed: {reason}")]
    Redirect {
        /// Scheme and host.
        to: String,
        /// Why it is not followed.
        reason: &'static str,
    },
    /// No connection.
    #[error("no connection to `{host}`: {reason}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why.
        reason: String,
    },
    /// A connection, but nobody there who can be trusted.
    #[error(
        "no trusted connection to `{host}`: {reason}; name the CA file for this host, or say that it has plain HTTP"
    )]
    Tls {
        /// Host and port.
        host: String,
        /// Why.
        reason: String,
    },
    /// The connection broke off, again and again.
    #[error("the connection broke off: {reason}")]
    Broken {
        /// How.
        reason: String,
    },
    /// It was not done when it should have been.
    #[error("{TIME_IS_OVER}")]
    TimeIsOver,
    /// A file of certificates that cannot be used.
    #[error("read certificates from `{}`: {reason}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A setting that cannot be used.
    #[error("{0}")]
    Options(String),
    /// What was to be sent could not be read, or has another length than was said.
    #[error("read what is to be sent: {0}")]
    Input(io::Error),
}

fn try_again(wait: Option<Duration>) -> String {
    wait.map_or(String::new(), |wait| format!("; try again in {} s", wait.as_secs()))
}

fn unauthorized(registry: &str, with_credentials: bool, reason: &str) -> String {
    let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    if with_credentials {
        format!(
            "`{registry}` does not allow it with the credentials that it got{reason}; `drydock login {registry}` replaces them"
        )
    } else {
        format!(
            "`{registry}` wants credentials{reason}: `drydock login {registry}`, or the image does not exist"
        )
    }
}

impl ErrorKind {
    /// Whether something came, and is not what was asked for.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::DigestMismatch { .. } | Self::LengthMismatch { .. })
    }

    /// Whether the same may work a moment later.
    pub(crate) fn passes(&self) -> bool {
        matches!(
            self,
            Self::TooManyRequests { .. }
                | Self::Broken { .. }
                | Self::Status { status: 408 | 500 | 502 | 503 | 504, .. }
        )
    }
}
