//! The builder's flags and arguments.

use drydock_phases::Error;
use drydock_phases::build::Inputs;
use drydock_phases::target::OS_RELEASE;

use super::flag::{self, Offer, always, since};
use super::{Options, Task};
use crate::privileges::Privileges;

/// The builder's flags. Specification: `platform.md` § Builder.
pub const FLAGS: &[Offer] = &[
    since(12, flag::ANALYZED),
    always(flag::APP),
    since(11, flag::BUILD_CONFIG),
    always(flag::BUILDPACKS),
    always(flag::GROUP),
    always(flag::LAYERS),
    always(flag::LOG_FILE),
    always(flag::PLAN),
    always(flag::PLATFORM),
];

/// What the builder is to do.
pub fn resolve(options: &Options) -> Result<Task<Inputs>, Error> {
    options.no_operands("received unexpected arguments")?;
    Ok(Task { privileges: Privileges::RefuseRoot, inputs: Ok(inputs(options)?) })
}

/// What the builder is told.
pub(super) fn inputs(options: &Options) -> Result<Inputs, Error> {
    Ok(Inputs {
        platform_api: options.platform_api,
        app_dir: options.path(&flag::APP),
        store: options.store(),
        layers_dir: options.path(&flag::LAYERS),
        platform_dir: options.path(&flag::PLATFORM),
        build_config_dir: options.path(&flag::BUILD_CONFIG),
        temp_dir: options.temp_dir(),
        os_release_path: OS_RELEASE.into(),
        analyzed_path: options.path(&flag::ANALYZED),
        group_path: options.path(&flag::GROUP),
        plan_path: options.path(&flag::PLAN),
        exec_env: options.exec_env()?,
        env: options.env.variables(),
    })
}
