//! Makes the planned layers: from disk in one pass each, or taken over from the previous image.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, anyhow};
use drydock_encode::pipeline::{self, Blob, Done, Job, Settings, WriteError};
use drydock_io::file::TempFile;
use drydock_io::sink::Sink;
use drydock_layout::{BlobSource, Image, ImageLayer, NewLayer, Transaction};
use drydock_model::digest::DiffId;
use drydock_model::manifest::Descriptor;
use drydock_tar::TarError;

use super::cached::CacheExport;
use super::kept::CachedTar;
use super::plan::{Content, LayerPlan};
use crate::Log;
use crate::layer_index::LayerIndex;
use crate::layer_tar::{LayerSource, Outline};
use crate::threads::{beside, share, shared};

/// A planned layer, made.
#[derive(Debug)]
pub(super) struct MadeLayer {
    /// The digest of its tar.
    pub(super) diff_id: DiffId,
    /// For the image, if it is in it.
    pub(super) layer: Option<NewLayer>,
    /// Whether the previous image had it already.
    pub(super) reused: bool,
    /// For the cache, if it is in it.
    pub(super) for_cache: ForCache,
    /// Of the tree that it was made of, if it was made of one.
    pub(super) outline: Option<Outline>,
}

/// Where the cache gets a layer from.
#[derive(Debug)]
pub(super) enum ForCache {
    /// From a tar that was made for it.
    Tar(TempFile),
    /// From the cache as it was: its tar is the layer's.
    AsCached,
    /// From the image, if from anywhere.
    InImage,
}

/// What layers are made with.
#[derive(Debug)]
pub(super) struct Maker<'a> {
    /// What the image goes into.
    pub(super) transaction: &'a Transaction,
    /// The image whose layers may be reused.
    pub(super) previous: Option<&'a Image>,
    /// How new layers are made.
    pub(super) settings: Settings,
    /// The cache, if there is one.
    pub(super) cache: Option<&'a CacheExport>,
    /// What need not be read.
    pub(super) index: &'a LayerIndex,
}

/// A layer that is made from files.
struct FromDisk<'p> {
    /// Which of all planned layers.
    at: usize,
    plan: &'p LayerPlan,
    source: &'p dyn LayerSource,
    /// The diff ID with which nothing has to be written for it.
    known: Option<DiffId>,
    /// The cache's tar of the layer with that diff ID, if the cache wants one.
    cached: Option<CachedTar>,
    /// Of the files that it was last made of.
    outline: Mutex<Option<Outline>>,
}

impl FromDisk<'_> {
    fn write(&self, out: &mut dyn Sink) -> Result<(), TarError> {
        let outline = match &self.cached {
            Some(cached) => cached.compare(out, |out| self.source.write(out))?,
            None => self.source.write(out)?,
        };
        *self.outline.lock().unwrap_or_else(PoisonError::into_inner) = outline;
        Ok(())
    }

    /// What is known of it without reading its files.
    fn look(&self, index: &LayerIndex) -> Known {
        let Some(diff_id) = self.known.filter(|_| index.is_of_use()) else { return Known::Nothing };
        // If it cannot be looked at, reading it tells why.
        let Some(outline) = self.source.look().ok().flatten() else { return Known::Nothing };
        if index.rules_out(&outline, &diff_id) {
            return Known::Changed;
        }
        let is_cached = self.cached.as_ref().is_none_or(|cached| cached.is_known(index.seen()));
        if !is_cached || !index.knows(&outline, &diff_id) {
            return Known::Nothing;
        }
        *self.outline.lock().unwrap_or_else(PoisonError::into_inner) = Some(outline);
        Known::Unchanged(diff_id)
    }

    /// Whatever was known, it is written.
    fn write_anew(&mut self) {
        (self.known, self.cached) = (None, None);
    }
}

/// What is known of a layer.
enum Known {
    /// It is the one that nothing has to be written for, and the cache's tar is its tar.
    Unchanged(DiffId),
    /// It is another one.
    Changed,
    Nothing,
}

/// What came of a layer's tar.
struct Contents {
    diff_id: DiffId,
    blob: Option<Blob>,
    copy: Option<TempFile>,
}

impl Contents {
    /// Of a layer whose files were not read.
    fn unread(diff_id: DiffId) -> Self {
        Self { diff_id, blob: None, copy: None }
    }
}

impl From<Done> for Contents {
    fn from(Done { diff_id, blob, copy, .. }: Done) -> Self {
        Self { diff_id, blob, copy }
    }
}

/// What was brought from the previous image, or why it could not be.
type Brought = BTreeMap<DiffId, anyhow::Result<Descriptor>>;

impl Maker<'_> {
    /// Makes the layers; the results are in order.
    pub(super) fn make(&self, plans: &[LayerPlan], log: &dyn Log) -> anyhow::Result<Vec<MadeLayer>> {
        // What cannot be had is better told before the work than after it.
        for plan in plans.iter().filter(|plan| matches!(plan.content, Content::Previous)) {
            let diff_id = taken_over(plan)?;
            self.find(&diff_id).with_context(|| cannot_reuse(plan))?;
        }
        let mut made: Vec<Option<MadeLayer>> = plans.iter().map(|_| None).collect();
        let from_disk = self.layers_from_disk(plans);
        let looks = shared(self.settings.threads, || share(&from_disk, |layer| layer.look(self.index)));
        let (mut unread, mut to_read) = (Vec::new(), Vec::new());
        for (mut layer, look) in from_disk.into_iter().zip(looks) {
            match look {
                Known::Unchanged(diff_id) => unread.push((layer, diff_id)),
                Known::Changed => {
                    layer.write_anew();
                    to_read.push(layer);
                }
                Known::Nothing => to_read.push(layer),
            }
        }
        // Which of those are unchanged is known only when all are hashed: what may be reused is brought at the same time.
        let (brought, done) = beside(
            || self.bring_early(plans, unread.iter().map(|(layer, _)| layer).chain(&to_read)),
            || self.run(&to_read, log),
        );
        let unread = unread.into_iter().map(|(layer, diff_id)| (layer, Contents::unread(diff_id)));
        let read = to_read.into_iter().zip(done?.into_iter().map(Contents::from));
        let mut all: Vec<_> = unread.chain(read).collect();
        all.sort_by_key(|(layer, _)| layer.at);
        // Where the previous image's blob or the cache's tar turns out to be of no use, it is written after all.
        let mut again = Vec::new();
        for (mut layer, contents) in all {
            made[layer.at] = self.finish(&layer, contents, &brought, log);
            if made[layer.at].is_none() {
                layer.write_anew();
                again.push(layer);
            }
        }
        for (layer, done) in again.iter().zip(self.run(&again, log)?) {
            made[layer.at] = self.finish(layer, done.into(), &brought, log);
        }
        let all = made.into_iter().zip(plans).map(|(made, plan)| match (made, &plan.content) {
            (Some(made), _) => Ok(made),
            (None, Content::Previous) => self.take_over(plan, &brought),
            (None, Content::Source(_)) => {
                unreachable!(
                    "what is not compared with the previous image is written, so every layer is made"
                )
            }
        });
        all.collect()
    }

    fn layers_from_disk<'p>(&self, plans: &'p [LayerPlan]) -> Vec<FromDisk<'p>> {
        let layer = |(at, plan): (usize, &'p LayerPlan)| match &plan.content {
            Content::Source(source) => {
                let cached =
                    self.cache.filter(|cache| cache.wants_tar(plan)).and_then(|cache| cache.tar(plan));
                let known = self.unchanged(plan, cached.as_ref().map(|cached| cached.diff_id));
                let cached = cached.filter(|_| known.is_some());
                Some(FromDisk { at, plan, source: source.as_ref(), known, cached, outline: Mutex::default() })
            }
            Content::Previous => None,
        };
        plans.iter().enumerate().filter_map(layer).collect()
    }

    /// Hashes and writes these layers; without the copies for the cache, if these cannot be written.
    fn run(&self, layers: &[FromDisk<'_>], log: &dyn Log) -> anyhow::Result<Vec<Done>> {
        let beside = self.transaction.beside_blobs();
        let sources: Vec<_> = layers.iter().map(|layer| |out: &mut dyn Sink| layer.write(out)).collect();
        let run = || {
            let job = |(layer, source): (&FromDisk<'_>, _)| Job {
                source,
                known: layer.known,
                blob: layer.plan.in_image.then_some(&beside),
                copy: self.staging(layer.plan),
            };
            let jobs: Vec<Job<'_, TarError>> =
                layers.iter().zip(sources.iter().map(|source| source as _)).map(job).collect();
            pipeline::run(&jobs, self.settings)
        };
        match (run(), self.cache) {
            (Err(pipeline::Error::Write(WriteError { path, source })), Some(cache))
                if path.starts_with(cache.staging()) =>
            {
                let error = anyhow!(source).context(format!("cannot write `{}`", path.display()));
                cache.give_up(&error, log);
                Ok(run()?)
            }
            (result, _) => Ok(result?),
        }
    }

    /// Where a layer's tar is made for the cache, if it needs one.
    fn staging(&self, plan: &LayerPlan) -> Option<&Path> {
        self.cache.filter(|cache| cache.wants_tar(plan)).map(CacheExport::staging)
    }

    /// The diff ID with which nothing has to be written for a layer: whatever would be written is there.
    /// `cached` is that of the cache's tar of it.
    fn unchanged(&self, plan: &LayerPlan, cached: Option<DiffId>) -> Option<DiffId> {
        let in_image = plan.previous.filter(|id| {
            self.previous.and_then(|image| image.layer(id)).is_some_and(|layer| layer.is_present())
        });
        match (plan.in_image, self.staging(plan).is_some()) {
            (true, true) if in_image != cached => None,
            (true, _) => in_image,
            (false, _) => cached,
        }
    }

    /// `None` if the layer is as it was, but its blob or its tar in the cache cannot be had.
    fn finish(
        &self,
        FromDisk { plan, cached, outline, .. }: &FromDisk<'_>,
        contents: Contents,
        brought: &Brought,
        log: &dyn Log,
    ) -> Option<MadeLayer> {
        let Contents { diff_id, blob, copy } = contents;
        let for_cache = match (copy, cached) {
            (Some(tar), _) => ForCache::Tar(tar),
            (None, Some(cached)) if cached.is_same() => ForCache::AsCached,
            (None, Some(_)) if self.staging(plan).is_some() => {
                log.warn(&format!(
                    "Layer '{}' is cached again: what the cache has of it is damaged",
                    plan.id
                ));
                return None;
            }
            (None, _) => ForCache::InImage,
        };
        let layer = match blob {
            Some(blob) => Some(NewLayer {
                diff_id,
                descriptor: Descriptor::new(blob.media_type, blob.digest, blob.size),
                blob: BlobSource::Temporary(blob.file),
            }),
            None if plan.in_image => match self.reused(&diff_id, brought) {
                Ok(layer) => Some(layer),
                Err(error) => {
                    log.warn(&format!("Layer '{}' is made again, it cannot be reused: {error:#}", plan.id));
                    return None;
                }
            },
            None => None,
        };
        let outline = *outline.lock().unwrap_or_else(PoisonError::into_inner);
        Some(MadeLayer { diff_id, layer, reused: plan.previous == Some(diff_id), for_cache, outline })
    }

    /// A layer without contents on disk.
    fn take_over(&self, plan: &LayerPlan, brought: &Brought) -> anyhow::Result<MadeLayer> {
        let diff_id = taken_over(plan)?;
        let layer = self.reused(&diff_id, brought).with_context(|| cannot_reuse(plan))?;
        Ok(MadeLayer {
            diff_id,
            layer: Some(layer),
            reused: true,
            for_cache: ForCache::InImage,
            outline: None,
        })
    }

    /// Brings what will be taken from the previous image, and checks what may be, where it need not be brought.
    fn bring_early<'d>(
        &self,
        plans: &[LayerPlan],
        from_disk: impl Iterator<Item = &'d FromDisk<'d>>,
    ) -> Brought {
        let taken = plans.iter().filter(|plan| matches!(plan.content, Content::Previous));
        let taken = taken.filter_map(|plan| plan.previous);
        let in_image = from_disk.filter(|layer| layer.plan.in_image);
        let in_place = in_image.filter_map(|layer| layer.known).filter(|id| self.is_in_place(id));
        let wanted: BTreeSet<_> = taken.chain(in_place).collect();
        wanted.into_iter().map(|diff_id| (diff_id, self.bring(&diff_id))).collect()
    }

    fn is_in_place(&self, diff_id: &DiffId) -> bool {
        let layer = self.previous.and_then(|image| image.layer(diff_id));
        layer.is_some_and(|layer| self.transaction.has(&layer.descriptor))
    }

    /// A layer of the previous image for the new one.
    fn reused(&self, diff_id: &DiffId, brought: &Brought) -> anyhow::Result<NewLayer> {
        let descriptor = match brought.get(diff_id) {
            Some(Ok(descriptor)) => descriptor.clone(),
            Some(Err(error)) => return Err(anyhow!("{error:#}")),
            None => self.bring(diff_id)?,
        };
        Ok(NewLayer { diff_id: *diff_id, descriptor, blob: BlobSource::Placed })
    }

    /// Brings a layer of the previous image into the new one's layout.
    fn bring(&self, diff_id: &DiffId) -> anyhow::Result<Descriptor> {
        let layer = self.find(diff_id)?;
        self.transaction.bring(&layer)?;
        Ok(layer.descriptor)
    }

    /// A layer of the previous image whose blob is there, as far as its size tells.
    fn find(&self, diff_id: &DiffId) -> anyhow::Result<ImageLayer> {
        let image = self.previous.ok_or_else(|| anyhow!("there is no previous image"))?;
        let layer =
            image.layer(diff_id).ok_or_else(|| anyhow!("{} has no layer {diff_id}", image.identifier()))?;
        layer.open_unchecked()?;
        Ok(layer)
    }
}

/// The diff ID of a layer without contents on disk.
fn taken_over(plan: &LayerPlan) -> anyhow::Result<DiffId> {
    plan.previous.with_context(|| format!("cannot reuse '{}': its diff ID is not known", plan.id))
}

fn cannot_reuse(plan: &LayerPlan) -> String {
    format!(
        "cannot reuse layer '{}' of the previous image; remove that image to have everything built again",
        plan.id
    )
}
