//! The detector's flags and arguments.

use drydock_phases::Error;
use drydock_phases::detect::Inputs;
use drydock_phases::experimental::Experimental;
use drydock_phases::target::OS_RELEASE;

use super::flag::{self, Offer, always, since};
use super::layout::experimental;
use super::{Options, Task};
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
    always(flag::LOG_FILE),
    always(flag::ORDER),
    always(flag::PLAN),
    always(flag::PLATFORM),
    since(12, flag::RUN),
    since(15, flag::SYSTEM),
];

/// What the detector is to do.
pub fn resolve(options: &Options) -> Result<Task<Inputs>, Error> {
    options.no_operands("received unexpected arguments")?;
    Ok(Task { privileges: Privileges::RefuseRoot, inputs: Ok(inputs(options)?) })
}

/// What the detector is told.
pub(super) fn inputs(options: &Options) -> Result<Inputs, Error> {
    Ok(Inputs {
        platform_api: options.platform_api,
        app_dir: options.path(&flag::APP),
        store: options.store(),
        order_path: options.order_path(),
        system_path: options.path(&flag::SYSTEM),
        analyzed_path: options.path(&flag::ANALYZED),
        run_path: options.path(&flag::RUN),
        group_path: options.path(&flag::GROUP),
        plan_path: options.path(&flag::PLAN),
        generated_dir: options.path(&flag::GENERATED),
        platform_dir: options.path(&flag::PLATFORM),
        build_config_dir: options.path(&flag::BUILD_CONFIG),
        temp_dir: options.temp_dir(),
        os_release_path: OS_RELEASE.into(),
        exec_env: options.exec_env()?,
        env: options.env.variables(),
        experimental: experimental(&options.env)?.unwrap_or(Experimental::Refuse),
    })
}
