//! The image that is extended: of it, only manifest and configuration are read.

use anyhow::{Context as _, anyhow};
use drydock_io::read;
use drydock_layout::{Image, Layout, LayoutError};
use drydock_model::digest::Digest;
use drydock_model::platform::Platform;
use drydock_model::reference::{LayoutDir, LayoutPath};
use drydock_spec::analyzed::Analyzed;

use super::{ExtendKind, Inputs};
use crate::{Error, Kind, run_image};

/// Finds the image that `analyzed.toml` names: in its layout, or else in the folder in which platforms put images for
/// extenders, by its digest.
pub(super) fn find(inputs: &Inputs, analyzed: &Analyzed) -> Result<Image, Error> {
    let (reference, help) = match inputs.kind {
        ExtendKind::Build => (
            analyzed.build_image.as_ref().map(|image| &image.reference),
            "run the restorer with -build-image, so that it is known what the build runs on",
        ),
        ExtendKind::Run => {
            (analyzed.run_image.as_ref().map(|image| &image.reference), "run the analyzer with -run-image")
        }
    };
    let kind = inputs.kind.name();
    let reference = reference.filter(|reference| !reference.is_empty()).ok_or_else(|| {
        let path = inputs.analyzed_path.display();
        Error::from(anyhow!("getting {kind} image to extend: `{path}` names none")).with_help(help)
    })?;
    let (path, digest) = run_image::locate(reference, &inputs.layout_dir).map_err(|error| {
        Error::new(Kind::Arguments, anyhow!(error).context(format!("getting {kind} image to extend")))
    })?;
    let digest = digest.or(path.digest());
    let opened = match (open(&path, digest), digest) {
        (Err(LayoutError::NotFound(_)), Some(digest)) => {
            given(inputs, digest).unwrap_or(Err(LayoutError::NotFound(path.path().to_owned())))
        }
        (opened, _) => opened,
    };
    let image = opened.with_context(|| format!("getting {kind} image to extend: `{reference}`"));
    image.map_err(|error| {
        Error::from(error)
            .with_help(format!("put the image at `{path}`, or let the extender see that folder"))
    })
}

fn open(path: &LayoutPath, digest: Option<Digest>) -> Result<Image, LayoutError> {
    let layout = Layout::open(path)?;
    digest.map_or_else(|| layout.image(&Platform::host()), |digest| layout.image_by_digest(&digest))
}

/// The image with this digest that a platform has put there for extenders, if there is such a folder.
fn given(inputs: &Inputs, digest: Digest) -> Option<Result<Image, LayoutError>> {
    let dir = inputs.kaniko_dir.join("cache").join("base");
    let path = dir.join(digest.to_string());
    let path = LayoutDir::new(&dir).ok()?.resolve(path.to_str()?).ok()?;
    // What cannot be looked at may well be there, and opening it tells why.
    let is_missing = read::look(path.path()).is_ok_and(|found| found.is_none());
    (!is_missing).then(|| open(&path, Some(digest)))
}
