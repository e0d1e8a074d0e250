//! What all operations share that write images: layers through the pipeline, and names that are switched.

use anyhow::{Context as _, Error, Result};
use drydock_encode::pipeline::{self, Job, Settings};
use drydock_io::file::TempFile;
use drydock_layout::{BlobSource, Committed, Durability, NewImage, NewLayer, NewLog, Prepared, Transaction};
use drydock_model::digest::DiffId;
use drydock_model::manifest::Descriptor;

use crate::flatten::Options;

/// A layer that was written, but is not in its place.
pub(crate) struct Written {
    pub(crate) diff_id: DiffId,
    pub(crate) descriptor: Descriptor,
    file: TempFile,
}

impl Written {
    /// Puts it in its place, for a manifest that is made by hand.
    pub(crate) fn put(self, transaction: &Transaction) -> Result<Descriptor> {
        transaction.put_blob(self.file, self.descriptor.digest)?;
        Ok(self.descriptor)
    }
}

impl From<Written> for NewLayer {
    fn from(Written { diff_id, descriptor, file }: Written) -> Self {
        Self { diff_id, descriptor, blob: BlobSource::Temporary(file) }
    }
}

/// Writes layers whose tars come from these, in their order.
pub(crate) fn layers(
    sources: &[&pipeline::Source<'_, Error>],
    transaction: &Transaction,
    options: Options,
) -> Result<Vec<Written>> {
    let beside = transaction.beside_blobs();
    let job = |source| Job { source, known: None, blob: Some(&beside), copy: None };
    let jobs: Vec<Job<'_, Error>> = sources.iter().copied().map(job).collect();
    let Options { compression, threads, durability } = options;
    let settings = Settings { threads, compression, write_out: durability == Durability::OnDisk };
    let done = pipeline::run(&jobs, settings).map_err(pipeline::Error::into_source)?;
    let written = done.into_iter().map(|done| {
        let blob = done.blob.context("the pipeline writes the blob that it was asked for")?;
        let descriptor = Descriptor::new(blob.media_type, blob.digest, blob.size);
        Ok(Written { diff_id: done.diff_id, descriptor, file: blob.file })
    });
    written.collect()
}

/// Writes the layer whose tar comes from there.
pub(crate) fn layer(
    source: &pipeline::Source<'_, Error>,
    transaction: &Transaction,
    options: Options,
) -> Result<Written> {
    layers(&[source], transaction, options)?.pop().context("the pipeline returns what it did")
}

/// An image that is there.
pub(crate) struct Published {
    pub(crate) committed: Committed,
    /// What went wrong after it was there: old blobs that could not be removed.
    pub(crate) left: Option<String>,
    /// Why the log of its build is not beside it.
    pub(crate) unlogged: Option<String>,
}

/// Makes the names stand for an image, with the log of its build beside it if there is one.
pub(crate) fn publish_image(
    transaction: Transaction,
    image: NewImage,
    log: Option<NewLog>,
) -> Result<Published> {
    let (prepared, unlogged) = transaction.prepare_image_and_log(image, log)?;
    let unlogged = unlogged.map(|error| format!("{:#}", Error::from(error)));
    let committed = prepared.committed().cloned().context("an image was prepared")?;
    Ok(Published { committed, left: publish(prepared)?, unlogged })
}

/// Switches the names. The result is what went wrong after that: old blobs that could not be removed.
pub(crate) fn publish(prepared: Prepared) -> Result<Option<String>> {
    Ok(prepared.publish()?.map(|error| format!("{:#}", Error::from(error))))
}
