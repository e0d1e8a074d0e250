//! The executables under test: with debug assertions and overflow checks, and quick to build. As they ship, optimised and
//! static, they are under test where they are packed.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tempfile::TempDir;

/// A folder with the executables that stand at `/cnb/lifecycle`; dropped, it is gone.
#[derive(Debug)]
pub struct Executables {
    dir: TempDir,
}

/// What this workspace has of them. Each in a build of its own, lest the phases get features that only others ask for.
const PACKAGES: [&str; 2] = ["drydock", "drydock-cli"];

/// What is of interest in a line of cargo's messages.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
}

impl Executables {
    /// Has cargo bring all executables up to date, the launcher's own workspace included, and gathers what cargo names:
    /// never a file that an earlier build left. Cargo locks its target folder, so that test runs wait for one another.
    pub fn build() -> Result<Self> {
        let workspace = crate::here("..");
        let target = target_dir(&workspace)?;
        let mut built = Vec::new();
        for package in PACKAGES {
            built.extend(build(&workspace.join("Cargo.toml"), &["--package", package, "--bins"], &target)?);
        }
        // The launcher has no other build than that which ships.
        built.extend(build(&workspace.join("cmd/launcher/Cargo.toml"), &["--release", "--bins"], &target)?);
        let dir =
            tempfile::Builder::new().prefix("executables-").tempdir_in(&target).context("make a folder")?;
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).context("open the folder to all")?;
        for from in built {
            let to = dir.path().join(from.file_name().context("an executable has a name")?);
            fs::hard_link(&from, &to)
                .with_context(|| format!("link {} to {}", from.display(), to.display()))?;
        }
        Ok(Self { dir })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// Has cargo bring the one executable of a package up to date that is no part of this workspace; gives its path, which
/// is in a folder of its own in this workspace's target folder. `dir` is the package's folder.
pub fn build_apart(dir: &Path) -> Result<PathBuf> {
    let name = dir.file_name().context("a package's folder has a name")?;
    let target = target_dir(&crate::here(".."))?.join(name);
    build(&dir.join("Cargo.toml"), &["--locked"], &target)?.pop().context("cargo names the executable")
}

/// Where cargo puts what it builds in this workspace.
pub(crate) fn target_dir(workspace: &Path) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let output = cargo()
        .args(["metadata", "--format-version=1", "--no-deps", "--manifest-path"])
        .arg(workspace.join("Cargo.toml"))
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed");
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("parse what cargo metadata printed")?;
    Ok(metadata.target_directory)
}

/// Builds one workspace; gives the paths of its executables.
fn build(manifest: &Path, what: &[&str], target: &Path) -> Result<Vec<PathBuf>> {
    let mut child = cargo()
        .args(["build", "--message-format=json-render-diagnostics", "--manifest-path"])
        .arg(manifest)
        .args(what)
        .arg("--target-dir")
        .arg(target)
        .stdout(Stdio::piped())
        .spawn()
        .context("run cargo build")?;
    let messages = child.stdout.take().context("cargo's output is a pipe")?;
    let mut executables = Vec::new();
    for line in BufReader::new(messages).lines() {
        let message: Message = serde_json::from_str(&line?).context("parse what cargo build printed")?;
        executables.extend(message.executable);
    }
    ensure!(child.wait()?.success(), "cargo build failed for {}", manifest.display());
    ensure!(!executables.is_empty(), "cargo build made no executable of {}", manifest.display());
    Ok(executables)
}

/// The cargo that runs the tests; without what it told this process about this package: libraries would be built anew
/// whose build scripts look at that.
#[expect(clippy::disallowed_methods, reason = "cargo says by variables where it is, and what it builds")]
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}
