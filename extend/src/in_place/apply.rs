//! A layer that is known from before is put into a file system. Specification: OCI image-spec `layer.md` § Applying Changesets.

use std::ffi::OsStr;
use std::io::BufReader;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use drydock_encode::compress::{Format, decompressed};
use drydock_layout::ImageLayer;
use drydock_tar::{Archive, Found, Kind, Member, Walk, Whiteout, split_leaf};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, unlinkat};

use super::Place;
use super::archive::{clean, unpack_one};
use super::scope::{Scope, join};
use super::snapshot::look;
use super::target::{Target, shown};

/// Bytes that are read at a time.
const BUFFER: usize = 256 << 10;

/// Puts a layer that was made there into the file system of `place`. What is mounted is left alone, and fails where it is in the way.
pub(super) fn apply(layer: &ImageLayer, place: &Place<'_>) -> Result<()> {
    let digest = layer.descriptor.digest;
    apply_tar(layer, place.root)
        .with_context(|| format!("cannot put the layer {digest} of the cache into the image"))
}

fn apply_tar(layer: &ImageLayer, root: &Path) -> Result<()> {
    let format = Format::of(layer.descriptor.oci_media_type())?;
    // It was checked when it was found.
    let blob = decompressed(BufReader::with_capacity(BUFFER, layer.open_unchecked()?), format)?;
    let mut archive = Archive::new(BufReader::with_capacity(BUFFER, blob));
    let mut scope = Scope::open(root)?;
    let mut target = Target::new(&mut scope, None, None);
    while let Some(Member { entry, mut contents }) = archive.read_next()? {
        let path = clean(entry.name)?;
        let (parent, leaf) = split_leaf(&path);
        match Whiteout::of(leaf) {
            Some(Whiteout::Name(name)) => remove(target.scope, root, &join(parent, name))?,
            Some(Whiteout::Opaque) => {
                for name in names_in(target.scope, parent)? {
                    remove(target.scope, root, &join(parent, &name))?;
                }
            }
            None if path.is_empty() => ensure!(entry.kind == Kind::Dir, "the root is no folder"),
            None => {
                let there = file_type(target.scope, &path)?;
                let is_in_the_way = match (entry.kind == Kind::Dir, there) {
                    (_, None) => false,
                    (is_dir, Some(there)) => is_dir != (there == FileType::Directory),
                };
                if is_in_the_way {
                    remove(target.scope, root, &path)?;
                }
                unpack_one(&entry, &mut contents, b"", &mut target)
                    .with_context(|| format!("`{}`", shown(&path)))?;
            }
        }
    }
    target.finish()
}

/// What is at a path, itself not followed.
fn file_type(scope: &mut Scope, path: &[u8]) -> Result<Option<FileType>> {
    Ok(scope.stat(path)?.map(|stat| FileType::from_raw_mode(stat.st_mode)))
}

fn names_in(scope: &mut Scope, path: &[u8]) -> Result<Vec<Vec<u8>>> {
    if file_type(scope, path)? != Some(FileType::Directory) {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in Dir::new(scope.list(path)?)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(name.as_slice(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes what is at a path, with all that is in it, unless something is mounted there.
fn remove(scope: &mut Scope, root: &Path, path: &[u8]) -> Result<()> {
    let Some(file_type) = file_type(scope, path)? else { return Ok(()) };
    let (parent, leaf) = split_leaf(path);
    let failed = || format!("cannot remove `{}`", shown(path));
    if file_type != FileType::Directory {
        return unlinkat(scope.dir(parent)?, leaf, AtFlags::empty()).with_context(failed);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat(scope.dir(parent)?, leaf, flags, Mode::empty()).with_context(failed)?;
    let device = look(scope.dir(parent)?, b"", None)?.of_device;
    let itself = look(scope.dir(parent)?, leaf, Some(device))?;
    let mut mounted = itself.is_left_out.then(|| path.to_vec());
    let mut walk = Walk::new(root, dir)?;
    while mounted.is_none()
        && let Some(Found { dir, path: below, leaf, .. }) = walk.find_next().with_context(failed)?
    {
        if look(dir, leaf, Some(device))?.is_left_out {
            mounted = Some(join(path, &join(below, leaf)));
        }
    }
    if let Some(mounted) = mounted {
        bail!(
            "`{}` is mounted, so `{}` cannot be removed; do without the mount",
            shown(&mounted),
            shown(path)
        );
    }
    drydock_tar::remove_all(&root.join(OsStr::from_bytes(path))).with_context(failed)
}
