//! What is done for each command.

pub(crate) mod builder;
pub(crate) mod buildpack;
mod diff;
mod export;
mod import;
mod inspect;
mod log;
mod login;
pub(crate) mod ls;
mod meta;
pub(crate) mod sandboxed;
mod sbom;
mod tree;
mod verify;
mod write;

use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use drydock_images::Repository;

use self::sandboxed::{Outside, Place};
use crate::cli::{Cli, Command};
use crate::output::{Output, Unwritten};
use crate::progress::{PATIENCE, Progress, Signals};
use crate::rules::Rules;
use crate::{env, exit};

/// What commands work with.
pub(crate) struct Context {
    pub(crate) repository: Repository,
    pub(crate) out: Output,
    pub(crate) progress: Progress,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

/// Does what the command line asks for; gives the exit code.
pub(crate) fn run() -> Result<u8> {
    let began = Instant::now();
    let Cli { global, mut command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help that was asked for goes to standard output. Where nobody reads, nobody is to be told.
            let _ = error.print();
            return Ok(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    match command {
        Command::Completions { shell } => return said(&meta::completions(shell)),
        Command::Man { command } => return said(&meta::manual(command.as_deref())?),
        _ => {}
    }
    let dir = global.layout_dir.unwrap_or_else(env::layout_dir);
    let repository = Repository::new(&dir)?;
    let talks = matches!(
        command,
        Command::Verify { .. }
            | Command::Gc { .. }
            | Command::Flatten { .. }
            | Command::Builder(..)
            | Command::Buildpack(..)
            | Command::Import(_)
            | Command::Export { .. }
            | Command::Build(_)
            | Command::Run(_)
            | Command::Shell(_)
    );
    let (sources, quiet, json) = (global.sources.as_deref(), global.quiet, global.json);
    let until = command.timeout().and_then(|timeout| began.checked_add(timeout.saturating_sub(env::spent())));
    let outside = Outside { sources, quiet, json, began, until };
    let place = sandboxed::enter(&repository, &mut command, &outside)?;
    if let Place::Done(code) = place {
        return Ok(code);
    }
    let signals = Signals::watch()?;
    // What runs in a sandbox has a time of its own to end in.
    signals.end_what_hangs(matches!(place, Place::Outside).then_some(PATIENCE))?;
    let progress = Progress::new(quiet, json, talks, signals, until);
    let out = Output::new(env::no_color());
    let mut context = Context { repository, out, progress, json, quiet };
    let done = dispatch(&mut context, command, place, sources);
    let stopped = context.progress.signals.exit_code();
    match (done, stopped) {
        // It was done before the signal could stop it.
        (Ok(code), _) => context.out.finish().map(|()| code),
        (Err(_), Some(code)) => Ok(code),
        (Err(error), None) => Err(error),
    }
}

fn dispatch(context: &mut Context, command: Command, place: Place, sources: Option<&Path>) -> Result<u8> {
    let until = context.progress.until;
    let rules = || Rules::read(sources, env::all(), until);
    let room = match place {
        Place::Inside(room) => Some(room),
        Place::Outside | Place::Done(_) => None,
    };
    let in_room = "the command has entered a room";
    match command {
        Command::Build(options) => sandboxed::build(context, room.context(in_room)?, &rules()?, &options),
        Command::Run(options) => sandboxed::run(context, room.context(in_room)?, &options),
        Command::Shell(options) => sandboxed::shell(context, room.context(in_room)?, &options),
        Command::Ls { pattern, format } => ls::ls(context, pattern.as_deref(), format.as_ref()),
        Command::Inspect { name, raw, platform } => inspect::inspect(context, &name, raw, &platform.get()),
        Command::Tree { name, layer, platform } => tree::tree(context, &name, layer, &platform.get()),
        Command::Diff { before, after, platform } => diff::diff(context, &before, &after, &platform.get()),
        Command::Sbom { name, format, layer, output, platform } => {
            let choice = sbom::Choice { format, layer: layer.as_deref(), output: output.as_deref() };
            sbom::sbom(context, &name, &choice, &platform.get())
        }
        Command::Log { name, follow, platform } => log::log(context, &name, follow, &platform.get()),
        Command::Verify { names } => verify::verify(context, &names),
        Command::Tag { name, new } => write::tag(context, &name, &new),
        Command::Rm { names } => write::remove(context, &names),
        Command::Gc { dry_run, all } => write::gc(context, dry_run, all, room.as_ref()),
        Command::Flatten { name, new, compression, platform } => {
            write::flatten(context, &name, new.as_deref(), compression, &platform.get())
        }
        Command::Import(options) => import::import(context, room.as_ref(), &rules()?, &options),
        Command::Export { name, target, platform } => {
            export::export(context, &rules()?, &name, &target, platform.as_ref())
        }
        Command::Builder(command) => builder::run(context, command),
        Command::Buildpack(command) => buildpack::run(context, command),
        Command::Login { registry, user, password_stdin, unchecked } => {
            let asked = login::Asked { user, from_stdin: password_stdin, unchecked };
            login::login(context, &rules()?, &registry, asked)
        }
        Command::Logout { registry } => login::logout(context, &rules()?, &registry),
        Command::Completions { .. } | Command::Man { .. } => unreachable!("they need no repository"),
    }
}

fn said(text: &[u8]) -> Result<u8> {
    io::stdout().write_all(text).map_err(Unwritten)?;
    Ok(0)
}

/// As many threads as there are cores.
fn cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
