//! Reading: every file is checked, and every blob against its digest and size.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use drydock_model::config::ImageConfig;
use drydock_model::digest::{DiffId, Digest};
use drydock_model::manifest::{Descriptor, Index, Manifest};
use drydock_model::media;
use drydock_model::platform::Platform;
use drydock_model::reference::LayoutPath;
use serde_json::Value as Json;

use super::blob_path;
use super::error::LayoutError;
use super::files::{BlobReader, Early, checked, parse};
use super::tree::{self, Damage, Entry};

/// A layout whose indexes were read.
#[derive(Debug)]
pub struct Layout {
    path: LayoutPath,
    files: Early,
    index: Index,
    entries: Vec<Entry>,
}

impl Layout {
    /// Reads `oci-layout`, `index.json` and the indexes in it. Without `index.json` there is no layout:
    /// [`LayoutError::NotFound`].
    pub fn open(path: &LayoutPath) -> Result<Self, LayoutError> {
        Self::open_early(path, &Early::default())
    }

    /// The same, with files that were opened before.
    pub fn open_early(path: &LayoutPath, files: &Early) -> Result<Self, LayoutError> {
        let index = read_index(path, files)?;
        let entries = tree::read(path, &index, files, Damage::Refused)?;
        Ok(Self { path: path.clone(), files: files.clone(), index, entries })
    }

    /// `index.json`, of which nothing else was looked at: for who wants to see for himself what it leads to.
    pub fn read_index(path: &LayoutPath) -> Result<Index, LayoutError> {
        read_index(path, &Early::default())
    }

    /// All images that these descriptors lead to in the layout's folder, whatever its index says: each of them can be used.
    pub fn images_of(path: &LayoutPath, roots: &[Descriptor]) -> Result<Vec<Image>, LayoutError> {
        let index = Index { manifests: roots.to_vec().into(), ..Index::empty() };
        let entries = tree::read(path, &index, &Early::default(), Damage::Refused)?;
        let images = entries.iter().flat_map(Entry::images);
        images.map(|(descriptor, _)| Image::read(path.path(), descriptor)).collect()
    }

    /// `index.json`.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// What the layout's name stands for, as `index.json` has it: an image or an index of several, or images without names
    /// for different platforms. If the name is a digest, what has it, wherever it is. Empty if there is no such thing.
    pub fn named(&self) -> Vec<&Descriptor> {
        let entries = match self.path.digest() {
            Some(pin) => self.entries.iter().find_map(|entry| entry.find(&pin)).into_iter().collect(),
            None => super::edit::named(&self.entries, self.path.ref_name()),
        };
        entries.into_iter().map(|entry| &entry.descriptor).collect()
    }

    /// What is no image: signatures, SBOMs, attestations and what is not known here, those in nested indexes included.
    pub fn artifacts(&self) -> Vec<&Descriptor> {
        self.entries.iter().flat_map(Entry::artifacts).collect()
    }

    /// The image for a platform. The only image of a layout is taken whatever its platform; if the layout's name is a
    /// digest, only what has that digest counts.
    pub fn image(&self, platform: &Platform) -> Result<Image, LayoutError> {
        match self.path.digest() {
            Some(pin) => self.pinned_image(pin, platform),
            None => self.choose(&self.images(), platform),
        }
    }

    /// The same of what has this digest: an image, or an index of several.
    pub fn pinned_image(&self, pin: Digest, platform: &Platform) -> Result<Image, LayoutError> {
        let pinned = self.entries.iter().find_map(|entry| entry.find(&pin));
        self.choose(&pinned.map(Entry::images).ok_or_else(|| self.no_manifest(pin))?, platform)
    }

    fn choose(&self, images: &[(&Descriptor, &Platform)], platform: &Platform) -> Result<Image, LayoutError> {
        if images.is_empty()
            && let Some(error) = self.unusable()
        {
            return Err(error);
        }
        if let Some(only) = only(images) {
            return self.load(only);
        }
        // An image for another variant will do only where there is no choice.
        for fits in [Platform::is_same, Platform::is_same_machine] {
            let mut several = images.to_vec();
            several.retain(|(_, other)| fits(other, platform));
            if several.is_empty() {
                continue;
            }
            let named = self.entries.iter().filter(|entry| entry.ref_name() == Some(self.path.ref_name()));
            let mut named: Vec<_> = named.flat_map(Entry::images).collect();
            named.retain(|(_, other)| fits(other, platform));
            let one = only(&several).or_else(|| only(&named));
            return self.load(one.ok_or_else(|| LayoutError::Ambiguous {
                path: self.path.path().to_owned(),
                platform: Box::new(platform.clone()),
                ref_name: self.path.ref_name().to_owned(),
                digests: several.iter().map(|(descriptor, _)| descriptor.digest).collect(),
            })?);
        }
        Err(LayoutError::NoPlatform {
            path: self.path.path().to_owned(),
            wanted: Box::new(platform.clone()),
            available: images.iter().map(|(_, platform)| (*platform).clone()).collect(),
        })
    }

    /// The image that one for this platform would take the place of.
    pub fn predecessor(&self, platform: &Platform) -> Result<Option<Image>, LayoutError> {
        if self.path.digest().is_some() {
            return self.image(platform).map(Some);
        }
        let replaced = super::edit::replaced(&self.entries, self.path.ref_name(), platform);
        replaced.map(|descriptor| self.load(descriptor)).transpose()
    }

    /// The image whose manifest has this digest.
    pub fn image_by_digest(&self, digest: &Digest) -> Result<Image, LayoutError> {
        let images = self.images();
        let found = images.iter().find(|(descriptor, _)| descriptor.digest == *digest);
        self.load(found.ok_or_else(|| self.no_manifest(*digest))?.0)
    }

    /// Why there is no image although the index names something.
    fn unusable(&self) -> Option<LayoutError> {
        let layout = self.path.path();
        if let Some(digest) = self.entries.iter().find_map(Entry::absent) {
            return Some(LayoutError::MissingBlob { layout: layout.to_owned(), digest });
        }
        let digest = self.index.manifests.foreign.first()?.get("digest")?.as_str()?;
        let reason = format!("it names only `{digest}`, and digests must be of SHA-256");
        Some(LayoutError::Malformed { path: layout.join("index.json"), reason })
    }

    fn no_manifest(&self, wanted: Digest) -> LayoutError {
        let available = self.images().iter().map(|(descriptor, _)| descriptor.digest).collect();
        LayoutError::NoManifest { path: self.path.path().to_owned(), wanted, available }
    }

    /// All images, those in nested indexes included.
    pub fn images(&self) -> Vec<(&Descriptor, &Platform)> {
        self.entries.iter().flat_map(Entry::images).collect()
    }

    fn load(&self, descriptor: &Descriptor) -> Result<Image, LayoutError> {
        Image::load(self.path.path(), descriptor, &self.files)
    }
}

/// `oci-layout`, which must fit, and `index.json`.
fn read_index(path: &LayoutPath, files: &Early) -> Result<Index, LayoutError> {
    let index_path = path.path().join("index.json");
    let text = match files.read(&index_path) {
        Err(LayoutError::Io { source, .. })
            if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
        {
            return Err(LayoutError::NotFound(path.path().to_owned()));
        }
        text => text?,
    };
    let marker_path = path.path().join("oci-layout");
    let marker = match files.read(&marker_path) {
        Err(LayoutError::Io { path, source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Err(LayoutError::Malformed { path, reason: "it is missing".to_owned() });
        }
        marker => marker?,
    };
    check_marker(&marker, &marker_path)?;
    parse(&text, &index_path)
}

/// Whether what `oci-layout` says is known here: version 1.
pub fn check_marker(text: &[u8], path: &Path) -> Result<(), LayoutError> {
    let marker: Json = parse(text, path)?;
    match marker.get("imageLayoutVersion").and_then(Json::as_str) {
        Some(version) if version.split('.').next() == Some("1") => Ok(()),
        _ => {
            let reason = "imageLayoutVersion must be a string that begins with `1.`".to_owned();
            Err(LayoutError::Malformed { path: path.to_owned(), reason })
        }
    }
}

/// The one image that these are, however often it is named.
fn only<'a>(images: &[(&'a Descriptor, &Platform)]) -> Option<&'a Descriptor> {
    let (first, rest) = images.split_first()?;
    rest.iter().all(|(other, _)| other.digest == first.0.digest).then_some(first.0)
}

/// An image in a layout; its manifest and config are checked, its layers are not.
#[derive(Debug, Clone)]
pub struct Image {
    layout: PathBuf,
    files: Early,
    /// How the index names it.
    pub descriptor: Descriptor,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: ImageConfig,
}

/// A layer of an image in a layout.
#[derive(Debug, Clone)]
pub struct ImageLayer {
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// Its blob.
    pub descriptor: Descriptor,
    layout: PathBuf,
    files: Early,
}

impl Image {
    /// The image with this manifest, of which all that belongs to it is in a layout's folder, whatever the index says.
    pub fn read(layout: &Path, descriptor: &Descriptor) -> Result<Self, LayoutError> {
        Self::load(layout, descriptor, &Early::default())
    }

    fn load(layout: &Path, descriptor: &Descriptor, files: &Early) -> Result<Self, LayoutError> {
        let manifest_path = blob_path(layout, &descriptor.digest);
        let manifest: Manifest = files.read_json(layout, descriptor)?;
        if manifest.config.oci_media_type() != media::CONFIG {
            let reason = format!(
                "its config has media type `{}`, which is not an image's",
                manifest.config.media_type
            );
            return Err(LayoutError::Malformed { path: manifest_path, reason });
        }
        let config: ImageConfig = files.read_json(layout, &manifest.config)?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            let (ids, layers) = (config.rootfs.diff_ids.len(), manifest.layers.len());
            let reason = format!(
                "its {layers} layers do not fit the {ids} diff_ids of config {}",
                manifest.config.digest
            );
            return Err(LayoutError::Malformed { path: manifest_path, reason });
        }
        let (layout, files) = (layout.to_owned(), files.clone());
        Ok(Self { layout, files, descriptor: descriptor.clone(), manifest, config })
    }

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
                layout: self.layout.clone(),
                files: self.files.clone(),
            }
        })
    }

    /// The layer with this diff ID.
    pub fn layer(&self, diff_id: &DiffId) -> Option<ImageLayer> {
        self.layers().find(|layer| layer.diff_id == *diff_id)
    }
}

impl ImageLayer {
    /// Where its blob is, or should be.
    pub fn path(&self) -> PathBuf {
        blob_path(&self.layout, &self.descriptor.digest)
    }

    /// Whether its blob is there, of the size that it should have.
    pub fn is_present(&self) -> bool {
        self.open_unchecked().is_ok()
    }

    /// Whether there is nothing where its blob should be, as in a sparse image.
    pub fn is_absent(&self) -> bool {
        fs::symlink_metadata(self.path()).is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }

    /// Opens its blob, of which only the size was checked: for who checks what comes out.
    pub fn open_unchecked(&self) -> Result<BlobReader, LayoutError> {
        self.files.open_blob(&self.layout, &self.descriptor)
    }

    /// Opens its blob once its digest and size were checked.
    pub fn open(&self) -> Result<BlobReader, LayoutError> {
        checked(self.open_unchecked()?, &self.path(), self.descriptor.digest)
    }
}
