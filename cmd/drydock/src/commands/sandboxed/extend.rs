//! Image extensions: what they wrote is applied to the files of the builder and of the run image, by the extender in a sandbox of each.
//!
//! ```text
//! <cache>/roots/extended-<key>/files/   what was written to the builder's files, or the extended run image
//! <cache>/roots/extended-<key>/env      the variables of the extended builder
//! ```
//!
//! The key stands for the image and for all that extensions wrote, and for the app where their Dockerfiles may use it; where not, they do
//! not see it. A Dockerfile that asks for `build_id` wants to be carried out in each build.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use drydock_extend::in_place::{Context, digest_of_path};
use drydock_extend::language::IgnoreRules;
use drydock_io::dir::Dir;
use drydock_layout::{Change, Durability, Image, Layout, LinkMode, Transaction, read_blob};
use drydock_model::digest::Digest;
use drydock_model::reference::LayoutDir;
use drydock_sandbox::bundle::Mount;
use drydock_sandbox::roots::{self, Root};
use drydock_sandbox::tree::{self, Above, Tree};
use drydock_spec::analyzed::Analyzed;
use drydock_spec::build_log::IN_LAYERS;
use drydock_spec::group::GroupElement;
use drydock_spec::module::dir_name;
use drydock_spec::toml_text;
use rustix::fs::FileType;

use super::Shop;
use super::inputs::Inputs;
use super::steps::{LAYERS, LAYOUT_REPO, Phase};
use crate::cli_sandboxed::Build;
use crate::progress::Progress;

/// Bytes that a file may have which a phase writes.
const MAX_FILE: u64 = 16 << 20;

/// Where the extender sees the folder for what it makes.
pub(super) const EXTENDED: &str = "/extended";
/// The file there with the variables of the builder.
pub(super) const ENV: &str = "env";

/// What extensions make of the two images of a build.
pub(super) struct Extensions<'a> {
    shop: &'a Shop,
    progress: &'a Progress,
    inputs: &'a Inputs,
    /// Those that take part, in their order.
    ids: Vec<String>,
    repository: &'a Path,
    options: &'a Build,
}

/// An image that is to be extended, and what is known of that.
pub(super) struct Wanted {
    pub(super) phase: Phase,
    image: Image,
    /// Where the extender looks for it.
    inner: String,
    /// Whether a Dockerfile may use the app.
    sees_app: bool,
    /// None if it is to be done in any case.
    key: Option<String>,
}

/// What the extender made of an image. It stays there as long as this is not dropped.
pub(super) struct Extended {
    dir: PathBuf,
    _root: Option<Root>,
}

impl<'a> Extensions<'a> {
    /// Those of a group.
    pub(super) fn of(
        shop: &'a Shop,
        progress: &'a Progress,
        inputs: &'a Inputs,
        group: &[GroupElement],
        repository: &'a Path,
        options: &'a Build,
    ) -> Self {
        let ids = group.iter().map(|element| element.id.clone()).collect();
        Self { shop, progress, inputs, ids, repository, options }
    }

    /// The images that they want to be extended, as the phases before have found out.
    pub(super) fn wanted(&self) -> Result<Vec<Wanted>> {
        self.ids.iter().try_for_each(|id| self.refuse_links(id))?;
        let text = self.text("analyzed.toml")?.unwrap_or_default();
        let analyzed: Analyzed = toml_text::from_str(&text).context("cannot parse analyzed.toml")?;
        let mut wanted = Vec::new();
        let build = self.dockerfiles("build")?;
        if !build.is_empty() {
            let identifier =
                analyzed.build_image.context("the restorer has not found the builder")?.reference;
            wanted.push(self.one(Phase::ExtendBuild, &identifier, &build)?);
        }
        if let Some(run_image) = analyzed.run_image.filter(|image| image.extend) {
            wanted.push(self.one(Phase::ExtendRun, &run_image.reference, &self.dockerfiles("run")?)?);
        }
        Ok(wanted)
    }

    fn one(&self, phase: Phase, identifier: &str, dockerfiles: &[String]) -> Result<Wanted> {
        let failed = || format!("cannot find the image `{identifier}` that is to be extended");
        let (inner, _) = identifier.rsplit_once('@').with_context(failed)?;
        // Others may have written it.
        let below = Path::new(inner).strip_prefix(LAYOUT_REPO).ok();
        let is_below = |path: &&Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        let below = below.filter(is_below).with_context(failed)?;
        let dir = LayoutDir::new(self.repository)?;
        let outer = identifier.replacen(inner, &self.repository.join(below).display().to_string(), 1);
        let (path, digest) = dir.resolve_identifier(&outer)?;
        let image =
            Layout::open(&path).and_then(|layout| layout.image_by_digest(&digest)).with_context(failed)?;
        let uses_app = |text: &String| {
            let upper = text.to_ascii_uppercase();
            upper.contains("COPY") || upper.contains("ADD") || text.contains(&self.options.workspace)
        };
        let sees_app = dockerfiles.iter().any(uses_app);
        let is_known_by_key = !dockerfiles.iter().any(|text| text.contains("build_id"));
        let key = is_known_by_key.then(|| self.key(phase, &image, sees_app)).transpose()?;
        Ok(Wanted { phase, image, inner: inner.to_owned(), sees_app, key })
    }

    fn key(&self, phase: Phase, image: &Image, sees_app: bool) -> Result<String> {
        let Build { workspace, creation_time, .. } = self.options;
        let mut all = vec![format!("{} {} {workspace:?} {creation_time:?}", phase.name(), image.digest())];
        for id in &self.ids {
            if let Ok(dir) = tree::find(&self.inputs.layers, &format!("generated/{}", dir_name(id))) {
                all.push(format!("{id} {}", print(&dir)?));
            }
        }
        if sees_app {
            all.push(print(&self.inputs.workspace)?.to_string());
        }
        let all = all.join(" ");
        Ok(format!("extended-{}", Digest::of(all.as_bytes()).hex()))
    }

    /// Fails if the folder that an extension has filled, or something in it, is a link: the extender would read something else than what
    /// is read here. Below that, contexts may have links.
    fn refuse_links(&self, id: &str) -> Result<()> {
        let below = Path::new("generated").join(dir_name(id));
        let shown = || format!("cannot use what was generated in `{}`", below.display());
        let dir = Dir::open(&self.inputs.layers).and_then(|dir| dir.enter("generated")?.enter(dir_name(id)));
        let dir = match dir {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            dir => dir.with_context(shown)?,
        };
        for place in dir.names().with_context(shown)?.into_iter().map(|name| dir.place(name)) {
            if place.is_link().with_context(shown)? {
                bail!("`{}` is a link; put a file or a folder there", below.join(place.name()).display());
            }
        }
        Ok(())
    }

    /// The texts of all Dockerfiles for an image.
    fn dockerfiles(&self, kind: &str) -> Result<Vec<String>> {
        let read =
            |id: &String| self.text(&format!("generated/{}/{kind}.Dockerfile", dir_name(id))).transpose();
        self.ids.iter().filter_map(read).collect()
    }

    /// A file of the layers directory, in which others have written: no link leads out.
    fn text(&self, path: &str) -> Result<Option<String>> {
        tree::read(&self.inputs.layers, path, MAX_FILE).with_context(|| format!("cannot read {path}"))
    }

    /// Extends an image, unless that was done: `run` runs the extender on its files, with a mount for what it reads and one for what it
    /// makes, and gives its exit code.
    pub(super) fn extend(
        &self,
        wanted: &Wanted,
        run: &mut dyn FnMut(&Path, Vec<Mount>) -> Result<u8>,
    ) -> Result<Result<Extended, u8>> {
        let Wanted { phase, image, inner, sees_app, key } = wanted;
        let (cache, users) = (&self.shop.cache, self.shop.room.users());
        let users = users.context("cannot read the users of this namespace")?;
        let known = key.as_deref().filter(|_| !self.options.clear_cache);
        let kept = known.map(|key| roots::find(cache, key, &users)).transpose()?.flatten();
        if let Some(root) = kept {
            self.progress.say(&format!("{}: as in an earlier build", phase.name()));
            return Ok(Ok(Extended { dir: root.dir().to_owned(), _root: Some(root) }));
        }
        let base = self.shop.unpacked(image, self.progress)?;
        let make = |part: &str| self.shop.session.make(&format!("{}/{part}", phase.name()));
        let (output, result, at) = (make("made")?, make("result")?, make("root")?);
        let above = Above { upper: make("upper")?, work: make("work")? };
        let files = Tree::stacked(&[&base.files], Some(&above), &at, &self.shop.room)?;
        let mount =
            |from: &Path, to: &str, writable| Mount { from: from.to_owned(), to: to.to_owned(), writable };
        let app = if *sees_app { self.inputs.workspace.clone() } else { make("no-app")? };
        // What else is in the layers directory is no extension's to write.
        let (layers, log) = (&self.inputs.layers, self.inputs.layers.join(IN_LAYERS));
        let aside = Above { upper: make("layers-upper")?, work: make("layers-work")? };
        let seen = Tree::stacked(&[layers], Some(&aside), &make("layers")?, &self.shop.room)?;
        let mut mounts = vec![mount(seen.path(), LAYERS, true)];
        if fs::symlink_metadata(&log).is_ok_and(|facts| facts.is_file()) {
            mounts.push(mount(&log, &format!("{LAYERS}/{IN_LAYERS}"), true));
        }
        mounts.extend([
            mount(&alone(image, &make("image")?)?, inner, false),
            mount(&output, EXTENDED, true),
            mount(&app, &self.options.workspace, false),
        ]);
        let code = run(files.path(), mounts)?;
        drop((files, seen));
        if code != 0 {
            return Ok(Err(code));
        }
        let files = result.join("files");
        if *phase == Phase::ExtendBuild {
            move_to(&output.join(ENV), &result.join(ENV))?;
            move_to(&above.upper, &files)?;
        } else {
            move_to(&output.join("run"), &files)?;
        }
        // Programs of others have seen this folder: where it is mounted, no link must lead.
        if !fs::symlink_metadata(&files).is_ok_and(|facts| facts.is_dir()) {
            bail!("the extender has written no extended image");
        }
        if *phase == Phase::ExtendRun
            && let Some(link) = find_link(&files)?
        {
            bail!("a program of an extension has put a link into the extended image: `{}`", link.display());
        }
        let Some(key) = key else { return Ok(Ok(Extended { dir: result, _root: None })) };
        let put = roots::put(cache, &users, &[(key.clone(), result)])?;
        let root = put.into_iter().next().context("one folder was put there")?;
        Ok(Ok(Extended { dir: root.dir().to_owned(), _root: Some(root) }))
    }
}

impl Extended {
    /// What was written to the builder's files, or the extended run image.
    pub(super) fn files(&self) -> PathBuf {
        self.dir.join("files")
    }

    /// The variables of an extended builder.
    pub(super) fn env(&self) -> Result<Vec<String>> {
        let text =
            tree::read(&self.dir, ENV, MAX_FILE).context("cannot read the extended builder's variables")?;
        let text = text.context("the extender has not written the extended builder's variables")?;
        Ok(text.split_terminator('\0').map(str::to_owned).collect())
    }
}

/// A layout in the folder `dir` with this image alone, and without its layers: of these an extender needs nothing, and
/// whoever can write to the repository may have put anything where the image lies.
fn alone(image: &Image, dir: &Path) -> Result<PathBuf> {
    let dir = LayoutDir::new(dir)?;
    let path = dir.resolve("image")?;
    let (names, link) = (std::slice::from_ref(&path), LinkMode::Copy);
    let transaction = Transaction::begin(&dir, names, link, Durability::InMemory, &|_| {})?;
    for blob in [&image.descriptor, &image.manifest.config] {
        transaction.put_bytes(&blob.media_type, &read_blob(image.layout(), blob)?)?;
    }
    let layers = image.layers().map(|layer| layer.descriptor.digest).collect();
    let prepared = transaction.prepare(&[Change::Name(image.descriptor.clone())], &layers)?;
    match prepared.publish()? {
        Some(left) => Err(left.into()),
        None => Ok(path.path().to_owned()),
    }
}

fn find_link(dir: &Path) -> Result<Option<PathBuf>> {
    let failed = || format!("cannot read `{}`", dir.display());
    let mut walk = drydock_tar::Walk::new(dir, File::open(dir).with_context(failed)?.into())?;
    while let Some(found) = walk.find_next().with_context(failed)? {
        if found.file_type == FileType::Symlink {
            let below = Path::new(OsStr::from_bytes(found.path));
            return Ok(Some(below.join(OsStr::from_bytes(found.leaf))));
        }
    }
    Ok(None)
}

fn move_to(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot move `{}`", from.display()))
}

/// The digest of all that is in a folder.
fn print(dir: &Path) -> Result<Digest> {
    let failed = || format!("cannot read `{}`", dir.display());
    let mut context = Context::open(dir, IgnoreRules::default()).with_context(failed)?;
    digest_of_path(&mut context, "/").with_context(failed)
}
