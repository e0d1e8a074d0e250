//! The SBOM files that a buildpack wrote.
//!
//! Specification: `buildpack.md` § Software-Bill-of-Materials.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use drydock_spec::layer::Types;
use drydock_spec::sbom::SbomFormat;

use super::layers::Layer;
use crate::limits;

/// A file that a buildpack wrote, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SbomFile {
    path: PathBuf,
    format: SbomFormat,
    /// Folders below `<layers>/sbom`: `launch`, `build` or `cache`, the buildpack, and the layer if it is about one.
    place: PathBuf,
}

/// Whether there are files that look like SBOM files in a buildpack's layers directory.
pub(super) fn any(dir: &Path) -> anyhow::Result<bool> {
    Ok(!file_names(dir)?.is_empty())
}

/// Finds the files in `dir`, a buildpack's layers directory. `full_name` is the buildpack's, `declared` are the media
/// types that its `buildpack.toml` lists.
///
/// Files about layers of which there is no `<layer>.toml` do not count.
pub(super) fn find(
    dir: &Path,
    full_name: &str,
    layers: &[Layer],
    declared: &[String],
) -> anyhow::Result<Vec<SbomFile>> {
    let folder = Path::new(dir.file_name().context("a layers directory has a name")?);
    let mut files = Vec::new();
    for file_name in file_names(dir)? {
        let Some((layer, ending)) = split(&file_name) else { continue };
        let places = match layer.as_bytes() {
            kind @ (b"launch" | b"build") => vec![Path::new(OsStr::from_bytes(kind)).join(folder)],
            _ => match layers.iter().find(|known| known.name == layer) {
                Some(known) => {
                    kinds(known.types).map(|kind| Path::new(kind).join(folder).join(layer)).collect()
                }
                None => Vec::<PathBuf>::new(),
            },
        };
        if places.is_empty() {
            continue;
        }
        let path = dir.join(&file_name);
        let Some(format) = SbomFormat::ALL.into_iter().find(|format| ending == format.extension()) else {
            bail!("unsupported SBOM file format: '{}'", path.display());
        };
        if !declared.iter().any(|declared| is_media_type(declared, format.media_type())) {
            bail!(
                "validating SBOM file '{}' for buildpack: '{full_name}': undeclared SBOM media type: '{}'",
                path.display(),
                format.media_type()
            );
        }
        files.extend(places.into_iter().map(|place| SbomFile { path: path.clone(), format, place }));
    }
    Ok(files)
}

/// Copies a file to its place below `sbom_dir`; a link stays a link.
pub(super) fn copy(file: &SbomFile, sbom_dir: &Path) -> anyhow::Result<()> {
    let dir = sbom_dir.join(&file.place);
    let to = dir.join(file.format.extension());
    let context = || format!("copy SBOM file {} to {}", file.path.display(), to.display());
    if fs::symlink_metadata(&file.path).with_context(context)?.is_symlink() {
        let link = || {
            drydock_io::file::make_dirs(&dir)?;
            symlink(fs::read_link(&file.path)?, &to)
        };
        return link().with_context(context);
    }
    crate::file::copy(&file.path, &to, limits::COPIED)
}

fn kinds(types: Types) -> impl Iterator<Item = &'static str> {
    [if types.launch { "launch" } else { "build" }].into_iter().chain(types.cache.then_some("cache"))
}

/// The names that are `<layer>.sbom.<format>.json`, in byte order.
fn file_names(dir: &Path) -> anyhow::Result<Vec<OsString>> {
    let names = || -> io::Result<Vec<OsString>> {
        let names: io::Result<Vec<_>> = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect();
        let mut names = names?;
        names.retain(|name| split(name).is_some());
        names.sort_unstable();
        Ok(names)
    };
    names().with_context(|| format!("read folder {}", dir.display()))
}

/// Splits a file name into `<layer>` and `sbom.<format>.json`.
fn split(name: &OsStr) -> Option<(&OsStr, &OsStr)> {
    const INFIX: &[u8] = b".sbom.";
    let bytes = name.as_bytes();
    let at = bytes.windows(INFIX.len()).rposition(|part| part == INFIX)?;
    let format = bytes[at + INFIX.len()..].strip_suffix(b".json")?;
    (at > 0 && !format.is_empty())
        .then(|| (OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..])))
}

/// Compares media types; parameters, which only `declared` may have, and case do not count.
fn is_media_type(declared: &str, media_type: &str) -> bool {
    declared.split(';').next().is_some_and(|declared| declared.trim().eq_ignore_ascii_case(media_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, launch: bool, build: bool, cache: bool) -> Layer {
        Layer { name: name.into(), types: Types { launch, build, cache } }
    }

    /// The places of the files in a folder.
    fn places(files: &[&str], declared: &[&str]) -> anyhow::Result<Vec<String>> {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("acme_a");
        fs::create_dir(&dir).unwrap();
        for name in files {
            fs::write(dir.join(name), name).unwrap();
        }
        let layers = [
            layer("l", true, false, false),
            layer("lc", true, true, true),
            layer("b", false, true, false),
            layer("c", false, false, true),
            layer("none", false, false, false),
            layer("v1.2", true, false, false),
        ];
        let declared: Vec<_> = declared.iter().map(ToString::to_string).collect();
        let files = find(&dir, "acme/a@1", &layers, &declared)?;
        let out = root.path().join("sbom");
        files.iter().try_for_each(|file| copy(file, &out))?;
        Ok(files
            .iter()
            .map(|file| {
                let to = out.join(&file.place).join(file.format.extension());
                assert_eq!(fs::read(&to).unwrap(), file.path.file_name().unwrap().as_bytes());
                to.strip_prefix(&out).unwrap().to_str().unwrap().to_owned()
            })
            .collect())
    }

    #[test]
    fn files_go_where_they_belong() {
        let all =
            ["application/vnd.cyclonedx+json", "application/spdx+json; v=1", "Application/vnd.syft+JSON"];
        for (file, expected) in [
            ("launch.sbom.cdx.json", &["launch/acme_a/sbom.cdx.json"][..]),
            ("build.sbom.spdx.json", &["build/acme_a/sbom.spdx.json"]),
            ("l.sbom.syft.json", &["launch/acme_a/l/sbom.syft.json"]),
            ("lc.sbom.cdx.json", &["launch/acme_a/lc/sbom.cdx.json", "cache/acme_a/lc/sbom.cdx.json"]),
            ("b.sbom.cdx.json", &["build/acme_a/b/sbom.cdx.json"]),
            ("c.sbom.cdx.json", &["build/acme_a/c/sbom.cdx.json", "cache/acme_a/c/sbom.cdx.json"]),
            ("none.sbom.cdx.json", &["build/acme_a/none/sbom.cdx.json"]),
            ("v1.2.sbom.cdx.json", &["launch/acme_a/v1.2/sbom.cdx.json"]),
            ("unknown.sbom.cdx.json", &[]),
            ("unknown.sbom.other.json", &[]),
            ("l.sbom.json", &[]),
            ("l.sbom.cdx.txt", &[]),
            (".sbom.cdx.json", &[]),
        ] {
            assert_eq!(places(&[file], &all).unwrap(), expected, "{file}");
        }
    }

    #[test]
    fn formats_must_be_known_and_declared() {
        for (file, message) in [
            ("l.sbom.other.json", "unsupported SBOM file format: '"),
            ("launch.sbom.cdx.xml.json", "unsupported SBOM file format: '"),
            ("l.sbom.spdx.json", "undeclared SBOM media type: 'application/spdx+json'"),
        ] {
            let error = places(&[file], &["application/vnd.cyclonedx+json"]).unwrap_err().to_string();
            assert!(error.contains(message) && error.contains(file), "{error}");
        }
    }

    #[test]
    fn links_stay_links_and_nothing_else_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/nowhere", dir.path().join("launch.sbom.cdx.json")).unwrap();
        fs::create_dir(dir.path().join("build.sbom.cdx.json")).unwrap();
        let declared = ["application/vnd.cyclonedx+json".to_owned()];
        let files = find(dir.path(), "a@1", &[], &declared).unwrap();
        assert_eq!(files.len(), 2);
        let out = dir.path().join("sbom");
        assert!(format!("{:#}", copy(&files[0], &out).unwrap_err()).contains("not a regular file"));
        copy(&files[1], &out).unwrap();
        let copied = out.join("launch").join(dir.path().file_name().unwrap()).join("sbom.cdx.json");
        assert_eq!(fs::read_link(copied).unwrap(), Path::new("/nowhere"));
        assert!(any(dir.path()).unwrap() && !any(&out).unwrap());
    }
}
