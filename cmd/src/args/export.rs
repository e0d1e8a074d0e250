//! The exporter's flags and inputs.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use anyhow::anyhow;
use drydock_encode::compress::Compression;
use drydock_layout::{Durability, Early, LinkMode};
use drydock_model::reference::LayoutPath;
use drydock_phases::experimental::Experimental;
use drydock_phases::export::{CacheLocation, Files, Inputs, Launcher, Output};
use drydock_phases::{Error, Log};
use drydock_spec::label::LauncherMetadata;

use super::flag::{self, Offer, always, since, until};
use super::layout::{Layout, experimental};
use super::{Options, Task, unusable};
use crate::env;
use crate::privileges::{Outputs, Privileges};
use crate::value::ValueError;
use crate::version::version;

/// The exporter's flags. Specification: `platform.md` § Exporter.
pub const FLAGS: &[Offer] = &[
    always(flag::ANALYZED),
    always(flag::APP),
    always(flag::CACHE_DIR),
    always(flag::CACHE_IMAGE),
    always(flag::DAEMON),
    since(12, flag::EXTENDED),
    always(flag::GID),
    always(flag::GROUP),
    always(flag::DEPRECATED_IMAGE),
    since(13, flag::INSECURE_REGISTRY),
    always(flag::LAUNCH_CACHE),
    always(flag::LAUNCHER),
    since(11, flag::LAUNCHER_SBOM),
    always(flag::LAYER_COMPRESSION),
    always(flag::LAYERS),
    always(flag::LAYOUT),
    always(flag::LAYOUT_DIR),
    always(flag::LOG_FILE),
    always(flag::PARALLEL),
    always(flag::PROCESS_TYPE),
    always(flag::PROJECT_METADATA),
    always(flag::REPORT),
    since(12, flag::RUN),
    always(flag::RUN_IMAGE),
    until(11, flag::STACK),
    always(flag::UID),
];

/// What the exporter is to do.
pub fn resolve(options: &Options, log: &dyn Log) -> Result<Task<Inputs>, Error> {
    let images = options.images()?;
    // The run image is the one that was analyzed; a variable that the analyzer reads too is no mistake.
    for flag in [&flag::RUN_IMAGE, &flag::DEPRECATED_IMAGE] {
        if options.command_line.values(flag).next().is_some() {
            return Err(unusable(anyhow!("-{} is unsupported", flag.name))
                .with_help("the analyzer chooses the run image: give it there"));
        }
    }
    let layout = Layout::of(options)?;
    let user = options.user()?;
    let cache = options.cache(&layout, log)?;
    options.warn_of_no_effect(log);
    let output_images = layout.resolve_outputs(&images)?;
    let inputs = inputs(options, &layout, output_images, cache)?;
    layout.guard(&options.env, log)?;

    let privileges = Privileges::Drop {
        user,
        volumes: options.volumes(&[&flag::CACHE_DIR, &flag::LAUNCH_CACHE]),
        outputs: outputs(&layout, &inputs),
    };
    Ok(Task { privileges, inputs: layout.required(inputs) })
}

/// The folders that an export writes images to.
pub(super) fn outputs(layout: &Layout, inputs: &Inputs) -> Option<Outputs> {
    let cache_image = inputs.cache.as_ref().and_then(CacheLocation::image);
    Outputs::of(layout, inputs.output.names.iter().chain(cache_image))
}

/// The exporter's inputs.
pub(super) fn inputs(
    options: &Options,
    layout: &Layout,
    output_images: Vec<LayoutPath>,
    cache: Option<CacheLocation>,
) -> Result<Inputs, Error> {
    // Image and cache are always made at the same time.
    options.switch(&flag::PARALLEL)?;
    Ok(Inputs {
        platform_api: options.platform_api,
        output: output(options, layout, output_images)?,
        layer_index: options.layer_index(cache.as_ref())?,
        cache,
        files: Files {
            analyzed: options.path(&flag::ANALYZED),
            group: options.path(&flag::GROUP),
            run: options.path(&flag::RUN),
            stack: options.path(&flag::STACK),
            project_metadata: options.path(&flag::PROJECT_METADATA),
            extended: Some(options.path(&flag::EXTENDED)),
        },
        app_dir: options.path(&flag::APP),
        layers_dir: options.path(&flag::LAYERS),
        launcher: Launcher {
            path: options.path(&flag::LAUNCHER),
            sbom_dir: options.path(&flag::LAUNCHER_SBOM),
            metadata: LauncherMetadata { version: version(), ..LauncherMetadata::default() },
        },
        process_type: options.text(&flag::PROCESS_TYPE)?,
        owner: options.owner()?,
        source_date_epoch: options.env.value(env::SOURCE_DATE_EPOCH).map(|v| v.text()).transpose()?,
        exec_env: options.exec_env()?,
        experimental: experimental(&options.env)?.unwrap_or(Experimental::Refuse),
        layer_compression: compression(options)?,
        threads: available_parallelism().unwrap_or(NonZeroUsize::MIN),
        early: Early::default(),
    })
}

pub(super) fn compression(options: &Options) -> Result<Compression, ValueError> {
    options.value(&flag::LAYER_COMPRESSION).map_or(Ok(Compression::default()), |value| {
        let expected = "`gzip`, `zstd` or `none`, with a level if any: `gzip:6` (1 to 9), `zstd:3` (1 to 19)";
        value.parse_with(expected, |text| text.parse().ok())
    })
}

/// Where an app image goes, and how.
pub(super) fn output(
    options: &Options,
    layout: &Layout,
    names: Vec<LayoutPath>,
) -> Result<Output, ValueError> {
    let link = options.env.value(env::LAYOUT_LINK).map_or(Ok(LinkMode::default()), |value| {
        value.parse_with("`auto`, `reflink`, `hardlink` or `copy`", |text| text.parse().ok())
    });
    let is_on_disk = options.env.value(env::LAYOUT_SYNC).map_or(Ok(true), |value| value.boolean());
    Ok(Output {
        layout_dir: layout.dir().clone(),
        names,
        link: link?,
        durability: if is_on_disk? { Durability::OnDisk } else { Durability::InMemory },
        report_path: options.path(&flag::REPORT),
    })
}
