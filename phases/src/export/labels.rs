//! The labels of the app image. Specification: `platform.md` § Exporter, § Labels.

use anyhow::Context as _;
use drydock_oci::config::ImageConfig;
use drydock_spec::analyzed::LayersMetadata;
use drydock_spec::label;
use drydock_spec::launch::BuildMetadata;
use drydock_spec::project::ProjectMetadata;

use super::Inputs;
use crate::Log;

/// Sets the lifecycle's labels and then those that buildpacks want, which win.
pub(super) fn set(
    config: &mut ImageConfig,
    layers: &LayersMetadata,
    metadata: &BuildMetadata,
    project: &ProjectMetadata,
    inputs: &Inputs,
    log: &dyn Log,
) -> anyhow::Result<()> {
    let mut set = |key: &str, value: String| {
        log.info(&format!("Adding label '{key}'"));
        config.config.labels.insert(key.to_owned(), value);
    };
    let lifecycle = label::lifecycle_metadata_to_json(layers).context("label of the layers")?;
    set(label::LIFECYCLE_METADATA, lifecycle);
    let build = label::build_metadata_to_json(metadata, &inputs.launcher, inputs.platform_api);
    set(label::BUILD_METADATA, build.context("label of the build")?);
    let project = project.to_json().context("label of the project")?;
    set(label::PROJECT_METADATA, drydock_spec::json::to_string(&project).context("label of the project")?);
    for label in &metadata.labels {
        set(&label.key, label.value.clone());
    }
    if inputs.platform_api.has_exec_env() {
        set(label::EXEC_ENV, inputs.exec_env.clone());
    }
    Ok(())
}
