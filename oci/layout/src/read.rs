//! Reading: every file is checked, and every blob against its digest and size.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::blob_path;
use super::error::{IoContext as _, LayoutError};
use drydock_model::config::ImageConfig;
use drydock_model::digest::{DiffId, Digest};
use drydock_model::hash::Hasher;
use drydock_model::manifest::{Descriptor, Index, Manifest, REF_NAME};
use drydock_model::media;
use drydock_model::platform::Platform;
use drydock_model::reference::LayoutPath;

/// Indexes may lie in indexes this deep.
pub(super) const MAX_DEPTH: usize = 8;

/// A layout whose index was read.
#[derive(Debug)]
pub struct Layout {
    path: PathBuf,
    ref_name: String,
    index: Index,
}

impl Layout {
    /// Reads `oci-layout` and `index.json`. Without the latter there is no layout: [`LayoutError::NotFound`].
    pub fn open(path: &LayoutPath) -> Result<Self, LayoutError> {
        let index_path = path.path().join("index.json");
        let text = match fs::read(&index_path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(LayoutError::NotFound(path.path().to_owned()));
            }
            Err(source) => return Err(LayoutError::Io { action: "read", path: index_path, source }),
        };
        let marker_path = path.path().join("oci-layout");
        let marker: Json = parse(&fs::read(&marker_path).at("read", &marker_path)?, &marker_path)?;
        match marker.get("imageLayoutVersion").and_then(Json::as_str) {
            Some(version) if version.split('.').next() == Some("1") => {}
            _ => {
                let reason = "imageLayoutVersion must be a string that begins with `1.`".to_owned();
                return Err(LayoutError::Malformed { path: marker_path, reason });
            }
        }
        let index: Index = parse(&text, &index_path)?;
        Ok(Self { path: path.path().to_owned(), ref_name: path.ref_name().to_owned(), index })
    }

    /// `index.json`.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The image for a platform. The only image of a layout is taken whatever its platform.
    pub fn image(&self, platform: &Platform) -> Result<Image, LayoutError> {
        let candidates = self.images()?;
        if let [only] = candidates.as_slice() {
            return self.load(only);
        }
        let with_platforms = self.with_platforms(candidates)?;
        let fitting = |fits: &dyn Fn(&Platform) -> bool| -> Vec<&Descriptor> {
            with_platforms.iter().filter(|(_, p)| fits(p)).map(|(descriptor, _)| descriptor).collect()
        };
        let mut chosen = fitting(&|p| p.is_same(platform));
        if chosen.is_empty() {
            // An image for another variant will do only where there is no choice.
            chosen = fitting(&|p| p.is_same_machine(platform));
        }
        if chosen.len() > 1 {
            let named =
                |d: &&&Descriptor| d.annotations.get(REF_NAME).is_some_and(|name| *name == self.ref_name);
            let named: Vec<&Descriptor> = chosen.iter().filter(named).copied().collect();
            if let [one] = named.as_slice() {
                return self.load(one);
            }
        }
        match chosen.as_slice() {
            [one] => self.load(one),
            [] => Err(LayoutError::NoPlatform {
                path: self.path.clone(),
                wanted: Box::new(platform.clone()),
                available: with_platforms.into_iter().map(|(_, platform)| platform).collect(),
            }),
            several => Err(LayoutError::Ambiguous {
                path: self.path.clone(),
                platform: Box::new(platform.clone()),
                ref_name: self.ref_name.clone(),
                digests: several.iter().map(|descriptor| descriptor.digest).collect(),
            }),
        }
    }

    /// The image that one for this platform would take the place of.
    pub fn predecessor(&self, platform: &Platform) -> Result<Option<Image>, LayoutError> {
        let images = self.images_with_platforms()?;
        match images.iter().find(|(_, other)| other.is_same(platform)) {
            Some((descriptor, _)) => self.load(descriptor).map(Some),
            None => Ok(None),
        }
    }

    /// The image whose manifest has this digest.
    pub fn image_by_digest(&self, digest: &Digest) -> Result<Image, LayoutError> {
        let candidates = self.images()?;
        match candidates.iter().find(|descriptor| descriptor.digest == *digest) {
            Some(descriptor) => self.load(descriptor),
            None => Err(LayoutError::NoManifest {
                path: self.path.clone(),
                wanted: *digest,
                available: candidates.iter().map(|descriptor| descriptor.digest).collect(),
            }),
        }
    }

    /// The descriptors of all images, those in nested indexes included, each digest once.
    fn images(&self) -> Result<Vec<Descriptor>, LayoutError> {
        let mut found: Vec<Descriptor> = Vec::new();
        let mut indexes = vec![(self.index.clone(), 0)];
        while let Some((index, depth)) = indexes.pop() {
            for descriptor in index.manifests {
                match descriptor.oci_media_type() {
                    media::INDEX if depth == MAX_DEPTH => {
                        let reason = format!("indexes are nested more than {MAX_DEPTH} deep");
                        return Err(LayoutError::Malformed { path: self.path.join("index.json"), reason });
                    }
                    media::INDEX => {
                        let path = blob_path(&self.path, &descriptor.digest);
                        indexes.push((parse(&read_blob(&self.path, &descriptor)?, &path)?, depth + 1));
                    }
                    media::MANIFEST
                        if is_image(&descriptor)
                            && found.iter().all(|other| other.digest != descriptor.digest) =>
                    {
                        found.push(descriptor);
                    }
                    _ => {}
                }
            }
        }
        Ok(found)
    }

    /// All images with what they run on: the index tells it, or their configuration.
    pub(super) fn images_with_platforms(&self) -> Result<Vec<(Descriptor, Platform)>, LayoutError> {
        self.with_platforms(self.images()?)
    }

    fn with_platforms(&self, images: Vec<Descriptor>) -> Result<Vec<(Descriptor, Platform)>, LayoutError> {
        let with_platform = |descriptor| {
            let platform = self.platform_of(&descriptor)?;
            Ok((descriptor, platform))
        };
        images.into_iter().map(with_platform).collect()
    }

    fn platform_of(&self, descriptor: &Descriptor) -> Result<Platform, LayoutError> {
        match &descriptor.platform {
            Some(platform) => Ok(platform.clone()),
            None => Ok(self.load(descriptor)?.config.platform()),
        }
    }

    fn load(&self, descriptor: &Descriptor) -> Result<Image, LayoutError> {
        let manifest_path = blob_path(&self.path, &descriptor.digest);
        let manifest: Manifest = parse(&read_blob(&self.path, descriptor)?, &manifest_path)?;
        let config_path = blob_path(&self.path, &manifest.config.digest);
        if manifest.config.oci_media_type() != media::CONFIG {
            let reason = format!(
                "its config has media type `{}`, which is not an image's",
                manifest.config.media_type
            );
            return Err(LayoutError::Malformed { path: manifest_path, reason });
        }
        let config: ImageConfig = parse(&read_blob(&self.path, &manifest.config)?, &config_path)?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            let (ids, layers) = (config.rootfs.diff_ids.len(), manifest.layers.len());
            let reason = format!(
                "its {layers} layers do not fit the {ids} diff_ids of config {}",
                manifest.config.digest
            );
            return Err(LayoutError::Malformed { path: manifest_path, reason });
        }
        Ok(Image { layout: self.path.clone(), descriptor: descriptor.clone(), manifest, config })
    }
}

/// Attestations hide among the images of an index under the platform `unknown/unknown`.
fn is_image(descriptor: &Descriptor) -> bool {
    descriptor
        .platform
        .as_ref()
        .is_none_or(|platform| platform.os != "unknown" && platform.architecture != "unknown")
}

/// An image in a layout; its manifest and config are checked, its layers are not.
#[derive(Debug, Clone)]
pub struct Image {
    layout: PathBuf,
    /// How the index names it.
    pub descriptor: Descriptor,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: ImageConfig,
}

/// A layer of an image in a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLayer {
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// Its blob.
    pub descriptor: Descriptor,
    /// Where its blob is, or should be.
    pub path: PathBuf,
}

impl Image {
    /// Exactly this image: `<path>@<digest>`.
    pub fn identifier(&self) -> String {
        format!("{}@{}", self.layout.display(), self.descriptor.digest)
    }

    /// The folder of the layout that it lies in.
    pub fn layout(&self) -> &Path {
        &self.layout
    }

    /// The digest of its manifest.
    pub fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    /// Its layers, lowest first.
    pub fn layers(&self) -> impl DoubleEndedIterator<Item = ImageLayer> + '_ {
        self.config.rootfs.diff_ids.iter().zip(&self.manifest.layers).map(|(diff_id, descriptor)| {
            ImageLayer {
                diff_id: *diff_id,
                descriptor: descriptor.clone(),
                path: blob_path(&self.layout, &descriptor.digest),
            }
        })
    }

    /// The layer with this diff ID.
    pub fn layer(&self, diff_id: &DiffId) -> Option<ImageLayer> {
        self.layers().find(|layer| layer.diff_id == *diff_id)
    }
}

impl ImageLayer {
    /// Whether its blob is there, of the size that it should have.
    pub fn is_present(&self) -> bool {
        self.check_present().is_ok()
    }

    /// Whether there is nothing where its blob should be, as in a sparse image.
    pub fn is_absent(&self) -> bool {
        fs::symlink_metadata(&self.path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }

    /// Says what is wrong if its blob is not there, or not of the size that it should have.
    pub fn check_present(&self) -> Result<(), LayoutError> {
        open_blob(&self.path, &self.descriptor).map(drop)
    }

    /// Opens its blob once its digest and size were checked.
    pub fn open(&self) -> Result<File, LayoutError> {
        let mut file = open_blob(&self.path, &self.descriptor)?;
        let found = hash(&mut file).at("read", &self.path)?;
        if found != self.descriptor.digest {
            return Err(LayoutError::Corrupt { path: self.path.clone(), found });
        }
        io::Seek::rewind(&mut file).at("read", &self.path)?;
        Ok(file)
    }
}

pub(super) fn parse<T: DeserializeOwned>(text: &[u8], path: &Path) -> Result<T, LayoutError> {
    serde_json::from_slice(text)
        .map_err(|error| LayoutError::Malformed { path: path.to_owned(), reason: error.to_string() })
}

/// Opens a blob that is a regular file of the right size.
fn open_blob(path: &Path, descriptor: &Descriptor) -> Result<File, LayoutError> {
    // Looked at before it is opened: to open a pipe would wait for a writer.
    let found = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => {
            let reason = "it is not a regular file".to_owned();
            return Err(LayoutError::Malformed { path: path.to_owned(), reason });
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let layout = path.ancestors().nth(3).unwrap_or(path).to_owned();
            return Err(LayoutError::MissingBlob { layout, digest: descriptor.digest });
        }
        Err(source) => return Err(LayoutError::Io { action: "read", path: path.to_owned(), source }),
    };
    if found != descriptor.size {
        return Err(LayoutError::WrongSize { path: path.to_owned(), expected: descriptor.size, found });
    }
    File::open(path).at("open", path)
}

/// Reads a blob whole: manifests, configs and indexes.
pub(super) fn read_blob(layout: &Path, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
    let path = blob_path(layout, &descriptor.digest);
    let mut bytes = Vec::new();
    open_blob(&path, descriptor)?.read_to_end(&mut bytes).at("read", &path)?;
    let found = Digest::of(&bytes);
    if found != descriptor.digest {
        return Err(LayoutError::Corrupt { path, found });
    }
    Ok(bytes)
}

/// The digest of the rest of a file.
pub(super) fn hash(file: &mut File) -> io::Result<Digest> {
    let mut hash = Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest::from_hash(hash)),
            Ok(n) => hash.update(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
