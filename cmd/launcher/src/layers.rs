//! The layers of an app image, and the files in them that matter to a process.

use alloc::vec::Vec;

use drydock_env::EnvFile;

use crate::error::{Context, Error, IoError};
use crate::limits::ENV_DIR;
use crate::metadata::Buildpack;
use crate::path;
use crate::system::{Entry, Kind, System};
use crate::text::lossy;

/// The layer folders of each buildpack, in byte order; none for a buildpack without a folder.
pub(crate) fn of_buildpacks(
    system: &impl System,
    layers_dir: &[u8],
    buildpacks: &[Buildpack],
) -> Result<Vec<Vec<Vec<u8>>>, Error> {
    let layers_of = |buildpack: &Buildpack| {
        let folder: Vec<u8> =
            buildpack.id.iter().map(|&byte| if byte == b'/' { b'_' } else { byte }).collect();
        let dir = path::join(layers_dir, &folder);
        if !exists(system, &dir).context("find buildpack directory")? {
            return Ok(Vec::new());
        }
        paths_in(system, &dir, |kind| kind == Kind::Directory).context("add layer root")
    };
    buildpacks.iter().map(layers_of).collect()
}

/// The files in a folder, in byte order; none if there is no such folder.
pub(crate) fn files_in(system: &impl System, dir: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    paths_in(system, dir, |kind| kind != Kind::Directory)
}

/// The environment files in a folder, in byte order; none if there is no such folder. Together they have
/// at most [`ENV_DIR`] bytes.
pub(crate) fn env_files_in(system: &impl System, dir: &[u8]) -> Result<Vec<EnvFile>, IoError> {
    let mut files = Vec::new();
    let mut left = ENV_DIR;
    for entry in read_dir(system, dir)? {
        let path = path::join(dir, &entry.name);
        let kind = if entry.kind == Kind::Symlink { system.kind(&path)? } else { entry.kind };
        if kind != Kind::Directory {
            let contents = system.read_file(&path, left)?;
            left -= contents.len();
            files.push(EnvFile { name: entry.name, contents });
        }
    }
    Ok(files)
}

/// Whether there is anything at a path.
pub(crate) fn exists(system: &impl System, path: &[u8]) -> Result<bool, IoError> {
    Ok(none_if_missing(system.kind(path))?.is_some())
}

/// `None` where nothing is there.
pub(crate) fn none_if_missing<T>(result: Result<T, IoError>) -> Result<Option<T>, IoError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn paths_in(system: &impl System, dir: &[u8], wanted: impl Fn(Kind) -> bool) -> Result<Vec<Vec<u8>>, Error> {
    let entries =
        read_dir(system, dir).context(format_args!("failed to list files in dir '{}'", lossy(dir)))?;
    Ok(entries.iter().filter(|entry| wanted(entry.kind)).map(|entry| path::join(dir, &entry.name)).collect())
}

fn read_dir(system: &impl System, dir: &[u8]) -> Result<Vec<Entry>, IoError> {
    let mut entries = none_if_missing(system.read_dir(dir))?.unwrap_or_default();
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}
