//! Git repositories are fetched before the room is entered: helpers that have credentials, agents and SSH know the user by his own
//! number, which he has only outside. What was fetched lies in a session of its own, of which the process in the room is told by a
//! variable.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use drydock_images::import;
use drydock_model::digest::Digest;
use drydock_registry::git::{Git, GitAddress};
use drydock_registry::sources::{Place, Source};
use drydock_sandbox::session::Session;
use serde_json::json;

use crate::cli_import::Import;
use crate::commands::import::{first_of, is_built, sources};
use crate::commands::sandboxed::{Outside, cache_dir};
use crate::env;
use crate::output::printable;
use crate::progress::{Signals, eprint_line};
use crate::rules::Rules;

/// A hash and a line feed.
const MAX_COMMIT: u64 = 65;

/// A repository that is to be fetched from the first of these that has it.
type Places<'a> = Vec<(GitAddress, Option<&'a Source>)>;

/// What was fetched.
pub(in crate::commands::sandboxed) enum Fetched {
    /// What was asked for is in this session.
    All(Session),
    /// A signal stopped it: the exit code.
    Stopped(u8),
}

/// Whether something is to be built by a Dockerfile.
pub(in crate::commands::sandboxed) fn is_asked_for(rules: &Rules, options: &Import) -> Result<bool> {
    Ok(sources(rules, options)?.iter().any(|source| is_built(rules, source)))
}

/// Fetches all git repositories that are asked for.
pub(in crate::commands::sandboxed) fn fetch(
    rules: &Rules,
    options: &Import,
    outside: &Outside<'_>,
) -> Result<Option<Fetched>> {
    let wanted = wanted(rules, options)?;
    if wanted.is_empty() {
        return Ok(None);
    }
    let signals = Signals::watch()?;
    let cache = cache_dir()?;
    let session = Session::begin(&cache)?;
    for places in &wanted {
        let get = |place: &_| one(rules, options, place, &session, &signals, outside);
        match first_of(places, &signals, &eprint_line, get) {
            Err(_) if signals.exit_code().is_some() => {
                session.end()?;
                return Ok(Some(Fetched::Stopped(signals.exit_code().unwrap_or_default())));
            }
            fetched => fetched.map(drop)?,
        }
    }
    Ok(Some(Fetched::All(session)))
}

/// What is to be fetched, and may be.
fn wanted<'a>(rules: &'a Rules, options: &Import) -> Result<Vec<Places<'a>>> {
    let mut wanted = Vec::new();
    for source in sources(rules, options)? {
        match source {
            import::Source::Dockerfile(import::BuildPlace::Git(text)) => {
                let address: GitAddress = text.parse()?;
                let by = rules.sources.permit_git(&address)?;
                wanted.push(vec![(address, by)]);
            }
            import::Source::Named(name) => {
                // What cannot be found is told of when it is imported.
                let Ok(found) = rules.sources.find(&name, None) else { continue };
                let places: Places<'_> = found
                    .places
                    .into_iter()
                    .filter_map(|place| match place {
                        Place::Git(address) => Some((address, found.source)),
                        _ => None,
                    })
                    .collect();
                if !places.is_empty() {
                    wanted.push(places);
                }
            }
            _ => {}
        }
    }
    Ok(wanted)
}

fn one(
    rules: &Rules,
    options: &Import,
    (address, by): &(GitAddress, Option<&Source>),
    session: &Session,
    signals: &Signals,
    outside: &Outside<'_>,
) -> Result<()> {
    match (outside.json, outside.quiet) {
        (_, true) => {}
        (true, _) => {
            eprint_line(&json!({"event": "note", "text": format!("fetching {address}")}).to_string());
        }
        (false, false) => eprint_line(&printable(&format!("fetching {address}"))),
    }
    let key = key(address);
    let dir = session.make(&format!("{key}.git"))?;
    let path = session.dir().join(format!("{key}.tar"));
    let write = || format!("cannot write `{}`", path.display());
    let mut file = File::create(&path).with_context(write)?;
    let stopped = || signals.exit_code().is_some();
    let ssh_key = options.dockerfile.ssh_key.as_deref();
    let git = Git { options: &rules.options(*by), ssh_key, stopped: &stopped };
    let fetched = git.archive(address, &dir, &mut file);
    // Only the files of the commit are needed.
    drydock_tar::remove_all(&dir).with_context(|| format!("cannot remove `{}`", dir.display()))?;
    let commit = match fetched {
        // What was not fetched from here may be had from elsewhere.
        Err(error) => {
            fs::remove_file(&path).with_context(write)?;
            return Err(error.into());
        }
        Ok(commit) => commit,
    };
    fs::write(commit_path(session.dir(), &key), commit).with_context(write)
}

/// The tar of a commit's files, and its hash.
pub(super) fn find(address: &GitAddress) -> Result<(PathBuf, String)> {
    let none = || format!("`{}` was not fetched", address.url);
    let dir = env::fetched().with_context(none)?;
    let key = key(address);
    let commit = drydock_io::read::read_to_string(&commit_path(&dir, &key), MAX_COMMIT).with_context(none)?;
    Ok((dir.join(format!("{key}.tar")), commit))
}

fn commit_path(dir: &Path, key: &str) -> PathBuf {
    dir.join(format!("{key}.commit"))
}

fn key(address: &GitAddress) -> String {
    Digest::of(address.to_string().as_bytes()).hex()[..16].to_owned()
}
