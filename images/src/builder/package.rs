//! A buildpack or an extension as a package: an image by which it is handed on, with all that it consists of.
//!
//! Specification: `distribution.md` § Buildpackage.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use drydock_io::read::is_dir;
use drydock_layout::{Committed, Durability, Layout, LinkMode, NewImage, Transaction};
use drydock_model::config::{ImageConfig, Settings};
use drydock_model::manifest::Annotations;
use drydock_spec::analyzed::Target;
use drydock_spec::builder::{ModuleSource, PackageToml};
use drydock_spec::buildpack::ModuleKind;
use drydock_spec::json;
use drydock_spec::module::{
    ModuleLayers, ModuleName, ModuleStack, ModuleToml, PACKAGE_METADATA, PackageMetadata, first_mismatch,
};

use super::layers::{self, Layer, Source};
use super::module::{Content, Loader, Module};
use super::order;
use super::{CREATED, Options, Wrong, read_toml};
use crate::export;
use crate::flatten;
use crate::repository::{Name, Repository, absolute};
use crate::watch::{Watch, waiting};
use crate::write::{self, Published};

/// What made the layers, for the history.
const MADE_BY: &str = "drydock buildpack package";

/// The file that tells what a composite buildpack consists of.
pub const CONFIG: &str = "package.toml";

/// What came of it.
#[derive(Debug)]
pub struct Packaged {
    /// The package.
    pub committed: Committed,
    /// The buildpack or extension, and those that it consists of, by `<id>@<version>`.
    pub modules: Vec<String>,
    /// What went wrong after the image was there: old blobs that could not be removed.
    pub left: Option<String>,
}

/// A package to be.
#[derive(Debug)]
struct Package<'a> {
    main: &'a Module,
    /// By name, with the main one.
    modules: BTreeMap<&'a ModuleName, &'a Module>,
    stacks: Vec<ModuleStack>,
}

/// Makes a package of the buildpack in a folder under a name of the repository.
pub fn package(
    repository: &Repository,
    dir: &Path,
    to: &Name,
    options: &Options,
    watch: &dyn Watch,
) -> Result<Packaged> {
    let dir = &absolute(dir)?;
    if !is_dir(dir).with_context(|| format!("cannot look at `{}`", dir.display()))? {
        bail!("`{}` is no folder", dir.display());
    }
    let mut loader = Loader::new(repository, options, watch);
    let (all, file) = load(&mut loader, dir, options)?;
    let package = Package::of(&all).map_err(|(key, reason)| Wrong::new(&file, key, reason))?;
    package.write(to, options, watch)
}

/// Makes a package, and writes it as the one image of an archive. The same files give the same bytes.
pub fn package_file(
    repository: &Repository,
    dir: &Path,
    to: impl Write,
    options: &Options,
    watch: &dyn Watch,
) -> Result<Packaged> {
    let scratch = tempfile::Builder::new().prefix("drydock-").tempdir().context("cannot make a folder")?;
    let write = flatten::Options { durability: Durability::InMemory, ..options.write };
    let options = &Options { write, ..options.clone() };
    let name = Repository::new(scratch.path())?.locate("package")?;
    let packaged = package(repository, dir, &name, options, watch)?;
    let layout = Layout::open(name.path())?;
    let exported = export::select(&name, &layout, None)?;
    export::oci_archive(name.path().path(), &exported, name.path().ref_name(), to, watch)?;
    Ok(packaged)
}

/// The buildpack in a folder, and what it consists of; and the file that says so.
fn load(loader: &mut Loader<'_>, dir: &Path, options: &Options) -> Result<(Vec<Module>, std::path::PathBuf)> {
    let file = dir.join(CONFIG);
    let there = file.symlink_metadata().is_ok();
    let toml = if there { read_toml::<PackageToml>(&file)? } else { PackageToml::default() };
    let wrong = |key: &str, reason: String| Wrong::new(&file, key, reason);
    let platform = &options.platform;
    if !matches!(toml.platform.os.as_str(), "" | "linux") {
        bail!(wrong("platform.os", format!("is `{}`: only `linux` is known", toml.platform.os)));
    }
    let target = Target {
        os: platform.os.clone(),
        arch: platform.architecture.clone(),
        arch_variant: platform.variant.clone().unwrap_or_default(),
        ..Target::default()
    };
    if let Some(mismatch) = first_mismatch(&toml.targets, &target) {
        bail!(wrong("targets", format!("do not fit what is asked for: {mismatch}")));
    }
    let (key, kind, uri) = match (toml.buildpack.uri.as_str(), toml.extension.uri.as_str()) {
        ("", "") if dir.join(ModuleKind::Extension.file_name()).exists() => {
            ("extension.uri", ModuleKind::Extension, ".")
        }
        ("", "") => ("buildpack.uri", ModuleKind::Buildpack, "."),
        (uri, "") => ("buildpack.uri", ModuleKind::Buildpack, uri),
        ("", uri) => ("extension.uri", ModuleKind::Extension, uri),
        _ => bail!(wrong("extension.uri", "cannot be there beside buildpack.uri".to_owned())),
    };
    if kind == ModuleKind::Extension && !toml.dependencies.is_empty() {
        bail!(wrong("dependencies", "are for buildpacks only".to_owned()));
    }
    let source = ModuleSource { uri: uri.to_owned(), ..ModuleSource::default() };
    let found = loader.load(kind, &source, dir);
    let mut all =
        if there { found.with_context(|| wrong(key, format!("`{uri}` cannot be used")))? } else { found? };
    for (number, source) in toml.dependencies.iter().enumerate() {
        let named = if source.uri.is_empty() { &source.image } else { &source.uri };
        let found = loader.load(kind, source, dir).with_context(|| {
            wrong(&format!("dependencies[{number}]"), format!("`{named}` cannot be used"))
        })?;
        all.extend(found);
    }
    Ok((all, if there { file } else { dir.join(kind.file_name()) }))
}

impl<'a> Package<'a> {
    fn of(all: &'a [Module]) -> Result<Self, order::Fault> {
        let main = &all[0];
        let modules: BTreeMap<_, _> = all.iter().rev().map(|module| (&module.name, module)).collect();
        let known = order::known(modules.values().map(|module| (&module.name, &module.toml)));
        order::check_composites(&known)?;
        let named = |module: &Module| {
            let members = modules.values().flat_map(|other| &other.toml.order).flat_map(|group| &group.group);
            members.into_iter().any(|it| it.id == module.name.id() && it.version == module.name.version())
        };
        if let Some(unused) = modules.values().find(|module| module.name != main.name && !named(module)) {
            let reason = format!("has `{}`, which is part of nothing in `{}`", unused.name, main.name);
            return Err(("dependencies".to_owned(), reason));
        }
        let stacks = stacks(modules.values().map(|module| &module.toml));
        let stacks = stacks.ok_or_else(|| {
            ("stacks".to_owned(), "do not fit each other: there is none for all of the buildpacks".to_owned())
        })?;
        Ok(Self { main, modules, stacks })
    }

    fn write(&self, to: &Name, options: &Options, watch: &dyn Watch) -> Result<Packaged> {
        let mut plan: Vec<Layer<'_>> = Vec::new();
        // Several may be in one layer.
        let mut numbers = Vec::new();
        for module in self.modules.values() {
            let purpose = format!("{} {}", module.kind, module.name);
            let same = |layer: &Layer<'_>| match (&layer.source, &module.content) {
                (Source::There(layer), Content::Layer(other)) => layer.diff_id == other.diff_id,
                _ => false,
            };
            numbers.push(plan.iter().position(same).unwrap_or(plan.len()));
            if numbers.last() == Some(&plan.len()) {
                let source = match &module.content {
                    Content::Layer(layer) => Source::There(layer),
                    Content::Tree(tree) => Source::Made(Box::new(move |sink| {
                        layers::module(tree, module.kind, &module.name, sink, watch)
                    })),
                };
                plan.push(Layer { purpose, source });
            }
        }
        let names = [to.path().clone()];
        let transaction =
            Transaction::begin(to.dir(), &names, LinkMode::Auto, options.write.durability, &waiting(watch))?;
        let written = layers::write(&plan, &transaction, options.write, watch)?;
        let mut of_kind = ModuleLayers::new();
        for (module, number) in self.modules.values().zip(numbers) {
            let versions = of_kind.entry(module.name.id().to_owned()).or_default();
            let facts = module.toml.layer(written[number].diff_id.to_string());
            versions.insert(module.name.version().to_owned(), facts);
        }
        let facts = self.main.toml.facts.clone();
        let metadata = PackageMetadata { facts, stacks: self.stacks.clone() };
        let labels = [
            (PACKAGE_METADATA, json::to_string(&metadata)?),
            (self.main.kind.layers_label(), json::to_string(&of_kind)?),
        ];
        let mut config = ImageConfig {
            created: Some(CREATED.to_owned()),
            config: Settings {
                labels: labels.map(|(key, text)| (key.to_owned(), text)).into(),
                ..Settings::default()
            },
            ..ImageConfig::empty(&options.platform)
        };
        layers::tell(&mut config, 0, &plan, MADE_BY);
        let new = NewImage { config, layers: written, annotations: Annotations::new(), replaces: None };
        let Published { committed, left, .. } = write::publish_image(transaction, new, None)?;
        let others = self.modules.keys().filter(|name| **name != &self.main.name);
        let modules = std::iter::once(&self.main.name).chain(others.copied()).map(ToString::to_string);
        Ok(Packaged { committed, modules: modules.collect(), left })
    }
}

/// The stacks that all of these are for; none if there is no such stack. What has targets, fits all.
fn stacks<'m>(all: impl Iterator<Item = &'m ModuleToml>) -> Option<Vec<ModuleStack>> {
    let any = ModuleStack { id: "*".to_owned(), mixins: Vec::new() };
    let mut common = vec![any];
    for toml in all.filter(|toml| toml.order.is_empty() && !toml.stacks.is_empty()) {
        let merged = |one: &ModuleStack, other: &ModuleStack| {
            let id = match (one.id.as_str(), other.id.as_str()) {
                (id, "*") | ("*", id) => id,
                (id, same) if id == same => id,
                _ => return None,
            };
            let mut mixins = [one.mixins.as_slice(), &other.mixins].concat();
            mixins.sort();
            mixins.dedup();
            Some(ModuleStack { id: id.to_owned(), mixins })
        };
        let pairs = common.iter().flat_map(|one| toml.stacks.iter().map(move |other| (one, other)));
        let mut next: Vec<ModuleStack> = pairs.filter_map(|(one, other)| merged(one, other)).collect();
        next.sort_by(|a, b| a.id.cmp(&b.id));
        next.dedup_by(|a, b| a.id == b.id);
        common = next;
    }
    (!common.is_empty()).then_some(common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_that_fit_all() {
        let toml = |stacks: &[&str]| {
            let stack = |id: &&str| ModuleStack { id: (*id).to_owned(), mixins: Vec::new() };
            ModuleToml { stacks: stacks.iter().map(stack).collect(), ..ModuleToml::default() }
        };
        for (all, want) in [
            (&[&[][..], &[]][..], Some("*")),
            (&[&["a", "b"], &["b", "c"]], Some("b")),
            (&[&["a"], &[], &["*"]], Some("a")),
            (&[&["a"], &["b"]], None),
            (&[&["b", "a"], &["*"]], Some("a b")),
        ] {
            let tomls: Vec<ModuleToml> = all.iter().map(|stacks| toml(stacks)).collect();
            let found = stacks(tomls.iter())
                .map(|found| found.iter().map(|it| it.id.as_str()).collect::<Vec<_>>().join(" "));
            assert_eq!(found.as_deref(), want);
        }
    }
}
