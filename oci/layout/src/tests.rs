//! Layouts written by hand, read, written and damaged.

mod logs;
mod reading;
mod sweeping;
mod writing;

use std::fs;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::*;
use drydock_io::dir::Dir;
use drydock_io::file::TempFile;
use drydock_model::config::ImageConfig;
use drydock_model::digest::DiffId;
use drydock_model::manifest::{Annotations, Descriptor};
use drydock_model::media;
use drydock_model::platform::Platform;
use drydock_model::reference::{LayoutDir, LayoutPath};

struct Repository {
    temp: TempDir,
    dir: LayoutDir,
}

impl Repository {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = LayoutDir::new(temp.path()).unwrap();
        Self { temp, dir }
    }

    fn path(&self, name: &str) -> LayoutPath {
        self.dir.resolve(name).unwrap()
    }

    fn put_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let dir = blobs_dir(self.path(name).path());
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(digest.hex()), bytes).unwrap();
        digest
    }

    /// An image of one layer; returns the manifest's descriptor.
    fn put_image(&self, name: &str, architecture: &str, layer: &[u8], docker: bool) -> Json {
        let (manifest_type, config_type, layer_type) = if docker {
            (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar",
            )
        } else {
            (media::MANIFEST, media::CONFIG, media::LAYER)
        };
        let layer_digest = self.put_blob(name, layer);
        let config = json!({"architecture": architecture, "os": "linux", "config": {"Healthcheck": {"Test": []}},
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]}});
        let config = serde_json::to_vec(&config).unwrap();
        let config_digest = self.put_blob(name, &config);
        let manifest = json!({"schemaVersion": 2, "mediaType": manifest_type,
            "config": {"mediaType": config_type, "digest": config_digest, "size": config.len()},
            "layers": [{"mediaType": layer_type, "digest": layer_digest, "size": layer.len()}]});
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let digest = self.put_blob(name, &manifest);
        json!({"mediaType": manifest_type, "digest": digest, "size": manifest.len()})
    }

    fn put_index(&self, name: &str, manifests: &[Json]) {
        let path = self.path(name);
        fs::write(path.path().join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(path.path().join("index.json"), index.to_string()).unwrap();
    }

    fn open(&self, name: &str) -> Result<Layout, LayoutError> {
        Layout::open(&self.path(name))
    }

    fn image(&self, name: &str) -> Result<Image, LayoutError> {
        self.open(name)?.image(&Platform::linux("amd64"))
    }

    fn begin(&self, names: &[&str]) -> Result<Transaction, LayoutError> {
        let names: Vec<_> = names.iter().map(|name| self.path(name)).collect();
        // A process that another test starts holds the lock of an earlier transaction too, until it is another program.
        Transaction::begin(&self.dir, &names, LinkMode::Auto, Durability::InMemory, &|_| {})
    }

    /// Makes everything in a layout older than readers are waited for, but for the times of change of its blobs.
    fn age(&self, name: &str) {
        let index = fs::File::open(self.path(name).path().join("index.json")).unwrap();
        index.set_modified(SystemTime::now() - 2 * GRACE).unwrap();
    }

    /// Every file and folder below the layout directory, with content.
    fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(dir: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                    found.push((path, Vec::new()));
                } else {
                    let bytes = fs::read(&path).unwrap();
                    found.push((path, bytes));
                }
            }
        }
        let mut found = Vec::new();
        walk(self.temp.path(), &mut found);
        found.sort();
        found
    }
}

fn with_platform(mut descriptor: Json, architecture: &str, variant: Option<&str>) -> Json {
    descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
    if let Some(variant) = variant {
        descriptor["platform"]["variant"] = json!(variant);
    }
    descriptor
}

fn new_image(transaction: &Transaction, architecture: &str, layers: &[&[u8]]) -> NewImage {
    let text =
        json!({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
    let layers = layers.iter().map(|bytes| {
        let mut file = TempFile::create_in(&transaction.blobs_dir()).unwrap();
        file.file().write_all(bytes).unwrap();
        NewLayer {
            diff_id: DiffId::of(bytes),
            descriptor: Descriptor::new(media::LAYER, Digest::of(bytes), bytes.len() as u64),
            blob: BlobSource::Temporary(file),
        }
    });
    let config: ImageConfig = serde_json::from_value(text).unwrap();
    NewImage { config, layers: layers.collect(), annotations: Annotations::new(), replaces: None }
}

fn publish(transaction: Transaction, image: NewImage) -> Result<Committed, LayoutError> {
    let prepared = transaction.prepare_image(image)?;
    let committed = prepared.committed().unwrap().clone();
    let left = prepared.publish()?;
    assert!(left.is_none(), "{left:?}");
    Ok(committed)
}

fn export(repository: &Repository, name: &str, architecture: &str, layers: &[&[u8]]) -> Committed {
    let transaction = repository.begin(&[name]).unwrap();
    let image = new_image(&transaction, architecture, layers);
    publish(transaction, image).unwrap()
}

/// A signature or the like of what `subject` describes, as a manifest without an image; returns its descriptor.
fn put_artifact(repository: &Repository, name: &str, subject: &Json) -> Json {
    let empty = repository.put_blob(name, b"{}");
    let content = repository.put_blob(name, b"signature");
    let manifest = json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "artifactType": "application/spdx+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2},
        "layers": [{"mediaType": "application/spdx+json", "digest": content, "size": 9}],
        "subject": {"mediaType": subject["mediaType"], "digest": subject["digest"], "size": subject["size"]}});
    let manifest = manifest.to_string();
    let digest = repository.put_blob(name, manifest.as_bytes());
    json!({"mediaType": media::MANIFEST, "digest": digest, "size": manifest.len()})
}
