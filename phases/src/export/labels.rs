//! The labels of the app image. Specification: `platform.md` § Exporter, § Labels.

use anyhow::Context as _;
use drydock_model::config::ImageConfig;
use drydock_spec::analyzed::LayersMetadata;
use drydock_spec::api::PlatformApi;
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
    let build = label::build_metadata_to_json(metadata, &inputs.launcher.metadata, inputs.platform_api);
    set(label::BUILD_METADATA, build.context("label of the build")?);
    set(label::PROJECT_METADATA, project.to_json().context("label of the project")?);
    for label in &metadata.labels {
        set(&label.key, label.value.clone());
    }
    if inputs.platform_api.has_exec_env() {
        set(label::EXEC_ENV, inputs.exec_env.clone());
    }
    Ok(())
}

/// Says whether the app image can be rebased, from Platform API 0.12 on. Of an extended run image its extender knows
/// it; any other that does not say anything can be replaced.
pub(super) fn set_rebasable(config: &mut ImageConfig, is_extended: bool, api: PlatformApi) {
    if !api.has_targets() {
        return;
    }
    let rebasable = match (config.label(label::REBASABLE), is_extended) {
        (text, true) => text == Some("true"),
        (Some(_inherited), false) => return,
        (None, false) => true,
    };
    config.config.labels.insert(label::REBASABLE.to_owned(), rebasable.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_rebased() {
        for (minor, is_extended, before, want) in [
            (11, false, None, None),
            (11, false, Some("x"), Some("x")),
            (12, false, None, Some("true")),
            (12, false, Some("false"), Some("false")),
            (12, true, None, Some("false")),
            (12, true, Some("true"), Some("true")),
            (12, true, Some("maybe"), Some("false")),
        ] {
            let mut config: ImageConfig = serde_json::from_str(r#"{"rootfs":{"type":"layers"}}"#).unwrap();
            let before = before.map(|text| (label::REBASABLE.to_owned(), text.to_owned()));
            config.config.labels.extend(before);
            set_rebasable(&mut config, is_extended, PlatformApi::minor(minor));
            assert_eq!(config.label(label::REBASABLE), want, "0.{minor} {is_extended}");
        }
    }
}
