//! Keeps credentials where other tools find them, too.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use drydock_io::lock::Lock;

use super::file::{File, key_of, place_to_write, places};
use super::{Auth, AuthError, Credentials, helper};
use crate::error::Error;
use crate::url::registry_name;
use crate::{Environment, Options, Registry};

/// Where credentials are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// In this file, as base64: whoever can read the file has them.
    File(PathBuf),
    /// By this helper.
    Helper(String),
}

/// Checks credentials at a registry, and keeps them in the standard file (`$DOCKER_CONFIG/config.json`, else
/// `$REGISTRY_AUTH_FILE`, else `~/.docker/config.json`), or with the helper that the file names for it. The
/// file is replaced as a whole, with mode 0600, and keeps what else is in it.
pub fn login(options: &Options, registry: &str, credentials: &Credentials) -> Result<Stored, Error> {
    let registry = registry_name(registry);
    let mut checked = options.clone();
    checked.hosts.entry(registry.to_owned()).or_default().auth = Auth::Given(credentials.clone());
    Registry::new(&checked)?.check(registry)?;
    keep(&options.environment, registry, credentials).map_err(|e| Error::new(registry, e.into()))
}

/// The same without a check: for hosts that have git repositories, and no registry that could be asked.
pub fn keep(
    environment: &Environment,
    registry: &str,
    credentials: &Credentials,
) -> Result<Stored, AuthError> {
    let registry = registry_name(registry);
    let path = place_to_write(environment)?;
    edit(&path, |file| match file.helper(registry) {
        Some(name) => {
            helper::store(name, key_of(registry), credentials)?;
            Ok((None, Stored::Helper(format!("docker-credential-{name}"))))
        }
        None => Ok((Some(file.with(registry, Some(credentials)).0), Stored::File(path.clone()))),
    })
}

/// Forgets a registry's credentials in all standard files and helpers. Returns where there were any.
pub fn logout(environment: &Environment, registry: &str) -> Result<Vec<Stored>, AuthError> {
    let registry = registry_name(registry);
    let mut forgotten = Vec::new();
    for path in places(environment) {
        if File::read(&path)?.is_some() {
            forgotten.extend(edit(&path, |file| {
                let mut places = Vec::new();
                if let Some(name) = file.helper(registry)
                    && helper::erase(name, key_of(registry))?
                {
                    places.push(Stored::Helper(format!("docker-credential-{name}")));
                }
                let (text, had_any) = file.with(registry, None);
                if had_any {
                    places.push(Stored::File(path.clone()));
                }
                Ok((had_any.then_some(text), places))
            })?);
        }
    }
    Ok(forgotten)
}

/// Replaces a file by what is made of it, if anything is, while nobody else does the same.
fn edit<T>(
    path: &Path,
    change: impl FnOnce(&File) -> Result<(Option<String>, T), AuthError>,
) -> Result<T, AuthError> {
    let failed = |e: io::Error| AuthError::File { path: path.to_owned(), reason: e.to_string() };
    // Where the file is a link, what it leads to is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let _lock = Lock::acquire(dir, &|| {}).map_err(failed)?;
    let file = File::read(&path)?.unwrap_or_else(|| File::empty(&path));
    let (text, value) = change(&file)?;
    if let Some(text) = text {
        drydock_io::file::write_private(&path, text.as_bytes()).map_err(failed)?;
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn the_file_is_private_and_a_link_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        let environment: Environment = [("HOME", &home)].into_iter().collect();
        let credentials = Credentials::parse("user:hunter2").unwrap();
        let path = home.join(".docker/config.json");
        assert_eq!(keep(&environment, "r.io", &credentials).unwrap(), Stored::File(path.clone()));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&home.join(".docker"))), (0o600, 0o700));
        let real = dir.path().join("real.json");
        fs::rename(&path, &real).unwrap();
        symlink(&real, &path).unwrap();
        keep(&environment, "s.io", &credentials).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        let file = File::read(&real).unwrap().unwrap();
        for registry in ["r.io", "s.io"] {
            assert_eq!(file.find(registry, "x").unwrap().as_ref(), Some(&credentials));
        }
        assert_eq!(logout(&environment, "r.io").unwrap(), [Stored::File(path.clone())]);
        assert_eq!(logout(&environment, "r.io").unwrap(), []);
        assert!(File::read(&path).unwrap().unwrap().find("s.io", "x").unwrap().is_some());
    }
}
