//! The rebased image's configuration: the app's, on another platform's base.

use std::collections::BTreeMap;

use anyhow::Context as _;
use drydock_model::config::ImageConfig;
use drydock_model::digest::DiffId;
use drydock_spec::analyzed::LayersMetadata;
use drydock_spec::api::PlatformApi;
use drydock_spec::label;

use crate::app_image::one_for_each_layer;

/// How many of the app image's layers are the old run image's: all up to its last one, which the label names. A run
/// image without layers has no last one.
///
/// Empty layers all have one diff ID, and may be both in the run image and in the app. So the last one of the run image
/// is the highest above which there still are all layers that the label calls the app's.
pub(super) fn base_layers(diff_ids: &[DiffId], metadata: &LayersMetadata) -> Option<usize> {
    if metadata.run_image.top_layer.is_empty() {
        return (!metadata.run_image.reference.is_empty()).then_some(0);
    }
    let top: DiffId = metadata.run_image.top_layer.parse().ok()?;
    let own = counted(own_layers(metadata));
    let in_image = counted(diff_ids.iter().copied());
    let holds_own = |layers: &[DiffId]| {
        let here = counted(layers.iter().copied());
        let count = |of: &BTreeMap<DiffId, usize>, id| of.get(id).copied().unwrap_or_default();
        own.iter().all(|(id, &wanted)| count(&here, id) >= wanted.min(count(&in_image, id)))
    };
    (1..=diff_ids.len()).rev().find(|&n| diff_ids[n - 1] == top && holds_own(&diff_ids[n..]))
}

/// The layers that the label calls the app's.
fn own_layers(metadata: &LayersMetadata) -> impl Iterator<Item = DiffId> {
    let LayersMetadata { app, sbom, buildpacks, config, launcher, process_types, .. } = metadata;
    let of_buildpacks =
        buildpacks.iter().flat_map(|buildpack| buildpack.layers.values()).filter(|layer| layer.launch);
    let others = app.iter().chain(sbom).chain([config, launcher, process_types]);
    let shas = others.map(|layer| &layer.sha).chain(of_buildpacks.map(|layer| &layer.sha));
    shas.filter_map(|sha| sha.parse().ok())
}

fn counted(ids: impl Iterator<Item = DiffId>) -> BTreeMap<DiffId, usize> {
    ids.fold(BTreeMap::new(), |mut counted, id| {
        *counted.entry(id).or_default() += 1;
        counted
    })
}

/// The app's configuration with the new run image's platform, history and labels.
///
/// What was created when stays the app's: the base's history says nothing else than in the app's first export.
pub(super) fn rebased(
    app: &ImageConfig,
    base: &ImageConfig,
    base_layers: usize,
    metadata: &LayersMetadata,
    api: PlatformApi,
) -> anyhow::Result<ImageConfig> {
    const OS_FEATURES: &str = "os.features";
    let own_history =
        one_for_each_layer(app.history.clone(), app.rootfs.diff_ids.len()).split_off(base_layers);
    let mut history = one_for_each_layer(base.history.clone(), base.rootfs.diff_ids.len());
    if app.created.is_some() {
        for entry in &mut history {
            entry.created.clone_from(&app.created);
        }
    }
    history.extend(own_history);

    let mut config = ImageConfig {
        architecture: base.architecture.clone(),
        variant: base.variant.clone(),
        os: base.os.clone(),
        os_version: base.os_version.clone(),
        history,
        ..app.clone()
    };
    config.rest.remove(OS_FEATURES);
    config.rest.extend(base.rest.get(OS_FEATURES).map(|features| (OS_FEATURES.to_owned(), features.clone())));

    let of_base = |key: &str| {
        key.starts_with(label::STACK_PREFIX) || (api.has_targets() && key.starts_with(label::BASE_PREFIX))
    };
    let labels = &mut config.config.labels;
    labels.retain(|key, _| !of_base(key));
    let new = base.config.labels.iter().filter(|(key, _)| of_base(key));
    labels.extend(new.map(|(key, value)| (key.clone(), value.clone())));
    let json = label::lifecycle_metadata_to_json(metadata).context("label of the layers")?;
    labels.insert(label::LIFECYCLE_METADATA.to_owned(), json);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use drydock_spec::analyzed::{BuildpackLayers, Layer, RunImageForRebase, Sha};
    use serde_json::json;

    use super::*;

    fn id(name: char) -> DiffId {
        DiffId::of(name.to_string().as_bytes())
    }

    /// A label whose app layers are the first two letters, and whose buildpacks' are the others.
    fn metadata(top: Option<char>, own: &str) -> LayersMetadata {
        let sha = |name: char| Sha::from(id(name));
        let layer = |name: char| Layer { sha: id(name).to_string(), launch: true, ..Layer::default() };
        let layers = own.chars().skip(2).enumerate().map(|(n, name)| (n.to_string(), layer(name)));
        LayersMetadata {
            app: own.chars().take(2).map(sha).collect(),
            buildpacks: vec![BuildpackLayers { layers: layers.collect(), ..BuildpackLayers::default() }],
            run_image: RunImageForRebase {
                top_layer: top.map(|top| id(top).to_string()).unwrap_or_default(),
                reference: "/l/run@sha256:x".into(),
                ..RunImageForRebase::default()
            },
            ..LayersMetadata::default()
        }
    }

    #[test]
    fn the_base_ends_with_its_top_layer() {
        for (layers, top, own, want) in [
            ("abxyz", Some('b'), "xyz", Some(2)),
            ("abxyz", Some('a'), "xyz", Some(1)),
            ("abxyz", Some('c'), "xyz", None),
            ("abx", None, "abx", Some(0)),
            // An empty layer `e` in the base twice, and as a slice of the app.
            ("aebexey", Some('e'), "xey", Some(4)),
            ("aexeye", Some('e'), "xeye", Some(2)),
            ("aexe", Some('e'), "xee", None),
            // Layers of an extension, which the label does not know.
            ("abpqxy", Some('b'), "xy", Some(2)),
            // A label that knows of layers that the image does not have.
            ("abx", Some('b'), "xyz", Some(2)),
        ] {
            let diff_ids: Vec<DiffId> = layers.chars().map(id).collect();
            assert_eq!(base_layers(&diff_ids, &metadata(top, own)), want, "{layers} {top:?} {own}");
        }
        assert_eq!(base_layers(&[id('a')], &LayersMetadata::default()), None, "no label");
    }

    fn config(value: serde_json::Value) -> ImageConfig {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_is_the_bases_changes() {
        let app = config(json!({
            "created": "1980-01-01T00:00:01Z", "author": "me", "vendor": {"k": 1},
            "os": "linux", "architecture": "arm64", "variant": "v7", "os.version": "1", "os.features": ["old"],
            "config": {"User": "1:1", "Env": ["A=old"], "Healthcheck": {"Test": ["x"]}, "Labels": {
                "mine": "kept", "io.buildpacks.stack.id": "old", "io.buildpacks.stack.gone": "x",
                "io.buildpacks.base.id": "old", "io.buildpacks.rebasable": "true"}},
            "rootfs": {"type": "layers", "diff_ids": [id('a'), id('x'), id('y')]},
            "history": [{"created_by": "old base"}, {"created": "t", "created_by": "X", "comment": "c"}, {"created_by": "Y"}],
        }));
        let base = config(json!({
            "created": "2020-01-01T00:00:01Z", "author": "them", "os": "linux", "architecture": "arm64", "variant": "v8",
            "config": {"User": "2:2", "Env": ["A=new"], "Labels": {"theirs": "not taken",
                "io.buildpacks.stack.id": "new", "io.buildpacks.base.id": "new", "io.buildpacks.base.distro.name": "debian"}},
            "rootfs": {"type": "layers", "diff_ids": [id('b'), id('c')]},
            "history": [{"created": "2020", "created_by": "one", "author": "a"}, {"empty_layer": true}, {"created_by": "two"}],
        }));
        let metadata = metadata(Some('c'), "xy");
        let rebased = |app, api| rebased(app, &base, 1, &metadata, PlatformApi::minor(api)).unwrap();
        let mut want = serde_json::to_value(&app).unwrap();
        let object = want.as_object_mut().unwrap();
        object.remove("os.version");
        object.remove("os.features");
        object["variant"] = json!("v8");
        object["history"] = json!([
            {"created": "1980-01-01T00:00:01Z", "created_by": "one", "author": "a"},
            {"created": "1980-01-01T00:00:01Z", "created_by": "two"},
            {"created": "t", "created_by": "X", "comment": "c"}, {"created_by": "Y"}]);
        let lifecycle = label::lifecycle_metadata_to_json(&metadata).unwrap();
        object["config"]["Labels"] = json!({
            "mine": "kept", "io.buildpacks.rebasable": "true", "io.buildpacks.lifecycle.metadata": lifecycle,
            "io.buildpacks.stack.id": "new", "io.buildpacks.base.id": "new", "io.buildpacks.base.distro.name": "debian"});
        assert_eq!(serde_json::to_value(rebased(&app, 12)).unwrap(), want);

        let labels = rebased(&app, 11).config.labels;
        assert_eq!(labels["io.buildpacks.stack.id"], "new");
        assert_eq!(labels["io.buildpacks.base.id"], "old", "targets are unknown to such a platform");
        assert!(!labels.contains_key("io.buildpacks.base.distro.name"));

        let unfitting = ImageConfig { history: app.history[..2].to_vec(), created: None, ..app.clone() };
        let texts: Vec<String> =
            rebased(&unfitting, 12).history.into_iter().map(|entry| entry.created_by).collect();
        assert_eq!(texts, ["one", "two", "", ""]);
    }
}
