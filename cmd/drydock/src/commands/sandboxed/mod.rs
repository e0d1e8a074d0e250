//! Commands that run something in a sandbox: what they share.

mod build;
mod caches;
mod descriptor;
pub(crate) mod dockerfile;
mod extend;
pub(crate) mod from_dockerfile;
mod inputs;
mod kept;
mod lifecycle;
mod modules;
mod order;
mod run;
mod source;
mod steps;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use drydock_images::export::{self, Rights};
use drydock_images::{Repository, Watch as _};
use drydock_io::access::User;
use drydock_io::read::is_dir;
use drydock_layout::Image;
use drydock_model::config::ImageConfig;
use drydock_model::digest::DiffId;
use drydock_model::platform::Platform;
use drydock_model::reference::LayoutDir;
use drydock_sandbox::bundle::{Network, Sandbox};
use drydock_sandbox::ids::Ids;
use drydock_sandbox::keys::come_to_foreground;
use drydock_sandbox::network::{Carrier, OwnNetwork, Port};
use drydock_sandbox::room::{self, Entered, Room};
use drydock_sandbox::roots::{self, Root};
use drydock_sandbox::runtime::{Ended, Runtime, Terms};
use drydock_sandbox::session::{self, Session};
use drydock_sandbox::tree::Tree;

pub(crate) use build::build;
pub(crate) use order::Asked;
pub(crate) use run::{run, shell};

use self::from_dockerfile::Fetched;
use super::Context;
use crate::cli::Command;
use crate::cli_import::Import;
use crate::cli_sandboxed::{Build, Reach, Run, Sandboxed, Shell};
use crate::config::Config;
use crate::env;
use crate::exit::Usage;
use crate::progress::{Progress, eprint_line};
use crate::rules::Rules;

/// Where this process is.
pub(crate) enum Place {
    /// Where it was started: the command needs no room.
    Outside,
    /// In a room.
    Inside(Room),
    /// The process in the room has done the command, with this exit code.
    Done(u8),
}

/// What is said for all commands that matters before a room is entered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outside<'a> {
    pub(crate) sources: Option<&'a Path>,
    pub(crate) quiet: bool,
    pub(crate) json: bool,
    /// When the command began.
    pub(crate) began: Instant,
    /// When it is to be stopped.
    pub(crate) until: Option<Instant>,
}

/// Enters a room if a command needs one. Must be called before there is a second thread.
pub(crate) fn enter(repository: &Repository, command: &mut Command, outside: &Outside<'_>) -> Result<Place> {
    if let Command::Build(build) = command {
        descriptor::apply(build)?;
        Config::read(env::config_files())?.apply(build, repository)?;
    }
    let (user, sandboxed) = match command {
        Command::Run(Run { image: started, .. }) | Command::Shell(Shell { image: started, .. }) => {
            come_to_foreground();
            let image = repository.image(&started.name, &started.platform.get())?;
            (numbers(&image.config), &started.sandboxed)
        }
        Command::Build(build) => {
            let builder = builder(repository, build)?;
            (Some(inputs::builder_user(build, &builder.config)?), &build.sandboxed)
        }
        Command::Import(import) => return enter_to_import(import, outside),
        Command::Gc { dry_run: false, .. } if env::cache_dir().is_some_and(|dir| dir.exists()) => {
            return enter_as(SUPERUSER, &[]).or_else(|error| {
                eprint_line(&format!("warning: unpacked images are not cleaned: {error:#}"));
                Ok(Place::Outside)
            });
        }
        _ => return Ok(Place::Outside),
    };
    // Before anything else is done: what is missing is said at once.
    Runtime::find(sandboxed.runtime.as_deref(), env::search_path().as_deref())?;
    // Whose name is known only to the image is the superuser as long as it is not unpacked.
    enter_as(user.unwrap_or(SUPERUSER), &[])
}

/// Who is to be anybody.
const SUPERUSER: User = User { uid: 0, gid: 0 };

/// Enters a room if a Dockerfile is to be built; git repositories are fetched before.
fn enter_to_import(import: &Import, outside: &Outside<'_>) -> Result<Place> {
    let rules = Rules::read(outside.sources, env::all(), outside.until)?;
    if !from_dockerfile::is_asked_for(&rules, import)? {
        return Ok(Place::Outside);
    }
    let runtime = import.dockerfile.sandboxed.runtime.as_deref();
    Runtime::find(runtime, env::search_path().as_deref())?;
    if room::is_inside(env::room().as_deref())? {
        return enter_as(SUPERUSER, &[]);
    }
    match from_dockerfile::fetch(&rules, import, outside)? {
        None => enter_as(SUPERUSER, &[]),
        Some(Fetched::Stopped(code)) => Ok(Place::Done(code)),
        Some(Fetched::All(session)) => {
            let spent = outside.began.elapsed().as_millis().to_string();
            let variables = [(env::FETCHED, session.dir().as_os_str()), (env::SPENT, spent.as_ref())];
            let place = enter_as(SUPERUSER, &variables)?;
            session.end()?;
            Ok(place)
        }
    }
}

/// A build's builder, which must be for this machine, and so must be the run image.
fn builder(repository: &Repository, build: &Build) -> Result<Image> {
    let (host, wanted) = (Platform::host(), build.platform.get());
    let other = |what: &str, platform: &Platform| {
        let text =
            format!("{what} for {platform}, but this machine runs {host}: build on a machine of that kind");
        Err(Usage(text).into())
    };
    if !wanted.is_same(&host) {
        return other("the build is", &wanted);
    }
    let name = build.builder()?;
    let builder = repository.image(name, &wanted)?;
    // Whether it is there at all, the analyzer says.
    let run_image =
        build.run_image.as_deref().and_then(|name| Some((name, repository.image(name, &wanted).ok()?)));
    for (name, image) in
        [(name, &builder)].into_iter().chain(run_image.iter().map(|(name, image)| (*name, image)))
    {
        let platform = image.config.platform();
        if !platform.is_same_machine(&host) {
            return other(&format!("`{name}` is"), &platform);
        }
    }
    Ok(builder)
}

fn enter_as(user: User, handed_on: &[(&str, &OsStr)]) -> Result<Place> {
    let warn = |text: &str| eprint_line(&format!("warning: {text}"));
    Ok(match room::enter(user, env::room().as_deref(), handed_on, &warn)? {
        Entered::Inside(room) => Place::Inside(room),
        Entered::Left(code) => Place::Done(code),
    })
}

/// The user of an image's configuration, if it is given by numbers.
fn numbers(config: &ImageConfig) -> Option<User> {
    let (uid, gid) = config.config.user.split_once(':').unwrap_or((&config.config.user, "0"));
    Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
}

/// The cache's folder.
fn cache_dir() -> Result<PathBuf> {
    env::cache_dir().context("there is no place for a cache: set XDG_CACHE_HOME or HOME to an absolute path")
}

/// What was removed from the cache.
#[derive(Debug, Default)]
pub(crate) struct Cleaned {
    /// How many unpacked images, and folders that killed commands left.
    pub(crate) unpacked: usize,
    /// How many caches of builds.
    pub(crate) builds: usize,
}

/// Removes what has not been used for days: unpacked images, and caches of builds whose image is gone; and what killed commands left. Or
/// `all` that nobody uses now.
pub(crate) fn clean(all: bool) -> Result<Cleaned> {
    let cache = cache_dir()?;
    let unpacked = session::remove_stale(&cache)?
        + roots::clean(&cache, if all { Duration::ZERO } else { roots::KEPT })?;
    Ok(Cleaned { unpacked, builds: caches::clean(&cache, all)? })
}

/// All that it takes to run something.
pub(crate) struct Shop {
    room: Room,
    runtime: Runtime,
    cache: PathBuf,
    network: Network,
    /// That network; it goes before the folder that it is in.
    own_network: Option<OwnNetwork>,
    session: Session,
}

impl Shop {
    pub(crate) fn open(room: Room, options: &Sandboxed, ports: &[Port], progress: &Progress) -> Result<Self> {
        let find = |name: Option<&str>| Runtime::find(name, env::search_path().as_deref());
        let runtime = match options.runtime.as_deref() {
            // The only one that does without a superuser.
            None if room.ids == Ids::One => find(Some("crun")).or_else(|_| find(None))?,
            asked => find(asked)?,
        };
        let limits = options.limits();
        if limits.any() && !drydock_sandbox::limits::are_delegated() {
            let instead = if limits.pids.is_some() { " (processes are limited for each user)" } else { "" };
            progress.say(&format!(
                "warning: no control group is delegated to this user: memory and cores are not limited{instead}"
            ));
        }
        let cache = cache_dir()?;
        session::remove_stale(&cache)?;
        let session = Session::begin(&cache)?;
        let (network, own_network) = match options.network {
            Some(Reach::Host) => (Network::Host, None),
            Some(Reach::None) => (Network::None, None),
            None => match own_network(&session, &room, ports) {
                Ok(own) => (own.seen(), Some(own)),
                Err(error) if !ports.is_empty() => return Err(error.context("cannot publish ports")),
                Err(error) => {
                    progress.say(&format!(
                        "warning: what runs can reach all that this machine can reach, and the machine ({error:#}): --network says \
                         whether it may"
                    ));
                    (Network::Host, None)
                }
            },
        };
        Ok(Self { room, runtime, cache, network, own_network, session })
    }

    /// Removes all that is the command's own.
    pub(crate) fn end(self) -> Result<()> {
        drop(self.own_network);
        self.session.end()
    }

    /// The files of an image, unpacked when nobody has done so before.
    fn unpacked(&self, image: &Image, progress: &Progress) -> Result<Root> {
        let rights = match self.room.ids {
            Ids::All => Rights::Superuser,
            Ids::Several => Rights::Namespace,
            Ids::One => Rights::User,
        };
        let users = self.room.users().context("cannot read the users of this namespace")?;
        let waiting = progress.waiting("waiting for another command that uses this image");
        let root = roots::get(&self.cache, &chain_id(image), &users, &waiting, &mut |to| {
            export::unpack(image, to, rights, progress).map(drop)
        })?;
        progress.advance(0)?;
        Ok(root)
    }

    /// A file system with these files that can be written to.
    fn tree(&self, files: &Path, name: &str, progress: &Progress) -> Result<Tree> {
        Tree::over(files, &self.session, name, &self.room, &|text| progress.note(text), &|| {
            progress.advance(0)
        })
    }

    /// Folders that are no part of a source in which they lie: the repository, and what commands keep.
    fn own_folders(&self, repository: &LayoutDir) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for dir in [repository.path(), &self.cache] {
            let find = || format!("cannot find `{}`", dir.display());
            if is_dir(dir).with_context(find)? {
                found.push(fs::canonicalize(dir).with_context(find)?);
            }
        }
        Ok(found)
    }

    /// Runs a sandbox to its end.
    fn run(
        &self,
        sandbox: &Sandbox,
        name: &str,
        progress: &Progress,
        (stdin, stdout, stderr): (Stdio, Stdio, Stdio),
    ) -> Result<Ended> {
        let signal = || progress.signals.exit_code().map_or(0, |code| usize::from(code) - 128);
        let terms = Terms { stdin, stdout, stderr, signal: &signal, deadline: progress.until };
        self.runtime.run(sandbox, name, &self.session, &self.room, terms)
    }
}

/// A network of the sandboxes' own, if this machine has what it takes.
fn own_network(session: &Session, room: &Room, ports: &[Port]) -> Result<OwnNetwork> {
    let carrier = Carrier::find(room, env::search_path().as_deref());
    let none = "a network of its own takes pasta or slirp4netns, and subordinate ids: apt-get install passt";
    carrier.context(none)?.start(session, room, ports)
}

/// What stands for all layers of an image: equal layers in an equal order have one ID.
fn chain_id(image: &Image) -> String {
    let mut layers = image.layers().map(|layer| layer.diff_id);
    let Some(first) = layers.next() else { return "empty".to_owned() };
    layers.fold(first, |chain, layer| DiffId::of(format!("{chain} {layer}").as_bytes())).hex()
}

/// `NAME=value`, or `NAME` for a variable of this process: the name and its value; none if that is not set.
fn variable(text: &str) -> Result<Option<(String, String)>> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => match env::handed_on(text).map(std::ffi::OsString::into_string) {
            Some(Ok(value)) => (text, Some(value)),
            Some(Err(_)) => return Err(Usage(format!("the variable `{text}` is not UTF-8")).into()),
            None => (text, None),
        },
    };
    let is_name = !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..";
    if !is_name {
        return Err(Usage(format!("`{text}` is no variable: expected `NAME=VALUE` or `NAME`")).into());
    }
    Ok(value.map(|value| (name.to_owned(), value)))
}

/// Sets variables in an environment as runtimes take it.
fn set(env: &mut Vec<String>, name: &str, value: &str) {
    env.retain(|entry| entry.split('=').next() != Some(name));
    env.push(format!("{name}={value}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_have_names() {
        let pair = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        assert_eq!(variable("A=b=c").unwrap(), pair("A", "b=c"));
        assert_eq!(variable("A=").unwrap(), pair("A", ""));
        assert_eq!(variable("DRYDOCK_NO_SUCH_VARIABLE").unwrap(), None);
        for text in ["", "=x", "../x=1", "a/b=1"] {
            assert!(variable(text).is_err(), "{text}");
        }
        let mut env = vec!["A=1".to_owned(), "AB=2".to_owned()];
        set(&mut env, "A", "3");
        assert_eq!(env, ["AB=2", "A=3"]);
    }
}
