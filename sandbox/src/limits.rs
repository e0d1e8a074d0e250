//! What a sandbox may use, and how much of that can be asked of this machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

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

/// Where control groups are; of the older hierarchies, each is in a folder there.
const GROUPS: &str = "/sys/fs/cgroup";

/// Ours in a hierarchy.
const OWN: &str = "drydock";

/// A runtime puts a process into a group as soon as it has made it: one that is so old and empty is of no use to anybody.
const FORGOTTEN: Duration = Duration::from_mins(10);

/// Whether runtimes can set limits here: whether control groups can be written.
pub fn are_delegated() -> bool {
    let files = ["cgroup.procs", "pids/cgroup.procs"];
    let is_writable = |file| access(Path::new(GROUPS).join(file), Access::WRITE_OK).is_ok();
    geteuid().is_root() && files.into_iter().any(is_writable)
}

/// The control group of a sandbox, as runtimes are told.
pub(crate) fn group(id: &str) -> String {
    format!("/{OWN}/{id}")
}

/// Our control groups in all hierarchies.
fn own_groups(groups: &Path) -> impl Iterator<Item = PathBuf> {
    let list = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let hierarchies = list(groups.to_owned()).chain([groups.to_owned()]);
    hierarchies.flat_map(move |hierarchy| list(hierarchy.join(OWN)))
}

/// Removes control groups of killed commands of which nobody knows, as their cache has gone.
pub(crate) fn remove_forgotten_groups() {
    remove_forgotten_in(Path::new(GROUPS));
}

fn remove_forgotten_in(groups: &Path) {
    for group in own_groups(groups) {
        // The kernel may say less than its age, but never more.
        let age = group.metadata().and_then(|facts| facts.modified()).map(|made| made.elapsed());
        if matches!(age, Ok(Ok(age)) if age > FORGOTTEN) {
            // The kernel refuses it while there is a process in the group.
            let _ = fs::remove_dir(group);
        }
    }
}

/// Removes the control groups of a killed command, which go by the name of its session.
pub(crate) fn remove_groups(session: &str) {
    remove_groups_in(Path::new(GROUPS), session);
}

fn remove_groups_in(groups: &Path, session: &str) {
    let is_left = |group: &PathBuf| {
        let name = group.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix(session).is_some_and(|rest| rest.starts_with('-'))
    };
    for group in own_groups(groups).filter(is_left) {
        // The kernel may be about to end the last process there. What cannot be removed is empty, and in nobody's way.
        let tries = (0..50).map(|_| fs::remove_dir(&group));
        let is_busy = |done: &io::Result<()>| {
            done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
        };
        for _ in tries.take_while(is_busy) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn groups_are_removed_of_one_session() {
        let groups = tempfile::tempdir().unwrap();
        let make = |path: &str| fs::create_dir_all(groups.path().join(path)).unwrap();
        let left = ["drydock/drydock-sA-run-1", "pids/drydock/drydock-sA-build"];
        let others = ["drydock/drydock-sAB-run-1", "pids/drydock/other", "pids/other/drydock-sA-build"];
        left.iter().chain(&others).for_each(|path| make(path));
        remove_groups_in(groups.path(), "drydock-sA");
        assert!(left.iter().all(|path| !groups.path().join(path).exists()));
        assert!(others.iter().all(|path| groups.path().join(path).exists()));
    }

    #[test]
    fn groups_that_nobody_knows_are_removed_when_they_are_old_and_empty() {
        let groups = tempfile::tempdir().unwrap();
        let make = |path: &str, minutes| {
            let path = groups.path().join(path);
            fs::create_dir_all(&path).unwrap();
            let made = SystemTime::now() - Duration::from_mins(minutes);
            fs::File::open(&path).unwrap().set_modified(made).unwrap();
            path
        };
        // A folder in it stands for a process.
        make("pids/drydock/drydock-sB-run-1/process", 60);
        let busy = make("pids/drydock/drydock-sB-run-1", 60);
        let [left, young, other] =
            [("drydock/drydock-sA-run-1", 60), ("drydock/drydock-sA-run-2", 0), ("other/drydock-sA", 60)]
                .map(|(path, minutes)| make(path, minutes));
        remove_forgotten_in(groups.path());
        assert!(!left.exists() && young.exists() && busy.exists() && other.exists());
    }
}
