//! How a sandbox ends that was asked to.
//!
//! A signal that a process does nothing about ends it, but the kernel keeps such signals from the first process of a namespace. So
//! that process is looked at from outside: if it neither handles nor ignores the signal, it is killed in the signal's name.

use std::fs;
use std::time::{Duration, Instant};

use crate::signals::mask;

/// A process that is asked to end, by a signal or because its time is over, has so long for it.
const GRACE: Duration = Duration::from_secs(10);

/// So long it has if it handled the signal once, and would be ended by the next one: some programs (Node.js) clean up a little then, and
/// send themselves the signal again, which the kernel keeps from them.
const GIVEN_UP: Duration = Duration::from_secs(2);

const SIGKILL: usize = 9;

/// A sandbox that was asked to end.
#[derive(Debug)]
pub(crate) struct Ending {
    signal: usize,
    asked: Instant,
    /// Its first process.
    init: Option<u64>,
    /// Whether that has been seen to handle or to ignore the signal.
    has_listened: bool,
    /// Since when it does not.
    deaf: Option<Instant>,
}

impl Ending {
    /// It is about to get a signal; `init` finds its first process, if that is there.
    pub(crate) fn begin(signal: usize, init: &dyn Fn() -> Option<u64>) -> Self {
        let mut ending = Self { signal, asked: Instant::now(), init: None, has_listened: false, deaf: None };
        ending.look(init);
        ending
    }

    fn look(&mut self, init: &dyn Fn() -> Option<u64>) {
        self.init = self.init.or_else(init);
        let status = self.init.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
        match status.and_then(|status| listens(&status, self.signal)) {
            Some(true) => (self.has_listened, self.deaf) = (true, None),
            Some(false) => self.deaf = self.deaf.or_else(|| Some(Instant::now())),
            None => {}
        }
    }

    /// The signal in whose name it is to be killed now; none as long as it may end by itself.
    pub(crate) fn verdict(&mut self, init: &dyn Fn() -> Option<u64>) -> Option<usize> {
        self.look(init);
        let patience = if self.has_listened { GIVEN_UP } else { Duration::ZERO };
        if self.deaf.is_some_and(|since| since.elapsed() >= patience) {
            return Some(self.signal);
        }
        (self.asked.elapsed() >= GRACE).then_some(SIGKILL)
    }
}

/// Whether a process handles or ignores a signal, by the text of `/proc/<pid>/status`.
pub(crate) fn listens(status: &str, signal: usize) -> Option<bool> {
    let signals = mask(status, "SigCgt:")? | mask(status, "SigIgn:")?;
    Some(signals >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_that_a_process_handles_or_ignores_are_known() {
        let status =
            "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000002\nSigCgt:\t0000000000004000\n";
        for (signal, want) in [(2, true), (15, true), (1, false), (3, false)] {
            assert_eq!(listens(status, signal), Some(want), "{signal}");
        }
        assert_eq!(listens("Name:\tx\n", 15), None);
    }

    #[test]
    fn who_listens_has_time_and_who_does_not_has_none() {
        let own = u64::from(std::process::id());
        // Tests handle no SIGUSR2, and Rust ignores SIGPIPE.
        for (signal, init, want) in [(12, Some(own), Some(12)), (13, Some(own), None), (12, None, None)] {
            let init = || init;
            assert_eq!(Ending::begin(signal, &init).verdict(&init), want, "{signal}");
        }
    }
}
