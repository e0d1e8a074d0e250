//! The executable `drydock` on repositories of layouts: those that are checked in, those that other people's tools and the
//! phases make, and damaged and hostile ones.

pub(crate) mod at_once;
pub(crate) mod builders;
mod carrying;
mod damaged;
mod disks;
mod faults;
mod file_trees;
mod hostile;
mod killed;
mod looking;
mod registries;
mod registry_faults;
pub(crate) mod served;
mod terminal;
mod writing;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::{Layout, REF_NAME};
use drydock_acceptance::project;
use drydock_acceptance::run::Output;
use drydock_acceptance::tree::{self, Tree};
use drydock_acceptance::{here, sha256};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tempfile::TempDir;
use walkdir::WalkDir;

use crate::Built;

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    let mut trials = looking::trials(executables);
    trials.extend(writing::trials(executables));
    trials.extend(carrying::trials(executables));
    trials.extend(file_trees::trials(executables));
    trials.extend(damaged::trials(executables));
    trials.extend(registries::trials(executables));
    trials.extend(registry_faults::trials(executables));
    trials.extend(disks::trials(executables));
    trials.extend(faults::trials(executables));
    trials.extend(killed::trials(executables));
    trials.extend(at_once::trials(executables));
    trials.extend(hostile::trials(executables));
    trials.extend(terminal::trials(executables));
    trials.extend(builders::trials(executables));
    trials
}

/// A repository in a temporary folder.
struct Repository {
    dir: TempDir,
    executable: PathBuf,
}

impl Repository {
    fn new(executables: &Built) -> Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("drydock-repository-").tempdir().context("make a folder")?;
        Ok(Self { dir, executable: executables.get()?.dir().join("drydock") })
    }

    /// With one of the acceptance images by its own name.
    fn with(executables: &Built, images: &[&str]) -> Result<Self> {
        let repository = Self::new(executables)?;
        for image in images {
            copy(&here("images").join(image), &repository.path(image))?;
        }
        Ok(repository)
    }

    /// Where the image of a short name lies.
    fn path(&self, name: &str) -> PathBuf {
        let (repository, tag) = name.split_once(':').unwrap_or((name, "latest"));
        self.dir.path().join("index.docker.io/library").join(repository).join(tag)
    }

    fn layout(&self, name: &str) -> Layout {
        Layout::new(self.path(name))
    }

    fn tree(&self) -> Result<Tree> {
        tree::read(self.dir.path())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_under(&["timeout", "--foreground", "--signal=KILL", "120"], arguments)
    }

    /// Started by another program, whose words come first; or by none.
    fn command_under(&self, starter: &[&str], arguments: &[&str]) -> Command {
        let executable = self.executable.as_os_str();
        let mut words =
            starter.iter().map(OsStr::new).chain([executable]).chain(arguments.iter().map(OsStr::new));
        let mut command = Command::new(words.next().unwrap_or(executable));
        command.args(words).current_dir(self.dir.path()).stdin(Stdio::null()).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").env("CNB_OCI_LAYOUT_PATH", self.dir.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        project::run(&mut self.command(arguments))
    }

    /// What it prints; it must succeed.
    fn text(&self, arguments: &[&str]) -> Result<String> {
        let output = project::succeed(&mut self.command(arguments))?;
        String::from_utf8(output.stdout).context("the answer is UTF-8")
    }

    /// The answer as JSON, which may come with this exit code.
    fn json(&self, exit: i32, arguments: &[&str]) -> Result<Value> {
        let output = self.run(&[&["--json", "--quiet"], arguments].concat())?;
        ensure!(output.exit == exit, "{arguments:?}: exit code {}\n{}", output.exit, output.text());
        serde_json::from_slice(&output.stdout).with_context(|| format!("{arguments:?}: {}", output.text()))
    }

    /// Fails with this exit code, says this, and leaves the repository as it was.
    fn refused(&self, exit: i32, says: &str, arguments: &[&str]) -> Result<()> {
        let before = self.tree()?;
        let output = self.run(arguments)?;
        let said = || format!("{arguments:?}: exit code {}\n{}", output.exit, output.text());
        ensure!(output.exit == exit, "{}", said());
        ensure!(output.text().contains(says), "`{says}` is not said: {}", said());
        let changed = tree::differences(&before, &self.tree()?);
        ensure!(changed.is_empty(), "the repository has changed: {}\n{}", changed.join("\n"), said());
        Ok(())
    }

    /// Fails with this exit code, says this, and leaves every name as it was. Whole blobs that nothing leads to may have
    /// come: the next attempt takes them.
    fn fails(&self, exit: i32, says: &str, arguments: &[&str]) -> Result<()> {
        let names = || self.text(&["ls", "--format", "{name} {digest}"]);
        let before = names()?;
        let output = self.run(arguments)?;
        let said = || format!("{arguments:?}: exit code {}\n{}", output.exit, output.text());
        ensure!(output.exit == exit, "{}", said());
        ensure!(output.text().contains(says), "`{says}` is not said: {}", said());
        ensure!(names()? == before, "names have changed: {}", said());
        self.is_tidy().with_context(said)
    }

    fn is_tidy(&self) -> Result<()> {
        is_tidy(self.dir.path())
    }

    /// Writes an image of these tars, which are its layers as they are.
    fn write_image(&self, name: &str, tars: &[Vec<u8>]) -> Result<()> {
        let dir = self.path(name);
        let put = |bytes: &[u8], media_type: &str| -> Result<Value> {
            let digest = sha256(bytes);
            let blobs = dir.join("blobs/sha256");
            fs::create_dir_all(&blobs)?;
            fs::write(blobs.join(&digest["sha256:".len()..]), bytes)?;
            Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
        };
        let ids: Vec<String> = tars.iter().map(|tar| sha256(tar)).collect();
        let layers = tars.iter().map(|tar| put(tar, "application/vnd.oci.image.layer.v1.tar"));
        let layers: Vec<Value> = layers.collect::<Result<_>>()?;
        let config = json!({"architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": ids}});
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": manifest_type, "layers": layers,
            "config": put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json")?});
        let mut descriptor = put(manifest.to_string().as_bytes(), manifest_type)?;
        descriptor["annotations"] = json!({REF_NAME: dir.file_name().and_then(|name| name.to_str())});
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        fs::write(dir.join("index.json"), index.to_string()).context("write the index")
    }
}

/// In a repository no temporary file is there, and every blob is whole, whether anything leads to it or not.
fn is_tidy(repository: &Path) -> Result<()> {
    for entry in WalkDir::new(repository) {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        ensure!(!name.starts_with(".drydock-"), "{} is left", entry.path().display());
        if entry.path().parent().is_some_and(|dir| dir.ends_with("blobs/sha256")) {
            let found = sha256(&fs::read(entry.path())?);
            ensure!(found == format!("sha256:{name}"), "{} is {found}", entry.path().display());
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("it has a parent")?).context("make a folder")?;
    project::succeed(Command::new("cp").arg("-r").arg(from).arg(to)).map(drop)
}

/// An entry of a tar: kind, name, what it holds or leads to.
type Entry<'a> = (tar::EntryType, &'a str, &'a str);

/// A tar of entries whatever they are called.
fn tar_of(entries: &[Entry<'_>]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (kind, name, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(*kind);
        // The setters refuse what a hostile archive has.
        let fields = header.as_old_mut();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        let is_link = kind.is_hard_link() || kind.is_symlink();
        if is_link {
            fields.linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        let content = if is_link { "" } else { content };
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, content.as_bytes())?;
    }
    Ok(archive.into_inner()?)
}
