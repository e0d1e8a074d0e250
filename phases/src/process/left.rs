//! What programs have left running when they have ended: in whatever group or session it is, it has become a child of this process.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, waitid};

/// How long the kernel may take to end what is killed.
const BURIAL: Duration = Duration::from_secs(5);

/// So long it is waited before it is looked again.
const PAUSE: Duration = Duration::from_millis(5);

/// Tells what programs leave from the children that this process was started with: a shell that becomes a phase may have some. What
/// these leave cannot be told from that.
#[derive(Debug)]
pub(super) struct Left {
    /// Where they could not be seen, nothing can be ended.
    before: anyhow::Result<BTreeSet<Identity>>,
}

/// A number and the time, in ticks since the machine's start, from which on it is this process's.
type Identity = (i32, u64);

impl Left {
    /// From now on.
    pub(super) fn from_now() -> Self {
        Self { before: children().map(|before| before.into_iter().map(|child| child.identity).collect()) }
    }

    /// Kills all children but the first ones, and what becomes a child by that, until there is none. To be called where no program runs.
    pub(super) fn end(&self) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            const FAILED: &str = "failed to see what a program left running";
            let mut left = children().context(FAILED)?;
            match &self.before {
                Ok(before) => left.retain(|child| !before.contains(&child.identity)),
                Err(error) if !left.is_empty() => return Err(anyhow!("{error:#}").context(FAILED)),
                Err(_) => {}
            }
            let Some(first) = left.first() else { return Ok(()) };
            if since.elapsed() > BURIAL {
                let (number, _) = first.identity;
                bail!("process {number} ({:?}), which a program left running, cannot be ended", first.name);
            }
            for child in &left {
                // Its number is not yet another one's: it is waited for only here.
                let pid = Pid::from_raw(child.identity.0).context("a child has a number")?;
                let _ = kill_process(pid, Signal::KILL);
                let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            }
            thread::sleep(PAUSE);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Process {
    identity: Identity,
    name: String,
}

fn children() -> anyhow::Result<Vec<Process>> {
    let any = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if matches!(waitid(WaitId::All, any), Err(Errno::CHILD)) {
        return Ok(Vec::new());
    }
    let me = getpid().as_raw_nonzero().get();
    let itself = fs::read_link("/proc/self").context("failed to read `/proc/self`")?;
    ensure!(
        itself == Path::new(&me.to_string()),
        "`/proc` is of another PID namespace: mount that of this one"
    );
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("failed to list `/proc`")? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        match fs::read(entry.path().join("stat")) {
            Ok(stat) => found.extend(child_of(me, &String::from_utf8_lossy(&stat))),
            // It has ended meanwhile, or is of no concern to this process's user.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
                    || error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("failed to read `{}/stat`", entry.path().display()));
            }
        }
    }
    Ok(found)
}

/// What a line of `/proc/<pid>/stat` is about if its parent is that; its name may hold anything.
fn child_of(parent: i32, stat: &str) -> Option<Process> {
    let (head, tail) = stat.rsplit_once(')')?;
    let (number, name) = head.split_once(" (")?;
    // The third field comes first here.
    let mut fields = tail.split_ascii_whitespace();
    let (its_parent, began) = (fields.nth(1)?, fields.nth(17)?);
    let identity = (number.parse().ok()?, began.parse().ok()?);
    (its_parent.parse() == Ok(parent)).then(|| Process { identity, name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_processes_may_hold_anything() {
        const REST: &str = "12 12 0 -1 4194560 98 0 0 0 1 2 3 4 20 0 1 0 8877 2 3";
        for (stat, want) in [
            (format!("12 (sleep) S 7 {REST}"), Some("sleep")),
            (format!("12 (a) S 9 (b) c) R 7 {REST}"), Some("a) S 9 (b) c")),
            (format!("12 (sleep) S 8 {REST}"), None),
            ("12 (a) S 7 12".to_owned(), None),
            ("12 (a".to_owned(), None),
            (String::new(), None),
        ] {
            let want = want.map(|name| Process { identity: (12, 8877), name: name.to_owned() });
            assert_eq!(child_of(7, &stat), want, "{stat}");
        }
    }
}
