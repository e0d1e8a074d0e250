//! Runs the programs of `RUN` as the users that they belong to.

use std::process::Command;
use std::thread;

use anyhow::{Context as _, anyhow};
use drydock_extend::in_place::{Identity, Runner};
use drydock_extend::plan;
use rustix::fs::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::process::{self, Held, Program, describe};
use crate::{Error, Log};

/// Runs programs in the file system that this process runs in.
pub(super) struct Programs<'a> {
    pub(super) held: &'a Held<'a>,
    pub(super) log: &'a dyn Log,
    /// The ID of the extension.
    pub(super) extension: &'a str,
}

impl Runner for Programs<'_> {
    type Failure = Error;

    fn run(&self, words: &[String], program: &plan::Program, identity: &Identity) -> Result<(), Error> {
        let [first, rest @ ..] = words else { return Err(anyhow!("there is no program").into()) };
        let mut command = Command::new(first);
        command.args(rest).env_clear().envs(&program.env).current_dir(&program.dir);
        let run = |command| {
            let program = Program { command, output: &mut *self.log.output(self.extension) };
            process::run(program, self.held)
        };
        // A thread can become another user for itself, and then starts what is that user's.
        let ran = if identity.owner.uid == 0 && identity.owner.gid == 0 {
            run(command)
        } else {
            thread::scope(|scope| {
                let started = thread::Builder::new().spawn_scoped(scope, || {
                    become_user(identity)?;
                    run(command)
                });
                let thread = started.context("failed to start a thread")?;
                thread.join().unwrap_or_else(|_| Err(anyhow!("the thread that runs it has panicked").into()))
            })
        };
        // In a session of its own it was not ended with its program. It must not change what comes, nor keep root's rights.
        let status = self.held.end_left(ran)?.with_context(|| format!("failed to run `{first}`"))?;
        if status.success() { Ok(()) } else { Err(anyhow!(describe(status)).into()) }
    }
}

fn become_user(identity: &Identity) -> anyhow::Result<()> {
    let (uid, gid) = (Uid::from_raw(identity.owner.uid), Gid::from_raw(identity.owner.gid));
    // The user's own is one of them, as container runtimes have it.
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).chain([gid]).collect();
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    // The groups first: without root there is no right to change them.
    set_thread_groups(&groups)
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid))
        // The change of the user leaves those that files may turn into others.
        .and_then(|()| if uid.is_root() { Ok(()) } else { set_capabilities(None, none) })
        .with_context(|| format!("failed to become user {}:{}", identity.owner.uid, identity.owner.gid))
}
