//! Signals that end what is done.

use std::ffi::c_int;
use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// Those that end a command: Ctrl-C, what `kill` sends, and, unless this process was started to ignore them (as by `nohup`), Ctrl-\
/// and a terminal that is closed.
pub fn that_end() -> Vec<c_int> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = mask(&status, "SigIgn:").unwrap_or_default();
    let further = [SIGHUP, SIGQUIT].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    [SIGINT, SIGTERM].into_iter().chain(further).collect()
}

/// A set of signals, by the text of `/proc/<pid>/status`.
pub(crate) fn mask(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok())
}

/// Hands on a signal, if there is one.
pub(crate) fn pass_on(number: usize, to: Pid) {
    if let Some(signal) = i32::try_from(number).ok().and_then(Signal::from_named_raw) {
        // Who is gone needs no signal.
        let _ = kill_process(to, signal);
    }
}
