//! Image layouts as someone else sees them: read with nothing but JSON, hashes and decompression.
//!
//! [`Layout::verify`] says whether an image is complete and true; [`Layout::faults`] says what besides is not as an
//! exporter should leave it. See the [OCI image layout](https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use walkdir::WalkDir;

/// The media types that an exported image is made of.
const OCI_TYPES: [&str; 5] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
];
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The annotation that names an image in an index.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A folder with `oci-layout`, `index.json` and `blobs/`.
#[derive(Debug)]
pub struct Layout {
    dir: PathBuf,
}

/// What points to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// Algorithm and hash, `sha256:…`.
    pub digest: String,
    /// In bytes.
    pub size: u64,
    /// Only in an index, as a rule.
    pub annotations: Option<BTreeMap<String, String>>,
    /// Only in an index.
    pub platform: Option<Value>,
}

/// One image of a layout.
#[derive(Debug)]
pub struct Image {
    /// The index's descriptor of the manifest.
    pub descriptor: Descriptor,
    /// The manifest's descriptor of the config.
    pub config_descriptor: Descriptor,
    /// The config, all of it.
    pub config: Value,
    /// The manifest's descriptors of the layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Image {
    /// The diff IDs that the config gives, the lowest layer's first.
    pub fn diff_ids(&self) -> Result<Vec<String>> {
        serde_json::from_value(self.config["rootfs"]["diff_ids"].clone()).context("config: rootfs.diff_ids")
    }
}

impl Layout {
    /// The layout in `dir`. Nothing is read yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the blob with this digest is, or would be.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs").join(digest.replacen(':', "/", 1))
    }

    /// The blob's bytes; None where there is no such blob. An error when they have another digest.
    pub fn blob(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        let path = self.blob_path(digest);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let found = crate::sha256(&bytes);
        ensure!(found == digest, "blob {digest} has digest {found}");
        Ok(Some(bytes))
    }

    /// A JSON file of the layout's top folder.
    pub fn json<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<T> {
        let path = self.dir.join(name);
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))
    }

    /// All images, in the index's order; nested indexes are followed.
    pub fn images(&self) -> Result<Vec<Image>> {
        Ok(self.read()?.0)
    }

    /// All images, and the descriptors of the indexes between and of artifacts.
    fn read(&self) -> Result<(Vec<Image>, Vec<Descriptor>)> {
        let mut images = Vec::new();
        let mut indexes = Vec::new();
        let mut waiting = self.json::<Index>("index.json")?.manifests;
        waiting.reverse();
        while let Some(descriptor) = waiting.pop() {
            if [OCI_INDEX, DOCKER_INDEX].contains(&descriptor.media_type.as_str()) {
                ensure!(!indexes.contains(&descriptor), "index {} is listed twice", descriptor.digest);
                waiting.extend(self.document::<Index>(&descriptor)?.manifests.into_iter().rev());
                indexes.push(descriptor);
            } else {
                let Manifest { config, layers } = self.document(&descriptor)?;
                if config.media_type == EMPTY {
                    // An artifact: a signature, a log.
                    indexes.push(descriptor);
                    continue;
                }
                let value = self.document(&config)?;
                images.push(Image { descriptor, config_descriptor: config, config: value, layers });
            }
        }
        Ok((images, indexes))
    }

    fn document<T: for<'a> Deserialize<'a>>(&self, descriptor: &Descriptor) -> Result<T> {
        let digest = &descriptor.digest;
        let bytes = self.blob(digest)?.with_context(|| format!("blob {digest} is not there"))?;
        serde_json::from_slice(&bytes).with_context(|| format!("parse blob {digest}"))
    }

    /// Reads everything: every blob must be there and have the size and digest of its descriptor, every layer the diff
    /// ID that the config gives.
    pub fn verify(&self) -> Result<Vec<Image>> {
        let version: Value = self.json("oci-layout")?;
        ensure!(version == json!({"imageLayoutVersion": "1.0.0"}), "oci-layout says {version}");
        let (images, indexes) = self.read()?;
        ensure!(!images.is_empty(), "index.json lists no image");
        for descriptor in indexes.iter().chain(images.iter().flat_map(Image::documents)) {
            let size = self.size(&descriptor.digest)?;
            ensure!(
                size == Some(descriptor.size),
                "{} has size {size:?}, not {}",
                descriptor.digest,
                descriptor.size
            );
        }
        for image in &images {
            let diff_ids = image.diff_ids()?;
            ensure!(
                diff_ids.len() == image.layers.len(),
                "{} layers, {} diff IDs",
                image.layers.len(),
                diff_ids.len()
            );
            for (descriptor, diff_id) in image.layers.iter().zip(&diff_ids) {
                self.verify_layer(descriptor, diff_id)
                    .with_context(|| format!("layer {}", descriptor.digest))?;
            }
        }
        Ok(images)
    }

    fn verify_layer(&self, descriptor: &Descriptor, diff_id: &str) -> Result<()> {
        let open = || File::open(self.blob_path(&descriptor.digest));
        let (digest, size) = hash(open()?)?;
        ensure!(digest == descriptor.digest, "has digest {digest}");
        ensure!(size == descriptor.size, "has {size} bytes, not {}", descriptor.size);
        let media_type = descriptor.media_type.as_str();
        let (found, _) = match media_type.rsplit(['+', '.']).next() {
            Some("gzip") => hash(MultiGzDecoder::new(open()?))?,
            Some("zstd") => hash(zstd::Decoder::new(open()?)?)?,
            Some("tar") => hash(open()?)?,
            _ => bail!("has media type {media_type}"),
        };
        ensure!(found == diff_id, "has diff ID {found}, the config says {diff_id}");
        Ok(())
    }

    fn size(&self, digest: &str) -> Result<Option<u64>> {
        match fs::metadata(self.blob_path(digest)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("find blob {digest}")),
        }
    }

    /// What no exported layout may have: other media types than OCI's, images without a name, sizes that are not true,
    /// files that nothing refers to, modes other than 0644. Layer blobs may be absent.
    pub fn faults(&self) -> Result<Vec<String>> {
        let (images, indexes) = self.read()?;
        let mut faults = BTreeSet::new();
        let mut named: BTreeSet<&str> = indexes.iter().map(|index| index.digest.as_str()).collect();
        for image in &images {
            let name =
                image.descriptor.annotations.as_ref().and_then(|annotations| annotations.get(REF_NAME));
            if name.is_none() {
                faults.insert(format!("no {REF_NAME} annotation in index.json"));
            }
            for descriptor in image.documents().into_iter().chain(&image.layers) {
                let Descriptor { media_type, digest, size, .. } = descriptor;
                named.insert(digest);
                if !OCI_TYPES.contains(&media_type.as_str()) {
                    faults.insert(format!("media type {media_type} in an OCI image"));
                }
                if self.size(digest)?.is_some_and(|found| found != *size) {
                    faults.insert(format!("{digest} has another size than its descriptor says"));
                }
            }
        }
        for entry in WalkDir::new(&self.dir) {
            let entry = entry?;
            if entry.path().is_dir() {
                continue;
            }
            let path = entry
                .path()
                .strip_prefix(&self.dir)
                .context("a walk stays under its start")?
                .display()
                .to_string();
            let mode = entry.path().metadata()?.permissions().mode() & 0o777;
            if mode != 0o644 {
                faults.insert(format!("{path} has mode {mode:#o}, not 0o644"));
            }
            let known = ["index.json", "oci-layout"].contains(&path.as_str());
            let digest = path.replacen("blobs/", "", 1).replace('/', ":");
            // A blob of an earlier image stays for those who are reading that one, but nothing else may lie about.
            if !known && !named.contains(digest.as_str()) && crate::sha256(&fs::read(entry.path())?) != digest
            {
                faults.insert(format!("{path} is neither referenced nor a blob"));
            }
        }
        Ok(faults.into_iter().collect())
    }
}

impl Image {
    /// The descriptors of manifest and config.
    fn documents(&self) -> [&Descriptor; 2] {
        [&self.descriptor, &self.config_descriptor]
    }
}

/// The digest of what comes, and how many bytes it is.
fn hash(mut from: impl Read) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok((crate::print_sha256(hash.finalize().as_slice()), size)),
            length => {
                hash.update(&buffer[..length]);
                size += length as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy of a recorded image.
    fn image(name: &str) -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let from = crate::here("images").join(name);
        for entry in WalkDir::new(&from) {
            let entry = entry.unwrap();
            let to = dir.path().join("layout").join(entry.path().strip_prefix(&from).unwrap());
            if entry.file_type().is_dir() {
                fs::create_dir_all(to).unwrap();
            } else {
                fs::write(&to, fs::read(entry.path()).unwrap()).unwrap();
                fs::set_permissions(&to, fs::Permissions::from_mode(0o644)).unwrap();
            }
        }
        let layout = Layout::new(dir.path().join("layout"));
        (dir, layout)
    }

    fn complaint(layout: &Layout) -> String {
        format!("{:#}", layout.verify().unwrap_err())
    }

    #[test]
    fn whole_images_pass() {
        for name in ["run", "run-v2", "run-no-labels", "run-arm64", "run-two-platforms", "run-docker"] {
            let (_dir, layout) = image(name);
            assert!(!layout.verify().unwrap().is_empty(), "{name}");
        }
        let (_dir, layout) = image("run");
        assert!(layout.faults().unwrap().is_empty(), "{:?}", layout.faults().unwrap());
    }

    #[test]
    fn a_sparse_image_is_not_whole() {
        let (_dir, layout) = image("run-sparse");
        assert!(complaint(&layout).contains("No such file"), "{}", complaint(&layout));
    }

    #[test]
    fn every_damage_is_seen() {
        let blobs = {
            let (_dir, layout) = image("run");
            let image = layout.verify().unwrap().remove(0);
            let mut blobs = vec![image.descriptor.digest, image.config_descriptor.digest];
            blobs.extend(image.layers.into_iter().map(|layer| layer.digest));
            blobs
        };
        for digest in blobs {
            let (_dir, layout) = image("run");
            let path = layout.blob_path(&digest);
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&path, bytes).unwrap();
            assert!(complaint(&layout).contains("has digest"), "{digest}: {}", complaint(&layout));
        }
    }

    #[test]
    fn a_false_size_is_seen() {
        let (_dir, layout) = image("run");
        let path = layout.dir().join("index.json");
        let mut index: Value = layout.json("index.json").unwrap();
        index["manifests"][0]["size"] = json!(1);
        fs::write(path, index.to_string()).unwrap();
        assert!(complaint(&layout).contains("has size"), "{}", complaint(&layout));
        assert_eq!(layout.faults().unwrap().len(), 1);
    }

    #[test]
    fn what_an_exporter_must_not_leave() {
        let (_dir, layout) = image("run");
        fs::write(layout.dir().join("blobs/sha256/.temporary"), "").unwrap();
        fs::set_permissions(layout.dir().join("oci-layout"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(layout.dir().join("blobs/sha256/.temporary"), fs::Permissions::from_mode(0o644))
            .unwrap();
        let expected = [
            "blobs/sha256/.temporary is neither referenced nor a blob",
            "oci-layout has mode 0o600, not 0o644",
        ];
        assert_eq!(layout.faults().unwrap(), expected);
        assert_eq!(
            image("run-docker").1.faults().unwrap().iter().filter(|f| f.contains("media type")).count(),
            3
        );
    }
}
