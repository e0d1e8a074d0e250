//! Builds by `drydock build`, as root or as an ordinary user who has subordinate ids.
//!
//! ```text
//! layout-repo/index.docker.io/acme/run/base         the run image
//! layout-repo/index.docker.io/acme/builder/latest   the builder
//! app/                                              the source
//! home/                                             that user's, with the cache
//! etc/{passwd,subuid,subgid}                        as the ordinary user finds them in /etc
//! ```

use std::fs;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use walkdir::WalkDir;

use crate::layout::{Image, Layout};
use crate::project;
use crate::run::Output;
use crate::run_image;
use crate::stage::{chmod, copy, make_dir};

/// The run image, the builder and the app image, by their names.
pub const RUN: &str = "acme/run:base";
/// See [`RUN`].
pub const BUILDER: &str = "acme/builder";
/// See [`RUN`].
pub const APP: &str = "app";
/// The ordinary user, whom no image knows.
pub const ORDINARY: u32 = 12_345;
/// His subordinate ids, which a user namespace has too in which the tests may run.
const SUBORDINATE: &str = "tester:20000:20000\n";
/// No command may take longer, in seconds.
const PATIENCE: &str = "240";

/// Puts files of our own in the place of three in `/etc`, opens `/dev/net/tun` to all as udev does, and goes on as the ordinary user.
const AS_ORDINARY: &str = "set -e; for file in passwd subuid subgid; do mount --bind \"$1/$file\" /etc/$file; done; \
                           if ! setpriv --reuid $2 test -w /dev/net/tun; then mount -t tmpfs none /dev/net; \
                           mknod -m 666 /dev/net/tun c 10 200; fi; \
                           user=$2; shift 2; exec setpriv --reuid $user --regid $user --clear-groups -- \"$@\"";

/// Who builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The superuser.
    Root,
    /// An ordinary user.
    Ordinary,
}

/// The folder; dropped, it is gone.
#[derive(Debug)]
pub struct House {
    dir: TempDir,
    drydock: PathBuf,
    lifecycle: PathBuf,
    who: Who,
}

impl House {
    /// With a builder that has `cnb` as `/cnb`, and a copy of the source `app`. Everybody must be able to reach the executables.
    pub fn new(drydock: &Path, lifecycle: &Path, who: Who, cnb: &Path, app: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("drydock-house-").tempdir().context("make a folder")?;
        chmod(dir.path(), 0o755)?;
        let house = Self { dir, drydock: drydock.to_owned(), lifecycle: lifecycle.to_owned(), who };
        for name in ["home", "etc", "layout-repo"] {
            make_dir(&house.path(name))?;
        }
        copy(app, &house.path("app"))?;
        run_image::write(&house.layout_dir("acme/run/base"))?;
        house.write_builder(cnb)?;
        house.write("etc/subuid", SUBORDINATE)?;
        house.write("etc/subgid", SUBORDINATE)?;
        house.write(
            "etc/passwd",
            &format!("root:x:0:0::/root:/bin/sh\ntester:x:{ORDINARY}:{ORDINARY}::/:/bin/sh\n"),
        )?;
        house.own()?;
        Ok(house)
    }

    /// The run image anew, with files of this machine.
    pub fn write_run_image(&self, files: &[PathBuf]) -> Result<()> {
        let dir = self.layout_dir("acme/run/base");
        fs::remove_dir_all(&dir).context("remove the run image")?;
        run_image::write_with(&dir, files)?;
        self.own()
    }

    fn write_builder(&self, cnb: &Path) -> Result<()> {
        run_image::write_builder(&self.layout_dir("acme/builder/latest"), cnb).map(drop)
    }

    /// A file or folder of the house.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Writes a file.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.path(path);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        chmod(&path, 0o644)
    }

    fn layout_dir(&self, name: &str) -> PathBuf {
        self.path("layout-repo/index.docker.io").join(name)
    }

    /// Gives all but what is root's to whoever builds.
    pub fn own(&self) -> Result<()> {
        let id = if self.who == Who::Root { 0 } else { ORDINARY };
        for name in ["home", "layout-repo", "app"] {
            for entry in WalkDir::new(self.path(name)) {
                let entry = entry.context("list the house")?;
                lchown(entry.path(), Some(id), Some(id))
                    .with_context(|| format!("give away {}", entry.path().display()))?;
            }
        }
        Ok(())
    }

    /// `drydock` with these arguments. What is started is `drydock` itself, by programs that become it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--"]);
        if self.who == Who::Ordinary {
            command.args(["sh", "-c", AS_ORDINARY, "sh"]).arg(self.path("etc")).arg(ORDINARY.to_string());
        }
        command.arg(&self.drydock).args(arguments).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").env("HOME", self.path("home"));
        command.env("CNB_OCI_LAYOUT_PATH", self.path("layout-repo"));
        command
    }

    /// The same, killed when it takes too long.
    pub fn patient(&self, arguments: &[&str]) -> Command {
        let inner = self.command(arguments);
        let mut command = Command::new("timeout");
        command
            .args(["--foreground", "--signal=KILL", PATIENCE])
            .arg(inner.get_program())
            .args(inner.get_args());
        command.current_dir(self.dir.path()).stdin(Stdio::null()).env_clear();
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    }

    /// The arguments of a build of the app, with further ones.
    pub fn build_arguments<'a>(&'a self, further: &[&'a str]) -> Result<Vec<&'a str>> {
        let lifecycle = self.lifecycle.to_str().context("a path is UTF-8")?;
        let usual = ["build", APP, "--builder", BUILDER, "--path", "app", "--lifecycle", lifecycle];
        Ok([&usual, further].concat())
    }

    /// Builds the app, however it ends.
    pub fn build(&self, further: &[&str]) -> Result<Output> {
        project::run(&mut self.patient(&self.build_arguments(further)?))
    }

    /// Builds the app; it must succeed, and leave nothing.
    pub fn built(&self, further: &[&str]) -> Result<Output> {
        let output = project::succeed(&mut self.patient(&self.build_arguments(further)?))?;
        self.is_clean().with_context(|| output.text())?;
        Ok(output)
    }

    /// Starts a command, kills it after a while, and waits until nothing of it runs.
    pub fn killed(&self, arguments: &[&str], after: Duration) -> Result<()> {
        let mut child = self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        thread::sleep(after);
        child.kill()?;
        child.wait()?;
        // The kernel ends what is in the room, in its own time.
        while !self.processes().is_empty() {
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The app image, which must be whole and without faults.
    pub fn image(&self) -> Result<Image> {
        let layout = Layout::new(self.layout_dir("library/app/latest"));
        let faults = layout.faults()?;
        anyhow::ensure!(faults.is_empty(), "the layout has faults:\n{}", faults.join("\n"));
        self.published()
    }

    /// The image, complete; a killed build may have left temporary files beside it, which the next one removes.
    pub fn published(&self) -> Result<Image> {
        Layout::new(self.layout_dir("library/app/latest")).verify()?.pop().context("the layout has an image")
    }

    /// The files of the repository and the cache that belong to somebody else than whoever builds.
    pub fn strangers(&self) -> Result<Vec<PathBuf>> {
        use std::os::unix::fs::MetadataExt as _;
        let mut found = Vec::new();
        for name in ["layout-repo", "home/.cache/drydock/builds"] {
            for entry in WalkDir::new(self.path(name)) {
                let entry = entry.context("list the house")?;
                if entry.metadata()?.uid() != ORDINARY {
                    found.push(entry.path().to_owned());
                }
            }
        }
        Ok(found)
    }

    /// There are no processes and mounts of a build, and no folders but those that are to stay.
    pub fn is_clean(&self) -> Result<()> {
        let left = self.processes();
        anyhow::ensure!(left.is_empty(), "these processes are left: {}", left.join("\n"));
        let sessions = self.path("home/.cache/drydock/sessions");
        let names: Vec<_> = fs::read_dir(&sessions)
            .with_context(|| format!("list {}", sessions.display()))?
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        anyhow::ensure!(names.is_empty(), "these sessions are left: {names:?}");
        Ok(())
    }

    /// Processes that have mounts in the house, or are named after it: those of builds.
    pub fn processes(&self) -> Vec<String> {
        let house = self.dir.path().as_os_str().as_encoded_bytes();
        let mentions = |path: PathBuf| {
            fs::read(path).is_ok_and(|bytes| bytes.windows(house.len()).any(|window| window == house))
        };
        let own = std::process::id().to_string();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = processes.filter_map(|entry| entry.file_name().into_string().ok());
        ids.filter(|id| id.bytes().all(|byte| byte.is_ascii_digit()) && *id != own)
            .filter(|id| {
                ["mountinfo", "cmdline"].iter().any(|file| mentions(Path::new("/proc").join(id).join(file)))
            })
            .map(|id| {
                let words = fs::read(Path::new("/proc").join(&id).join("cmdline")).unwrap_or_default();
                format!("{id} {}", String::from_utf8_lossy(&words).replace('\0', " "))
            })
            .collect()
    }
}
