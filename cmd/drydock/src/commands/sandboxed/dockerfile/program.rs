//! Runs the programs of `RUN`, each in a sandbox of its own on the files of its stage.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Result, bail};
use drydock_extend::in_place::{Identity, MountPoint, Runner, add_mount_points};
use drydock_extend::plan::{self, Command, Program};
use drydock_io::access::User;
use drydock_registry::ErrorKind;
use drydock_sandbox::bundle::{self, Mount, Network, Sandbox};

use super::super::Shop;
use super::Task;
use super::mounts::Mounts;
use crate::progress::Progress;

/// Where programs see the folder with scripts.
pub(super) const SCRIPTS: &str = "/.drydock";

/// What runs one program.
pub(super) struct Programs<'a> {
    pub(super) shop: &'a Shop,
    pub(super) task: &'a Task<'a>,
    pub(super) progress: &'a Progress,
    /// A word for the folders of its sandbox.
    pub(super) name: String,
    /// The files of its stage.
    pub(super) root: PathBuf,
    pub(super) mounts: Mounts,
    pub(super) scripts: PathBuf,
}

impl Programs<'_> {
    /// Makes in a folder, which is to lie on the files of the stage, what its mounts need.
    pub(super) fn add_mount_points(&self, program: &Program, before: &Path, points: &Path) -> Result<()> {
        let nobody = Identity { owner: drydock_tar::Owner::ROOT, groups: Vec::new(), home: String::new() };
        let sandbox = self.sandbox(&[], program, &nobody);
        let wanted = bundle::mount_points(&sandbox, &self.shop.room)?;
        let wanted: Vec<MountPoint<'_>> = wanted
            .iter()
            .map(|(path, is_dir)| if *is_dir { MountPoint::Dir(path) } else { MountPoint::File(path) })
            .collect();
        add_mount_points(before, points, &wanted)
    }

    fn sandbox(&self, words: &[String], program: &Program, identity: &Identity) -> Sandbox {
        let variables = program.env.iter().chain(self.mounts.env.iter().map(|(name, value)| (name, value)));
        let scripts = Mount { from: self.scripts.clone(), to: SCRIPTS.to_owned(), writable: false };
        let scripts = matches!(program.command, Command::Script(_)).then_some(scripts);
        Sandbox {
            root: self.root.clone(),
            writable_root: true,
            args: words.to_owned(),
            env: variables.map(|(name, value)| format!("{name}={value}")).collect(),
            working_dir: program.dir.clone(),
            user: User { uid: identity.owner.uid, gid: identity.owner.gid },
            groups: identity.groups.clone(),
            // As everywhere where images are built: `sudo` works.
            new_privileges: true,
            mounts: self.mounts.seen.iter().cloned().chain(scripts).collect(),
            network: match program.network {
                plan::Network::None => Network::None,
                plan::Network::Default | plan::Network::Host => self.shop.network.clone(),
            },
            limits: self.task.limits,
            terminal: false,
        }
    }
}

impl Runner for Programs<'_> {
    type Failure = anyhow::Error;

    fn run(&self, words: &[String], program: &Program, identity: &Identity) -> Result<()> {
        let sandbox = self.sandbox(words, program, identity);
        let (stdout, stderr) = self.task.listener.streams()?;
        let streams = (Stdio::null(), stdout, stderr);
        let ended = self.shop.run(&sandbox, &self.name, self.progress, streams)?;
        if ended.timed_out {
            bail!(ErrorKind::TimeIsOver);
        }
        if self.progress.signals.exit_code().is_some() {
            bail!("it is stopped by a signal");
        }
        match ended.code {
            0 => Ok(()),
            code => bail!("exit code {code}"),
        }
    }
}
