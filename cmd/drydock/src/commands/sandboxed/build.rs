//! `drydock build`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use drydock_encode::compress::Compression;
use drydock_images::Watch as _;
use drydock_images::builder::given::Finder;
use drydock_io::file::write_atomically;
use drydock_layout::Image;
use drydock_model::digest::Digest;
use drydock_sandbox::room::Room;
use drydock_sandbox::tree;
use drydock_spec::group::{Group, GroupElement};
use drydock_spec::toml_text;
use serde_json::json;

use super::inputs::{Inputs, builder_user};
use super::lifecycle::Lifecycle;
use super::modules::Modules;
use super::order::Choice;
use super::steps::{Phase, Steps, inner_name, make_bare};
use super::{Context, Shop, builder};
use crate::cli_sandboxed::Build;
use crate::commands::builder as builders;
use crate::commands::export::export;
use crate::env;
use crate::output::{bytes, printable};
use crate::progress::eprint_line;
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
    let builder = builder(&context.repository, options)?;
    let lifecycle = Lifecycle::find(options, &builder.config)?;
    let user = builder_user(options, &builder.config)?;
    let repository =
        fs::canonicalize(context.repository.dir().path()).context("cannot find the layout repository")?;
    let inner = |name: &str| inner_name(&context.repository.locate(name)?, &repository);
    let names: Vec<String> =
        [&options.name].into_iter().chain(&options.tag).map(|name| inner(name)).collect::<Result<_>>()?;
    let run_image = options.run_image.as_deref().map(inner).transpose()?;
    let previous_image = options.previous_image.as_deref().map(inner).transpose()?;

    let progress = &context.progress;
    let shop = Shop::open(room, &options.sandboxed, &[], progress)?;
    let unpacked = shop.unpacked(&builder, progress)?;
    let waiting = || progress.note(&format!("waiting for another build of `{name}`"));
    let inputs = Inputs::make(&shop, options, &name, user, &waiting, progress)?;
    let how = builders::options(Compression::default(), &options.platform);
    let dir = shop.session.make("modules")?;
    let finder = Finder::new(&context.repository, &how, &dir, progress);
    let mut modules = Modules::new(&shop, rules, progress, finder, dir.clone());
    let order = Choice {
        builder: &unpacked.files,
        is_image: &|name| context.repository.open(name).is_ok(),
        bring: &mut |kind, elsewhere| modules.bring(kind, elsewhere),
    };
    if let Some(order) = order.order(options)? {
        let path = inputs.layers.join("order.toml");
        fs::write(&path, toml_text::to_string(&order)?)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    let (buildpacks, roots) = modules.into_mounts();
    let steps = Steps {
        options,
        inputs: &inputs,
        user,
        network: shop.network.clone(),
        env: &builder.config.config.env,
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
    let code = run(context, &shop, &steps, &unpacked.files, began, &mut timed);
    if let Err(error) = inputs.kept.take(&inputs.layers, &inputs.cache, user) {
        progress.say(&format!("warning: layers are not kept for the next build: {error:#}"));
    }
    let code = code?;
    if code == 0 {
        keep(options, &inputs)?;
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

/// Runs the phases; gives the exit code of the one that fails.
fn run(
    context: &Context,
    shop: &Shop,
    steps: &Steps<'_>,
    builder: &Path,
    began: Instant,
    timed: &mut Vec<Timed>,
) -> Result<u8> {
    let progress = &context.progress;
    let phases: &[Phase] = if steps.options.trust_builder { &[Phase::Create] } else { &APART };
    let deadline = steps.options.timeout.map(|timeout| began + timeout);
    for (number, phase) in phases.iter().copied().enumerate() {
        if context.json {
            eprint_line(&json!({"event": "phase", "phase": phase.name()}).to_string());
        } else if !context.quiet {
            let title = format!("[{}/{}] {}", number + 1, phases.len(), phase.name());
            progress.say(&format!("{title} ({:.1} s)", began.elapsed().as_secs_f64()));
        }
        let start = Instant::now();
        if matches!(phase, Phase::Restore | Phase::Create) {
            steps.inputs.kept.give(&steps.inputs.layers, steps.user)?;
        }
        let tree;
        let root = if phase.is_in_builder() {
            let files = shop.tree(builder, phase.name(), progress)?;
            let path = files.path().to_owned();
            tree = Some(files);
            path
        } else {
            tree = None;
            let dir = shop.session.make(&format!("{}/root", phase.name()))?;
            make_bare(&dir, builder)?;
            dir
        };
        let stdout = if context.json { standard_error()? } else { Stdio::inherit() };
        let sandbox = steps.sandbox(phase, &root);
        let ended = shop.run(&sandbox, phase.name(), progress, (Stdio::null(), stdout), deadline)?;
        drop(tree);
        timed.push((phase, start.elapsed()));
        if ended.timed_out {
            let limit = steps.options.timeout.unwrap_or_default().as_secs();
            bail!("the build is stopped in the {}: {limit} s are over (--timeout)", phase.name());
        }
        if let Some(code) = progress.signals.exit_code() {
            return Ok(code);
        }
        if ended.code != 0 {
            progress.say(&format!("error: the {} failed with exit code {}", phase.name(), ended.code));
            return Ok(ended.code);
        }
        if phase == Phase::Detect {
            refuse_extensions(&steps.inputs.layers)?;
        }
    }
    Ok(0)
}

fn standard_error() -> Result<Stdio> {
    let copy = io::stderr().as_fd().try_clone_to_owned().context("cannot hand on standard error")?;
    Ok(Stdio::from(copy))
}

/// There is nobody to run what they write.
fn refuse_extensions(layers: &Path) -> Result<()> {
    let text =
        tree::read(layers, "group.toml", MAX_FILE).context("cannot read group.toml")?.unwrap_or_default();
    let group: Group = toml_text::from_str(&text).context("cannot parse group.toml")?;
    let ids: Vec<String> = group.group_extensions.iter().map(GroupElement::full_name).collect();
    if !ids.is_empty() {
        bail!(
            "these image extensions take part, and `drydock build` cannot run what they write (Dockerfiles): {}; name \
             buildpacks that need none with --buildpack",
            ids.join(", ")
        );
    }
    Ok(())
}

/// Copies what the user wants besides the image. What buildpacks have put there may be anything: no link is followed.
fn keep(options: &Build, inputs: &Inputs) -> Result<()> {
    if let Some(dir) = &options.report_output_dir {
        let text = tree::read(&inputs.layers, "report.toml", MAX_FILE).context("cannot read report.toml")?;
        make(dir)?;
        let path = dir.join("report.toml");
        let text = text.context("the exporter has written no report.toml")?;
        write_atomically(&path, text.as_bytes())
            .with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    if let Some(dir) = &options.sbom_output_dir {
        make(dir)?;
        copy_texts(&inputs.layers, Path::new("sbom"), dir, 0)?;
    }
    Ok(())
}

fn make(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make `{}`", dir.display()))
}

/// Copies the text files below a folder: `below` is its path in the layers directory.
fn copy_texts(layers: &Path, below: &Path, to: &Path, depth: usize) -> Result<()> {
    // <layers>/sbom/launch/<buildpack>/<layer>/<file>
    const MAX_DEPTH: usize = 4;
    const MAX_NAMES: usize = 10_000;
    let failed = || format!("cannot read `{}`", below.display());
    for name in tree::list(layers, &below.display().to_string(), MAX_NAMES).with_context(failed)? {
        let (from, to) = (below.join(&name), to.join(&name));
        let text = from.display().to_string();
        if tree::is_file(layers, &text) {
            let content = tree::read(layers, &text, MAX_FILE).with_context(failed)?;
            let content = content.with_context(|| format!("`{text}` is no text, or too long"))?;
            write_atomically(&to, content.as_bytes())
                .with_context(|| format!("cannot write `{}`", to.display()))?;
        } else if depth < MAX_DEPTH {
            make(&to)?;
            copy_texts(layers, &from, &to, depth + 1)?;
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
