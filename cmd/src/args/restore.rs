//! The restorer's flags and arguments.

use std::path::PathBuf;

use drydock_oci::reference::{LayoutDir, LayoutPath};
use drydock_phases::export::CacheLocation;
use drydock_phases::{Error, Log};
use drydock_spec::api::PlatformApi;

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
    since(14, flag::RUN),
    always(flag::SKIP_LAYERS),
    always(flag::UID),
];

/// What the restorer is told. All paths are absolute.
#[derive(Debug)]
pub struct RestoreArgs {
    /// The Platform API that the platform speaks.
    pub platform_api: PlatformApi,
    /// Where images lie, if layouts were asked for.
    pub layout_dir: Option<LayoutDir>,
    /// What the analyzer found.
    pub analyzed_path: PathBuf,
    /// The image that the build runs on.
    pub build_image: Option<LayoutPath>,
    /// The cache, if there is one.
    pub cache: Option<CacheLocation>,
    /// Where image extensions write Dockerfiles.
    pub generated_dir: PathBuf,
    /// The buildpacks that take part.
    pub group_path: PathBuf,
    /// The layers directory.
    pub layers_dir: PathBuf,
    /// The run images that are known.
    pub run_path: PathBuf,
    /// Whether the previous image's layers are left alone.
    pub skip_layers: bool,
}

/// What the restorer is to do.
pub fn resolve(options: &Options, log: &dyn Log) -> Result<Task<RestoreArgs>, Error> {
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
) -> Result<RestoreArgs, Error> {
    Ok(RestoreArgs {
        platform_api: options.platform_api,
        layout_dir: layout.dir_if_asked().cloned(),
        analyzed_path: options.path(&flag::ANALYZED),
        build_image: options.text(&flag::BUILD_IMAGE)?.map(|name| layout.resolve(&name)).transpose()?,
        cache,
        generated_dir: options.path(&flag::GENERATED),
        group_path: options.path(&flag::GROUP),
        layers_dir: options.path(&flag::LAYERS),
        run_path: options.path(&flag::RUN),
        skip_layers,
    })
}
