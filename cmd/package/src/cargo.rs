//! Questions to cargo and rustc.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// The cargo that runs this program, or else the one in `PATH`.
pub fn command() -> Command {
    #[expect(clippy::disallowed_methods, reason = "cargo says by a variable where it is")]
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Command::new(cargo)
}

/// Where cargo puts what it builds in a workspace.
pub fn target_dir(workspace: &Path) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let mut command = command();
    command.args(["metadata", "--format-version=1", "--no-deps", "--manifest-path"]);
    let text = answer(command.arg(workspace.join("Cargo.toml")))?;
    let metadata: Metadata = serde_json::from_str(&text).context("parse what cargo metadata printed")?;
    Ok(metadata.target_directory)
}

/// Where cargo keeps what it downloads.
#[expect(clippy::disallowed_methods, reason = "cargo's own variables say where its folder is")]
pub fn home() -> Result<PathBuf> {
    let given = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = || std::env::home_dir().map(|home| home.join(".cargo"));
    given.or_else(home).context("neither CARGO_HOME nor HOME is set: cargo's folder cannot be told")
}

/// The version of the compiler, and so of the standard library.
pub fn rust_version(workspace: &Path) -> Result<String> {
    let text = answer(Command::new("rustc").arg("-vV").current_dir(workspace))?;
    let release = text.lines().find_map(|line| line.strip_prefix("release: "));
    Ok(release.context("rustc -vV names no release")?.to_owned())
}

/// What a command prints. Its errors go to where those of this program go.
pub(crate) fn answer(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_owned();
    let first = command.get_args().next().unwrap_or(OsStr::new("")).to_owned();
    let name = || format!("{} {}", name.display(), first.display());
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("run {}", name()))?;
    ensure!(output.status.success(), "{} failed: {}", name(), output.status);
    String::from_utf8(output.stdout).with_context(|| format!("read what {} printed", name()))
}
