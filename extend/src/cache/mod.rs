//! When a step need not be done again: its [`key`], and where what it did is kept ([`Store`]).

mod store;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use drydock_model::digest::{DiffId, Digest};

use crate::in_place::{Contexts, digest_of_copied};
use crate::plan::{Action, Mount, Program, Step};

pub use self::store::Store;
pub(crate) use self::store::{Known, Room};

/// What is known of the steps that are done one after the other.
#[derive(Debug)]
pub struct Cache<'a> {
    store: &'a Store,
    /// Of the files that the next step finds.
    files: Digest,
}

impl<'a> Cache<'a> {
    /// For steps that are done to what `first` stands for: an image by its manifest's digest, and whatever else layers depend on.
    pub fn new(store: &'a Store, first: &str) -> Self {
        Self { store, files: first_key(first) }
    }

    /// What the next step did when it was done before.
    pub(crate) fn find(&self, step: &Step, contexts: &mut dyn Contexts) -> Result<Option<Known>> {
        self.store.find(&key(&self.files, step, &brought(step, contexts)?))
    }

    /// That step is done, and has made this layer.
    pub(crate) fn done(&mut self, layer: Option<&DiffId>) {
        self.files = key_after(&self.files, layer);
    }

    /// Room for what that step did, which brought this.
    pub(crate) fn begin(&self, step: &Step, brought: &[Digest]) -> Result<Room> {
        self.store.begin(&key(&self.files, step, brought))
    }
}

/// The key of what a stage begins with: the digest of an image's manifest, or `scratch`.
pub fn first_key(base: &str) -> Digest {
    Digest::of(base.as_bytes())
}

/// The key of the files that a step leaves: those that it found, and the layer that it made. What a step did again, with the same
/// outcome, does not make what comes after it another thing.
pub fn key_after(before: &Digest, layer: Option<&DiffId>) -> Digest {
    layer.map_or(*before, |layer| Digest::of(format!("{before} {layer}").as_bytes()))
}

/// The key of a step that finds the files with the key `before`: another step with the same key does the same to the same files.
///
/// It is a digest of that, of all that the step says with its variables put in, and of what it brings or sees of contexts. How other
/// machines are reached is no part of it, nor are secrets' values.
pub fn key(before: &Digest, step: &Step, brought: &[Digest]) -> Digest {
    let action = match &step.action {
        Action::Run(program) => format!("{:?}", Program { proxies: BTreeMap::new(), ..program.clone() }),
        Action::Copy(_) | Action::MakeDir { .. } => format!("{:?}", step.action),
    };
    // Texts are in quotes there, so that none can be taken for another.
    Digest::of(format!("{before} {brought:?} {action}").as_bytes())
}

/// What a step would bring or see of contexts now: names, contents, permissions and owners, but no times. What it downloads is asked for,
/// unless it says what it must be.
///
/// Contexts may change meanwhile: what was done has the key of what [`perform`](crate::in_place::perform) says that it brought.
pub fn brought(step: &Step, contexts: &mut dyn Contexts) -> Result<Vec<Digest>> {
    match &step.action {
        Action::Copy(copying) => Ok(vec![digest_of_copied(contexts, copying)?]),
        Action::Run(program) => mounted(program, contexts),
        Action::MakeDir { .. } => Ok(Vec::new()),
    }
}

/// What a program sees of contexts.
pub(crate) fn mounted(program: &Program, contexts: &mut dyn Contexts) -> Result<Vec<Digest>> {
    let mut all = Vec::new();
    for mount in &program.mounts {
        let (Mount::Bind { from, source, .. } | Mount::Cache { from: Some(from), source, .. }) = mount else {
            continue;
        };
        let digest = contexts.mounted(from, source);
        all.push(digest.with_context(|| format!("`{source}`, which is to be mounted"))?);
    }
    Ok(all)
}
