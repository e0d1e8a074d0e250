//! The restorer: brings back what buildpacks wrote down of their layers, and the contents of cached ones.
//!
//! A layer comes back whole, with its metadata, or not at all: from the cache, or from what was [`kept`] of it.
//! Specification: `platform.md` § Restorer.

mod kept;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use drydock_io::threads::each;
use drydock_layout::Early;
use drydock_layout::seen::{Print, Time, file_time, present, settle};
use drydock_model::digest::DiffId;
use drydock_model::reference::{LayoutDir, LayoutPath};
use drydock_spec::Metadata;
use drydock_spec::analyzed::{Analyzed, ImageIdentifier, Layer, LayersMetadata};
use drydock_spec::api::PlatformApi;
use drydock_spec::cache::CacheMetadata;
use drydock_spec::group::{Group, GroupElement};
use drydock_spec::layer::LayerToml;
use drydock_tar::{Extraction, Owner, extract, remove_all};

use self::kept::Kept;
use crate::buildpacks::{check_group, dir_name};
use crate::cache::{self, Cache, StoredTar};
use crate::export::CacheLocation;
use crate::file::{exists, read_toml, read_toml_if_exists, write, write_toml};
use crate::identify::{self, identify, is_in_sight, restore_sbom};
use crate::layer_index::LayerIndex;
use crate::layer_tar::{DirLayer, LayerSource as _, Outline};
use crate::layers::{clear_up, is_layer_name, tell_layers};
use crate::run_image::{self, RunImageFiles};
use crate::threads::{share, shared};
use crate::timer::timed;
use crate::{Error, Kind, Log, limits, sbom};

/// Everything that the restorer needs to know.
#[derive(Debug)]
pub struct Inputs {
    /// The Platform API that the platform speaks.
    pub platform_api: PlatformApi,
    /// Where images lie; needed only where an image has to be looked at.
    pub layout_dir: Option<LayoutDir>,
    /// The layers directory, absolute.
    pub layers_dir: PathBuf,
    /// What the detector wrote.
    pub group_path: PathBuf,
    /// What the analyzer wrote; it is brought up to date.
    pub analyzed_path: PathBuf,
    /// `run.toml`.
    pub run_path: PathBuf,
    /// `stack.toml`.
    pub stack_path: PathBuf,
    /// The image that the build runs in, where extensions take part.
    pub build_image: Option<LayoutPath>,
    /// The cache, if there is one.
    pub cache: Option<CacheLocation>,
    /// Whether only `store.toml` files come back.
    pub skip_layers: bool,
    /// The folder that has the layer index, if there is to be one.
    pub layer_index: Option<PathBuf>,
    /// The owner of layers inside the image.
    pub owner: Owner,
    /// How many layers are extracted at a time, and how many threads make the files of one, at most.
    pub threads: NonZeroUsize,
    /// Files of images that were opened as root.
    pub early: Early,
}

impl Inputs {
    /// The folders of the images that may be read.
    pub fn reads(&self) -> Vec<PathBuf> {
        let named = self.layout_dir.iter().flat_map(|dir| identify::reads(&self.analyzed_path, dir));
        named.chain(self.build_image.as_ref().map(|path| path.path().to_owned())).collect()
    }
}

/// Restores with what other phases left in files.
pub fn restore(inputs: &Inputs, log: &dyn Log) -> Result<(), Error> {
    let group: Group = read_toml(&inputs.group_path)
        .map_err(|error| Error::new(Kind::General, error.context("failed to read group file")))?;
    let mut metadata = LayersMetadata::default();
    check_group(&group.group)?;
    match read_toml_if_exists::<Analyzed>(&inputs.analyzed_path) {
        Ok(Some(mut analyzed)) => {
            update_images(inputs, &mut analyzed, log)?;
            write_toml(&inputs.analyzed_path, &analyzed)?;
            metadata = analyzed.metadata;
        }
        Ok(None) => log.warn(&format!(
            "Not using analyzed data, usable file not found: `{}` is missing",
            inputs.analyzed_path.display()
        )),
        Err(error) => log.warn(&format!("Not using analyzed data, usable file not found: {error:#}")),
    }
    restore_group(inputs, &group.group, &metadata, log)
}

/// Restores the layers of a group of buildpacks; `metadata` is what the previous image says of them.
pub fn restore_group(
    inputs: &Inputs,
    group: &[GroupElement],
    metadata: &LayersMetadata,
    log: &dyn Log,
) -> Result<(), Error> {
    clear_up(&inputs.layers_dir, log);
    timed(log, "Restorer", || restore_layers(inputs, group, metadata, log))
}

fn restore_layers(
    inputs: &Inputs,
    group: &[GroupElement],
    metadata: &LayersMetadata,
    log: &dyn Log,
) -> Result<(), Error> {
    let cache = inputs.cache.as_ref().map(|location| cache::open(location, log)).transpose();
    let cache = cache.map_err(|error| Error::new(Kind::General, error))?;
    let cached = cache.as_ref().map(|cache| cache.metadata(log)).unwrap_or_default();
    if cache.is_none() {
        log.debug("There is no cache: only metadata of the app image can come back");
    }
    tell_layers("The app image", &metadata.buildpacks, log);
    tell_layers("The cache", &cached.buildpacks, log);
    for buildpack in group {
        if let Some(store) = metadata.buildpack(&buildpack.id).and_then(|layers| layers.store.as_ref()) {
            let path = inputs.layers_dir.join(dir_name(&buildpack.id)?).join("store.toml");
            write(&path, text_of(store.metadata.as_ref()).as_bytes())?;
        }
    }
    if inputs.skip_layers {
        log.info("Skipping buildpack layer analysis");
    }
    let kept = Kept::of(&inputs.layers_dir);
    let mut layers = Vec::new();
    for buildpack in group {
        layers.extend(Restorable::of(buildpack, inputs, metadata, &cached, log)?);
    }
    // A build that cannot read what it is given would fail.
    layers.retain(|layer| {
        let readable = LayerToml::parse(&text_of(layer.layer.metadata.as_ref()));
        if let Err(error) = &readable {
            log.warn(&format!(
                "Skipping restore for layer {}: its metadata cannot be read: {error}",
                layer.id
            ));
        }
        readable.is_ok()
    });
    for layer in &layers {
        log.debug(&format!("Writing layer metadata for {:?}", layer.id));
        layer.write_metadata()?;
    }
    if let Some(cache) = &cache {
        let with_data: Vec<(&Restorable, DiffId)> =
            layers.iter().filter_map(|layer| Some((layer, layer.data?))).collect();
        for (layer, diff_id) in &with_data {
            log.info(&format!("Restoring data for {:?} from cache", layer.id));
            log.debug(&format!("Retrieving data for {:?}", diff_id.to_string()));
        }
        restore_data(&with_data, &kept, cache.as_ref(), inputs, log)?;
        let has_sbom = inputs.platform_api.has_sbom_layer() && !cached.sbom.is_empty();
        if has_sbom {
            // The other implementation says so, too, where layers are skipped and nothing is restored.
            log.info("Restoring data for SBOM from cache");
        }
        if has_sbom
            && !inputs.skip_layers
            && let Err(error) = restore_cached_sbom(cache.as_ref(), &cached.sbom, &inputs.layers_dir)
        {
            log.warn(&format!("Skipping restore of the cached SBOM files: {error:#}"));
        }
    }
    kept.remove()?;
    if inputs.platform_api.has_sbom_layer() && !inputs.skip_layers {
        sbom::give_to_buildpacks(&inputs.layers_dir, group, log)?;
    }
    Ok(())
}

/// A layer that can come back.
#[derive(Debug)]
struct Restorable {
    /// `<buildpack>:<layer>`.
    id: String,
    /// Its folder; `<folder>.toml` describes it.
    path: PathBuf,
    layer: Layer,
    /// The tar in the cache that has its contents.
    data: Option<DiffId>,
}

impl Restorable {
    /// A buildpack's layers that can come back, in the order of their names. What must not stay in the layers directory
    /// is removed.
    fn of(
        buildpack: &GroupElement,
        inputs: &Inputs,
        metadata: &LayersMetadata,
        cached: &CacheMetadata,
        log: &dyn Log,
    ) -> anyhow::Result<Vec<Self>> {
        let dir = inputs.layers_dir.join(dir_name(&buildpack.id)?);
        let none = BTreeMap::new();
        let in_image = metadata.buildpack(&buildpack.id).map_or(&none, |layers| &layers.layers);
        let in_cache = cached.buildpack(&buildpack.id).map_or(&none, |layers| &layers.layers);
        // Of a layer without a digest there is nothing that could come back.
        let has_data = |layer: &Layer| !layer.cache || layer.sha.parse::<DiffId>().is_ok();
        let cached_layer = |name: &String| in_cache.get(name).filter(|layer| layer.cache && has_data(layer));
        let mut found: Vec<Self> = Vec::new();
        let restorable = |name: &String, layer: &Layer| Self {
            id: format!("{}:{name}", buildpack.id),
            path: dir.join(name),
            layer: layer.clone(),
            data: cached_layer(name).and_then(|layer| layer.sha.parse().ok()),
        };
        if !inputs.skip_layers {
            let mut find = |name: &String, layer: &Layer, whence: &str, obstacle: Option<&str>| {
                let what = format!("metadata for {:?} from {whence}", format!("{}:{name}", buildpack.id));
                if let Some(obstacle) = obstacle {
                    log.debug(&format!("Not restoring {what}: {obstacle}"));
                } else {
                    log.info(&format!("Restoring {what}"));
                    found.push(restorable(name, layer));
                }
            };
            for (name, layer) in in_image.iter().filter(|(name, _)| is_layer_name(name)) {
                find(name, layer, "app image", not_from_image(layer, cached_layer(name).is_some()));
            }
            let usable = in_cache.iter().filter(|(name, layer)| is_layer_name(name) && has_data(layer));
            for (name, layer) in usable {
                let obstacle = not_from_cache(layer, in_image.contains_key(name), inputs.platform_api);
                find(name, layer, "cache", obstacle);
            }
        }
        // What the cache has, but for another state of the layer than that which comes back, is of no use.
        let mut restored = Vec::new();
        for layer in found {
            match layer.data {
                Some(data) if layer.layer.sha != data.to_string() => {
                    log.info(&format!("Removing {:?}, wrong sha", layer.id));
                    log.debug(&format!("Layer sha: {:?}, cache sha: \"{data}\"", layer.layer.sha));
                    layer.remove()?;
                }
                _ => restored.push(layer),
            }
        }
        for (name, layer) in in_cache.iter().filter(|(name, layer)| layer.cache && is_layer_name(name)) {
            let stale = restorable(name, layer);
            if restored.iter().all(|layer| layer.path != stale.path) && exists(&stale.toml_path())? {
                log.info(&format!("Removing {:?}, wrong sha", stale.id));
                log.debug("What an earlier restore or build left of it is not what comes back now");
                stale.remove()?;
            }
        }
        restored.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(restored)
    }

    fn toml_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".toml");
        path.into()
    }

    fn write_metadata(&self) -> anyhow::Result<()> {
        // Which types the layer has is for the buildpack to say again.
        write(&self.toml_path(), text_of(self.layer.metadata.as_ref()).as_bytes())
    }

    /// Removes the layer and what is said of it.
    fn remove(&self) -> anyhow::Result<()> {
        for path in [&self.path, &self.toml_path()] {
            remove_all(path)
                .with_context(|| format!("failed to remove `{}` of layer {}", path.display(), self.id))?;
        }
        Ok(())
    }
}

/// Why the metadata that the app image has of a layer does not come back, if it does not.
fn not_from_image(layer: &Layer, is_cached: bool) -> Option<&'static str> {
    if !layer.launch {
        Some("it is marked as launch=false")
    } else if layer.build && !layer.cache {
        Some("it is marked as build=true, cache=false, so its buildpack makes it anew")
    } else if layer.cache && !is_cached {
        Some("it is marked as cache=true, but the cache does not have it")
    } else {
        None
    }
}

/// Why the metadata that the cache has of a layer does not come back, if it does not.
fn not_from_cache(layer: &Layer, in_image: bool, api: PlatformApi) -> Option<&'static str> {
    if !layer.cache {
        Some("it is marked as cache=false")
    } else if layer.launch && in_image {
        Some("it is marked as launch=true, so what the app image has counts")
    } else if layer.launch && !api.restores_launch_from_cache() {
        Some(
            "it is marked as launch=true, and before Platform API 0.14 such a layer comes from an app image only",
        )
    } else {
        None
    }
}

/// What comes back of a `<layer>.toml` or a `store.toml`: an empty file, if it had no table `metadata`.
fn text_of(metadata: Option<&Metadata>) -> String {
    metadata.map(Metadata::to_toml).unwrap_or_default()
}

/// Gives back or extracts layers in parallel. One that the cache cannot give is dropped with its metadata.
fn restore_data(
    layers: &[(&Restorable, DiffId)],
    kept: &Kept,
    cache: &dyn Cache,
    inputs: &Inputs,
    log: &dyn Log,
) -> anyhow::Result<()> {
    let mut index = LayerIndex::read(inputs.layer_index.as_deref());
    let (threads, begun, before) = (inputs.threads, file_time(), Arc::clone(index.seen()));
    let back = each(layers, threads, |(layer, diff_id)| {
        if let Some(outline) = kept.give_back((diff_id, &layer.path), inputs.owner, cache, &index) {
            log.debug(&format!("Layer {} was kept as it is in the cache", layer.id));
            return Ok(Back::Given(outline));
        }
        match restore_tar(cache, diff_id, &layer.path, u64::MAX, threads) {
            Ok(tar) => Ok(Back::Extracted(tar)),
            Err(error) => {
                log.warn(&format!("Skipping restore for layer {}: {error:#}", layer.id));
                layer.remove().map(|()| Back::Not)
            }
        }
    })?;
    if !index.is_of_use() {
        return Ok(());
    }
    let mut extracted = Vec::new();
    for (layer, back) in layers.iter().zip(back) {
        match back {
            Back::Given(outline) => index.note_plain(&outline, begun),
            Back::Extracted(tar) => extracted.push((layer, tar)),
            Back::Not => {}
        }
    }
    if !extracted.is_empty() {
        note_extracted(&mut index, &extracted, inputs, begun);
    }
    if *index.seen() != before {
        index.write(log);
    }
    Ok(())
}

/// How a layer came back.
enum Back {
    /// As it was kept; it looks so.
    Given(Outline),
    Extracted(Restored),
    Not,
}

/// Notes trees that were extracted, and the tars that they came from.
fn note_extracted(
    index: &mut LayerIndex,
    extracted: &[(&(&Restorable, DiffId), Restored)],
    inputs: &Inputs,
    begun: Time,
) {
    settle();
    let since = file_time();
    // Where a tree cannot be looked at, the exporter reads it, and says what is wrong.
    let look = |((layer, _), _): &(&(&Restorable, DiffId), _)| {
        DirLayer::new(&layer.path, inputs.owner).look().ok().flatten()
    };
    let outlines = shared(inputs.threads, || share(extracted, look));
    for (((_, diff_id), tar), outline) in extracted.iter().zip(outlines) {
        index.note(tar.print.as_ref(), diff_id.of_plain_blob(), begun);
        let outline =
            outline.filter(|outline| outline.print.is_some_and(|print| print.is_older_than(tar.extracted)));
        if let Some(outline) = outline {
            index.extracted(&outline, diff_id, since);
        }
    }
}

/// A cached tar that was extracted.
struct Restored {
    /// How its file looked before it was read.
    print: Option<Print>,
    /// When everything was extracted.
    extracted: Time,
}

/// Extracts a cached tar of at most `most` bytes to `dir`, in place of what is there, and nowhere else.
fn restore_tar(
    cache: &dyn Cache,
    diff_id: &DiffId,
    dir: &Path,
    most: u64,
    threads: NonZeroUsize,
) -> anyhow::Result<Restored> {
    let StoredTar { tar, print, limit } = cache.tar(diff_id)?;
    let extraction = Extraction { diff_id: *diff_id, named: dir, into: dir, limit: limit.min(most), threads };
    extract(tar, &extraction).with_context(|| format!("failed to extract layer {diff_id}"))?;
    Ok(Restored { print, extracted: present() })
}

/// Extracts the cached SBOM files to where buildpacks get theirs from.
fn restore_cached_sbom(cache: &dyn Cache, sha: &str, layers_dir: &Path) -> anyhow::Result<()> {
    let dir = sbom::make_dir(layers_dir, "cache")?;
    restore_tar(cache, &sha.parse()?, &dir, limits::SBOM_TAR, NonZeroUsize::MIN).map(drop)
}

/// Looks at images that are named, but of which nothing more is known.
fn update_images(inputs: &Inputs, analyzed: &mut Analyzed, log: &dyn Log) -> Result<(), Error> {
    let api = inputs.platform_api;
    if let Some(path) = inputs.build_image.as_ref().filter(|_| api.has_extensions()) {
        let image = run_image::open(path, &inputs.early).map_err(|error| error.context("build image"))?;
        analyzed.build_image = Some(ImageIdentifier { reference: image.identifier() });
    }
    if api.restores_launch_from_cache() {
        // Only looked at: in a layout repository there is nothing to choose by access.
        RunImageFiles { run: &inputs.run_path, stack: &inputs.stack_path }.read(api, log)?;
    }
    let Some(layout_dir) = inputs.layout_dir.as_ref().filter(|dir| is_in_sight(dir)) else { return Ok(()) };
    let previous = identify(analyzed, layout_dir, &inputs.early, api, log)?;
    if let Some(previous) = previous.filter(|_| api.has_sbom_layer() && !inputs.skip_layers) {
        restore_sbom(&previous, &analyzed.metadata, &inputs.layers_dir, log)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
