//! Which layers an app image consists of, above those of the run image.

use std::path::Path;

use anyhow::{Context as _, bail};
use drydock_io::lock::Identity;
use drydock_model::digest::DiffId;
use drydock_spec::analyzed::{BuildpackLayers, Layer, LayersMetadata};
use drydock_spec::group::GroupElement;
use drydock_spec::launch::BuildMetadata;
use drydock_tar::Owner;

use super::Inputs;
use crate::Log;
use crate::cache::{CacheLocation, lies_in};
use crate::file::is_dir;
use crate::layer_tar::{DirLayer, LauncherLayer, LayerSource, ProcessTypesLayer, slice_layers};
use crate::layers::{LayerDir, read_buildpack_dir};

/// A layer to be.
#[derive(Debug)]
pub(super) struct LayerPlan {
    /// How the log calls it.
    pub(super) id: String,
    /// How the history calls it.
    pub(super) created_by: String,
    /// Where it comes from.
    pub(super) content: Content,
    /// Its diff ID in the previous image, if it was there.
    pub(super) previous: Option<DiffId>,
    /// Whether the image has it.
    pub(super) in_image: bool,
    /// Whether the cache has it.
    pub(super) in_cache: bool,
    /// Where its diff ID is written down.
    pub(super) place: Place,
}

/// Where a layer comes from.
#[derive(Debug)]
pub(super) enum Content {
    /// From disk.
    Source(Box<dyn LayerSource>),
    /// From the previous image, as it is there.
    Previous,
}

/// Which field of the metadata tells a layer's diff ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// That of a buildpack's layer.
    Buildpack { id: String, layer: String },
    /// That of the launch SBOM.
    LaunchSbom,
    /// That of the cache's SBOM.
    CacheSbom,
    /// The list of app layers.
    App,
    /// That of the launcher.
    Launcher,
    /// That of the launcher's configuration.
    Config,
    /// That of the process types.
    ProcessTypes,
}

/// All layers, and what is written down of those of buildpacks, without diff IDs yet.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// In the image's order; those that only the cache gets are among them.
    pub(super) layers: Vec<LayerPlan>,
    /// For the image's label.
    pub(super) image_buildpacks: Vec<BuildpackLayers>,
    /// For the cache's metadata.
    pub(super) cache_buildpacks: Vec<BuildpackLayers>,
}

/// Plans the layers of the image and of the cache. What the launcher needs must be in `metadata`.
pub(super) fn plan(
    inputs: &Inputs,
    group: &[GroupElement],
    metadata: &BuildMetadata,
    previous: &LayersMetadata,
    log: &dyn Log,
) -> anyhow::Result<Plan> {
    let owner = inputs.owner;
    let mut plan = Plan::default();
    for buildpack in group {
        plan.add_buildpack(inputs, buildpack, previous, owner, log)?;
    }
    if inputs.platform_api.has_sbom_layer() {
        plan.add_sbom(&inputs.layers_dir.join("sbom"), previous, owner)?;
    }
    plan.add_app(inputs, metadata, previous, owner, log)?;
    plan.add_launcher(inputs, metadata, previous, owner)?;
    Ok(plan)
}

/// The layout directory and the cache, if they lie in the app: with each build it would double.
fn no_part_of_app(inputs: &Inputs, log: &dyn Log) -> Vec<Identity> {
    let cache = inputs.cache.as_ref().and_then(|cache| match cache {
        CacheLocation::Dir(dir) => Some(&**dir),
        CacheLocation::Image(_) => None,
    });
    let app = Identity::of(&inputs.app_dir).ok();
    let mut found = Vec::new();
    for dir in [Some(inputs.output.layout_dir.path()), cache].into_iter().flatten() {
        // What is not there is no part of it, either.
        let identity = Identity::of(dir).ok().filter(|found| Some(*found) != app);
        if let Some(identity) = identity.filter(|_| lies_in(dir, &inputs.app_dir)) {
            log.warn(&format!("`{}` is no part of the app, and left out", dir.display()));
            found.push(identity);
        }
    }
    found
}

impl Plan {
    fn add_buildpack(
        &mut self,
        inputs: &Inputs,
        buildpack: &GroupElement,
        previous: &LayersMetadata,
        owner: Owner,
        log: &dyn Log,
    ) -> anyhow::Result<()> {
        let dir = read_buildpack_dir(&inputs.layers_dir, buildpack)?;
        let before = previous.buildpack(&buildpack.id);
        let of = |store| BuildpackLayers {
            key: buildpack.id.clone(),
            version: buildpack.version.clone(),
            store,
            ..BuildpackLayers::default()
        };
        let (mut in_image, mut in_cache) = (of(dir.store.clone()), of(None));
        for (name, layer) in dir.all_layers(buildpack)? {
            let id = format!("{}:{name}", buildpack.id);
            let types = layer.toml.types;
            let written = Layer {
                sha: String::new(),
                build: types.build,
                launch: types.launch,
                cache: types.cache,
                metadata: layer.toml.metadata.clone(),
            };
            if types.launch {
                in_image.layers.insert(name.clone(), written.clone());
            }
            let cached = types.cache && layer.has_contents;
            if cached {
                in_cache.layers.insert(name.clone(), written);
            } else if types.cache && inputs.cache.is_some() {
                log.warn(&format!("Failed to cache layer '{id}': it has no contents"));
            }
            let in_cache = cached && inputs.cache.is_some();
            if !types.launch && !in_cache {
                continue;
            }
            let before = before.and_then(|before| before.layers.get(name));
            self.layers.push(LayerPlan {
                content: content(&id, layer, before, owner)?,
                created_by: format!("Layer: '{name}', Created by buildpack: {}", buildpack.full_name()),
                previous: before.and_then(|before| before.sha.parse().ok()),
                in_image: types.launch,
                in_cache,
                place: Place::Buildpack { id: buildpack.id.clone(), layer: name.clone() },
                id,
            });
        }
        self.image_buildpacks.push(in_image);
        self.cache_buildpacks.push(in_cache);
        Ok(())
    }

    fn add_sbom(&mut self, sbom_dir: &Path, previous: &LayersMetadata, owner: Owner) -> anyhow::Result<()> {
        for (name, created_by, place) in
            [("launch", "Software Bill-of-Materials", Place::LaunchSbom), ("cache", "", Place::CacheSbom)]
        {
            let dir = sbom_dir.join(name);
            if is_dir(&dir)? {
                let in_image = place == Place::LaunchSbom;
                let previous = previous.sbom.as_ref().filter(|_| in_image).map_or("", |sbom| &sbom.sha);
                let source = DirLayer::new(&dir, owner);
                self.add(
                    &format!("buildpacksio/lifecycle:{name}.sbom"),
                    created_by,
                    Box::new(source),
                    previous,
                    place,
                );
                let added = self.layers.last_mut().expect("a layer was just added");
                (added.in_image, added.in_cache) = (in_image, !in_image);
            }
        }
        Ok(())
    }

    fn add_app(
        &mut self,
        inputs: &Inputs,
        metadata: &BuildMetadata,
        previous: &LayersMetadata,
        owner: Owner,
        log: &dyn Log,
    ) -> anyhow::Result<()> {
        let globs: Vec<Vec<String>> = metadata.slices.iter().map(|slice| slice.paths.clone()).collect();
        let slices = slice_layers(&inputs.app_dir, &globs, &no_part_of_app(inputs, log), owner)
            .with_context(|| format!("failed to read the app directory `{}`", inputs.app_dir.display()))?;
        let one = slices.len() == 1;
        for (at, slice) in slices.into_iter().enumerate() {
            let number = at + 1;
            let created_by =
                if one { "Application Layer".to_owned() } else { format!("Application Slice: {number}") };
            let before = previous.app.get(at).map_or("", |sha| &sha.sha);
            self.add(&format!("slice-{number}"), &created_by, Box::new(slice), before, Place::App);
        }
        Ok(())
    }

    fn add_launcher(
        &mut self,
        inputs: &Inputs,
        metadata: &BuildMetadata,
        previous: &LayersMetadata,
        owner: Owner,
    ) -> anyhow::Result<()> {
        let launcher = &inputs.launcher.path;
        let file = std::fs::metadata(launcher).with_context(|| {
            format!("creating launcher layers: failed to stat launcher at path '{}'", launcher.display())
        })?;
        if !file.is_file() {
            bail!("creating launcher layers: launcher at path '{}' is not a file", launcher.display());
        }
        self.add(
            "buildpacksio/lifecycle:launcher",
            "Buildpacks Application Launcher",
            Box::new(LauncherLayer::new(launcher)),
            &previous.launcher.sha,
            Place::Launcher,
        );
        self.add(
            "buildpacksio/lifecycle:config",
            "Buildpacks Launcher Config",
            Box::new(DirLayer::new(&inputs.layers_dir.join("config"), owner)),
            &previous.config.sha,
            Place::Config,
        );
        if !metadata.processes.is_empty() {
            let types = metadata.processes.iter().map(|process| process.r#type.as_str());
            self.add(
                "buildpacksio/lifecycle:process-types",
                "Buildpacks Process Types",
                Box::new(ProcessTypesLayer::new(types)),
                &previous.process_types.sha,
                Place::ProcessTypes,
            );
        }
        Ok(())
    }

    fn add(
        &mut self,
        id: &str,
        created_by: &str,
        source: Box<dyn LayerSource>,
        previous: &str,
        place: Place,
    ) {
        self.layers.push(LayerPlan {
            id: id.to_owned(),
            created_by: created_by.to_owned(),
            content: Content::Source(source),
            previous: previous.parse().ok(),
            in_image: true,
            in_cache: false,
            place,
        });
    }
}

/// A layer with contents is made of them; one without stands for that of the previous image.
fn content(id: &str, layer: &LayerDir, before: Option<&Layer>, owner: Owner) -> anyhow::Result<Content> {
    if layer.has_contents {
        return Ok(Content::Source(Box::new(DirLayer::new(&layer.path, owner))));
    }
    if layer.toml.types.cache {
        bail!("layer '{id}' is cache=true but has no contents");
    }
    match before {
        Some(before) if before.sha.parse::<DiffId>().is_ok() => Ok(Content::Previous),
        _ => bail!("cannot reuse '{id}', previous image has no metadata for layer '{id}'"),
    }
}
