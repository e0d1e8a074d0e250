//! Buildpacks and extensions as they lie on disk: `<dir>/<id with _ for />/<version>/buildpack.toml`.
//!
//! Specification: `platform.md` § Buildpacks Directory Layout, `buildpack.md` § `buildpack.toml`.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use drydock_spec::api::{ApiError, BuildpackApi};
use drydock_spec::buildpack::{BuildpackToml, ExtensionToml, ModuleInfo, ModuleKind, ModuleTarget};
use drydock_spec::group::GroupElement;
use drydock_spec::order::OrderGroup;

use crate::file::{exists, read_toml};
use crate::{Error, Kind};

/// The folders of buildpacks and extensions.
#[derive(Debug, Clone)]
pub struct Store {
    /// Where buildpacks lie. Absolute.
    pub buildpacks_dir: PathBuf,
    /// Where extensions lie. Absolute.
    pub extensions_dir: PathBuf,
}

/// A buildpack or an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Which of the two.
    pub kind: ModuleKind,
    /// The ID by which it was looked up.
    pub id: String,
    /// The version by which it was looked up.
    pub version: String,
    /// Its folder.
    pub root_dir: PathBuf,
    /// The Buildpack API that it speaks, unchecked; see [`buildpack_api`].
    pub api: String,
    /// What it says of itself.
    pub info: ModuleInfo,
    /// What it consists of; empty unless it is a composite buildpack.
    pub order: Vec<OrderGroup>,
    /// What it is made for; empty if for everything.
    pub targets: Vec<ModuleTarget>,
}

impl Module {
    /// `<id>@<version>`.
    pub fn full_name(&self) -> String {
        format!("{}@{}", self.id, self.version)
    }

    /// The Buildpack API that it speaks, if this lifecycle does too.
    pub fn buildpack_api(&self) -> Result<BuildpackApi, Error> {
        buildpack_api(self.kind, &self.full_name(), &self.api)
    }
}

/// Reads a module's Buildpack API.
///
/// Fails with [`Kind::BuildpackApi`] if it is none that is supported.
pub fn buildpack_api(kind: ModuleKind, full_name: &str, api: &str) -> Result<BuildpackApi, Error> {
    api.parse().map_err(|error| {
        let error = match error {
            ApiError::Malformed { .. } => {
                anyhow!("failed to parse buildpack API '{api}' for {kind} '{full_name}'")
            }
            ApiError::Unsupported { .. } => {
                let name = match kind {
                    ModuleKind::Buildpack => "Buildpack",
                    ModuleKind::Extension => "Extension",
                };
                anyhow!(error).context(format!("failed to set API for {name} '{full_name}'"))
            }
        };
        let (oldest, newest) = (BuildpackApi::OLDEST, BuildpackApi::NEWEST);
        Error::new(Kind::BuildpackApi, error)
            .with_help(format!("this lifecycle supports Buildpack API {oldest} to {newest}"))
    })
}

impl Store {
    /// Reads a buildpack's or an extension's descriptor.
    pub fn load(&self, kind: ModuleKind, id: &str, version: &str) -> anyhow::Result<Module> {
        self.read(kind, id, version).with_context(|| format!("{kind} `{id}@{version}`"))
    }

    fn read(&self, kind: ModuleKind, id: &str, version: &str) -> anyhow::Result<Module> {
        let root_dir = match kind {
            ModuleKind::Buildpack => &self.buildpacks_dir,
            ModuleKind::Extension => &self.extensions_dir,
        };
        let root_dir = root_dir.join(dir_name(id)?).join(one_component(version, "version")?);
        let path = root_dir.join(kind.file_name());
        let has = |executable: &str| exists(&root_dir.join("bin").join(executable));
        let (api, info, order, targets) = match kind {
            ModuleKind::Buildpack => {
                let toml: BuildpackToml = read_toml(&path)?;
                let targets = toml.effective_targets(has("build")?);
                (toml.api, toml.buildpack, toml.order, targets)
            }
            ModuleKind::Extension => {
                let toml: ExtensionToml = read_toml(&path)?;
                let targets = toml.effective_targets(has("detect")? || has("generate")?);
                (toml.api, toml.extension, Vec::new(), targets)
            }
        };
        Ok(Module { kind, id: id.into(), version: version.into(), root_dir, api, info, order, targets })
    }
}

/// Whether this lifecycle can work for all buildpacks of a group that another phase wrote down.
pub fn check_group(group: &[GroupElement]) -> Result<(), Error> {
    for buildpack in group {
        buildpack_api(ModuleKind::Buildpack, &buildpack.full_name(), &buildpack.api)?;
        dir_name(&buildpack.id)?;
    }
    Ok(())
}

/// The name of the folder of a buildpack or an extension: its ID with `_` for `/`.
///
/// Fails if that is not the name of a folder, but leads elsewhere.
pub fn dir_name(id: &str) -> anyhow::Result<String> {
    let name = drydock_spec::module::dir_name(id);
    one_component(&name, "ID")?;
    Ok(name)
}

fn one_component<'a>(name: &'a str, what: &str) -> anyhow::Result<&'a Path> {
    let path = Path::new(name);
    match path.components().next() {
        Some(Component::Normal(only)) if only == path.as_os_str() && !name.contains('\0') => Ok(path),
        _ => bail!("{what} `{}` cannot be the name of a folder", name.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn store(dir: &Path) -> Store {
        Store { buildpacks_dir: dir.join("buildpacks"), extensions_dir: dir.join("extensions") }
    }

    #[test]
    fn modules_are_found_by_id_and_version() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            (
                "buildpacks/acme_node/1.0/buildpack.toml",
                "api='0.10'\n[buildpack]\nid='acme/node'\nclear-env=true\n",
            ),
            ("buildpacks/acme_node/1.0/bin/build", ""),
            ("extensions/e/2/extension.toml", "api='99.0'\n[extension]\nhomepage='h'\n"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let buildpack = store(dir.path()).load(ModuleKind::Buildpack, "acme/node", "1.0").unwrap();
        assert_eq!(buildpack.root_dir, dir.path().join("buildpacks/acme_node/1.0"));
        assert_eq!(buildpack.full_name(), "acme/node@1.0");
        assert!(buildpack.info.clear_env && buildpack.buildpack_api().is_ok());
        assert_eq!(buildpack.targets[0].os, "linux");

        let extension = store(dir.path()).load(ModuleKind::Extension, "e", "2").unwrap();
        assert_eq!((extension.info.homepage.as_str(), extension.targets.len()), ("h", 0));
        let error = extension.buildpack_api().unwrap_err();
        assert_eq!(error.kind, Kind::BuildpackApi);
        assert_eq!(error.help.as_deref(), Some("this lifecycle supports Buildpack API 0.7 to 0.12"));
        assert_eq!(
            error.to_string(),
            "failed to set API for Extension 'e@2': buildpack API version '99.0' is incompatible with the lifecycle"
        );

        let error = store(dir.path()).load(ModuleKind::Buildpack, "acme/zzz", "9").unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("`acme/zzz@9`") && text.contains("acme_zzz/9/buildpack.toml"), "{text}");
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        for (id, version) in [
            ("..", "1"),
            (".", "1"),
            ("", "1"),
            ("a\0b", "1"),
            ("a", ".."),
            ("a", "../.."),
            ("a", "/etc"),
            ("a", "1/2"),
            ("a", "1/"),
            ("a", "./1"),
            ("a", ""),
        ] {
            let error = store(Path::new("/nowhere")).load(ModuleKind::Buildpack, id, version).unwrap_err();
            assert!(
                format!("{error:#}").contains("cannot be the name of a folder"),
                "{id:?} {version:?}: {error:#}"
            );
        }
        assert_eq!(dir_name("../x").unwrap(), ".._x");
    }

    proptest! {
        #[test]
        fn a_folder_of_one_level_or_an_error(id in "[./a\\-\0é]{0,6}") {
            if let Ok(name) = dir_name(&id) {
                let path = Path::new("/x").join(name);
                prop_assert_eq!(path.parent(), Some(Path::new("/x")));
            }
        }
    }
}
