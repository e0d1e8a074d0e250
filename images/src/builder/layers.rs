//! Layers of builders and packages.

use anyhow::{Context as _, Result};
use drydock_encode::pipeline;
use drydock_io::sink::Sink;
use drydock_layout::{BlobSource, ImageLayer, NewLayer, Transaction};
use drydock_model::config::{History, ImageConfig};
use drydock_spec::buildpack::ModuleKind;
use drydock_spec::module::ModuleName;
use drydock_tar::{Entry, Kind, NO_XATTRS, Owner, Time, write_end, write_padding};

use super::CREATED;
use super::tree::{MemberKind, Tree, copy};
use crate::flatten;
use crate::watch::Watch;
use crate::write;

/// [`CREATED`] in seconds since 1970.
const MODIFIED: Time = Time { seconds: 315_532_801, nanoseconds: 0 };

/// A layer to be.
pub(super) struct Layer<'a> {
    /// What it is, for the history.
    pub(super) purpose: String,
    pub(super) source: Source<'a>,
}

/// Writes a tar.
type Write<'a> = Box<dyn Fn(&mut dyn Sink) -> Result<()> + Sync + 'a>;

/// Where a layer comes from.
pub(super) enum Source<'a> {
    /// It is made.
    Made(Write<'a>),
    /// It is in another layout.
    There(&'a ImageLayer),
}

impl<'a> Layer<'a> {
    pub(super) fn made(
        purpose: impl Into<String>,
        write: impl Fn(&mut dyn Sink) -> Result<()> + Sync + 'a,
    ) -> Self {
        Self { purpose: purpose.into(), source: Source::Made(Box::new(write)) }
    }

    /// With one file.
    pub(super) fn of_file(path: &'a str, text: String) -> Self {
        Self::made(format!("file {path}"), move |sink| {
            file(sink, path, text.as_bytes())?;
            Ok(write_end(sink)?)
        })
    }
}

/// Writes layers, in their order, and puts them into the layout.
pub(super) fn write(
    layers: &[Layer<'_>],
    transaction: &Transaction,
    options: flatten::Options,
    watch: &dyn Watch,
) -> Result<Vec<NewLayer>> {
    let sources: Vec<&pipeline::Source<'_, _>> = layers
        .iter()
        .filter_map(|layer| if let Source::Made(write) = &layer.source { Some(&**write as _) } else { None })
        .collect();
    watch.begin("writing layers", 0);
    let mut done = write::layers(&sources, transaction, options)?.into_iter();
    let mut written = Vec::with_capacity(layers.len());
    for layer in layers {
        written.push(match &layer.source {
            Source::There(layer) => {
                transaction.bring(layer)?;
                let descriptor = layer.descriptor.clone();
                NewLayer { diff_id: layer.diff_id, descriptor, blob: BlobSource::Placed }
            }
            Source::Made(_) => done.next().context("the pipeline returns what it did")?.into(),
        });
    }
    watch.end();
    watch.advance(0)?;
    Ok(written)
}

/// Adds a step for each layer to the history, which may have told of others only in part.
pub(super) fn tell(config: &mut ImageConfig, layers_before: usize, layers: &[Layer<'_>], by: &str) {
    config.complete_history(layers_before);
    config.history.extend(layers.iter().map(|layer| History {
        created: Some(CREATED.to_owned()),
        created_by: format!("{by}: {}", layer.purpose),
        ..History::default()
    }));
    config.created = Some(CREATED.to_owned());
}

fn entry(sink: &mut dyn Sink, path: &[u8], kind: Kind<'_>, mode: u32, owner: Owner) -> Result<()> {
    let name = [b"/", path].concat();
    Ok(Entry { name: &name, kind, mode, owner, modified: MODIFIED, xattrs: NO_XATTRS }.write(sink)?)
}

/// A folder, by its path without a slash at the beginning.
pub(super) fn folder(sink: &mut dyn Sink, path: &str, owner: Owner) -> Result<()> {
    entry(sink, path.as_bytes(), Kind::Dir, 0o755, owner)
}

/// A file of root's, likewise.
pub(super) fn file(sink: &mut dyn Sink, path: &str, bytes: &[u8]) -> Result<()> {
    let size = bytes.len() as u64;
    entry(sink, path.as_bytes(), Kind::File { size }, 0o644, Owner::ROOT)?;
    sink.write_all(bytes)?;
    Ok(write_padding(size, sink)?)
}

/// A symlink of root's, likewise.
pub(super) fn symlink(sink: &mut dyn Sink, path: &str, target: &[u8]) -> Result<()> {
    entry(sink, path.as_bytes(), Kind::Symlink { target }, 0o777, Owner::ROOT)
}

/// A file that can be run, or not, from a tree.
pub(super) fn copied(
    sink: &mut dyn Sink,
    path: &[u8],
    size: u64,
    executable: bool,
    contents: &mut dyn std::io::Read,
) -> Result<()> {
    let mode = if executable { 0o755 } else { 0o644 };
    entry(sink, path, Kind::File { size }, mode, Owner::ROOT)?;
    copy(contents, size, sink)?;
    Ok(write_padding(size, sink)?)
}

/// Whether a file of a buildpack or an extension is run, whatever its mode.
pub(super) fn is_run(path: &[u8]) -> bool {
    matches!(path, b"bin/build" | b"bin/detect" | b"bin/generate")
}

/// The layer of a buildpack or an extension.
pub(super) fn module(
    tree: &Tree,
    kind: ModuleKind,
    name: &ModuleName,
    sink: &mut dyn Sink,
    watch: &dyn Watch,
) -> Result<()> {
    let dir = name.dir(kind);
    folder(sink, &name.parent_dir(kind), Owner::ROOT)?;
    folder(sink, &dir, Owner::ROOT)?;
    let inside = |path: &[u8]| [dir.as_bytes(), b"/", path].concat();
    tree.visit(watch, &mut |member, contents| {
        let path = inside(member.path);
        match member.kind {
            MemberKind::Dir => entry(sink, &path, Kind::Dir, 0o755, Owner::ROOT),
            MemberKind::File { size } => {
                copied(sink, &path, size, member.executable || is_run(member.path), contents)
            }
            MemberKind::Symlink { target } => {
                entry(sink, &path, Kind::Symlink { target }, 0o777, Owner::ROOT)
            }
            MemberKind::HardLink { target } => {
                let target = [b"/", inside(target).as_slice()].concat();
                entry(sink, &path, Kind::HardLink { target: &target }, 0o644, Owner::ROOT)
            }
        }
    })?;
    Ok(write_end(sink)?)
}
