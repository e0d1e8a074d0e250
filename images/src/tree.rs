//! What each layer of an image does to its files.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use drydock_layout::Image;
use drydock_model::digest::{DiffId, Digest};
use drydock_tar::Kind;
use serde::Serialize;

use crate::built::{self, Built};
use crate::files::{Effect, Files, NodeKind};
use crate::layer::{self, refused};
use crate::watch::Watch;

/// An image's files.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tree {
    /// The image's layers, or the one that was asked for.
    pub layers: Vec<TreeLayer>,
    /// Files in the image.
    pub files: usize,
    /// Folders in the image.
    pub folders: usize,
    /// Bytes in its files.
    pub size: u64,
    /// Bytes in files of lower layers that higher ones replace or remove.
    pub wasted: u64,
}

/// A layer's files.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TreeLayer {
    /// From 1 on, lowest first.
    pub number: usize,
    /// Of its blob.
    pub digest: Digest,
    /// Of its tar.
    pub diff_id: DiffId,
    /// What made it.
    pub made_by: String,
    /// Bytes in its files.
    pub size: u64,
    /// Bytes in those of its files that a higher layer replaces or removes.
    pub wasted: u64,
    /// What it does, in the order of its entries.
    pub entries: Vec<TreeEntry>,
}

/// What a layer does to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TreeEntry {
    /// What.
    pub change: Change,
    /// `file`, `folder`, `symlink`, `hard link`, `fifo`, `device`; of what is removed, `whiteout`.
    pub kind: &'static str,
    /// Where, without a slash at the beginning.
    pub path: String,
    /// Bytes in it.
    pub size: u64,
    /// Bytes in what was there before.
    pub before: u64,
}

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was not there.
    Added,
    /// It was something else.
    Changed,
    /// It is gone.
    Removed,
}

/// Reads the layers of an image. With `only`, the entries of that layer are told (from 1 on), and the others count.
pub fn tree(image: &Image, only: Option<usize>, watch: &dyn Watch) -> Result<Tree> {
    let layers: Vec<_> = image.layers().collect();
    if let Some(only) = only {
        let count = layers.len();
        ensure!((1..=count).contains(&only), "there is no layer {only}: the image has {count}, from 1 on");
    }
    let (built, _) = Built::read(&image.config);
    let makers = built::makers(&image.config, &built);
    watch.begin("reading layers", layers.iter().map(|layer| layer.descriptor.size).sum());
    let mut files = Files::new();
    let mut found = Vec::new();
    for (number, (layer, made_by)) in layers.iter().zip(makers).enumerate() {
        let (mut size, mut entries) = (0, Vec::new());
        let is_told = only.is_none_or(|only| only == number + 1);
        layer::entries(layer, watch, &mut |at, member| {
            let entry = member.entry;
            let of_entry = if let Kind::File { size } = entry.kind { size } else { 0 };
            let effect = files.apply(number, at, &entry, None);
            let effect = effect.map_err(|reason| refused(layer, entry.name, reason))?;
            size += of_entry;
            if is_told {
                entries.extend(told(effect, kind_name(&entry.kind), of_entry));
            }
            Ok(())
        })?;
        found.push(TreeLayer {
            number: number + 1,
            digest: layer.descriptor.digest,
            diff_id: layer.diff_id,
            made_by,
            size,
            wasted: size,
            entries,
        });
    }
    watch.end();
    let mut tree = Tree { layers: found, files: 0, folders: 0, size: 0, wasted: 0 };
    let mut seen = HashSet::new();
    files.walk(&mut |_, number, node| {
        if let NodeKind::Dir(_) = node.kind {
            tree.folders += 1;
            return;
        }
        tree.files += 1;
        if seen.insert(number) {
            tree.size += node.size();
            tree.layers[node.layer as usize].wasted -= node.size();
        }
    });
    tree.wasted = tree.layers.iter().map(|layer| layer.wasted).sum();
    tree.layers.retain(|layer| only.is_none_or(|only| only == layer.number));
    Ok(tree)
}

fn told(effect: Effect, kind: &'static str, size: u64) -> Option<TreeEntry> {
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    Some(match effect {
        Effect::Added { path } => {
            TreeEntry { change: Change::Added, kind, path: text(&path), size, before: 0 }
        }
        Effect::Changed { path, before } => {
            TreeEntry { change: Change::Changed, kind, path: text(&path), size, before }
        }
        Effect::Removed { path, before } => {
            TreeEntry { change: Change::Removed, kind: "whiteout", path: text(&path), size: 0, before }
        }
        Effect::Nothing => return None,
    })
}

fn kind_name(kind: &Kind<'_>) -> &'static str {
    match kind {
        Kind::File { .. } => "file",
        Kind::Dir => "folder",
        Kind::Symlink { .. } => "symlink",
        Kind::HardLink { .. } => "hard link",
        Kind::Fifo => "fifo",
        Kind::CharDevice(_) | Kind::BlockDevice(_) => "device",
    }
}
