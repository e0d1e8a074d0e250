//! What can be wrong with a cache, of either kind: it is damaged, it cannot be written, or it is where the app image is. It
//! never costs the app image, and what an export leaves in it is right.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{self, APP_IMAGE, APP_LAYOUT, Project, succeed};
use drydock_acceptance::run::{self, Output};
use drydock_acceptance::scenario::{Operation, Scenario, User};
use drydock_acceptance::stage::Stage;
use drydock_acceptance::{here, sha256, tree};
use libtest_mimic::Trial;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("caches::damage_is_made_good_without_a_restore", damage_is_made_good_without_a_restore),
            ("caches::one_that_is_full_costs_no_image", one_that_is_full_costs_no_image),
            ("caches::one_that_cannot_be_written_costs_no_image", one_that_cannot_be_written_costs_no_image),
            ("caches::one_is_not_where_the_app_image_is", one_is_not_where_the_app_image_is),
            ("caches::the_creator_looks_before_it_builds", the_creator_looks_before_it_builds),
        ],
    )
}

const DIR: [&str; 2] = ["-cache-dir", "cache"];
const COMMITTED: &str = "cache/committed";
const IMAGE: [&str; 2] = ["-cache-image", "example.com/acme/cache:app"];
const IMAGE_LAYOUT: &str = "layout-repo/example.com/acme/cache/app";
/// The compressed layer is larger than a file system for which a test leaves no room.
const SIZE: u32 = 300_000;

/// A layer for launch and cache, one for build and cache, and an SBOM of the latter.
fn project(executables: &Built) -> Result<Project> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    write_layers(&project, 1)?;
    project.write("layers/sbom/cache/acme_a/tool/sbom.cdx.json", "{}")?;
    project.analyze()?;
    Ok(project)
}

fn write_layers(project: &Project, seed: u32) -> Result<()> {
    project.write_layer("both", "launch = true\ncache = true", noise(seed))?;
    project.write_layer("tool", "build = true\ncache = true", noise(seed + 1000))
}

fn noise(seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    };
    (0..SIZE / 4).flat_map(next).collect()
}

/// Exports an image that must be whole.
fn export(project: &Project, cache: [&str; 2]) -> Result<Output> {
    let output = succeed(project.exporter()?.args(cache).arg(APP_IMAGE))?;
    check_image(project)?;
    Ok(output)
}

fn check_image(project: &Project) -> Result<()> {
    let layout = project.layout(APP_LAYOUT);
    layout.verify()?;
    let faults = layout.faults()?;
    ensure!(faults.is_empty(), "the app image has faults:\n{}", faults.join("\n"));
    Ok(())
}

/// The warnings in what a phase printed.
fn warnings(output: &Output) -> Vec<String> {
    let text = output.text();
    text.lines()
        .filter(|line| line.contains("Warning:") && !line.contains("SBOM"))
        .map(str::to_owned)
        .collect()
}

/// The files with the layers in a cache.
fn blobs(project: &Project, kind: [&str; 2]) -> Result<Vec<PathBuf>> {
    if kind == IMAGE {
        let layout = project.layout(IMAGE_LAYOUT);
        let layers = layout.verify()?.remove(0).layers;
        return Ok(layers.iter().map(|layer| layout.blob_path(&layer.digest)).collect());
    }
    let entries = fs::read_dir(project.path(COMMITTED)).context("list the cache")?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "tar")).collect())
}

/// Every blob and tar must be what its name says.
fn check_cache(project: &Project, kind: [&str; 2]) -> Result<()> {
    let paths = blobs(project, kind)?;
    ensure!(paths.len() == 3, "the cache holds {paths:?}");
    for path in paths {
        ensure!(path.symlink_metadata()?.is_file(), "{} is no file", path.display());
        let stem = path.file_stem().context("it has a name")?.display().to_string();
        let hex = stem.trim_start_matches("sha256:");
        ensure!(sha256(&fs::read(&path)?) == format!("sha256:{hex}"), "{} is damaged", path.display());
    }
    Ok(())
}

/// Harms the file at a path.
type Damage = fn(&Path) -> Result<()>;

fn damage_is_made_good_without_a_restore(executables: &Built) -> Result<()> {
    let damages: [(&str, Damage); 7] = [
        ("flipped", |path| {
            let mut bytes = fs::read(path)?;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            replace(path, &bytes)
        }),
        ("zeroed", |path| replace(path, &vec![0; usize::try_from(path.metadata()?.len())?])),
        ("cut", |path| replace(path, &fs::read(path)?[..100])),
        ("longer", |path| replace(path, &[&fs::read(path)?[..], b"\0"].concat())),
        ("gone", |path| fs::remove_file(path).context("remove it")),
        ("a device", |path| {
            fs::remove_file(path)?;
            symlink("/dev/zero", path).context("make a link")
        }),
        ("a FIFO", |path| {
            fs::remove_file(path)?;
            mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).context("make a FIFO")
        }),
    ];
    for kind in [DIR, IMAGE] {
        let project = project(executables)?;
        export(&project, kind)?;
        project.analyze()?;
        let place = project.path(if kind == IMAGE { IMAGE_LAYOUT } else { COMMITTED });
        let whole = tree::read(&place)?;
        for (name, damage) in damages {
            for number in 0..3 {
                damage(&blobs(&project, kind)?[number]).context(name)?;
                export(&project, kind).with_context(|| format!("{} {name}", kind[0]))?;
                check_cache(&project, kind).with_context(|| format!("{} {name}", kind[0]))?;
                let changed = tree::differences(&whole, &tree::read(&place)?);
                ensure!(changed.is_empty(), "{} {name}:\n{}", kind[0], changed.join("\n"));
            }
        }
        // What is whole is kept without a word.
        let output = export(&project, kind)?;
        ensure!(warnings(&output).is_empty(), "{}", output.text());
        ensure!(output.text().contains("Reusing cache layer 'acme/a:tool'"), "{}", output.text());
    }
    Ok(())
}

/// Not in place: a blob of the cache image may be the app image's, too.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::remove_file(path)?;
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

/// Runs a phase with a cache in a file system of its own, which has what is in `cache-before` and these options: it must
/// be as it was, but for what the next export removes.
const IN_FILE_SYSTEM: &str = r#"
mount -t tmpfs -o "$1" cache cache && cp -a cache-before/. cache/ 2>/dev/null
[ -z "$2" ] || mount -o "remount,$2" cache
before=$(cd cache/committed 2>/dev/null && sha256sum *)
shift 2
"$@"
code=$?
after=$(cd cache/committed 2>/dev/null && sha256sum *)
[ "$before" = "$after" ] || echo "the cache has changed"
exit $code
"#;

/// Exports with a cache in a file system with these options, first given and then changed.
fn export_in(project: &Project, options: &str, then: &str) -> Result<Output> {
    let shell = ["unshare", "--mount", "sh", "-c", IN_FILE_SYSTEM, "sh", options, then];
    let starter = [&shell[..], &["timeout", "--foreground", "--signal=KILL", "60"]].concat();
    let output = succeed(project.exporter_under(&starter)?.args(DIR).arg(APP_IMAGE))
        .with_context(|| format!("{options} {then}"))?;
    check_image(project).with_context(|| format!("{options} {then}"))?;
    Ok(output)
}

fn one_that_is_full_costs_no_image(executables: &Built) -> Result<()> {
    let project = project(executables)?;
    fs::create_dir(project.path("cache-before")).context("make a folder")?;
    let mut last = 0;
    // First without a cache, then with one of another version, for which there is room. The last have room for all.
    for (round, least_inodes, least_kib) in [(0, 1, 4), (1, 6, 640)] {
        let inodes = (least_inodes..=16).map(|n| format!("size=4m,nr_inodes={n}"));
        let bytes = (least_kib..=1600).step_by(200).map(|n| format!("size={n}k,nr_inodes=100"));
        for (number, options) in inodes.chain(bytes).enumerate() {
            write_layers(&project, 2 * u32::try_from(number)? + round)?;
            let output = export_in(&project, &options, "")?;
            // There is room, and nothing is said; or there is none, and the cache is as it was.
            let has_changed = output.text().contains("the cache has changed");
            let said = warnings(&output);
            let wanted = usize::from(!has_changed);
            ensure!(
                said.len() == wanted,
                "{options}: {} warnings, not {wanted}\n{}",
                said.len(),
                output.text()
            );
            ensure!(said.iter().all(|line| line.contains("cache")), "{options}: {said:?}");
            last = wanted;
        }
        ensure!(last == 0, "there was never room for the cache");
        export(&project, DIR)?;
        succeed(
            std::process::Command::new("cp")
                .arg("-aT")
                .args([project.path("cache"), project.path("cache-before")]),
        )?;
    }
    Ok(())
}

fn one_that_cannot_be_written_costs_no_image(executables: &Built) -> Result<()> {
    let project = project(executables)?;
    fs::create_dir(project.path("cache-before")).context("make a folder")?;
    let check = |output: &Output| {
        let said = warnings(output);
        ensure!(said.len() == 1 && said[0].contains("Nothing will be cached"), "{}", output.text());
        ensure!(!output.text().contains("the cache has changed"), "{}", output.text());
        Ok(())
    };
    check(&export_in(&project, "size=4m", "ro")?)?;
    // A layer is restored from it all the same.
    export(&project, DIR)?;
    succeed(
        std::process::Command::new("cp")
            .arg("-aT")
            .args([project.path("cache"), project.path("cache-before")]),
    )?;
    fs::remove_dir_all(project.path("layers/acme_a")).context("empty the layers directory")?;
    project.analyze()?;
    let shell = ["unshare", "--mount", "sh", "-c", IN_FILE_SYSTEM, "sh", "size=4m", "ro"];
    let output = succeed(project.restorer_under(&shell)?.args(DIR))?;
    ensure!(warnings(&output).is_empty(), "{}", output.text());
    ensure!(fs::read(project.path("layers/acme_a/tool/file"))? == noise(1001), "another layer came back");
    write_layers(&project, 2)?;
    check(&export_in(&project, "size=4m", "ro")?)?;
    // A folder that is not there is a mistake in the arguments.
    let output = project::run(project.exporter()?.args(["-cache-dir", "none", APP_IMAGE]))?;
    ensure!(output.exit == 1 && output.text().contains("failed to create volume cache"), "{}", output.text());
    Ok(())
}

/// By whatever names: neither waits for the other, or removes what it has.
fn one_is_not_where_the_app_image_is(executables: &Built) -> Result<()> {
    let project = project(executables)?;
    export(&project, IMAGE)?;
    let library = project.path("layout-repo/index.docker.io/library");
    fs::create_dir(library.join("app/latest/cache")).context("make a folder")?;
    for (link, to) in [
        ("app/stable", PathBuf::from("latest")),
        ("app/cached", project.path("cache/staging")),
        ("app/later", project.path("layout-repo/example.com/acme/later/latest")),
        ("dir", project.path(APP_LAYOUT)),
    ] {
        symlink(to, library.join(link)).context("make a link")?;
    }
    fs::create_dir(project.path("cache/staging")).context("make a folder")?;
    let latest = library.join("app/latest").display().to_string();
    let (inside, link) = (format!("{latest}/cache"), library.join("dir").display().to_string());
    let before = tree::read(&project.path(""))?;
    for arguments in [
        &["-cache-dir", &latest, APP_IMAGE][..],
        &["-cache-dir", &link, APP_IMAGE],
        &["-cache-dir", &inside, APP_IMAGE],
        &["-cache-dir", &latest, "app:stable"],
        &["-cache-dir", &latest, "other", "app:stable"],
        &["-cache-dir", "cache", "app:cached"],
        &["-cache-image", APP_IMAGE, APP_IMAGE],
        &["-cache-image", APP_IMAGE, "app:stable"],
        &["-cache-image", "app:stable", APP_IMAGE],
        &["-cache-image", "example.com/acme/later", "app:later"],
    ] {
        let output = project::run(project.exporter()?.args(arguments))?;
        ensure!(output.exit == 3, "{arguments:?}: exit code {}\n{}", output.exit, output.text());
        let said = output.text();
        ensure!(said.contains("cannot be the cache"), "{arguments:?}: {said}");
        let changed = tree::differences(&before, &tree::read(&project.path(""))?);
        ensure!(changed.is_empty(), "{arguments:?}:\n{}", changed.join("\n"));
    }
    // Beside it there is room, and what has no effect is in nobody's way.
    let beside = library.join("volume").display().to_string();
    fs::create_dir(&beside).context("make a folder")?;
    fs::remove_dir(library.join("app/latest/cache")).context("remove the folder")?;
    succeed(project.exporter()?.args(["-cache-dir", &beside, "-launch-cache", &latest, APP_IMAGE]))?;
    check_image(&project)?;
    File::open(library.join("volume/committed")).context("the cache is there")?;
    Ok(())
}

fn the_creator_looks_before_it_builds(executables: &Built) -> Result<()> {
    let scenario = Scenario::load(&here("scenarios/creator-twice"))?;
    let stage = Stage::new(&scenario, &here("images"))?;
    let latest = "/layout-repo/index.docker.io/library/my-app-image/latest";
    stage.apply(&[
        Operation::MakeDir(latest.to_owned()),
        Operation::Symlink("/cache/link".to_owned(), latest.to_owned()),
    ])?;
    for (cache, exit, says) in
        [("/cache/link", 3, "cannot be the cache"), ("/cache/none", 1, "failed to create volume cache")]
    {
        let environment = run::environment();
        let mut command = run::command(&stage, executables.get()?.dir(), User::Root, &environment);
        command.args(["/cnb/lifecycle/creator", "-run-image", "acme/run:base", "-cache-dir", cache]);
        let output = project::run(command.args(["-launcher", "/cnb/stand-in/launcher", "my-app-image"]))?;
        let said = output.text();
        ensure!(output.exit == exit && said.contains(says), "exit code {}\n{said}", output.exit);
        ensure!(!said.contains("BUILDING"), "it has built\n{said}");
    }
    Ok(())
}
