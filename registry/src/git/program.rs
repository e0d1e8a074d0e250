//! The program `git`, as it is started here: it asks nobody, runs nothing of a repository, and is ended when its time is over.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use super::{GitError, SIZE_LIMIT, TIME_LIMIT};
use crate::options::{Options, Retry};
use crate::text::printable;

/// How much of what git says is kept: its end.
const SAID_LIMIT: usize = 16 << 10;

/// Between two looks at what is not told by a pipe.
const EVERY: Duration = Duration::from_millis(100);

/// Between two looks at how much is on the disk.
const EVERY_SIZE: Duration = Duration::from_millis(500);

/// The user's variables that git, SSH and credential helpers need. All others are kept from them.
const HANDED_ON: [&str; 23] = [
    "ALL_PROXY",
    "all_proxy",
    "DBUS_SESSION_BUS_ADDRESS",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "GNUPGHOME",
    "HOME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "http_proxy",
    "https_proxy",
    "LOGNAME",
    "NO_PROXY",
    "no_proxy",
    "PATH",
    "SSH_AUTH_SOCK",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "USER",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
];

/// Nobody is asked for anything, and nothing but what was asked for is looked at.
const VARIABLES: [(&str, &str); 9] = [
    ("GIT_TERMINAL_PROMPT", "0"),
    // Set and empty: no program asks in a window either.
    ("GIT_ASKPASS", ""),
    ("GIT_SSH_VARIANT", "ssh"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_PROTOCOL_FROM_USER", "0"),
    ("GIT_LFS_SKIP_SMUDGE", "1"),
    // A path is a path, whatever it begins with.
    ("GIT_LITERAL_PATHSPECS", "1"),
    ("LC_ALL", "C"),
];

/// Settings that are stronger than all files.
const SETTINGS: [(&str, &str); 15] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.autocrlf", "false"),
    ("core.askPass", ""),
    ("fetch.recurseSubmodules", "no"),
    ("submodule.recurse", "false"),
    // All that is fetched is in a few files, whose size shows how much it is.
    ("fetch.unpackLimit", "1"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "60"),
    ("protocol.version", "2"),
    ("tar.umask", "0022"),
    ("transfer.credentialsInUrl", "die"),
];

/// Git, for one repository.
pub(super) struct Program<'a> {
    /// A folder for what it writes.
    dir: &'a Path,
    /// What errors name.
    url: String,
    variables: Vec<(OsString, OsString)>,
    settings: Vec<(String, String)>,
    /// What is shown to nobody.
    secret: Option<String>,
    until: Instant,
    retry: &'a Retry,
    stopped: &'a dyn Fn() -> bool,
}

impl<'a> Program<'a> {
    /// `scheme` is the only one that git uses.
    pub(super) fn new(
        dir: &'a Path,
        (url, scheme): (String, &str),
        options: &'a Options,
        stopped: &'a dyn Fn() -> bool,
    ) -> Self {
        let handed_on =
            HANDED_ON.iter().filter_map(|name| Some((name, options.environment.get(name)?.to_owned())));
        let mut program = Self {
            dir,
            url,
            variables: handed_on.map(|(name, value)| (OsString::from(name), value)).collect(),
            settings: SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            secret: None,
            until: Instant::now() + TIME_LIMIT,
            retry: &options.retry,
            stopped,
        };
        for (name, value) in VARIABLES {
            program.set(name, value);
        }
        program.set("GIT_ALLOW_PROTOCOL", scheme);
        program
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.into(), value.into()));
    }

    pub(super) fn configure(&mut self, name: String, value: &str) {
        self.settings.push((name, value.to_owned()));
    }

    /// For whoever asks for the credentials of `scope`: these, and no others.
    pub(super) fn show(&mut self, scope: &str, user: &str, password: &str) {
        // A shell's own `printf`: nobody sees them in a list of processes.
        const HELPER: &str = "!f() { test \"$1\" = get && printf 'username=%s\\npassword=%s\\n' \
                              \"$DRYDOCK_GIT_USER\" \"$DRYDOCK_GIT_PASSWORD\"; }; f";
        let name = format!("credential.{scope}.helper");
        // Nor are they given to other helpers, which might keep them.
        self.configure(name.clone(), "");
        self.configure(name, HELPER);
        self.set("DRYDOCK_GIT_USER", user);
        self.set("DRYDOCK_GIT_PASSWORD", password);
        self.secret = Some(password.to_owned()).filter(|secret| !secret.is_empty());
    }

    /// Runs it to its end. What it prints goes to `output`.
    pub(super) fn run<S: AsRef<OsStr>>(
        &self,
        arguments: &[S],
        output: &mut dyn Write,
    ) -> Result<(), GitError> {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(self.dir).process_group(0);
        command.env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.env("GIT_CONFIG_COUNT", self.settings.len().to_string());
        for (number, (name, value)) in self.settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), name);
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => GitError::Missing { program: "git", package: "git" },
            _ => GitError::Io { action: "start git", source: error },
        })?;
        let ended = self.follow(&mut child, output);
        if ended.is_err() {
            // With whatever it has started. What has ended meanwhile needs no signal.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
        }
        let (status, said) = ended?;
        if status.success() { Ok(()) } else { Err(self.failure(&said)) }
    }

    /// What it prints, in memory.
    pub(super) fn answer<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String, GitError> {
        let mut output = Limited { bytes: Vec::new(), left: super::ANSWER_LIMIT };
        self.run(arguments, &mut output)?;
        Ok(String::from_utf8_lossy(&output.bytes).into_owned())
    }

    /// Reads what it prints and says until it has ended.
    fn follow(&self, child: &mut Child, output: &mut dyn Write) -> Result<(ExitStatus, Vec<u8>), GitError> {
        let failed = |action| move |source: io::Error| GitError::Io { action, source };
        let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
        let (mut said, mut buffer, mut printed) = (Vec::new(), vec![0; 64 << 10], 0);
        let mut ended = None;
        let mut looked = Instant::now();
        loop {
            if (self.stopped)() {
                return Err(GitError::Stopped);
            }
            if self.retry.left().is_err() {
                return Err(GitError::TimeIsOver { url: self.url.clone() });
            }
            if Instant::now() >= self.until {
                return Err(GitError::TooLong { url: self.url.clone() });
            }
            if looked.elapsed() >= EVERY_SIZE {
                looked = Instant::now();
                if printed + on_disk(self.dir) > SIZE_LIMIT {
                    return Err(GitError::TooLarge { url: self.url.clone() });
                }
            }
            // A program that git left running may have its end of a pipe for long.
            let timeout = match (&ended, &stdout, &stderr) {
                (Some(_), ..) => Duration::ZERO,
                (None, None, None) => Duration::from_millis(5),
                _ => EVERY,
            };
            let ready = ready(stdout.as_ref(), stderr.as_ref(), timeout).map_err(failed("wait for git"))?;
            if ready == [false; 2] {
                match ended {
                    Some(status) => return Ok((status, said)),
                    None => ended = child.try_wait().map_err(failed("wait for git"))?,
                }
                continue;
            }
            if ready[0] {
                let n = read(&mut stdout, &mut buffer).map_err(failed("read what git prints"))?;
                printed += n as u64;
                if printed > SIZE_LIMIT {
                    return Err(GitError::TooLarge { url: self.url.clone() });
                }
                output.write_all(&buffer[..n]).map_err(failed("write what git prints"))?;
            }
            if ready[1] {
                let n = read(&mut stderr, &mut buffer).map_err(failed("read what git says"))?;
                said.extend_from_slice(&buffer[..n]);
                said.drain(..said.len().saturating_sub(SAID_LIMIT));
            }
        }
    }

    /// What its words mean.
    fn failure(&self, said: &[u8]) -> GitError {
        let mut text = String::from_utf8_lossy(said).into_owned();
        if let Some(secret) = &self.secret {
            text = text.replace(secret, "***");
        }
        let has = |words: &str| text.contains(words);
        if has("cannot run ssh") {
            return GitError::Missing { program: "ssh", package: "openssh-client" };
        }
        let help = if has("terminal prompts disabled")
            || has("Authentication failed")
            || has("could not read Username")
        {
            "; credentials come from `auth` in the file of sources, `drydock login`, or a credential helper of git"
        } else if has("Permission denied (") {
            "; name a key with --ssh-key, or add it to the agent (ssh-add)"
        } else if has("Host key verification failed") {
            "; add the host's key to ~/.ssh/known_hosts"
        } else {
            ""
        };
        let is_worth = |line: &&str| {
            !line.trim().is_empty() && !line.starts_with("warning:") && !line.starts_with("hint:")
        };
        // What ended it is said last, behind whatever the server says.
        let (first, rest): (Vec<&str>, Vec<&str>) =
            text.lines().filter(is_worth).partition(|line| line.starts_with("fatal:"));
        let said = printable(&[first, rest].concat().join("; "));
        GitError::Failed { url: self.url.clone(), reason: format!("{said}{help}") }
    }
}

/// Bytes in the files in which git keeps what it fetches.
fn on_disk(dir: &Path) -> u64 {
    let repositories = fs::read_dir(dir).into_iter().flatten().flatten();
    let packs = repositories.map(|entry| entry.path().join("objects/pack"));
    let files = packs.flat_map(|pack| fs::read_dir(pack).into_iter().flatten().flatten());
    files.filter_map(|file| file.metadata().ok()).map(|facts| facts.len()).sum()
}

/// Which of the two have something, or have ended.
fn ready(one: Option<&impl AsFd>, other: Option<&impl AsFd>, timeout: Duration) -> io::Result<[bool; 2]> {
    let fds = [one.map(AsFd::as_fd), other.map(AsFd::as_fd)];
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    match poll(&mut polled, Some(&timeout)) {
        Err(Errno::INTR) => return Ok([false; 2]),
        polled => polled?,
    };
    let mut events = polled.iter().map(|one| !one.revents().is_empty());
    Ok(fds.map(|fd| fd.is_some() && events.next() == Some(true)))
}

/// Reads from what is ready; at its end, it is closed.
fn read(from: &mut Option<impl Read>, buffer: &mut [u8]) -> io::Result<usize> {
    let Some(open) = from else { return Ok(0) };
    let n = open.read(buffer)?;
    if n == 0 {
        *from = None;
    }
    Ok(n)
}

/// Takes so many bytes.
struct Limited {
    bytes: Vec<u8>,
    left: usize,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len()).ok_or_else(|| io::Error::other("it is too long"))?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
