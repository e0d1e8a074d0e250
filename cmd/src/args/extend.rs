//! The extender's flags and arguments.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use drydock_phases::{Error, build};

use super::flag::{self, Offer, always, since};
use super::{Options, Task, unusable};
use crate::privileges::{Privileges, User};

/// The extender's flags. Specification: `platform.md` § Extender.
pub const FLAGS: &[Offer] = &[
    always(flag::ANALYZED),
    always(flag::APP),
    always(flag::BUILDPACKS),
    since(12, flag::EXTENDED),
    always(flag::GENERATED),
    always(flag::GID),
    always(flag::GROUP),
    always(flag::KANIKO_CACHE_TTL),
    since(12, flag::KIND),
    always(flag::LAYERS),
    always(flag::PLAN),
    always(flag::PLATFORM),
    always(flag::UID),
];

/// Which image is extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtendKind {
    /// The one that the build runs on; the buildpacks run afterwards.
    Build,
    /// The one that the app image is based on.
    Run,
}

/// What the extender is told. All paths are absolute.
#[derive(Debug)]
pub struct ExtendArgs {
    /// For the buildpacks that run in an extended build image.
    pub build: build::Inputs,
    /// Which image is extended.
    pub kind: ExtendKind,
    /// Where image extensions wrote Dockerfiles.
    pub generated_dir: PathBuf,
    /// Where layers are written.
    pub extended_dir: PathBuf,
    /// How long cached layers are good.
    pub cache_ttl: Duration,
    /// Who the buildpacks run as.
    pub user: User,
}

/// What the extender is to do.
pub fn resolve(options: &Options) -> Result<Task<ExtendArgs>, Error> {
    options.no_operands("received unexpected arguments")?;
    let kind = match options.text_or_default(&flag::KIND)?.as_str() {
        "build" => ExtendKind::Build,
        "run" => ExtendKind::Run,
        other => return Err(unusable(anyhow!("-kind is `{other}`: it must be `build` or `run`"))),
    };
    let two_weeks = Duration::from_hours(14 * 24);
    let args = ExtendArgs {
        build: super::build::inputs(options)?,
        kind,
        generated_dir: options.path(&flag::GENERATED),
        extended_dir: options.path(&flag::EXTENDED),
        cache_ttl: options.value(&flag::KANIKO_CACHE_TTL).map_or(Ok(two_weeks), |ttl| ttl.duration())?,
        user: options.user()?,
    };
    Ok(Task { privileges: Privileges::Keep, inputs: Ok(args) })
}
