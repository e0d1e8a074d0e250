//! All that is to be known of an image without unpacking it.

use std::collections::BTreeMap;

use anyhow::Result;
use drydock_layout::{Image, Layout, read_blob};
use drydock_model::digest::{DiffId, Digest};
use drydock_model::json;
use drydock_model::manifest::{Annotations, Descriptor, subject};
use drydock_spec::launch::{Command, Process};
use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::built::{self, Built};
use crate::repository::Name;
use crate::sbom::{self, SbomFile};
use crate::watch::Watch;

/// What is known.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspected {
    /// The name that was asked for.
    pub name: String,
    /// The layout's folder.
    pub path: String,
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's media type.
    pub media_type: String,
    /// What the image runs on.
    pub platform: String,
    /// What all images of the layout run on.
    pub platforms: Vec<String>,
    /// When it was made (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Bytes in manifest, configuration and layers, as they are stored.
    pub size: u64,
    /// What a container starts with.
    pub config: Config,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// What it was built on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_image: Option<RunImage>,
    /// Which buildpacks built it.
    pub buildpacks: Vec<Buildpack>,
    /// Which extensions had a part in it.
    pub extensions: Vec<Buildpack>,
    /// What it can start.
    pub processes: Vec<ProcessType>,
    /// Where the app's source came from, as the label has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Json>,
    /// SBOM files in it.
    pub sboms: Vec<SbomFile>,
    /// What refers to it: signatures, attestations, ….
    pub referrers: Vec<Referrer>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations of its manifest.
    pub annotations: Annotations,
    /// What could not be found out, and why.
    pub problems: Vec<String>,
}

/// What a container starts with.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// The configuration's digest.
    pub digest: Digest,
    /// User, and maybe group.
    pub user: String,
    /// Where it starts.
    pub working_dir: String,
    /// The program.
    pub entrypoint: Vec<String>,
    /// Its arguments.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Whatever else the configuration says of containers, as it says it.
    pub more: Map<String, Json>,
}

/// A layer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// From 1 on, lowest first.
    pub number: usize,
    /// Of its blob.
    pub digest: Digest,
    /// Of its tar.
    pub diff_id: DiffId,
    /// What its blob is.
    pub media_type: String,
    /// Bytes in its blob.
    pub size: u64,
    /// Whether its blob is there.
    pub present: bool,
    /// What made it: `app`, `acme/a:lib`, a line of a Dockerfile, ….
    pub made_by: String,
}

/// What an image was built on.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunImage {
    /// Its name.
    pub image: String,
    /// Exactly which.
    pub reference: String,
    /// The diff ID of its highest layer.
    pub top_layer: String,
    /// Other places to have it from.
    pub mirrors: Vec<String>,
}

/// A buildpack or an extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Buildpack {
    /// Its ID.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Where to read about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub homepage: String,
}

/// Something that the image can start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessType {
    /// Its name.
    pub r#type: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Arguments that users can replace.
    pub args: Vec<String>,
    /// Whether it is started without a shell.
    pub direct: bool,
    /// Whether the image starts it by default.
    pub default: bool,
    /// Where it runs, if not in the app's folder.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Which buildpack defined it.
    pub buildpack: String,
}

/// What refers to an image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// Its digest.
    pub digest: Digest,
    /// What it is: the artifact's type, or else the media type.
    pub artifact_type: String,
    /// Bytes in its manifest.
    pub size: u64,
}

/// Buildpacks of an image.
pub fn buildpacks(built: &Built) -> Vec<Buildpack> {
    let elements = built.build.iter().flat_map(|build| &build.buildpacks);
    elements.map(buildpack).collect()
}

fn buildpack(from: &drydock_spec::group::GroupElement) -> Buildpack {
    Buildpack { id: from.id.clone(), version: from.version.clone(), homepage: from.homepage.clone() }
}

/// What an image can start.
pub fn processes(image: &Image, built: &Built) -> Vec<ProcessType> {
    let Some(metadata) = &built.build else { return Vec::new() };
    let default = image.config.config.entrypoint.first().and_then(|path| path.strip_prefix("/cnb/process/"));
    let process = |from: &Process| ProcessType {
        r#type: from.r#type.clone(),
        command: match &from.command {
            Command::Text(text) => vec![text.clone()],
            Command::List(words) => words.clone(),
        },
        args: from.args.clone().unwrap_or_default(),
        direct: from.direct,
        default: default == Some(from.r#type.as_str()),
        working_dir: from.working_dir.clone(),
        buildpack: from.buildpack_id.clone(),
    };
    metadata.processes.iter().map(process).collect()
}

/// What is known of an image of a layout.
pub fn inspect(name: &Name, layout: &Layout, image: &Image, watch: &dyn Watch) -> Result<Inspected> {
    let config = &image.config;
    let (built, wrong) = Built::read(config);
    let mut problems: Vec<String> =
        wrong.into_iter().map(|(label, error)| format!("label {label}: {error}")).collect();
    // An image without a layer of SBOM files has no less to be told of.
    let sboms = sbom::files(image, watch, &|_| false).unwrap_or_else(|error| {
        problems.push(format!("SBOM files: {error:#}"));
        Vec::new()
    });
    watch.advance(0)?;
    let layers = image.layers().zip(built::makers(config, &built)).enumerate();
    let layers = layers.map(|(number, (layer, made_by))| Layer {
        number: number + 1,
        digest: layer.descriptor.digest,
        diff_id: layer.diff_id,
        media_type: layer.descriptor.media_type.clone(),
        size: layer.descriptor.size,
        present: layer.is_present(),
        made_by,
    });
    let layers: Vec<Layer> = layers.collect();
    let run_image = built.layers.as_ref().map(|layers| RunImage {
        image: built.run_image().unwrap_or_default().to_owned(),
        reference: layers.run_image.reference.clone(),
        top_layer: layers.run_image.top_layer.clone(),
        mirrors: layers.run_image.mirrors.clone(),
    });
    let settings = &config.config;
    let blobs = layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
    Ok(Inspected {
        name: name.text().to_owned(),
        path: name.path().to_string(),
        digest: image.digest(),
        media_type: image.descriptor.media_type.clone(),
        platform: config.platform().to_string(),
        platforms: layout.images().iter().map(|(_, platform)| platform.to_string()).collect(),
        created: config.created.clone(),
        size: blobs.saturating_add(image.descriptor.size).saturating_add(image.manifest.config.size),
        config: Config {
            digest: image.manifest.config.digest,
            user: settings.user.clone(),
            working_dir: settings.working_dir.clone(),
            entrypoint: settings.entrypoint.clone(),
            cmd: settings.cmd.clone(),
            env: settings.env.clone(),
            more: settings.rest.clone(),
        },
        layers,
        run_image,
        buildpacks: buildpacks(&built),
        extensions: built.build.iter().flat_map(|build| &build.extensions).map(buildpack).collect(),
        processes: processes(image, &built),
        source: built.source,
        sboms,
        referrers: referrers(layout, image).into_iter().map(|(_, referrer)| referrer).collect(),
        labels: settings.labels.clone(),
        annotations: image.manifest.annotations.clone(),
        problems,
    })
}

/// Of the artifacts of a layout, those that refer to an image: by their `subject`, or as attestations of `BuildKit` do.
fn referrers<'a>(layout: &'a Layout, image: &Image) -> Vec<(&'a Descriptor, Referrer)> {
    let digest = image.digest().to_string();
    let refers = |descriptor: &&'a Descriptor| -> Option<(&'a Descriptor, Referrer)> {
        let annotated = descriptor.annotations.get("vnd.docker.reference.digest") == Some(&digest);
        let manifest: Json = json::from_slice(&read_blob(image.layout(), descriptor).ok()?).ok()?;
        let text = |field: &Json| field.as_str().map(str::to_owned);
        let is_subject = subject(&manifest) == Some(&digest);
        let kind = text(&manifest["artifactType"]).or_else(|| text(&manifest["config"]["mediaType"]));
        let artifact_type = kind.unwrap_or_else(|| descriptor.media_type.clone());
        let referrer = Referrer { digest: descriptor.digest, artifact_type, size: descriptor.size };
        (annotated || is_subject).then_some((*descriptor, referrer))
    };
    layout.artifacts().iter().filter_map(refers).collect()
}
