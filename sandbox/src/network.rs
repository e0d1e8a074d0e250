//! A network for sandboxes alone, with a way out: what listens on this machine's own addresses, and its abstract sockets, are out of
//! reach. An installed program carries the packets, as for rootless Podman: `pasta` or `slirp4netns`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::UnshareFlags;
use serde_json::{Value as Json, json};

use crate::bundle::Network;
use crate::ids::Ids;
use crate::room::Room;
use crate::runtime::{FOLDERS, find_program};
use crate::session::Session;

/// Programs that carry packets, the quickest first.
const KNOWN: [(Kind, &str); 2] = [(Kind::Pasta, "pasta"), (Kind::Slirp, "slirp4netns")];
/// Whom a sandbox asks for names where this machine asks itself: the program asks for it.
const PASTA_RESOLVER: &str = "169.254.1.1";
const SLIRP_RESOLVER: &str = "10.0.2.3";
/// Where this machine can publish ports: nobody else reaches them there.
const PUBLISHED_AT: &str = "127.0.0.1";
/// Bytes of an answer, of what a program complains of, and of `/etc/resolv.conf`.
const MAX_TEXT: u64 = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pasta,
    Slirp,
}

/// An installed program that carries packets.
#[derive(Debug)]
pub struct Carrier {
    kind: Kind,
    path: PathBuf,
}

/// A port of a sandbox that this machine has, too, at 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// On this machine.
    pub outside: u16,
    /// In the sandbox.
    pub inside: u16,
}

/// The network; dropped, it is gone.
#[derive(Debug)]
pub struct OwnNetwork {
    namespace: PathBuf,
    resolver: PathBuf,
    /// None where it has gone to the background: it ends with the room.
    carrier: Option<Child>,
}

impl Carrier {
    /// The first that is installed. `path` is the user's `PATH`. Where a room has only one user, none is of use.
    pub fn find(room: &Room, path: Option<&OsStr>) -> Option<Self> {
        let found = |(kind, name)| Some(Self { kind, path: find_program(name, path)? });
        KNOWN.into_iter().find_map(found).filter(|_| room.ids != Ids::One)
    }

    /// Makes a network.
    pub fn start(&self, session: &Session, room: &Room, ports: &[Port]) -> Result<OwnNetwork> {
        let dir = session.make("network")?;
        let (namespace, resolver) = (dir.join("namespace"), dir.join("resolv.conf"));
        let address = if self.kind == Kind::Pasta { PASTA_RESOLVER } else { SLIRP_RESOLVER };
        let asks = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let asks_itself = asks_itself(&asks);
        let text = if asks_itself { resolv_conf(&asks, address) } else { asks };
        fs::write(&resolver, text).context("cannot write resolv.conf")?;
        make_namespace(&namespace)?;
        let mut network = OwnNetwork { namespace, resolver, carrier: None };
        match self.kind {
            Kind::Pasta => self.pasta(&network.namespace, room, asks_itself, ports)?,
            Kind::Slirp => network.carrier = Some(self.slirp(&network.namespace, &dir)?),
        }
        if self.kind == Kind::Slirp {
            ports.iter().try_for_each(|port| publish(&dir, *port))?;
        }
        Ok(network)
    }

    /// As this user, whose folders the superuser of a room cannot enter without rights that these programs give up.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        // Ctrl-C is not meant for it.
        command.env_clear().env("PATH", FOLDERS).process_group(0);
        command
    }

    /// It goes to the background when all is ready.
    fn pasta(&self, namespace: &Path, room: &Room, resolves: bool, ports: &[Port]) -> Result<()> {
        let mut command = self.command();
        command.args(["--config-net", "--no-map-gw", "--quiet"]);
        if resolves {
            // Otherwise answers of this machine's servers would come from that address, which nobody has asked.
            command.args(["--dns-forward", PASTA_RESOLVER]);
        }
        command.args(["--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"]);
        if room.ids == Ids::All {
            // Another user could not enter the namespace.
            command.args(["--runas", "0:0"]);
        }
        if ports.is_empty() {
            command.args(["--tcp-ports", "none"]);
        }
        for Port { outside, inside } in ports {
            command.arg("--tcp-ports").arg(format!("{PUBLISHED_AT}/{outside}:{inside}"));
        }
        let output = command.arg("--netns").arg(namespace).stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot start `{}`", self.path.display()))?;
        if !output.status.success() {
            bail!("`{}` fails: {}", self.path.display(), complaint(&output.stderr));
        }
        Ok(())
    }

    /// It ends when its standard input does.
    fn slirp(&self, namespace: &Path, dir: &Path) -> Result<Child> {
        let complaints = dir.join("complaints");
        let mut command = self.command();
        command.args(["--configure", "--mtu=65520", "--disable-host-loopback", "--netns-type=path"]);
        command.args(["--ready-fd=1", "--exit-fd=0", "--api-socket=api"]).arg(namespace).arg("tap0");
        command.current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(File::create(&complaints).context("cannot make a file")?);
        let mut child = command.spawn().with_context(|| format!("cannot start `{}`", self.path.display()))?;
        let mut ready = [0];
        let read = child.stdout.take().map(|mut output| output.read_exact(&mut ready));
        if !matches!(read, Some(Ok(()))) {
            end(&mut child);
            let text = fs::read(&complaints).unwrap_or_default();
            bail!("`{}` fails: {}", self.path.display(), complaint(&text));
        }
        Ok(child)
    }
}

impl OwnNetwork {
    /// As sandboxes have it.
    pub fn seen(&self) -> Network {
        Network::Own { namespace: self.namespace.clone(), resolver: self.resolver.clone() }
    }
}

impl Drop for OwnNetwork {
    fn drop(&mut self) {
        if let Some(carrier) = &mut self.carrier {
            end(carrier);
        }
        // At the latest it goes with this process, whose mounts are its own.
        let _ = unmount(&self.namespace, UnmountFlags::DETACH);
    }
}

fn end(child: &mut Child) {
    // Who has ended already is only waited for.
    let _ = child.kill();
    let _ = child.wait();
}

/// Makes a network namespace that lasts as long as it is mounted at `path`.
fn make_namespace(path: &Path) -> Result<()> {
    File::create(path).with_context(|| format!("cannot make `{}`", path.display()))?;
    // Only the thread goes into the namespace.
    let made = thread::scope(|scope| {
        let make = || {
            #[expect(deprecated, reason = "its successor is unsafe for the sake of another flag")]
            rustix::thread::unshare(UnshareFlags::NEWNET)?;
            mount("/proc/thread-self/ns/net", path, c"", MountFlags::BIND, None)
        };
        let thread = thread::Builder::new().spawn_scoped(scope, make).context("cannot start a thread")?;
        thread.join().map_err(|_| anyhow::anyhow!("the thread for it failed"))
    });
    made?.context("cannot make a network namespace")
}

/// Asks `slirp4netns` for a port.
fn publish(dir: &Path, port: Port) -> Result<()> {
    let failed = || format!("cannot publish port {}", port.outside);
    let arguments = json!({"proto": "tcp", "host_addr": PUBLISHED_AT, "host_port": port.outside, "guest_port": port.inside});
    let request = json!({"execute": "add_hostfwd", "arguments": arguments});
    let dir = File::open(dir).with_context(failed)?;
    // A socket's path may have only some hundred bytes.
    let mut socket =
        UnixStream::connect(format!("/proc/self/fd/{}/api", dir.as_raw_fd())).with_context(failed)?;
    let mut answer = Vec::new();
    let told =
        socket.write_all(request.to_string().as_bytes()).and_then(|()| socket.shutdown(Shutdown::Write));
    told.and_then(|()| socket.take(MAX_TEXT).read_to_end(&mut answer)).with_context(failed)?;
    let answer: Json = serde_json::from_slice(&answer).with_context(failed)?;
    if let Some(error) = answer.get("error") {
        bail!("{}: {}", failed(), error["desc"].as_str().unwrap_or("no reason is given"));
    }
    Ok(())
}

/// Whether a `resolv.conf` names an address that every machine has for itself.
fn asks_itself(text: &str) -> bool {
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver"));
    servers.filter_map(|server| server.trim().parse::<IpAddr>().ok()).any(|server| server.is_loopback())
}

/// This machine's file with another server.
fn resolv_conf(text: &str, address: &str) -> String {
    let kept = text.lines().filter(|line| line.starts_with("search ") || line.starts_with("options "));
    let server = format!("nameserver {address}");
    [server.as_str()].into_iter().chain(kept).chain([""]).collect::<Vec<_>>().join("\n")
}

/// The last line that is not about `pasta`'s own troubles with the log.
fn complaint(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.contains("syslog"));
    lines.next_back().unwrap_or("it does not say why").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_asked_for_where_they_are_carried() {
        let text = "# x\nnameserver 127.0.0.53\nnameserver ::1\nsearch acme.example\noptions edns0\n";
        assert_eq!(
            resolv_conf(text, "10.0.2.3"),
            "nameserver 10.0.2.3\nsearch acme.example\noptions edns0\n"
        );
        assert!(asks_itself(text) && !asks_itself("nameserver 192.0.2.53\n# nameserver 127.0.0.1\n"));
        assert_eq!(resolv_conf("", "10.0.2.3"), "nameserver 10.0.2.3\n");
    }

    #[test]
    fn complaints_are_told() {
        let text = "Failed to open tun socket in namespace\nFailed to send 4 bytes to syslog\n\n";
        assert_eq!(complaint(text.as_bytes()), "Failed to open tun socket in namespace");
        assert_eq!(complaint(b""), "it does not say why");
    }
}
