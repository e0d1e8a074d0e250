//! The creator: all phases of a build, one after the other in one process. What one phase finds out is handed to the
//! next, so no file is read twice. Specification: `platform.md` § Creator.

use anyhow::anyhow;
use drydock_spec::report::Report;

use crate::analyze::{self, analyze_layouts};
use crate::build::{self, build_group};
use crate::detect::{self, detect};
use crate::export::{self, check_cache, export_group};
use crate::process::Signals;
use crate::restore::{self, restore_group};
use crate::{Error, Kind, Log};

/// Everything that the phases need to know.
#[derive(Debug)]
pub struct Inputs {
    /// For the analyzer.
    pub analyze: analyze::Inputs,
    /// For the detector.
    pub detect: detect::Inputs,
    /// For the restorer.
    pub restore: restore::Inputs,
    /// For the builder.
    pub build: build::Inputs,
    /// For the exporter.
    pub export: export::Inputs,
}

/// One of the phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The analyzer.
    Analyze,
    /// The detector.
    Detect,
    /// The restorer.
    Restore,
    /// The builder.
    Build,
    /// The exporter.
    Export,
}

impl Step {
    /// What is said when it begins.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Analyze => "ANALYZING",
            Self::Detect => "DETECTING",
            Self::Restore => "RESTORING",
            Self::Build => "BUILDING",
            Self::Export => "EXPORTING",
        }
    }
}

/// Creates an image; an error comes with the phase that failed.
pub fn create(inputs: &Inputs, signals: &Signals, log: &dyn Log) -> Result<Report, (Step, Error)> {
    let in_step = |step| move |error| (step, error);
    check_cache(&inputs.export).map_err(in_step(Step::Export))?;
    log.phase(Step::Analyze);
    let analyzed = analyze_layouts(&inputs.analyze, log).map_err(in_step(Step::Analyze))?;
    export::run_image_path(&inputs.export, &analyzed).map_err(in_step(Step::Export))?;

    log.phase(Step::Detect);
    let detected = detect(&inputs.detect, signals, log).map_err(in_step(Step::Detect))?;
    if !detected.group.group_extensions.is_empty() {
        let error = anyhow!("detected order contains extensions which is not supported by the creator");
        let error = Error::new(Kind::Phase, error);
        return Err((
            Step::Detect,
            error.with_help("run the phases one by one, or use an order without extensions"),
        ));
    }
    let group = &detected.group.group;

    if !inputs.restore.skip_layers || inputs.restore.platform_api.has_extensions() {
        log.phase(Step::Restore);
        restore_group(&inputs.restore, group, &analyzed.metadata, log).map_err(in_step(Step::Restore))?;
    }

    log.phase(Step::Build);
    let target = analyzed.run_image.as_ref().and_then(|image| image.target.clone()).unwrap_or_default();
    build_group(&inputs.build, &detected.group, detected.plan, target, signals, log)
        .map_err(in_step(Step::Build))?;

    log.phase(Step::Export);
    export_group(&inputs.export, group, &analyzed, log).map_err(in_step(Step::Export))
}
