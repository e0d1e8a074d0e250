//! Images as a registry that a test plays serves them.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};
use drydock_acceptance::layout::Layout;
use drydock_fake_registry::{Answer, Request};
use serde_json::Value;

/// Files by the paths at which they are served, each with its media type.
#[derive(Debug, Clone, Default)]
pub(crate) struct Served(pub(crate) BTreeMap<String, (String, Vec<u8>)>);

impl Served {
    /// The only image of a layout, as `x/y:latest`.
    pub(crate) fn image(layout: &Layout) -> Result<Self> {
        let manifest = layout.verify()?.remove(0).descriptor;
        let bytes = fs::read(layout.blob_path(&manifest.digest))?;
        let parsed: Value = serde_json::from_slice(&bytes)?;
        let mut served = Self::default();
        for version in ["latest", &manifest.digest] {
            served.put(&format!("/v2/x/y/manifests/{version}"), &manifest.media_type, bytes.clone());
        }
        let layers = parsed["layers"].as_array().context("a list")?;
        for blob in layers.iter().chain([&parsed["config"]]) {
            let digest = blob["digest"].as_str().context("a digest")?;
            let bytes = fs::read(layout.blob_path(digest))?;
            served.put(&format!("/v2/x/y/blobs/{digest}"), "application/octet-stream", bytes);
        }
        Ok(served)
    }

    pub(crate) fn put(&mut self, path: &str, media_type: &str, bytes: Vec<u8>) {
        self.0.insert(path.to_owned(), (media_type.to_owned(), bytes));
    }

    /// With other bytes for blobs.
    pub(crate) fn with_blobs(mut self, change: impl Fn(&mut Vec<u8>)) -> Self {
        let blobs = self.0.iter_mut().filter(|(path, _)| path.contains("/blobs/"));
        blobs.for_each(|(_, (_, bytes))| change(bytes));
        self
    }

    /// The paths of blobs, the largest last.
    pub(crate) fn blobs(&self) -> Vec<String> {
        let mut blobs: Vec<_> = self.0.iter().filter(|(path, _)| path.contains("/blobs/")).collect();
        blobs.sort_by_key(|(_, (_, bytes))| bytes.len());
        blobs.into_iter().map(|(path, _)| path.clone()).collect()
    }

    /// As a registry without faults answers.
    pub(crate) fn answer(&self, request: &Request) -> Answer {
        let path = request.path.split('?').next().unwrap_or_default();
        let Some((media_type, bytes)) = self.0.get(path) else { return Answer::new(404, "") };
        let answer = match request.offset() {
            Some(from) if from < bytes.len() => {
                let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                Answer::new(206, &bytes[from..]).with("Content-Range", range)
            }
            _ => Answer::new(200, bytes.clone()),
        };
        answer.with("Content-Type", media_type)
    }

    /// The same, but no more than so many bytes before the connection breaks off.
    pub(crate) fn part(&self, request: &Request, most: usize) -> Answer {
        let Some((media_type, bytes)) = self.0.get(&request.path) else { return Answer::new(404, "") };
        let from = request.offset().unwrap_or_default();
        let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
        let answer =
            Answer::new(if from > 0 { 206 } else { 200 }, &bytes[from..bytes.len().min(from + most)]);
        let answer = answer.announcing(bytes.len() - from).with("Content-Type", media_type);
        if from > 0 { answer.with("Content-Range", range) } else { answer }
    }
}
