//! Run images that are not just what the analyzer found: extended by an extension, chosen by one, or completed later.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::Image;
use drydock_acceptance::project::{self, APP_IMAGE, APP_LAYOUT, Project, RUN_IMAGE, RUN_LAYOUT, succeed};
use drydock_acceptance::run::Output;
use drydock_acceptance::run_image::{self, RunImage};
use drydock_acceptance::scenario::User;
use drydock_acceptance::tools::{self, SKOPEO};
use drydock_acceptance::{here, sha256, tree};
use flate2::Compression;
use flate2::write::GzEncoder;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("other_run_images::extended", extended),
            ("other_run_images::extended_but_unusable", extended_but_unusable),
            ("other_run_images::chosen_by_an_extension", chosen_by_an_extension),
            ("other_run_images::completed_later", completed_later),
            ("other_run_images::no_app_takes_its_place", no_app_takes_its_place),
        ],
    )
}

/// A project on the busybox run image.
fn on_busybox(executables: &Built) -> Result<(Project, RunImage)> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    fs::remove_dir_all(project.path(RUN_LAYOUT)).context("remove the recorded run image")?;
    let run_image = run_image::write(&project.path(RUN_LAYOUT))?;
    project.analyze()?;
    Ok((project, run_image))
}

const EXTENDED: &str = "layers/extended/run";
const HISTORY: &str = "Layer: 'RUN adduser cnb', Created by extension: acme/ext";

/// Puts into `<layers>/extended/run` what an extender makes of the run image: one more layer, which alone is there, and
/// another config. Gives the layout's folder and the layer's blob.
fn extend(project: &Project, change: impl Fn(&mut Value)) -> Result<(PathBuf, PathBuf)> {
    let base = project.layout(RUN_LAYOUT).images()?.remove(0);
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in [("etc/motd", "extended\n"), ("etc/extension", "acme/ext\n")] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content.as_bytes())?;
    }
    let tar = archive.into_inner()?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&tar)?;
    let layer = gzip.finish()?;

    let mut config = base.config.clone();
    push(&mut config["rootfs"]["diff_ids"], json!(sha256(&tar)))?;
    push(&mut config["history"], json!({"created_by": HISTORY}))?;
    push(&mut config["config"]["Env"], json!("EXTENDED=yes"))?;
    config["config"]["User"] = json!("cnb");
    change(&mut config);
    let config = config.to_string().into_bytes();
    let of = |media_type: &str, bytes: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{media_type}"), "digest": sha256(bytes), "size": bytes.len()});
    let mut layers: Vec<Value> = base
        .layers
        .iter()
        .map(|layer| json!({"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}))
        .collect();
    layers.push(of("layer.v1.tar+gzip", &layer));
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": of("config.v1+json", &config), "layers": layers});
    let manifest = manifest.to_string().into_bytes();
    let index = json!({"schemaVersion": 2, "manifests": [of("manifest.v1+json", &manifest)]});

    let dir = format!("{EXTENDED}/{}", base.descriptor.digest);
    project.write(&format!("{dir}/oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)?;
    project.write(&format!("{dir}/index.json"), index.to_string())?;
    for blob in [&manifest, &config, &layer] {
        project.write(&format!("{dir}/blobs/{}", sha256(blob).replacen(':', "/", 1)), blob)?;
    }
    let blob = format!("{dir}/blobs/{}", sha256(&layer).replacen(':', "/", 1));
    Ok((project.path(&dir), project.path(&blob)))
}

fn push(list: &mut Value, value: Value) -> Result<()> {
    list.as_array_mut().context("it is a list")?.push(value);
    Ok(())
}

fn label<'a>(image: &'a Image, key: &str) -> Option<&'a str> {
    image.config["config"]["Labels"][key].as_str()
}

fn run_image_of(image: &Image) -> Result<Value> {
    let text = label(image, "io.buildpacks.lifecycle.metadata").context("a label")?;
    Ok(serde_json::from_str::<Value>(text)?["runImage"].clone())
}

fn app(project: &Project) -> Result<Image> {
    let layout = project.layout(APP_LAYOUT);
    let faults = layout.faults()?;
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(layout.verify()?.remove(0))
}

fn fails(output: &Output, exit: i32, wanted: &[&str]) -> Result<()> {
    ensure!(output.exit == exit, "exit code {}, not {exit}\n{}", output.exit, output.text());
    for wanted in wanted {
        ensure!(output.text().contains(wanted), "`{wanted}` is not said:\n{}", output.text());
    }
    Ok(())
}

fn extended(executables: &Built) -> Result<()> {
    let (project, run_image) = on_busybox(executables)?;
    project.export()?;
    ensure!(
        label(&app(&project)?, "io.buildpacks.rebasable") == Some("true"),
        "an ordinary image is not rebasable"
    );
    for (given, wanted) in [(Some("true"), "true"), (Some("false"), "false"), (None, "false")] {
        extend(&project, |config| {
            if let Some(given) = given {
                config["config"]["Labels"]["io.buildpacks.rebasable"] = json!(given);
            }
        })?;
        project.export()?;
        let image = app(&project)?;
        ensure!(label(&image, "io.buildpacks.rebasable") == Some(wanted), "{given:?} became {image:?}");
        fs::remove_dir_all(project.path(EXTENDED)).context("remove the extended image")?;
    }
    extend(&project, |_| ())?;
    let analyzed = fs::read_to_string(project.path("layers/analyzed.toml"))?;
    project
        .write("layers/analyzed.toml", analyzed.replace("[run-image]\n", "[run-image]\nextend = true\n"))?;
    project.export()?;

    let image = app(&project)?;
    let base_ids: Vec<String> = serde_json::from_value(run_image.config["rootfs"]["diff_ids"].clone())?;
    ensure!(
        image.diff_ids()?.starts_with(&base_ids),
        "{:?} do not begin with the run image's",
        image.diff_ids()?
    );
    let metadata = run_image_of(&image)?;
    ensure!(metadata["topLayer"] == json!(base_ids.last()), "topLayer is {}", metadata["topLayer"]);
    let history = image.config["history"].as_array().context("a history")?;
    let texts: Vec<&str> = history.iter().map(|entry| entry["created_by"].as_str().unwrap_or("")).collect();
    ensure!(
        texts[..4] == ["busybox --install", "update", HISTORY, "Application Layer"],
        "history: {texts:?}"
    );
    let config = &image.config["config"];
    ensure!(
        config["User"] == "cnb" && config["WorkingDir"] == json!(project.path("app")),
        "config: {config}"
    );
    let env = config["Env"].as_array().context("an environment")?;
    ensure!(env.contains(&json!("EXTENDED=yes")) && env.contains(&json!("LANG=C.UTF-8")), "Env: {env:?}");

    let scratch = tempfile::tempdir()?;
    let unpacked = tools::Image::new(&project.path(APP_LAYOUT), "latest", scratch.path())?.unpack()?;
    for (path, wanted) in [("etc/motd", "extended\n"), ("etc/extension", "acme/ext\n")] {
        ensure!(fs::read_to_string(unpacked.join(path))? == wanted, "{path} holds something else");
    }
    let mut expected = run_image.tree;
    expected.remove(Path::new("etc/motd"));
    let mut found = tree::read(&unpacked)?;
    // Folders above app and layers have the modes that they have on disk here.
    let above: Vec<PathBuf> = project.path("app").ancestors().map(Path::to_owned).collect();
    expected.retain(|path, _| !above.contains(&Path::new("/").join(path)));
    found.retain(|path, _| expected.contains_key(path));
    let differences = tree::differences(&expected, &found);
    ensure!(differences.is_empty(), "the run image became another:\n{}", differences.join("\n"));
    Ok(())
}

fn extended_but_unusable(executables: &Built) -> Result<()> {
    let (project, _) = on_busybox(executables)?;
    let export = |api: &str, mode: &str| {
        let mut command = project.exporter()?;
        command.env("CNB_PLATFORM_API", api).env("CNB_EXPERIMENTAL_MODE", mode);
        project::run(command.arg(APP_IMAGE))
    };
    let (dir, blob) = extend(&project, |_| ())?;
    let path = dir.to_str().context("the path is UTF-8")?;
    let is_extended = || Ok::<_, anyhow::Error>(app(&project)?.config.to_string().contains(HISTORY));

    fails(&export("0.12", "")?, 1, &["experimental feature 'Dockerfiles'", "CNB_EXPERIMENTAL_MODE"])?;
    fails(&export("0.12", "warn")?, 0, &["experimental feature 'Dockerfiles'"])?;
    ensure!(is_extended()?, "it is not extended");
    fails(&export("0.11", "")?, 0, &[])?;
    ensure!(!is_extended()?, "it is extended before Platform API 0.12");

    let layer = fs::read(&blob)?;
    let mut damaged = layer.clone();
    damaged[20] ^= 1;
    for bytes in [&damaged[..], &layer[1..]] {
        fs::write(&blob, bytes)?;
        fails(&export("0.13", "")?, 62, &["extended run image", path, "corrupt", "run the extender again"])?;
    }
    fs::remove_file(&blob)?;
    fails(&export("0.13", "")?, 62, &["extended run image", path, "lacks blob"])?;
    fs::write(&blob, &layer)?;
    project.write(&format!("{EXTENDED}/other/index.json"), "{}")?;
    fails(&export("0.13", "")?, 62, &["2 extended run images"])?;
    fs::remove_dir_all(project.path(EXTENDED))?;
    extend(&project, |config| config["rootfs"]["diff_ids"][0] = json!(sha256(b"another")))?;
    fails(&export("0.13", "")?, 62, &["does not stand on run image"])?;
    fs::remove_dir_all(project.path(EXTENDED))?;
    let analyzed = fs::read_to_string(project.path("layers/analyzed.toml"))?;
    project
        .write("layers/analyzed.toml", analyzed.replace("[run-image]\n", "[run-image]\nextend = true\n"))?;
    fails(&export("0.13", "")?, 62, &["holds no extended image", "run the extender"])
}

/// A detector leaves the bare name of a run image that an extension chose.
fn chosen_by_an_extension(executables: &Built) -> Result<()> {
    const NAME: &str = "example.com/other/run:v2";
    const LAYOUT: &str = "layout-repo/example.com/other/run/v2";
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    let extension = "id = \"acme/ext\"\nversion = \"1\"\napi = \"0.10\"\n";
    let group = fs::read_to_string(project.path("layers/group.toml"))?;
    project.write("layers/group.toml", format!("{group}\n[[group-extensions]]\n{extension}"))?;
    let metadata = fs::read_to_string(project.path("layers/config/metadata.toml"))?;
    project.write("layers/config/metadata.toml", format!("[[extensions]]\n{extension}\n{metadata}"))?;
    let choose = || {
        project.analyze()?;
        project.write(
            "layers/analyzed.toml",
            format!("[run-image]\nreference = \"{NAME}\"\nimage = \"{NAME}\"\n"),
        )
    };
    choose()?;
    let hints = ["example.com/other/run/v2", "skopeo copy"];
    fails(&project::run(&mut project.restorer()?)?, 42, &hints)?;
    fails(&project::run(project.exporter()?.arg(APP_IMAGE))?, 62, &hints)?;

    for entry in walkdir::WalkDir::new(here("images/run-v2")) {
        let entry = entry?;
        if entry.file_type().is_file() {
            let below = entry.path().strip_prefix(here("images/run-v2"))?.display();
            project.write(&format!("{LAYOUT}/{below}"), fs::read(entry.path())?)?;
        }
    }
    let base = project.layout(LAYOUT).images()?.remove(0);
    let identifier = format!("{}@{}", project.path(LAYOUT).display(), base.descriptor.digest);
    for is_restored in [false, true] {
        choose()?;
        if is_restored {
            succeed(&mut project.restorer()?)?;
            let analyzed: toml::Table = fs::read_to_string(project.path("layers/analyzed.toml"))?.parse()?;
            let run_image = &analyzed["run-image"];
            ensure!(run_image["reference"].as_str() == Some(&identifier), "restored: {run_image}");
            ensure!(run_image["target"]["os"].as_str() == Some("linux"), "restored: {run_image}");
        }
        project.export()?;
        let image = app(&project)?;
        let recorded = run_image_of(&image)?;
        ensure!(recorded["reference"] == json!(identifier), "the label has {recorded}");
        ensure!(recorded["image"] == json!(NAME), "the label has {recorded}");
        ensure!(image.layers.starts_with(&base.layers), "{:?} are not on {:?}", image.layers, base.layers);
    }
    Ok(())
}

/// The log says what is missing; once that is in the run image's layout, a new export brings it into the app image.
fn completed_later(executables: &Built) -> Result<()> {
    let (project, run_image) = on_busybox(executables)?;
    let run_layout = project.layout(RUN_LAYOUT);
    let layers = run_layout.images()?.remove(0).layers;
    let mut taken = Vec::new();
    for layer in &layers {
        let path = run_layout.blob_path(&layer.digest);
        taken.push((path.clone(), fs::read(&path)?));
        fs::remove_file(&path)?;
    }
    let output = project.export()?;
    for layer in &layers {
        fails(&output, 0, &[&format!("missing {} ({} bytes)", layer.digest, layer.size)])?;
        ensure!(!project.layout(APP_LAYOUT).blob_path(&layer.digest).exists(), "{} is there", layer.digest);
    }
    let app_layout = project.path(APP_LAYOUT);
    let copy = || {
        let scratch = tempfile::tempdir()?;
        tools::Image::new(&app_layout, "latest", scratch.path())?.archive("oci-archive")
    };
    ensure!(copy().is_err(), "{} copies a sparse image", SKOPEO.name);
    let sparse = project.layout(APP_LAYOUT).images()?.remove(0);

    // A part of it helps as far as it goes.
    let last = taken.pop().context("there are layers")?;
    for (path, bytes) in &taken {
        fs::write(path, bytes)?;
    }
    project.analyze()?;
    let output = project.export()?;
    fails(&output, 0, &[&format!("{} of its {} layers are absent", 1, layers.len())])?;
    ensure!(copy().is_err(), "{} copies a sparse image", SKOPEO.name);
    fs::write(last.0, last.1)?;
    project.analyze()?;
    let output = project.export()?;
    ensure!(!output.text().contains("sparse"), "{}", output.text());

    let image = app(&project)?;
    ensure!(image.descriptor == sparse.descriptor, "the image itself changed");
    copy()?;
    let scratch = tempfile::tempdir()?;
    let unpacked = tools::Image::new(&app_layout, "latest", scratch.path())?.unpack()?;
    let busybox = Path::new("bin/busybox");
    ensure!(tree::read(&unpacked)?.get(busybox) == run_image.tree.get(busybox), "busybox is another");
    Ok(())
}

/// An app that had the run image's name would be all that is left of it.
fn no_app_takes_its_place(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    project.analyze()?;
    let link = project.path(RUN_LAYOUT).with_file_name("link");
    std::os::unix::fs::symlink("base", link).context("make a link")?;
    let images = || tree::read(&project.path("layout-repo"));
    let before = images()?;
    for (mut phase, names) in [
        (project.analyzer()?, &[RUN_IMAGE][..]),
        (project.exporter()?, &[RUN_IMAGE]),
        (project.exporter()?, &[APP_IMAGE, "example.com/acme/run:link"]),
        (project.creator()?, &[RUN_IMAGE]),
    ] {
        let output = project::run(phase.args(names))?;
        ensure!(
            output.exit == 3 && output.text().contains("it is the run image"),
            "{phase:?}: {}",
            output.text()
        );
        let changed = tree::differences(&before, &images()?);
        ensure!(changed.is_empty(), "{phase:?}:\n{}", changed.join("\n"));
    }
    Ok(())
}
