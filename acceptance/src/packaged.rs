//! What the packaging command writes, unpacked again: the executables as they ship, optimised and static.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use flate2::read::GzDecoder;
use tempfile::TempDir;

use crate::executables::{cargo, target_dir};

/// The files that the packaging command writes.
#[derive(Debug, PartialEq, Eq)]
pub struct Files {
    /// The archive for builder tools.
    pub archive: Vec<u8>,
    /// The lifecycle image, as a layout in a tar.
    pub image: Vec<u8>,
}

/// What the archive for builder tools holds; dropped, it is gone.
#[derive(Debug)]
pub struct Packaged {
    /// Where it comes from.
    pub files: Files,
    dir: TempDir,
}

impl Packaged {
    /// Runs the packaging command, and unpacks what it wrote.
    pub fn make() -> Result<Self> {
        let files = pack()?;
        let dir = tempfile::Builder::new().prefix("drydock-packaged-").tempdir().context("make a folder")?;
        let mut tar = tar::Archive::new(GzDecoder::new(files.archive.as_slice()));
        tar.set_preserve_permissions(true);
        tar.unpack(dir.path()).context("unpack the archive")?;
        Ok(Self { files, dir })
    }

    /// Lets every user reach the executables.
    pub fn open_to_all(&self) -> Result<()> {
        crate::stage::chmod(self.dir.path(), 0o755)
    }

    /// The folder that belongs at `/cnb/lifecycle`.
    pub fn lifecycle(&self) -> PathBuf {
        self.dir.path().join("lifecycle")
    }

    /// The text of `lifecycle.toml`.
    pub fn descriptor(&self) -> Result<String> {
        let path = self.dir.path().join("lifecycle.toml");
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }
}

/// Runs the packaging command, never twice at a time: it makes its output folder anew. The paths of the files are what it
/// prints last.
pub fn pack() -> Result<Files> {
    let workspace = crate::here("..");
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "drydock-package", "--manifest-path"]);
    command.arg(workspace.join("Cargo.toml")).arg("--target-dir").arg(target_dir(&workspace)?);
    let output = command.stderr(Stdio::inherit()).output().context("run cargo")?;
    ensure!(output.status.success(), "packaging failed");
    let printed = String::from_utf8(output.stdout).context("read what the packaging command printed")?;
    let mut paths = printed.lines().rev();
    let mut read = || {
        let path = paths.next().context("the packaging command printed too little")?;
        std::fs::read(path).with_context(|| format!("read {path}"))
    };
    Ok(Files { archive: read()?, image: read()? })
}
