//! The rebaser: what it makes is what an export onto the new run image makes, and what it refuses or does not finish
//! leaves no trace.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::{Image as Parts, Layout};
use drydock_acceptance::project::{self, APP_IMAGE, APP_LAYOUT, Project, RUN_IMAGE, RUN_LAYOUT, succeed};
use drydock_acceptance::scenario::User;
use drydock_acceptance::stage::{GID, UID, chmod};
use drydock_acceptance::tools::{Image, SKOPEO, STRACE, UMOCI};
use drydock_acceptance::{here, run_image, sha256, tree};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("rebased::equals_a_fresh_export", equals_a_fresh_export),
            ("rebased::refused_it_changes_nothing", refused_it_changes_nothing),
            ("rebased::stacks_and_mixins", stacks_and_mixins),
            ("rebased::by_force_onto_another_platform", by_force_onto_another_platform),
            ("rebased::under_several_names", under_several_names),
            ("rebased::a_sparse_base_is_completed_later", a_sparse_base_is_completed_later),
            ("rebased::for_another_user", for_another_user),
            ("rebased::killed", killed),
            ("rebased::platforms_live_side_by_side", platforms_live_side_by_side),
        ],
    )
}

/// A project whose app is exported onto its run image.
fn exported(executables: &Path) -> Result<Project> {
    let project = Project::new(executables, User::Root)?;
    project.write_layer("lib", "launch = true", "library\n")?;
    project.analyze()?;
    project.export()?;
    Ok(project)
}

/// Puts a recorded image at a path of the project, in place of what is there.
fn put(project: &Project, image: &str, path: &str) -> Result<()> {
    let to = project.path(path);
    if to.exists() {
        fs::remove_dir_all(&to).context("remove an image")?;
    }
    fs::create_dir_all(to.parent().context("it has a parent")?)?;
    let copy = ["-r", "--no-preserve=mode,ownership"];
    succeed(Command::new("cp").args(copy).arg(here("images").join(image)).arg(&to))?;
    Ok(())
}

/// The only image of a layout, which must be whole and have no fault.
fn only_image(layout: &Layout) -> Result<Parts> {
    let mut images = layout.verify()?;
    let faults = layout.faults()?;
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    ensure!(images.len() == 1, "there are {} images", images.len());
    Ok(images.remove(0))
}

const LABEL: &str = "io.buildpacks.lifecycle.metadata";

/// What an image's label says of its layers.
fn lifecycle_label(image: &Parts) -> Result<Value> {
    let text = image.config["config"]["Labels"][LABEL].as_str().context("there is a label")?;
    serde_json::from_str(text).context("parse the label")
}

/// Changes config and manifest of a layout's only image.
fn rewrite(layout: &Layout, change: impl FnOnce(&mut Value, &mut Value)) -> Result<()> {
    let image = layout.images()?.remove(0);
    let document = |digest: &str| -> Result<Value> {
        Ok(serde_json::from_slice(&layout.blob(digest)?.context("the blob is there")?)?)
    };
    let mut manifest = document(&image.descriptor.digest)?;
    let mut config = image.config;
    change(&mut config, &mut manifest);
    let put = |descriptor: &mut Value, document: &Value| -> Result<()> {
        let old = descriptor["digest"].as_str().context("a descriptor has a digest")?.to_owned();
        let text = document.to_string();
        (descriptor["digest"], descriptor["size"]) = (json!(sha256(text.as_bytes())), json!(text.len()));
        fs::remove_file(layout.blob_path(&old))?;
        let new = descriptor["digest"].as_str().context("it was set")?;
        fs::write(layout.blob_path(new), text).context("write a blob")
    };
    put(&mut manifest["config"], &config)?;
    let mut index: Value = layout.json("index.json")?;
    put(&mut index["manifests"][0], &manifest)?;
    if let Some(platform) = index["manifests"][0].as_object_mut() {
        platform.remove("platform");
    }
    fs::write(layout.dir().join("index.json"), index.to_string()).context("write the index")
}

fn unpacked(layout: &Path) -> Result<tree::Tree> {
    let scratch = tempfile::tempdir()?;
    tree::read(&Image::new(layout, "latest", scratch.path())?.unpack()?)
}

/// An image with a user land gets a newer one, made by umoci.
fn equals_a_fresh_export(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    let run_layout = project.path(RUN_LAYOUT);
    fs::remove_dir_all(&run_layout).context("remove the recorded run image")?;
    run_image::write(&run_layout)?;
    project.write_layer("lib", "launch = true", "library\n")?;
    project.analyze()?;
    project.export()?;
    let app = project.layout(APP_LAYOUT);
    rewrite(&app, |config, manifest| {
        config["org.example.field"] = json!({"kept": [1, 2.5]});
        manifest["annotations"] = json!({"org.example.annotation": "kept"});
    })?;
    let old = app.verify()?.remove(0);
    let inodes = |image: &Parts| -> Result<Vec<u64>> {
        let own = image.layers.iter().rev().take(5);
        own.map(|layer| Ok(fs::metadata(app.blob_path(&layer.digest))?.ino())).collect()
    };
    let own = inodes(&old)?;

    project.write("update", "patched\n")?;
    let scratch = tempfile::tempdir()?;
    std::os::unix::fs::symlink(&run_layout, scratch.path().join("run"))?;
    let update = project.path("update");
    let update = update.to_str().context("the path is UTF-8")?;
    UMOCI.run(scratch.path(), &["insert", "--image", "run:latest", update, "/etc/update"])?;
    let before = unpacked(&project.path(APP_LAYOUT))?;
    succeed(project.rebaser()?.arg(APP_IMAGE))?;

    let rebased = only_image(&app)?;
    let report = fs::read_to_string(project.path("layers/report.toml")).context("read the report")?;
    ensure!(report.contains(&rebased.descriptor.digest), "{report}");
    ensure!(inodes(&rebased)? == own, "the app's own layers are not the same files");
    succeed(project.analyzer()?.arg("fresh"))?;
    succeed(project.exporter()?.arg("fresh"))?;
    let fresh_layout = "layout-repo/index.docker.io/library/fresh/latest";
    let fresh = only_image(&project.layout(fresh_layout))?;
    ensure!(rebased.diff_ids()? == fresh.diff_ids()?, "other layers than {:?}", fresh.diff_ids());
    for field in ["history", "os", "architecture", "created"] {
        ensure!(rebased.config[field] == fresh.config[field], "{field}: {}", rebased.config[field]);
    }
    for field in ["Labels", "Env", "Entrypoint"] {
        let (found, wanted) = (&rebased.config["config"][field], &fresh.config["config"][field]);
        ensure!(found == wanted, "{field}: {found}, not {wanted}");
    }
    let (got, want) = (unpacked(&project.path(APP_LAYOUT))?, unpacked(&project.path(fresh_layout))?);
    ensure!(got.len() == before.len() + 1, "the new base has one file more");
    let found = tree::differences(&want, &got);
    ensure!(found.is_empty(), "{}", found.join("\n"));
    ensure!(rebased.config["org.example.field"] == json!({"kept": [1, 2.5]}), "{}", rebased.config);
    let manifest = app.blob(&rebased.descriptor.digest)?.context("the manifest is there")?;
    let manifest: Value = serde_json::from_slice(&manifest)?;
    ensure!(manifest["annotations"] == json!({"org.example.annotation": "kept"}), "{manifest}");

    project.analyze()?;
    let log = project.export()?.text();
    ensure!(log.contains("Reusing layer 'acme/a:lib'") && !log.contains("Adding layer"), "{log}");
    let again = only_image(&app)?;
    ensure!(inodes(&again)? == own, "a build after the rebase reuses no layers");
    Ok(())
}

/// Runs the rebaser, which must fail for this reason and leave everything as it was.
fn refused(project: &Project, arguments: &[&str], reason: &str) -> Result<()> {
    refused_with(72, project, arguments, &format!("failed to rebase: {reason}"))
}

fn refused_with(exit: i32, project: &Project, arguments: &[&str], says: &str) -> Result<()> {
    let before = tree::read(&project.path(""))?;
    let output = project::run(project.rebaser()?.args(arguments))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.exit == exit, "{arguments:?}: exit code {}\n{text}", output.exit);
    ensure!(text.contains(says), "{arguments:?}: {text}");
    ensure!(text.contains("help: "), "{arguments:?}: {text}");
    let changed = tree::differences(&before, &tree::read(&project.path(""))?);
    ensure!(changed.is_empty(), "{arguments:?}:\n{}", changed.join("\n"));
    Ok(())
}

fn refused_it_changes_nothing(executables: &Built) -> Result<()> {
    let project = exported(executables.get()?.dir())?;
    put(&project, "run-v2", "layout-repo/example.com/acme/run/other")?;
    let other = "example.com/acme/run:other";
    refused(&project, &["no/such/app"], "app image `")?;
    refused(&project, &["-run-image", "no/such/run", APP_IMAGE], "run image `")?;
    refused(
        &project,
        &["-run-image", other, APP_IMAGE],
        &format!("rebase app image: new base image '{other}' not found in existing run image metadata: {{"),
    )?;
    let to_run = ["-previous-image", APP_IMAGE, "app:new", RUN_IMAGE];
    refused_with(3, &project, &to_run, &format!("`{}` cannot be", project.path(RUN_LAYOUT).display()))?;
    let on_itself = ["-force", "-run-image", APP_IMAGE, APP_IMAGE];
    refused_with(3, &project, &on_itself, &format!("`{}` cannot be", project.path(APP_LAYOUT).display()))?;
    put(&project, "run-arm64", RUN_LAYOUT)?;
    refused(
        &project,
        &[APP_IMAGE, "app:new"],
        "unable to satisfy target os/arch constraints; new run image: {",
    )?;

    put(&project, "run-v2", RUN_LAYOUT)?;
    let base = project.layout(RUN_LAYOUT);
    let top = base.blob_path(&base.images()?.remove(0).layers[2].digest);
    let whole = fs::read(&top).context("read a blob")?;
    fs::write(&top, vec![0; whole.len()]).context("damage a blob")?;
    refused(&project, &[APP_IMAGE], "run image `")?;
    fs::write(&top, whole).context("repair the blob")?;

    let app = project.layout(APP_LAYOUT);
    let images = app.images()?;
    let own = images[0].layers.last().context("the app has layers")?;
    fs::rename(app.blob_path(&own.digest), project.path("kept")).context("take a blob away")?;
    refused(&project, &[APP_IMAGE], "app image `")?;
    fs::rename(project.path("kept"), app.blob_path(&own.digest)).context("put the blob back")?;
    succeed(project.rebaser()?.arg(APP_IMAGE))?;
    let image = app.images()?.remove(0);
    let mut label = lifecycle_label(&image)?;
    label["runImage"]["topLayer"] = json!(sha256(b"of another image"));
    rewrite(&app, |config, _| config["config"]["Labels"][LABEL] = json!(label.to_string()))?;
    refused(&project, &[APP_IMAGE], "rebase app image: could not find base layer in image")?;
    rewrite(&app, |config, _| config["config"]["Labels"] = json!({}))?;
    refused(&project, &[APP_IMAGE], "get image metadata: ")
}

/// An app of an old platform.
fn stacks_and_mixins(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    put(&project, "run-stack-mixins", RUN_LAYOUT)?;
    project.write("cnb/stack.toml", format!("[run-image]\nimage = \"{RUN_IMAGE}\"\n"))?;
    let stack = project.path("cnb/stack.toml");
    let old = |command: Command| {
        let mut command = command;
        command.env("CNB_PLATFORM_API", "0.11").env("CNB_STACK_PATH", &stack);
        command
    };
    succeed(old(project.analyzer()?).arg(APP_IMAGE))?;
    succeed(old(project.exporter()?).arg(APP_IMAGE))?;
    put(&project, "run", RUN_LAYOUT)?;
    refused(&project, &[APP_IMAGE], "missing required mixin(s): curl, git")?;
    put(&project, "run-no-labels", RUN_LAYOUT)?;
    refused(&project, &["-force", APP_IMAGE], "stack not defined on new base image")?;
    put(&project, "run-stack-mixins", RUN_LAYOUT)?;
    rewrite(&project.layout(RUN_LAYOUT), |config, _| {
        config["config"]["Labels"]["io.buildpacks.stack.mixins"] = json!(r#"["run:curl","git","new"]"#);
    })?;
    succeed(old(project.rebaser()?).arg(APP_IMAGE))?;
    let image = only_image(&project.layout(APP_LAYOUT))?;
    let mixins = &image.config["config"]["Labels"]["io.buildpacks.stack.mixins"];
    ensure!(*mixins == json!(r#"["run:curl","git","new"]"#), "{mixins}");
    Ok(())
}

/// One image takes another's place, though it is for another platform.
fn by_force_onto_another_platform(executables: &Built) -> Result<()> {
    let project = exported(executables.get()?.dir())?;
    put(&project, "run-arm64", "layout-repo/example.com/acme/arm/v8")?;
    rewrite(&project.layout("layout-repo/example.com/acme/arm/v8"), |config, _| {
        config["variant"] = json!("v8");
    })?;
    let output =
        succeed(project.rebaser()?.args(["-force", "-run-image", "example.com/acme/arm:v8", APP_IMAGE]))?;
    ensure!(output.text().contains("unable to satisfy target os/arch constraints"), "{}", output.text());
    let image = only_image(&project.layout(APP_LAYOUT))?;
    let platform = json!({"architecture": "arm64", "os": "linux", "variant": "v8"});
    ensure!(image.descriptor.platform == Some(platform), "{:?}", image.descriptor);
    let label = lifecycle_label(&image)?;
    ensure!(label["runImage"]["image"] == "example.com/acme/arm:v8", "{label}");
    ensure!(label["stack"]["runImage"] == json!({"image": "example.com/acme/arm:v8"}), "{label}");
    // From now on this is the run image that it knows.
    succeed(project.rebaser()?.arg(APP_IMAGE))?;
    Ok(())
}

fn under_several_names(executables: &Built) -> Result<()> {
    let project = exported(executables.get()?.dir())?;
    put(&project, "run-v2", RUN_LAYOUT)?;
    let before = tree::read(&project.path(APP_LAYOUT))?;
    let names = ["app:two", "other.example.com/team/app:v1", "app:two"];
    succeed(project.rebaser()?.args(["-previous-image", APP_IMAGE]).args(names))?;
    let paths = ["layout-repo/index.docker.io/library/app/two", "layout-repo/other.example.com/team/app/v1"];
    let [one, other] = paths.map(|path| only_image(&project.layout(path)));
    let (one, other) = (one?.descriptor, other?.descriptor);
    ensure!(one.digest == other.digest, "{one:?} {other:?}");
    ensure!(tree::read(&project.path(APP_LAYOUT))? == before, "the previous image has changed");
    let report = fs::read_to_string(project.path("layers/report.toml")).context("read the report")?;
    for path in paths {
        ensure!(report.matches(project.path(path).to_str().context("UTF-8")?).count() == 1, "{report}");
    }
    Ok(())
}

fn a_sparse_base_is_completed_later(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    put(&project, "run-v2", RUN_LAYOUT)?;
    project.analyze()?;
    project.export()?;
    put(&project, "run-sparse", RUN_LAYOUT)?;
    let base = project.layout(RUN_LAYOUT).images()?.remove(0);
    let log = succeed(project.rebaser()?.arg(APP_IMAGE))?.text();
    // The lower layer came with the first export.
    let missing = &base.layers[1];
    ensure!(log.contains(&format!("missing {} ({} bytes)", missing.digest, missing.size)), "{log}");
    ensure!(log.matches("  missing ").count() == 1, "{log}");
    let app = project.layout(APP_LAYOUT);
    ensure!(app.faults()?.is_empty(), "{:?}", app.faults());
    ensure!(app.blob(&missing.digest)?.is_none(), "a missing blob is there");

    let whole =
        Layout::new(here("images/run")).blob(&missing.digest)?.context("the recorded image is whole")?;
    fs::write(project.layout(RUN_LAYOUT).blob_path(&missing.digest), whole).context("write the blob")?;
    let log = succeed(project.rebaser()?.arg(APP_IMAGE))?.text();
    ensure!(!log.contains("sparse"), "{log}");
    only_image(&app)?;

    // Where it is not to be had again, a damaged one is as good as none.
    fs::remove_file(project.layout(RUN_LAYOUT).blob_path(&missing.digest)).context("make it sparse again")?;
    let damaged = app.blob_path(&missing.digest);
    let size = fs::metadata(&damaged)?.len();
    fs::remove_file(&damaged)?;
    fs::write(&damaged, vec![b'x'; usize::try_from(size)?])?;
    let log = succeed(project.rebaser()?.arg(APP_IMAGE))?.text();
    ensure!(log.contains(&format!("missing {} ({size} bytes)", missing.digest)), "{log}");
    ensure!(app.faults()?.is_empty(), "{:?}", app.faults());
    ensure!(!damaged.exists(), "the damaged blob is there");
    Ok(())
}

/// Started by root, it goes on as the user, who owns what is written, and who could not even look for the run image's names.
fn for_another_user(executables: &Built) -> Result<()> {
    let project = exported(executables.for_everyone()?)?;
    let names = format!("[[images]]\nimage = \"example.com/acme/gone\"\nmirrors = [\"{RUN_IMAGE}\"]\n");
    project.write("cnb/run.toml", names)?;
    project.analyze()?;
    project.export()?;
    put(&project, "run-v2", RUN_LAYOUT)?;
    chmod(&project.path("layout-repo/example.com/acme"), 0o700)?;
    std::os::unix::fs::lchown(project.path("layers"), Some(UID), Some(GID))?;
    fs::remove_file(project.path("layers/report.toml")).context("remove the export's report")?;
    let ids = [("CNB_USER_ID", UID.to_string()), ("CNB_GROUP_ID", GID.to_string())];
    succeed(project.rebaser()?.envs(ids).args([APP_IMAGE, "new.example.com/team/app"]))?;
    for path in [APP_LAYOUT, "layout-repo/new.example.com", "layers/report.toml"] {
        for entry in walkdir::WalkDir::new(project.path(path)) {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let owner = (metadata.uid(), metadata.gid());
            ensure!(owner == (UID, GID), "{} belongs to {owner:?}", entry.path().display());
        }
    }
    only_image(&project.layout(APP_LAYOUT))?;
    Ok(())
}

/// System calls that read, write and change files, at each of which, up to a number, a rebase is killed.
const CALLS: [(&str, u32); 9] = [
    ("mkdirat", 2),
    ("flock", 2),
    ("openat", 30),
    ("read", 20),
    ("write", 12),
    ("linkat", 6),
    ("renameat", 12),
    ("fchmod", 8),
    ("unlinkat", 6),
];

/// Two layouts hold the image on one base or on the other, whole, whenever the rebase onto the other one dies.
fn killed(executables: &Built) -> Result<()> {
    let project = exported(executables.get()?.dir())?;
    let names = [APP_IMAGE, "other.example.com/team/app:v1"];
    let layouts = [APP_LAYOUT, "layout-repo/other.example.com/team/app/v1"];
    let bases = ["example.com/acme/run:v1", "example.com/acme/run:v2"];
    put(&project, "run", "layout-repo/example.com/acme/run/v1")?;
    put(&project, "run-v2", "layout-repo/example.com/acme/run/v2")?;
    let rebase = |starter: &[&str], base: usize| -> Result<i32> {
        let mut command = project.rebaser_under(starter)?;
        let output = project::run(command.args(["-force", "-run-image", bases[base]]).args(names))?;
        ensure!([0, 137].contains(&output.exit), "exit code {}\n{}", output.exit, output.text());
        Ok(output.exit)
    };
    let whole = |base: usize| -> Result<String> {
        ensure!(rebase(&["env"], base)? == 0, "the rebase was killed");
        let [one, other] = layouts.map(|path| only_image(&project.layout(path)));
        let (one, other) = (one?.descriptor.digest, other?.descriptor.digest);
        ensure!(one == other, "one rebase wrote {one} and {other}");
        Ok(one)
    };
    let digests = [whole(0)?, whole(1)?];
    ensure!(digests[0] != digests[1], "the bases are the same");
    let (mut kills, mut on) = (0, 1);
    // Twice, since of the two images now the one and now the other is there before.
    for (call, most) in CALLS.into_iter().chain(CALLS) {
        for number in 1..=most {
            let inject = format!("inject={call}:signal=KILL:when={number}");
            let to = 1 - on;
            let exit = rebase(&[STRACE.name, "-f", "-qqq", "-o", "/dev/null", "-e", &inject], to)?;
            for path in layouts {
                let images = project.layout(path).verify().with_context(|| format!("{inject}: {path}"))?;
                let left: Vec<&str> = images.iter().map(|image| image.descriptor.digest.as_str()).collect();
                ensure!(left == [&digests[on]] || left == [&digests[to]], "{inject}: {path} has {left:?}");
            }
            ensure!(whole(to)? == digests[to], "{inject}: the next rebase makes another image");
            on = to;
            if exit == 0 {
                break;
            }
            kills += 1;
        }
    }
    ensure!(kills >= 100, "only {kills} rebases were killed");
    Ok(())
}

/// Builds for three platforms go to one name by turns; then one of them is rebased.
fn platforms_live_side_by_side(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    let images = [("run", "amd64", None), ("run", "amd64", Some("v2")), ("run-arm64", "arm64", Some("v8"))];
    let place = |number: usize| format!("layout-repo/example.com/acme/run/p{number}");
    for (number, (image, _, variant)) in images.into_iter().enumerate() {
        put(&project, image, &place(number))?;
        if let Some(variant) = variant {
            rewrite(&project.layout(&place(number)), |config, _| config["variant"] = json!(variant))?;
        }
    }
    let mut platforms: Vec<Value> = images
        .iter()
        .map(|(_, architecture, variant)| match variant {
            Some(variant) => json!({"architecture": architecture, "os": "linux", "variant": variant}),
            None => json!({"architecture": architecture, "os": "linux"}),
        })
        .collect();
    platforms.sort_by_key(Value::to_string);
    let found = || -> Result<Vec<(Value, String)>> {
        let images = project.layout(APP_LAYOUT).verify()?.into_iter();
        let mut images: Vec<(Value, String)> = images
            .map(|image| (image.descriptor.platform.unwrap_or_default(), image.descriptor.digest))
            .collect();
        images.sort_by_key(|(platform, _)| platform.to_string());
        Ok(images)
    };
    let mut before = Vec::new();
    for round in 0..10 {
        let run_image = format!("example.com/acme/run:p{}", round % 3);
        project.write("app/round", round.to_string())?;
        succeed(project.analyzer()?.args(["-run-image", &run_image, APP_IMAGE]))?;
        succeed(project.exporter()?.arg(APP_IMAGE))?;
        let now = found()?;
        ensure!(now.len() == 3.min(round + 1), "round {round}: {now:?}");
        let kept = before.iter().filter(|image| now.contains(image)).count();
        ensure!(kept == now.len() - 1, "round {round}: {before:?} became {now:?}");
        before = now;
    }
    ensure!(before.iter().map(|(platform, _)| platform).eq(&platforms), "{before:?}");

    // An update of one of the run images.
    put(&project, "run-v2", &place(0))?;
    let output =
        succeed(project.rebaser()?.args(["-force", "-run-image", "example.com/acme/run:p0", APP_IMAGE]))?;
    let now = found()?;
    let changed: Vec<&Value> =
        now.iter().filter(|image| !before.contains(image)).map(|(platform, _)| platform).collect();
    ensure!(changed == [&json!({"architecture": "amd64", "os": "linux"})], "{changed:?}\n{}", output.text());
    ensure!(now.len() == 3, "{now:?}");

    let scratch = tempfile::tempdir()?;
    std::os::unix::fs::symlink(project.path(APP_LAYOUT), scratch.path().join("app"))?;
    let raw: Value =
        serde_json::from_slice(&SKOPEO.run(scratch.path(), &["inspect", "--raw", "oci:app:latest"])?)?;
    let mut listed: Vec<Value> = raw["manifests"]
        .as_array()
        .context("skopeo sees an index")?
        .iter()
        .map(|m| m["platform"].clone())
        .collect();
    listed.sort_by_key(Value::to_string);
    ensure!(listed == platforms, "skopeo sees {raw}");
    SKOPEO.run(scratch.path(), &["copy", "--quiet", "--all", "oci:app:latest", "oci:copy:latest"])?;
    let copied = Layout::new(scratch.path().join("copy")).verify()?;
    let mut digests: Vec<String> = copied.into_iter().map(|image| image.descriptor.digest).collect();
    let mut wanted: Vec<String> = now.into_iter().map(|(_, digest)| digest).collect();
    digests.sort();
    wanted.sort();
    ensure!(digests == wanted, "skopeo copies {digests:?}, not {wanted:?}");
    Ok(())
}
