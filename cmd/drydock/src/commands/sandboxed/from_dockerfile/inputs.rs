//! The Dockerfile, its context and what is left out of it: all in the source, whatever paths and links say.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use drydock_extend::language::{IgnoreRules, MAX_TEXT};
use drydock_io::lock::Identity;
use rustix::fs::OFlags;

use super::super::source::{self, open};
use crate::cli_import::DockerfileOptions;

/// Bytes that a `.dockerignore` may have.
pub(crate) const MAX_IGNORE: u64 = 1 << 20;

/// What the build file is called, if nobody says otherwise.
const DOCKERFILE: &str = "Dockerfile";

/// What a Dockerfile is built from.
#[derive(Debug)]
pub(super) struct Inputs {
    /// The folder that files are copied from.
    pub(super) context: PathBuf,
    /// What the Dockerfile is called in the source.
    pub(super) name: String,
    /// What it says.
    pub(super) dockerfile: String,
    /// What is left out of the context.
    pub(super) ignore: IgnoreRules,
    /// Folders that are no part of it.
    pub(super) without: Vec<Identity>,
}

impl Inputs {
    /// Those in the source's folder.
    pub(super) fn read(root: &Path, options: &DockerfileOptions) -> Result<Self> {
        let folder_name = options.context.as_deref().unwrap_or(".");
        let context = folder(root, folder_name).context("cannot use the context")?;
        let name = match (&options.file, folder_name) {
            (Some(file), _) => file.clone(),
            (None, ".") => DOCKERFILE.to_owned(),
            (None, folder) => format!("{}/{DOCKERFILE}", folder.trim_end_matches('/')),
        };
        let text = |name: &str, limit| {
            source::text(root, name, limit).with_context(|| format!("cannot use `{name}`"))
        };
        let dockerfile = text(&name, MAX_TEXT as u64)?;
        let dockerfile =
            dockerfile.with_context(|| format!("there is no `{name}` in the source: --file names it"))?;
        let own = format!("{name}.dockerignore");
        let (ignore_name, ignore) = if let Some(text) = text(&own, MAX_IGNORE)? {
            (own, Some(text))
        } else {
            let name = ".dockerignore";
            let text =
                source::text(&context, name, MAX_IGNORE).with_context(|| format!("cannot use `{name}`"));
            (name.to_owned(), text?)
        };
        let ignore = IgnoreRules::parse(&ignore.unwrap_or_default());
        let ignore = ignore.map_err(|problem| anyhow!("`{ignore_name}`: {problem}"))?;
        Ok(Self { context, name, dockerfile, ignore, without: Vec::new() })
    }

    /// Leaves out of the context what is at these paths.
    pub(super) fn leave_out(&mut self, paths: &[PathBuf]) -> Result<()> {
        for path in paths {
            let identity =
                Identity::of(path).with_context(|| format!("cannot look at `{}`", path.display()))?;
            self.without.push(identity);
            match path.strip_prefix(&self.context) {
                Ok(path) if path.as_os_str().is_empty() => {
                    bail!("the context `{}` holds images or a cache, and no source", self.context.display())
                }
                // Nothing in it can be named, either.
                Ok(path) => path.to_str().into_iter().for_each(|path| self.ignore.leave_out(path)),
                Err(_elsewhere) => {}
            }
        }
        Ok(())
    }
}

/// A folder of the source, as a path without links.
pub(super) fn folder(root: &Path, path: &str) -> Result<PathBuf> {
    let folder = open(root, path, OFlags::PATH | OFlags::DIRECTORY)?;
    let folder = folder.with_context(|| format!("there is no folder `{path}` in the source"))?;
    let link = format!("/proc/self/fd/{}", folder.as_raw_fd());
    fs::read_link(link).with_context(|| format!("cannot find `{path}`"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn options(arguments: &[&str]) -> DockerfileOptions {
        let all = [&["drydock", "import", "dockerfile:.", "x"], arguments].concat();
        match Cli::try_parse_from(all).unwrap().command {
            Command::Import(import) => import.dockerfile,
            other => panic!("{other:?}"),
        }
    }

    fn read(root: &Path, arguments: &[&str]) -> Result<(String, String), String> {
        let inputs = Inputs::read(root, &options(arguments)).map_err(|error| format!("{error:#}"))?;
        let context = inputs.context.strip_prefix(fs::canonicalize(root).unwrap()).unwrap();
        Ok((context.display().to_string(), inputs.dockerfile))
    }

    #[test]
    fn context_and_build_file_are_settings_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("app/docker")).unwrap();
        for path in ["Dockerfile", "app/Dockerfile", "app/docker/own"] {
            fs::write(root.join(path), path).unwrap();
        }
        symlink("app", root.join("link")).unwrap();
        for (arguments, context, dockerfile) in [
            (&[][..], "", "Dockerfile"),
            (&["--context", "app/"], "app", "app/Dockerfile"),
            (&["--context", "link"], "app", "app/Dockerfile"),
            (&["--file", "app/docker/own"], "", "app/docker/own"),
            (&["--file", "app/../Dockerfile", "--context", "app/docker/.."], "app", "Dockerfile"),
        ] {
            assert_eq!(read(&root, arguments).unwrap(), (context.to_owned(), dockerfile.to_owned()));
        }
    }

    #[test]
    fn nothing_leads_out_of_the_source() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(dir.path().join("Dockerfile"), "outside").unwrap();
        fs::write(root.join("Dockerfile"), "inside").unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink(dir.path(), root.join("absolute")).unwrap();
        symlink("../Dockerfile", root.join("file")).unwrap();
        let absolute = root.display().to_string();
        for arguments in [
            ["--context", ".."],
            ["--context", "up"],
            ["--context", "absolute"],
            ["--context", &absolute],
            ["--file", "../Dockerfile"],
            ["--file", "up/Dockerfile"],
            ["--file", "absolute/Dockerfile"],
            ["--file", "file"],
            ["--file", "/etc/passwd"],
        ] {
            let error = read(&root, &arguments).unwrap_err();
            assert!(error.contains("leads out of the source"), "{arguments:?}: {error}");
        }
        fs::write(root.join("latin"), b"FROM x\n# caf\xe9\n").unwrap();
        symlink("../Dockerfile", root.join("Dockerfile.dockerignore")).unwrap();
        assert!(read(&root, &[]).unwrap_err().contains("leads out"));
        for (arguments, says) in [
            (["--context", "none"], "there is no folder `none`"),
            (["--context", "Dockerfile"], "there is no folder `Dockerfile`"),
            (["--file", "none"], "there is no `none` in the source"),
            (["--file", "."], "not a regular file"),
            (["--file", "latin"], "`latin`: line 2: it is not UTF-8"),
        ] {
            let error = read(&root, &arguments).unwrap_err();
            assert!(error.contains(says), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn the_ignore_file_of_the_dockerfile_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("Dockerfile"), "").unwrap();
        fs::write(dir.path().join(".dockerignore"), "a").unwrap();
        let ignored = || Inputs::read(dir.path(), &options(&[])).unwrap().ignore;
        assert!(ignored().leaves_out(b"a"));
        fs::write(dir.path().join("Dockerfile.dockerignore"), "b").unwrap();
        assert!(!ignored().leaves_out(b"a") && ignored().leaves_out(b"b"));
        fs::write(dir.path().join("Dockerfile.dockerignore"), "[").unwrap();
        let error = Inputs::read(dir.path(), &options(&[])).unwrap_err().to_string();
        assert!(error.contains("`Dockerfile.dockerignore`: line 1"), "{error}");
    }
}
