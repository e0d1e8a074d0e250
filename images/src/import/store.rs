//! Where blobs are before they are imported.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use drydock_io::way;
use drydock_layout::{MAX_JSON, check_marker};
use drydock_model::digest::Digest;
use drydock_model::json;
use drydock_model::manifest::{Descriptor, Index, REF_NAME};

use super::error::{Choose, SourceError};
use crate::export::BUILD_LOGS;

const MARKER: &str = "oci-layout";

/// What containerd and docker call an image in `index.json`.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// Something that is read from its beginning.
pub struct Stored<'a> {
    /// Nobody has checked what comes out.
    pub reader: Box<dyn Read + Send + 'a>,
    /// Bytes in it.
    pub size: u64,
}

impl fmt::Debug for Stored<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stored({} bytes)", self.size)
    }
}

/// Has blobs.
pub trait Store: Sync {
    /// A blob, unless it is not there. Digest and size are for the caller to check.
    fn blob(&self, blob: &Descriptor) -> Result<Option<Stored<'_>>>;

    /// Whether a failure to read a blob is none of what there is, but of the way from there: what has come before stays for
    /// the next attempt.
    fn has_broken_off(&self, _failure: &anyhow::Error) -> bool {
        false
    }
}

/// Has files by name.
pub(super) trait Files: Sync {
    fn open(&self, name: &str) -> Result<Option<Stored<'_>>>;
}

/// A folder on the disk.
#[derive(Debug)]
pub(super) struct Folder(pub(super) PathBuf);

impl Files for Folder {
    fn open(&self, name: &str) -> Result<Option<Stored<'_>>> {
        let path = self.0.join(name);
        let failed = || format!("cannot read `{}`", path.display());
        match way::open_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            file => {
                let file = file.with_context(failed)?;
                let size = file.metadata().with_context(failed)?.len();
                Ok(Some(Stored { reader: Box::new(file), size }))
            }
        }
    }
}

/// An image layout in a folder or an archive.
pub(super) struct Oci<F>(pub(super) F);

impl<F: Files> Store for Oci<F> {
    fn blob(&self, blob: &Descriptor) -> Result<Option<Stored<'_>>> {
        self.0.open(&format!("blobs/sha256/{}", blob.digest.hex()))
    }
}

impl<F: Files> Oci<F> {
    /// `index.json`, of a version that is known.
    pub(super) fn index(&self) -> Result<Index> {
        if self.0.open(MARKER)?.is_some() {
            check_marker(&read_file(&self.0, MARKER)?, Path::new(MARKER))?;
        }
        let bytes = read_file(&self.0, "index.json")?;
        Ok(json::from_slice(&bytes).map_err(|error| SourceError::malformed(&"index.json", &error))?)
    }
}

/// Reads a small file whole.
pub(super) fn read_file(files: &dyn Files, name: &str) -> Result<Vec<u8>> {
    let stored = files.open(name)?.ok_or_else(|| SourceError::Missing { what: format!("`{name}`") })?;
    read_small(stored).with_context(|| format!("cannot read `{name}`"))
}

fn read_small(stored: Stored<'_>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stored.reader.take(MAX_JSON + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_JSON {
        return Err(SourceError::TooLarge { limit: MAX_JSON }.into());
    }
    Ok(bytes)
}

/// Reads an index, a manifest or a configuration, and checks it.
pub(super) fn read_json(store: &dyn Store, blob: &Descriptor) -> Result<Vec<u8>> {
    let digest = blob.digest;
    let stored = store.blob(blob)?.ok_or_else(|| SourceError::Missing { what: format!("blob {digest}") })?;
    let bytes = read_small(stored).with_context(|| format!("cannot read blob {digest}"))?;
    let found = Digest::of(&bytes);
    if found == digest { Ok(bytes) } else { Err(SourceError::WrongDigest { expected: digest, found }.into()) }
}

/// Which images of an index are meant: one, or one for each platform. Then what the index calls them, and the others.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) roots: Vec<Descriptor>,
    pub(super) name: Option<String>,
    pub(super) others: Vec<Descriptor>,
}

/// Chooses what has this name, or the only name that there is.
pub(super) fn choose(index: Index, tag: Option<&str>) -> Result<Chosen, Choose> {
    let logs = index.annotations.get(BUILD_LOGS).and_then(|logs| serde_json::from_str(logs).ok());
    let logs: Vec<Descriptor> = logs.unwrap_or_default();
    let all = index.manifests.descriptors;
    let annotation = |blob: &Descriptor, key| blob.annotations.get(key).cloned();
    let names = |blob: &Descriptor| [annotation(blob, IMAGE_NAME), annotation(blob, REF_NAME)];
    let mut there: Vec<String> =
        all.iter().filter_map(|blob| names(blob).into_iter().flatten().next()).collect();
    there.sort();
    there.dedup();
    let fail = || Choose { wanted: tag.map(str::to_owned), there: there.clone() };
    let is_meant = |blob: &Descriptor| match tag {
        Some(tag) => names(blob).iter().flatten().any(|name| name == tag || is_same_image(name, tag)),
        None if there.is_empty() => true,
        None => names(blob).iter().flatten().next().is_some(),
    };
    if tag.is_none() && there.len() > 1 {
        return Err(fail());
    }
    let (mut roots, mut others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_meant);
    others.extend(logs);
    roots.dedup_by_key(|blob| blob.digest);
    let is_one_each = roots.len() == 1 || roots.iter().all(|blob| blob.platform.is_some());
    if roots.is_empty() || !is_one_each {
        return Err(fail());
    }
    let name = names(&roots[0]).into_iter().flatten().find(|name| name.contains(['/', ':']));
    Ok(Chosen { roots, name, others })
}

/// Whether two texts are references of one image.
pub(super) fn is_same_image(one: &str, other: &str) -> bool {
    let parse = |text: &str| text.parse::<drydock_model::reference::ImageRef>().ok();
    parse(one).is_some_and(|one| Some(one) == parse(other))
}
