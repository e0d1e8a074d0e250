//! The restorer's flags and arguments.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::available_parallelism;

use drydock_layout::Early;
use drydock_phases::export::CacheLocation;
use drydock_phases::restore::Inputs;
use drydock_phases::{Error, Log};

use super::flag::{self, Offer, always, since};
use super::layout::Layout;
use super::{Options, Task};
use crate::privileges::Privileges;

/// The restorer's flags. Specification: `platform.md` § Restorer.
pub const FLAGS: &[Offer] = &[
    always(flag::ANALYZED),
    since(10, flag::BUILD_IMAGE),
    always(flag::CACHE_DIR),
    always(flag::CACHE_IMAGE),
    since(12, flag::DAEMON),
    since(12, flag::GENERATED),
    always(flag::GID),
    always(flag::GROUP),
    since(13, flag::INSECURE_REGISTRY),
    always(flag::LAYERS),
    always(flag::LAYOUT),
    always(flag::LAYOUT_DIR),
    always(flag::LOG_FILE),
    since(14, flag::RUN),
    always(flag::SKIP_LAYERS),
    always(flag::UID),
];

/// What the restorer is to do.
pub fn resolve(options: &Options, log: &dyn Log) -> Result<Task<Inputs>, Error> {
    options.no_operands("received unexpected Args")?;
    let layout = Layout::of(options)?;
    let user = options.user()?;
    let cache = options.cache(&layout, log)?;
    options.warn_of_no_effect(log);
    let args = args(options, &layout, cache, options.skips_layers(&flag::SKIP_LAYERS)?)?;

    let mut volumes = options.volumes(&[&flag::LAYERS, &flag::CACHE_DIR]);
    volumes.push(PathBuf::from("/kaniko"));
    let needs_layouts = args.build_image.is_some() || matches!(args.cache, Some(CacheLocation::Image(_)));
    Ok(Task {
        privileges: Privileges::Drop { user, volumes, outputs: None },
        inputs: if needs_layouts { layout.required(args) } else { Ok(args) },
    })
}

/// What the restorer is told, with or without layouts.
pub(super) fn args(
    options: &Options,
    layout: &Layout,
    cache: Option<CacheLocation>,
    skip_layers: bool,
) -> Result<Inputs, Error> {
    Ok(Inputs {
        platform_api: options.platform_api,
        layout_dir: layout.dir_if_asked().cloned(),
        analyzed_path: options.path(&flag::ANALYZED),
        build_image: options.text(&flag::BUILD_IMAGE)?.map(|name| layout.resolve(&name)).transpose()?,
        layer_index: options.layer_index(cache.as_ref())?,
        cache,
        group_path: options.path(&flag::GROUP),
        layers_dir: options.path(&flag::LAYERS),
        run_path: options.path(&flag::RUN),
        stack_path: options.path(&flag::STACK),
        skip_layers,
        owner: options.owner()?,
        threads: available_parallelism().unwrap_or(NonZeroUsize::MIN),
        early: Early::default(),
    })
}
