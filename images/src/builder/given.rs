//! Buildpacks and extensions that one build is given besides those of its builder.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use drydock_layout::{Image, Layout};
use drydock_spec::buildpack::ModuleKind;
use drydock_spec::module::ModuleName;

use super::module::{Content, Found, Loader};
use super::{Options, place};
use crate::repository::{Repository, absolute};
use crate::watch::Watch;

/// Where one comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A folder, an archive of one, or a package in a file.
    Path(PathBuf),
    /// A package in the repository, by its name.
    Image(String),
    /// A package in any layout: its folder, and which of the images there.
    Layout(PathBuf, Option<String>),
}

/// What was found: one, or those of a package.
#[derive(Debug)]
pub struct Given {
    kind: ModuleKind,
    found: Found,
}

/// Finds them.
pub struct Finder<'a> {
    repository: &'a Repository,
    options: &'a Options,
    watch: &'a dyn Watch,
    loader: Loader<'a>,
}

impl fmt::Debug for Finder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finder").field("repository", self.repository).finish_non_exhaustive()
    }
}

impl<'a> Finder<'a> {
    /// `scratch` is a folder for packages that are files: what is found of them is there as long as this is not dropped.
    pub fn new(
        repository: &'a Repository,
        options: &'a Options,
        scratch: &Path,
        watch: &'a dyn Watch,
    ) -> Self {
        let loader = Loader::new(repository, options, watch).with_scratch(scratch);
        Self { repository, options, watch, loader }
    }

    /// What is at a place, checked as for a builder.
    pub fn find(&mut self, kind: ModuleKind, place: &Place) -> Result<Given> {
        let found = match place {
            Place::Path(path) => self.loader.file(kind, path)?,
            Place::Image(name) => self.loader.image(kind, name)?,
            Place::Layout(dir, tag) => {
                let dir = absolute(dir)?;
                let name =
                    self.repository.locate(dir.to_str().context("the path of a layout is not UTF-8")?)?;
                let path = name.path().clone();
                let path = if let Some(tag) = tag { path.called(tag) } else { path };
                let image = Layout::open(&path)?.image(&self.options.platform)?;
                Found::of_package(kind, image, self.watch)
                    .with_context(|| format!("cannot use `{}`", dir.display()))?
            }
        };
        Ok(Given { kind, found })
    }
}

impl Given {
    /// The names of all that there is: first the one that was asked for, then those that it consists of.
    pub fn names(&self) -> impl Iterator<Item = &ModuleName> {
        self.found.modules.iter().map(|module| &module.name)
    }

    /// The image that has them where builders have them, if it is a package.
    pub fn package(&self) -> Option<&Image> {
        self.found.package.as_ref()
    }

    /// Makes the files of one that is no package, in a folder that is empty and nobody else's.
    pub fn place(&self, to: &Path, watch: &dyn Watch) -> Result<()> {
        for module in &self.found.modules {
            if let Content::Tree(tree) = &module.content {
                place::module(tree, to, watch)?;
            }
        }
        Ok(())
    }

    /// What they are.
    pub fn kind(&self) -> ModuleKind {
        self.kind
    }
}
