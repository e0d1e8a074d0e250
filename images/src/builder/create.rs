//! A builder of a file: `builder.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use drydock_layout::{Committed, Image, LayoutError, LinkMode, NewImage, Transaction};
use drydock_model::config::ImageConfig;
use drydock_model::manifest::Annotations;
use drydock_model::reference::ImageRef;
use drydock_spec::analyzed::{Distro, StackRunImage, Target};
use drydock_spec::builder::{BuilderToml, ModuleSource};
use drydock_spec::buildpack::ModuleKind;
use drydock_spec::label::{BASE_DISTRO_NAME, BASE_DISTRO_VERSION, BASE_ID, STACK_ID};
use drydock_spec::module::{
    self as labels, BuilderMetadata, BuilderStack, Creator, LabelRunImage, ModuleLayers, ModuleName,
    first_mismatch,
};
use drydock_spec::order::{OrderElement, OrderGroup, OrderToml};
use drydock_spec::run::{RunToml, StackToml};
use drydock_spec::system::{System, SystemBuildpack, SystemToml};
use drydock_spec::{json, toml_text};
use drydock_tar::{Owner, write_end};

use super::layers::{self, Layer, Source};
use super::lifecycle::{self, Lifecycle};
use super::module::{Content, Loader, Module};
use super::order::{self, Fault, Known};
use super::{Options, Wrong, read_toml};
use crate::repository::{Name, Repository, Unknown, absolute};
use crate::watch::{Watch, waiting};
use crate::write::{self, Published};

/// What made the layers, for the history.
const MADE_BY: &str = "drydock builder create";

/// What came of it.
#[derive(Debug)]
pub struct Created {
    /// The builder.
    pub committed: Committed,
    /// Its buildpacks and extensions, by `<id>@<version>`.
    pub modules: Vec<String>,
    /// The version of its lifecycle.
    pub lifecycle: String,
    /// What went wrong after the image was there: old blobs that could not be removed.
    pub left: Option<String>,
}

/// Makes the builder that a file describes, under a name, where it takes the place of the image for the same platform.
/// `lifecycles` are where a lifecycle may be if the file names none: the first that is there is taken.
pub fn create(
    repository: &Repository,
    to: &Name,
    file: &Path,
    lifecycles: &[PathBuf],
    options: &Options,
    watch: &dyn Watch,
) -> Result<Created> {
    let file = &absolute(file)?;
    let toml = read_toml::<BuilderToml>(file)?.merged();
    let toml = toml.map_err(|(key, reason)| Wrong::new(file, key, reason))?;
    let build = repository
        .image(&toml.build.image, &options.platform)
        .with_context(|| Wrong::new(file, "build.image", format!("`{}` cannot be used", toml.build.image)))?;
    let owner = owner(&build).map_err(|reason| Wrong::new(file, "build.image", reason))?;
    let has_modules = |key| build.config.label(key).is_some_and(|text| !matches!(text, "" | "{}" | "null"));
    if has_modules(labels::BUILDPACK_LAYERS) || has_modules(labels::EXTENSION_LAYERS) {
        let reason = format!("`{}` is a builder already: name an image without buildpacks", toml.build.image);
        return Err(Wrong::new(file, "build.image", reason).into());
    }
    let stack = stack(file, &toml, &build)?;
    let target = target(&build.config);
    if let Some(mismatch) = first_mismatch(&toml.targets, &target) {
        return Err(Wrong::new(file, "targets", format!("do not fit the build image: {mismatch}")).into());
    }
    check_run_images(file, &toml, repository, options, watch)?;
    let lifecycle = lifecycle::find(file, &toml.lifecycle, lifecycles, &build, watch)?;

    let mut loader = Loader::new(repository, options, watch);
    let mut load = |kind, key: &str, sources: &[ModuleSource]| -> Result<Vec<Module>> {
        let mut modules = Vec::new();
        for (number, source) in sources.iter().enumerate() {
            let named = if source.uri.is_empty() { &source.image } else { &source.uri };
            let wrong = || Wrong::new(file, format!("{key}[{number}]"), format!("`{named}` cannot be used"));
            let base = file.parent().context("a file is in a folder")?;
            let found = loader.load(kind, source, base).with_context(wrong)?;
            for module in &found {
                check(module, &lifecycle, &stack, &target).map_err(|reason| {
                    Wrong::new(file, format!("{key}[{number}]"), format!("`{}` {reason}", module.name))
                })?;
            }
            modules.extend(found);
        }
        Ok(modules)
    };
    let buildpacks = load(ModuleKind::Buildpack, "buildpacks", &toml.buildpacks)?;
    let extensions = load(ModuleKind::Extension, "extensions", &toml.extensions)?;
    if toml.order.is_empty() {
        return Err(Wrong::new(file, "order", "is missing: name the buildpacks to try").into());
    }

    let orders =
        Orders::of(&toml, &buildpacks, &extensions).map_err(|(key, reason)| Wrong::new(file, key, reason))?;
    let env = env_files(file, &toml)?;
    let parts =
        Parts { toml: &toml, build: &build, owner, stack: &stack, lifecycle: &lifecycle, orders, env };
    parts.write(&buildpacks, &extensions, to, options, watch)
}

/// What a builder is made of.
struct Parts<'a> {
    toml: &'a BuilderToml,
    build: &'a Image,
    owner: Owner,
    stack: &'a str,
    lifecycle: &'a Lifecycle,
    orders: Orders,
    /// Files of the env folder.
    env: BTreeMap<String, String>,
}

/// Orders with all versions.
struct Orders {
    order: OrderToml,
    system: System,
}

impl Orders {
    fn of(toml: &BuilderToml, buildpacks: &[Module], extensions: &[Module]) -> Result<Self, Fault> {
        let known = |modules| order::known(<[Module]>::iter(modules).map(|it| (&it.name, &it.toml)));
        let (buildpacks, extensions) = (known(buildpacks), known(extensions));
        order::check_composites(&buildpacks)?;
        let mut order_extensions = order::resolve("order-extensions", &toml.order_extensions, &extensions)?;
        // They always are.
        order_extensions.iter_mut().flat_map(|group| &mut group.group).for_each(|it| it.optional = false);
        let order = OrderToml { order: order::resolve("order", &toml.order, &buildpacks)?, order_extensions };
        let mut system = toml.system.clone();
        for (key, side) in [("pre", &mut system.pre), ("post", &mut system.post)] {
            for (number, buildpack) in side.buildpacks.iter_mut().enumerate() {
                resolve_system(buildpack, &buildpacks).map_err(|(field, reason)| {
                    (format!("system.{key}.buildpacks[{number}].{field}"), reason)
                })?;
            }
        }
        Ok(Self { order, system })
    }
}

fn resolve_system(buildpack: &mut SystemBuildpack, known: &Known<'_>) -> Result<(), (&'static str, String)> {
    let SystemBuildpack { id, version } = buildpack.clone();
    buildpack.version = order::element(&OrderElement { id, version, optional: false }, known)?.version;
    Ok(())
}

/// Whose the folders are that builds write to: by the variables that build images have, else by the user.
fn owner(build: &Image) -> Result<Owner, String> {
    let settings = &build.config.config;
    let named = ["CNB_USER_ID", "CNB_GROUP_ID"].map(|name| settings.env(name).unwrap_or_default());
    let ids = match named {
        ["", ""] => settings.user.split_once(':').unwrap_or_default().into(),
        named => named,
    };
    // The largest number means nobody.
    let [Some(uid), Some(gid)] = ids.map(|id| id.parse().ok().filter(|id| *id != u32::MAX)) else {
        return Err(
            "is no build image: it has neither the variables CNB_USER_ID and CNB_GROUP_ID nor a user in numbers, \
             like 1000:1000"
                .to_owned(),
        );
    };
    Ok(Owner { uid, gid })
}

/// The ID of the stack; empty if there is none.
fn stack(file: &Path, toml: &BuilderToml, build: &Image) -> Result<String, Wrong> {
    let own = build.config.label(STACK_ID).unwrap_or_default();
    if toml.stack.id.is_empty() || own.is_empty() || toml.stack.id == own {
        return Ok(if own.is_empty() { toml.stack.id.clone() } else { own.to_owned() });
    }
    let reason = format!("is `{}`, but the build image's is `{own}`", toml.stack.id);
    Err(Wrong::new(file, "stack.id", reason))
}

/// What an image's configuration and labels say that it is.
fn target(config: &ImageConfig) -> Target {
    let label = |key| config.label(key).unwrap_or_default().to_owned();
    let distro = Distro { name: label(BASE_DISTRO_NAME), version: label(BASE_DISTRO_VERSION) };
    Target {
        id: label(BASE_ID),
        os: config.os.clone(),
        arch: config.architecture.clone(),
        arch_variant: config.variant.clone().unwrap_or_default(),
        distro: (!distro.name.is_empty()).then_some(distro),
    }
}

/// Run images need not be in the repository; those that are must be of the stack.
fn check_run_images(
    file: &Path,
    toml: &BuilderToml,
    repository: &Repository,
    options: &Options,
    watch: &dyn Watch,
) -> Result<()> {
    for (at, StackRunImage { image, mirrors }) in toml.run.images.iter().enumerate() {
        let key = |number: Option<usize>| match number {
            None => format!("run.images[{at}].image"),
            Some(number) => format!("run.images[{at}].mirrors[{number}]"),
        };
        let names =
            [(None, image)].into_iter().chain(mirrors.iter().enumerate().map(|(n, it)| (Some(n), it)));
        for (number, name) in names {
            let wrong = |reason: &str| Wrong::new(file, key(number), format!("`{name}` {reason}"));
            name.parse::<ImageRef>().with_context(|| wrong("cannot be the name of an image"))?;
            let found = match repository.image(name, &options.platform) {
                Err(error) if is_missing(&error) => {
                    if number.is_none() {
                        let text =
                            format!("run image `{name}` is not in the repository: builds will need it");
                        watch.note(&text);
                    }
                    continue;
                }
                found => found.with_context(|| wrong("cannot be used"))?,
            };
            let (wanted, own) = (&toml.stack.id, found.config.label(STACK_ID).unwrap_or_default());
            if !wanted.is_empty() && own != wanted {
                return Err(wrong(&format!("is of the stack `{own}`, but stack.id is `{wanted}`")).into());
            }
        }
    }
    Ok(())
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.is::<Unknown>() || matches!(error.downcast_ref(), Some(LayoutError::NoPlatform { .. }))
}

/// Why a module cannot be in a builder, if it cannot.
fn check(module: &Module, lifecycle: &Lifecycle, stack: &str, target: &Target) -> Result<(), String> {
    let (api, apis) = (&module.toml.api, &lifecycle.facts.apis.buildpack);
    if !apis.have(api) {
        let (version, known) = (&lifecycle.facts.version, apis.supported.join(", "));
        return Err(format!("has Buildpack API {api}, but lifecycle {version} speaks {known}"));
    }
    let stacks = &module.toml.stacks;
    let fits_stack = stacks.iter().any(|it| it.id == "*" || it.id == stack);
    if !stacks.is_empty() && module.toml.targets.is_empty() && !fits_stack {
        let ids: Vec<&str> = stacks.iter().map(|stack| stack.id.as_str()).collect();
        return Err(format!("is for the stacks {}, but the build image's is `{stack}`", ids.join(", ")));
    }
    if module.kind == ModuleKind::Buildpack
        && let Some(mismatch) = module.toml.mismatch(module.has_build, target)
    {
        return Err(format!("does not fit the build image: {mismatch}"));
    }
    Ok(())
}

/// The files in which builds find the variables.
fn env_files(file: &Path, toml: &BuilderToml) -> Result<BTreeMap<String, String>, Wrong> {
    let mut files = BTreeMap::new();
    for (number, variable) in toml.build.env.iter().enumerate() {
        let key = |field: &str| format!("build.env[{number}].{field}");
        for (name, text) in
            variable.files().map_err(|wrong| Wrong::new(file, key(wrong.key), wrong.reason))?
        {
            let before = files.insert(name.clone(), text.to_owned());
            if before.is_some_and(|before| before != text) {
                return Err(Wrong::new(file, key("name"), format!("`{name}` comes twice")));
            }
        }
    }
    Ok(files)
}

impl Parts<'_> {
    fn write(
        &self,
        buildpacks: &[Module],
        extensions: &[Module],
        to: &Name,
        options: &Options,
        watch: &dyn Watch,
    ) -> Result<Created> {
        let modules = once(buildpacks.iter().chain(extensions), watch);
        let (plan, first_module) = self.plan(&modules, watch)?;
        let names = [to.path().clone()];
        let transaction =
            Transaction::begin(to.dir(), &names, LinkMode::Auto, options.write.durability, &waiting(watch))?;
        let base: Vec<_> = self.build.layers().collect();
        let mut all: Vec<Layer<'_>> =
            base.iter().map(|layer| Layer { purpose: String::new(), source: Source::There(layer) }).collect();
        all.extend(plan);
        let written = layers::write(&all, &transaction, options.write, watch)?;

        let mut layers: BTreeMap<ModuleKind, ModuleLayers> = BTreeMap::new();
        for (module, layer) in modules.iter().zip(&written[base.len() + first_module..]) {
            let of_kind = layers.entry(module.kind).or_default();
            let versions = of_kind.entry(module.name.id().to_owned()).or_default();
            let facts = module.toml.layer(layer.diff_id.to_string());
            versions.insert(module.name.version().to_owned(), facts);
        }
        let mut config = self.build.config.clone();
        layers::tell(&mut config, base.len(), &all[base.len()..], MADE_BY);
        self.describe(&mut config, buildpacks, extensions, &layers)?;
        let new = NewImage { config, layers: written, annotations: Annotations::new(), replaces: None };
        let Published { committed, left, .. } = write::publish_image(transaction, new, None)?;
        let modules = modules.iter().map(|module| module.name.to_string()).collect();
        Ok(Created { committed, modules, lifecycle: self.lifecycle.facts.version.clone(), left })
    }

    /// The layers on those of the build image, and the number of the first one of a module.
    fn plan<'p>(&'p self, modules: &[&'p Module], watch: &'p dyn Watch) -> Result<(Vec<Layer<'p>>, usize)> {
        let owner = self.owner;
        let mut plan = vec![Layer::made("folders", move |sink| {
            for path in ["workspace", "layers"] {
                layers::folder(sink, path, owner)?;
            }
            for path in [
                "cnb",
                "cnb/buildpacks",
                "cnb/extensions",
                "platform",
                "platform/env",
                "cnb/build-config",
                "cnb/build-config/env",
            ] {
                layers::folder(sink, path, Owner::ROOT)?;
            }
            Ok(write_end(sink)?)
        })];
        if let Some(files) = &self.lifecycle.files {
            let purpose = format!("lifecycle {}", self.lifecycle.facts.version);
            plan.push(Layer::made(purpose, |sink| files.write(sink, watch)));
        }
        let first_module = plan.len();
        for &module in modules {
            let purpose = format!("{} {}", module.kind, module.name);
            let source = match &module.content {
                Content::Layer(layer) => Source::There(layer),
                Content::Tree(tree) => Source::Made(Box::new(move |sink| {
                    layers::module(tree, module.kind, &module.name, sink, watch)
                })),
            };
            plan.push(Layer { purpose, source });
        }
        let Orders { order, system } = &self.orders;
        let mut file = |path, text: Result<String, _>| -> Result<()> {
            plan.push(Layer::of_file(path, text.with_context(|| format!("cannot write `{path}`"))?));
            Ok(())
        };
        file("cnb/order.toml", toml_text::to_string(order))?;
        if *system != System::default() {
            file("cnb/system.toml", toml_text::to_string(&SystemToml { system: system.clone() }))?;
        }
        let images = self.toml.run.images.clone();
        let first = images.first().cloned().unwrap_or_default();
        file("cnb/stack.toml", toml_text::to_string(&StackToml { run_image: first }))?;
        file("cnb/run.toml", toml_text::to_string(&RunToml { images }))?;
        if !self.env.is_empty() {
            plan.push(Layer::made("variables of builds", |sink| {
                for (name, value) in &self.env {
                    layers::file(sink, &format!("cnb/build-config/env/{name}"), value.as_bytes())?;
                }
                Ok(write_end(sink)?)
            }));
        }
        Ok((plan, first_module))
    }

    /// Sets labels, variables and the working directory.
    fn describe(
        &self,
        config: &mut ImageConfig,
        buildpacks: &[Module],
        extensions: &[Module],
        layers: &BTreeMap<ModuleKind, ModuleLayers>,
    ) -> Result<()> {
        let facts = |modules: &[Module]| {
            let all: BTreeMap<&ModuleName, _> = modules.iter().map(|it| (&it.name, &it.toml.facts)).collect();
            all.into_values().cloned().collect()
        };
        let run_images: Vec<LabelRunImage> =
            self.toml.run.images.iter().cloned().map(LabelRunImage::from).collect();
        let metadata = BuilderMetadata {
            description: self.toml.description.clone(),
            buildpacks: facts(buildpacks),
            extensions: facts(extensions),
            stack: BuilderStack { run_image: run_images.first().cloned().unwrap_or_default() },
            lifecycle: self.lifecycle.facts.clone(),
            created_by: Creator { name: "Drydock".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
            run_images,
        };
        let Orders { order: OrderToml { order, order_extensions }, system } = &self.orders;
        let empty = ModuleLayers::new();
        let of_kind = |kind| layers.get(&kind).unwrap_or(&empty);
        let version = self.lifecycle.facts.version.clone();
        let texts = [
            (labels::BUILDER_METADATA, json::to_string(&metadata)?),
            (labels::BUILDPACK_LAYERS, json::to_string(of_kind(ModuleKind::Buildpack))?),
            (labels::EXTENSION_LAYERS, json::to_string(of_kind(ModuleKind::Extension))?),
            (labels::ORDER, order_label(order)?),
            (labels::ORDER_EXTENSIONS, order_label(order_extensions)?),
            (labels::LIFECYCLE_APIS, json::to_string(&self.lifecycle.facts.apis)?),
            (labels::LIFECYCLE_VERSION, version),
        ];
        let settings = &mut config.config;
        settings.labels.extend(texts.map(|(key, text)| (key.to_owned(), text)));
        if *system != System::default() {
            settings.labels.insert(labels::SYSTEM.to_owned(), json::to_string(system)?);
        }
        if !self.stack.is_empty() {
            settings.labels.insert(STACK_ID.to_owned(), self.stack.to_owned());
        }
        settings.set_env("CNB_USER_ID", &self.owner.uid.to_string());
        settings.set_env("CNB_GROUP_ID", &self.owner.gid.to_string());
        "/layers".clone_into(&mut settings.working_dir);
        Ok(())
    }
}

fn order_label(order: &[OrderGroup]) -> Result<String> {
    Ok(json::to_string(&order)?)
}

/// Each module once, in the order of kinds and names. Of several with the same name the last one counts.
fn once<'m>(modules: impl Iterator<Item = &'m Module>, watch: &dyn Watch) -> Vec<&'m Module> {
    let mut all: BTreeMap<(ModuleKind, &ModuleName), &Module> = BTreeMap::new();
    for module in modules {
        let before = all.insert((module.kind, &module.name), module);
        let is_other = |before: &Module| match (&before.content, &module.content) {
            (Content::Layer(one), Content::Layer(other)) => one.diff_id != other.diff_id,
            (Content::Tree(one), Content::Tree(other)) => one != other,
            _ => true,
        };
        if before.is_some_and(is_other) {
            watch
                .note(&format!("{} {} comes several times: the last one is taken", module.kind, module.name));
        }
    }
    all.into_values().collect()
}
