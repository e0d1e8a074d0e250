//! Where images are, and whether the platform may ask for layouts.
//!
//! Specification: `platform.md` § Layout and § Experimental Features; `CNB_USE_OCI_LAYOUT` and `CNB_OCI_LAYOUT_PATH`
//! are names for the same that hold at every Platform API.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use drydock_model::reference::{LayoutDir, LayoutPath};
use drydock_phases::experimental::Experimental;
use drydock_phases::{Error, Kind, Level, Log};

use super::{Options, absolute, flag, unusable};
use crate::env::{self, Env};
use crate::value::ValueError;

/// How layouts were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Not at all.
    No,
    /// With the specification's names, under which layouts are experimental.
    AsExperimental,
    /// With `CNB_USE_OCI_LAYOUT`, which is consent in itself.
    Plainly,
}

/// Where images are.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    dir: LayoutDir,
    asked: Asked,
}

impl Layout {
    /// What flags and variables say.
    pub fn of(options: &Options) -> Result<Self, Error> {
        let asked = asked(options)?;
        if asked != Asked::No && options.switch(&flag::DAEMON)? {
            return Err(unusable(anyhow!("exporting to multiple targets is unsupported")).with_help(
                "images are either OCI layouts or in a daemon: leave out -daemon (CNB_USE_DAEMON)",
            ));
        }
        Ok(Self { dir: LayoutDir::new(&dir(options)?).map_err(unusable)?, asked })
    }

    /// The folder of all layouts.
    pub fn dir(&self) -> &LayoutDir {
        &self.dir
    }

    /// The same, if layouts were asked for.
    pub fn dir_if_asked(&self) -> Option<&LayoutDir> {
        (self.asked != Asked::No).then_some(&self.dir)
    }

    /// Where the image of this name lies.
    pub fn resolve(&self, name: &str) -> Result<LayoutPath, Error> {
        self.dir.resolve(name).map_err(unusable)
    }

    /// Where an image of this name is written to.
    pub fn resolve_output(&self, name: &str) -> Result<LayoutPath, Error> {
        let path = self.resolve(name)?;
        if path.digest().is_some() {
            return Err(unusable(anyhow!("`{name}` names an image by digest, and it is to be written"))
                .with_help("name it by a tag: an image has the digest that comes out"));
        }
        Ok(path)
    }

    /// Where the app image goes under each of its names. They may begin with any registry: none is written to.
    pub fn resolve_outputs(&self, names: &[String]) -> Result<Vec<LayoutPath>, Error> {
        let paths = names.iter().map(|name| self.resolve_output(name)).collect::<Result<Vec<_>, _>>()?;
        let mut distinct: Vec<LayoutPath> = Vec::with_capacity(paths.len());
        for path in paths {
            if !distinct.contains(&path) {
                distinct.push(path);
            }
        }
        Ok(distinct)
    }

    /// The inputs of a phase that cannot do without layouts.
    pub fn required<I>(&self, inputs: I) -> Result<I, Error> {
        if self.asked != Asked::No {
            return Ok(inputs);
        }
        let help = format!(
            "set {}=true and {}=<folder of the layouts>, or give -layout and -layout-dir",
            env::USE_OCI_LAYOUT,
            env::OCI_LAYOUT_PATH,
        );
        Err(Error::new(
            Kind::Phase,
            anyhow!("images are read from and written to OCI layouts only, and none are asked for"),
        )
        .with_help(help))
    }

    /// Refuses, warns or goes on, as the platform wishes experimental features to be treated.
    pub fn guard(&self, env: &Env, log: &dyn Log) -> Result<(), Error> {
        if self.asked == Asked::No {
            return Ok(());
        }
        let mode = experimental(env)?.unwrap_or(match self.asked {
            Asked::AsExperimental => Experimental::Refuse,
            Asked::Plainly | Asked::No => Experimental::Allow,
        });
        mode.guard("export to OCI layout format", Level::Warn, log).map_err(|error| {
            error.with_help(format!(
                "set {}=warn, or leave it unset and ask with {}=true",
                env::EXPERIMENTAL_MODE,
                env::USE_OCI_LAYOUT,
            ))
        })
    }
}

/// What to do when something experimental is asked for, if the platform says so.
pub(super) fn experimental(env: &Env) -> Result<Option<Experimental>, ValueError> {
    let mode = env.value(env::EXPERIMENTAL_MODE).map(|value| {
        value.parse_with("`warn`, `quiet`, `silent` or `error`", |text| match text {
            "warn" => Some(Experimental::Warn),
            "quiet" | "silent" => Some(Experimental::Allow),
            "error" => Some(Experimental::Refuse),
            _ => None,
        })
    });
    mode.transpose()
}

fn asked(options: &Options) -> Result<Asked, Error> {
    if let Some(given) = options.command_line.values(&flag::LAYOUT).last() {
        let is_consented = variable(options, env::USE_OCI_LAYOUT)?.unwrap_or(false);
        return Ok(match (given.boolean()?, is_consented) {
            (false, _) => Asked::No,
            (true, true) => Asked::Plainly,
            (true, false) => Asked::AsExperimental,
        });
    }
    let (plainly, as_experimental) =
        (variable(options, env::USE_OCI_LAYOUT)?, variable(options, env::USE_LAYOUT)?);
    match (plainly, as_experimental) {
        (Some(a), Some(b)) if a != b => {
            Err(conflict((env::USE_OCI_LAYOUT, &a.to_string()), (env::USE_LAYOUT, &b.to_string())))
        }
        (Some(true), _) => Ok(Asked::Plainly),
        (_, Some(true)) => Ok(Asked::AsExperimental),
        _ => Ok(Asked::No),
    }
}

fn variable(options: &Options, name: &str) -> Result<Option<bool>, ValueError> {
    options.env.value(name).map(|value| value.boolean()).transpose()
}

fn dir(options: &Options) -> Result<PathBuf, Error> {
    let path = |text| absolute(&options.working_dir, Path::new(text));
    if let Some(given) = options.command_line.values(&flag::LAYOUT_DIR).last() {
        return Ok(path(&given.text));
    }
    let (plainly, as_experimental) =
        (options.env.value(env::OCI_LAYOUT_PATH), options.env.value(env::LAYOUT_DIR));
    match (&plainly, &as_experimental) {
        (Some(a), Some(b)) if path(&a.text) != path(&b.text) => {
            Err(conflict((&a.name, &a.text.to_string_lossy()), (&b.name, &b.text.to_string_lossy())))
        }
        (Some(value), _) | (None, Some(value)) => Ok(path(&value.text)),
        (None, None) => Ok(PathBuf::from(flag::LAYOUT_DIR.default)),
    }
}

fn conflict(a: (&str, &str), b: (&str, &str)) -> Error {
    unusable(anyhow!("{} is `{}`, but {} is `{}`", a.0, a.1, b.0, b.1))
        .with_help("they are two names for one thing: set only one of them")
}
