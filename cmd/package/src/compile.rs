//! The executables as they ship: static, without paths of the machine that they were built on.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::cargo;

/// What the executables are built for: Linux on this machine's architecture, with the GNU C library.
pub const TARGET: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };

/// The names that `lifecycle` is called by, one for each phase.
pub const PHASES: [&str; 8] =
    ["analyzer", "builder", "creator", "detector", "exporter", "extender", "rebaser", "restorer"];

/// An executable, and the package that it is built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Executable {
    /// Its file name.
    pub name: &'static str,
    /// The package's name.
    pub package: &'static str,
    /// The package's manifest, relative to the workspace.
    pub manifest: &'static str,
    /// The lock file that holds for it, relative to the workspace.
    pub lock: &'static str,
    /// Whether a C library is in it.
    pub has_libc: bool,
}

/// Every phase in one.
pub const LIFECYCLE: Executable = Executable {
    name: "lifecycle",
    package: "drydock",
    manifest: "cmd/Cargo.toml",
    lock: "Cargo.lock",
    has_libc: true,
};

/// What starts the processes of app images.
pub const LAUNCHER: Executable = Executable {
    name: "launcher",
    package: "drydock-launcher",
    manifest: "cmd/launcher/Cargo.toml",
    lock: "cmd/launcher/Cargo.lock",
    has_libc: false,
};

/// All that ship.
pub const EXECUTABLES: [Executable; 2] = [LIFECYCLE, LAUNCHER];

/// The folders of this machine that a build works in, and leaves no trace of.
#[derive(Debug, Clone)]
pub struct Folders {
    /// The sources.
    workspace: PathBuf,
    /// Where cargo puts what it builds.
    target: PathBuf,
    /// Where cargo keeps the sources of dependencies.
    cargo_home: PathBuf,
}

impl Folders {
    /// The folders by these paths, those that are not there yet made.
    pub fn new(workspace: &Path, target: &Path, cargo_home: &Path) -> Result<Self> {
        let find = |path: &Path| {
            fs::create_dir_all(path)
                .and_then(|()| fs::canonicalize(path))
                .with_context(|| format!("find {}", path.display()))
        };
        Ok(Self { workspace: find(workspace)?, target: find(target)?, cargo_home: find(cargo_home)? })
    }

    /// Flags for rustc, in the form of `CARGO_ENCODED_RUSTFLAGS`: link statically, and leave these folders out of what names
    /// a source file, so that it does not differ between machines.
    fn flags(&self) -> OsString {
        let mut known =
            [(&self.cargo_home, "/cargo"), (&self.workspace, "/drydock"), (&self.target, "/target")];
        // One may lie in the other, and rustc takes the last that fits.
        known.sort_by_key(|(path, _)| path.as_os_str().len());
        let mut flags = OsString::from("-Ctarget-feature=+crt-static");
        for (path, name) in known {
            flags.push("\u{1f}--remap-path-prefix=");
            flags.push(path);
            flags.push("=");
            flags.push(name);
        }
        flags
    }
}

/// Builds both executables, and puts them into the folder `dist`, made anew, beside a relative link to `lifecycle` for each
/// phase.
pub fn compile(folders: &Folders, dist: &Path) -> Result<()> {
    let built = EXECUTABLES.map(|executable| build(executable, folders));
    match fs::remove_dir_all(dist) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("empty {}", dist.display()));
        }
        _ => fs::create_dir_all(dist).with_context(|| format!("make {}", dist.display()))?,
    }
    for (executable, built) in EXECUTABLES.iter().zip(built) {
        let (from, to) = (built?, dist.join(executable.name));
        fs::copy(&from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    }
    for phase in PHASES {
        symlink(LIFECYCLE.name, dist.join(phase)).with_context(|| format!("link {phase}"))?;
    }
    Ok(())
}

/// Has cargo bring one executable up to date; gives the path that cargo names.
pub fn build(executable: Executable, folders: &Folders) -> Result<PathBuf> {
    /// What is of interest in a line of cargo's messages.
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
    }
    let mut child = cargo::command()
        .args(["build", "--release", "--locked", "--message-format=json-render-diagnostics"])
        .args(["--target", TARGET, "--bin", executable.name, "--manifest-path"])
        .arg(folders.workspace.join(executable.manifest))
        .arg("--target-dir")
        .arg(&folders.target)
        .env("CARGO_HOME", &folders.cargo_home)
        .env("CARGO_ENCODED_RUSTFLAGS", folders.flags())
        .stdout(Stdio::piped())
        .spawn()
        .context("run cargo build")?;
    let messages = child.stdout.take().context("cargo's output is a pipe")?;
    let mut built = None;
    for line in BufReader::new(messages).lines() {
        let message: Message = serde_json::from_str(&line?).context("parse what cargo build printed")?;
        built = message.executable.or(built);
    }
    ensure!(child.wait()?.success(), "cargo build failed for {}", executable.name);
    built.with_context(|| format!("cargo build made no {}", executable.name))
}
