//! When a step need not be done again: its [`key`], and where what it did is kept ([`Store`]).

mod store;

use anyhow::{Context as _, Result};
use drydock_model::digest::Digest;

use crate::in_place::{Contexts, digest_of_copied, digest_of_path};
use crate::plan::{Action, Mount, PREDEFINED, Program, Step};

pub use self::store::Store;
pub(crate) use self::store::{Known, Room};

/// What is known of the steps that are done one after the other.
#[derive(Debug)]
pub struct Cache<'a> {
    store: &'a Store,
    /// Of all that was done so far.
    key: Digest,
    /// Whether a step was done that was not known: what comes after it may be something else each time.
    is_over: bool,
}

impl<'a> Cache<'a> {
    /// For steps that are done to what `first` stands for: an image by its manifest's digest, and whatever else layers depend on.
    pub fn new(store: &'a Store, first: &str) -> Self {
        Self { store, key: first_key(first), is_over: false }
    }

    /// What the next step did when it was done before.
    pub(crate) fn find(&mut self, step: &Step, contexts: &mut dyn Contexts) -> Result<Option<Known>> {
        self.key = key(&self.key, step, contexts)?;
        let known = if self.is_over { None } else { self.store.find(&self.key)? };
        self.is_over = known.is_none();
        Ok(known)
    }

    /// Room for what that step does now.
    pub(crate) fn begin(&self) -> Result<Room> {
        self.store.begin(&self.key)
    }
}

/// The key of what a stage begins with: the digest of an image's manifest, or `scratch`.
pub fn first_key(base: &str) -> Digest {
    Digest::of(base.as_bytes())
}

/// The key of a step after what has the key `before`: another step with the same key does the same to the same files.
///
/// It is a digest of that, of all that the step says with its variables put in, and of what it brings or sees of contexts: names,
/// contents, permissions and owners, but no times. How other machines are reached is no part of it, nor are secrets' values. What a
/// step downloads is asked for, unless it says what it must be.
pub fn key(before: &Digest, step: &Step, contexts: &mut dyn Contexts) -> Result<Digest> {
    let mut files = Vec::new();
    let action = match &step.action {
        Action::Copy(copying) => {
            files.push(digest_of_copied(contexts, copying)?);
            format!("{copying:?}")
        }
        Action::Run(program) => {
            for mount in &program.mounts {
                let (Mount::Bind { from, source, .. } | Mount::Cache { from: Some(from), source, .. }) = mount
                else {
                    continue;
                };
                let digest = digest_of_path(contexts.open(from)?, source);
                files.push(digest.with_context(|| format!("`{source}`, which is to be mounted"))?);
            }
            let mut env = program.env.clone();
            env.retain(|name, _| !PREDEFINED.contains(&name.as_str()));
            format!("{:?}", Program { env, ..program.clone() })
        }
        Action::MakeDir { .. } => format!("{:?}", step.action),
    };
    // Texts are in quotes there, so that none can be taken for another.
    Ok(Digest::of(format!("{before} {files:?} {action}").as_bytes()))
}
