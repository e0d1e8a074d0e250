//! The lifecycle image: what a platform runs phases in if it does not trust its builder. It holds the executables and a
//! user, and is built on nothing.
//!
//! Specification: OCI image-spec `image-layout.md`, `config.md`.

use anyhow::{Context as _, Result};
use drydock_model::config::{History, ImageConfig, Settings};
use drydock_model::digest::{DiffId, Digest};
use drydock_model::manifest::{Annotations, Descriptor, Index, Manifest, REF_NAME};
use drydock_model::media;
use drydock_model::platform::Platform;
use serde::Serialize;
use serde_json::Map;

use crate::archive::{Content, Entry, gzip, tar};
use crate::descriptor;

/// [`archive`](crate::archive)'s time of all files.
const CREATED: &str = "1980-01-01T00:00:01Z";

/// The layout of an image with what the archive for builder tools holds, by paths in the layout. The image has the name
/// of its version. Its last layer holds the lifecycle and nothing else: builder tools take it from there.
pub fn layout(descriptor: &descriptor::Descriptor, lifecycle: &[Entry]) -> Result<Vec<Entry>> {
    let mut blobs = Blobs::default();
    let user = [dir("/etc"), file("/etc/group", "root:x:0:\n"), file("/etc/passwd", "root:x:0:0:root:/:\n")];
    let in_cnb =
        lifecycle.iter().map(|Entry { path, content }| entry(&format!("/cnb/{path}"), content.clone()));
    let lifecycle: Vec<Entry> = std::iter::once(dir("/cnb")).chain(in_cnb).collect();
    let (user_id, user) = blobs.add_layer(&user)?;
    let (lifecycle_id, lifecycle) = blobs.add_layer(&lifecycle)?;

    let platform = Platform::host();
    let history = |created_by: &str| History {
        created: Some(CREATED.to_owned()),
        created_by: created_by.to_owned(),
        ..History::default()
    };
    let mut config = ImageConfig {
        created: Some(CREATED.to_owned()),
        config: Settings {
            working_dir: "/layers".to_owned(),
            labels: descriptor.labels(),
            ..Settings::default()
        },
        history: vec![history("User"), history("Lifecycle")],
        ..ImageConfig::empty(&platform)
    };
    config.rootfs.diff_ids = vec![user_id, lifecycle_id];
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::MANIFEST.to_owned(),
        config: blobs.add_json(media::CONFIG, &config)?,
        layers: vec![user, lifecycle],
        annotations: Annotations::new(),
        rest: Map::new(),
    };
    let mut image = blobs.add_json(media::MANIFEST, &manifest)?;
    image.annotations.insert(REF_NAME.to_owned(), descriptor.version().to_owned());
    image.platform = Some(platform);
    let index = Index { manifests: vec![image].into(), ..Index::empty() };

    let mut entries = vec![
        entry("oci-layout", Content::File(br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())),
        entry("index.json", Content::File(json(&index)?)),
        dir("blobs"),
        dir("blobs/sha256"),
    ];
    entries.append(&mut blobs.0);
    Ok(entries)
}

fn entry(path: &str, content: Content) -> Entry {
    Entry { path: path.to_owned(), content }
}

fn dir(path: &str) -> Entry {
    entry(path, Content::Dir)
}

fn file(path: &str, text: &str) -> Entry {
    entry(path, Content::File(text.into()))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).context("write JSON")
}

/// The blobs of a layout.
#[derive(Default)]
struct Blobs(Vec<Entry>);

impl Blobs {
    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        self.0.push(entry(&format!("blobs/sha256/{}", digest.hex()), Content::File(bytes)));
        Descriptor::new(media_type, digest, size)
    }

    fn add_json(&mut self, media_type: &str, value: &impl Serialize) -> Result<Descriptor> {
        Ok(self.add(media_type, json(value)?))
    }

    fn add_layer(&mut self, entries: &[Entry]) -> Result<(DiffId, Descriptor)> {
        let tar = tar(entries)?;
        Ok((DiffId::of(&tar), self.add(media::LAYER_GZIP, gzip(&tar)?)))
    }
}
