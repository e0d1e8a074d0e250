//! The rebaser's flags and inputs.

use anyhow::anyhow;
use drydock_layout::Early;
use drydock_phases::rebase::Inputs;
use drydock_phases::{Error, Log};

use super::export::output;
use super::flag::{self, Offer, always, since};
use super::layout::Layout;
use super::{Options, Task, unusable};
use crate::privileges::{Outputs, Privileges};

/// The rebaser's flags. Specification: `platform.md` § Rebaser.
pub const FLAGS: &[Offer] = &[
    always(flag::DAEMON),
    since(12, flag::FORCE),
    always(flag::GID),
    always(flag::DEPRECATED_IMAGE),
    since(13, flag::INSECURE_REGISTRY),
    always(flag::LAYOUT),
    always(flag::LAYOUT_DIR),
    since(11, flag::PREVIOUS_IMAGE),
    always(flag::REPORT),
    always(flag::RUN_IMAGE),
    always(flag::UID),
];

/// What the rebaser is to do.
pub fn resolve(options: &Options, log: &dyn Log) -> Result<Task<Inputs>, Error> {
    let images = options.images()?;
    let deprecated = options.text(&flag::DEPRECATED_IMAGE)?;
    if deprecated.is_some() && options.command_line.values(&flag::RUN_IMAGE).next().is_some() {
        return Err(unusable(anyhow!("supply only one of -run-image or (deprecated) -image")));
    }
    let layout = Layout::of(options)?;
    let user = options.user()?;
    let run_image = deprecated.map_or_else(|| options.text(&flag::RUN_IMAGE), |image| Ok(Some(image)))?;
    options.warn_of_no_effect(log);
    let output_images = layout.resolve_outputs(&images)?;
    let previous_image = match options.text(&flag::PREVIOUS_IMAGE)? {
        Some(name) => layout.resolve(&name)?,
        None => output_images[0].clone(),
    };
    if let Some(name) = &run_image {
        layout.resolve(name)?;
    }
    let force = options.switch(&flag::FORCE)?;
    layout.guard(&options.env, log)?;

    let outputs = Outputs::of(&layout, output_images.iter());
    let inputs = layout.required(Inputs {
        platform_api: options.platform_api,
        output: output(options, &layout, output_images)?,
        previous_image,
        run_image,
        force,
        early: Early::default(),
    });
    Ok(Task { privileges: Privileges::Drop { user, volumes: Vec::new(), outputs }, inputs })
}
