//! The cache's side of an export: what it has already, and what it gets.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use drydock_oci::digest::DiffId;
use drydock_spec::cache::CacheMetadata;

use super::make::MadeLayer;
use super::plan::{LayerPlan, Place, Plan};
use super::{CacheLocation, Inputs};
use crate::cache::VolumeCache;
use crate::{Error, Kind, Log};

/// A cache that is being written.
#[derive(Debug)]
pub(super) struct CacheExport {
    cache: VolumeCache,
    staging: PathBuf,
    before: CacheMetadata,
}

impl CacheExport {
    /// The cache that the inputs name, if any.
    pub(super) fn open(inputs: &Inputs, log: &dyn Log) -> Result<Option<Self>, Error> {
        let dir = match &inputs.cache {
            None => return Ok(None),
            Some(CacheLocation::Dir(dir)) => dir,
            Some(CacheLocation::Image(path)) => {
                return Err(Error::new(
                    Kind::General,
                    anyhow::anyhow!("cache image `{path}`: not possible yet"),
                ));
            }
        };
        let cache = VolumeCache::open(dir, log).map_err(|error| Error::new(Kind::General, error))?;
        Ok(Some(Self { staging: cache.staging(), before: cache.metadata(log), cache }))
    }

    /// Where tars are made.
    pub(super) fn staging(&self) -> &Path {
        &self.staging
    }

    /// What a layer's diff ID is in the cache, if its tar is there.
    pub(super) fn diff_id(&self, plan: &LayerPlan) -> Option<DiffId> {
        let sha = match &plan.place {
            Place::Buildpack { id, layer } => &self.before.buildpack(id)?.layers.get(layer)?.sha,
            Place::CacheSbom => &self.before.sbom,
            _ => return None,
        };
        sha.parse().ok().filter(|diff_id| self.cache.layer_path(diff_id).is_file())
    }

    /// Makes the planned layers the cache's content.
    pub(super) fn commit(self, plan: &Plan, made: Vec<MadeLayer>, log: &dyn Log) -> anyhow::Result<()> {
        let mut metadata = CacheMetadata { sbom: String::new(), buildpacks: plan.cache_buildpacks.clone() };
        for (plan, made) in plan.layers.iter().zip(made).filter(|(plan, _)| plan.in_cache) {
            let diff_id = made.diff_id;
            if self.cache.keep(&diff_id)? {
                log.info(&format!("Reusing cache layer '{}'", plan.id));
            } else {
                let Some(tar) = made.tar else { bail!("the tar of layer '{}' was not made", plan.id) };
                log.info(&format!("Adding cache layer '{}'", plan.id));
                self.cache.add(&diff_id, tar)?;
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
        self.cache.commit(&metadata)
    }
}
