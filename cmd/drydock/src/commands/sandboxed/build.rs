//! `drydock build`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use drydock_encode::compress::Compression;
use drydock_images::Repository;
use drydock_images::builder::given::{Finder, Place};
use drydock_io::access::User;
use drydock_io::dir::Dir;
use drydock_io::file::TempFile;
use drydock_io::lock::Identity;
use drydock_io::read::read_all;
use drydock_io::way::{self, Links};
use drydock_layout::Image;
use drydock_model::digest::Digest;
use drydock_sandbox::bundle::Mount;
use drydock_sandbox::room::Room;
use drydock_sandbox::tree::{self, Above, Tree};
use drydock_spec::group::{Group, GroupElement};
use drydock_spec::module::BUILDER_METADATA;
use drydock_spec::toml_text;
use serde_json::{Value, json};

use super::extend::{Extended, Extensions, Wanted};
use super::inputs::{Inputs, builder_user};
use super::lifecycle::Lifecycle;
use super::modules::Modules;
use super::order::{Choice, Elsewhere, of_builder};
use super::steps::{LAYOUT_REPO, Phase, Steps, inner_name, make_bare, refuse_hiding, run_images};
use super::{Context, Shop, builder};
use crate::cli_sandboxed::Build;
use crate::commands::builder as builders;
use crate::commands::export::{export, is_to_stdout};
use crate::env;
use crate::exit::Usage;
use crate::output::{bytes, printable};
use crate::progress::{Progress, eprint_line};
use crate::rules::Rules;

/// Bytes that a file may have which a phase writes, and which is read here.
const MAX_FILE: u64 = 16 << 20;

/// The phases where the builder is not trusted.
const APART: [Phase; 5] = [Phase::Analyze, Phase::Detect, Phase::Restore, Phase::Build, Phase::Export];

/// How long a phase took.
type Timed = (Phase, Duration);

pub(crate) fn build(context: &mut Context, room: Room, rules: &Rules, options: &Build) -> Result<u8> {
    let began = Instant::now();
    let name = context.repository.locate(&options.name)?;
    refuse_hiding(options)?;
    if options.output.iter().any(is_to_stdout) {
        let why = "an archive on standard output would stand among what the phases say: name a file";
        return Err(Usage(why.to_owned()).into());
    }
    let builder = builder(&context.repository, options)?;
    let lifecycle = Lifecycle::find(options, &builder.config)?;
    let user = builder_user(options, &builder.config)?;
    refuse_replacing(&context.repository, options, options.builder()?, "builder")?;
    if let Some(name) = &options.run_image {
        refuse_replacing(&context.repository, options, name, "run image")?;
    }
    let dir = context.repository.dir().path();
    let repository = fs::canonicalize(dir)
        .with_context(|| format!("cannot find the layout repository `{}`", dir.display()))?;
    let inner = |name: &str| inner_name(&context.repository.locate(name)?, &repository);
    let names: Vec<String> =
        [&options.name].into_iter().chain(&options.tag).map(|name| inner(name)).collect::<Result<_>>()?;
    let run_image = options.run_image.as_deref().map(inner).transpose()?;
    let previous_image = options.previous_image.as_deref().map(inner).transpose()?;

    let progress = &context.progress;
    warn_of_keys(options, progress);
    let shop = Shop::open(room, &options.sandboxed, &[], progress)?;
    let unpacked = shop.unpacked(&builder, progress)?;
    for name in run_images(&unpacked.files)? {
        refuse_replacing(&context.repository, options, &name, "run image")?;
    }
    let waiting = format!("waiting for another build of `{name}`");
    let inputs = Inputs::make(&shop, options, &name, user, &progress.waiting(&waiting), progress)?;
    let how = builders::options(Compression::default(), &options.platform);
    let dir = shop.session.make("modules")?;
    let finder = Finder::new(&context.repository, &how, &dir, progress);
    let mut modules = Modules::new(&shop, rules, progress, finder, dir.clone());
    let order = Choice {
        builder: &unpacked.files,
        is_image: &|name| context.repository.open(name).is_ok(),
        bring: &mut |kind, elsewhere| {
            if let Elsewhere::At(Place::Image(name)) = elsewhere {
                refuse_replacing(&context.repository, options, name, "buildpack package")?;
            }
            modules.bring(kind, elsewhere)
        },
    };
    let order = order.order(options)?;
    let own = if order.is_none() { of_builder(&unpacked.files)? } else { None };
    if order.is_none() && own.is_none() && builder.config.label(BUILDER_METADATA).is_none() {
        let name = options.builder()?;
        bail!("`{name}` is no builder: it has no label `{BUILDER_METADATA}`, and no /cnb/order.toml");
    }
    // An order that is not known may have some.
    let may_extend = order.as_ref().or(own.as_ref()).is_none_or(|order| !order.order_extensions.is_empty());
    if let Some(order) = order {
        let path = inputs.layers.join("order.toml");
        fs::write(&path, toml_text::to_string(&order)?)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    let (buildpacks, roots) = modules.into_mounts();
    let mut steps = Steps {
        options,
        inputs: &inputs,
        user,
        network: shop.network.clone(),
        env: builder.config.config.env.clone(),
        build_image: None,
        extended: None,
        repository: &repository,
        lifecycle,
        names,
        run_image,
        previous_image,
        buildpacks,
        quiet: context.quiet,
        color: io::stdout().is_terminal() && !env::no_color() && !context.json,
    };
    let before = context.repository.image(&options.name, &options.platform.get()).ok();
    let mut timed = Vec::new();
    // The creator extends nothing.
    let phases = if options.trust_builder && !may_extend { vec![Phase::Create] } else { APART.to_vec() };
    let code = Run { context, shop: &shop, builder: &unpacked.files, may_extend, began }
        .run(&mut steps, phases, &mut timed);
    if let Err(error) = inputs.kept.take(&inputs.layers, &inputs.cache, user) {
        progress.say(&format!("warning: layers are not kept for the next build: {error:#}"));
    }
    let code = code?;
    if code == 0 {
        keep(options, &inputs, &repository)?;
    }
    drop(inputs);
    drop((unpacked, roots));
    shop.end()?;
    if code != 0 {
        return Ok(code);
    }
    for target in &options.output {
        export(context, rules, &options.name, target, None)?;
    }
    tell(context, options, before.as_ref(), &timed, began.elapsed())?;
    Ok(0)
}

fn warn_of_keys(options: &Build, progress: &Progress) {
    let Some((path, keys)) = &options.unknown_keys else { return };
    // One line, however many they are.
    let keys: String = format!("`{}`", keys.join("`, `")).chars().take(500).collect();
    let text =
        format!("warning: `{}` has keys that mean nothing in its schema version: {keys}", path.display());
    progress.say(&printable(&text));
}

/// The app has a name of its own: not that of an image that it is made with.
fn refuse_replacing(repository: &Repository, options: &Build, used: &str, what: &str) -> Result<()> {
    // What is no name is nobody's, and the phases say so.
    let Ok(used) = repository.locate(used) else { return Ok(()) };
    for name in [&options.name].into_iter().chain(&options.tag) {
        if is_same(repository.locate(name)?.path().path(), used.path().path()) {
            let text = format!(
                "`{name}` is the {what} of this build, which the app would replace: name it otherwise"
            );
            return Err(Usage(text).into());
        }
    }
    Ok(())
}

/// Whether two paths are one place, or lead there.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other || Identity::of(one).is_ok_and(|one| Identity::of(other).is_ok_and(|other| one == other))
}

/// The phases of a build on their way.
struct Run<'a> {
    context: &'a Context,
    shop: &'a Shop,
    /// The builder's files.
    builder: &'a Path,
    /// Whether there can be extensions, whatever the group says in which buildpacks may have written.
    may_extend: bool,
    began: Instant,
}

impl Run<'_> {
    /// Runs the phases; gives the exit code of the one that fails.
    fn run(&self, steps: &mut Steps<'_>, mut phases: Vec<Phase>, timed: &mut Vec<Timed>) -> Result<u8> {
        let (shop, progress, repository) = (self.shop, &self.context.progress, steps.repository);
        let (mut extensions, mut wanted) = (None, Vec::new());
        // What lies on the builder's files, and what else must stay there.
        let mut extended: Vec<(Phase, Extended)> = Vec::new();
        let mut number = 0;
        while let Some(phase) = phases.get(number).copied() {
            number += 1;
            self.announce(phase, number, phases.len());
            let start = Instant::now();
            let own = Own::read(&steps.inputs.layers, phase)?;
            let code = if let Some(at) = wanted.iter().position(|one: &Wanted| one.phase == phase) {
                let extensions: &Extensions<'_> = extensions.as_ref().context("there are extensions")?;
                let mut run = |root: &Path, mounts| self.sandbox(steps, phase, root, mounts);
                match extensions.extend(&wanted[at], &mut run)? {
                    Ok(one) => {
                        extended.push((phase, one));
                        0
                    }
                    Err(code) => code,
                }
            } else {
                let on_builder = extended.iter().find(|(phase, _)| *phase == Phase::ExtendBuild);
                self.phase(steps, phase, on_builder.map(|(_, one)| one.files()).as_deref())?
            };
            timed.push((phase, start.elapsed()));
            if let Some(code) = progress.signals.exit_code() {
                return Ok(code);
            }
            if code != 0 {
                progress.say(&format!("error: the {} failed with exit code {code}", phase.name()));
                if !phase.is_foreign() && !phase.extends() {
                    let here = repository.display().to_string();
                    progress.say(&format!("note: what it calls `{LAYOUT_REPO}` is `{}`", printable(&here)));
                }
                return Ok(code);
            }
            match (phase, extended.last()) {
                (Phase::Detect, _) => {
                    remove_links(&steps.inputs.layers)?;
                    let group =
                        if self.may_extend { group_extensions(&steps.inputs.layers)? } else { Vec::new() };
                    // These may name another run image.
                    if group.is_empty() {
                        own.put_back(progress)?;
                    } else {
                        steps.build_image = Some(steps.inner_builder(&self.context.repository)?);
                        let (inputs, options) = (steps.inputs, steps.options);
                        extensions =
                            Some(Extensions::of(shop, progress, inputs, &group, repository, options));
                    }
                }
                (Phase::Restore, _) => {
                    wanted = extensions.as_ref().map(Extensions::wanted).transpose()?.unwrap_or_default();
                    phases.splice(number..number, wanted.iter().map(|one| one.phase));
                }
                (Phase::Build, _) => own.put_back(progress)?,
                (Phase::ExtendBuild, Some((_, one))) => steps.env = one.env()?,
                (Phase::ExtendRun, Some((_, one))) => steps.extended = Some(one.files()),
                _ => {}
            }
        }
        Ok(0)
    }

    fn announce(&self, phase: Phase, number: usize, count: usize) {
        if self.context.json {
            eprint_line(&json!({"event": "phase", "phase": phase.name()}).to_string());
        } else if !self.context.quiet {
            let title = format!("[{number}/{count}] {}", phase.name());
            self.context.progress.say(&format!("{title} ({:.1} s)", self.began.elapsed().as_secs_f64()));
        }
    }

    /// Runs a phase; `on_builder` is what extensions have put on the builder's files.
    fn phase(&self, steps: &Steps<'_>, phase: Phase, on_builder: Option<&Path>) -> Result<u8> {
        let (shop, progress) = (self.shop, &self.context.progress);
        if matches!(phase, Phase::Restore | Phase::Create) {
            steps.inputs.kept.give(&steps.inputs.layers, steps.user)?;
        }
        if !phase.is_in_builder() {
            let dir = shop.session.make(&format!("{}/root", phase.name()))?;
            make_bare(&dir, self.builder)?;
            return self.sandbox(steps, phase, &dir, Vec::new());
        }
        let files = match on_builder {
            None => shop.tree(self.builder, phase.name(), progress)?,
            Some(written) => {
                let make = |part: &str| shop.session.make(&format!("{}/{part}", phase.name()));
                let above = Above { upper: make("upper")?, work: make("work")? };
                Tree::stacked(&[written, self.builder], Some(&above), &make("root")?, &shop.room)?
            }
        };
        self.sandbox(steps, phase, files.path(), Vec::new())
    }

    /// Runs a phase on these files, with further mounts; gives its exit code.
    fn sandbox(&self, steps: &Steps<'_>, phase: Phase, root: &Path, further: Vec<Mount>) -> Result<u8> {
        let stdout = if self.context.json { standard_error()? } else { Stdio::inherit() };
        let streams = (Stdio::null(), stdout, Stdio::inherit());
        let mut sandbox = steps.sandbox(phase, root);
        sandbox.mounts.extend(further);
        let ended = self.shop.run(&sandbox, phase.name(), &self.context.progress, streams)?;
        if ended.timed_out {
            let limit = steps.options.timeout.unwrap_or_default().as_secs();
            bail!("the build is stopped in the {}: {limit} s are over (--timeout)", phase.name());
        }
        Ok(ended.code)
    }
}

/// What phases have written to the layers directory for later ones, where a phase runs buildpacks that may change it.
struct Own<'a> {
    layers: &'a Path,
    files: Vec<(&'static str, String)>,
}

impl<'a> Own<'a> {
    fn read(layers: &'a Path, phase: Phase) -> Result<Self> {
        let names: &[&str] = match phase {
            Phase::Detect => &["analyzed.toml"],
            Phase::Build => &["analyzed.toml", "group.toml"],
            _ => &[],
        };
        let read = |name: &&'static str| {
            let failed = || format!("cannot read {name} in `{}`", layers.display());
            let text = tree::read(layers, name, MAX_FILE).with_context(failed)?;
            Ok((*name, text.context("it is no text of a phase").with_context(failed)?))
        };
        Ok(Self { layers, files: names.iter().map(read).collect::<Result<_>>()? })
    }

    fn put_back(&self, progress: &Progress) -> Result<()> {
        for (name, before) in &self.files {
            // A link leads phases elsewhere than those who look from outside.
            let open = Dir::open(self.layers).and_then(|layers| layers.place(name).open());
            let found = open.and_then(|file| read_all(file, MAX_FILE));
            // Its mode, too, is as before.
            write_below(self.layers, Path::new(name), &mut before.as_bytes())?;
            // What cannot be read is not what it was.
            if found.is_ok_and(|found| found == before.as_bytes()) {
                continue;
            }
            progress.say(&format!("warning: a buildpack has changed {name}, which is as before again"));
        }
        Ok(())
    }
}

/// Removes links that lie in the layers directory itself: no phase has made them, and later ones would write to where they lead.
fn remove_links(layers: &Path) -> Result<()> {
    let remove = || -> io::Result<()> {
        let dir = Dir::open(layers)?;
        for place in dir.names()?.into_iter().map(|name| dir.place(name)) {
            if place.is_link()? {
                place.remove()?;
            }
        }
        Ok(())
    };
    remove().with_context(|| format!("cannot remove links in `{}`", layers.display()))
}

fn standard_error() -> Result<Stdio> {
    let copy = io::stderr().as_fd().try_clone_to_owned().context("cannot hand on standard error")?;
    Ok(Stdio::from(copy))
}

/// The extensions that take part.
fn group_extensions(layers: &Path) -> Result<Vec<GroupElement>> {
    let text = tree::read(layers, "group.toml", MAX_FILE)
        .with_context(|| format!("cannot read group.toml in `{}`", layers.display()))?
        .unwrap_or_default();
    let group: Group = toml_text::from_str(&text).context("cannot parse group.toml")?;
    Ok(group.group_extensions)
}

/// Copies what the user wants besides the image. What buildpacks have put there may be anything, and others may write to where it
/// goes: no link is followed.
fn keep(options: &Build, inputs: &Inputs, repository: &Path) -> Result<()> {
    if let Some(dir) = &options.report_output_dir {
        let text = tree::read(&inputs.layers, "report.toml", MAX_FILE).context("cannot read report.toml")?;
        let text = text.context("the exporter has written no report.toml")?;
        let mut report: Value = toml_text::from_str(&text).context("cannot parse report.toml")?;
        for tag in report["image"]["tags"].as_array_mut().into_iter().flatten() {
            // Where it is for those who read this.
            let below = tag.as_str().and_then(|tag| Path::new(tag).strip_prefix(LAYOUT_REPO).ok());
            if let Some(path) = below.map(|below| repository.join(below)) {
                *tag = json!(path.display().to_string());
            }
        }
        write_below(dir, Path::new("report.toml"), &mut toml_text::to_string(&report)?.as_bytes())?;
    }
    if let Some(dir) = &options.sbom_output_dir {
        drydock_io::file::make_dirs(dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
        copy_files(&inputs.layers, Path::new("sbom"), dir, Path::new(""), 0)?;
    }
    Ok(())
}

/// Writes a file below a folder, which is made with all that is missing of its path.
fn write_below(dir: &Path, below: &Path, content: &mut dyn io::Read) -> Result<()> {
    let mut write = || -> io::Result<()> {
        drydock_io::file::make_dirs(dir)?;
        let (parent, name) = (below.parent().unwrap_or(Path::new("")), below.file_name().unwrap_or_default());
        let parent = way::open(File::open(dir)?, parent, Links::None, Some(User::current()))?;
        // By the handle, whatever has its name meanwhile.
        let parent = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
        let mut file = TempFile::create_in(&parent)?;
        io::copy(content, file.file())?;
        file.persist(&parent.join(name))
    };
    write().with_context(|| format!("cannot write `{}`", dir.join(below).display()))
}

/// Copies the files below a folder of the layers directory, `from`, to where `below` leads from `dir`.
fn copy_files(layers: &Path, from: &Path, dir: &Path, below: &Path, depth: usize) -> Result<()> {
    // <layers>/sbom/launch/<buildpack>/<layer>/<file>
    const MAX_DEPTH: usize = 4;
    const MAX_NAMES: usize = 10_000;
    let failed = || format!("cannot read `{}`", from.display());
    for name in tree::list(layers, &from.display().to_string(), MAX_NAMES).with_context(failed)? {
        let (from, below) = (from.join(&name), below.join(&name));
        if let Some(mut content) = tree::file(layers, &from.display().to_string()).with_context(failed)? {
            write_below(dir, &below, &mut content)?;
        } else if depth < MAX_DEPTH {
            copy_files(layers, &from, dir, &below, depth + 1)?;
        }
    }
    Ok(())
}

/// Says what came of it.
fn tell(
    context: &mut Context,
    options: &Build,
    before: Option<&Image>,
    timed: &[Timed],
    total: Duration,
) -> Result<()> {
    let image = context.repository.image(&options.name, &options.platform.get())?;
    let known: BTreeSet<Digest> =
        before.iter().flat_map(|image| image.layers()).map(|layer| layer.descriptor.digest).collect();
    let layers: Vec<_> = image.layers().map(|layer| layer.descriptor).collect();
    let reused = layers.iter().filter(|layer| known.contains(&layer.digest)).count();
    let (added, size) = (layers.len() - reused, layers.iter().map(|layer| layer.size).sum::<u64>());
    let digest = image.digest();
    if context.json {
        let seconds = |(phase, time): &Timed| json!({"phase": phase.name(), "seconds": time.as_secs_f64()});
        let phases: Vec<_> = timed.iter().map(seconds).collect();
        return context.out.json(&json!({
            "name": options.name, "digest": digest, "size": size,
            "layers": {"reused": reused, "added": added},
            "phases": phases, "seconds": total.as_secs_f64(),
        }));
    }
    if context.quiet {
        return context.out.line(&digest.to_string());
    }
    let by_phase: Vec<String> =
        timed.iter().map(|(phase, time)| format!("{} {:.1} s", phase.name(), time.as_secs_f64())).collect();
    context.out.line(&format!("{} is {digest}", printable(&options.name)))?;
    context.out.line(&format!(
        "  {} in {} layers: {reused} reused, {added} added",
        bytes(size),
        layers.len()
    ))?;
    context.out.line(&format!("  {:.1} s: {}", total.as_secs_f64(), by_phase.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_copied_whatever_is_in_them() {
        let dir = tempfile::tempdir().unwrap();
        let (layers, to) = (dir.path().join("layers"), dir.path().join("to"));
        fs::create_dir_all(layers.join("sbom/launch")).unwrap();
        let content = vec![0xff; usize::try_from(MAX_FILE).unwrap() + 1];
        fs::write(layers.join("sbom/launch/large"), &content).unwrap();
        copy_files(&layers, Path::new("sbom"), &to, Path::new(""), 0).unwrap();
        assert!(fs::read(to.join("launch/large")).unwrap() == content);
    }
}
