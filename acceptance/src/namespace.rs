//! The right to mount folders and to change owners: root's, or that of an ordinary user in a user namespace.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The user becomes root of the new namespace; the users that `/etc/subuid` gives come after it, so that
/// [`crate::stage::UID`] is one of them.
const UNSHARE: [&str; 5] = ["unshare", "--user", "--map-root-user", "--map-auto", "--"];

/// Returns when this process is root. Otherwise starts it anew as root of a user namespace, or says why it cannot be.
pub fn become_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let [unshare, options @ ..] = UNSHARE;
    let probe = Command::new(unshare)
        .args(options)
        .args(["unshare", "--mount", "chown", "--version"])
        .output()
        .context("start unshare (package util-linux)")?;
    if !probe.status.success() {
        bail!(
            "the acceptance tests need root, or a user namespace with a second user, which is refused here: {}\n\
             run them as root, or see to it that\n\
             - `newuidmap` is installed (apt-get install uidmap), and `unshare --version` is at least 2.38\n\
             - /etc/subuid and /etc/subgid give this user a range (usermod --add-subuids 100000-165535 \
             --add-subgids 100000-165535 NAME)\n\
             - the kernel allows user namespaces (sysctl user.max_user_namespaces, and where they exist \
             kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)",
            String::from_utf8_lossy(&probe.stderr).trim()
        );
    }
    let this = std::env::current_exe().context("find this executable")?;
    let error = Command::new(unshare).args(options).arg(this).args(std::env::args_os().skip(1)).exec();
    Err(error).context("start anew in a user namespace")
}
