//! Software bills of materials: the files of lifecycle and launcher, and those that come back from the last build.
//!
//! Specification: `platform.md` § Software-Bill-of-Materials.

use std::ffi::OsStr;
use std::fs::{self, FileType};
use std::io::{self, BufReader};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use drydock_encode::compress::{Format, decompressed};
use drydock_io::read;
use drydock_layout::Image;
use drydock_model::digest::DiffId;
use drydock_spec::group::GroupElement;
use drydock_spec::sbom::SbomFormat;
use drydock_tar::{Extraction, extract, remove_all};

use crate::Log;
use crate::buildpacks::dir_name;
use crate::file::{self, PathError};
use crate::limits;

/// Where lifecycle and launcher lie in a builder, and so their SBOM files.
pub const LIFECYCLE_DIR: &str = "/cnb/lifecycle";

/// Extracts the previous image's layer of SBOM files to `<layers>/sbom/launch`, in place of what is there.
pub fn restore_from_image(image: &Image, sha: &str, layers_dir: &Path) -> anyhow::Result<()> {
    let diff_id: DiffId = sha.parse()?;
    let layer =
        image.layer(&diff_id).ok_or_else(|| anyhow!("{} has no layer {diff_id}", image.identifier()))?;
    let blob = BufReader::with_capacity(256 * 1024, layer.open()?);
    let tar = decompressed(blob, Format::of(layer.descriptor.oci_media_type())?)?;
    // The image may have been built with another layers directory: its own names begin with that one.
    let named = image.config.config.env("CNB_LAYERS_DIR").map_or(layers_dir, Path::new).join("sbom/launch");
    let into = make_dir(layers_dir, "launch")?;
    let limit = limits::SBOM_TAR;
    extract(tar, &Extraction { diff_id, named: &named, into: &into, limit, threads: NonZeroUsize::MIN })
        .with_context(|| format!("failed to extract layer {diff_id} of {}", image.identifier()))
}

/// `<layers>/sbom/<kind>`, after making the folder that it is in.
pub(crate) fn make_dir(layers_dir: &Path, kind: &str) -> anyhow::Result<PathBuf> {
    let sbom_dir = layers_dir.join("sbom");
    drydock_io::file::make_dirs(&sbom_dir)
        .with_context(|| format!("failed to make folder `{}`", sbom_dir.display()))?;
    Ok(sbom_dir.join(kind))
}

/// Copies the SBOM files of lifecycle and launcher to where the exporter takes those of buildpacks from. What is missing
/// is warned about.
pub fn copy_lifecycle_files(
    launcher_sbom_dir: &Path,
    layers_dir: &Path,
    log: &dyn Log,
) -> anyhow::Result<()> {
    let sbom_dir = layers_dir.join("sbom");
    let lifecycle = sbom_dir.join("build/buildpacksio_lifecycle");
    let launcher = sbom_dir.join("launch/buildpacksio_lifecycle/launcher");
    copy_component("lifecycle", &lifecycle, log)?;
    if launcher_sbom_dir == Path::new(LIFECYCLE_DIR) {
        return copy_component("launcher", &launcher, log);
    }
    let mut files = list(launcher_sbom_dir)?;
    files.retain(|path| {
        path.to_str().is_some_and(|path| SbomFormat::ALL.iter().any(|f| path.ends_with(f.extension())))
    });
    for file in files {
        copy(&file, &launcher.join(file.file_name().unwrap_or(OsStr::new("sbom"))))?;
    }
    Ok(())
}

/// Puts the SBOM files of restored layers beside these layers, where buildpacks write them, and removes the rest.
/// What cannot be put there is warned about: it came from a cache or an image.
pub fn give_to_buildpacks(layers_dir: &Path, group: &[GroupElement], log: &dyn Log) -> anyhow::Result<()> {
    let sbom_dir = layers_dir.join("sbom");
    for kind in ["cache", "launch"] {
        for buildpack in group {
            let name = dir_name(&buildpack.id)?;
            let to = layers_dir.join(&name);
            let from = sbom_dir.join(kind).join(name);
            if !file::is_dir(&to)? || !lies_at(&from)?.is_some_and(|it| it.is_dir()) {
                continue;
            }
            for layer in list(&from)? {
                if lies_at(&layer)?.is_some_and(|it| it.is_dir())
                    && let Err(error) = give(&layer, &to)
                {
                    log.warn(&format!("SBOM files of `{}` are not restored: {error:#}", layer.display()));
                }
            }
        }
    }
    remove_all(&sbom_dir).with_context(|| format!("failed to remove `{}`", sbom_dir.display()))
}

/// Puts the SBOM files in the folder of a layer into that of its buildpack.
fn give(layer: &Path, to: &Path) -> anyhow::Result<()> {
    for file in list(layer)? {
        let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let is_regular = lies_at(&file)?.is_some_and(|it| it.is_file());
        if is_regular && name.starts_with("sbom") && name.ends_with("json") {
            let mut beside = layer.file_name().unwrap_or_default().to_owned();
            beside.push(format!(".{name}"));
            copy(&file, &to.join(beside))?;
        }
    }
    Ok(())
}

/// What lies at a path, and not behind a symlink there, which may lead anywhere; none if nothing does.
fn lies_at(path: &Path) -> Result<Option<FileType>, PathError> {
    let found = read::look_at_link(path).map_err(file::failed("lstat", path))?;
    Ok(found.map(|found| found.file_type()))
}

fn copy_component(component: &str, to: &Path, log: &dyn Log) -> anyhow::Result<()> {
    for extension in SbomFormat::ALL.map(SbomFormat::extension) {
        let name = format!("{component}.{extension}");
        let from = Path::new(LIFECYCLE_DIR).join(&name);
        if file::exists(&from)? {
            copy(&from, &to.join(extension))?;
        } else {
            log.warn(&format!("Did not find SBOM {name} in {LIFECYCLE_DIR}"));
        }
    }
    Ok(())
}

fn list(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    let mut paths = entries.with_context(|| format!("failed to list `{}`", dir.display()))?;
    paths.sort();
    Ok(paths)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    file::copy(from, to, limits::COPIED)
}
