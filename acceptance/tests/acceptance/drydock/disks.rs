//! File systems that are full or may only be read: what is written there comes whole or not at all.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::run;
use libtest_mimic::Trial;

use super::Repository;
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("drydock::full_disks_keep_what_was_there", full_disks_keep_what_was_there),
            ("drydock::disks_that_may_only_be_read", disks_that_may_only_be_read),
        ],
    )
}

/// Runs a command on a repository that is in a file system of its own: it has what is in the folder `$1`, the options `$2`,
/// and then `$3`.
const IN_FILE_SYSTEM: &str = r#"
mount -t tmpfs -o "$2" repository . && cd "$PWD" && cp -a "$1/." . || exit 99
[ -z "$3" ] || mount -o "remount,$3" . || exit 99
before=$(find . -type f -exec sha256sum {} + | sort)
shift 3
"$@"
code=$?
[ "$before" = "$(find . -type f -exec sha256sum {} + | sort)" ] && [ -z "$(find . -type d -empty)" ] || echo "CHANGED"
exit $code
"#;

/// A repository with two images that share no layer, and the first one as archives beside it.
struct Images {
    repository: Repository,
    empty: Repository,
    archives: tempfile::TempDir,
}

impl Images {
    fn new(executables: &Built) -> Result<Self> {
        let (repository, _) = super::registry_faults::image(executables)?;
        let archives = tempfile::tempdir()?;
        for kind in ["oci-archive", "docker-archive"] {
            let to = format!("{kind}:{}", archives.path().join(kind).display());
            repository.text(&["--quiet", "export", "image", &to])?;
        }
        super::copy(&drydock_acceptance::here("images/run"), &repository.path("run"))?;
        Ok(Self { repository, empty: Repository::new(executables)?, archives })
    }

    fn source(&self, kind: &str) -> String {
        format!("{kind}:{}", self.archives.path().join(kind).display())
    }

    /// What came of a command: its exit code, what it said, and whether it changed something.
    fn run(&self, options: &str, then: &str, arguments: &[&str]) -> Result<(i32, String, bool)> {
        let from = path(self.repository.dir.path())?;
        let starter = ["unshare", "--mount", "sh", "-c", IN_FILE_SYSTEM, "sh", from, options, then];
        let starter = [&starter[..], &["timeout", "--foreground", "--signal=KILL", "60"]].concat();
        let output = run(&mut self.empty.command_under(&starter, arguments))?;
        let said = output.text();
        let has_changed = said.contains("CHANGED");
        Ok((output.exit, said, has_changed))
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("temporary folders are UTF-8")
}

fn full_disks_keep_what_was_there(executables: &Built) -> Result<()> {
    let images = Images::new(executables)?;
    let (oci, docker) = (images.source("oci-archive"), images.source("docker-archive"));
    // All that is there, and the tree's folders.
    let used = 1_200;
    let sizes = (0..=1_600).step_by(160).map(|more| format!("size={}k", used + more));
    let inodes = (16..=48).step_by(2).map(|inodes| format!("size=8m,nr_inodes={inodes}"));
    let options: Vec<String> = sizes.chain(inodes).collect();
    for arguments in [
        &["import", &oci, "new"][..],
        &["import", &oci, "run"],
        &["import", &docker, "new", "--flatten"],
        &["flatten", "image", "new"],
        &["flatten", "image"],
        &["tag", "image", "new", "run"],
    ] {
        let (mut failures, mut successes) = (0, 0);
        for options in &options {
            let (exit, said, has_changed) = images.run(options, "", arguments)?;
            let what = || format!("{arguments:?} with {options}: exit code {exit}\n{said}");
            match exit {
                // There is not room for what is to be there before.
                99 => {}
                0 => successes += 1,
                4 => {
                    ensure!(said.contains("No space left on device"), "{}", what());
                    ensure!(!has_changed, "{}", what());
                    failures += 1;
                }
                _ => anyhow::bail!("{}", what()),
            }
        }
        ensure!(failures >= 2 && successes >= 2, "{arguments:?}: {failures} failures, {successes} successes");
    }
    Ok(())
}

fn disks_that_may_only_be_read(executables: &Built) -> Result<()> {
    let images = Images::new(executables)?;
    fs::write(images.repository.path("run").join(".drydock-1-1"), "left")?;
    let oci = images.source("oci-archive");
    for arguments in [
        &["import", &oci, "new"][..],
        &["import", &oci, "run"],
        &["flatten", "image"],
        &["tag", "image", "new"],
        &["rm", "image"],
        &["gc"],
    ] {
        let (exit, said, has_changed) = images.run("size=16m", "ro", arguments)?;
        ensure!(exit == 4 && said.contains("Read-only file system"), "{arguments:?}: {exit}\n{said}");
        ensure!(!has_changed, "{arguments:?}: {said}");
    }
    for arguments in [&["verify"][..], &["ls"], &["gc", "--dry-run"]] {
        let (exit, said, has_changed) = images.run("size=16m", "ro", arguments)?;
        ensure!(exit == 0 && !has_changed, "{arguments:?}: {exit}\n{said}");
    }
    Ok(())
}
