//! Images from elsewhere: each as it is, with all its platforms and the digest that it has; or as one layer.
//!
//! What is imported is untrusted: nothing of it is unpacked to paths, each blob is hashed as it comes, and the name is
//! switched when all is there. If the way to the source breaks off before, or somebody stops it, blobs that came whole stay in
//! their places: the next import takes them, or they go as all blobs go that nothing leads to. Limits:
//!
//! | what | limit |
//! |---|---|
//! | entries of an archive of images | [`MAX_ENTRIES`] |
//! | the name of one | [`MAX_NAME`] bytes |
//! | a compressed archive without the compression | [`MAX_UNPACKED`] bytes |
//! | blobs | [`drydock_layout::MAX_DESCRIPTORS`] |

mod archive;
mod bring;
mod docker;
mod error;
mod rootfs;
mod source;
mod store;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use drydock_layout::{Change, Image, Layout, LayoutError, LinkMode, MAX_DESCRIPTORS, Transaction, refers_to};
use drydock_model::config::ImageConfig;
use drydock_model::digest::Digest;
use drydock_model::json;
use drydock_model::manifest::{Descriptor, Index, Manifest, REF_NAME, subject};
use drydock_model::media;
use drydock_model::platform::Platform;
use serde_json::Value as Json;

pub use archive::{MAX_ENTRIES, MAX_NAME, MAX_UNPACKED};
pub(crate) use archive::{Watched, format_of};
pub use bring::Brought;
pub use error::{Choose, SourceError};
pub use source::{BuildPlace, NoPlace, Source};
pub(crate) use source::{split_dir, split_file};
pub use store::{Store, Stored};

use self::archive::{Archive, Names};
use self::bring::{BrokenOff, Porter};
use self::docker::DockerImage;
use self::store::{Files, Folder, Oci, choose, read_json};
use crate::flatten;
use crate::repository::{Name, Repository};
use crate::watch::{Watch, waiting};
use crate::write;

/// How an image is imported.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only for these platforms; for all, if there is none.
    pub platforms: Vec<Platform>,
    /// As one layer.
    pub flatten: bool,
    /// How layers are written that are made anew.
    pub write: flatten::Options,
}

/// What came of it.
#[derive(Debug)]
pub struct Imported {
    /// What the name stands for.
    pub digest: Digest,
    /// How its blobs came.
    pub brought: Brought,
    /// What went wrong after the image was there: old blobs that could not be removed.
    pub left: Option<String>,
}

/// Something to be imported, of which the beginning was read.
pub struct Opened<'a>(Content<'a>);

enum Content<'a> {
    /// Images with digests, and what refers to them if it refers to them.
    Images {
        store: Box<dyn Store + 'a>,
        roots: Vec<Descriptor>,
        others: Vec<Descriptor>,
        name: Option<String>,
    },
    /// What docker saved without digests.
    Docker(DockerImage),
    /// A file tree.
    Rootfs(PathBuf),
}

impl fmt::Debug for Opened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opened({:?})", self.name())
    }
}

impl<'a> Opened<'a> {
    /// The images in a layout's folder.
    pub fn layout(dir: &Path, tag: Option<&str>) -> Result<Self> {
        let located = || format!("cannot import from `{}`", dir.display());
        Self::oci(Folder(dir.to_owned()), tag).with_context(located)
    }

    /// The images in an archive. One that is compressed takes room in the folder `near` meanwhile, or the nearest one above
    /// that is there.
    pub fn archive(file: &Path, tag: Option<&str>, near: &Path, watch: &dyn Watch) -> Result<Self> {
        let open = || {
            let archive = Archive::open(file, &archive::scratch_near(near), Names::Relative, watch)?;
            // What newer versions of docker save is both, and only one of them has digests.
            if archive.open("index.json")?.is_some() {
                return Self::oci(archive, tag);
            }
            Ok(Self(Content::Docker(DockerImage::find(archive, tag)?)))
        };
        open().with_context(|| format!("cannot import from `{}`", file.display()))
    }

    /// The image in a buildpack package, whose names begin with a slash if `pack` made it.
    pub fn package(file: &Path, near: &Path, watch: &dyn Watch) -> Result<Self> {
        Self::oci(Archive::open(file, &archive::scratch_near(near), Names::Any, watch)?, None)
    }

    /// A file tree: a tar file, compressed or not, or a folder.
    pub fn rootfs(path: &Path) -> Self {
        Self(Content::Rootfs(path.to_owned()))
    }

    /// An image or index in any store, and manifests there that may refer to it.
    pub fn stored(store: impl Store + 'a, root: Descriptor, others: Vec<Descriptor>) -> Self {
        Self(Content::Images { store: Box::new(store), roots: vec![root], others, name: None })
    }

    fn oci(files: impl Files + 'a, tag: Option<&str>) -> Result<Self> {
        let store = Oci(files);
        let chosen = choose(store.index()?, tag)?;
        let (roots, others, name) = (chosen.roots, chosen.others, chosen.name);
        Ok(Self(Content::Images { store: Box::new(store), roots, others, name }))
    }

    /// What it is called where it comes from, if that is a whole reference.
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Content::Images { name, .. } => name.as_deref(),
            Content::Docker(image) => image.name(),
            Content::Rootfs(_) => None,
        }
    }
}

/// Makes a name stand for what was opened; whatever it stood for before goes.
pub fn import(
    opened: &Opened<'_>,
    repository: &Repository,
    to: &Name,
    options: &Options,
    watch: &dyn Watch,
) -> Result<Imported> {
    let folders = repository.dir().path().is_dir().then(|| repository.folders()).transpose()?;
    let is_other = |path: &&Path| *path != to.path().path();
    let folders = folders.unwrap_or_default();
    let others: Vec<PathBuf> =
        folders.iter().map(|name| name.path().path()).filter(is_other).map(Path::to_owned).collect();
    let transaction = Transaction::begin_anew(
        to.dir(),
        to.path(),
        LinkMode::Auto,
        options.write.durability,
        &waiting(watch),
    )?;
    let written = write_blobs(opened, &transaction, &others, to, options, watch);
    let Written { root, beside, brought } = match written {
        Ok(written) => written,
        Err(error) => {
            if error.is::<BrokenOff>() {
                transaction.leave();
            }
            return Err(error);
        }
    };
    if options.flatten {
        let image = Image::read(to.path().path(), &root)?;
        let flat = flatten::flatten_in(transaction, &image, None, options.write, watch)?;
        return Ok(Imported { digest: flat.committed.digest, brought, left: flat.left });
    }
    let digest = root.digest;
    let changes: Vec<Change> =
        std::iter::once(Change::Name(root)).chain(beside.into_iter().map(Change::Add)).collect();
    let absent: BTreeSet<Digest> = brought.lacking.iter().copied().collect();
    let left = write::publish(transaction.prepare(&changes, &absent)?)?;
    Ok(Imported { digest, brought, left })
}

/// What is in the layout, but for the name.
struct Written {
    root: Descriptor,
    /// What refers to the image.
    beside: Vec<Descriptor>,
    brought: Brought,
}

fn write_blobs(
    opened: &Opened<'_>,
    transaction: &Transaction,
    others: &[PathBuf],
    to: &Name,
    options: &Options,
    watch: &dyn Watch,
) -> Result<Written> {
    let made = |root| Written { root, beside: Vec::new(), brought: Brought::default() };
    let written = match &opened.0 {
        Content::Docker(image) => made(image.write(transaction, options, watch)?),
        Content::Rootfs(path) => made(rootfs::write(path, transaction, options, watch)?),
        Content::Images { store, roots, others: beside, .. } => {
            let threads = options.write.threads;
            let porter = Porter { store: &**store, transaction, others, threads, watch };
            let roots = pick(&**store, roots, options)?;
            let mut brought = porter.bring(roots.clone())?;
            // What cannot be used must not take a name.
            if Layout::images_of(to.path(), &roots).map_err(unusable)?.is_empty() {
                return Err(SourceError::NoImage.into());
            }
            let beside = referrers(&**store, beside, &reached(to.path().path(), &roots)?)?;
            let more = porter.bring(beside.clone())?;
            brought.shared += more.shared;
            brought.fetched += more.fetched;
            brought.lacking.extend(more.lacking);
            Written { root: one(transaction, roots)?, beside, brought }
        }
    };
    watch.advance(0)?;
    Ok(written)
}

/// An image that was brought as it is, and that no command could read.
fn unusable(error: LayoutError) -> anyhow::Error {
    match error {
        LayoutError::Malformed { path, reason } => {
            SourceError::malformed(&path.file_name().unwrap_or_default().display(), &reason).into()
        }
        other => other.into(),
    }
}

/// What the name will stand for.
fn one(transaction: &Transaction, roots: Vec<Descriptor>) -> Result<Descriptor> {
    let nameless = |mut root: Descriptor| {
        root.annotations.remove(REF_NAME);
        root
    };
    let mut roots: Vec<Descriptor> = roots.into_iter().map(nameless).collect();
    if let [_] = roots.as_slice() {
        return Ok(roots.remove(0));
    }
    let index = serde_json::to_vec(&Index { manifests: roots.into(), ..Index::empty() })?;
    Ok(transaction.put_bytes(media::INDEX, &index)?)
}

/// What is wanted of these: all, or the images for some platforms.
fn pick(store: &dyn Store, roots: &[Descriptor], options: &Options) -> Result<Vec<Descriptor>> {
    let host = [Platform::host()];
    let wanted = match options.platforms.as_slice() {
        [] if options.flatten => &host[..],
        [] => return Ok(roots.to_vec()),
        wanted => wanted,
    };
    let images = find_images(store, roots)?;
    // As where an image is read: the only one is for everybody.
    if let ([only], true) = (images.as_slice(), options.platforms.is_empty()) {
        return Ok(vec![only.0.clone()]);
    }
    let mut picked: Vec<Descriptor> = Vec::new();
    for platform in wanted {
        let fits =
            |fits: fn(&Platform, &Platform) -> bool| images.iter().find(|(_, other)| fits(other, platform));
        let found = fits(Platform::is_same).or_else(|| fits(Platform::is_same_machine));
        let there = || images.iter().map(|(_, platform)| platform.clone()).collect();
        let (image, platform) = found.ok_or_else(|| no_platform(platform, there()))?;
        if picked.iter().all(|other| other.digest != image.digest) {
            picked.push(Descriptor { platform: Some(platform.clone()), ..image.clone() });
        }
    }
    Ok(picked)
}

fn no_platform(wanted: &Platform, available: Vec<Platform>) -> LayoutError {
    LayoutError::NoPlatform { path: "the source".into(), wanted: Box::new(wanted.clone()), available }
}

/// All images that these lead to, with their platforms.
fn find_images(store: &dyn Store, roots: &[Descriptor]) -> Result<Vec<(Descriptor, Platform)>> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    let mut to_do: VecDeque<Descriptor> = roots.iter().cloned().collect();
    while let Some(blob) = to_do.pop_front() {
        if !seen.insert(blob.digest) {
            continue;
        }
        if seen.len() > MAX_DESCRIPTORS {
            return Err(SourceError::TooMany { limit: MAX_DESCRIPTORS }.into());
        }
        let malformed = |error: serde_json::Error| SourceError::malformed(&blob.digest, &error);
        match (blob.oci_media_type(), &blob.platform) {
            (media::INDEX, _) => {
                let index: Index = json::from_slice(&read_json(store, &blob)?).map_err(malformed)?;
                to_do.extend(index.manifests.descriptors);
            }
            (media::MANIFEST, Some(platform)) => found.push((blob.clone(), platform.clone())),
            (media::MANIFEST, None) => {
                let manifest: Manifest = json::from_slice(&read_json(store, &blob)?).map_err(malformed)?;
                if manifest.config.oci_media_type() == media::CONFIG {
                    let config: ImageConfig =
                        json::from_slice(&read_json(store, &manifest.config)?).map_err(malformed)?;
                    found.push((blob.clone(), config.platform()));
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The manifests that these lead to, which are in the layout.
fn reached(layout: &Path, roots: &[Descriptor]) -> Result<BTreeSet<Digest>> {
    let mut found = BTreeSet::new();
    let mut to_do = roots.to_vec();
    while let Some(blob) = to_do.pop() {
        if found.insert(blob.digest) && blob.oci_media_type() == media::INDEX {
            to_do.extend(refers_to(layout, &blob)?);
        }
    }
    Ok(found)
}

/// Which of these refer to one of those by their `subject`.
fn referrers(store: &dyn Store, all: &[Descriptor], to: &BTreeSet<Digest>) -> Result<Vec<Descriptor>> {
    let mut found = Vec::new();
    for blob in all.iter().filter(|blob| blob.oci_media_type() == media::MANIFEST) {
        let bytes = match read_json(store, blob) {
            // What belongs to other images may be missing or damaged.
            Err(error) if error.is::<SourceError>() => continue,
            bytes => bytes?,
        };
        let manifest: Json = json::from_slice(&bytes).unwrap_or_default();
        let subject = subject(&manifest).and_then(|digest| digest.parse().ok());
        if subject.is_some_and(|subject| to.contains(&subject)) && !to.contains(&blob.digest) {
            found.push(blob.clone());
        }
    }
    Ok(found)
}
