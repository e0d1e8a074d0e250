//! The cache as an image in a layout: it gives back what a build left, in step with the other kind of cache, whatever
//! happens to it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::Image;
use drydock_acceptance::project::{self, APP_IMAGE, APP_LAYOUT, Project, succeed};
use drydock_acceptance::run::Output;
use drydock_acceptance::scenario::User;
use drydock_acceptance::tools;
use drydock_acceptance::tree::{self, Tree};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("cache_image::what_was_cached_comes_back", what_was_cached_comes_back),
            ("cache_image::blobs_are_shared_with_the_app_image", blobs_are_shared_with_the_app_image),
            ("cache_image::other_tools_read_it", other_tools_read_it),
            ("cache_image::damage_costs_one_layer_once", damage_costs_one_layer_once),
            ("cache_image::both_kinds_go_on_from_what_they_hold", both_kinds_go_on_from_what_they_hold),
            ("cache_image::it_is_not_the_app_image", it_is_not_the_app_image),
        ],
    )
}

const IMAGE: [&str; 2] = ["-cache-image", "example.com/acme/cache:app"];
const LAYOUT: &str = "layout-repo/example.com/acme/cache/app";
const DIR: [&str; 2] = ["-cache-dir", "cache"];

/// What a buildpack makes: a layer for build and cache, one for launch and cache, and an SBOM of the former.
fn build(project: &Project, version: &str) -> Result<()> {
    project.write_layer("both", "launch = true\ncache = true\n[metadata]\nof = \"both\"", "for both\n")?;
    project.write_layer("tool", "build = true\ncache = true\n[metadata]\nof = \"tool\"", version)?;
    project.write("layers/acme_a/tool/bin/run", "#!/bin/sh\n")?;
    project.write("layers/sbom/cache/acme_a/tool/sbom.cdx.json", "{}")
}

fn export(project: &Project, cache: [&str; 2]) -> Result<Output> {
    project.analyze()?;
    succeed(project.exporter()?.args(cache).arg(APP_IMAGE))
}

/// A new container has an empty layers directory: what is restored there comes from the cache.
fn restore(project: &Project, cache: [&str; 2]) -> Result<Output> {
    for dir in ["layers/acme_a", "layers/sbom"] {
        if project.path(dir).exists() {
            fs::remove_dir_all(project.path(dir)).context("empty the layers directory")?;
        }
    }
    project.analyze()?;
    succeed(project.restorer()?.args(cache))
}

/// The files of the buildpack's layers, without what describes these.
fn contents(project: &Project) -> Result<Tree> {
    let mut tree = tree::read(&project.path("layers/acme_a"))?;
    tree.retain(|path, _| path.starts_with("both") || path.starts_with("tool"));
    Ok(tree)
}

fn project(executables: &Built) -> Result<Project> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    build(&project, "1")?;
    Ok(project)
}

/// The one image of the cache, after a check of the whole layout.
fn image(project: &Project) -> Result<Image> {
    let layout = project.layout(LAYOUT);
    let faults = layout.faults()?;
    ensure!(faults.is_empty(), "{LAYOUT} has faults:\n{}", faults.join("\n"));
    let mut images = layout.verify()?;
    ensure!(images.len() == 1, "{} images are in {LAYOUT}", images.len());
    Ok(images.remove(0))
}

fn metadata(image: &Image) -> Result<Value> {
    let label = &image.config["config"]["Labels"]["io.buildpacks.lifecycle.cache.metadata"];
    serde_json::from_str(label.as_str().context("the cache has a label")?).context("parse the label")
}

/// The digest of the blob with the layer that only the cache has.
fn tool_blob(image: &Image) -> Result<String> {
    let metadata = metadata(image)?;
    let sha = &metadata["buildpacks"][0]["layers"]["tool"]["sha"];
    let position =
        image.diff_ids()?.iter().position(|diff_id| sha == diff_id).context("the layer is there")?;
    Ok(image.layers[position].digest.clone())
}

fn says(output: &Output, wanted: &str) -> Result<()> {
    ensure!(output.text().contains(wanted), "`{wanted}` is not said:\n{}", output.text());
    Ok(())
}

fn what_was_cached_comes_back(executables: &Built) -> Result<()> {
    let project = project(executables)?;
    let made = contents(&project)?;
    says(&export(&project, IMAGE)?, "Adding cache layer 'acme/a:tool'")?;
    let first = image(&project)?;
    ensure!(first.layers.len() == 3, "the cache has {} layers", first.layers.len());

    restore(&project, IMAGE)?;
    let found = tree::differences(&made, &contents(&project)?);
    ensure!(found.is_empty(), "other layers came back:\n{}", found.join("\n"));
    for (file, wanted) in [
        ("both.toml", "[metadata]\n  of = \"both\"\n"),
        ("tool.toml", "[metadata]\n  of = \"tool\"\n"),
        ("tool.sbom.cdx.json", "{}"),
    ] {
        let text = fs::read_to_string(project.path(&format!("layers/acme_a/{file}"))).context(file)?;
        ensure!(text == wanted, "{file} holds {text:?}");
    }

    // The buildpack finds that everything is up to date.
    build(&project, "1")?;
    says(&export(&project, IMAGE)?, "Reusing cache layer 'acme/a:tool'")?;
    ensure!(image(&project)?.descriptor == first.descriptor, "an unchanged build changed the cache");

    // What is not cached any more is gone. Its blob is not at once: somebody may be copying the image.
    fs::remove_file(project.path("layers/acme_a/tool.toml")).context("remove a layer")?;
    let tool = tool_blob(&first)?;
    export(&project, IMAGE)?;
    ensure!(image(&project)?.layers.iter().all(|layer| layer.digest != tool), "{tool} stays in the cache");
    ensure!(image(&project)?.layers.len() == 2, "a layer that is gone stays in the cache");
    Ok(())
}

fn blobs_are_shared_with_the_app_image(executables: &Built) -> Result<()> {
    let project = project(executables)?;
    export(&project, IMAGE)?;
    let cache = image(&project)?;
    let app = project.layout(APP_LAYOUT).verify()?.remove(0);
    let shared: Vec<_> = cache.layers.iter().filter(|layer| app.layers.contains(layer)).collect();
    ensure!(shared.len() == 1, "{} blobs are in both images", shared.len());
    let inode = |layout: &str| -> Result<u64> {
        Ok(fs::metadata(project.layout(layout).blob_path(&shared[0].digest))?.ino())
    };
    // Where files can be cloned they are, and have numbers of their own.
    fs::remove_dir_all(project.path(LAYOUT)).context("remove the cache")?;
    succeed(project.exporter()?.args(IMAGE).arg(APP_IMAGE).env("CNB_LAYOUT_LINK", "hardlink"))?;
    ensure!(inode(LAYOUT)? == inode(APP_LAYOUT)?, "the blob of the layer in both images is not one file");
    Ok(())
}

fn other_tools_read_it(executables: &Built) -> Result<()> {
    let project = project(executables)?;
    export(&project, IMAGE)?;
    let scratch = tempfile::tempdir()?;
    let judged = tools::Image::new(&project.path(LAYOUT), "app", scratch.path())?;
    let config = judged.config()?;
    ensure!(config["os"] == "linux", "skopeo reads {config}");
    judged.archive("oci-archive")?;
    let unpacked = judged.unpack()?;
    let layers = project.path("layers/acme_a");
    let below = layers.strip_prefix("/").context("the path is absolute")?;
    for layer in ["both", "tool"] {
        let (made, found) =
            (tree::read(&layers.join(layer))?, tree::read(&unpacked.join(below).join(layer))?);
        let found = tree::differences(&made, &found);
        ensure!(found.is_empty(), "umoci unpacks another `{layer}`:\n{}", found.join("\n"));
    }
    Ok(())
}

/// Harms the blob at a path.
type Damage = fn(&Path) -> Result<()>;

/// Whatever is wrong with a blob: its layer does not come back, the rest does, and the next export makes it good.
fn damage_costs_one_layer_once(executables: &Built) -> Result<()> {
    let damages: [(&str, Damage); 4] = [
        ("flipped", |blob| {
            let mut bytes = fs::read(blob)?;
            bytes[1000] ^= 1;
            fs::write(blob, bytes).context("flip a bit")
        }),
        ("cut", |blob| {
            let length = fs::metadata(blob)?.len();
            fs::File::options().write(true).open(blob)?.set_len(length / 2).context("cut the blob")
        }),
        ("gone", |blob| fs::remove_file(blob).context("remove the blob")),
        ("a device", |blob| {
            fs::remove_file(blob).context("remove the blob")?;
            symlink("/dev/zero", blob).context("make a link")
        }),
    ];
    let project = project(executables)?;
    let made = contents(&project)?;
    export(&project, IMAGE)?;
    let whole = image(&project)?;
    for (name, damage) in damages {
        damage(&project.layout(LAYOUT).blob_path(&tool_blob(&whole)?))?;
        let output = restore(&project, IMAGE).context(name)?;
        says(&output, "Skipping restore for layer acme/a:tool")?;
        ensure!(project.path("layers/acme_a/both/file").exists(), "{name}: the other layer is lost");
        for left in ["tool", "tool.toml"] {
            ensure!(!project.path("layers/acme_a").join(left).exists(), "{name}: {left} is left");
        }
        build(&project, "1")?;
        export(&project, IMAGE).context(name)?;
        ensure!(image(&project)?.descriptor == whole.descriptor, "{name}: the cache is not good again");
        says(&restore(&project, IMAGE)?, "Restoring data for \"acme/a:tool\" from cache")?;
        let found = tree::differences(&made, &contents(&project)?);
        ensure!(found.is_empty(), "{name}: other layers came back:\n{}", found.join("\n"));
        build(&project, "1")?;
    }
    for (file, text) in [("index.json", "{"), ("oci-layout", "")] {
        project.write(&format!("{LAYOUT}/{file}"), text)?;
        says(&restore(&project, IMAGE).context(file)?, "The cache counts as empty")?;
        build(&project, "1")?;
        export(&project, IMAGE).context(file)?;
        ensure!(image(&project)?.descriptor == whole.descriptor, "{file}: the cache is not good again");
    }
    Ok(())
}

fn both_kinds_go_on_from_what_they_hold(executables: &Built) -> Result<()> {
    let project = project(executables)?;
    let version =
        || fs::read_to_string(project.path("layers/acme_a/tool/file")).context("the layer is there");
    export(&project, DIR)?;
    restore(&project, IMAGE)?;
    ensure!(version().is_err(), "an empty cache gave something");
    build(&project, "2")?;
    export(&project, IMAGE)?;
    for (cache, wanted) in [(DIR, "1"), (IMAGE, "2"), (DIR, "1")] {
        restore(&project, cache)?;
        ensure!(version()? == wanted, "{} gave version {}", cache[0], version()?);
        let both = fs::read_to_string(project.path("layers/acme_a/both/file")).context(cache[0])?;
        ensure!(both == "for both\n", "{} gave {both:?}", cache[0]);
        build(&project, wanted)?;
        export(&project, cache)?;
    }
    image(&project)?;

    // Where both are given, the image is the cache.
    restore(&project, IMAGE)?;
    project.analyze()?;
    succeed(project.restorer()?.args(IMAGE).args(DIR))?;
    ensure!(version()? == "2", "the folder was the cache");
    Ok(())
}

fn it_is_not_the_app_image(executables: &Built) -> Result<()> {
    let project = project(executables)?;
    project.analyze()?;
    let output = project::run(project.exporter()?.args(["-cache-image", APP_IMAGE, APP_IMAGE]))?;
    ensure!(output.exit == 3, "exit code {}\n{}", output.exit, output.text());
    says(&output, "cannot be the cache: the app image")
}
