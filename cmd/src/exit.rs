//! Exit codes. Specification: `platform.md` § Outputs of each phase; the reference for those below 20.

use std::fmt;

use drydock_phases::{Error, Kind};
use drydock_spec::api::PlatformApi;
use rustix::process::Signal;

use crate::env;
use crate::phase::Phase;

/// A flag that does not exist, or lacks its value.
const USAGE: u8 = 2;
/// The arguments, or what they name, do not make a task.
const ARGUMENTS: u8 = 3;
/// The Platform API is missing, unreadable or not supported.
const PLATFORM_API: u8 = 11;
/// Added to the number of a signal that ended the phase.
const SIGNAL: u8 = 128;

/// Why a phase did not finish, as the user gets to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What failed and why, outermost first.
    pub message: String,
    /// What the user can do.
    pub help: Option<String>,
}

impl Failure {
    /// What a phase reports, with the code and the words that belong to it.
    pub fn new(phase: Phase, error: &Error) -> Self {
        let message = match action(phase, error.kind) {
            Some(action) => format!("failed to {action}: {error}"),
            None => error.to_string(),
        };
        Self { code: code(phase, error.kind), message, help: error.help.clone() }
    }

    /// The platform speaks a contract that is not understood.
    pub(crate) fn platform_api(message: impl fmt::Display) -> Self {
        let (oldest, newest) = (PlatformApi::OLDEST, PlatformApi::NEWEST);
        let help = format!(
            "this lifecycle supports Platform API {oldest} to {newest}: set {} to one of them",
            env::PLATFORM_API
        );
        Self { code: PLATFORM_API, message: message.to_string(), help: Some(help) }
    }

    /// The signal that ended the phase, if it was one.
    pub(crate) fn signal(&self) -> Option<Signal> {
        Signal::from_named_raw(self.code.checked_sub(SIGNAL)?.into())
    }

    /// The arguments make no task, for a reason that no single phase knows.
    pub(crate) fn arguments(message: impl fmt::Display) -> Self {
        Self { code: ARGUMENTS, message: message.to_string(), help: None }
    }

    /// The command line is not written as it should be.
    pub(crate) fn usage(message: impl fmt::Display, help: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.to_string(), help: Some(help.into()) }
    }
}

/// The exit code of a kind of failure in a phase.
fn code(phase: Phase, kind: Kind) -> u8 {
    match (kind, phase) {
        // What fails inside the creator belongs to the phase that fails there.
        (Kind::General, _) | (Kind::Phase, Phase::Create) => 1,
        (Kind::Arguments, _) => ARGUMENTS,
        (Kind::BuildpackApi, _) => 12,
        (Kind::NoGroup, _) => 20,
        (Kind::NoGroupAfterError, _) => 21,
        (Kind::BuildpackFailed, _) => 51,
        (Kind::ExtensionFailed, _) => 91,
        (Kind::Generate, _) => 92,
        // As a shell reports a process that a signal ended.
        (Kind::Interrupted(signal), _) => SIGNAL + u8::try_from(signal.as_raw()).unwrap_or(0),
        (Kind::Phase, Phase::Detect) => 22,
        (Kind::Phase, Phase::Analyze) => 32,
        (Kind::Phase, Phase::Restore) => 42,
        (Kind::Phase, Phase::Build) => 52,
        (Kind::Phase, Phase::Export) => 62,
        (Kind::Phase, Phase::Rebase) => 72,
        (Kind::Phase, Phase::Extend) => 102,
    }
}

/// What is said to have failed, where the error itself does not begin with it.
fn action(phase: Phase, kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::General | Kind::Arguments | Kind::BuildpackApi => None,
        Kind::BuildpackFailed | Kind::ExtensionFailed | Kind::Generate => Some("build"),
        Kind::NoGroup | Kind::NoGroupAfterError | Kind::Phase | Kind::Interrupted(_) => Some(phase.verb()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_code_and_words() {
        use Kind::{
            Arguments, BuildpackApi, BuildpackFailed, ExtensionFailed, General, Generate, NoGroup,
            NoGroupAfterError,
        };
        for (phase, kind, code, message) in [
            (Phase::Analyze, General, 1, "why"),
            (Phase::Export, Arguments, 3, "why"),
            (Phase::Build, BuildpackApi, 12, "why"),
            (Phase::Detect, NoGroup, 20, "failed to detect: why"),
            (Phase::Detect, NoGroupAfterError, 21, "failed to detect: why"),
            (Phase::Detect, Kind::Phase, 22, "failed to detect: why"),
            (Phase::Analyze, Kind::Phase, 32, "failed to analyze: why"),
            (Phase::Restore, Kind::Phase, 42, "failed to restore: why"),
            (Phase::Build, BuildpackFailed, 51, "failed to build: why"),
            (Phase::Build, Kind::Phase, 52, "failed to build: why"),
            (Phase::Export, Kind::Phase, 62, "failed to export: why"),
            (Phase::Rebase, Kind::Phase, 72, "failed to rebase: why"),
            (Phase::Detect, ExtensionFailed, 91, "failed to build: why"),
            (Phase::Detect, Generate, 92, "failed to build: why"),
            (Phase::Extend, Kind::Phase, 102, "failed to extend: why"),
            (Phase::Build, Kind::Interrupted(Signal::TERM), 143, "failed to build: why"),
        ] {
            let error = Error::new(kind, anyhow::anyhow!("why"));
            let want = Failure { code, message: message.into(), help: None };
            assert_eq!(Failure::new(phase, &error), want, "{phase} {kind:?}");
            let signal = if code == 143 { Some(Signal::TERM) } else { None };
            assert_eq!(want.signal(), signal, "{phase} {kind:?}");
        }
    }

    #[test]
    fn causes_are_told_once_and_help_is_kept() {
        let error = Error::new(Kind::Phase, std::io::Error::other("disk full"))
            .context("writing `/x`")
            .with_help("make room");
        let got = Failure::new(Phase::Export, &error);
        assert_eq!(got.message, "failed to export: writing `/x`: disk full");
        assert_eq!(got.help.as_deref(), Some("make room"));
    }
}
