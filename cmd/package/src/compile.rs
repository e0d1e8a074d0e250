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

/// Builds both executables below `target` and puts them into the folder `dist`, made anew, beside a relative link to
/// `lifecycle` for each phase.
pub fn compile(workspace: &Path, target: &Path, dist: &Path) -> Result<()> {
    let built = EXECUTABLES.map(|executable| build(executable, workspace, target));
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
fn build(executable: Executable, workspace: &Path, target: &Path) -> Result<PathBuf> {
    /// What is of interest in a line of cargo's messages.
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
    }
    let mut child = cargo::command()
        .args(["build", "--release", "--locked", "--message-format=json-render-diagnostics"])
        .args(["--target", TARGET, "--bin", executable.name, "--manifest-path"])
        .arg(workspace.join(executable.manifest))
        .arg("--target-dir")
        .arg(target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(workspace)?)
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

/// Flags for rustc, in the form of `CARGO_ENCODED_RUSTFLAGS`: link statically, and leave this machine's folders out of
/// the messages that name a source file, so that they do not differ between machines.
fn flags(workspace: &Path) -> Result<OsString> {
    let workspace = fs::canonicalize(workspace).with_context(|| format!("find {}", workspace.display()))?;
    let mut flags = OsString::from("-Ctarget-feature=+crt-static");
    let mut remap = |from: &Path, to: &str| {
        flags.push("\u{1f}--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    };
    remap(&cargo_home()?, "/cargo");
    remap(&workspace, "/drydock");
    Ok(flags)
}

/// Where cargo keeps the sources of dependencies.
#[expect(clippy::disallowed_methods, reason = "cargo's own variables say where its folder is")]
fn cargo_home() -> Result<PathBuf> {
    let given = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = || std::env::home_dir().map(|home| home.join(".cargo"));
    given.or_else(home).context("neither CARGO_HOME nor HOME is set: cargo's folder cannot be told")
}
