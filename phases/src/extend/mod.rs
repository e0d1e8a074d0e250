//! The extender: applies the Dockerfiles of image extensions to the file system that it runs in, which is that of the build image or
//! of the run image.
//!
//! Whatever can be known to be wrong is found before the first instruction is carried out. An extended run image appears whole in
//! `<extended>/run`, or what was there before stays. Specification: `platform.md` § Extender, `image_extension.md` § Dockerfiles.

mod able;
mod base;
mod dockerfiles;
mod program;
mod run_image;

use std::cell::Cell;
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use drydock_encode::compress::Compression;
use drydock_encode::pipeline::Settings;
use drydock_extend::cache::{Cache, Store};
use drydock_extend::in_place::{Failure, Layers, Made, Making, Place, carry_out};
use drydock_extend::plan::Step;
use drydock_layout::Image;
use drydock_model::config::ImageConfig;
use drydock_model::reference::LayoutDir;
use drydock_spec::analyzed::Analyzed;
use drydock_spec::api::PlatformApi;
use drydock_spec::group::Group;
use drydock_spec::time::rfc3339;
use rustix::fs::Mode;
use rustix::process::{geteuid, umask};
use tempfile::TempDir;

use self::dockerfiles::Planned;
use self::program::Programs;
use self::run_image::NewRunImage;
use crate::file::{read_toml, read_toml_if_exists};
use crate::process::{Held, Signals};
use crate::timer::timed;
use crate::{Error, Kind, Level, Log};

/// Which image is extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtendKind {
    /// The one that the build runs on; the buildpacks run afterwards.
    Build,
    /// The one that the app image is based on.
    Run,
}

impl ExtendKind {
    /// As `-kind` and names of files have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Run => "run",
        }
    }
}

/// Everything that the extender needs to know. Paths are absolute.
#[derive(Debug)]
pub struct Inputs {
    /// The Platform API that the platform speaks.
    pub platform_api: PlatformApi,
    /// Which image is extended.
    pub kind: ExtendKind,
    /// What the analyzer, the detector and the restorer found.
    pub analyzed_path: PathBuf,
    /// Which extensions take part.
    pub group_path: PathBuf,
    /// The app: the context of extensions that have none of their own.
    pub app_dir: PathBuf,
    /// The layers directory.
    pub layers_dir: PathBuf,
    /// What the platform gives to buildpacks.
    pub platform_dir: PathBuf,
    /// Where extensions wrote Dockerfiles.
    pub generated_dir: PathBuf,
    /// Where an extended run image is written.
    pub extended_dir: PathBuf,
    /// The folder in which platforms put images for extenders. Where it is there, what instructions do is kept in it.
    pub kaniko_dir: PathBuf,
    /// How long that is good.
    pub cache_ttl: Duration,
    /// Where images lie.
    pub layout_dir: LayoutDir,
    /// When everything is to have been made, if the platform says so (`SOURCE_DATE_EPOCH`).
    pub source_date_epoch: Option<String>,
    /// How new layers are compressed.
    pub layer_compression: Compression,
    /// How many threads compress layers.
    pub threads: NonZeroUsize,
}

/// What came of it.
#[derive(Debug)]
pub struct Extended {
    /// The extended image's variables: `NAME=value`.
    pub env: Vec<String>,
}

/// The lifecycle, the buildpacks and what else a builder adds: no part of the image that is extended.
const NO_PART: &str = "/cnb";

/// Extends the image that this process runs in.
///
/// Fails with [`Kind::Interrupted`] if a signal ends a program; the file system is then left as it is, and so is
/// `<extended>/run`.
pub fn extend(inputs: &Inputs, signals: &Signals, log: &dyn Log) -> Result<Extended, Error> {
    if !geteuid().is_root() {
        return Err(Error::from(anyhow!("an image is extended by root, and this process is not"))
            .with_help("start the extender as root, in a container of the image that is to be extended"));
    }
    // What is made has the permissions that it asks for, whoever started this.
    let before = umask(Mode::WGRP | Mode::WOTH);
    let extended = timed(log, "Extender", || extend_image(inputs, signals, log));
    umask(before);
    extended
}

fn extend_image(inputs: &Inputs, signals: &Signals, log: &dyn Log) -> Result<Extended, Error> {
    let group: Group = read_toml(&inputs.group_path)
        .map_err(|error| Error::new(Kind::General, error.context("failed to read group file")))?;
    let analyzed: Analyzed = read_toml_if_exists(&inputs.analyzed_path)
        .map_err(|error| Error::new(Kind::General, error.context("failed to read analyzed file")))?
        .unwrap_or_default();
    let base = base::find(inputs, &analyzed)?;
    let planned = dockerfiles::plan(inputs, &group.group_extensions, &base, log)?;
    let config = planned.last().map_or(&base.config, |last| &last.plan.config).clone();

    // Until all temporary folders are gone.
    let held = signals.hold();
    let work = Work::begin(inputs)?;
    let extension = Extension { inputs, work: &work, planned: &planned, base: &base, log };
    let store = store(inputs, log);
    match inputs.kind {
        ExtendKind::Build => {
            let dir = work.dir.path().to_owned();
            // Only what is kept makes them worth it.
            extension.apply(store.is_some().then_some(&dir), store.as_ref(), &held).map(drop)?;
        }
        ExtendKind::Run => {
            let image = NewRunImage::begin(work.dir.path())?;
            let made = extension.apply(Some(&image.blobs_dir()), store.as_ref(), &held)?;
            // By now it is known who has which name.
            dockerfiles::check_user(inputs.kind, user_of(&config).0, user_of(&base.config).0)?;
            let created =
                crate::export::created(inputs.source_date_epoch.as_deref(), inputs.platform_api, log);
            let run_dir = image.publish(&base, config.clone(), made, &created, &inputs.extended_dir)?;
            log.info(&format!("Extended run image: {}", run_dir.display()));
        }
    }
    work.end()?;
    Ok(Extended { env: config.config.env })
}

/// Where layers of instructions are kept, if a platform has a place for them.
fn store(inputs: &Inputs, log: &dyn Log) -> Option<Store> {
    if !inputs.kaniko_dir.is_dir() || inputs.cache_ttl.is_zero() {
        return None;
    }
    let dir = inputs.kaniko_dir.join("cache/layers/cached");
    let opened = Store::open(&dir, inputs.cache_ttl);
    opened.inspect_err(|error| log.warn(&format!("every instruction is carried out: {error:#}"))).ok()
}

/// A folder for what is on its way, beside where that goes.
struct Work {
    dir: TempDir,
}

/// Every such folder's name begins with this.
const WORK: &str = ".drydock-extender-";

impl Work {
    fn begin(inputs: &Inputs) -> Result<Self, Error> {
        let parent = match inputs.kind {
            ExtendKind::Build => &inputs.layers_dir,
            ExtendKind::Run => &inputs.extended_dir,
        };
        let make = || -> anyhow::Result<TempDir> {
            drydock_io::file::make_dirs(parent)?;
            for entry in fs::read_dir(parent)? {
                let entry = entry?;
                // One that was killed has left it.
                if entry.file_name().as_encoded_bytes().starts_with(WORK.as_bytes()) {
                    drydock_tar::remove_all(&entry.path())?;
                }
            }
            let all = fs::Permissions::from_mode(0o755);
            Ok(tempfile::Builder::new().prefix(WORK).permissions(all).tempdir_in(parent)?)
        };
        let dir = make().with_context(|| format!("failed to make a folder in `{}`", parent.display()))?;
        Ok(Self { dir })
    }

    fn end(self) -> anyhow::Result<()> {
        let path = self.dir.keep();
        drydock_tar::remove_all(&path).with_context(|| format!("failed to remove `{}`", path.display()))
    }
}

/// A layer, and the extension that made it.
struct MadeLayer {
    extension: String,
    made: Made,
}

struct Extension<'a> {
    inputs: &'a Inputs,
    work: &'a Work,
    planned: &'a [Planned],
    base: &'a Image,
    log: &'a dyn Log,
}

impl Extension<'_> {
    /// Carries all Dockerfiles out, and makes layers: in a folder if one is given, or where they are kept.
    fn apply(
        &self,
        blobs_dir: Option<&PathBuf>,
        store: Option<&Store>,
        held: &Held<'_>,
    ) -> Result<Vec<MadeLayer>, Error> {
        let inputs = self.inputs;
        let left_out = [
            &inputs.app_dir,
            &inputs.layers_dir,
            &inputs.platform_dir,
            &inputs.generated_dir,
            &inputs.extended_dir,
            &inputs.kaniko_dir,
            Path::new(NO_PART),
            self.work.dir.path(),
        ]
        .map(Path::to_owned);
        let scripts = self.work.dir.path();
        let place = Place { root: Path::new("/"), left_out: &left_out, scripts, scripts_inside: scripts };
        let settings =
            Settings { threads: inputs.threads, compression: inputs.layer_compression, write_out: false };
        let latest = inputs.source_date_epoch.as_deref().and_then(|text| text.parse().ok());
        let latest = latest.filter(|seconds| rfc3339(*seconds).is_some());
        // Layers with other bytes are others.
        let first = format!("{} {:?} {latest:?}", self.base.digest(), inputs.layer_compression);
        let mut making = blobs_dir.map(|dir| Making {
            layers: Layers { dir, settings, latest },
            cache: store.map(|store| Cache::new(store, &first)),
        });
        let mut made = Vec::new();
        for Planned { extension, path, context, plan } in self.planned {
            let mut context = context.open()?;
            let programs = Programs { held, log: self.log, extension };
            let number = Cell::new(0);
            let count = plan.steps.len();
            let begins = |step: &Step, is_known: bool| {
                number.set(number.get() + 1);
                let from = if is_known { " (from the cache)" } else { "" };
                let text = format!("{extension} [{}/{count}] {}{from}", number.get(), step.text);
                self.log.quote(Level::Info, extension, &text);
            };
            let layers = carry_out(plan, &place, &mut context, making.as_mut(), &programs, &begins);
            let layers = layers.map_err(|failure| {
                let doing = format!("{}: {failure}", path.display());
                match failure {
                    Failure::Files { source, .. } => Error::from(source),
                    Failure::Program { failure, .. } => failure,
                }
                .context(doing)
            })?;
            made.extend(layers.into_iter().map(|made| MadeLayer { extension: extension.clone(), made }));
        }
        Ok(made)
    }
}

/// User and group of an image; the group is empty where none is said.
fn user_of(config: &ImageConfig) -> (&str, &str) {
    config.config.user.split_once(':').unwrap_or((&config.config.user, ""))
}

/// Which image is meant in messages.
fn described(kind: ExtendKind, image: &Image) -> String {
    format!("{} image {}", kind.name(), image.identifier())
}
