//! Namespaces of this process's own, entered before it has a second thread.
//!
//! [`enter`] is called twice. The first process makes the namespaces, starts the executable anew in them and passes on signals and
//! exit code. The second one is process 1 of its namespace: when it ends, the kernel ends all others there, and with the
//! last of them the mounts are gone.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail};
use drydock_io::access::User;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Signal, geteuid, getgid, getuid, set_parent_process_death_signal};
use rustix::thread::{
    CapabilitySet, UnshareFlags, capabilities, configure_capability_in_ambient_set, set_capabilities,
};

use crate::ids::{self, Ids, Range};
use crate::signals;
use crate::wait::wait;

/// The variable by which the second process knows that it is in the room: what `/proc/self/ns/mnt` says there.
pub const MARK: &str = "DRYDOCK_ROOM";

/// Where this process is.
#[derive(Debug)]
pub enum Entered {
    /// In the room.
    Inside(Room),
    /// The process in the room has ended, with this exit code.
    Left(u8),
}

/// The room, from within.
#[derive(Debug)]
pub struct Room {
    /// Which users there are.
    pub ids: Ids,
}

/// Whether this process is in the room already. `mark` is the value of [`MARK`].
pub fn is_inside(mark: Option<&OsStr>) -> Result<bool> {
    Ok(mark == Some(namespace()?.as_os_str()))
}

fn namespace() -> Result<PathBuf> {
    fs::read_link("/proc/self/ns/mnt").context("cannot read `/proc/self/ns/mnt`")
}

/// Enters namespaces of our own. In a user namespace, which is made unless this is the superuser, this process's user is `user`.
/// `mark` is the value of [`MARK`]; the process in the room has the variables `handed_on`, too; `warn` is told what will not work as
/// it should.
pub fn enter(
    user: User,
    mark: Option<&OsStr>,
    handed_on: &[(&str, &OsStr)],
    warn: &dyn Fn(&str),
) -> Result<Entered> {
    if is_inside(mark)? {
        return inside().map(Entered::Inside);
    }
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWPID;
    let mapper = if geteuid().is_root() {
        None
    } else {
        flags |= UnshareFlags::NEWUSER;
        Some(Mapper::start(user)?)
    };
    // What it is deprecated for is a flag that is not among these.
    #[expect(deprecated, reason = "its successor is unsafe for the sake of another flag")]
    rustix::thread::unshare(flags).map_err(refused)?;
    if let Some(mapper) = mapper {
        mapper.finish(user, warn)?;
        keep_capabilities().context("cannot keep the rights in the user namespace")?;
    }
    supervise(&namespace()?.into_os_string(), handed_on).map(Entered::Left)
}

fn refused(error: Errno) -> anyhow::Error {
    let help = if geteuid().is_root() {
        "the superuser lacks the capability CAP_SYS_ADMIN: in a container, it has to be given to it"
    } else {
        "ordinary users may make none: see `sysctl user.max_user_namespaces`, and where they exist \
         `kernel.unprivileged_userns_clone` and `kernel.apparmor_restrict_unprivileged_userns`"
    };
    anyhow::Error::new(error).context(format!("cannot make namespaces ({help})"))
}

fn inside() -> Result<Room> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot tie this process to the one outside")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).context("cannot keep mounts to this namespace")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None).context("cannot mount /proc for the new namespace")?;
    Ok(Room { ids: Ids::of_process() })
}

/// Starts this executable anew, and waits for it.
fn supervise(namespace: &OsStr, handed_on: &[(&str, &OsStr)]) -> Result<u8> {
    let this = std::env::current_exe().context("cannot find this executable")?;
    let came = Arc::new(AtomicUsize::new(0));
    for signal in signals::that_end() {
        let number = usize::try_from(signal).context("a signal's number is positive")?;
        signal_hook::flag::register_usize(signal, Arc::clone(&came), number)
            .context("cannot watch for signals")?;
    }
    let mut command = Command::new(&this);
    command.args(std::env::args_os().skip(1)).env(MARK, namespace).envs(handed_on.iter().copied());
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", this.display()))?;
    // It may have got the signal already, with the whole group: it counts what comes at once as one.
    let status = wait(&mut child, &mut |pid| signals::pass_on(came.swap(0, Ordering::Relaxed), pid));
    Ok(exit_code(status.context("cannot wait for the process in the room")?))
}

/// As a shell counts: 128 and the signal's number if one ended it.
pub(crate) fn exit_code(status: std::process::ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// What a process may do in its new user namespace, its children may.
fn keep_capabilities() -> rustix::io::Result<()> {
    let mut sets = capabilities(None)?;
    sets.inheritable = sets.permitted;
    set_capabilities(None, sets)?;
    for one in sets.permitted.iter().filter(|one| CapabilitySet::all().contains(*one)) {
        configure_capability_in_ambient_set(one, true)?;
    }
    Ok(())
}

/// A process outside that will write the ids of the namespace: only there are the programs that may.
struct Mapper {
    /// None without subordinate ids; then why there are none.
    helper: Result<Child, String>,
    uid: u32,
    gid: u32,
}

impl Mapper {
    fn start(user: User) -> Result<Self> {
        let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
        Ok(Self { helper: start_helper(user, uid, gid)?, uid, gid })
    }

    fn finish(self, user: User, warn: &dyn Fn(&str)) -> Result<()> {
        let why = match self.helper {
            Ok(mut child) => {
                let told = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(b"go\n"));
                told.context("cannot talk to the program that maps users")?;
                let output = child.wait_with_output().context("cannot wait for newuidmap")?;
                if output.status.success() {
                    return Ok(());
                }
                String::from_utf8_lossy(&output.stderr).trim().to_owned()
            }
            Err(why) => why,
        };
        if !why.is_empty() && fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.is_empty()) {
            bail!("cannot map groups into the user namespace: {why}");
        }
        warn(&format!(
            "only one user id is at hand ({why}): all files of images seem to be that user's, and no other user can be"
        ));
        write_own("setgroups", "deny")?;
        write_own("uid_map", &format!("{} {} 1\n", user.uid, self.uid))?;
        write_own("gid_map", &format!("{} {} 1\n", user.gid, self.gid))
    }
}

fn write_own(file: &str, text: &str) -> Result<()> {
    let path = Path::new("/proc/self").join(file);
    fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

/// The helper, or why there is none.
fn start_helper(user: User, uid: u32, gid: u32) -> Result<Result<Child, String>> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let passwd = read("/etc/passwd");
    let name = ids::name(&passwd, uid);
    let subordinate = |file: &str| ids::subordinate(&read(file), name, uid);
    let (Some(uids), Some(gids)) = (subordinate("/etc/subuid"), subordinate("/etc/subgid")) else {
        let name = name.map_or_else(|| uid.to_string(), str::to_owned);
        return Ok(Err(format!(
            "/etc/subuid and /etc/subgid have none for `{name}`: usermod --add-subuids 100000-165535 \
             --add-subgids 100000-165535 {name}"
        )));
    };
    let words = |ranges: &[Range]| -> Vec<String> {
        let words = ranges.iter().flat_map(|range| [range.inside, range.outside, range.count]);
        words.map(|number| number.to_string()).collect()
    };
    let pid = std::process::id();
    let script = format!(
        "read -r word && [ \"$word\" = go ] || exit 0\nnewuidmap {pid} {} && newgidmap {pid} {}",
        words(&ids::map(user.uid, uid, uids)).join(" "),
        words(&ids::map(user.gid, gid, gids)).join(" "),
    );
    if !["/usr/bin/newuidmap", "/usr/local/bin/newuidmap", "/bin/newuidmap"]
        .iter()
        .any(|path| Path::new(path).exists())
    {
        return Ok(Err("newuidmap is missing: apt-get install uidmap".to_owned()));
    }
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script]).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    Ok(Ok(command.spawn().context("cannot start /bin/sh to map users")?))
}

impl Room {
    /// Makes a command run as the superuser of the room, where there is one.
    pub fn as_superuser(&self, command: &mut Command) {
        if self.ids == Ids::Several && !geteuid().is_root() {
            command.uid(0).gid(0);
        }
    }

    /// Those of a user's groups that there are in the room.
    pub fn groups(&self, groups: &[u32]) -> io::Result<Vec<u32>> {
        match self.ids {
            Ids::All => Ok(groups.to_owned()),
            // The kernel lets nobody have others there.
            Ids::One => Ok(Vec::new()),
            Ids::Several => {
                let map = fs::read_to_string("/proc/self/gid_map")?;
                Ok(groups.iter().copied().filter(|gid| ids::is_mapped(&map, *gid)).collect())
            }
        }
    }

    /// What tells this room's users from another's: who unpacks files keeps those of one room from another's.
    pub fn users(&self) -> io::Result<String> {
        let squeeze = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        let read = |path| fs::read_to_string(path).map(squeeze);
        Ok(format!("{}/{}", read("/proc/self/uid_map")?, read("/proc/self/gid_map")?))
    }
}
