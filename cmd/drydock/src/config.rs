//! What a user, or a machine, has settled for all builds.
//!
//! ```toml
//! default-builder = "acme/builder"       # where neither the command line nor project.toml names one
//! trusted-builders = ["acme/builder"]    # as with --trust-builder
//! ```

use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use drydock_images::Repository;
use drydock_spec::toml_text;
use serde::Deserialize;

use crate::cli_sandboxed::Build;

/// Bytes that the file may have.
const MAX_FILE: u64 = 1 << 20;

/// The file.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Config {
    default_builder: Option<String>,
    trusted_builders: Vec<String>,
}

impl Config {
    /// The first of these files that is there; without one, nothing is settled.
    pub(crate) fn read(files: impl IntoIterator<Item = PathBuf>) -> Result<Self> {
        for path in files {
            let failed = || format!("cannot read `{}`", path.display());
            match drydock_io::read::read_to_string(&path, MAX_FILE) {
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                text => return toml_text::from_str(&text.with_context(failed)?).with_context(failed),
            }
        }
        Ok(Self::default())
    }

    /// Adds what is settled to what a build has left open.
    pub(crate) fn apply(self, build: &mut Build, repository: &Repository) -> Result<()> {
        build.builder = build.builder.take().or(self.default_builder);
        let Some(builder) = &build.builder else { return Ok(()) };
        let builder = repository.locate(builder)?;
        for name in &self.trusted_builders {
            let trusted = repository.locate(name).context("trusted-builders")?;
            build.trust_builder |= trusted.path() == builder.path();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn what_is_settled_is_added() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::new(dir.path()).unwrap();
        let text = "default-builder = 'acme/builder'\ntrusted-builders = ['index.docker.io/acme/builder:latest', 'acme/b:1']\n";
        for (text, args, want) in [
            (text, &["app"][..], (Some("acme/builder"), true)),
            (text, &["app", "--builder", "acme/b:1"], (Some("acme/b:1"), true)),
            (text, &["app", "--builder", "acme/b:2"], (Some("acme/b:2"), false)),
            (text, &["app", "--builder", "acme/b:2", "--trust-builder"], (Some("acme/b:2"), true)),
            ("", &["app"], (None, false)),
        ] {
            let mut build = Build::of(args);
            let config: Config = toml_text::from_str(text).unwrap();
            config.apply(&mut build, &repository).unwrap();
            assert_eq!((build.builder.as_deref(), build.trust_builder), want, "{args:?}");
        }
    }

    #[test]
    fn the_first_file_counts_and_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("b"), "default-builder = 'b'").unwrap();
        fs::write(path("unknown"), "default_builder = 'b'").unwrap();
        fs::write(path("long"), vec![b'#'; 1 + (1 << 20)]).unwrap();
        mkfifoat(CWD, path("fifo"), Mode::RWXU).unwrap();
        let read = |names: &[&str]| {
            let config = Config::read(names.iter().map(|name| path(name)));
            config.map(|config| config.default_builder).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["none", "b/none", "b", "fifo"]), Ok(Some("b".to_owned())));
        for (name, says) in [
            ("unknown", "unknown field"),
            ("long", "more than 1048576 bytes"),
            ("fifo", "not a regular file"),
        ] {
            let error = read(&[name, "b"]).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
