//! The detector's flags and arguments.

use std::path::PathBuf;

use drydock_phases::Error;
use drydock_spec::api::PlatformApi;

use super::flag::{self, Offer, always, since};
use super::{Options, Task};
use crate::env::Env;
use crate::privileges::Privileges;

/// The detector's flags. Specification: `platform.md` § Detector.
pub const FLAGS: &[Offer] = &[
    since(10, flag::ANALYZED),
    always(flag::APP),
    since(11, flag::BUILD_CONFIG),
    always(flag::BUILDPACKS),
    since(10, flag::EXTENSIONS),
    since(10, flag::GENERATED),
    always(flag::GROUP),
    always(flag::LAYERS),
    always(flag::ORDER),
    always(flag::PLAN),
    always(flag::PLATFORM),
    since(12, flag::RUN),
    since(15, flag::SYSTEM),
];

/// What the detector is told. All paths are absolute.
#[derive(Debug)]
pub struct DetectArgs {
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
    /// Where image extensions lie.
    pub extensions_dir: PathBuf,
    /// Where image extensions write Dockerfiles.
    pub generated_dir: PathBuf,
    /// Where the chosen group is written.
    pub group_path: PathBuf,
    /// The layers directory.
    pub layers_dir: PathBuf,
    /// The order to detect.
    pub order_path: PathBuf,
    /// Where the build plan is written.
    pub plan_path: PathBuf,
    /// What the platform gives to buildpacks.
    pub platform_dir: PathBuf,
    /// The run images that are known.
    pub run_path: PathBuf,
    /// The buildpacks that take part in every build.
    pub system_path: PathBuf,
    /// What the app is built for.
    pub exec_env: String,
    /// What the environment of buildpacks is made from.
    pub env: Env,
}

/// What the detector is to do.
pub fn resolve(options: &Options) -> Result<Task<DetectArgs>, Error> {
    options.no_operands("received unexpected arguments")?;
    Ok(Task { privileges: Privileges::RefuseRoot, inputs: Ok(DetectArgs::of(options)?) })
}

impl DetectArgs {
    pub(super) fn of(options: &Options) -> Result<Self, Error> {
        Ok(Self {
            platform_api: options.platform_api,
            analyzed_path: options.path(&flag::ANALYZED),
            app_dir: options.path(&flag::APP),
            build_config_dir: options.path(&flag::BUILD_CONFIG),
            buildpacks_dir: options.path(&flag::BUILDPACKS),
            extensions_dir: options.path(&flag::EXTENSIONS),
            generated_dir: options.path(&flag::GENERATED),
            group_path: options.path(&flag::GROUP),
            layers_dir: options.path(&flag::LAYERS),
            order_path: options.order_path(),
            plan_path: options.path(&flag::PLAN),
            platform_dir: options.path(&flag::PLATFORM),
            run_path: options.path(&flag::RUN),
            system_path: options.path(&flag::SYSTEM),
            exec_env: options.exec_env()?,
            env: options.env.clone(),
        })
    }
}
