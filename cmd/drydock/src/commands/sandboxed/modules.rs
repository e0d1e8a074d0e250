//! Buildpacks and extensions that a build is given, made ready for its sandboxes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use drydock_images::builder::given::{Finder, Given, Place};
use drydock_io::read::is_dir;
use drydock_registry::sources::Kind;
use drydock_sandbox::bundle::Mount;
use drydock_sandbox::roots::Root;
use drydock_spec::buildpack::ModuleKind;
use drydock_spec::order::OrderElement;

use super::Shop;
use super::order::Elsewhere;
use crate::progress::Progress;
use crate::remote;
use crate::rules::Rules;

/// Those of one build.
pub(super) struct Modules<'a> {
    shop: &'a Shop,
    rules: &'a Rules,
    progress: &'a Progress,
    finder: Finder<'a>,
    /// The folder of this build for what is downloaded, unpacked and written for it.
    dir: PathBuf,
    count: usize,
    /// By the place where the phases look for them.
    mounts: BTreeMap<String, Mount>,
    /// Unpacked packages, which stay as long as these are not dropped.
    roots: Vec<Root>,
}

impl<'a> Modules<'a> {
    /// `dir` is a folder of the session.
    pub(super) fn new(
        shop: &'a Shop,
        rules: &'a Rules,
        progress: &'a Progress,
        finder: Finder<'a>,
        dir: PathBuf,
    ) -> Self {
        Self { shop, rules, progress, finder, dir, count: 0, mounts: BTreeMap::new(), roots: Vec::new() }
    }

    /// Makes one ready, with all that it consists of; gives its name.
    pub(super) fn bring(&mut self, kind: ModuleKind, elsewhere: &Elsewhere) -> Result<OrderElement> {
        self.count += 1;
        let dir = self.dir.join(self.count.to_string());
        drydock_io::file::make_dirs(&dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
        match elsewhere {
            Elsewhere::At(place) => {
                let given = self.finder.find(kind, place)?;
                self.add(&given, &dir)
            }
            Elsewhere::Inline(inline) => {
                let written = dir.join("inline");
                inline.write(&written)?;
                let given = self.finder.find(kind, &Place::Path(written))?;
                self.add(&given, &dir)
            }
            Elsewhere::Url(url) => {
                let by = self.rules.sources.permit(Kind::Archive, url)?;
                let registry = self.rules.registry(by)?;
                let download = || remote::download(&registry, url, &dir, self.progress);
                let file = self.progress.signals.at_once(download)?;
                let given = self.finder.find(kind, &Place::Path(file.path().to_owned()));
                self.add(&given.context("what was downloaded cannot be used")?, &dir)
            }
        }
    }

    fn add(&mut self, given: &Given, dir: &Path) -> Result<OrderElement> {
        let kind = given.kind();
        let main = given.names().next().context("something was found")?;
        let files = if let Some(image) = given.package() {
            let root = self.shop.unpacked(image, self.progress)?;
            let files = root.files.clone();
            self.roots.push(root);
            files
        } else {
            let files = dir.join("files");
            let above = files.join(main.parent_dir(kind));
            drydock_io::file::make_dirs(&above)
                .with_context(|| format!("cannot make `{}`", above.display()))?;
            given.place(&files.join(main.dir(kind)), self.progress)?;
            files
        };
        let found =
            |path: &Path| fs::canonicalize(path).with_context(|| format!("cannot find `{}`", path.display()));
        let root = found(&files)?;
        for name in given.names() {
            let inner = name.dir(kind);
            let from = found(&root.join(&inner))?;
            // What is mounted is this machine's: no link of a package may lead to anything else of it.
            let look_at = || format!("cannot look at `{}`", from.display());
            if from != root.join(&inner) || !is_dir(&from).with_context(look_at)? {
                bail!("`{name}` is no folder in its package");
            }
            let to = format!("/{inner}");
            self.mounts.insert(to.clone(), Mount { from, to, writable: false });
        }
        Ok(OrderElement { id: main.id().to_owned(), version: main.version().to_owned(), optional: false })
    }

    /// What sandboxes see of them, as long as the second is not dropped.
    pub(super) fn into_mounts(self) -> (Vec<Mount>, Vec<Root>) {
        (self.mounts.into_values().collect(), self.roots)
    }
}
