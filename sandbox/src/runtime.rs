//! The OCI runtime that is installed, and how it is asked to run a bundle.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use drydock_io::read::look;
use serde_json::Value as Json;

use crate::bundle::{Sandbox, config};
use crate::ending::Ending;
use crate::keys::Keys;
use crate::limits::are_delegated;
use crate::room::{Room, exit_code};
use crate::session::Session;
use crate::signals::pass_on;
use crate::tree::Tree;
use crate::wait::wait;

/// Those that are known, the quickest first.
const KNOWN: [&str; 3] = ["crun", "runc", "youki"];

/// There where both hierarchies of control groups are in use at once, which crun refuses.
const HYBRID: &str = "/sys/fs/cgroup/unified/cgroup.controllers";

/// Where Debian has them, whatever the user's `PATH` says.
pub(crate) const FOLDERS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const SIGTERM: usize = 15;
/// The exit code of what SIGKILL ended.
const KILLED: u8 = 137;

/// An installed runtime.
#[derive(Debug, Clone)]
pub struct Runtime {
    path: PathBuf,
}

/// There is no runtime.
#[derive(Debug, thiserror::Error)]
pub enum NoRuntime {
    /// None that is known.
    #[error("no OCI runtime is installed: apt-get install crun (or runc)")]
    Any,
    /// Not the one that was asked for.
    #[error("there is no OCI runtime `{0}`: name crun, runc, youki or a path (apt-get install crun)")]
    Named(String),
}

/// What a sandbox has of this process, and when it is stopped.
#[expect(missing_debug_implementations, reason = "it holds a function")]
pub struct Terms<'a> {
    /// Standard input.
    pub stdin: Stdio,
    /// Standard output.
    pub stdout: Stdio,
    /// Standard error.
    pub stderr: Stdio,
    /// The number of the signal that is to be passed on; 0 for none. It is asked for until there is one.
    pub signal: &'a dyn Fn() -> usize,
    /// The sandbox is stopped then.
    pub deadline: Option<Instant>,
}

/// How a sandbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; 128 and the signal's number if one ended it.
    pub code: u8,
    /// Whether it was stopped because its time was over.
    pub timed_out: bool,
}

impl Runtime {
    /// The one that is asked for, by name or path, or else the first that is installed. `path` is the user's `PATH`.
    pub fn find(asked: Option<&str>, path: Option<&OsStr>) -> Result<Self, NoRuntime> {
        let find = |name: &str| find_program(name, path);
        let found = match asked {
            Some(name) if name.contains('/') => std::path::absolute(name).ok().filter(|path| path.is_file()),
            Some(name) => find(name),
            None => {
                let mut known = KNOWN;
                known.sort_by_key(|name| *name == "crun" && Path::new(HYBRID).exists());
                return known.into_iter().find_map(find).map(|path| Self { path }).ok_or(NoRuntime::Any);
            }
        };
        found.map(|path| Self { path }).ok_or_else(|| NoRuntime::Named(asked.unwrap_or_default().to_owned()))
    }

    fn command(&self, room: &Room, state: &Path, limited: bool) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--root").arg(state);
        // Without limits there is nothing to manage; and it could not be managed everywhere.
        if self.path.file_name() == Some(OsStr::new("crun")) && !limited {
            command.arg("--cgroup-manager=disabled");
        }
        command.env_clear().env("PATH", FOLDERS);
        room.as_superuser(&mut command);
        command
    }

    /// Has the runtime say or do something, whatever is sent to this process's group.
    fn ask(&self, room: &Room, state: &Path, limited: bool, args: &[&OsStr]) -> io::Result<Output> {
        self.command(room, state, limited).args(args).process_group(0).output()
    }

    /// Runs a sandbox to its end. Whatever it has started is gone then.
    pub fn run(
        &self,
        sandbox: &Sandbox,
        name: &str,
        session: &Session,
        room: &Room,
        terms: Terms<'_>,
    ) -> Result<Ended> {
        // Its variables may be secret: what is said of it, and what runtimes copy of that, lies on no disk.
        let memory = Tree::in_memory(&session.make(&format!("{name}/memory"))?, None)?;
        let make = |part: &str| -> Result<PathBuf> {
            let dir = memory.path().join(part);
            fs::create_dir(&dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
            Ok(dir)
        };
        let (bundle, state) = (make("bundle")?, make("state")?);
        let id = format!("{}-{name}", session.name());
        let path = bundle.join("config.json");
        let text = serde_json::to_vec(&config(sandbox, &id, room)?)?;
        fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
        let limited = sandbox.limits.any() && are_delegated();
        let mut command = self.command(room, &state, limited);
        let started = bundle.join("pid");
        command.arg("run").arg("--pid-file").arg(&started).arg("--bundle").arg(&bundle).arg(&id);
        command.current_dir(&bundle);
        command.stdin(terms.stdin).stdout(terms.stdout).stderr(terms.stderr);
        let mut keys = None;
        if sandbox.terminal {
            let (begun, stdin) = Keys::begin().context("cannot use the terminal")?;
            keys = Some(begun);
            command.stdin(stdin);
        } else {
            // What is sent to this process's group is passed on, once. But who reads a terminal must be of its foreground group.
            command.process_group(0);
        }
        let mut child = command.spawn().with_context(|| format!("cannot start `{}`", self.path.display()))?;
        let init = || self.init(&id, room, &state);
        let mut ending: Option<Ending> = None;
        let (mut killed, mut timed_out) = (None, false);
        let ended = wait(&mut child, &mut |pid| {
            if let Some(keys) = &mut keys {
                keys.pass_on_size(pid);
            }
            if let Some(ending) = &mut ending {
                if killed.is_none() {
                    killed = ending.verdict(&init);
                    if killed.is_some() {
                        // If it has ended meanwhile, there is nothing to kill.
                        let _ = self.command(room, &state, limited).args(["kill", &id, "KILL"]).output();
                    }
                }
                return;
            }
            let signal = match ((terms.signal)(), &keys) {
                (0, Some(keys)) => keys.lost(&init),
                (signal, _) => signal,
            };
            timed_out = signal == 0 && terms.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let signal = if timed_out { SIGTERM } else { signal };
            if signal > 0 {
                ending = Some(Ending::begin(signal, &init));
                // On a terminal, runc itself would end by Ctrl-C's signal.
                let told =
                    || self.ask(room, &state, limited, &["kill", &id, &signal.to_string()].map(OsStr::new));
                if !(sandbox.terminal && told().is_ok_and(|told| told.status.success())) {
                    pass_on(signal, pid);
                }
            }
        });
        let ended = ended.with_context(|| format!("cannot wait for `{}`", self.path.display()))?;
        // A runtime that was killed leaves what it would have removed.
        self.forget(room, &state, limited);
        let has_started =
            look(&started).with_context(|| format!("cannot look at `{}`", started.display()))?;
        if ending.is_none() && has_started.is_none() {
            bail!(
                "`{}` has started nothing ({ended}): it says itself why, or is no OCI runtime",
                self.path.display()
            );
        }
        let code = match killed.and_then(|signal| u8::try_from(128 + signal).ok()) {
            Some(code) if exit_code(ended) == KILLED => code,
            _ => exit_code(ended),
        };
        Ok(Ended { code, timed_out })
    }

    /// The first process of a sandbox, as soon as it runs what it is to run.
    fn init(&self, id: &str, room: &Room, state: &Path) -> Option<u64> {
        let output = self.ask(room, state, false, &["state", id].map(OsStr::new)).ok()?;
        let said: Json = serde_json::from_slice(&output.stdout).ok()?;
        said["pid"].as_u64().filter(|_| said["status"] == "running")
    }

    /// Removes what is left of sandboxes of which a folder knows: their control groups.
    fn forget(&self, room: &Room, state: &Path, limited: bool) {
        for entry in fs::read_dir(state).into_iter().flatten().flatten() {
            let id = entry.file_name();
            // What cannot be removed is empty, and in nobody's way.
            let _ = self.ask(room, state, limited, &[OsStr::new("delete"), OsStr::new("--force"), &id]);
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// An installed program. `path` is the user's `PATH`.
pub(crate) fn find_program(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    let folders = path.into_iter().chain([OsStr::new(FOLDERS)]).flat_map(std::env::split_paths);
    let paths = folders.filter(|folder| folder.is_absolute()).map(|dir| dir.join(name));
    paths.into_iter().find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_found_or_named_in_the_error() {
        let missing = Runtime::find(Some("no-such-runtime"), None).unwrap_err();
        assert!(missing.to_string().contains("`no-such-runtime`") && missing.to_string().contains("crun"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own");
        fs::write(&path, "").unwrap();
        assert_eq!(Runtime::find(path.to_str(), None).unwrap().path(), path);
        assert_eq!(Runtime::find(Some("own"), Some(dir.path().as_os_str())).unwrap().path(), path);
    }
}
