//! A build in a temporary folder: all that analyzer, exporter and rebaser read and write, named to them by flags and variables, so
//! that they need no namespace.
//!
//! ```text
//! layout-repo/example.com/acme/run/base    the run image
//! layout-repo/index.docker.io/library/app  the app image, once it is exported
//! layers/{group.toml,config/metadata.toml} one buildpack, `acme/a`; one process type, `web`
//! app/                                     one file
//! cnb/{run.toml,launcher}                  what a builder has
//! cache/                                   empty
//! ```

use std::fs;
use std::os::unix::fs::lchown;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use walkdir::WalkDir;

use crate::layout::Layout;
use crate::run::Output;
use crate::scenario::User;
use crate::stage::{GID, UID, chmod, copy, make_dir};

/// The run image's name.
pub const RUN_IMAGE: &str = "example.com/acme/run:base";
/// The run image's place.
pub const RUN_LAYOUT: &str = "layout-repo/example.com/acme/run/base";
/// The app image's name.
pub const APP_IMAGE: &str = "app";
/// The app image's place.
pub const APP_LAYOUT: &str = "layout-repo/index.docker.io/library/app/latest";

/// The folder; dropped, it is gone.
#[derive(Debug)]
pub struct Project {
    dir: TempDir,
    executables: PathBuf,
    user: User,
}

impl Project {
    /// A project that belongs to the user as whom phases run; who must be able to reach the executables.
    pub fn new(executables: &Path, user: User) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("drydock-project-").tempdir().context("make a folder")?;
        chmod(dir.path(), 0o755)?;
        let project = Self { dir, executables: executables.to_owned(), user };
        for name in ["layout-repo", "layers", "app", "cnb", "cache"] {
            make_dir(&project.path(name))?;
        }
        let run_layout = project.path(RUN_LAYOUT);
        make_dir(run_layout.parent().context("it has a parent")?)?;
        copy(&crate::here("images/run"), &run_layout)?;
        project.write("cnb/run.toml", format!("[[images]]\nimage = \"{RUN_IMAGE}\"\n"))?;
        project.write("cnb/launcher", "stand-in\n")?;
        project.write("app/file", "content\n")?;
        project
            .write("layers/group.toml", "[[group]]\nid = \"acme/a\"\nversion = \"1\"\napi = \"0.10\"\n")?;
        project.write(
            "layers/config/metadata.toml",
            "[[processes]]\ntype = \"web\"\ncommand = [\"server\"]\ndirect = true\nbuildpack-id = \"acme/a\"\n",
        )?;
        project.own()?;
        Ok(project)
    }

    /// A file or folder of the project.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// The layout at a path of the project.
    pub fn layout(&self, path: &str) -> Layout {
        Layout::new(self.path(path))
    }

    /// Writes a file, with the folders that it needs.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.path(path);
        make_dir(path.parent().context("it has a parent")?)?;
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        chmod(&path, 0o644)
    }

    /// A launch layer of the one buildpack, with one file.
    pub fn write_layer(&self, name: &str, types: &str, content: impl AsRef<[u8]>) -> Result<()> {
        self.write(&format!("layers/acme_a/{name}.toml"), format!("[types]\n{types}\n"))?;
        self.write(&format!("layers/acme_a/{name}/file"), content)
    }

    /// Gives everything to the user.
    pub fn own(&self) -> Result<()> {
        let (uid, gid) = match self.user {
            User::Root => (0, 0),
            User::Cnb => (UID, GID),
        };
        for entry in WalkDir::new(self.dir.path()) {
            let entry = entry.context("list the project")?;
            lchown(entry.path(), Some(uid), Some(gid))
                .with_context(|| format!("give away {}", entry.path().display()))?;
        }
        Ok(())
    }

    /// The analyzer with all flags that it needs. Further flags and the image are to be added.
    pub fn analyzer(&self) -> Result<Command> {
        self.phase(&PATIENT, "analyzer")
    }

    /// The restorer with all flags that it needs. Further flags are to be added.
    pub fn restorer(&self) -> Result<Command> {
        self.restorer_under(&PATIENT)
    }

    /// The restorer, started by another program: its words come first.
    pub fn restorer_under(&self, starter: &[&str]) -> Result<Command> {
        self.phase(starter, "restorer")
    }

    /// The exporter with all flags that it needs. Further flags and the image are to be added.
    pub fn exporter(&self) -> Result<Command> {
        self.exporter_under(&PATIENT)
    }

    /// The creator with the flags that say where its files are. Further flags and the image are to be added.
    pub fn creator(&self) -> Result<Command> {
        self.creator_under(&PATIENT)
    }

    /// The creator, started by another program: its words come first.
    pub fn creator_under(&self, starter: &[&str]) -> Result<Command> {
        let mut command = self.phase(starter, "creator")?;
        command.arg("-app").arg(self.path("app"));
        command.arg("-launcher").arg(self.path("cnb/launcher"));
        Ok(command)
    }

    /// The exporter, started by another program: its words come first.
    pub fn exporter_under(&self, starter: &[&str]) -> Result<Command> {
        let mut command = self.phase(starter, "exporter")?;
        command.arg("-app").arg(self.path("app"));
        command.arg("-launcher").arg(self.path("cnb/launcher"));
        Ok(command)
    }

    /// The rebaser with all flags that it needs. Further flags and the images are to be added.
    pub fn rebaser(&self) -> Result<Command> {
        self.rebaser_under(&PATIENT)
    }

    /// The rebaser, started by another program: its words come first.
    pub fn rebaser_under(&self, starter: &[&str]) -> Result<Command> {
        self.phase(starter, "rebaser")
    }

    /// Any phase, started by another program: its words come first. It is told of the layers, the layout repository and
    /// `run.toml`.
    pub fn phase(&self, starter: &[&str], phase: &str) -> Result<Command> {
        let [first, words @ ..] = starter else { anyhow::bail!("a starter has a name") };
        let mut command = Command::new(first);
        command.args(words).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
        command.env("CNB_PLATFORM_API", "0.14").env("CNB_USE_OCI_LAYOUT", "true");
        command.env("CNB_OCI_LAYOUT_PATH", self.path("layout-repo"));
        command.env("CNB_LAYERS_DIR", self.path("layers")).env("CNB_RUN_PATH", self.path("cnb/run.toml"));
        if self.user == User::Cnb {
            command.uid(UID).gid(GID);
        }
        command.arg(self.executables.join(phase));
        Ok(command)
    }

    /// Analyzes with all defaults; it must succeed.
    pub fn analyze(&self) -> Result<Output> {
        succeed(self.analyzer()?.arg(APP_IMAGE))
    }

    /// Exports with all defaults; it must succeed.
    pub fn export(&self) -> Result<Output> {
        succeed(self.exporter()?.arg(APP_IMAGE))
    }
}

/// No phase may take longer than two minutes.
const PATIENT: [&str; 4] = ["timeout", "--foreground", "--signal=KILL", "120"];

/// Runs a command to its end, however it ends.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("start {}", command.get_program().display()))?;
    let signal = output.status.signal().map_or(-1, |signal| 128 + signal);
    let exit = output.status.code().unwrap_or(signal);
    Ok(Output { exit, stdout: output.stdout, stderr: output.stderr })
}

/// Runs a command; any other exit code than 0 is an error that holds all that it printed.
pub fn succeed(command: &mut Command) -> Result<Output> {
    let output = run(command)?;
    ensure!(output.exit == 0, "{command:?}: exit code {}\n{}", output.exit, output.text());
    Ok(output)
}
