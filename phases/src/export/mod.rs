//! The exporter: makes the app image from the run image, the buildpacks' layers and the app.
//!
//! Everything is read and made first, into temporary files of the output layout; then the image appears in one step.
//! Specification: `platform.md` § Exporter.

mod cached;
mod config;
mod extended;
mod kept;
mod labels;
mod make;
mod plan;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use drydock_encode::compress::Compression;
use drydock_encode::pipeline::Settings;
use drydock_layout::seen::{Time, file_time};
use drydock_layout::{Durability, Early, Image, Layout, NewImage, NewLayer, Transaction, blob_path};
use drydock_model::config::ImageConfig;
use drydock_model::digest::Digest;
use drydock_model::manifest::Annotations;
use drydock_model::reference::LayoutPath;
use drydock_spec::analyzed::{Analyzed, LayersMetadata, RunImageForRebase, Sha, Stack, StackRunImage};
use drydock_spec::api::PlatformApi;
use drydock_spec::group::{Group, GroupElement};
use drydock_spec::label::LauncherMetadata;
use drydock_spec::launch::{BomEntry, BuildMetadata};
use drydock_spec::project::ProjectMetadata;
use drydock_spec::report::{BuildReport, Report};
use drydock_tar::Owner;
use serde::Deserialize;

use self::cached::CacheExport;
pub(crate) use self::cached::check_cache;
pub(crate) use self::config::created;
use self::extended::ExtendedRunImage;
use self::make::{ForCache, MadeLayer, Maker};
use self::plan::{Content, LayerPlan, Place, Plan};
pub use crate::app_image::Output;
use crate::app_image::{bring_base, check_apart, log_base};
use crate::buildpacks::{check_group, dir_name};
pub use crate::cache::CacheLocation;
use crate::experimental::Experimental;
use crate::file::{read_toml, read_toml_if_exists};
use crate::identify::{self, identify};
use crate::layer_index::LayerIndex;
use crate::layers::clear_up;
use crate::run_image::{self, RunImageFiles};
use crate::threads::beside;
use crate::timer::timed;
use crate::{Error, Kind, Log, sbom};

/// Everything that the exporter needs to know.
#[derive(Debug)]
pub struct Inputs {
    /// The Platform API that the platform speaks.
    pub platform_api: PlatformApi,
    /// Where the image goes.
    pub output: Output,
    /// The cache, if there is one.
    pub cache: Option<CacheLocation>,
    /// The folder that has the layer index, if there is to be one.
    pub layer_index: Option<PathBuf>,
    /// What other phases and the platform left.
    pub files: Files,
    /// The app, absolute.
    pub app_dir: PathBuf,
    /// The layers directory, absolute.
    pub layers_dir: PathBuf,
    /// What starts processes in the app image.
    pub launcher: Launcher,
    /// The process type that the image starts by default.
    pub process_type: Option<String>,
    /// The owner of layers and app inside the image.
    pub owner: Owner,
    /// `SOURCE_DATE_EPOCH`, as it was given.
    pub source_date_epoch: Option<String>,
    /// `CNB_EXEC_ENV`: what the app is built for (`production` unless said otherwise).
    pub exec_env: String,
    /// What to do about an extended run image where it is experimental: at Platform API 0.12.
    pub experimental: Experimental,
    /// How new layers are compressed.
    pub layer_compression: Compression,
    /// How many threads compress layers.
    pub threads: NonZeroUsize,
    /// Files of images that were opened as root.
    pub early: Early,
}

/// Files and folders that an export begins with, absolute.
#[derive(Debug)]
pub struct Files {
    /// What the analyzer wrote.
    pub analyzed: PathBuf,
    /// What the detector wrote.
    pub group: PathBuf,
    /// `run.toml`, read from Platform API 0.12 on.
    pub run: PathBuf,
    /// `stack.toml`, read before Platform API 0.12.
    pub stack: PathBuf,
    /// `project-metadata.toml`.
    pub project_metadata: PathBuf,
    /// The folder that the extender wrote; none if there was none at work, and buildpacks may have put something there.
    pub extended: Option<PathBuf>,
}

/// The executable that starts processes in the app image.
#[derive(Debug)]
pub struct Launcher {
    /// Where it is, absolute.
    pub path: PathBuf,
    /// The folder with its SBOM files.
    pub sbom_dir: PathBuf,
    /// What the label says of it.
    pub metadata: LauncherMetadata,
}

impl Inputs {
    /// The folders of the images that may be read.
    pub fn reads(&self) -> Vec<PathBuf> {
        identify::reads(&self.files.analyzed, &self.output.layout_dir)
    }
}

/// Exports with what other phases left in files.
pub fn export(inputs: &Inputs, log: &dyn Log) -> Result<Report, Error> {
    let group: Group = read_toml(&inputs.files.group)
        .map_err(|error| Error::new(Kind::General, error.context("failed to read group file")))?;
    let mut analyzed: Analyzed = match read_toml_if_exists(&inputs.files.analyzed) {
        Ok(Some(analyzed)) => Ok(analyzed),
        Ok(None) => Err(anyhow!("`{}` is missing", inputs.files.analyzed.display())),
        Err(error) => Err(error),
    }
    .map_err(|error| {
        Error::new(Kind::Arguments, error).with_help("run the analyzer first, or give -analyzed")
    })?;
    identify(&mut analyzed, &inputs.output.layout_dir, &inputs.early, inputs.platform_api, log)?;
    export_group(inputs, &group.group, &analyzed, log)
}

/// Exports what a group of buildpacks made.
pub fn export_group(
    inputs: &Inputs,
    group: &[GroupElement],
    analyzed: &Analyzed,
    log: &dyn Log,
) -> Result<Report, Error> {
    clear_up(&inputs.layers_dir, log);
    timed(log, "Exporter", || {
        check_group(group)?;
        let (index, begun) = (LayerIndex::read(inputs.layer_index.as_deref()), file_time());
        let cache = CacheExport::open(inputs, index.seen(), log)?;
        let sources = Sources::read(inputs, analyzed, log)?;
        let transaction = inputs.output.begin(log)?.trusting(Arc::clone(index.seen()));
        let names = run_image_names(inputs, &sources, analyzed, log)?;
        if inputs.platform_api.has_launcher_sbom() {
            sbom::copy_lifecycle_files(&inputs.launcher.sbom_dir, &inputs.layers_dir, log)?;
        }
        let plan = plan::plan(inputs, group, &sources.metadata, &analyzed.metadata, log)?;
        let (base, mut made) =
            make_layers(inputs, &sources, &plan, &transaction, cache.as_ref(), &index, log)?;
        let config = describe(inputs, &sources, names, &plan, base.len(), &made, log)?;

        let next = next_index(&index, inputs, &base, &made, begun);
        let own = made.iter_mut().filter_map(|made| made.layer.take());
        let layers = base.into_iter().chain(own).collect();
        let image = NewImage { config, layers, annotations: Annotations::new(), replaces: None };
        let has_bom = inputs.platform_api.has_legacy_bom();
        let build = if has_bom { build_report(inputs, group)? } else { None };
        let (report, committed) = inputs.output.publish(transaction, image, build, log)?;

        let app_image = (&inputs.output.names[0], committed.digest);
        if let Some(cache) = cache
            && let Err(error) = timed(log, "Cache", || cache.commit(&plan, made, &app_image, log))
        {
            log.warn(&format!("Failed to export cache: {error:#}"));
        }
        if let Some((mut next, files)) = next {
            next.add_files(&files);
            next.write(log);
        }
        Ok(report)
    })
}

/// What the next restorer and exporter need not read, and files that are to be added when they are in their places.
fn next_index(
    index: &LayerIndex,
    inputs: &Inputs,
    base: &[NewLayer],
    made: &[MadeLayer],
    begun: Time,
) -> Option<(LayerIndex, Vec<(PathBuf, Digest)>)> {
    let cache = inputs.cache.as_ref().filter(|_| index.is_of_use())?;
    let mut next = index.successor();
    let mut files = Vec::new();
    for MadeLayer { diff_id, outline, for_cache, .. } in made {
        if let Some(outline) = outline {
            next.made(outline, diff_id, begun);
            if index.is_plain(outline) {
                next.note_plain(outline, begun);
            }
        }
        if !matches!(for_cache, ForCache::InImage) {
            files.push((cache.tar_path(diff_id), diff_id.of_plain_blob()));
        }
    }
    let layout = inputs.output.names[0].path();
    let layers = base.iter().chain(made.iter().filter_map(|made| made.layer.as_ref()));
    let blobs = layers.map(|layer| layer.descriptor.digest);
    files.extend(blobs.map(|digest| (blob_path(layout, &digest), digest)));
    Some((next, files))
}

/// What an image is made from, besides files.
struct Sources {
    base: Image,
    extended: Option<ExtendedRunImage>,
    /// The image whose layers may be reused.
    previous: Option<Image>,
    metadata: BuildMetadata,
    project: ProjectMetadata,
}

impl Sources {
    fn read(inputs: &Inputs, analyzed: &Analyzed, log: &dyn Log) -> Result<Self, Error> {
        let base = run_image(inputs, analyzed)?;
        let extended = ExtendedRunImage::open(inputs, analyzed, &base, log)?;
        let metadata: BuildMetadata = read_toml(&inputs.layers_dir.join("config").join("metadata.toml"))
            .context("failed to read build metadata")
            .map_err(|error| Error::from(error).with_help("run the builder first"))?;
        config::check_process_types(&metadata.processes)?;
        let project = read_toml_if_exists(&inputs.files.project_metadata)?.unwrap_or_default();
        let previous = previous_image(inputs, analyzed, log);
        log.info(&format!("Using app image: {}", inputs.output.names[0]));
        Ok(Self { base, extended, previous, metadata, project })
    }
}

/// The layers of the run image with those of extensions, and the planned ones.
fn make_layers(
    inputs: &Inputs,
    sources: &Sources,
    plan: &Plan,
    transaction: &Transaction,
    cache: Option<&CacheExport>,
    index: &LayerIndex,
    log: &dyn Log,
) -> Result<(Vec<NewLayer>, Vec<MadeLayer>), Error> {
    let maker = Maker {
        transaction,
        previous: sources.previous.as_ref(),
        settings: Settings {
            threads: inputs.threads,
            compression: inputs.layer_compression,
            write_out: inputs.output.durability == Durability::OnDisk,
        },
        cache,
        index,
    };
    let (brought, made) = beside(|| bring_base(&sources.base, transaction), || maker.make(&plan.layers, log));
    let (mut base, shared) = brought.map_err(|error| Error::from(anyhow!(error).context("run image")))?;
    let made = made?;
    log_base(&base, shared, log);
    if let Some(extended) = &sources.extended {
        base.extend(extended.bring(transaction)?);
    }
    log_layers(&plan.layers, &made, log);
    warn_of_left_out(&plan.layers, log);
    Ok((base, made))
}

/// The image's configuration, but for diff IDs.
fn describe(
    inputs: &Inputs,
    sources: &Sources,
    names: StackRunImage,
    plan: &Plan,
    base_layers: usize,
    made: &[MadeLayer],
    log: &dyn Log,
) -> Result<ImageConfig, Error> {
    let Sources { base, extended, metadata, project, .. } = sources;
    let mut label = LayersMetadata {
        buildpacks: plan.image_buildpacks.clone(),
        run_image: RunImageForRebase {
            top_layer: base.layers().next_back().map(|layer| layer.diff_id.to_string()).unwrap_or_default(),
            reference: base.identifier(),
            ..RunImageForRebase::default()
        },
        ..LayersMetadata::default()
    };
    write_down(&mut label, plan, made);
    if inputs.platform_api.has_targets() {
        label.run_image.image.clone_from(&names.image);
        label.run_image.mirrors.clone_from(&names.mirrors);
    }
    label.stack = Some(Stack { run_image: names });

    let mut config = extended.as_ref().map_or(&base.config, ExtendedRunImage::config).clone();
    labels::set_rebasable(&mut config, extended.is_some(), inputs.platform_api);
    labels::set(&mut config, &label, metadata, project, inputs, log)?;
    configure(&mut config, base_layers, plan, metadata, inputs, log)?;
    Ok(config)
}

/// The run image that was analyzed: no other will do.
fn run_image(inputs: &Inputs, analyzed: &Analyzed) -> Result<Image, Error> {
    let (path, digest) = run_image_path(inputs, analyzed)?;
    Layout::open_early(&path, &inputs.early)
        .and_then(|layout| layout.image_by_digest(&digest))
        .map_err(|error| run_image::not_usable(&path, error))
}

/// Where it is, which is not where the app image goes.
pub(crate) fn run_image_path(inputs: &Inputs, analyzed: &Analyzed) -> Result<(LayoutPath, Digest), Error> {
    let reference = analyzed.run_image.as_ref().map_or("", |image| &image.reference);
    if reference.is_empty() {
        let error = Error::new(Kind::Arguments, anyhow!("run image not found in analyzed metadata"));
        return Err(error
            .with_help(format!("run the analyzer again: it writes `{}`", inputs.files.analyzed.display())));
    }
    let (path, digest) = inputs.output.layout_dir.resolve_identifier(reference).map_err(|error| {
        Error::new(Kind::Arguments, anyhow!(error).context("run image in analyzed metadata"))
    })?;
    check_apart(&inputs.output.names, path.path())?;
    Ok((path, digest))
}

/// The image whose layers may be reused. If it is gone, nothing is reused.
fn previous_image(inputs: &Inputs, analyzed: &Analyzed, log: &dyn Log) -> Option<Image> {
    let reference = &analyzed.image.reference;
    if reference.is_empty() {
        return None;
    }
    let image = inputs.output.layout_dir.resolve_identifier(reference).map_err(anyhow::Error::from).and_then(
        |(path, digest)| {
            log.info(&format!("Reusing layers from image '{path}'"));
            Ok(Layout::open_early(&path, &inputs.early)?.image_by_digest(&digest)?)
        },
    );
    image
        .map_err(|error| log.warn(&format!("The previous image '{reference}' cannot be reused: {error:#}")))
        .ok()
}

/// The names under which newer versions of the run image are found: those of the entry that names the one in use.
fn run_image_names(
    inputs: &Inputs,
    sources: &Sources,
    analyzed: &Analyzed,
    log: &dyn Log,
) -> Result<StackRunImage, Error> {
    let files = RunImageFiles { run: &inputs.files.run, stack: &inputs.files.stack };
    let known = files.read(inputs.platform_api, log)?;
    let is_base = |name: &String| {
        inputs.output.layout_dir.resolve(name).is_ok_and(|path| path.path() == sources.base.layout())
    };
    let fits = |image: &StackRunImage| std::iter::once(&image.image).chain(&image.mirrors).any(is_base);
    Ok(known.into_iter().find(fits).unwrap_or_else(|| StackRunImage {
        // An extension may have chosen an image that no builder knows.
        image: analyzed
            .run_image
            .as_ref()
            .filter(|_| !sources.metadata.extensions.is_empty())
            .map(|run_image| run_image.image.clone())
            .unwrap_or_default(),
        mirrors: Vec::new(),
    }))
}

/// Names the sockets that are in layers and in the app, and in no tar.
fn warn_of_left_out(plans: &[LayerPlan], log: &dyn Log) {
    const NAMED: usize = 10;
    let sources = plans.iter().filter_map(|plan| match &plan.content {
        Content::Source(source) => Some(source.left_out()),
        Content::Previous => None,
    });
    let all: BTreeSet<PathBuf> = sources.flatten().collect();
    if all.is_empty() {
        return;
    }
    let named: Vec<_> = all.iter().take(NAMED).map(|path| format!("'{}'", path.display())).collect();
    let more = match all.len() - named.len() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    log.warn(&format!("Sockets are left out of layers: {}{more}", named.join(", ")));
}

fn log_layers(plans: &[LayerPlan], made: &[MadeLayer], log: &dyn Log) {
    let is_app = |plan: &LayerPlan| plan.place == Place::App;
    let app: Vec<bool> =
        plans.iter().zip(made).filter(|(plan, _)| is_app(plan)).map(|(_, made)| made.reused).collect();
    let mut app_is_logged = false;
    for (plan, made) in plans.iter().zip(made).filter(|(plan, _)| plan.in_image) {
        if is_app(plan) {
            let reused = app.iter().filter(|reused| **reused).count();
            for (verb, count) in [("Reused", reused), ("Added", app.len() - reused)] {
                if count > 0 && !app_is_logged {
                    log.info(&format!("{verb} {count}/{} app layer(s)", app.len()));
                }
            }
            app_is_logged = true;
        } else {
            log.info(&format!("{} layer '{}'", if made.reused { "Reusing" } else { "Adding" }, plan.id));
        }
        log.debug(&format!("Layer '{}' SHA: {}", plan.id, made.diff_id));
    }
}

/// Writes the diff IDs of what is in the image into its metadata.
fn write_down(metadata: &mut LayersMetadata, plan: &Plan, made: &[MadeLayer]) {
    for (plan, made) in plan.layers.iter().zip(made).filter(|(plan, _)| plan.in_image) {
        let sha = Sha::from(made.diff_id);
        match &plan.place {
            Place::Buildpack { id, layer } => {
                let buildpack = metadata.buildpacks.iter_mut().find(|buildpack| buildpack.key == *id);
                if let Some(layer) = buildpack.and_then(|buildpack| buildpack.layers.get_mut(layer)) {
                    layer.sha = sha.sha;
                }
            }
            Place::LaunchSbom => metadata.sbom = Some(sha),
            Place::App => metadata.app.push(sha),
            Place::Launcher => metadata.launcher = sha,
            Place::Config => metadata.config = sha,
            Place::ProcessTypes => metadata.process_types = sha,
            Place::CacheSbom => {}
        }
    }
}

/// Everything in the configuration but labels and diff IDs.
fn configure(
    config: &mut ImageConfig,
    base_layers: usize,
    plan: &Plan,
    metadata: &BuildMetadata,
    inputs: &Inputs,
    log: &dyn Log,
) -> Result<(), Error> {
    let api = inputs.platform_api;
    let text = |path: &PathBuf| {
        path.to_str()
            .map(str::to_owned)
            .with_context(|| format!("`{}` is not UTF-8: an image cannot name it", path.display()))
    };
    let app_dir = text(&inputs.app_dir)?;
    config::set_environment(&mut config.config, &text(&inputs.layers_dir)?, &app_dir, api);
    config.config.working_dir = app_dir;
    config.config.entrypoint = vec![config::entrypoint(metadata, inputs.process_type.as_deref(), log)?];
    config.config.cmd = Vec::new();
    let created = config::created(inputs.source_date_epoch.as_deref(), api, log);
    let new: Vec<String> =
        plan.layers.iter().filter(|plan| plan.in_image).map(|plan| plan.created_by.clone()).collect();
    config::set_history(config, base_layers, &new, &created, api);
    config.created = Some(created);
    // The container that an older builder made the run image in.
    config.rest.remove("container");
    Ok(())
}

/// The bills of materials that buildpacks wrote of the build (before Platform API 0.9), if any did.
fn build_report(inputs: &Inputs, group: &[GroupElement]) -> anyhow::Result<Option<BuildReport>> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct BuildToml {
        bom: Vec<BomEntry>,
    }
    let mut report = BuildReport::default();
    for buildpack in group {
        let path = inputs.layers_dir.join(dir_name(&buildpack.id)?).join("build.toml");
        let build: BuildToml = read_toml_if_exists(&path)?.unwrap_or_default();
        let named = GroupElement { api: String::new(), homepage: String::new(), ..buildpack.clone() };
        report.bom.extend(build.bom.into_iter().map(|entry| BomEntry { buildpack: named.clone(), ..entry }));
    }
    Ok((!report.bom.is_empty()).then_some(report))
}
