//! The files of a layout: opened as regular ones, maybe before the process gave up the right to, and read by position.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drydock_io::read::{self, ReadAt};
use drydock_io::way::{self, Links};
use drydock_model::digest::Digest;
use drydock_model::hash::Hasher;
use drydock_model::json;
use drydock_model::manifest::Descriptor;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use serde::de::DeserializeOwned;

use super::error::{IoContext as _, LayoutError};
use super::{MAX_JSON, blob_path, blobs_dir};

/// So many files of one layout are opened early, so that there are handles left for everything else.
const MAX_EARLY: usize = 256;

/// Files that were opened while the process still had the right to. Who reads a layout looks here first.
#[derive(Debug, Default, Clone)]
pub struct Early(Arc<BTreeMap<PathBuf, Found>>);

#[derive(Debug)]
enum Found {
    Open(Arc<File>),
    Missing,
    /// A link on the way to the layout was not followed.
    BehindLink,
}

impl Early {
    /// Opens the files of these layouts of which `is_needed` says that they cannot be opened later. What cannot be
    /// opened now either is for the reader to complain about.
    ///
    /// Links in a layout are not followed, and on the way to it only those of root: whoever put them there may not be allowed to read
    /// what they lead to.
    pub fn of<'a>(
        layouts: impl IntoIterator<Item = &'a Path>,
        is_needed: impl Fn(&Metadata) -> bool,
    ) -> Self {
        let mut opened = BTreeMap::new();
        for layout in layouts {
            let dir = way::open(CWD, layout, Links::OfRoot, None).map(OwnedFd::from);
            let files = ["index.json", "oci-layout"];
            match dir {
                // Later, it might not even be allowed to ask.
                Err(Errno::NOENT) => opened.extend(files.map(|name| (layout.join(name), Found::Missing))),
                Err(Errno::LOOP) => opened.extend(files.map(|name| (layout.join(name), Found::BehindLink))),
                _ => {}
            }
            let Ok(dir) = dir else { continue };
            let look = |dir: &OwnedFd, name: &Path| match open_here(dir, name, &is_needed) {
                Ok(file) => file.map(|file| Found::Open(Arc::new(file))),
                Err(Errno::NOENT) => Some(Found::Missing),
                Err(_) => None,
            };
            for name in files {
                opened.extend(look(&dir, Path::new(name)).map(|file| (layout.join(name), file)));
            }
            let blobs = open_dir(&dir, Path::new("blobs"), OFlags::NOFOLLOW)
                .and_then(|blobs| open_dir(&blobs, Path::new("sha256"), OFlags::NOFOLLOW));
            let Ok(blobs) = blobs else { continue };
            let names = rustix::fs::Dir::read_from(&blobs).into_iter().flatten().flatten();
            let blobs = names.filter_map(|entry| {
                let name = Path::new(OsStr::from_bytes(entry.file_name().to_bytes()));
                look(&blobs, name).map(|file| (blobs_dir(layout).join(name), file))
            });
            opened.extend(blobs.take(MAX_EARLY));
        }
        Self(Arc::new(opened))
    }

    /// Opens a regular file.
    fn open(&self, path: &Path) -> io::Result<Arc<File>> {
        match self.0.get(path) {
            Some(Found::Open(file)) => Ok(Arc::clone(file)),
            Some(Found::Missing) => Err(ErrorKind::NotFound.into()),
            Some(Found::BehindLink) => way::open_file(path).map(Arc::new).map_err(behind_link),
            None => way::open_file(path).map(Arc::new),
        }
    }

    /// Whether there is a layout in a folder.
    pub fn has(&self, layout: &Path) -> io::Result<bool> {
        let path = layout.join("index.json");
        let look = || Ok(read::look(&path)?.is_some());
        match self.0.get(&path) {
            Some(Found::Open(_)) => Ok(true),
            Some(Found::Missing) => Ok(false),
            Some(Found::BehindLink) => look().map_err(behind_link),
            None => look(),
        }
    }

    /// Reads a small file whole.
    pub(super) fn read(&self, path: &Path) -> Result<Vec<u8>, LayoutError> {
        let read = || {
            let file = self.open(path)?;
            let size = file.metadata()?.len();
            if size > MAX_JSON {
                return Err(io::Error::new(ErrorKind::FileTooLarge, format!("more than {MAX_JSON} bytes")));
            }
            let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
            BlobReader::of(file).take(MAX_JSON + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().at("read", path)
    }

    /// Opens a blob of the size that it should have.
    pub(super) fn open_blob(
        &self,
        layout: &Path,
        descriptor: &Descriptor,
    ) -> Result<BlobReader, LayoutError> {
        let path = blob_path(layout, &descriptor.digest);
        let file = match self.open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(LayoutError::MissingBlob {
                    layout: layout.to_owned(),
                    digest: descriptor.digest,
                });
            }
            file => file.at("open", &path)?,
        };
        let found = file.metadata().at("read", &path)?.len();
        if found == descriptor.size {
            Ok(BlobReader::of(file))
        } else {
            Err(LayoutError::WrongSize { path, expected: descriptor.size, found })
        }
    }

    /// Reads a blob whole, and checks it: manifests, configs and indexes.
    pub(super) fn read_blob(&self, layout: &Path, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
        let path = blob_path(layout, &descriptor.digest);
        let reader = self.open_blob(layout, descriptor)?;
        if descriptor.size > MAX_JSON {
            let source = io::Error::new(ErrorKind::FileTooLarge, format!("more than {MAX_JSON} bytes"));
            return Err(LayoutError::Io { action: "read", path, source });
        }
        let mut bytes = Vec::new();
        reader.take(MAX_JSON).read_to_end(&mut bytes).at("read", &path)?;
        let found = Digest::of(&bytes);
        if found == descriptor.digest { Ok(bytes) } else { Err(LayoutError::Corrupt { path, found }) }
    }

    /// Reads a blob of JSON.
    pub(super) fn read_json<T: DeserializeOwned>(
        &self,
        layout: &Path,
        descriptor: &Descriptor,
    ) -> Result<T, LayoutError> {
        parse(&self.read_blob(layout, descriptor)?, &blob_path(layout, &descriptor.digest))
    }
}

/// Says why root's right to read was not used.
fn behind_link(error: io::Error) -> io::Error {
    const TEXT: &str = "Permission denied, and root follows no link there that others may have put on the way; name the folder itself";
    if error.kind() == ErrorKind::PermissionDenied { io::Error::new(error.kind(), TEXT) } else { error }
}

fn open_dir(at: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | flags, Mode::empty())
}

/// Opens a regular file in a folder, through no link, if it is needed.
fn open_here(
    dir: &OwnedFd,
    name: &Path,
    is_needed: &impl Fn(&Metadata) -> bool,
) -> Result<Option<File>, Errno> {
    let open = |flags| openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    let is_right = |file: &File| file.metadata().is_ok_and(|facts| facts.is_file() && is_needed(&facts));
    // To open a device may do something: it is looked at first.
    if !is_right(&open(OFlags::PATH)?.into()) {
        return Ok(None);
    }
    let file = File::from(open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?);
    Ok(is_right(&file).then_some(file))
}

/// Opens a blob of a layout, of which only the size was checked: for who checks what comes out.
pub fn open_blob(layout: &Path, descriptor: &Descriptor) -> Result<BlobReader, LayoutError> {
    Early::default().open_blob(layout, descriptor)
}

/// Opens a blob of a layout once its digest and size were checked.
pub fn open_whole_blob(layout: &Path, descriptor: &Descriptor) -> Result<BlobReader, LayoutError> {
    checked(open_blob(layout, descriptor)?, &blob_path(layout, &descriptor.digest), descriptor.digest)
}

/// The same of a blob that is open, and is read from its beginning.
pub(super) fn checked(mut blob: BlobReader, path: &Path, digest: Digest) -> Result<BlobReader, LayoutError> {
    let found = hash(&mut blob, |_| Ok(())).at("read", path)?;
    if found == digest {
        Ok(blob.rewound())
    } else {
        Err(LayoutError::Corrupt { path: path.to_owned(), found })
    }
}

/// Reads a blob of a layout that is a manifest, a configuration or an index, and checks it.
pub fn read_blob(layout: &Path, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
    Early::default().read_blob(layout, descriptor)
}

/// Reads a blob from its beginning, whoever else reads the same file.
#[derive(Debug)]
pub struct BlobReader(ReadAt<Arc<File>>);

impl BlobReader {
    /// Of an open file.
    pub(super) fn new(file: File) -> Self {
        Self::of(Arc::new(file))
    }

    fn of(file: Arc<File>) -> Self {
        Self(ReadAt { file, at: 0 })
    }

    /// The file that it reads.
    pub(super) fn file(&self) -> &File {
        &self.0.file
    }

    /// The same blob, from its beginning.
    pub(super) fn rewound(self) -> Self {
        Self::of(self.0.file)
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

/// The digest of all that a reader has; each piece is passed on.
pub(super) fn hash(
    reader: &mut impl Read,
    mut pass: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Digest> {
    let mut hash = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(Digest::from_hash(hash)),
            Ok(n) => {
                hash.update(&buffer[..n]);
                pass(&buffer[..n])?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Understands a file of JSON.
pub(super) fn parse<T: DeserializeOwned>(text: &[u8], path: &Path) -> Result<T, LayoutError> {
    json::from_slice(text)
        .map_err(|error| LayoutError::Malformed { path: path.to_owned(), reason: error.to_string() })
}
