//! What the tests of resolution share.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;

use drydock_io::access::User;
use drydock_phases::create::Step;
use drydock_phases::{Level, Log, Output};

use super::command_line::{CommandLine, command};
use super::{Options, offers};
use crate::phase::Phase;

/// Who runs the tests' phases.
pub(super) const ME: User = User { uid: 501, gid: 502 };

/// What a phase of Platform API `api` is told. Its working directory is `/work dir`.
pub(super) fn options(phase: Phase, api: &str, env: &[(&str, &str)], arguments: &[&str]) -> Options {
    let platform_api = api.parse().unwrap();
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    Options {
        phase,
        platform_api,
        env: env.iter().copied().collect(),
        command_line: CommandLine::parse(&command(phase, platform_api, offers(phase)), &arguments).unwrap(),
        working_dir: PathBuf::from("/work dir"),
        current_user: ME,
    }
}

/// Remembers what it is told.
#[derive(Default)]
pub(super) struct Remembered(Mutex<Vec<String>>);

impl Remembered {
    /// What was said at the level of warnings and errors.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Log for Remembered {
    fn log(&self, level: Level, message: &str) {
        if level >= Level::Warn {
            self.0.lock().unwrap().push(format!("{level:?} {message}"));
        }
    }

    fn phase(&self, step: Step) {
        panic!("no phase begins here, but {step:?} did");
    }

    fn output(&self, _: &str) -> Box<dyn Output + '_> {
        panic!("nothing here has output");
    }

    fn error_output(&self, _: &str) -> Box<dyn Write + Send + '_> {
        panic!("nothing here has output");
    }
}
