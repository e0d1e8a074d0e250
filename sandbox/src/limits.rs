//! What a sandbox may use, and how much of that can be asked of this machine.

use std::path::Path;

use rustix::fs::{Access, access};
use rustix::process::geteuid;

/// The most that all processes in a sandbox may use together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Thousandths of a core.
    pub cpus: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Limits {
    /// Whether there is any.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// Whether runtimes can set limits here: whether control groups can be written.
pub fn are_delegated() -> bool {
    // The second is that of the older hierarchy.
    let groups = ["/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/pids/cgroup.procs"];
    geteuid().is_root() && groups.iter().any(|path| access(Path::new(path), Access::WRITE_OK).is_ok())
}
