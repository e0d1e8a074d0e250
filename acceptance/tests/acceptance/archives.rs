//! What restorer and analyzer make of archives that somebody else made: of a cache, or of the previous image. Whatever is in
//! them, nothing comes out but what is restored, and nothing is left of what is refused.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::Layout;
use drydock_acceptance::project::{self, APP_IMAGE, APP_LAYOUT, Project, succeed};
use drydock_acceptance::scenario::User;
use drydock_acceptance::tools::STRACE;
use drydock_acceptance::{sha256, tree};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("archives::of_a_previous_image", of_a_previous_image),
            ("archives::of_a_cached_layer", of_a_cached_layer),
            ("archives::of_cached_sbom_files", of_cached_sbom_files),
            ("archives::give_nobody_more_rights", give_nobody_more_rights),
            ("archives::do_not_fill_the_disk", do_not_fill_the_disk),
            ("archives::need_no_second_thread", need_no_second_thread),
            ("archives::deep_trees_take_few_steps", deep_trees_take_few_steps),
        ],
    )
}

/// What a hostile archive may want to leave, below the layers directory.
const PLANTED: [&str; 9] = [
    "order.toml",
    "group.toml",
    "project-metadata.toml",
    "config/metadata.toml",
    "env/PATH",
    "acme_a/planted.toml",
    "acme_a/planted/bin/sh",
    "acme_b/lib/file",
    "sbom/build/acme_a/sbom.cdx.json",
];

const PLANT: &[u8] = b"planted";

fn header(project: &Project, path: &str, kind: tar::EntryType, mode: u32, size: u64) -> Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_path(project.path("layers").strip_prefix("/")?.join(path))?;
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_cksum();
    Ok(header)
}

/// An archive with folders, and files of these modes, below the layers directory.
fn tar_of(project: &Project, dirs: &[&str], files: &[(&str, u32)]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for dir in dirs {
        tar.append(&header(project, dir, tar::EntryType::Directory, 0o755, 0)?, std::io::empty())?;
    }
    for (file, mode) in files {
        let size = PLANT.len() as u64;
        tar.append(&header(project, file, tar::EntryType::Regular, *mode, size)?, PLANT)?;
    }
    Ok(tar.into_inner()?)
}

/// A cache with this layer of the one buildpack, and these SBOM files.
fn write_cache(project: &Project, layer: &str, sbom: &str) -> Result<()> {
    let metadata = json!({
        "sbom": {"sha": sbom},
        "buildpacks": [{"key": "acme/a", "version": "1", "layers": {"lib": {"sha": layer, "cache": true}}}],
    });
    project.write("cache/committed/io.buildpacks.lifecycle.cache.metadata", metadata.to_string())
}

/// Puts a tar into the cache; gives its digest.
fn cache_tar(project: &Project, tar: &[u8]) -> Result<String> {
    let digest = sha256(tar);
    project.write(&format!("cache/committed/{digest}.tar"), tar)?;
    Ok(digest)
}

fn restore(project: &Project) -> Result<String> {
    Ok(succeed(project.restorer()?.arg("-cache-dir").arg(project.path("cache")))?.text())
}

/// Makes another tar the SBOM layer of the image in a layout.
fn replace_sbom(layout: &Layout, tar: &[u8]) -> Result<()> {
    const LABEL: &str = "io.buildpacks.lifecycle.metadata";
    let put = |bytes: &[u8]| -> Result<String> {
        let digest = sha256(bytes);
        fs::write(layout.blob_path(&digest), bytes)?;
        Ok(digest)
    };
    let digest = put(tar)?;
    let image = layout.images()?.remove(0);
    let mut config = image.config.clone();
    let label = config["config"]["Labels"][LABEL].as_str().context("there is a label")?;
    let mut metadata: Value = serde_json::from_str(label)?;
    let old = metadata["sbom"]["sha"].as_str().context("the image has SBOM files")?.to_owned();
    metadata["sbom"]["sha"] = json!(digest);
    config["config"]["Labels"][LABEL] = json!(metadata.to_string());
    let at = image.diff_ids()?.iter().position(|id| *id == old).context("it has that layer")?;
    config["rootfs"]["diff_ids"][at] = json!(digest);
    let config = config.to_string();
    let manifest = layout.blob(&image.descriptor.digest)?.context("there is a manifest")?;
    let mut manifest: Value = serde_json::from_slice(&manifest)?;
    manifest["layers"][at] =
        json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": tar.len()});
    manifest["config"]["digest"] = json!(put(config.as_bytes())?);
    manifest["config"]["size"] = json!(config.len());
    let manifest = manifest.to_string();
    let mut index: Value = layout.json("index.json")?;
    index["manifests"][0]["digest"] = json!(put(manifest.as_bytes())?);
    index["manifests"][0]["size"] = json!(manifest.len());
    fs::write(layout.dir().join("index.json"), index.to_string()).context("write the index")
}

/// That the layers directory is as it was.
fn ensure_unchanged(project: &Project, before: &tree::Tree, planted: &str) -> Result<()> {
    let changes = tree::differences(before, &tree::read(&project.path("layers"))?);
    ensure!(changes.is_empty(), "{planted}: {}", changes.join("\n"));
    Ok(())
}

fn of_a_previous_image(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    let sbom = "sbom/launch/acme_a/lib/sbom.cdx.json";
    project.write_layer("lib", "launch = true", "library")?;
    project.write(&format!("layers/{sbom}"), "{}")?;
    project.analyze()?;
    project.export()?;
    fs::remove_dir_all(project.path("layers/sbom/launch"))?;
    let dirs = ["sbom/launch", "sbom/launch/acme_a", "sbom/launch/acme_a/lib"];
    let before = tree::read(&project.path("layers"))?;
    for planted in PLANTED {
        let tar = tar_of(&project, &dirs, &[(sbom, 0o644), (planted, 0o4755)])?;
        replace_sbom(&project.layout(APP_LAYOUT), &tar)?;
        let output = project::run(project.analyzer()?.arg(APP_IMAGE))?;
        ensure!(output.exit == 32, "{planted}: exit code {}\n{}", output.exit, output.text());
        let says = ["is refused: it lies outside", planted, "to build without a previous image"];
        ensure!(says.iter().all(|text| output.text().contains(text)), "{planted}: {}", output.text());
        ensure_unchanged(&project, &before, planted)?;
    }
    replace_sbom(&project.layout(APP_LAYOUT), &tar_of(&project, &dirs, &[(sbom, 0o644)])?)?;
    project.analyze()?;
    ensure!(fs::read(project.path("layers").join(sbom))? == PLANT, "what belongs there is not restored");
    Ok(())
}

fn of_a_cached_layer(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    project.write("layers/acme_a/other/file", "")?;
    let before = tree::read(&project.path("layers"))?;
    for planted in PLANTED.into_iter().chain(["acme_a/lib.toml", "acme_a/other/file", "sbom/cache/x"]) {
        let tar = tar_of(&project, &["acme_a/lib"], &[("acme_a/lib/file", 0o644), (planted, 0o4755)])?;
        write_cache(&project, &cache_tar(&project, &tar)?, "")?;
        let said = restore(&project)?;
        let says = ["Skipping restore for layer acme/a:lib", "is refused: it lies outside", planted];
        ensure!(says.iter().all(|text| said.contains(text)), "{planted}: {said}");
        ensure_unchanged(&project, &before, planted)?;
    }
    Ok(())
}

fn of_cached_sbom_files(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    let good = tar_of(&project, &["acme_a/lib"], &[("acme_a/lib/file", 0o644)])?;
    let layer = cache_tar(&project, &good)?;
    let sbom = "sbom/cache/acme_a/lib/sbom.cdx.json";
    let dirs = ["sbom/cache", "sbom/cache/acme_a", "sbom/cache/acme_a/lib"];
    write_cache(&project, &layer, "")?;
    restore(&project)?;
    let before = tree::read(&project.path("layers"))?;
    for planted in PLANTED.into_iter().chain(["acme_a/lib/bin", "sbom/launch/acme_a/lib/sbom.cdx.json"]) {
        let tar = tar_of(&project, &dirs, &[(sbom, 0o644), (planted, 0o4755)])?;
        write_cache(&project, &layer, &cache_tar(&project, &tar)?)?;
        let said = restore(&project)?;
        let says = ["Skipping restore of the cached SBOM files", "is refused: it lies outside", planted];
        ensure!(says.iter().all(|text| said.contains(text)), "{planted}: {said}");
        ensure_unchanged(&project, &before, planted)?;
    }
    Ok(())
}

fn give_nobody_more_rights(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    let files = [
        ("acme_a/lib/a", 0o4755),
        ("acme_a/lib/b", 0o2711),
        ("acme_a/lib/c", 0o1644),
        ("acme_a/lib/d", 0o6777),
        ("acme_a/lib/e", 0o640),
    ];
    write_cache(&project, &cache_tar(&project, &tar_of(&project, &["acme_a/lib"], &files)?)?, "")?;
    restore(&project)?;
    for (path, mode) in files {
        let found = fs::metadata(project.path("layers").join(path))?.permissions().mode() & 0o7777;
        ensure!(found == mode & 0o777, "{path} has mode {found:o}, in the archive {mode:o}");
    }
    Ok(())
}

/// A file of 8 GiB, in a tar of some blocks: the rest is a hole.
fn do_not_fill_the_disk(executables: &Built) -> Result<()> {
    const SIZE: u64 = 8 << 30;
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    let digest = format!("sha256:{}", "0".repeat(64));
    write_cache(&project, &digest, "")?;
    let mut tar = File::create(project.path(&format!("cache/committed/{digest}.tar")))?;
    tar.write_all(header(&project, "acme_a/lib", tar::EntryType::Directory, 0o755, 0)?.as_bytes())?;
    tar.write_all(header(&project, "acme_a/lib/huge", tar::EntryType::Regular, 0o644, SIZE)?.as_bytes())?;
    tar.set_len(SIZE + 2048)?;
    let said = restore(&project)?;
    ensure!(said.contains("it has more than 1073741824 bytes"), "{said}");
    ensure!(!Path::exists(&project.path("layers/acme_a/lib")), "something is left");
    Ok(())
}

/// As a user who has no other process, and may have no other thread.
fn need_no_second_thread(executables: &Built) -> Result<()> {
    let uid = 40_000 + std::process::id() % 20_000;
    let project = Project::new(executables.for_everyone()?, User::Root)?;
    let names: Vec<_> = (0..500).map(|number| format!("acme_a/lib/{number}")).collect();
    let files: Vec<_> = names.iter().map(|name| (&**name, 0o644)).collect();
    let layer = cache_tar(&project, &tar_of(&project, &["acme_a/lib"], &files)?)?;
    write_cache(&project, &layer, "")?;
    for entry in walkdir::WalkDir::new(project.path("")) {
        lchown(entry?.path(), Some(uid), Some(uid)).context("give the project away")?;
    }
    let (user, group) = (format!("--reuid={uid}"), format!("--regid={uid}"));
    let starter = ["prlimit", "--nproc=1", "setpriv", &user, &group, "--clear-groups", "--"];
    let mut restorer = project.restorer_under(&starter)?;
    succeed(restorer.arg("-cache-dir").arg(project.path("cache")))?;
    let found = fs::read_dir(project.path("layers/acme_a/lib"))?.count();
    ensure!(found == names.len(), "{found} of {} files are there", names.len());
    Ok(())
}

/// Two chains of directories with files in turns in one and in the other. Where the kernel refuses to go a long way at
/// once, it takes more steps.
fn deep_trees_take_few_steps(executables: &Built) -> Result<()> {
    const DEPTH: usize = 400;
    let mut tar = tar::Builder::new(Vec::new());
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    let dir = header(&project, "x", tar::EntryType::Directory, 0o755, 0)?;
    let file = header(&project, "x", tar::EntryType::Regular, 0o644, 0)?;
    let layer = project.path("layers/acme_a/lib");
    let layer = layer.strip_prefix("/")?;
    tar.append_data(&mut dir.clone(), layer, std::io::empty())?;
    let chains = ["a", "b"].map(|name| vec![name; DEPTH].join("/"));
    for chain in &chains {
        for end in 1..=DEPTH {
            tar.append_data(&mut dir.clone(), layer.join(&chain[..2 * end - 1]), std::io::empty())?;
        }
    }
    let files: Vec<_> = (0..100).map(|number| format!("{}/{number}", chains[number % 2])).collect();
    for name in &files {
        tar.append_data(&mut file.clone(), layer.join(name), std::io::empty())?;
    }
    write_cache(&project, &cache_tar(&project, &tar.into_inner()?)?, "")?;
    let log = project.path("calls");
    let log = log.to_str().context("the path is UTF-8")?;
    for inject in [&[][..], &["-e", "inject=openat2:error=ENOSYS"], &["-e", "inject=openat2:error=EPERM"]] {
        let starter = [STRACE.name, "-f", "-qqq", "-o", log, "-e", "trace=openat,openat2"];
        let mut restorer = project.restorer_under(&[&starter[..], inject].concat())?;
        let said = succeed(restorer.arg("-cache-dir").arg(project.path("cache")))?.text();
        for name in &files {
            ensure!(project.path("layers/acme_a/lib").join(name).is_file(), "{inject:?}: {name}: {said}");
        }
        let calls = fs::read_to_string(log)?.lines().count();
        ensure!(!inject.is_empty() || calls < 10_000, "{calls} directories and files were opened");
        fs::remove_dir_all(project.path("layers/acme_a"))?;
    }
    Ok(())
}
