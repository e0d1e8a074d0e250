//! Makes the planned layers: from disk in one pass each, or taken over from the previous image.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use drydock_oci::compress::Compression;
use drydock_oci::digest::DiffId;
use drydock_oci::file::TempFile;
use drydock_oci::layout::{BlobSource, Image, LayoutWriter, LinkMode, NewLayer};
use drydock_oci::manifest::Descriptor;
use drydock_oci::pipeline::{self, Done, Job};
use drydock_oci::sink::Sink;
use drydock_oci::tar::TarError;

use super::cached::CacheExport;
use super::plan::{Content, LayerPlan};
use crate::Log;

/// A planned layer, made.
#[derive(Debug)]
pub(super) struct MadeLayer {
    /// The digest of its tar.
    pub(super) diff_id: DiffId,
    /// For the image, if it is in it.
    pub(super) layer: Option<NewLayer>,
    /// Whether the previous image had it already.
    pub(super) reused: bool,
    /// Its tar, where the cache needs it.
    pub(super) tar: Option<TempFile>,
}

/// What layers are made with.
#[derive(Debug)]
pub(super) struct Maker<'a> {
    /// The layout that the image goes into.
    pub(super) writer: &'a LayoutWriter,
    /// The image whose layers may be reused.
    pub(super) previous: Option<&'a Image>,
    /// How new layers are compressed.
    pub(super) compression: Compression,
    /// How blobs come from the previous image.
    pub(super) link: LinkMode,
    /// How many threads work at a time.
    pub(super) threads: NonZeroUsize,
    /// The cache, if there is one.
    pub(super) cache: Option<&'a CacheExport>,
}

impl Maker<'_> {
    /// Makes the layers; the results are in order.
    pub(super) fn make(&self, plans: &[LayerPlan], log: &dyn Log) -> anyhow::Result<Vec<MadeLayer>> {
        let blobs_dir = self.writer.blobs_dir();
        let mut made: Vec<Option<MadeLayer>> = plans.iter().map(|_| None).collect();
        // In the second round are layers whose blob in the previous image turned out to be of no use.
        for reusing in [true, false] {
            let open: Vec<usize> = (0..plans.len()).filter(|&at| made[at].is_none()).collect();
            let mut from_disk = Vec::new();
            for at in open {
                match &plans[at].content {
                    Content::Previous => made[at] = Some(self.take_over(&plans[at])?),
                    Content::Source(source) => from_disk.push((at, |out: &mut dyn Sink| source.write(out))),
                }
            }
            let jobs: Vec<Job<'_, TarError>> = from_disk
                .iter()
                .map(|(at, source)| (&plans[*at], source))
                .map(|(plan, source)| Job {
                    source,
                    known: if reusing { self.unchanged(plan) } else { None },
                    blob: plan.in_image.then_some((blobs_dir.as_path(), self.compression)),
                    copy: self.staging(plan),
                })
                .collect();
            for ((at, _), done) in from_disk.iter().zip(self.run(jobs, log)?) {
                made[*at] = self.finish(&plans[*at], done, log);
            }
        }
        Ok(made
            .into_iter()
            .map(|made| made.expect("the second round reuses nothing, so it makes every layer"))
            .collect())
    }

    /// Runs the jobs; without the copies for the cache, if these cannot be written: an image is worth having anyway.
    fn run(&self, mut jobs: Vec<Job<'_, TarError>>, log: &dyn Log) -> anyhow::Result<Vec<Done>> {
        match pipeline::run(&jobs, self.threads) {
            Err(pipeline::Error::Write { path, source })
                if self.cache.is_some_and(|cache| path.starts_with(cache.staging())) =>
            {
                log.warn(&format!("Nothing new will be cached: cannot write `{}`: {source}", path.display()));
                for job in &mut jobs {
                    job.copy = None;
                }
                Ok(pipeline::run(&jobs, self.threads)?)
            }
            result => Ok(result?),
        }
    }

    /// Where a layer's tar is made for the cache, if it needs one.
    fn staging(&self, plan: &LayerPlan) -> Option<&Path> {
        self.cache.filter(|cache| cache.needs_tar(plan)).map(CacheExport::staging)
    }

    /// The diff ID with which nothing has to be written for a layer: whatever would be written is there.
    fn unchanged(&self, plan: &LayerPlan) -> Option<DiffId> {
        let cached = self.cache.and_then(|cache| cache.diff_id(plan));
        let in_image = plan.previous.filter(|id| {
            self.previous.and_then(|image| image.layer(id)).is_some_and(|layer| layer.is_present())
        });
        match (plan.in_image, self.staging(plan).is_some()) {
            (true, true) if in_image != cached => None,
            (true, _) => in_image,
            (false, _) => cached,
        }
    }

    /// `None` if the layer is as it was, but its blob cannot be had.
    fn finish(&self, plan: &LayerPlan, done: Done, log: &dyn Log) -> Option<MadeLayer> {
        let Done { diff_id, blob, copy, .. } = done;
        let layer = match blob {
            Some(blob) => Some(NewLayer {
                diff_id,
                descriptor: Descriptor::new(blob.media_type, blob.digest, blob.size),
                blob: BlobSource::Temporary(blob.file),
            }),
            None if plan.in_image => match self.bring(&diff_id) {
                Ok(layer) => Some(layer),
                Err(error) => {
                    log.warn(&format!("Layer '{}' is made again, it cannot be reused: {error:#}", plan.id));
                    return None;
                }
            },
            None => None,
        };
        Some(MadeLayer { diff_id, layer, reused: plan.previous == Some(diff_id), tar: copy })
    }

    /// A layer without contents on disk.
    fn take_over(&self, plan: &LayerPlan) -> anyhow::Result<MadeLayer> {
        let id = &plan.id;
        let diff_id =
            plan.previous.with_context(|| format!("cannot reuse '{id}': its diff ID is not known"))?;
        let layer = self.bring(&diff_id).with_context(|| {
            format!("cannot reuse layer '{id}' of the previous image; remove that image to have everything built again")
        })?;
        Ok(MadeLayer { diff_id, layer: Some(layer), reused: true, tar: None })
    }

    /// Brings a layer of the previous image into the new one.
    fn bring(&self, diff_id: &DiffId) -> anyhow::Result<NewLayer> {
        let image = self.previous.ok_or_else(|| anyhow!("there is no previous image"))?;
        let layer =
            image.layer(diff_id).ok_or_else(|| anyhow!("{} has no layer {diff_id}", image.identifier()))?;
        layer.check_present()?;
        self.writer.bring(&layer, self.link)?;
        Ok(NewLayer { diff_id: *diff_id, descriptor: layer.descriptor, blob: BlobSource::Placed })
    }
}
