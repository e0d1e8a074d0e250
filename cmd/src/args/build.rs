//! The builder's flags and arguments.

use std::path::PathBuf;

use drydock_phases::build::Inputs;
use drydock_phases::buildpacks::Store;
use drydock_phases::signals::Signals;
use drydock_phases::{Error, target};
use drydock_spec::api::PlatformApi;

use super::flag::{self, Offer, always, since};
use super::{Options, Task};
use crate::env::{self, Env};
use crate::privileges::Privileges;

/// The builder's flags. Specification: `platform.md` § Builder.
pub const FLAGS: &[Offer] = &[
    since(12, flag::ANALYZED),
    always(flag::APP),
    since(11, flag::BUILD_CONFIG),
    always(flag::BUILDPACKS),
    always(flag::GROUP),
    always(flag::LAYERS),
    always(flag::PLAN),
    always(flag::PLATFORM),
];

/// What the builder is told. All paths are absolute.
#[derive(Debug)]
pub struct BuildArgs {
    /// The Platform API that the platform speaks.
    pub platform_api: PlatformApi,
    /// What the analyzer found.
    pub analyzed_path: PathBuf,
    /// The app's folder.
    pub app_dir: PathBuf,
    /// What the operator gives to buildpacks.
    pub build_config_dir: PathBuf,
    /// Where buildpacks lie.
    pub buildpacks_dir: PathBuf,
    /// The buildpacks that take part.
    pub group_path: PathBuf,
    /// The layers directory.
    pub layers_dir: PathBuf,
    /// The build plan.
    pub plan_path: PathBuf,
    /// What the platform gives to buildpacks.
    pub platform_dir: PathBuf,
    /// What the app is built for.
    pub exec_env: String,
    /// What the environment of buildpacks is made from.
    pub env: Env,
}

/// What the builder is to do.
pub fn resolve(options: &Options) -> Result<Task<BuildArgs>, Error> {
    options.no_operands("received unexpected arguments")?;
    Ok(Task { privileges: Privileges::RefuseRoot, inputs: Ok(BuildArgs::of(options)?) })
}

impl BuildArgs {
    pub(super) fn of(options: &Options) -> Result<Self, Error> {
        Ok(Self {
            platform_api: options.platform_api,
            analyzed_path: options.path(&flag::ANALYZED),
            app_dir: options.path(&flag::APP),
            build_config_dir: options.path(&flag::BUILD_CONFIG),
            buildpacks_dir: options.path(&flag::BUILDPACKS),
            group_path: options.path(&flag::GROUP),
            layers_dir: options.path(&flag::LAYERS),
            plan_path: options.path(&flag::PLAN),
            platform_dir: options.path(&flag::PLATFORM),
            exec_env: options.exec_env()?,
            env: options.env.clone(),
        })
    }

    /// The builder's inputs.
    pub fn into_inputs(self, signals: Signals) -> Inputs {
        Inputs {
            platform_api: self.platform_api,
            app_dir: self.app_dir,
            // The builder runs no extensions.
            store: Store { buildpacks_dir: self.buildpacks_dir, extensions_dir: PathBuf::new() },
            layers_dir: self.layers_dir,
            platform_dir: self.platform_dir,
            build_config_dir: self.build_config_dir,
            temp_dir: self.env.value(env::TEMP_DIR).map_or_else(|| "/tmp".into(), |value| value.text.into()),
            os_release_path: target::OS_RELEASE.into(),
            analyzed_path: self.analyzed_path,
            group_path: self.group_path,
            plan_path: self.plan_path,
            exec_env: self.exec_env,
            env: self.env.variables(),
            signals: Some(signals),
        }
    }
}
