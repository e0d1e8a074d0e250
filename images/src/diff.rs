//! In what two images differ.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::io;

use anyhow::{Context as _, Result};
use drydock_layout::{Image, ImageLayer};
use drydock_model::config::ImageConfig;
use drydock_model::digest::{DiffId, Digest};
use drydock_model::hash::Hasher;
use drydock_tar::Kind;
use serde::Serialize;
use serde_json::Value as Json;

use crate::built::Built;
use crate::files::{Files, Node, NodeKind, Numbered, walk_both};
use crate::inspect;
use crate::layer::{self, refused, unreadable};
use crate::watch::Watch;

/// What is different. Everything is empty if the images are the same, whatever their manifests' digests.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    /// Layers that only one has.
    pub layers: Vec<LayerDiff>,
    /// Whether both have the same layers in another order.
    pub layers_reordered: bool,
    /// Of the configuration.
    pub config: Vec<Difference>,
    /// Of the environment.
    pub environment: Vec<Difference>,
    /// Of the labels, but for those of which the parts are told here.
    pub labels: Vec<Difference>,
    /// Of what can be started.
    pub processes: Vec<Difference>,
    /// Of buildpacks, by their IDs.
    pub buildpacks: Vec<Difference>,
    /// Of files.
    pub files: Vec<FileDiff>,
}

/// A value that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// What it is called.
    pub name: String,
    /// What the first image has; none if it has none.
    pub before: Option<String>,
    /// What the second image has.
    pub after: Option<String>,
}

/// A layer that only one image has.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerDiff {
    /// `before` for the first image, `after` for the second.
    pub only_in: &'static str,
    /// From 1 on, lowest first.
    pub number: usize,
    /// Of its tar.
    pub diff_id: DiffId,
    /// Bytes in its blob.
    pub size: u64,
}

/// A file that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileDiff {
    /// `added`, `removed` or `changed`.
    pub change: &'static str,
    /// Where, without a slash at the beginning.
    pub path: String,
    /// Bytes in the first image's; none if there is none.
    pub before: Option<u64>,
    /// Bytes in the second image's.
    pub after: Option<u64>,
    /// What is different of what both have: `content`, `mode`, `owner`, ….
    pub what: Vec<&'static str>,
}

impl Diff {
    /// Whether there is no difference.
    pub fn is_empty(&self) -> bool {
        let Self { layers, layers_reordered, config, environment, labels, processes, buildpacks, files } =
            self;
        let all = [config, environment, labels, processes, buildpacks];
        layers.is_empty() && !layers_reordered && files.is_empty() && all.iter().all(|part| part.is_empty())
    }
}

/// Compares two images, of which all layers must be there that only one of them has.
pub fn diff(before: &Image, after: &Image, watch: &dyn Watch) -> Result<Diff> {
    let (built_before, _) = Built::read(&before.config);
    let (built_after, _) = Built::read(&after.config);
    let ids = |image: &Image| image.config.rootfs.diff_ids.clone();
    let layers = layers(before, after);
    let processes = |image: &Image, built: &Built| {
        let all = inspect::processes(image, built).into_iter();
        all.map(|process| (process.r#type.clone(), shown(&process))).collect::<BTreeMap<_, _>>()
    };
    let buildpacks = |built: &Built| {
        let all = inspect::buildpacks(built).into_iter();
        all.map(|buildpack| (buildpack.id, buildpack.version)).collect::<BTreeMap<_, _>>()
    };
    Ok(Diff {
        layers_reordered: layers.is_empty() && ids(before) != ids(after),
        layers,
        config: compare(&config(&before.config)?, &config(&after.config)?),
        environment: compare(&environment(&before.config), &environment(&after.config)),
        labels: compare(&before.config.config.labels, &after.config.config.labels),
        processes: compare(&processes(before, &built_before), &processes(after, &built_after)),
        buildpacks: compare(&buildpacks(&built_before), &buildpacks(&built_after)),
        files: if ids(before) == ids(after) { Vec::new() } else { files(before, after, watch)? },
    })
}

fn layers(before: &Image, after: &Image) -> Vec<LayerDiff> {
    let missing = |from: &Image, other: &Image, only_in| {
        let others: BTreeSet<DiffId> = other.config.rootfs.diff_ids.iter().copied().collect();
        let layers = from.layers().enumerate().filter(|(_, layer)| !others.contains(&layer.diff_id));
        let told = layers.map(|(number, layer)| LayerDiff {
            only_in,
            number: number + 1,
            diff_id: layer.diff_id,
            size: layer.descriptor.size,
        });
        told.collect::<Vec<_>>()
    };
    let mut all = missing(before, after, "before");
    all.extend(missing(after, before, "after"));
    all
}

/// The fields of a configuration but for those that are compared apart. Of what containers start with, each field by
/// itself.
fn config(config: &ImageConfig) -> Result<BTreeMap<String, String>> {
    let json = serde_json::to_value(config).context("a configuration is JSON")?;
    let mut fields = BTreeMap::new();
    for (key, value) in json.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("rootfs" | "history", _) => {}
            ("config", Json::Object(settings)) => {
                let others = settings.iter().filter(|(key, _)| !matches!(key.as_str(), "Env" | "Labels"));
                fields.extend(others.map(|(key, value)| (format!("config.{key}"), value.to_string())));
            }
            _ => drop(fields.insert(key.clone(), value.to_string())),
        }
    }
    Ok(fields)
}

fn environment(config: &ImageConfig) -> BTreeMap<String, String> {
    let pairs = config.config.env.iter().map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn shown(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("structs with string keys make JSON")
}

fn compare(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<Difference> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let different = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    different
        .map(|name| Difference {
            name: name.clone(),
            before: before.get(name).cloned(),
            after: after.get(name).cloned(),
        })
        .collect()
}

/// Compares the files. Layers that both have at the bottom are read once.
fn files(before: &Image, after: &Image, watch: &dyn Watch) -> Result<Vec<FileDiff>> {
    let (a, b): (Vec<ImageLayer>, Vec<ImageLayer>) = (before.layers().collect(), after.layers().collect());
    let common = a.iter().zip(&b).take_while(|(a, b)| a.diff_id == b.diff_id).count();
    let size = |layers: &[ImageLayer]| layers.iter().map(|layer| layer.descriptor.size).sum::<u64>();
    watch.begin("reading layers", size(&a) + size(&b[common..]));
    let mut bottom = Files::new();
    for (number, (a, b)) in a.iter().zip(&b).enumerate().take(common) {
        // One of them may be sparse.
        read(&mut bottom, number, if a.is_present() { a } else { b }, watch)?;
    }
    let mut others = [bottom.clone(), bottom];
    for (files, layers) in others.iter_mut().zip([&a, &b]) {
        for (number, layer) in layers.iter().enumerate().skip(common) {
            read(files, number, layer, watch)?;
        }
    }
    watch.end();
    let firsts = others.each_ref().map(first_names);
    let mut found = Vec::new();
    let [a, b] = &others;
    walk_both(a, b, &mut |path, before, after| {
        let first = |side: usize, file: Option<Numbered<'_>>| {
            file.and_then(|(number, _)| firsts[side].get(&number)).map_or(path, Vec::as_slice)
        };
        let same_links = first(0, before) == first(1, after);
        found.extend(compare_files(path, before.map(|it| it.1), after.map(|it| it.1), same_links));
    });
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Applies a layer, with the digests of files' contents.
fn read(files: &mut Files, number: usize, layer: &ImageLayer, watch: &dyn Watch) -> Result<()> {
    layer::entries(layer, watch, &mut |at, mut member| {
        let digest = match member.entry.kind {
            Kind::File { .. } => Some(hash(&mut member.contents).map_err(unreadable(layer))?),
            _ => None,
        };
        let applied = files.apply(number, at, &member.entry, digest);
        applied.map(drop).map_err(|reason| refused(layer, member.entry.name, reason))
    })
}

fn hash(contents: &mut impl io::BufRead) -> io::Result<Digest> {
    let mut hash = Hasher::new();
    loop {
        let piece = contents.fill_buf()?;
        if piece.is_empty() {
            return Ok(Digest::from_hash(hash));
        }
        hash.update(piece);
        let n = piece.len();
        contents.consume(n);
    }
}

/// Of files with several names: the first path by their numbers.
fn first_names(files: &Files) -> BTreeMap<u32, Vec<u8>> {
    let (mut once, mut several) = (HashSet::new(), BTreeMap::new());
    files.walk(&mut |_, number, _| {
        if !once.insert(number) {
            several.insert(number, Vec::new());
        }
    });
    files.walk(&mut |path, number, _| {
        if let Some(first) = several.get_mut(&number).filter(|first| first.is_empty()) {
            path.clone_into(first);
        }
    });
    several
}

fn compare_files(
    path: &[u8],
    before: Option<&Node>,
    after: Option<&Node>,
    same_links: bool,
) -> Option<FileDiff> {
    let mut what = Vec::new();
    let change = match (before, after) {
        (Some(a), Some(b)) => {
            let same_content = match (&a.kind, &b.kind) {
                (NodeKind::File { size: a, digest: x }, NodeKind::File { size: b, digest: y }) => {
                    (a, x) == (b, y)
                }
                (NodeKind::Symlink(a), NodeKind::Symlink(b)) => a == b,
                (NodeKind::CharDevice(a), NodeKind::CharDevice(b))
                | (NodeKind::BlockDevice(a), NodeKind::BlockDevice(b)) => a == b,
                (NodeKind::Dir(_), NodeKind::Dir(_)) | (NodeKind::Fifo, NodeKind::Fifo) => true,
                _ => {
                    what.push("kind");
                    true
                }
            };
            let checks = [
                ("content", same_content),
                ("mode", a.mode == b.mode),
                ("owner", a.owner == b.owner),
                ("attributes", a.xattrs == b.xattrs),
                ("hard link", same_links),
            ];
            what.extend(checks.iter().filter(|(_, is_same)| !is_same).map(|(name, _)| *name));
            if what.is_empty() {
                return None;
            }
            "changed"
        }
        (None, _) => "added",
        (_, None) => "removed",
    };
    let size = |side: Option<&Node>| side.map(Node::size);
    Some(FileDiff { change, path: printable(path), before: size(before), after: size(after), what })
}

/// A path as text: bytes that are no UTF-8 as `\xNN`.
fn printable(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("a String takes whatever is written to it");
        }
    }
    text
}
