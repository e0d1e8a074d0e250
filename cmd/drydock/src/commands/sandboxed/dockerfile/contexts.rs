//! The folders that files come from: the context of the build, what other stages have come to, and images.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use drydock_extend::in_place::{self, Context, copy_path, digest_of_path};
use drydock_extend::plan::From;
use drydock_io::file::TempFile;
use drydock_layout::Image;
use drydock_model::digest::Digest;
use drydock_model::platform::Platform;
use drydock_sandbox::roots::Root;
use drydock_sandbox::tree::{self, Tree};

use super::super::Shop;
use super::Task;
use crate::progress::Progress;

/// What a stage has come to, as folders one over the other, the topmost first.
pub(super) type Stack = Vec<PathBuf>;

/// Those of one build.
pub(super) struct Contexts<'a> {
    shop: &'a Shop,
    task: &'a Task<'a>,
    progress: &'a Progress,
    /// The stages that are done.
    stages: Vec<Stack>,
    opened: BTreeMap<From, Opened>,
    images: BTreeMap<String, (Image, Root)>,
    /// Copies of parts of the context, by their paths there.
    copies: BTreeMap<String, PathBuf>,
    /// Of what does not change any more: copies, and parts of other contexts.
    digests: BTreeMap<(From, String), Digest>,
    /// Files that were downloaded for the step that is done, by their addresses.
    downloads: HashMap<String, TempFile>,
    count: usize,
}

struct Opened {
    context: Context,
    path: PathBuf,
    _tree: Option<Tree>,
}

impl<'a> Contexts<'a> {
    pub(super) fn new(shop: &'a Shop, task: &'a Task<'a>, progress: &'a Progress) -> Self {
        Self {
            shop,
            task,
            progress,
            stages: Vec::new(),
            opened: BTreeMap::new(),
            images: BTreeMap::new(),
            copies: BTreeMap::new(),
            digests: BTreeMap::new(),
            downloads: HashMap::new(),
            count: 0,
        }
    }

    /// A folder of its own in the session.
    pub(super) fn folder(&mut self, kind: &str) -> Result<PathBuf> {
        self.count += 1;
        self.shop.session.make(&format!("{kind}/{}", self.count))
    }

    /// Adds the stage that comes next.
    pub(super) fn add_stage(&mut self, stack: Stack) {
        self.stages.push(stack);
    }

    /// What a stage has come to.
    pub(super) fn stage(&self, number: usize) -> Result<&Stack> {
        self.stages.get(number).context("a stage is done before those that need it")
    }

    /// An image, and its files.
    pub(super) fn image(&mut self, name: &str, platform: Option<&Platform>) -> Result<(&Image, &Path)> {
        let key = platform.map_or_else(|| name.to_owned(), |platform| format!("{name} {platform}"));
        if !self.images.contains_key(&key) {
            let image = (self.task.image)(name, platform).with_context(|| format!("image `{name}`"))?;
            let root =
                self.shop.unpacked(&image, self.progress).with_context(|| format!("image `{name}`"))?;
            self.images.insert(key.clone(), (image, root));
        }
        let (image, root) = self.images.get(&key).context("it was put there")?;
        Ok((image, &root.files))
    }

    /// Where a file or folder of a context is, for a mount. What is left out of the context of the build is not there.
    pub(super) fn find(&mut self, from: &From, source: &str) -> Result<PathBuf> {
        if *from != From::Context {
            let root = &self.open_files(from)?.path;
            return tree::find(root, source).with_context(|| format!("`{source}` is not there"));
        }
        if let Some(copy) = self.copies.get(source) {
            return Ok(copy.clone());
        }
        let dir = self.folder("binds")?;
        let digest = copy_path(&mut self.open_files(from)?.context, source, &dir, COPY)?;
        self.digests.insert((from.clone(), source.to_owned()), digest);
        let copy = dir.join(COPY);
        self.copies.insert(source.to_owned(), copy.clone());
        Ok(copy)
    }

    fn open_files(&mut self, from: &From) -> Result<&mut Opened> {
        if !self.opened.contains_key(from) {
            let (path, tree) = match from {
                From::Context => (self.task.context.to_owned(), None),
                From::Image(name) => (self.image(name, None)?.1.to_owned(), None),
                From::Stage(number) => {
                    let at = self.folder("stages")?;
                    let stack = self.stage(*number)?;
                    let lowers: Vec<&Path> = stack.iter().map(PathBuf::as_path).collect();
                    let tree = Tree::stacked(&lowers, None, &at, &self.shop.room)?;
                    (tree.path().to_owned(), Some(tree))
                }
            };
            let context = match from {
                From::Context => Context::open(&path, self.task.ignore.clone())
                    .map(|context| context.without(self.task.without.to_owned())),
                From::Image(_) | From::Stage(_) => Context::of_root(&path),
            };
            let context = context?.while_going(self.progress.going());
            self.opened.insert(from.clone(), Opened { context, path, _tree: tree });
        }
        self.opened.get_mut(from).context("it was put there")
    }

    /// Removes what was downloaded for a step.
    pub(super) fn forget_downloads(&mut self) {
        self.downloads.clear();
    }
}

/// What a copy of a part of the context is called.
const COPY: &str = "copy";

impl in_place::Contexts for Contexts<'_> {
    fn open(&mut self, from: &From) -> Result<&mut Context> {
        Ok(&mut self.open_files(from)?.context)
    }

    fn download(&mut self, url: &str) -> Result<File> {
        if !self.downloads.contains_key(url) {
            let dir = self.shop.session.make("downloads")?;
            self.downloads.insert(url.to_owned(), (self.task.download)(url, &dir)?);
        }
        let file = self.downloads.get(url).context("it was put there")?;
        File::open(file.path()).context("cannot open what was downloaded")
    }

    fn mounted(&mut self, from: &From, path: &str) -> Result<Digest> {
        let part = (from.clone(), path.to_owned());
        if let Some(digest) = self.digests.get(&part) {
            return Ok(*digest);
        }
        let digest = digest_of_path(&mut self.open_files(from)?.context, path)?;
        if *from != From::Context {
            self.digests.insert(part, digest);
        }
        Ok(digest)
    }
}
