//! The cache's side of an export: what it has already, and what it gets.
//!
//! An image is worth having without its cache: whatever goes wrong here is warned about, once, and the cache
//! stays as it was.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, anyhow};
use drydock_layout::seen::Seen;
use drydock_layout::{ImageLayer, Layout};
use drydock_model::digest::{DiffId, Digest};
use drydock_model::reference::LayoutPath;
use drydock_spec::cache::CacheMetadata;

use super::Inputs;
use super::kept::CachedTar;
use super::make::{ForCache, MadeLayer};
use super::plan::{LayerPlan, Place, Plan};
use crate::cache::{CacheWriter, open_writer};
use crate::{Error, Kind, Log};

/// A cache that is being written.
#[derive(Debug)]
pub(super) struct CacheExport {
    cache: Box<dyn CacheWriter>,
    before: CacheMetadata,
    given_up: AtomicBool,
}

impl CacheExport {
    /// The cache that the inputs name, if any; none if it cannot be written.
    ///
    /// What can be no cache is an error.
    pub(super) fn open(inputs: &Inputs, seen: &Arc<Seen>, log: &dyn Log) -> Result<Option<Self>, Error> {
        let Some(location) = &inputs.cache else { return Ok(None) };
        check_cache(inputs)?;
        let output = &inputs.output;
        let cache = match open_writer(location, &output.layout_dir, output.link, seen, log) {
            Ok(cache) => cache,
            Err(error) => {
                log.warn(&format!("Nothing will be cached: {error:#}"));
                return Ok(None);
            }
        };
        // A name of the app image may lead to a cache image that is there only now.
        check_cache(inputs)?;
        Ok(Some(Self { before: cache.metadata(log), cache, given_up: AtomicBool::new(false) }))
    }

    /// Where tars are made.
    pub(super) fn staging(&self) -> &Path {
        self.cache.staging()
    }

    /// Leaves the cache as it was, whatever is still asked of it.
    pub(super) fn give_up(&self, why: &anyhow::Error, log: &dyn Log) {
        self.given_up.store(true, Ordering::Relaxed);
        log.warn(&format!("Nothing will be cached: {why:#}"));
    }

    /// Whether the cache wants a planned layer as a tar.
    pub(super) fn wants_tar(&self, plan: &LayerPlan) -> bool {
        let is_shared = plan.in_image && self.cache.shares_blobs();
        plan.in_cache && !is_shared && !self.given_up.load(Ordering::Relaxed)
    }

    /// The tar that the cache has of a planned layer's last state.
    pub(super) fn tar(&self, plan: &LayerPlan) -> Option<CachedTar> {
        let diff_id = self.diff_id(plan)?;
        Some(CachedTar::new(diff_id, self.cache.tar(&diff_id)?))
    }

    /// What a layer's diff ID was in the cache.
    fn diff_id(&self, plan: &LayerPlan) -> Option<DiffId> {
        let sha = match &plan.place {
            Place::Buildpack { id, layer } => &self.before.buildpack(id)?.layers.get(layer)?.sha,
            Place::CacheSbom => &self.before.sbom,
            _ => return None,
        };
        sha.parse().ok()
    }

    /// Makes the planned layers the cache's content.
    pub(super) fn commit(
        mut self,
        plan: &Plan,
        made: Vec<MadeLayer>,
        app_image: &(&LayoutPath, Digest),
        log: &dyn Log,
    ) -> anyhow::Result<()> {
        if self.given_up.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut metadata = CacheMetadata { sbom: String::new(), buildpacks: plan.cache_buildpacks.clone() };
        for (plan, made) in plan.layers.iter().zip(made).filter(|(plan, _)| plan.in_cache) {
            let diff_id = made.diff_id;
            let reuses = match made.for_cache {
                ForCache::Tar(_) => false,
                ForCache::AsCached => true,
                ForCache::InImage => self.diff_id(plan) == Some(diff_id),
            };
            log.info(&format!("{} cache layer '{}'", if reuses { "Reusing" } else { "Adding" }, plan.id));
            let added = match made.for_cache {
                ForCache::Tar(tar) => self.cache.add(&diff_id, tar),
                ForCache::AsCached => self.cache.keep(&diff_id),
                ForCache::InImage => layer_of(app_image, &diff_id).and_then(|layer| self.cache.share(&layer)),
            };
            added.with_context(|| format!("cannot cache layer '{}'", plan.id))?;
            let sha = diff_id.to_string();
            if let Place::Buildpack { id, layer } = &plan.place {
                let buildpack = metadata.buildpacks.iter_mut().find(|buildpack| buildpack.key == *id);
                let layer = buildpack.and_then(|buildpack| buildpack.layers.get_mut(layer));
                layer.context("a planned layer is in the plan's metadata")?.sha = sha;
            } else {
                metadata.sbom = sha;
            }
        }
        self.cache.commit(&metadata, log)
    }
}

/// Says what is wrong if what the inputs name as the cache cannot be one, or cannot be one beside the app
/// image.
pub(crate) fn check_cache(inputs: &Inputs) -> Result<(), Error> {
    let Some(location) = &inputs.cache else { return Ok(()) };
    location
        .check_apart_from(&inputs.output.names)
        .map_err(|error| Error::new(Kind::Arguments, error).with_help("give the cache a place of its own"))?;
    location.check().map_err(|error| Error::new(Kind::General, error))
}

fn layer_of((path, digest): &(&LayoutPath, Digest), diff_id: &DiffId) -> anyhow::Result<ImageLayer> {
    let image = Layout::open(path)?.image_by_digest(digest)?;
    image.layer(diff_id).ok_or_else(|| anyhow!("{} has no layer {diff_id}", image.identifier()))
}
