//! What is in a repository: names, platforms, sizes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result};
use drydock_io::lock::Identity;
use drydock_layout::{Layout, LayoutError, blob_path};
use drydock_model::digest::Digest;
use drydock_model::json;
use drydock_model::manifest::{Descriptor, Manifest};
use drydock_model::media;
use glob::Pattern;
use serde::Serialize;

use crate::built;
use crate::repository::{Name, Repository};

/// One name.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// The name.
    pub name: String,
    /// Registry and repository.
    pub repository: String,
    /// Tag or digest.
    pub tag: String,
    /// The layout's folder.
    pub path: String,
    /// What the name stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What the images run on.
    pub platforms: Vec<String>,
    /// Bytes in all blobs that are there. The three that follow are what they consist of.
    pub size: u64,
    /// Bytes in blobs that no other layout of the repository has.
    pub own: u64,
    /// Bytes in blobs of which another layout has the same file.
    pub linked: u64,
    /// Bytes in blobs that other layouts have, too, each as a file of its own.
    pub copied: u64,
    /// Blobs of layers that are not there.
    pub lacking: usize,
    /// When the newest of the images was made (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The image that they were built on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// What is wrong with it. The rest is then what could be found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
    /// Why it could not be read, for want of permission. The same holds then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    #[serde(skip)]
    blobs: BTreeMap<Digest, Option<(Identity, u64)>>,
}

/// The names of a repository that fit a pattern, with what is to be known of each. What others share is looked up in the
/// whole repository.
pub fn list(repository: &Repository, pattern: Option<&str>) -> Result<Vec<Listed>> {
    let fits = pattern.map(fits).transpose()?;
    let mut all: Vec<Listed> = repository.names()?.iter().filter_map(look_at).collect();
    let mut files: BTreeMap<Identity, BTreeSet<usize>> = BTreeMap::new();
    let mut digests: BTreeMap<Digest, BTreeSet<usize>> = BTreeMap::new();
    for (number, listed) in all.iter().enumerate() {
        for (digest, file) in &listed.blobs {
            if let Some((identity, _)) = file {
                files.entry(*identity).or_default().insert(number);
                digests.entry(*digest).or_default().insert(number);
            }
        }
    }
    for listed in &mut all {
        for (digest, file) in &listed.blobs {
            let Some((identity, size)) = file else { continue };
            listed.size += size;
            if files[identity].len() > 1 {
                listed.linked += size;
            } else if digests[digest].len() > 1 {
                listed.copied += size;
            } else {
                listed.own += size;
            }
        }
    }
    if let Some(fits) = fits {
        all.retain(|listed| fits(&listed.name));
    }
    Ok(all)
}

/// None if somebody has removed it since it was listed.
fn look_at(name: &Name) -> Option<Listed> {
    let (repository, tag) = split(name);
    let mut listed = Listed {
        name: name.text().to_owned(),
        repository,
        tag,
        path: name.path().to_string(),
        digest: None,
        platforms: Vec::new(),
        size: 0,
        own: 0,
        linked: 0,
        copied: 0,
        lacking: 0,
        created: None,
        base: None,
        damage: None,
        unreadable: None,
        blobs: BTreeMap::new(),
    };
    match fill(name, &mut listed) {
        Err(error) if matches!(error.downcast_ref(), Some(LayoutError::NotFound(_))) => return None,
        Err(error) => {
            let text = Some(format!("{error:#}"));
            let is_unreadable = error.downcast_ref().is_some_and(LayoutError::is_unreadable);
            if is_unreadable { listed.unreadable = text } else { listed.damage = text }
        }
        Ok(()) => {}
    }
    Some(listed)
}

fn fill(name: &Name, listed: &mut Listed) -> Result<()> {
    let layout = Layout::open(name.path())?;
    if let [only] = layout.named().as_slice() {
        listed.digest = Some(only.digest);
    }
    listed.platforms = layout.images().iter().map(|(_, platform)| platform.to_string()).collect();
    let dir = name.path().path();
    let mut add = |descriptor: &Descriptor| {
        let file = fs::metadata(blob_path(dir, &descriptor.digest)).ok();
        let file = file.filter(std::fs::Metadata::is_file).map(|file| (Identity::from(&file), file.len()));
        listed.blobs.entry(descriptor.digest).or_insert(file);
        file.is_some()
    };
    for descriptor in &layout.index().manifests.descriptors {
        add(descriptor);
    }
    for descriptor in layout.artifacts() {
        add(descriptor);
        // What is no manifest has no blobs to tell of.
        let text = drydock_layout::read_blob(dir, descriptor).unwrap_or_default();
        if descriptor.oci_media_type() == media::MANIFEST
            && let Ok(Manifest { config, layers, .. }) = json::from_slice(&text)
        {
            for blob in layers.iter().chain([&config]) {
                add(blob);
            }
        }
    }
    let mut lost = None;
    for (descriptor, _) in layout.images() {
        let image = layout.image_by_digest(&descriptor.digest)?;
        add(descriptor);
        add(&image.manifest.config);
        let layers = &image.manifest.layers;
        for (layer, may_lack) in layers.iter().zip(built::may_lack(dir, &image.config, layers)) {
            if !add(layer) {
                listed.lacking += 1;
                lost = lost.or((!may_lack).then_some(layer.digest));
            }
        }
        listed.created = listed.created.take().max(image.config.created.clone());
        listed.base = listed.base.take().or_else(|| built::base(&image));
    }
    match lost {
        Some(digest) => Err(LayoutError::MissingBlob { layout: dir.to_owned(), digest }.into()),
        None => Ok(()),
    }
}

/// A name's repository and its tag or digest.
fn split(name: &Name) -> (String, String) {
    let tag = name.path().ref_name();
    let text = name.text().strip_suffix(tag).and_then(|text| text.strip_suffix([':', '@']));
    (text.unwrap_or(name.text()).to_owned(), tag.to_owned())
}

/// Which names are meant: with `*` for anything, `?` for one character and `[…]` for one of several; without any of these, the
/// text may be anywhere in the name.
fn fits(pattern: &str) -> Result<impl Fn(&str) -> bool> {
    let text = pattern.to_owned();
    let pattern = Pattern::new(pattern).with_context(|| format!("`{pattern}` is no pattern of names"))?;
    let is_literal = !text.contains(['*', '?', '[']);
    Ok(move |name: &str| if is_literal { name.contains(&text) } else { pattern.matches(name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_meanwhile_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::new(dir.path()).unwrap();
        assert!(look_at(&repository.locate("app").unwrap()).is_none());
    }

    #[test]
    fn patterns_fit_names() {
        for (pattern, name, want) in [
            ("app", "acme/app:latest", true),
            ("apps", "acme/app:latest", false),
            ("*", "a", true),
            ("acme/*", "acme/a/b:latest", true),
            ("acme/*", "x/acme/app", false),
            ("*:v?", "app:v1", true),
            ("*:v?", "app:v10", false),
            ("*:v[0-9]", "app:v1", true),
        ] {
            assert_eq!(fits(pattern).unwrap()(name), want, "{pattern} {name}");
        }
        assert!(fits("[").is_err());
    }
}
