//! Signals to a process that builds. They concern the whole process, so these tests have one of their own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use drydock_phases::build::{Inputs, build};
use drydock_phases::buildpacks::Store;
use drydock_phases::create::Step;
use drydock_phases::process::Signals;
use drydock_phases::{Error, Kind, Level, Log, Output};
use drydock_spec::api::PlatformApi;
use rustix::process::{Signal, getpid, kill_process};

/// Sends this process a signal as soon as a buildpack prints `ready`.
struct SendWhenReady {
    signal: Signal,
    printed: Mutex<Vec<u8>>,
}

impl Log for SendWhenReady {
    fn log(&self, _: Level, _: &str) {}

    fn phase(&self, _: Step) {}

    fn output(&self, _: &str) -> Box<dyn Output + '_> {
        Box::new(self)
    }

    fn error_output(&self, _: &str) -> Box<dyn Write + Send + '_> {
        Box::new(io::sink())
    }
}

impl Output for &SendWhenReady {
    fn offer(&mut self, bytes: &[u8]) -> usize {
        let mut printed = self.printed.lock().unwrap();
        let was_ready = printed.starts_with(b"ready\n");
        printed.extend_from_slice(bytes);
        if !was_ready && printed.starts_with(b"ready\n") {
            kill_process(getpid(), self.signal).unwrap();
        }
        bytes.len()
    }
}

/// Builds with a buildpack of this script, and sends the signal. Returns what it printed, too.
fn interrupt(signal: Signal, script: &str) -> (Error, String) {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    for dir in ["app", "layers", "tmp", "buildpacks/a/1/bin"] {
        fs::create_dir_all(path(dir)).unwrap();
    }
    let element = "id='a'\nversion='1'\n";
    fs::write(path("layers/group.toml"), format!("[[group]]\n{element}api='0.10'\n")).unwrap();
    fs::write(path("layers/plan.toml"), "").unwrap();
    fs::write(path("buildpacks/a/1/buildpack.toml"), format!("api='0.10'\n[buildpack]\n{element}")).unwrap();
    fs::write(path("buildpacks/a/1/bin/build"), format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path("buildpacks/a/1/bin/build"), Permissions::from_mode(0o755)).unwrap();
    let inputs = Inputs {
        platform_api: PlatformApi::NEWEST,
        app_dir: path("app"),
        store: Store { buildpacks_dir: path("buildpacks"), extensions_dir: path("extensions") },
        layers_dir: path("layers"),
        platform_dir: path("platform"),
        build_config_dir: path("build-config"),
        temp_dir: path("tmp"),
        os_release_path: path("os-release"),
        analyzed_path: path("layers/analyzed.toml"),
        group_path: path("layers/group.toml"),
        plan_path: path("layers/plan.toml"),
        exec_env: String::new(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
    };
    // Once they are no longer handled, nothing more comes of a signal.
    let signals = Signals::handle().unwrap();
    let log = SendWhenReady { signal, printed: Mutex::default() };
    let error = build(&inputs, &signals, &log).unwrap_err();
    let printed = String::from_utf8(log.printed.into_inner().unwrap()).unwrap();
    assert_eq!(fs::read_dir(path("tmp")).unwrap().count(), 0, "the plan's folder is gone");
    (error, printed)
}

#[test]
fn signals_reach_the_buildpack_and_all_that_it_started() {
    let waiting = "while :; do sleep 0.05; done";
    let child = format!("(trap 'echo ending; exit' TERM; echo ready; {waiting})");
    for (signal, script) in [
        // Whoever ends well upon a signal still ends the build.
        (Signal::INT, format!("trap 'echo ending; exit 0' INT; echo ready; {waiting}")),
        (Signal::TERM, format!("trap : TERM; {child} & wait; wait; exit 3")),
        (Signal::QUIT, format!("trap 'echo ending; exit 3' QUIT; echo ready; {waiting}")),
        // A shell has its background ignore SIGINT.
        (Signal::INT, format!("{child} & wait")),
        // Whoever ignores it is killed in the end.
        (Signal::HUP, format!("trap 'echo ending' HUP; echo ready; {waiting}")),
    ] {
        let (error, printed) = interrupt(signal, &script);
        assert_eq!(error.kind, Kind::Interrupted(signal), "{error}");
        assert!(error.to_string().contains("/bin/build of buildpack a@1: interrupted by SIG"), "{error}");
        assert!(printed.starts_with("ready\n") && printed.ends_with("ending\n"), "{script}: {printed}");
    }
}

/// The test runs itself once more, as a process that may die.
#[test]
fn signals_that_nobody_holds_do_what_they_always_do() {
    // The names of no tests: arguments that mean something here only.
    const AGAIN: &str = "in-a-process-that-may-die";
    const LATE: &str = "by-a-signal-that-was-held";
    if std::env::args().any(|argument| argument == AGAIN) {
        let signals = Signals::handle().unwrap();
        let held = signals.hold();
        kill_process(getpid(), Signal::TERM).unwrap();
        // The kernel may give the signal to another thread, which handles it when it gets to run.
        let taken = std::iter::repeat_with(|| held.take()).find_map(|taken| taken);
        assert_eq!((taken, held.take()), (Some(Signal::TERM), None));
        if std::env::args().any(|argument| argument == LATE) {
            // Nobody takes it while it is held.
            kill_process(getpid(), Signal::TERM).unwrap();
            drop(held);
        } else {
            drop(held);
            kill_process(getpid(), Signal::TERM).unwrap();
        }
        std::thread::sleep(Duration::from_mins(1));
        unreachable!("the signal ends the process");
    }
    let name = "signals_that_nobody_holds_do_what_they_always_do";
    for arguments in [&[AGAIN][..], &[AGAIN, LATE]] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let status = command.args(["--exact", name]).args(arguments).output().unwrap().status;
        assert_eq!(status.signal(), Some(Signal::TERM.as_raw()), "{arguments:?}: {status}");
    }
}
