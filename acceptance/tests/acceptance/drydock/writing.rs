//! `tag`, `rm`, `gc`, `flatten`, beside one another and beside phases.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::succeed;
use drydock_acceptance::{run_image, sha256, tools, tree};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Repository, tar_of};
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("drydock::flattened_images_hold_the_same_files", flattened_images_hold_the_same_files),
            ("drydock::flatten_keeps_what_is_not_about_layers", flatten_keeps_what_is_not_about_layers),
            ("drydock::hard_links_outlive_what_they_were_made_of", hard_links_outlive_what_they_were_made_of),
            ("drydock::tags_share_blobs", tags_share_blobs),
            ("drydock::referrers_come_and_go_with_their_image", referrers_come_and_go_with_their_image),
            ("drydock::rm_takes_the_name_and_nothing_else", rm_takes_the_name_and_nothing_else),
            ("drydock::gc_leaves_what_may_be_of_use", gc_leaves_what_may_be_of_use),
            ("drydock::all_at_once_lose_nothing", all_at_once_lose_nothing),
            ("drydock::stopped_in_the_middle", stopped_in_the_middle),
        ],
    )
}

/// With the busybox image as `base`.
fn with_base(executables: &Built) -> Result<(Repository, run_image::RunImage)> {
    let repository = Repository::new(executables)?;
    let path = repository.path("base");
    fs::create_dir_all(path.parent().context("it has a parent")?)?;
    let base = run_image::write(&path)?;
    Ok((repository, base))
}

fn flattened_images_hold_the_same_files(executables: &Built) -> Result<()> {
    let (repository, base) = with_base(executables)?;
    let digest =
        |name: &str| -> Result<String> { Ok(repository.layout(name).verify()?.remove(0).descriptor.digest) };
    for compression in ["gzip", "zstd:3", "none"] {
        repository.text(&["flatten", "base", "flat", "--compression", compression])?;
        let image = repository.layout("flat").verify()?.remove(0);
        ensure!(image.layers.len() == 1, "{} layers", image.layers.len());
        let found = repository.json(1, &["diff", "base", "flat"])?;
        ensure!(found["files"] == json!([]), "{found}");
        if compression != "zstd:3" {
            // umoci knows no zstd.
            let scratch = tempfile::tempdir()?;
            tools::Image::new(&repository.path("flat"), "latest", scratch.path())?.judge(&base.tree)?;
        }
    }
    let once = digest("flat")?;
    repository.text(&["flatten", "base", "again", "--compression", "none"])?;
    ensure!(digest("again")? == once, "the same image gives other bytes");
    repository.text(&["flatten", "base", "--compression", "none"])?;
    ensure!(digest("base")? == once, "in place of itself it has other bytes");
    Ok(())
}

fn flatten_keeps_what_is_not_about_layers(executables: &Built) -> Result<()> {
    let (repository, base) = with_base(executables)?;
    repository.text(&["flatten", "base", "flat"])?;
    let scratch = tempfile::tempdir()?;
    let config = tools::Image::new(&repository.path("flat"), "latest", scratch.path())?.config()?;
    for (key, value) in base.config.as_object().context("an object")? {
        if !matches!(key.as_str(), "rootfs" | "history") {
            // skopeo knows only some of the fields.
            ensure!(config.get(key).is_none_or(|kept| key == "config" || kept == value), "{key}: {config}");
        }
    }
    let raw: Value = repository.layout("flat").json(&format!(
        "blobs/sha256/{}",
        repository.layout("flat").verify()?.remove(0).config_descriptor.digest.replace("sha256:", "")
    ))?;
    ensure!(
        raw["config"] == base.config["config"]
            && raw["com.example.vendor"] == base.config["com.example.vendor"]
    );
    let history = raw["history"].as_array().context("a list")?;
    ensure!(history.iter().filter(|step| step["empty_layer"] != true).count() == 1, "{history:?}");
    // Of several platforms, one is flattened, and takes the place of its own only.
    let repository = Repository::with(executables, &["run-two-platforms"])?;
    let before = repository.json(0, &["inspect", "run-two-platforms", "--platform", "linux/arm64"])?;
    repository.text(&["flatten", "run-two-platforms", "--platform", "linux/amd64"])?;
    let after = repository.json(0, &["inspect", "run-two-platforms", "--platform", "linux/arm64"])?;
    ensure!(before["digest"] == after["digest"], "{after}");
    ensure!(after["platforms"] == json!(["linux/arm64", "linux/amd64"]), "{after}");
    let flat = repository.json(0, &["inspect", "run-two-platforms", "--platform", "linux/amd64"])?;
    ensure!(flat["layers"].as_array().map(Vec::len) == Some(1), "{flat}");
    Ok(())
}

fn hard_links_outlive_what_they_were_made_of(executables: &Built) -> Result<()> {
    use tar::EntryType as Type;
    let repository = Repository::new(executables)?;
    let lower = tar_of(&[
        (Type::Directory, "d/", ""),
        (Type::Regular, "d/a", "old\n"),
        (Type::Link, "d/b", "d/a"),
        (Type::Link, "c", "d/a"),
        (Type::Symlink, "l", "d"),
        (Type::Regular, "gone", "gone\n"),
    ])?;
    let upper = tar_of(&[
        (Type::Regular, "d/a", "new\n"),
        (Type::Regular, "d/a", "newest\n"),
        (Type::Regular, ".wh.gone", ""),
        (Type::Regular, "l/through", "a link\n"),
    ])?;
    repository.write_image("layers", &[lower, upper])?;
    repository.text(&["flatten", "layers", "flat"])?;
    let (one, two) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let unpacked = |name: &str, scratch| -> Result<tree::Tree> {
        tree::read(&tools::Image::new(&repository.path(name), "latest", scratch)?.unpack()?)
    };
    let expected = unpacked("layers", one.path())?;
    let found = tree::differences(&expected, &unpacked("flat", two.path())?);
    ensure!(found.is_empty(), "umoci unpacks something else:\n{}", found.join("\n"));
    ensure!(expected.len() == 6, "{expected:?}");
    Ok(())
}

fn tags_share_blobs(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run", "run-two-platforms", "run-sparse", "run-v2"])?;
    for (name, images, one, two) in
        [("run", 1, "one", "team/one:v1"), ("run-two-platforms", 2, "two", "team/two:v1")]
    {
        let tagged = repository.json(0, &["tag", name, one, two])?;
        ensure!(tagged["copied"] == 0, "{tagged}");
        let below = repository.dir.path().join("index.docker.io").join(two.replace(':', "/"));
        for (new, at) in [(one, repository.path(one)), (two, below)] {
            let layout = drydock_acceptance::layout::Layout::new(&at);
            ensure!(layout.verify()?.len() == images, "{new} has not {images} images");
            ensure!(
                repository.json(0, &["inspect", new])?["digest"]
                    == repository.json(0, &["inspect", name])?["digest"]
            );
            for entry in fs::read_dir(repository.path(name).join("blobs/sha256"))? {
                let (from, to) = (entry?.path(), at.join("blobs/sha256"));
                let to = to.join(from.file_name().context("a name")?);
                ensure!(fs::metadata(&from)?.ino() == fs::metadata(&to)?.ino(), "{} is a copy", to.display());
            }
        }
    }
    // A sparse image stays one.
    repository.text(&["tag", "run-sparse", "sparse"])?;
    ensure!(repository.json(0, &["verify", "sparse"])?[0]["status"] == "sparse");
    // All names, or none.
    fs::create_dir_all(repository.path("bad"))?;
    fs::write(repository.path("bad").join("index.json"), "{")?;
    repository.refused(1, "bad", &["tag", "run-v2", "one", "bad"])?;
    // To itself, and by a path elsewhere.
    let before = repository.tree()?;
    repository.text(&["tag", "run-v2", "run-v2"])?;
    let left = |tree: &tree::Tree| tree.keys().filter(|path| path.ends_with("oci-layout")).count();
    ensure!(left(&before) == left(&repository.tree()?));
    let elsewhere = tempfile::tempdir()?;
    let to = elsewhere.path().join("layout");
    repository.text(&["tag", "run", to.to_str().context("a path is UTF-8")?])?;
    drydock_acceptance::layout::Layout::new(to).verify()?;
    Ok(())
}

/// Adds a signature to the image of a layout; gives its digest.
pub(super) fn sign(repository: &Repository, name: &str) -> Result<String> {
    let dir = repository.path(name);
    let put = |bytes: &str| -> Result<(String, usize)> {
        let digest = sha256(bytes.as_bytes());
        fs::write(dir.join("blobs/sha256").join(&digest["sha256:".len()..]), bytes)?;
        Ok((digest, bytes.len()))
    };
    let mut index: Value = repository.layout(name).json("index.json")?;
    let image = index["manifests"][0].clone();
    let (empty, empty_size) = put("{}")?;
    let config =
        json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": empty_size});
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/example.signature", "config": config, "layers": [],
        "subject": {"mediaType": image["mediaType"], "digest": image["digest"], "size": image["size"]}});
    let (digest, size) = put(&manifest.to_string())?;
    let descriptor = json!({"mediaType": manifest["mediaType"], "digest": digest, "size": size,
        "artifactType": manifest["artifactType"]});
    index["manifests"].as_array_mut().context("a list")?.push(descriptor);
    fs::write(dir.join("index.json"), index.to_string())?;
    Ok(digest)
}

fn referrers_come_and_go_with_their_image(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run"])?;
    let signature = sign(&repository, "run")?;
    repository.text(&["tag", "run", "new"])?;
    for name in ["run", "new"] {
        let found = repository.json(0, &["inspect", name])?;
        ensure!(found["referrers"][0]["digest"] == signature.as_str(), "{name}: {found}");
        ensure!(found["referrers"][0]["artifactType"] == "application/example.signature", "{found}");
        ensure!(repository.json(0, &["verify", name])?[0]["status"] == "whole");
    }
    repository.text(&["rm", "new"])?;
    ensure!(!repository.path("new").join("index.json").exists(), "a signature of nothing is left");
    ensure!(repository.json(0, &["inspect", "run"])?["referrers"][0]["digest"] == signature.as_str());
    Ok(())
}

fn rm_takes_the_name_and_nothing_else(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run", "run-v2"])?;
    repository.text(&["tag", "run", "new"])?;
    let before = tree::read(&repository.path("run"))?;
    repository.text(&["rm", "new"])?;
    repository.refused(3, "there is no image `new`", &["inspect", "new"])?;
    ensure!(
        fs::read_dir(repository.path("new").join("blobs/sha256"))?.count() == before.len() - 4,
        "readers lose blobs"
    );
    ensure!(tree::read(&repository.path("run"))? == before, "the other image has changed");
    // It comes back as if it had never been away.
    repository.text(&["tag", "run-v2", "new"])?;
    repository.layout("new").verify()?;
    // A link is only a link.
    symlink("latest", repository.path("run:link"))?;
    ensure!(repository.text(&["ls", "--format", "{name}", "run:link"])? == "run:link\n");
    repository.text(&["rm", "run:link"])?;
    ensure!(!repository.path("run:link").exists() && tree::read(&repository.path("run"))? == before);
    // What is behind a link to a folder is also somewhere else.
    let folder = repository.path("run").parent().context("it has a parent")?.with_file_name("alias");
    symlink("run", &folder)?;
    repository.refused(4, "is behind the link", &["rm", "alias"])?;
    ensure!(tree::read(&repository.path("run"))? == before, "the other image has changed");
    fs::remove_file(folder)?;
    // Those that were removed are told of, though another one is not there.
    repository.text(&["tag", "run", "first", "last"])?;
    let removed = repository.json(3, &["rm", "first", "gone", "last"])?;
    ensure!(removed == json!({"removed": ["first"]}), "{removed}");
    ensure!(repository.path("last").join("index.json").exists(), "one after the failure is gone");
    // A name that is a digest.
    let digest = repository.layout("run").verify()?.remove(0).descriptor.digest;
    let pinned = repository.path("pin:sha256").join(&digest["sha256:".len()..]);
    super::copy(&repository.path("run"), &pinned)?;
    repository.text(&["rm", &format!("pin@{digest}")])?;
    ensure!(!pinned.join("index.json").exists(), "the index is there");
    Ok(())
}

fn gc_leaves_what_may_be_of_use(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run", "run-v2", "run-sparse"])?;
    let stray = repository.path("run").join("blobs/sha256").join("0".repeat(64));
    fs::write(&stray, "fresh: somebody may be about to refer to it")?;
    let before = repository.tree()?;
    for (name, temporary) in [("run", ".drydock-1-1"), ("run-v2", "blobs/sha256/.drydock-99-3")] {
        fs::write(repository.path(name).join(temporary), "left")?;
    }
    let all = repository.tree()?;
    let plan = repository.json(0, &["gc", "--dry-run"])?;
    ensure!(repository.tree()? == all, "a dry run has removed something");
    ensure!(plan["layouts"].as_array().map(Vec::len) == Some(2), "{plan}");
    // As an exporter has it.
    let mut holder = Command::new("flock");
    holder.arg(repository.path("run-v2")).args(["sh", "-c", "echo locked; sleep 60"]);
    let mut holder = holder.stdout(Stdio::piped()).spawn().context("start flock (package util-linux)")?;
    std::io::Read::read_exact(holder.stdout.as_mut().context("a pipe")?, &mut [0; 7])?;
    let cleaned = repository.json(0, &["gc"]);
    holder.kill()?;
    holder.wait()?;
    let cleaned = cleaned?;
    ensure!(cleaned["busy"] == json!(["run-v2:latest"]), "{cleaned}");
    ensure!(stray.exists(), "a fresh blob is gone");
    // What flock started holds the lock until it ends.
    let deadline = Instant::now() + Duration::from_secs(90);
    while repository.json(0, &["gc"])?["busy"] != json!([]) {
        ensure!(Instant::now() < deadline, "the lock stays");
        sleep(Duration::from_millis(200));
    }
    let left = tree::differences(&before, &repository.tree()?);
    ensure!(left.is_empty(), "{}", left.join("\n"));
    // A damaged index is no reason to remove anything.
    fs::write(repository.path("run").join("index.json"), "{")?;
    repository.refused(1, "nothing is removed", &["gc"])
}

/// Tags, flattens, removes and cleans in parallel: whatever the order, every image that is there is whole.
fn all_at_once_lose_nothing(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run", "run-v2", "run-two-platforms"])?;
    for round in 0..15 {
        let works: [&[&str]; 6] = [
            &["tag", "run", "a", "b"],
            &["tag", "run-v2", "b", "a"],
            &["flatten", "run-v2", "c"],
            &["tag", "run-two-platforms", "c"],
            &["gc"],
            &["rm", "d"],
        ];
        repository.text(&["tag", "run", "d"])?;
        let started: Vec<_> = works
            .iter()
            .map(|work| repository.command(work).stdout(Stdio::null()).stderr(Stdio::piped()).spawn())
            .collect::<Result<_, _>>()?;
        for (work, child) in works.iter().zip(started) {
            let output = child.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "round {round}: {work:?}: {}\n{said}", output.status);
        }
        let found = repository.json(0, &["verify"])?;
        let damaged = found.as_array().into_iter().flatten().find(|one| one["status"] != "whole");
        ensure!(damaged.is_none(), "round {round}: {damaged:?}");
        let digest = |name: &str| repository.json(0, &["inspect", name]).map(|found| found["digest"].clone());
        ensure!(digest("a")? == digest("b")?, "round {round}: two names were switched apart");
        for name in ["run", "run-v2", "a", "b", "c"] {
            repository.layout(name).verify().with_context(|| format!("round {round}: {name}"))?;
        }
    }
    Ok(())
}

/// Ctrl-C while a large layer is written; then SIGTERM; then a kill.
fn stopped_in_the_middle(executables: &Built) -> Result<()> {
    let repository = Repository::new(executables)?;
    // Bytes that take their time to compress.
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + u8::try_from(state >> 60).unwrap_or_default())
    });
    let large: String = noise.take(64 << 20).collect();
    repository.write_image("large", &[tar_of(&[(tar::EntryType::Regular, "large", &large)])?])?;
    let before = repository.tree()?;
    for (signal, exit) in [(Signal::INT, Some(130)), (Signal::TERM, Some(143)), (Signal::KILL, None)] {
        let mut command = repository.command_under(&[], &["flatten", "large", "--compression", "zstd:19"]);
        let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let deadline = Instant::now() + Duration::from_mins(1);
        let is_temporary = |path: &std::path::Path| path.to_string_lossy().contains("/.drydock-");
        while !tree_paths(&repository)?.iter().any(|path| is_temporary(path)) {
            ensure!(child.try_wait()?.is_none(), "it was through too early");
            ensure!(Instant::now() < deadline, "it does not begin to write");
            sleep(Duration::from_millis(2));
        }
        let id = Pid::from_raw(i32::try_from(child.id())?).context("a process has a number")?;
        kill_process(id, signal)?;
        let status = child.wait()?;
        ensure!(status.code() == exit, "{signal:?}: {status}");
        if exit.is_none() {
            repository.text(&["gc"])?;
        }
        let left = tree::differences(&before, &repository.tree()?);
        ensure!(left.is_empty(), "{signal:?} leaves:\n{}", left.join("\n"));
    }
    succeed(&mut repository.command(&["verify"])).map(drop)
}

/// Without what is in the files.
fn tree_paths(repository: &Repository) -> Result<Vec<std::path::PathBuf>> {
    let blobs = repository.path("large").join("blobs/sha256");
    fs::read_dir(blobs)?.map(|entry| Ok(entry?.path())).collect()
}
