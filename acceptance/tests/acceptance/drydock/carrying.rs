//! `import` and `export` without a network: skopeo, umoci and buildah write what is read, and read what is written.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::Layout;
use drydock_acceptance::project::succeed;
use drydock_acceptance::{here, sha256, tools, tree};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tar::EntryType as Type;

use super::{Repository, tar_of};
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("drydock::round_trips_keep_digests", round_trips_keep_digests),
            ("drydock::what_skopeo_writes_is_imported", what_skopeo_writes_is_imported),
            ("drydock::blobs_that_are_there_are_linked", blobs_that_are_there_are_linked),
            ("drydock::referrers_are_carried", referrers_are_carried),
            ("drydock::docker_archives_load", docker_archives_load),
            ("drydock::old_docker_archives_are_imported", old_docker_archives_are_imported),
            ("drydock::one_of_several_platforms", one_of_several_platforms),
            ("drydock::damaged_archives_are_refused", damaged_archives_are_refused),
            ("drydock::hostile_archives_are_refused", hostile_archives_are_refused),
            ("drydock::damaged_layouts_are_refused", damaged_layouts_are_refused),
        ],
    )
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders are UTF-8")
}

pub(super) fn digest(repository: &Repository, name: &str) -> Result<Value> {
    Ok(repository.json(0, &["inspect", name, "--platform", "linux/amd64"])?["digest"].clone())
}

/// What the layout's index names first.
fn named(layout: &Path) -> Result<Value> {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    Ok(index["manifests"][0]["digest"].clone())
}

/// The same, compressed.
pub(super) fn compressed(file: &Path, program: &str, suffix: &str) -> Result<PathBuf> {
    let to = file.with_extension(suffix);
    let output = succeed(Command::new(program).arg("-c").arg(file))?;
    fs::write(&to, output.stdout)?;
    Ok(to)
}

fn round_trips_keep_digests(executables: &Built) -> Result<()> {
    let images = ["run", "run-two-platforms", "run-docker", "run-v2"];
    let repository = Repository::with(executables, &images)?;
    let out = tempfile::tempdir()?;
    for name in images {
        let want = digest(&repository, name)?;
        let (layout, archive) = (out.path().join(name), out.path().join(format!("{name}.tar")));
        repository.text(&["export", name, &format!("oci:{}", text(&layout))])?;
        drydock_acceptance::layout::Layout::new(&layout).verify()?;
        repository.text(&["export", name, &format!("oci-archive:{}", text(&archive))])?;
        let again = out.path().join("again.tar");
        let mut to_stdout = repository.command(&["export", name, "oci-archive:-"]);
        to_stdout.stdout(fs::File::create(&again)?);
        ensure!(to_stdout.status()?.success() && fs::read(&again)? == fs::read(&archive)?);
        by_other_names(&repository, name, &archive)?;
        let (gz, zst) = (compressed(&archive, "gzip", "tgz")?, compressed(&archive, "zstd", "tzst")?);
        for (number, source) in [
            format!("oci:{}:latest", text(&layout)),
            format!("oci:{}", text(&layout)),
            format!("oci-archive:{}", text(&archive)),
            format!("oci-archive:{}", text(&gz)),
            format!("docker-archive:{}", text(&zst)),
        ]
        .iter()
        .enumerate()
        {
            let fresh = Repository::new(executables)?;
            let new = format!("{name}:v{number}");
            fresh.text(&["import", source, &new])?;
            ensure!(digest(&fresh, &new)? == want, "{source}");
            ensure!(named(&fresh.path(&new))? == named(&layout)?, "{source}");
            fresh.layout(&new).verify()?;
            ensure!(fresh.json(0, &["verify"])?[0]["status"] == "whole", "{source}");
            ensure!(fs::read_dir(fresh.dir.path())?.count() == 1, "something is left");
        }
        // skopeo reads what was written, but keeps only OCI's manifests as they are.
        if name == "run-docker" {
            continue;
        }
        let copied = out.path().join(format!("{name}.copy"));
        let to = format!("oci:{}:latest", text(&copied));
        let from = format!("oci-archive:{}", text(&archive));
        tools::SKOPEO.run(out.path(), &["copy", "--quiet", "--preserve-digests", "--all", &from, &to])?;
        ensure!(named(&copied)? == named(&layout)?, "skopeo finds another image: {name}");
    }
    Ok(())
}

/// An archive goes through links, to standard output and into pipes, and these stay what they are.
fn by_other_names(repository: &Repository, name: &str, archive: &Path) -> Result<()> {
    let out = tempfile::tempdir()?;
    let [link, fifo] = ["link", "fifo"].map(|name| out.path().join(name));
    let (stdout, wanted) = (out.path().join("stdout"), fs::read(archive)?);
    let to = |path: &Path| repository.command(&["export", name, &format!("oci-archive:{}", text(path))]);
    let mut append = fs::OpenOptions::new().create(true).append(true).open(&stdout)?;
    append.write_all(b"before")?;
    ensure!(to(Path::new("/dev/stdout")).stdout(append).status()?.success());
    ensure!(
        fs::read(&stdout)? == [b"before", wanted.as_slice()].concat(),
        "standard output has another archive"
    );
    std::os::unix::fs::symlink("stdout", &link)?;
    succeed(&mut to(&link))?;
    ensure!(
        fs::symlink_metadata(&link)?.is_symlink() && fs::read(&stdout)? == wanted,
        "the link is replaced"
    );
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    let read = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::read(fifo)
    });
    succeed(&mut to(&fifo))?;
    let read = read.join().map_err(|_| anyhow::anyhow!("the pipe's reader"))??;
    ensure!(read == wanted && !fs::metadata(&fifo)?.is_file(), "the pipe is replaced");
    Ok(())
}

fn what_skopeo_writes_is_imported(executables: &Built) -> Result<()> {
    let repository = Repository::new(executables)?;
    let scratch = tempfile::tempdir()?;
    let image = tools::Image::new(&here("images/run"), "latest", scratch.path())?;
    let want = named(&here("images/run"))?;
    let archive = image.archive("oci-archive")?;
    // It is called what skopeo called it.
    let said = repository.text(&["import", &format!("oci-archive:{}", text(&archive))])?;
    ensure!(said.contains("example.com/image:latest"), "{said}");
    ensure!(said.contains(want.as_str().context("a digest")?), "{said}");
    let (name, same) =
        ("example.com/image:latest", format!("oci-archive:{}:example.com/image:latest", text(&archive)));
    ensure!(digest(&repository, name)? == want);
    repository.text(&["import", &same, "second"])?;
    repository.refused(
        3,
        "example.com/image:latest",
        &["import", &same.replace("latest", "other"), "third"],
    )?;
    // Of several in one layout, one must be named.
    let layout = scratch.path().join("two");
    for tag in ["one", "two"] {
        let to = format!("oci:{}:{tag}", text(&layout));
        tools::SKOPEO.run(scratch.path(), &["copy", "--quiet", "oci:layout:latest", &to])?;
    }
    repository.refused(
        3,
        "there are several images in it, name one of these: one, two",
        &["import", &format!("oci:{}", text(&layout)), "third"],
    )?;
    repository.text(&["import", &format!("oci:{}:two", text(&layout)), "third"])?;
    ensure!(digest(&repository, "third")? == want);
    repository.refused(2, "what it is to be called", &["import", &format!("oci:{}:two", text(&layout))])
}

fn blobs_that_are_there_are_linked(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run"])?;
    let out = tempfile::tempdir()?;
    let layout = format!("oci:{}", text(&out.path().join("layout")));
    repository.text(&["export", "run", &layout])?;
    let imported = repository.json(0, &["import", &layout, "new"])?;
    ensure!(imported["fetched"] == 0, "{imported}");
    for entry in fs::read_dir(repository.path("run").join("blobs/sha256"))? {
        let from = entry?.path();
        let file = from.file_name().context("a name")?;
        let to = repository.path("new").join("blobs/sha256").join(file);
        ensure!(fs::metadata(&from)?.ino() == fs::metadata(&to)?.ino(), "{} is a copy", to.display());
        // What is outside is somebody else's.
        let outside = out.path().join("layout/blobs/sha256").join(file);
        ensure!(fs::metadata(&from)?.ino() != fs::metadata(outside)?.ino(), "the export is a link");
    }
    // A damaged one is no reason to take it, nor to keep it.
    let image = repository.layout("run").verify()?.remove(0);
    let manifest = fs::read(repository.layout("run").blob_path(&image.descriptor.digest))?;
    let manifest: Value = serde_json::from_slice(&manifest)?;
    let layer = manifest["layers"][0]["digest"].as_str().context("a digest")?;
    let blob = repository.layout("run").blob_path(layer);
    let mut bytes = fs::read(&blob)?;
    bytes[0] ^= 1;
    fs::remove_file(&blob)?;
    fs::write(&blob, bytes)?;
    repository.text(&["import", &layout, "third"])?;
    repository.text(&["import", &layout, "run"])?;
    ensure!(repository.json(0, &["verify"])?.as_array().context("a list")?.len() == 3);
    Ok(())
}

fn referrers_are_carried(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run"])?;
    let signature = super::writing::sign(&repository, "run")?;
    let out = tempfile::tempdir()?;
    for (kind, name) in [("oci", "one"), ("oci-archive", "two")] {
        let place = format!("{kind}:{}", text(&out.path().join(name)));
        repository.text(&["export", "run", &place])?;
        let fresh = Repository::new(executables)?;
        fresh.text(&["import", &place, "new"])?;
        let found = fresh.json(0, &["inspect", "new"])?;
        ensure!(found["referrers"][0]["digest"] == signature.as_str(), "{kind}: {found}");
        ensure!(fresh.json(0, &["verify"])?[0]["status"] == "whole");
    }
    Ok(())
}

fn docker_archives_load(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run", "run-docker"])?;
    let out = tempfile::tempdir()?;
    for name in ["run", "run-docker"] {
        let file = out.path().join(format!("{name}.tar"));
        repository.text(&["export", name, &format!("docker-archive:{}", text(&file))])?;
        let list = succeed(Command::new("tar").arg("-xOf").arg(&file).arg("manifest.json"))?;
        let list: Value = serde_json::from_slice(&list.stdout)?;
        ensure!(list[0]["RepoTags"] == json!([format!("docker.io/library/{name}:latest")]), "{list}");
        // skopeo reads them as docker and podman do.
        let copied = out.path().join(format!("{name}.oci"));
        let from = format!("docker-archive:{}", text(&file));
        tools::SKOPEO
            .run(out.path(), &["copy", "--quiet", &from, &format!("oci:{}:latest", text(&copied))])?;
        let expected = repository.layout(name).verify()?.remove(0);
        let found = Layout::new(&copied).verify()?.remove(0);
        ensure!(expected.diff_ids()? == found.diff_ids()?, "{name}: other layers");
        // And so do we: with the same configuration, which is docker's image ID.
        let fresh = Repository::new(executables)?;
        fresh.text(&["import", &from])?;
        let config = |repository: &Repository| -> Result<String> {
            Ok(repository.layout(name).verify()?.remove(0).config_descriptor.digest)
        };
        ensure!(config(&repository)? == config(&fresh)?, "{name}: another configuration");
    }
    Ok(())
}

fn old_docker_archives_are_imported(executables: &Built) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let image = tools::Image::new(&here("images/run"), "latest", scratch.path())?;
    let archive = image.archive("docker-archive")?;
    let expected = tree::read(&image.unpack()?)?;
    for file in [archive.clone(), compressed(&archive, "gzip", "tgz")?, compressed(&archive, "zstd", "zst")?]
    {
        let repository = Repository::new(executables)?;
        let said = repository.text(&["import", &format!("docker-archive:{}", text(&file))])?;
        ensure!(said.starts_with("example.com/image:latest is sha256:"), "{said}");
        ensure!(repository.json(0, &["verify"])?[0]["status"] == "whole");
        let out = tempfile::tempdir()?;
        let layout = repository.dir.path().join("example.com/image/latest");
        let found = tools::Image::new(&layout, "latest", out.path())?.unpack()?;
        let found = tree::differences(&expected, &tree::read(&found)?);
        ensure!(found.is_empty(), "{}", found.join("\n"));
    }
    // A layer that is not the one of the configuration.
    let config = json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [sha256(b"another")]}})
    .to_string();
    let config_name = format!("{}.json", &sha256(config.as_bytes())["sha256:".len()..]);
    let list =
        json!([{"Config": config_name, "RepoTags": ["bad:latest"], "Layers": ["l/layer.tar"]}]).to_string();
    let layer = String::from_utf8(tar_of(&[(Type::Regular, "f", "x")])?)?;
    let bad = scratch.path().join("bad.tar");
    let repository = Repository::with(executables, &["run"])?;
    for (config_text, layer_name, says) in [
        (config.as_str(), "l/layer.tar", "the configuration says"),
        ("{}", "l/layer.tar", "is corrupt where it comes from"),
        (&config, "other", "`l/layer.tar` is not there"),
    ] {
        let entries = [
            (Type::Regular, "manifest.json", list.as_str()),
            (Type::Regular, &config_name, config_text),
            (Type::Regular, layer_name, &layer),
        ];
        fs::write(&bad, tar_of(&entries)?)?;
        repository.refused(1, says, &["import", &format!("docker-archive:{}", text(&bad))])?;
    }
    Ok(())
}

fn one_of_several_platforms(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run-two-platforms"])?;
    let out = tempfile::tempdir()?;
    let place = format!("oci-archive:{}", text(&out.path().join("all.tar")));
    repository.text(&["export", "run-two-platforms", &place])?;
    let arm = ["--platform", "linux/arm64"];
    let want = repository.json(0, &["inspect", "run-two-platforms", "--platform", "linux/arm64"])?;
    let fresh = Repository::new(executables)?;
    fresh.text(&[&["import", &place, "arm"], &arm[..]].concat())?;
    let found = fresh.json(0, &["inspect", "arm"])?;
    ensure!(found["digest"] == want["digest"] && found["platforms"] == json!(["linux/arm64"]), "{found}");
    fresh.refused(
        3,
        "no image for platform linux/s390x",
        &["import", &place, "x", "--platform", "linux/s390x"],
    )?;
    let one = format!("oci:{}", text(&out.path().join("one")));
    repository.text(&[&["export", "run-two-platforms", &one], &arm[..]].concat())?;
    ensure!(drydock_acceptance::layout::Layout::new(out.path().join("one")).verify()?.len() == 1);
    // As one layer: for this machine, or the one that is asked for.
    fresh.text(&["import", &place, "flat", "--flatten", "--platform", "linux/arm64"])?;
    let flat = fresh.json(0, &["inspect", "flat"])?;
    ensure!(flat["layers"].as_array().map(Vec::len) == Some(1), "{flat}");
    ensure!(flat["platforms"] == json!(["linux/arm64"]), "{flat}");
    fresh.layout("flat").verify().map(drop)
}

/// An archive of a small image, with the name of its layer's blob.
fn archive(executables: &Built, dir: &Path) -> Result<(PathBuf, String)> {
    let repository = Repository::new(executables)?;
    let layer = tar_of(&[(Type::Regular, "f", &"x".repeat(9000))])?;
    repository.write_image("good", std::slice::from_ref(&layer))?;
    let file = dir.join("good.tar");
    repository.text(&["export", "good", &format!("oci-archive:{}", text(&file))])?;
    Ok((file, format!("blobs/sha256/{}", &sha256(&layer)["sha256:".len()..])))
}

fn damaged_archives_are_refused(executables: &Built) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (file, layer) = archive(executables, dir.path())?;
    let whole = fs::read(&file)?;
    let repository = Repository::with(executables, &["run"])?;
    let bad = dir.path().join("bad.tar");
    let find = |name: &str| {
        let found = whole.windows(name.len()).position(|window| window == name.as_bytes());
        found.context("the archive has the entry")
    };
    let at = find(&layer)?;
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        bytes
    };
    // A header with another size, and the checksum that fits.
    let resized = |size: u64| {
        changed(&|bytes| {
            bytes[at + 124..at + 135].copy_from_slice(format!("{size:011o}").as_bytes());
            bytes[at + 148..at + 156].fill(b' ');
            let sum: u32 = bytes[at..at + 512].iter().map(|byte| u32::from(*byte)).sum();
            bytes[at + 148..at + 155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        })
    };
    for (bytes, says) in [
        (changed(&|bytes| bytes[at + 512 + 600] ^= 1), "is corrupt where it comes from"),
        (changed(&|bytes| bytes.truncate(at + 2000)), "it is truncated"),
        (changed(&|bytes| bytes.truncate(100)), "cannot read the tar"),
        (changed(&Vec::clear), "is not there"),
        (resized((8 << 30) - 1), "it is truncated"),
        (resized(512), "malformed"),
        (changed(&|bytes| bytes[at + 70] ^= 1), "malformed"),
        (b"{}".repeat(600), "malformed"),
    ] {
        fs::write(&bad, bytes)?;
        repository.refused(1, says, &["import", &format!("oci-archive:{}", text(&bad)), "new"])?;
        repository.refused(1, says, &["import", &format!("docker-archive:{}", text(&bad)), "run"])?;
    }
    let gz = compressed(&file, "gzip", "tgz")?;
    let short = fs::read(&gz)?;
    fs::write(&gz, &short[..short.len() / 2])?;
    repository.refused(
        1,
        "cannot be decompressed",
        &["import", &format!("oci-archive:{}", text(&gz)), "new"],
    )?;
    repository.refused(4, "cannot read", &["import", "oci-archive:no-such-file", "new"])
}

fn hostile_archives_are_refused(executables: &Built) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let repository = Repository::with(executables, &["run"])?;
    let bad = dir.path().join("bad.tar");
    let index = r#"{"schemaVersion": 2, "manifests": []}"#;
    for (entries, says) in [
        (&[(Type::Regular, "/index.json", index)][..], "has an absolute name"),
        (&[(Type::Regular, "../index.json", index)], "leads out of the archive"),
        (&[(Type::Regular, "a/../../index.json", index)], "leads out of the archive"),
        (&[(Type::Symlink, "index.json", "/etc/passwd")], "has an absolute name or target"),
        (&[(Type::Symlink, "a/index.json", "../../../etc/passwd")], "leads out of the archive"),
        (&[(Type::Link, "index.json", "../../etc/passwd")], "leads out of the archive"),
        (&[(Type::Symlink, "index.json", "index.json")], "is not there"),
        (&[(Type::Regular, "index.json", index), (Type::Regular, "./index.json", index)], "comes twice"),
        (&[(Type::Char, "index.json", "")], "is neither a file nor a folder nor a link"),
        (
            &[(Type::Symlink, "d", "."), (Type::Regular, "d/index.json", index)],
            "`manifest.json` is not there",
        ),
    ] {
        fs::write(&bad, tar_of(entries)?)?;
        repository.refused(1, says, &["import", &format!("oci-archive:{}", text(&bad)), "new"])?;
    }
    // An empty index holds nothing.
    fs::write(&bad, tar_of(&[(Type::Regular, "index.json", index)])?)?;
    repository.refused(3, "it holds no image", &["import", &format!("oci-archive:{}", text(&bad)), "new"])?;
    // A manifest that says that its layer has more than it has.
    let (file, _) = archive(executables, dir.path())?;
    let unpacked = dir.path().join("unpacked");
    fs::create_dir(&unpacked)?;
    succeed(Command::new("tar").arg("-C").arg(&unpacked).arg("-xf").arg(&file))?;
    let blob = |digest: &Value| -> Result<PathBuf> {
        Ok(unpacked.join("blobs").join(digest.as_str().context("a digest")?.replace(':', "/")))
    };
    let mut list: Value = serde_json::from_slice(&fs::read(unpacked.join("index.json"))?)?;
    let mut manifest: Value = serde_json::from_slice(&fs::read(blob(&list["manifests"][0]["digest"])?)?)?;
    manifest["layers"][0]["size"] = json!(1_u64 << 50);
    let manifest = manifest.to_string();
    list["manifests"][0]["digest"] = json!(sha256(manifest.as_bytes()));
    list["manifests"][0]["size"] = json!(manifest.len());
    fs::write(blob(&list["manifests"][0]["digest"])?, manifest)?;
    fs::write(unpacked.join("index.json"), list.to_string())?;
    repository.refused(
        1,
        "its descriptor says 1125899906842624 bytes",
        &["import", &format!("oci:{}", text(&unpacked)), "new"],
    )
}

/// A damage done to the blob at a path.
type Break<'a> = &'a dyn Fn(&Path) -> std::io::Result<()>;

fn damaged_layouts_are_refused(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run"])?;
    let layer = tar_of(&[(Type::Regular, "f", "x")])?;
    let blob = |dir: &Path| dir.join("blobs/sha256").join(&sha256(&layer)["sha256:".len()..]);
    let damages: [(Break<'_>, &str, i32); 4] = [
        (&|blob| fs::remove_file(blob), "is not there", 1),
        (&|blob| fs::write(blob, "x"), "is corrupt where it comes from", 1),
        (
            &|blob| fs::write(blob, fs::read(blob)?.iter().map(|byte| byte ^ 1).collect::<Vec<_>>()),
            "is corrupt",
            1,
        ),
        (
            &|blob| {
                fs::remove_file(blob)?;
                fs::create_dir(blob)
            },
            "not a regular file",
            4,
        ),
    ];
    for (damage, says, exit) in damages {
        let other = Repository::new(executables)?;
        other.write_image("bad", std::slice::from_ref(&layer))?;
        damage(&blob(&other.path("bad")))?;
        let source = format!("oci:{}", text(&other.path("bad")));
        repository.refused(exit, says, &["import", &source, "new"])?;
        repository.refused(exit, says, &["import", &source, "run"])?;
    }
    // Nothing is half-written where it goes to either.
    let other = Repository::new(executables)?;
    other.write_image("bad", std::slice::from_ref(&layer))?;
    let path = blob(&other.path("bad"));
    let changed: Vec<u8> = fs::read(&path)?.iter().map(|byte| byte ^ 1).collect();
    fs::write(&path, changed)?;
    let out = tempfile::tempdir()?;
    for kind in ["oci", "oci-archive", "docker-archive", "dir"] {
        other.refused(1, "corrupt", &["export", "bad", &format!("{kind}:{}/x", text(out.path()))])?;
        ensure!(fs::read_dir(out.path())?.count() == 0, "{kind}: something is left");
    }
    let mut command = other.command(&["export", "bad", "oci-archive:-"]);
    ensure!(command.stdout(Stdio::null()).stderr(Stdio::null()).status()?.code() == Some(1));
    Ok(())
}
