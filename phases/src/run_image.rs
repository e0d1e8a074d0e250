//! Which run image a build stands on, and what is known of it.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use drydock_layout::{Early, Image, Layout, LayoutError};
use drydock_model::config::ImageConfig;
use drydock_model::digest::Digest;
use drydock_model::platform::Platform;
use drydock_model::reference::{LayoutDir, LayoutPath, ReferenceError};
use drydock_spec::analyzed::{Distro, StackRunImage, Target};
use drydock_spec::api::PlatformApi;
use drydock_spec::label;
use drydock_spec::run::{RunToml, StackToml};

use crate::file::{failed, read_toml_if_exists};
use crate::{Error, Kind, Log};

/// The files that name run images.
#[derive(Debug, Clone, Copy)]
pub struct RunImageFiles<'a> {
    /// `run.toml`, from Platform API 0.12 on.
    pub run: &'a Path,
    /// `stack.toml`, before.
    pub stack: &'a Path,
}

impl RunImageFiles<'_> {
    /// The names of all run images that a builder knows, as far as they can be read.
    pub fn names(&self, api: PlatformApi) -> Vec<String> {
        let images = if api.has_targets() {
            read_toml_if_exists::<RunToml>(self.run).ok().flatten().map_or(Vec::new(), |run| run.images)
        } else {
            let stack = read_toml_if_exists::<StackToml>(self.stack).ok().flatten();
            stack.map(|stack| stack.run_image).into_iter().collect()
        };
        images.into_iter().flat_map(|image| std::iter::once(image.image).chain(image.mirrors)).collect()
    }

    /// The run images that a builder knows; none where there is no file, which is said in the log.
    pub fn read(&self, api: PlatformApi, log: &dyn Log) -> Result<Vec<StackRunImage>, Error> {
        let wrong = |error: anyhow::Error| Error::new(Kind::Arguments, error);
        if api.has_targets() {
            if let Some(run) = read_toml_if_exists::<RunToml>(self.run).map_err(wrong)? {
                return Ok(run.images);
            }
            log.info(&format!("No run metadata found at path \"{}\"", self.run.display()));
        } else {
            if let Some(stack) = read_toml_if_exists::<StackToml>(self.stack).map_err(wrong)? {
                return Ok(if stack.run_image.image.is_empty() { Vec::new() } else { vec![stack.run_image] });
            }
            log.info(&format!("No stack metadata found at path \"{}\"", self.stack.display()));
        }
        Ok(Vec::new())
    }
}

/// Of an image's names the one to use: that on the output image's registry comes first, then the others in order; of
/// these the first whose layout is there, with its place.
pub fn by_mirrors<'a>(
    image: &'a StackRunImage,
    output: &LayoutPath,
    layout_dir: &LayoutDir,
    early: &Early,
) -> Result<(&'a str, LayoutPath), Error> {
    let names = std::iter::once(&image.image).chain(&image.mirrors);
    let mut found = names
        .map(|name| Ok((name.as_str(), layout_dir.resolve(name)?)))
        .collect::<Result<Vec<_>, ReferenceError>>()
        .map_err(|error| Error::new(Kind::Arguments, error))?;
    found.sort_by_key(|(_, path)| path.registry() != output.registry());
    let mut there = 0;
    for (number, (_, path)) in found.iter().enumerate() {
        if early.has(path.path()).map_err(failed("stat", path.path())).map_err(anyhow::Error::from)? {
            there = number;
            break;
        }
    }
    Ok(found.swap_remove(there))
}

/// Where an image lies that `analyzed.toml` refers to, and its manifest if that is known: who looked at the image wrote
/// `<path>@<digest>`; who could not, and an extension that chooses another run image, leaves its bare name, which may be
/// a path.
pub fn locate(
    reference: &str,
    layout_dir: &LayoutDir,
) -> Result<(LayoutPath, Option<Digest>), ReferenceError> {
    let path = Path::new(reference);
    if path.is_absolute() && path.file_name().is_some_and(|name| name.as_encoded_bytes().contains(&b'@')) {
        layout_dir.resolve_identifier(reference).map(|(path, digest)| (path, Some(digest)))
    } else {
        layout_dir.resolve(reference).map(|path| (path, None))
    }
}

/// Opens the run image of this machine's platform.
pub fn open(path: &LayoutPath, early: &Early) -> Result<Image, Error> {
    let image = Layout::open_early(path, early).and_then(|layout| layout.image(&Platform::host()));
    image.map_err(|error| not_usable(path, error))
}

/// Why a run image cannot be used, and what to do about it.
pub fn not_usable(path: &LayoutPath, error: LayoutError) -> Error {
    let help = match &error {
        LayoutError::NotFound(_) => format!(
            "put the run image there as an OCI image layout, for example: skopeo copy docker://<run image> oci:{path}:{}",
            path.ref_name()
        ),
        LayoutError::NoManifest { .. } => {
            "the run image was replaced after it was analyzed: run the analyzer again, or put the analyzed image back"
                .to_owned()
        }
        LayoutError::NoPlatform { .. } | LayoutError::Ambiguous { .. } => {
            format!("put exactly one image for {} at `{path}`", Platform::host())
        }
        LayoutError::Io { .. } => format!("check the permissions of `{path}` and that it is an OCI image layout"),
        _ => format!("copy the run image to `{path}` again"),
    };
    Error::new(Kind::Phase, anyhow!(error).context(format!("run image `{path}`"))).with_help(help)
}

/// What an image runs on. Specification: `platform.md` § Targets.
pub fn target(image: &Image) -> anyhow::Result<Target> {
    if image.config.os.is_empty() {
        return Err(anyhow!("failed to find OS in run image config"))
            .with_context(|| format!("image `{}`", image.identifier()));
    }
    Ok(target_of(&image.config))
}

/// What an image with this configuration runs on.
pub fn target_of(config: &ImageConfig) -> Target {
    let text = |key| config.label(key).unwrap_or_default().to_owned();
    let (name, version) = (text(label::BASE_DISTRO_NAME), text(label::BASE_DISTRO_VERSION));
    Target {
        id: text(label::BASE_ID),
        os: config.os.clone(),
        arch: config.architecture.clone(),
        arch_variant: config.variant.clone().unwrap_or_default(),
        distro: (!name.is_empty() || !version.is_empty()).then_some(Distro { name, version }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_images_are_located_by_identifier_or_by_name() {
        let dir = LayoutDir::new(Path::new("/layouts@home")).unwrap();
        let digest = Digest::of(b"manifest");
        let hex = digest.hex();
        for (reference, want) in [
            (format!("/layouts@home/a/b/c@{digest}"), Some(("a/b/c".to_owned(), Some(digest)))),
            ("acme.com/run".to_owned(), Some(("acme.com/run/latest".to_owned(), None))),
            ("acme.com/run:v2".to_owned(), Some(("acme.com/run/v2".to_owned(), None))),
            (format!("acme.com/run@{digest}"), Some((format!("acme.com/run/sha256/{hex}"), None))),
            ("/layouts@home/a/b/c".to_owned(), Some(("a/b/c".to_owned(), None))),
            (format!("/elsewhere/c@{digest}"), Some(("/elsewhere/c".to_owned(), Some(digest)))),
            ("/elsewhere/c".to_owned(), None),
            ("/layouts@home/a/b/c@sha256:1".to_owned(), None),
            ("../run".to_owned(), None),
        ] {
            let found = locate(&reference, &dir).ok();
            let want = want.map(|(below, digest)| (dir.path().join(below), digest));
            assert_eq!(found.map(|(path, digest)| (path.path().to_owned(), digest)), want, "{reference}");
        }
    }
}
