//! Images as one tar file. The same image gives the same bytes.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use drydock_io::sink::{Sink, WriterSink};
use drydock_layout::{Image, LayoutError, blob_path, open_blob};
use drydock_model::digest::Digest;
use drydock_model::hash::Hasher;
use drydock_model::manifest::{Descriptor, Index, REF_NAME};
use drydock_model::media;
use drydock_model::reference::ImageRef;
use drydock_tar::{Entry, Kind, NO_XATTRS, Owner, Time, write_end, write_padding};
use serde_json::json;

use super::{Exported, may_be_absent};
use crate::watch::Watch;

const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// The annotation of an archive's index that holds descriptors of build logs, as JSON. In its list, tools that take the only image of an archive
/// would find several.
pub(crate) const BUILD_LOGS: &str = "vnd.drydock.build-logs";

/// An image layout as a tar. `dir` is the layout that has the blobs. Layers that a sparse image lacks are left out.
pub fn oci_archive(
    dir: &Path,
    exported: &Exported,
    tag: &str,
    to: impl Write,
    watch: &dyn Watch,
) -> Result<()> {
    let mut sink = WriterSink::new(to);
    let mut root = exported.root.clone();
    root.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
    let is_log =
        |other: &Descriptor| other.rest.get("artifactType").is_some_and(|kind| kind == media::BUILD_LOG);
    let (logs, others): (Vec<_>, Vec<_>) = exported.beside.iter().cloned().partition(is_log);
    let all: Vec<Descriptor> = std::iter::once(root).chain(others).collect();
    let mut index = Index { manifests: all.into(), ..Index::empty() };
    if !logs.is_empty() {
        index.annotations.insert(BUILD_LOGS.to_owned(), serde_json::to_string(&logs)?);
    }
    let index = serde_json::to_vec(&index)?;
    bytes(&mut sink, "oci-layout", MARKER)?;
    bytes(&mut sink, "index.json", &index)?;
    for folder in ["blobs/", "blobs/sha256/"] {
        entry(folder, Kind::Dir).write(&mut sink)?;
    }
    if let Some(made) = &exported.made {
        bytes(&mut sink, &name_of(exported.root.digest), made)?;
    }
    watch.begin("exporting", exported.blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add));
    for blob in &exported.blobs {
        match copy(dir, blob, &name_of(blob.digest), &mut sink, watch) {
            Err(error) if may_be_absent(blob) && is_missing(&error) => watch.advance(blob.size)?,
            copied => copied?,
        }
    }
    watch.end();
    finish(sink)
}

/// An image as `docker load` takes it, under a name if it has one. Layers stay compressed as they are: whoever reads such
/// archives looks for that.
pub fn docker_archive(
    image: &Image,
    name: Option<&ImageRef>,
    to: impl Write,
    watch: &dyn Watch,
) -> Result<()> {
    let dir = image.layout();
    let mut sink = WriterSink::new(to);
    let config_name = format!("{}.json", image.manifest.config.digest.hex());
    let layer_name = |layer: &Descriptor| {
        let end = match layer.oci_media_type() {
            media::LAYER_GZIP => ".tar.gz",
            media::LAYER_ZSTD => ".tar.zst",
            _ => ".tar",
        };
        format!("{}{end}", layer.digest.hex())
    };
    let layers: Vec<String> = image.manifest.layers.iter().map(layer_name).collect();
    let familiar = |name: &ImageRef| name.to_string().replacen("index.docker.io/", "docker.io/", 1);
    let names: Vec<String> = name.filter(|name| name.tag().is_some()).map(familiar).into_iter().collect();
    let list = json!([{"Config": config_name, "RepoTags": names, "Layers": layers}]);
    bytes(&mut sink, "manifest.json", &serde_json::to_vec(&list)?)?;
    let all = || image.manifest.layers.iter().chain([&image.manifest.config]);
    watch.begin("exporting", all().map(|blob| blob.size).fold(0, u64::saturating_add));
    copy(dir, &image.manifest.config, &config_name, &mut sink, watch)?;
    let mut written = BTreeSet::new();
    for (layer, name) in image.manifest.layers.iter().zip(&layers) {
        if written.insert(layer.digest) {
            copy(dir, layer, name, &mut sink, watch)?;
        }
    }
    watch.end();
    finish(sink)
}

fn finish<W: Write>(mut sink: WriterSink<W>) -> Result<()> {
    write_end(&mut sink)?;
    sink.finish().context("cannot write the archive")?;
    Ok(())
}

fn name_of(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn entry<'a>(name: &'a str, kind: Kind<'a>) -> Entry<'a> {
    let mode = if kind == Kind::Dir { 0o755 } else { 0o644 };
    let modified = Time { seconds: 0, nanoseconds: 0 };
    Entry { name: name.as_bytes(), kind, mode, owner: Owner::ROOT, modified, xattrs: NO_XATTRS }
}

fn bytes(sink: &mut dyn Sink, name: &str, bytes: &[u8]) -> Result<()> {
    let size = bytes.len() as u64;
    entry(name, Kind::File { size }).write(sink)?;
    sink.write_all(bytes)?;
    write_padding(size, sink)?;
    Ok(())
}

/// Copies a blob, and checks it on the way.
fn copy(dir: &Path, blob: &Descriptor, name: &str, sink: &mut dyn Sink, watch: &dyn Watch) -> Result<()> {
    let mut reader = open_blob(dir, blob)?;
    entry(name, Kind::File { size: blob.size }).write(sink)?;
    let (mut hash, mut left) = (Hasher::new(), blob.size);
    let path = || blob_path(dir, &blob.digest);
    while left > 0 {
        let space = sink.space().context("cannot write the archive")?;
        let wanted = usize::try_from(left).map_or(space.len(), |left| left.min(space.len()));
        let n = reader.read(&mut space[..wanted]);
        let n = n.with_context(|| format!("failed to read `{}`", path().display()))?;
        if n == 0 {
            break;
        }
        hash.update(&space[..n]);
        sink.advance(n);
        left -= n as u64;
        watch.advance(n as u64)?;
    }
    let found = Digest::from_hash(hash);
    if found != blob.digest {
        return Err(LayoutError::Corrupt { path: path(), found }.into());
    }
    write_padding(blob.size, sink)?;
    Ok(())
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(LayoutError::MissingBlob { .. }))
}
