//! Buildpacks and extensions before they are in a builder or a package: from a folder, from an archive of one, or from a
//! package.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use drydock_io::lock::Identity;
use drydock_layout::{Durability, Image, ImageLayer};
use drydock_model::config::ImageConfig;
use drydock_model::digest::DiffId;
use drydock_spec::builder::ModuleSource;
use drydock_spec::buildpack::ModuleKind;
use drydock_spec::json;
use drydock_spec::module::{ModuleLayers, ModuleName, ModuleToml, PACKAGE_METADATA, PackageMetadata};
use drydock_tar::Kind;
use tempfile::TempDir;

use super::tree::{Guard, MemberKind, Tree};
use super::{Options, read_document};
use crate::flatten;
use crate::import::{self, Opened, SourceError};
use crate::layer;
use crate::repository::Repository;
use crate::watch::Watch;

/// A buildpack or an extension.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) kind: ModuleKind,
    pub(super) name: ModuleName,
    pub(super) toml: ModuleToml,
    pub(super) has_build: bool,
    pub(super) content: Content,
}

/// What it consists of.
#[derive(Debug)]
pub(super) enum Content {
    /// Its folder.
    Tree(Tree),
    /// A layer that has it, and maybe others, where a builder has them.
    Layer(Box<ImageLayer>),
}

/// What was seen of a module's files.
#[derive(Debug, Default)]
struct Seen {
    toml: Option<Vec<u8>>,
    has_build: bool,
    is_package: bool,
}

impl Seen {
    fn see(&mut self, kind: ModuleKind, path: &[u8], contents: &mut dyn Read) -> Result<()> {
        match path {
            b"bin/build" => self.has_build = true,
            b"oci-layout" => self.is_package = true,
            path if path == kind.file_name().as_bytes() => {
                self.toml = Some(read_document(kind.file_name(), contents)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn module(self, kind: ModuleKind, content: Content) -> Result<Module> {
        let file = kind.file_name();
        let bytes = self.toml.with_context(|| format!("it has no `{file}` at its top: it is no {kind}"))?;
        let text = std::str::from_utf8(&bytes).with_context(|| format!("`{file}` is not UTF-8"))?;
        let toml = ModuleToml::parse(kind, text).with_context(|| format!("cannot read `{file}`"))?;
        let name = ModuleName::new(&toml.facts.id, &toml.facts.version)
            .with_context(|| format!("`{file}`: {kind}.id or {kind}.version cannot be used"))?;
        if toml.api.is_empty() {
            bail!("`{file}` of `{name}`: api is missing: name the Buildpack API that it speaks");
        }
        let is_for_some = !toml.targets.is_empty() || !toml.stacks.is_empty();
        if !toml.order.is_empty() && is_for_some {
            bail!("`{file}` of `{name}`: what has an order cannot have targets or stacks");
        }
        if kind == ModuleKind::Buildpack && toml.order.is_empty() && !self.has_build {
            bail!("`{name}` has neither `bin/build` nor an order");
        }
        Ok(Module { kind, name, toml, has_build: self.has_build, content })
    }
}

/// Finds buildpacks and extensions.
pub(super) struct Loader<'a> {
    repository: &'a Repository,
    options: &'a Options,
    watch: &'a dyn Watch,
    /// Where packages that are files are unpacked; none stands for the folder of temporary files.
    scratch: Option<PathBuf>,
    /// Packages that were files: layouts as long as this lives.
    unpacked: Vec<TempDir>,
}

/// What was found: at first what was asked for, then what it consists of, in the order of names.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) modules: Vec<Module>,
    /// The image that has them, if it is a package.
    pub(super) package: Option<Image>,
}

impl Found {
    /// What is in a package.
    pub(super) fn of_package(kind: ModuleKind, image: Image, watch: &dyn Watch) -> Result<Self> {
        Ok(Self { modules: of_package(kind, &image, watch)?, package: Some(image) })
    }
}

impl<'a> Loader<'a> {
    pub(super) fn new(repository: &'a Repository, options: &'a Options, watch: &'a dyn Watch) -> Self {
        Self { repository, options, watch, scratch: None, unpacked: Vec::new() }
    }

    /// With another folder for what is unpacked.
    pub(super) fn with_scratch(self, scratch: &Path) -> Self {
        Self { scratch: Some(scratch.to_owned()), ..self }
    }

    /// What a file asks for that lies in the folder `base`: first the module itself, then those that a package has besides,
    /// in the order of their names.
    pub(super) fn load(
        &mut self,
        kind: ModuleKind,
        source: &ModuleSource,
        base: &Path,
    ) -> Result<Vec<Module>> {
        let image = match (source.uri.as_str(), source.image.as_str()) {
            ("", "") => bail!("has neither `uri` nor `image`"),
            ("", image) => Some(image),
            (uri, "") => uri.strip_prefix("docker://"),
            _ => bail!("has both `uri` and `image`"),
        };
        let Found { modules, .. } = match image {
            Some(name) => self.image(kind, name)?,
            None => self.file(kind, &path_of(&source.uri, base)?)?,
        };
        let main = &modules[0].name;
        for (key, wanted, found) in
            [("id", &source.id, main.id()), ("version", &source.version, main.version())]
        {
            if !wanted.is_empty() && wanted != found {
                bail!("asks for {key} `{wanted}`, but what is there has {key} `{found}`");
            }
        }
        Ok(modules)
    }

    /// What is in a package of the repository.
    pub(super) fn image(&self, kind: ModuleKind, name: &str) -> Result<Found> {
        let image = self.repository.image(name, &self.options.platform)?;
        Found::of_package(kind, image, self.watch).with_context(|| format!("cannot use image `{name}`"))
    }

    /// What is in a folder, in an archive of one, or in a package.
    pub(super) fn file(&mut self, kind: ModuleKind, path: &Path) -> Result<Found> {
        // None if it is not there yet.
        let repository = Identity::of(self.repository.dir().path()).ok();
        let tree = Tree::at(path)?.without(self.options.without.iter().copied().chain(repository));
        let mut seen = Seen::default();
        tree.visit(self.watch, &mut |member, contents| match member.kind {
            MemberKind::File { .. } => seen.see(kind, member.path, contents),
            // What it leads to may be looked at by whoever builds.
            MemberKind::Symlink { .. } | MemberKind::HardLink { .. } if member.path == b"bin/build" => {
                seen.has_build = true;
                Ok(())
            }
            _ => Ok(()),
        })?;
        let failed = || format!("cannot use `{}`", path.display());
        if seen.is_package && matches!(tree, Tree::Tar(_)) {
            return self.package(kind, path).with_context(failed);
        }
        let module = seen.module(kind, Content::Tree(tree)).with_context(failed)?;
        Ok(Found { modules: vec![module], package: None })
    }

    /// The modules of a package in a file.
    fn package(&mut self, kind: ModuleKind, path: &Path) -> Result<Found> {
        const NAME: &str = "package";
        let mut scratch = tempfile::Builder::new();
        scratch.prefix("drydock-");
        let scratch = self.scratch.as_ref().map_or_else(|| scratch.tempdir(), |dir| scratch.tempdir_in(dir));
        let scratch = scratch.context("cannot make a folder")?;
        let repository = Repository::new(scratch.path())?;
        let to = repository.locate(NAME)?;
        let write = flatten::Options { durability: Durability::InMemory, ..self.options.write };
        let options = import::Options { platforms: Vec::new(), flatten: false, write };
        let opened = Opened::package(path, scratch.path(), self.watch)?;
        import::import(&opened, &repository, &to, &options, self.watch)?;
        let image = repository.image(NAME, &self.options.platform)?;
        self.unpacked.push(scratch);
        Found::of_package(kind, image, self.watch)
    }
}

/// The path that a URI means.
pub(super) fn path_of(uri: &str, base: &Path) -> Result<PathBuf> {
    if let Some(path) = uri.strip_prefix("file://") {
        return Ok(PathBuf::from(path));
    }
    if uri.contains("://") || ["urn:", "from="].iter().any(|scheme| uri.starts_with(scheme)) {
        bail!(
            "`{uri}` is neither a folder nor a file: download it, or `drydock import` the package and name it by `image`"
        );
    }
    Ok(base.join(uri))
}

/// A label that must be there.
fn label<'c>(config: &'c ImageConfig, key: &str) -> Result<&'c str> {
    config.label(key).with_context(|| format!("it has no label `{key}`: it is no package of that kind"))
}

/// The modules of a package.
fn of_package(kind: ModuleKind, image: &Image, watch: &dyn Watch) -> Result<Vec<Module>> {
    let layers = label(&image.config, kind.layers_label())?;
    let layers: ModuleLayers = json::from_str(layers).context(kind.layers_label())?;
    let package = label(&image.config, PACKAGE_METADATA)?;
    let package: PackageMetadata = json::from_str(package).context(PACKAGE_METADATA)?;
    let mut by_layer: BTreeMap<&str, Vec<ModuleName>> = BTreeMap::new();
    for (id, versions) in &layers {
        for (version, layer) in versions {
            let name = ModuleName::new(id, version).context(kind.layers_label())?;
            by_layer.entry(&layer.layer_diff_id).or_default().push(name);
        }
    }
    let mut modules = Vec::new();
    for (diff_id, names) in by_layer {
        let id: DiffId = diff_id.parse().context(kind.layers_label())?;
        let layer = image.layer(&id).with_context(|| format!("it has no layer {diff_id}"))?;
        modules.extend(of_layer(kind, &layer, &names, watch)?);
    }
    let is_main = |module: &Module| {
        module.name.id() == package.facts.id && module.name.version() == package.facts.version
    };
    modules.sort_by(|a, b| (!is_main(a), &a.name).cmp(&(!is_main(b), &b.name)));
    if !modules.first().is_some_and(is_main) {
        let (id, version) = (&package.facts.id, &package.facts.version);
        bail!("its labels do not fit: `{PACKAGE_METADATA}` names `{id}@{version}`, which is in no layer");
    }
    Ok(modules)
}

/// The modules in a layer, which may have nothing else.
fn of_layer(
    kind: ModuleKind,
    layer: &ImageLayer,
    names: &[ModuleName],
    watch: &dyn Watch,
) -> Result<Vec<Module>> {
    let dirs: Vec<String> = names.iter().map(|name| name.dir(kind)).collect();
    let mut seen: Vec<Seen> = names.iter().map(|_| Seen::default()).collect();
    let mut guard = Guard::default();
    layer::entries(layer, watch, &mut |_, mut member| {
        let refused = |reason| SourceError::entry(member.entry.name, reason);
        let path = guard.admit(member.entry.name, &member.entry.kind).map_err(refused)?;
        let below = |dir: &String| {
            let rest = path.strip_prefix(dir.as_bytes())?;
            if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"/") }
        };
        let is_dir = member.entry.kind == Kind::Dir;
        match dirs.iter().enumerate().find_map(|(at, dir)| Some((at, below(dir)?))) {
            Some((_, [])) if !is_dir => return Err(refused("is no folder").into()),
            Some((at, inside)) => match member.entry.kind {
                Kind::File { .. } => seen[at].see(kind, inside, &mut member.contents)?,
                _ => seen[at].has_build |= !is_dir && inside == b"bin/build",
            },
            None => {
                let is_above = |dir: &String| {
                    path.is_empty()
                        || dir.as_bytes().strip_prefix(&*path).is_some_and(|rest| rest.starts_with(b"/"))
                };
                if !is_dir || !dirs.iter().any(is_above) {
                    return Err(refused("lies in no folder of a buildpack that the labels name").into());
                }
            }
        }
        Ok(())
    })?;
    let module = |(name, seen): (&ModuleName, Seen)| {
        let module =
            seen.module(kind, Content::Layer(Box::new(layer.clone()))).with_context(|| name.to_string())?;
        if module.name == *name {
            Ok(module)
        } else {
            bail!("the label `{}` says `{name}`, but there is `{}`", kind.layers_label(), module.name)
        }
    };
    names.iter().zip(seen).map(module).collect()
}
