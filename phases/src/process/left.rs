//! What programs have left running when they have ended: in whatever group or session it is, it has become a child of this process.

use std::fs;
use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, waitid};

/// How long the kernel may take to end what is killed.
const BURIAL: Duration = Duration::from_secs(5);

/// So long it is waited before it is looked again.
const PAUSE: Duration = Duration::from_millis(5);

/// Kills all children of this process, and what becomes its child by that, until there is none. To be called where no program runs.
pub(crate) fn end_children() -> anyhow::Result<()> {
    let since = Instant::now();
    loop {
        match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Err(Errno::CHILD) => return Ok(()),
            Ok(Some(_)) | Err(Errno::INTR) => continue,
            Ok(None) if since.elapsed() > BURIAL => {
                bail!("what a program left running was killed, and does not end")
            }
            Ok(None) => {}
            Err(error) => return Err(error).context("failed to wait for what a program left running"),
        }
        for child in children().context("failed to see what a program left running")? {
            // It cannot have been another one's number: it is waited for only here.
            let _ = kill_process(child, Signal::KILL);
        }
        thread::sleep(PAUSE);
    }
}

fn children() -> anyhow::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("failed to list `/proc`")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        match fs::read_to_string(entry.path().join("stat")) {
            Ok(stat) if parent(&stat) == Some(getpid().as_raw_nonzero().get()) => found.push(pid),
            Ok(_) => {}
            // It has ended meanwhile.
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    || error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
            Err(error) => return Err(error).with_context(|| format!("failed to read of process {pid:?}")),
        }
    }
    Ok(found)
}

/// The parent in a line of `/proc/<pid>/stat`, in which the name may hold anything.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_processes_may_hold_anything() {
        for (stat, want) in [
            ("12 (sleep) S 7 12 12 0", Some(7)),
            ("12 (a) S 9 (b) c) R 7 1", Some(7)),
            ("12 (a", None),
            ("", None),
        ] {
            assert_eq!(parent(stat), want, "{stat}");
        }
    }
}
