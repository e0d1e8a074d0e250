//! The cache's side of an export: what it has already, and what it gets.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use drydock_layout::{ImageLayer, Layout};
use drydock_model::digest::{DiffId, Digest};
use drydock_model::reference::LayoutPath;
use drydock_spec::cache::CacheMetadata;

use super::Inputs;
use super::make::MadeLayer;
use super::plan::{LayerPlan, Place, Plan};
use crate::cache::{CacheLocation, CacheWriter, open_writer};
use crate::{Error, Kind, Log};

/// A cache that is being written.
#[derive(Debug)]
pub(super) struct CacheExport {
    cache: Box<dyn CacheWriter>,
    before: CacheMetadata,
}

impl CacheExport {
    /// The cache that the inputs name, if any.
    pub(super) fn open(inputs: &Inputs, log: &dyn Log) -> Result<Option<Self>, Error> {
        let Some(location) = &inputs.cache else { return Ok(None) };
        if let CacheLocation::Image(path) = location
            && inputs.output_images.iter().any(|output| output.path() == path.path())
        {
            let error = anyhow!("`{path}` cannot be the app image and the cache image");
            return Err(Error::new(Kind::Arguments, error).with_help("give the cache image another name"));
        }
        let cache = open_writer(location, &inputs.layout_dir, inputs.link, log)
            .map_err(|error| Error::new(Kind::General, error))?;
        Ok(Some(Self { before: cache.metadata(log), cache }))
    }

    /// Where tars are made.
    pub(super) fn staging(&self) -> &Path {
        self.cache.staging()
    }

    /// Whether a planned layer's tar must be made for the cache, if the cache does not have it yet.
    pub(super) fn needs_tar(&self, plan: &LayerPlan) -> bool {
        plan.in_cache && !(plan.in_image && self.cache.shares_blobs())
    }

    /// What a layer's diff ID is in the cache, if it is there.
    pub(super) fn diff_id(&self, plan: &LayerPlan) -> Option<DiffId> {
        let sha = match &plan.place {
            Place::Buildpack { id, layer } => &self.before.buildpack(id)?.layers.get(layer)?.sha,
            Place::CacheSbom => &self.before.sbom,
            _ => return None,
        };
        sha.parse().ok().filter(|diff_id| self.cache.has(diff_id))
    }

    /// Makes the planned layers the cache's content. What the cache shares with the app image is taken from there.
    pub(super) fn commit(
        mut self,
        plan: &Plan,
        made: Vec<MadeLayer>,
        app_image: &(&LayoutPath, Digest),
        log: &dyn Log,
    ) -> anyhow::Result<()> {
        let mut metadata = CacheMetadata { sbom: String::new(), buildpacks: plan.cache_buildpacks.clone() };
        for (plan, made) in plan.layers.iter().zip(made).filter(|(plan, _)| plan.in_cache) {
            let diff_id = made.diff_id;
            if self.cache.keep(&diff_id)? {
                log.info(&format!("Reusing cache layer '{}'", plan.id));
            } else {
                log.info(&format!("Adding cache layer '{}'", plan.id));
                let added = match made.tar {
                    Some(tar) => self.cache.add(&diff_id, tar),
                    None => layer_of(app_image, &diff_id).and_then(|layer| self.cache.share(&layer)),
                };
                added.with_context(|| format!("cannot cache layer '{}'", plan.id))?;
            }
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

fn layer_of((path, digest): &(&LayoutPath, Digest), diff_id: &DiffId) -> anyhow::Result<ImageLayer> {
    let image = Layout::open(path)?.image_by_digest(digest)?;
    image.layer(diff_id).ok_or_else(|| anyhow!("{} has no layer {diff_id}", image.identifier()))
}
