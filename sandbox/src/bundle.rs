//! `config.json` of an OCI runtime bundle: what a sandbox is, with Podman's defaults for everything that is not said.
//!
//! Specification: <https://github.com/opencontainers/runtime-spec/blob/main/config.md>.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use drydock_io::access::User;
use oci_spec::runtime::Spec;
use serde_json::{Value as Json, json};

use crate::ids::Ids;
use crate::limits::{Limits, are_delegated, group};
use crate::room::Room;
use crate::seccomp;

/// A process and all that it sees.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// The folder that is its `/`.
    pub root: PathBuf,
    /// Whether anything but mounts can be written.
    pub writable_root: bool,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// The whole environment, `NAME=value`; what has no `=` counts for nothing, and the runtime adds `HOME` where it is missing.
    pub env: Vec<String>,
    /// Where it starts, from `/` on.
    pub working_dir: String,
    /// Who it is.
    pub user: User,
    /// Further groups that it belongs to.
    pub groups: Vec<u32>,
    /// Whether programs with setuid or capabilities give them to whoever starts them.
    pub new_privileges: bool,
    /// What of the machine it sees.
    pub mounts: Vec<Mount>,
    /// Whom it can talk to.
    pub network: Network,
    /// What it may use.
    pub limits: Limits,
    /// Whether it has a terminal: that of this process.
    pub terminal: bool,
}

/// A file or folder of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is, absolute.
    pub from: PathBuf,
    /// Where the sandbox sees it, absolute.
    pub to: String,
    /// Whether it can be written.
    pub writable: bool,
}

/// Whom a sandbox can talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// Whom the machine can talk to, and the machine.
    Host,
    /// Whom the machine can talk to ([`crate::network`]).
    Own {
        /// The file that is the namespace.
        namespace: PathBuf,
        /// Its `/etc/resolv.conf`.
        resolver: PathBuf,
    },
    /// Nobody.
    None,
}

/// What the superuser of a sandbox can do; nobody else there can do anything of it, unless programs may give new privileges, and nobody can
/// get more.
const CAPABILITIES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What tells of the machine, or acts on it.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// How the network's names are found.
const RESOLVER: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// Of a core, in millionths of a second: over this time its use is counted.
const PERIOD: u64 = 100_000;

/// `config.json`, checked against the types of the specification.
pub fn config(sandbox: &Sandbox, id: &str, room: &Room) -> Result<Spec> {
    let config = json!({
        "ociVersion": "1.0.2",
        "root": {"path": text(&sandbox.root)?, "readonly": !sandbox.writable_root},
        "hostname": "drydock",
        "process": process(sandbox, room)?,
        "mounts": mounts(sandbox, room)?,
        "linux": linux(sandbox, id, room),
    });
    serde_json::from_value(config).context("what a sandbox is does not fit the specification")
}

/// Where the runtime mounts something, and whether that is a folder: what is not there, it makes.
pub fn mount_points(sandbox: &Sandbox, room: &Room) -> Result<Vec<(String, bool)>> {
    let point = |mount: &Json| {
        let is_file =
            mount["type"] == "bind" && mount["source"].as_str().is_some_and(|from| Path::new(from).is_file());
        mount["destination"].as_str().map(|to| (to.to_owned(), !is_file))
    };
    Ok(mounts(sandbox, room)?.iter().filter_map(point).collect())
}

/// A path as runtimes are told of it, in JSON.
fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("the path `{}` is not UTF-8: no runtime can be told", path.display()))
}

fn process(sandbox: &Sandbox, room: &Room) -> Result<Json> {
    let none: [&str; 0] = [];
    let own = if sandbox.user.uid == 0 { &CAPABILITIES[..] } else { &none };
    let mut limits = Vec::new();
    if let Some(pids) = sandbox.limits.pids.filter(|_| !are_delegated()) {
        // The kernel counts the processes of one user in one user namespace: two of them are the room's own.
        limits.push(json!({"type": "RLIMIT_NPROC", "soft": pids + 2, "hard": pids + 2}));
    }
    let mut process = json!({
        "terminal": sandbox.terminal,
        "user": {"uid": sandbox.user.uid, "gid": sandbox.user.gid, "umask": 0o022},
        "args": sandbox.args,
        // Images may say more than runtimes take: names without values, and a folder from `/` on.
        "env": sandbox.env.iter().filter(|entry| entry.contains('=')).collect::<Vec<_>>(),
        "cwd": Path::new("/").join(&sandbox.working_dir),
        "capabilities": {"bounding": CAPABILITIES, "effective": own, "permitted": own,
                         "inheritable": none, "ambient": none},
        "rlimits": limits,
        "noNewPrivileges": !sandbox.new_privileges,
    });
    let groups = room.groups(&sandbox.groups).context("cannot read the groups of this namespace")?;
    if !groups.is_empty() {
        process["user"]["additionalGids"] = json!(groups);
    }
    Ok(process)
}

fn mounts(sandbox: &Sandbox, room: &Room) -> Result<Vec<Json>> {
    let mount = |to: &str, kind: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    // Only who owns the network namespace may mount it.
    if sandbox.network != Network::Host || room.ids == Ids::All {
        mounts.push(mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]));
    }
    let bind = |from: &Path, to: &str, writable: bool| -> Result<Json> {
        let access = if writable { "rw" } else { "ro" };
        Ok(json!({"destination": to, "type": "bind", "source": text(from)?,
                  "options": ["rbind", "rprivate", "nosuid", "nodev", access]}))
    };
    let resolver = match &sandbox.network {
        Network::Host => Some(Path::new(RESOLVER)),
        Network::Own { resolver, .. } => Some(&**resolver),
        Network::None => None,
    };
    let names = resolver.into_iter().flat_map(|resolver| [(resolver, RESOLVER), (Path::new(HOSTS), HOSTS)]);
    let names = names.filter(|(from, _)| from.exists()).map(|(from, to)| bind(from, to, false));
    let own = sandbox.mounts.iter().map(|mount| bind(&mount.from, &mount.to, mount.writable));
    for bound in names.chain(own) {
        mounts.push(bound?);
    }
    Ok(mounts)
}

fn linux(sandbox: &Sandbox, id: &str, room: &Room) -> Json {
    let mut namespaces: Vec<Json> =
        ["pid", "ipc", "uts", "mount"].iter().map(|kind| json!({"type": kind})).collect();
    match &sandbox.network {
        Network::Host => {}
        Network::Own { namespace, .. } => namespaces.push(json!({"type": "network", "path": namespace})),
        Network::None => namespaces.push(json!({"type": "network"})),
    }
    if room.ids == Ids::One {
        namespaces.push(json!({"type": "user"}));
    }
    let mut linux = json!({
        "namespaces": namespaces,
        "maskedPaths": MASKED,
        "readonlyPaths": READ_ONLY,
        "seccomp": seccomp::profile(),
    });
    if room.ids == Ids::One {
        let one = |id: u32| json!([{"containerID": id, "hostID": id, "size": 1}]);
        linux["uidMappings"] = one(sandbox.user.uid);
        linux["gidMappings"] = one(sandbox.user.gid);
    }
    if are_delegated() {
        // Without limits some runtimes make one, too, which would lie somewhere else.
        linux["cgroupsPath"] = json!(group(id));
    }
    if sandbox.limits.any() && are_delegated() {
        linux["resources"] = resources(&sandbox.limits);
    }
    linux
}

fn resources(limits: &Limits) -> Json {
    let mut resources = json!({});
    if let Some(memory) = limits.memory {
        resources["memory"] = json!({"limit": memory});
    }
    if let Some(cpus) = limits.cpus {
        resources["cpu"] = json!({"period": PERIOD, "quota": cpus * PERIOD / 1000});
    }
    if let Some(pids) = limits.pids {
        resources["pids"] = json!({"limit": pids});
    }
    resources
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn paths_that_json_cannot_hold_are_refused() {
        let odd = PathBuf::from(OsStr::from_bytes(b"/r\xff"));
        let usual = || sandbox(0, Network::None);
        let mount = Mount { from: odd.clone(), to: "/to".to_owned(), writable: false };
        for odd in [Sandbox { root: odd.clone(), ..usual() }, Sandbox { mounts: vec![mount], ..usual() }] {
            let error = config(&odd, "x", &Room { ids: Ids::All }).unwrap_err();
            assert!(error.to_string().contains("is not UTF-8"), "{error}");
        }
    }

    fn sandbox(uid: u32, network: Network) -> Sandbox {
        Sandbox {
            root: "/r".into(),
            writable_root: false,
            args: vec!["/bin/true".to_owned()],
            env: vec!["A=b".to_owned(), "NONE".to_owned()],
            working_dir: "rel/dir".to_owned(),
            user: User { uid, gid: uid },
            groups: vec![7],
            new_privileges: false,
            mounts: vec![Mount { from: "/from".into(), to: "/to".to_owned(), writable: false }],
            network,
            limits: Limits::default(),
            terminal: false,
        }
    }

    fn written(sandbox: &Sandbox, ids: Ids) -> Json {
        serde_json::to_value(config(sandbox, "id", &Room { ids }).unwrap()).unwrap()
    }

    #[test]
    fn nobody_gets_more_than_is_said() {
        let found = written(&sandbox(1000, Network::Host), Ids::Several);
        assert_eq!(found["root"], json!({"path": "/r", "readonly": true}));
        assert_eq!(found["process"]["env"], json!(["A=b"]));
        assert_eq!(found["process"]["cwd"], "/rel/dir");
        assert_eq!(found["process"]["noNewPrivileges"], true);
        assert_eq!(found["process"]["user"]["additionalGids"], json!([7]));
        for set in ["effective", "permitted", "inheritable", "ambient"] {
            assert_eq!(found["process"]["capabilities"][set], json!([]), "{set}");
        }
        let superuser = written(&sandbox(0, Network::Host), Ids::All);
        let effective = superuser["process"]["capabilities"]["effective"].as_array().unwrap();
        assert_eq!(effective.len(), CAPABILITIES.len());
        assert!(!effective.contains(&json!("CAP_SYS_ADMIN")));
        let mount = found["mounts"].as_array().unwrap().last().unwrap();
        assert_eq!(mount["options"], json!(["rbind", "rprivate", "nosuid", "nodev", "ro"]));
        assert_eq!(found["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
        // Where no limits are asked for either, what is left is found by its name.
        assert_eq!(found["linux"]["cgroupsPath"] == group("id"), are_delegated());
    }

    #[test]
    fn namespaces_are_those_that_are_needed() {
        let kinds = |network, ids| -> Vec<String> {
            let found = written(&sandbox(1000, network), ids);
            let namespaces = found["linux"]["namespaces"].as_array().unwrap().clone();
            namespaces.iter().map(|one| one["type"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(kinds(Network::Host, Ids::All), ["pid", "ipc", "uts", "mount"]);
        assert_eq!(kinds(Network::None, Ids::Several), ["pid", "ipc", "uts", "mount", "network"]);
        let own = Network::Own { namespace: "/n".into(), resolver: "/r".into() };
        assert_eq!(kinds(own.clone(), Ids::Several), ["pid", "ipc", "uts", "mount", "network"]);
        let found = written(&sandbox(1000, own), Ids::All);
        assert_eq!(found["linux"]["namespaces"][4], json!({"type": "network", "path": "/n"}));
        assert_eq!(kinds(Network::Host, Ids::One), ["pid", "ipc", "uts", "mount", "user"]);
    }

    #[test]
    fn what_is_mounted_is_known() {
        let found = mount_points(&sandbox(1000, Network::None), &Room { ids: Ids::All }).unwrap();
        for point in [("/proc", true), ("/sys", true), ("/dev/shm", true), ("/to", true)] {
            assert!(found.contains(&(point.0.to_owned(), point.1)), "{point:?}: {found:?}");
        }
    }

    #[test]
    fn limits_are_counted_as_the_kernel_counts() {
        let limits = Limits { memory: Some(1 << 30), cpus: Some(1500), pids: Some(64) };
        let want = json!({"memory": {"limit": 1_073_741_824}, "cpu": {"period": 100_000, "quota": 150_000},
                          "pids": {"limit": 64}});
        assert_eq!(resources(&limits), want);
        assert_eq!(resources(&Limits::default()), json!({}));
    }
}
