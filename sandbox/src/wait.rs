//! Waiting for a child.

use std::io;
use std::process::{Child, ExitStatus};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Between two looks, in nanoseconds; a signal ends the wait for the next one.
const EVERY: i64 = 100_000_000;

/// Waits for a child. `look` is called ten times a second and whenever a signal was handled.
pub(crate) fn wait(child: &mut Child, look: &mut dyn FnMut(Pid)) -> io::Result<ExitStatus> {
    let pid = Pid::from_child(child);
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        look(pid);
        let timeout = Timespec { tv_sec: 0, tv_nsec: EVERY };
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return child.wait(),
            Err(error) => return Err(error.into()),
        }
    }
}
