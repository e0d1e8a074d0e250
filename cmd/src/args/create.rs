//! The creator's flags and arguments: those of all the phases that it runs.

use drydock_phases::create::Inputs;
use drydock_phases::{Error, Log};

use super::analyze::Images;
use super::flag::{self, Offer, always, since};
use super::layout::Layout;
use super::restore;
use super::{Options, Task};
use crate::privileges::{Account, Privileges};

/// The creator's flags. Specification: `platform.md` § Creator.
pub const FLAGS: &[Offer] = &[
    always(flag::APP),
    since(11, flag::BUILD_CONFIG),
    always(flag::BUILDPACKS),
    always(flag::CACHE_DIR),
    always(flag::CACHE_IMAGE),
    always(flag::DAEMON),
    always(flag::GID),
    since(13, flag::INSECURE_REGISTRY),
    always(flag::LAUNCH_CACHE),
    always(flag::LAUNCHER),
    since(11, flag::LAUNCHER_SBOM),
    always(flag::LAYER_COMPRESSION),
    always(flag::LAYERS),
    always(flag::LAYOUT),
    always(flag::LAYOUT_DIR),
    always(flag::LOG_FILE),
    always(flag::ORDER),
    always(flag::PARALLEL),
    always(flag::PLATFORM),
    always(flag::PREVIOUS_IMAGE),
    always(flag::PROCESS_TYPE),
    always(flag::PROJECT_METADATA),
    always(flag::REPORT),
    since(12, flag::RUN),
    always(flag::RUN_IMAGE),
    always(flag::SKIP_RESTORE),
    always(flag::STACK),
    since(15, flag::SYSTEM),
    always(flag::TAG),
    always(flag::UID),
];

/// What the creator is to do. Buildpacks get `HOME` and `USER` of the user that the build belongs to.
pub fn resolve(options: &Options, log: &dyn Log) -> Result<Task<Inputs>, Error> {
    let (image, tags) = options.image_and_tags()?;
    let layout = Layout::of(options)?;
    let user = options.user()?;
    let cache = options.cache(&layout, log)?;
    options.warn_of_no_effect(log);
    let images = Images::of(options, &layout, image, tags)?;
    options.warn_of_parallel_without_cache(log)?;
    let skip_layers = options.skips_layers(&flag::SKIP_RESTORE)?;
    let mut args = Inputs {
        detect: super::detect::inputs(options)?,
        restore: restore::args(options, &layout, cache.clone(), skip_layers)?,
        build: super::build::inputs(options)?,
        export: super::export::inputs(options, &layout, images.outputs.clone(), cache)?,
        analyze: images.inputs(options, &layout, skip_layers),
    };
    // The creator extends nothing.
    args.export.files.extended = None;
    layout.guard(&options.env, log)?;

    let privileges = Privileges::Drop {
        user,
        volumes: options.volumes(&[&flag::CACHE_DIR, &flag::LAUNCH_CACHE, &flag::LAYERS]),
        outputs: super::export::outputs(&layout, &args.export),
    };
    let inputs = Account::of(user.uid).and_then(|account| {
        let env = options.env.clone().with("HOME", &account.home).with("USER", &account.name).variables();
        args.detect.env.clone_from(&env);
        args.build.env = env;
        layout.required(args)
    });
    Ok(Task { privileges, inputs })
}
