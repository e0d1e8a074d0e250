//! The analyzer's flags and inputs.

use drydock_layout::Early;
use drydock_model::reference::LayoutPath;
use drydock_phases::analyze::Inputs;
use drydock_phases::{Error, Log};

use super::flag::{self, Offer, always, since, until};
use super::layout::Layout;
use super::{Options, Task};
use crate::privileges::Privileges;

/// The analyzer's flags. Specification: `platform.md` § Analyzer.
pub const FLAGS: &[Offer] = &[
    always(flag::ANALYZED),
    always(flag::CACHE_IMAGE),
    always(flag::DAEMON),
    always(flag::GID),
    since(13, flag::INSECURE_REGISTRY),
    since(9, flag::LAUNCH_CACHE),
    always(flag::LAYERS),
    always(flag::LAYOUT),
    always(flag::LAYOUT_DIR),
    always(flag::LOG_FILE),
    always(flag::PREVIOUS_IMAGE),
    since(12, flag::RUN),
    always(flag::RUN_IMAGE),
    since(9, flag::SKIP_LAYERS),
    until(11, flag::STACK),
    always(flag::TAG),
    always(flag::UID),
];

/// What the analyzer is to do.
pub fn resolve(options: &Options, log: &dyn Log) -> Result<Task<Inputs>, Error> {
    let (image, tags) = options.image_and_tags()?;
    let layout = Layout::of(options)?;
    let user = options.user()?;
    let skip_layers = options.skips_layers(&flag::SKIP_LAYERS)?;
    options.warn_of_no_effect(log);
    let images = Images::of(options, &layout, image, tags)?;
    if let Some(name) = options.text(&flag::CACHE_IMAGE)? {
        layout.resolve(&name)?;
    }
    options.warn_of_parallel_without_cache(log)?;
    layout.guard(&options.env, log)?;

    let volumes = options.volumes(&[&flag::LAYERS, &flag::CACHE_DIR, &flag::LAUNCH_CACHE]);
    Ok(Task {
        privileges: Privileges::Drop { user, volumes, outputs: None },
        inputs: layout.required(images.inputs(options, &layout, skip_layers)),
    })
}

/// The images that analyzer and creator are told of.
pub(super) struct Images {
    /// The app image's names, the first one foremost.
    pub(super) outputs: Vec<LayoutPath>,
    /// Known to be a reference, as is the run image.
    previous: String,
    run: Option<String>,
}

impl Images {
    pub(super) fn of(
        options: &Options,
        layout: &Layout,
        image: String,
        tags: Vec<String>,
    ) -> Result<Self, Error> {
        let previous = options.text(&flag::PREVIOUS_IMAGE)?.unwrap_or_else(|| image.clone());
        let run = options.text(&flag::RUN_IMAGE)?;
        for name in run.iter().chain([&previous]) {
            layout.resolve(name)?;
        }
        Ok(Self { outputs: layout.resolve_outputs(&[vec![image], tags].concat())?, previous, run })
    }

    /// The analyzer's inputs.
    pub(super) fn inputs(&self, options: &Options, layout: &Layout, skip_layers: bool) -> Inputs {
        Inputs {
            platform_api: options.platform_api,
            layout_dir: layout.dir().clone(),
            output_image: self.outputs[0].clone(),
            previous_image: self.previous.clone(),
            run_image: self.run.clone(),
            run_path: options.path(&flag::RUN),
            stack_path: options.path(&flag::STACK),
            layers_dir: options.path(&flag::LAYERS),
            analyzed_path: options.path(&flag::ANALYZED),
            skip_layers,
            early: Early::default(),
        }
    }
}
