//! Whole builds: `creator` turns an app into an image, and what comes of it is unpacked and started.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::layout::{Image, Layout};
use crate::project::succeed;
use crate::run;
use crate::run_image;
use crate::scenario::{Scenario, User};
use crate::stage::Stage;
use crate::tools;

/// The run image's place in the layout repository, and its name.
const RUN_IMAGE: (&str, &str) = ("layout-repo/index.docker.io/acme/run/base", "acme/run:base");
/// The app image's place, and its name.
const APP_IMAGE: (&str, &str) = ("layout-repo/index.docker.io/library/app/latest", "app");

/// An app, its buildpack and a run image, on a stage.
#[derive(Debug)]
pub struct AppBuild {
    /// Where it is built.
    pub stage: Stage,
}

impl AppBuild {
    /// Takes the trees `workspace` and `cnb` from `dir/in`. The run image has `files` of this machine besides its user land.
    pub fn new(dir: &Path, files: &[PathBuf]) -> Result<Self> {
        let scenario =
            Scenario { dir: dir.to_owned(), images: BTreeMap::new(), setup: Vec::new(), steps: Vec::new() };
        let stage = Stage::new(&scenario, &crate::here("images"))?;
        run_image::write_with(&stage.path(RUN_IMAGE.0), files)?;
        Ok(Self { stage })
    }

    /// Builds the app as root, with `variables` besides the usual ones; gives the log. It must succeed.
    pub fn create(&self, executables: &Path, variables: &BTreeMap<&str, String>) -> Result<String> {
        let mut environment = run::environment();
        environment.extend(variables.iter().map(|(name, value)| (*name, value.clone())));
        let mut command = run::command(&self.stage, executables, User::Root, &environment);
        command.args(["/cnb/lifecycle/creator", "-run-image", RUN_IMAGE.1, "-cache-dir", "/cache"]);
        Ok(succeed(command.arg(APP_IMAGE.1))?.text())
    }

    /// The layout of the app image.
    pub fn layout(&self) -> Layout {
        Layout::new(self.stage.path(APP_IMAGE.0))
    }

    /// The app image, which must be whole and without faults.
    pub fn image(&self) -> Result<Image> {
        let faults = self.layout().faults()?;
        anyhow::ensure!(faults.is_empty(), "the layout has faults:\n{}", faults.join("\n"));
        self.layout().verify()?.pop().context("the layout has an image")
    }

    /// Has umoci unpack the app image.
    pub fn unpack(&self) -> Result<Unpacked> {
        let scratch = tempfile::tempdir().context("make a folder")?;
        let image = tools::Image::new(self.layout().dir(), "latest", scratch.path())?;
        let (root, config) = (image.unpack()?, image.config()?);
        Ok(Unpacked { _scratch: scratch, root, config: config["config"].clone() })
    }
}

/// An image's files; dropped, they are gone.
#[derive(Debug)]
pub struct Unpacked {
    _scratch: TempDir,
    /// The folder that is the image's `/`.
    pub root: PathBuf,
    /// The config's part on containers: `Entrypoint`, `Env`, `User` and so on.
    pub config: Value,
}

impl Unpacked {
    /// The image's entrypoint with the environment, user and working directory that the config gives, and with the
    /// image's files as its root. It is killed after a minute.
    pub fn entrypoint(&self) -> Result<Command> {
        let words = |key: &str| -> Result<Vec<String>> {
            serde_json::from_value(self.config[key].clone()).with_context(|| format!("the config's {key}"))
        };
        let word = |key: &str| self.config[key].as_str().with_context(|| format!("the config's {key}"));
        let (user, group) = word("User")?.split_once(':').context("the user has a group")?;
        let mut command = Command::new("/usr/bin/timeout");
        command.args(["--foreground", "--signal=KILL", "60", "/usr/bin/unshare", "--root"]).arg(&self.root);
        command.args(["--wd", word("WorkingDir")?, "--setgid", group, "--setuid", user, "--"]);
        command.args(words("Entrypoint")?).stdin(Stdio::null()).env_clear();
        for variable in words("Env")? {
            let (name, value) = variable.split_once('=').context("a variable has a value")?;
            command.env(name, value);
        }
        Ok(command)
    }
}
