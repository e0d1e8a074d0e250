//! What an index leads to: images, artifacts, and other indexes.

use std::collections::HashSet;
use std::path::Path;

use drydock_model::digest::Digest;
use drydock_model::manifest::{Descriptor, Index, Manifest, REF_NAME};
use drydock_model::media;
use drydock_model::platform::Platform;

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
    Index(Vec<Entry>),
    /// Something else: a signature, an SBOM, an attestation, or what is not known here.
    Artifact,
}

impl Entry {
    /// The images that it leads to, each with the platform that it is for.
    pub(super) fn images(&self) -> Vec<(&Descriptor, &Platform)> {
        match &self.content {
            Content::Image(platform) => vec![(&self.descriptor, platform)],
            Content::Index(entries) => entries.iter().flat_map(Self::images).collect(),
            Content::Artifact => Vec::new(),
        }
    }

    /// Whether it or an index in it has this digest; then that entry.
    pub(super) fn find(&self, digest: &Digest) -> Option<&Self> {
        if self.descriptor.digest == *digest {
            return Some(self);
        }
        match &self.content {
            Content::Index(entries) => entries.iter().find_map(|entry| entry.find(digest)),
            _ => None,
        }
    }

    /// What the index calls it.
    pub(super) fn ref_name(&self) -> Option<&str> {
        self.descriptor.annotations.get(REF_NAME).map(String::as_str)
    }
}

/// Reads everything that an index leads to, but for images themselves.
pub(super) fn read(layout: &Path, index: &Index, files: &Early) -> Result<Vec<Entry>, LayoutError> {
    Reader { layout, files, seen: HashSet::new(), count: 0 }.entries(index, 0)
}

struct Reader<'a> {
    layout: &'a Path,
    files: &'a Early,
    /// Indexes that were read.
    seen: HashSet<Digest>,
    /// Descriptors so far.
    count: usize,
}

impl Reader<'_> {
    fn entries(&mut self, index: &Index, depth: usize) -> Result<Vec<Entry>, LayoutError> {
        self.count += index.manifests.len();
        if self.count > MAX_DESCRIPTORS {
            return Err(self.refuse(format!("it leads to more than {MAX_DESCRIPTORS} descriptors")));
        }
        let mut entries = Vec::with_capacity(index.manifests.len());
        for descriptor in &index.manifests {
            let content = match descriptor.oci_media_type() {
                // What an index holds counts once, wherever else it is named.
                media::INDEX if self.seen.contains(&descriptor.digest) => Content::Index(Vec::new()),
                media::INDEX if depth == MAX_DEPTH => {
                    return Err(self.refuse(format!("indexes are nested more than {MAX_DEPTH} deep")));
                }
                media::INDEX => {
                    self.seen.insert(descriptor.digest);
                    let nested: Index = self.files.read_json(self.layout, descriptor)?;
                    Content::Index(self.entries(&nested, depth + 1)?)
                }
                media::MANIFEST => match self.platform(descriptor)? {
                    Some(platform) => Content::Image(platform),
                    None => Content::Artifact,
                },
                _ => Content::Artifact,
            };
            entries.push(Entry { descriptor: descriptor.clone(), content });
        }
        Ok(entries)
    }

    /// What an image runs on: its descriptor tells it, or its configuration. None for what is no image.
    fn platform(&self, descriptor: &Descriptor) -> Result<Option<Platform>, LayoutError> {
        let kind = descriptor.rest.get("artifactType").and_then(|kind| kind.as_str());
        if kind.is_some_and(|kind| media::to_oci(kind) != media::CONFIG) {
            return Ok(None);
        }
        if let Some(platform) = &descriptor.platform {
            // Attestations hide among images under a platform that there is not.
            let is_image = platform.os != "unknown" && platform.architecture != "unknown";
            return Ok(is_image.then(|| platform.clone()));
        }
        let manifest: Manifest = self.files.read_json(self.layout, descriptor)?;
        if manifest.config.oci_media_type() != media::CONFIG {
            return Ok(None);
        }
        let config: drydock_model::config::ImageConfig =
            self.files.read_json(self.layout, &manifest.config)?;
        Ok(Some(config.platform()))
    }

    fn refuse(&self, reason: String) -> LayoutError {
        LayoutError::Malformed { path: self.layout.join("index.json"), reason }
    }
}
