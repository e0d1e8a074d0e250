//! What an index leads to: images, artifacts, and other indexes.

use std::collections::HashMap;
use std::path::Path;

use drydock_model::digest::Digest;
use drydock_model::manifest::{Descriptor, Index, Manifest, Members, REF_NAME};
use drydock_model::media;
use drydock_model::platform::Platform;
use drydock_model::reference::LayoutPath;
use serde_json::Value as Json;

use super::error::LayoutError;
use super::files::Early;
use super::{MAX_DEPTH, MAX_DESCRIPTORS};

/// A descriptor of an index, with what it leads to.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) descriptor: Descriptor,
    pub(super) content: Content,
}

/// What a descriptor leads to.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// An image for this platform.
    Image(Platform),
    /// An index of these.
    Index(Nested),
    /// What cannot be told, because this is missing of it or damaged: an index, or an image whose descriptor has no platform.
    Absent(Digest),
    /// Something else: a signature, an SBOM, an attestation, or what is not known here.
    Artifact,
}

/// What an index in an index holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Nested {
    pub(super) entries: Vec<Entry>,
    /// Descriptors with digests of other algorithms.
    pub(super) foreign: Vec<Json>,
}

impl Entry {
    /// The images that it leads to, each with the platform that it is for.
    pub(super) fn images(&self) -> Vec<(&Descriptor, &Platform)> {
        match &self.content {
            Content::Image(platform) => vec![(&self.descriptor, platform)],
            Content::Index(nested) => nested.entries.iter().flat_map(Self::images).collect(),
            Content::Absent(_) | Content::Artifact => Vec::new(),
        }
    }

    /// The artifacts that it leads to.
    pub(super) fn artifacts(&self) -> Vec<&Descriptor> {
        match &self.content {
            Content::Image(_) | Content::Absent(_) => Vec::new(),
            Content::Index(nested) => nested.entries.iter().flat_map(Self::artifacts).collect(),
            Content::Artifact => vec![&self.descriptor],
        }
    }

    /// Whether it or an index in it has this digest; then that entry.
    pub(super) fn find(&self, digest: &Digest) -> Option<&Self> {
        if self.descriptor.digest == *digest {
            return Some(self);
        }
        match &self.content {
            Content::Index(nested) => nested.entries.iter().find_map(|entry| entry.find(digest)),
            _ => None,
        }
    }

    /// The first that is missing of what it leads to.
    pub(super) fn absent(&self) -> Option<Digest> {
        match &self.content {
            Content::Absent(missing) => Some(*missing),
            Content::Index(nested) => nested.entries.iter().find_map(Self::absent),
            Content::Image(_) | Content::Artifact => None,
        }
    }

    /// What the index calls it.
    pub(super) fn ref_name(&self) -> Option<&str> {
        self.descriptor.annotations.get(REF_NAME).map(String::as_str)
    }
}

/// Reads everything that the index of a layout leads to, but for images themselves. What the layout's own name stands for
/// must be there; of the rest, what is missing is [`Content::Absent`].
pub(super) fn read(
    layout: &LayoutPath,
    index: &Index,
    files: &Early,
    damage: Damage,
) -> Result<Vec<Entry>, LayoutError> {
    let ref_name = layout.ref_name();
    Reader { layout: layout.path(), ref_name, files, damage, read: HashMap::new(), count: 0 }
        .entries(index, 0)
}

/// What becomes of indexes, manifests and configurations that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// They are an error.
    Refused,
    /// What they are of is [`Content::Absent`], what the layout's own name stands for included.
    Tolerated,
}

struct Reader<'a> {
    layout: &'a Path,
    ref_name: &'a str,
    files: &'a Early,
    damage: Damage,
    /// Indexes that were read, and how many descriptors each leads to.
    read: HashMap<Digest, (Nested, usize)>,
    /// Descriptors so far, those of an index each time that it is named.
    count: usize,
}

impl Reader<'_> {
    fn entries(&mut self, index: &Index, depth: usize) -> Result<Vec<Entry>, LayoutError> {
        let Members { descriptors, foreign } = &index.manifests;
        self.count(descriptors.len() + foreign.len())?;
        let mut entries = Vec::with_capacity(descriptors.len());
        for descriptor in descriptors {
            let content = match self.content(descriptor, depth) {
                Err(LayoutError::MissingBlob { digest, .. }) if !self.is_ours(descriptor) => {
                    Content::Absent(digest)
                }
                Err(_) if self.damage == Damage::Tolerated => Content::Absent(descriptor.digest),
                content => content?,
            };
            entries.push(Entry { descriptor: descriptor.clone(), content });
        }
        Ok(entries)
    }

    fn is_ours(&self, descriptor: &Descriptor) -> bool {
        descriptor.annotations.get(REF_NAME).is_some_and(|name| name == self.ref_name)
    }

    fn content(&mut self, descriptor: &Descriptor, depth: usize) -> Result<Content, LayoutError> {
        Ok(match descriptor.oci_media_type() {
            media::INDEX if self.read.contains_key(&descriptor.digest) => {
                let (nested, size) = self.read[&descriptor.digest].clone();
                self.count(size)?;
                Content::Index(nested)
            }
            media::INDEX if depth == MAX_DEPTH => {
                return Err(self.refuse(format!("indexes are nested more than {MAX_DEPTH} deep")));
            }
            media::INDEX => {
                let index: Index = self.files.read_json(self.layout, descriptor)?;
                let before = self.count;
                let entries = self.entries(&index, depth + 1)?;
                let nested = Nested { entries, foreign: index.manifests.foreign };
                self.read.insert(descriptor.digest, (nested.clone(), self.count - before));
                Content::Index(nested)
            }
            media::MANIFEST => match self.platform(descriptor)? {
                Some(platform) => Content::Image(platform),
                None => Content::Artifact,
            },
            _ => Content::Artifact,
        })
    }

    fn count(&mut self, more: usize) -> Result<(), LayoutError> {
        self.count += more;
        if self.count > MAX_DESCRIPTORS {
            return Err(self.refuse(format!("it leads to more than {MAX_DESCRIPTORS} descriptors")));
        }
        Ok(())
    }

    /// What an image runs on: its descriptor tells it, or its configuration. None for what is no image.
    fn platform(&self, descriptor: &Descriptor) -> Result<Option<Platform>, LayoutError> {
        let kind = descriptor.rest.get("artifactType").and_then(|kind| kind.as_str());
        if kind.is_some_and(|kind| media::to_oci(kind) != media::CONFIG) {
            return Ok(None);
        }
        // Attestations hide among images under a platform that there is not.
        let known = |platform: Platform| {
            Some(platform).filter(|platform| platform.os != "unknown" && platform.architecture != "unknown")
        };
        if let Some(platform) = &descriptor.platform {
            return Ok(known(platform.clone()));
        }
        let manifest: Manifest = self.files.read_json(self.layout, descriptor)?;
        let is_layer = |layer: &Descriptor| layer.oci_media_type().starts_with(media::LAYERS);
        // Signatures have the configuration of an image, but not its layers.
        if manifest.config.oci_media_type() != media::CONFIG || !manifest.layers.iter().all(is_layer) {
            return Ok(None);
        }
        let config: drydock_model::config::ImageConfig =
            self.files.read_json(self.layout, &manifest.config)?;
        Ok(known(config.platform()))
    }

    fn refuse(&self, reason: String) -> LayoutError {
        LayoutError::Malformed { path: self.layout.join("index.json"), reason }
    }
}
