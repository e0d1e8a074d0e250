//! An image of one layer in place of several.
//!
//! File contents are never held: a first pass over the layers' headers finds out which files there are in the end
//! ([`Files`]), a second one copies those from the layers into the pipeline that compresses, hashes and writes.
//!
//! The new layer has all folders first, by their paths, then what is neither folder nor file, then files in the order of
//! the old layers, hard links after the first name of their file. So the same image gives the same bytes.

use std::io::BufRead;
use std::num::NonZeroUsize;

use anyhow::Result;
use drydock_encode::compress::Compression;
use drydock_io::sink::Sink;
use drydock_layout::{Committed, Durability, Image, ImageLayer, LinkMode, NewImage, NewLog, Transaction};
use drydock_model::config::{History, ImageConfig};
use drydock_spec::label;
use drydock_tar::{Entry, Kind, NO_XATTRS, write_end, write_padding};

use crate::files::{Contents, Files, Node, NodeKind};
use crate::layer::{self, refused, unreadable};
use crate::repository::Name;
use crate::watch::{Watch, waiting};
use crate::write::{self, Published};

/// What made the layer, for the history.
const MADE_BY: &str = "drydock flatten";

/// How the new image is written.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How its layer is compressed.
    pub compression: Compression,
    /// Chunks that are worked on at a time: the number of cores.
    pub threads: NonZeroUsize,
    /// Whether it must outlive a power failure.
    pub durability: Durability,
}

/// What came of it.
#[derive(Debug)]
pub struct Flattened {
    /// The new image.
    pub committed: Committed,
    /// Bytes in the old image's layers.
    pub before: u64,
    /// Bytes in the new image's layer.
    pub after: u64,
    /// What went wrong after the image was there: old blobs that could not be removed.
    pub left: Option<String>,
    /// Why the log of the image's build is not beside it, if there is one.
    pub unlogged: Option<String>,
}

/// Writes an image of one layer with the files of `image` under a name, where it takes the place of the image for the same
/// platform. The configuration is kept, but for what it says of layers: history, and the labels by which images are
/// rebased and reused layer by layer.
pub fn flatten(image: &Image, to: &Name, options: Options, watch: &dyn Watch) -> Result<Flattened> {
    let layers: Vec<ImageLayer> = image.layers().collect();
    let files = look(&layers, watch)?;
    let names = [to.path().clone()];
    let transaction =
        Transaction::begin(to.dir(), &names, LinkMode::Auto, options.durability, &waiting(watch))?;
    write_flat(transaction, image, &files, None, options, watch)
}

/// The same within a transaction: the image's blobs are there, and need no name. The log is that of its build.
pub(crate) fn flatten_in(
    transaction: Transaction,
    image: &Image,
    log: Option<NewLog>,
    options: Options,
    watch: &dyn Watch,
) -> Result<Flattened> {
    let files = look(&image.layers().collect::<Vec<_>>(), watch)?;
    write_flat(transaction, image, &files, log, options, watch)
}

fn look(layers: &[ImageLayer], watch: &dyn Watch) -> Result<Files> {
    watch.begin("reading layers", layers.iter().map(|layer| layer.descriptor.size).sum());
    let files = read(layers, watch)?;
    watch.end();
    Ok(files)
}

fn write_flat(
    transaction: Transaction,
    image: &Image,
    files: &Files,
    log: Option<NewLog>,
    options: Options,
    watch: &dyn Watch,
) -> Result<Flattened> {
    let layers: Vec<ImageLayer> = image.layers().collect();
    let size: u64 = layers.iter().map(|layer| layer.descriptor.size).sum();
    let plan = Plan::of(files, layers.len());
    watch.begin("writing the layer", size);
    let source = |sink: &mut dyn Sink| write_tar(&plan, &layers, sink, watch);
    let layer = write::layer(&source, &transaction, options)?;
    watch.end();
    watch.advance(0)?;
    let after = layer.descriptor.size;
    let config = config(image.config.clone());
    let annotations = image.manifest.annotations.clone();
    let new = NewImage { config, layers: vec![layer.into()], annotations, replaces: None };
    let Published { committed, left, unlogged } = write::publish_image(transaction, new, log)?;
    Ok(Flattened { committed, before: size, after, left, unlogged })
}

/// Of an image with one layer. What led to the old layers stays in the history as steps that made none.
fn config(mut config: ImageConfig) -> ImageConfig {
    for history in &mut config.history {
        history.empty_layer = true;
    }
    let created = config.created.clone();
    config.history.push(History { created, created_by: MADE_BY.to_owned(), ..History::default() });
    let labels = &mut config.config.labels;
    if labels.remove(label::LIFECYCLE_METADATA).is_some() {
        labels.insert(label::REBASABLE.to_owned(), "false".to_owned());
    }
    config
}

/// The files that layers amount to.
pub(crate) fn read(layers: &[ImageLayer], watch: &dyn Watch) -> Result<Files> {
    let mut files = Files::new();
    for (number, layer) in layers.iter().enumerate() {
        layer::entries(layer, watch, &mut |at, member| {
            let applied = files.apply(number, at, &member.entry, None);
            applied.map(drop).map_err(|reason| refused(layer, member.entry.name, reason))
        })?;
    }
    Ok(files)
}

/// What the new layer holds.
struct Plan<'a> {
    /// Folders and whatever has no contents, with the names of each.
    first: Vec<(Vec<u8>, &'a Node)>,
    /// What stays of the old layers.
    contents: Contents<'a>,
}

impl<'a> Plan<'a> {
    fn of(files: &'a Files, layers: usize) -> Self {
        let (mut folders, mut others) = (Vec::new(), Vec::new());
        files.walk(&mut |path, _, node| match (&node.kind, node.entry) {
            (NodeKind::File { .. }, _) => {}
            // The root is there in any case; it is told of only where a layer does.
            (NodeKind::Dir(_), None) if path.is_empty() => {}
            (NodeKind::Dir(_), _) => {
                let name = if path.is_empty() { b"./".to_vec() } else { [path, b"/"].concat() };
                folders.push((name, node));
            }
            _ => others.push((path.to_vec(), node)),
        });
        folders.append(&mut others);
        Self { first: folders, contents: Contents::of(files, layers) }
    }
}

/// Writes the new layer's tar.
fn write_tar(plan: &Plan<'_>, layers: &[ImageLayer], sink: &mut dyn Sink, watch: &dyn Watch) -> Result<()> {
    for (name, node) in &plan.first {
        let kind = match &node.kind {
            NodeKind::Dir(_) => Kind::Dir,
            NodeKind::Symlink(target) => Kind::Symlink { target },
            NodeKind::Fifo => Kind::Fifo,
            NodeKind::CharDevice(device) => Kind::CharDevice(*device),
            NodeKind::BlockDevice(device) => Kind::BlockDevice(*device),
            NodeKind::File { .. } => unreachable!("files come with their contents"),
        };
        let entry = Entry {
            name,
            kind,
            mode: node.mode,
            owner: node.owner,
            modified: node.modified,
            xattrs: node.xattrs.as_deref().unwrap_or(NO_XATTRS),
        };
        entry.write(sink)?;
    }
    for (number, layer) in layers.iter().enumerate() {
        if plan.contents.lacks(number) {
            watch.advance(layer.descriptor.size)?;
            continue;
        }
        layer::entries(layer, watch, &mut |at, mut member| {
            let mut names = plan.contents.paths(number, at);
            let Some(first) = names.next() else { return Ok(()) };
            let Kind::File { size } = member.entry.kind else {
                return Err(refused(layer, member.entry.name, "has changed meanwhile"));
            };
            Entry { name: &first, ..member.entry }.write(sink)?;
            copy(&mut member.contents, sink, layer)?;
            write_padding(size, sink)?;
            for name in names {
                Entry { name: &name, kind: Kind::HardLink { target: &first }, ..member.entry }.write(sink)?;
            }
            Ok(())
        })?;
    }
    write_end(sink)?;
    Ok(())
}

fn copy(contents: &mut impl BufRead, sink: &mut dyn Sink, layer: &ImageLayer) -> Result<()> {
    loop {
        let piece = contents.fill_buf().map_err(unreadable(layer))?;
        if piece.is_empty() {
            return Ok(());
        }
        sink.write_all(piece)?;
        let n = piece.len();
        contents.consume(n);
    }
}
