//! Images that are not what they say.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::Repository;
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("drydock::every_damage_is_found", every_damage_is_found),
            ("drydock::what_may_not_be_read_is_no_damage", what_may_not_be_read_is_no_damage),
            ("drydock::imports_mend_what_is_damaged", imports_mend_what_is_damaged),
            ("drydock::one_damage_does_not_hide_another", one_damage_does_not_hide_another),
            ("drydock::copies_are_checked_each", copies_are_checked_each),
            ("drydock::what_is_proven_is_hashed_only", what_is_proven_is_hashed_only),
            ("drydock::contradictions_are_found", contradictions_are_found),
            ("drydock::imports_take_what_can_be_used", imports_take_what_can_be_used),
            ("drydock::lost_layers_are_damage", lost_layers_are_damage),
            ("drydock::media_types_are_judged", media_types_are_judged),
        ],
    )
}

/// The blobs of the image `run`: manifest, configuration, layer.
fn blobs(repository: &Repository, name: &str) -> Result<[String; 3]> {
    let image = repository.layout(name).verify()?.remove(0);
    let layer = image.layers.last().context("it has a layer")?.digest.clone();
    Ok([image.descriptor.digest, image.config_descriptor.digest, layer].map(|it| it.replace("sha256:", "")))
}

fn what_may_not_be_read_is_no_damage(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run", "run-v2"])?;
    let without_rights = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"];
    let run = |arguments: &[&str]| project::run(&mut repository.command_under(&without_rights, arguments));
    for (number, blob) in blobs(&repository, "run")?.iter().enumerate().rev() {
        let path = repository.path("run").join("blobs/sha256").join(blob);
        fs::set_permissions(path, fs::Permissions::from_mode(0o000))?;
        let verified = run(&["--json", "--quiet", "verify"])?;
        let found: Value = serde_json::from_slice(&verified.stdout)?;
        let state = [&found[0]["status"], &found[1]["status"], &found[0]["problems"]];
        let wanted = [json!("whole"), json!("unreadable"), json!([])];
        ensure!(verified.exit == 4 && state == wanted.each_ref(), "{number}: {}", verified.text());
        let listed = run(&["ls"])?;
        let (exit, is_said) = (listed.exit, listed.text().contains("unreadable: run:latest: "));
        // Of layers it tells the sizes only.
        ensure!(
            (exit, is_said) == if number < 2 { (4, true) } else { (0, false) },
            "{number}: {}",
            listed.text()
        );
    }
    fs::write(repository.path("run-v2").join("index.json"), "{")?;
    ensure!(run(&["verify"])?.exit == 1 && run(&["ls"])?.exit == 1, "damage counts more");
    Ok(())
}

/// Something that is done to a file.
type Damage = fn(&Path) -> Result<()>;

const DAMAGES: [(&str, Damage); 6] = [
    ("cut off", |path| {
        let bytes = fs::read(path)?;
        Ok(fs::write(path, &bytes[..bytes.len() / 2])?)
    }),
    ("a bit turned", |path| {
        let mut bytes = fs::read(path)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Ok(fs::write(path, bytes)?)
    }),
    ("empty", |path| Ok(fs::write(path, "")?)),
    ("longer", |path| {
        let mut bytes = fs::read(path)?;
        bytes.push(0);
        Ok(fs::write(path, bytes)?)
    }),
    ("a folder", |path| {
        fs::remove_file(path)?;
        Ok(fs::create_dir(path)?)
    }),
    ("a link to nowhere that ends", |path| {
        fs::remove_file(path)?;
        Ok(symlink("/dev/zero", path)?)
    }),
];

fn every_damage_is_found(executables: &Built) -> Result<()> {
    let names = blobs(&Repository::with(executables, &["run"])?, "run")?;
    for (what, damage) in DAMAGES {
        for (number, blob) in names.iter().enumerate() {
            let repository = Repository::with(executables, &["run", "run-v2"])?;
            damage(&repository.path("run").join("blobs/sha256").join(blob))?;
            let said = || format!("{what}: {} of run", ["manifest", "config", "layer"][number]);
            let found = repository.json(1, &["verify", "run", "run-v2"]).with_context(said)?;
            ensure!(found[0]["status"] == "damaged" && found[1]["status"] == "whole", "{}: {found}", said());
            ensure!(found[0]["problems"].to_string().contains(blob), "{}: {found}", said());
            for arguments in [
                &["tree", "run"][..],
                &["diff", "run", "run-v2"],
                &["flatten", "run", "new"],
                &["flatten", "run"],
                &["tag", "run", "new"],
            ] {
                let output = repository.run(arguments)?;
                // A folder or a device is no damage to the image, but to the file system.
                let is_failure = [1, 4].contains(&output.exit);
                ensure!(is_failure, "{}: {arguments:?}: {}\n{}", said(), output.exit, output.text());
                repository.refused(output.exit, "error: ", arguments).with_context(said)?;
            }
        }
    }
    Ok(())
}

/// Importing an image again makes good what is damaged of it, and another image takes the place of a damaged one.
fn imports_mend_what_is_damaged(executables: &Built) -> Result<()> {
    let names = blobs(&Repository::with(executables, &["run"])?, "run")?;
    let sources = Repository::with(executables, &["run", "run-v2"])?;
    let source = |name: &str| format!("oci:{}", sources.path(name).display());
    let gone: (&str, Damage) = ("gone", |path| Ok(fs::remove_file(path)?));
    for (what, damage) in DAMAGES.into_iter().chain([gone]) {
        for (number, blob) in names.iter().enumerate() {
            for (from, has_name) in [("run", true), ("run", false), ("run-v2", true)] {
                let repository = Repository::with(executables, &["run"])?;
                let index = repository.path("run").join("index.json");
                if !has_name {
                    let mut text: Value = serde_json::from_slice(&fs::read(&index)?)?;
                    let descriptor = text["manifests"][0].as_object_mut().context("a descriptor")?;
                    descriptor.remove("annotations");
                    descriptor.remove("platform");
                    fs::write(&index, text.to_string())?;
                }
                damage(&repository.path("run").join("blobs/sha256").join(blob))?;
                let part = ["manifest", "config", "layer"][number];
                let said = || format!("{what}: {part} of run, with {from}, named: {has_name}");
                if what == "a folder" && from == "run" {
                    // Whatever is in it is not the layout's.
                    let import = ["import", &source(from), "run"];
                    repository.refused(4, "Is a directory", &import).with_context(said)?;
                    continue;
                }
                repository.text(&["import", &source(from), "run"]).with_context(said)?;
                let images = repository.layout("run").verify().with_context(said)?;
                let other = sources.layout(from).verify()?;
                ensure!(images.len() == 1, "{}: {} images", said(), images.len());
                ensure!(images[0].descriptor.digest == other[0].descriptor.digest, "{}", said());
                ensure!(repository.json(0, &["verify", "run"])?[0]["status"] == "whole", "{}", said());
            }
        }
    }
    // As one layer, too.
    let repository = Repository::with(executables, &["run"])?;
    fs::write(repository.path("run").join("blobs/sha256").join(&names[0]), "{")?;
    repository.text(&["import", &source("run-v2"), "run", "--flatten"])?;
    ensure!(repository.layout("run").verify()?.len() == 1);
    ensure!(repository.json(0, &["verify", "run"])?[0]["status"] == "whole");
    // What cannot be read at all might have led to other images.
    let repository = Repository::with(executables, &["run"])?;
    fs::write(repository.path("run").join("index.json"), "{")?;
    repository.refused(1, "index.json", &["import", &source("run"), "run"])
}

fn one_damage_does_not_hide_another(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run-two-platforms"])?;
    let index: Value = repository.layout("run-two-platforms").json("index.json")?;
    let dir = repository.path("run-two-platforms").join("blobs/sha256");
    let mut manifests = index["manifests"].as_array().context("a list")?.clone();
    if manifests.len() == 1 {
        let nested = manifests[0]["digest"].as_str().context("a digest")?.replace("sha256:", "");
        let nested: Value = serde_json::from_slice(&fs::read(dir.join(nested))?)?;
        manifests.clone_from(nested["manifests"].as_array().context("a list")?);
    }
    let digests: Vec<&str> = manifests.iter().filter_map(|it| it["digest"].as_str()).collect();
    for digest in &digests {
        fs::write(dir.join(digest.replace("sha256:", "")), "{}")?;
    }
    let found = repository.json(1, &["verify"])?;
    ensure!(found[0]["problems"].as_array().map(Vec::len) == Some(2) && digests.len() == 2, "{found}");
    // Of several platforms, somebody may have brought one; but not none.
    let of_blob = |digest: &str| digest.replace("sha256:", "");
    let repository = Repository::with(executables, &["run-two-platforms"])?;
    fs::remove_file(repository.path("run-two-platforms").join("blobs/sha256").join(of_blob(digests[0])))?;
    ensure!(repository.json(0, &["verify"])?[0]["status"] == "sparse");
    fs::remove_file(repository.path("run-two-platforms").join("blobs/sha256").join(of_blob(digests[1])))?;
    ensure!(repository.json(1, &["verify"])?[0]["status"] == "damaged");
    Ok(())
}

/// Of files with one digest, one is decompressed; yet each is read, and each configuration compared.
fn copies_are_checked_each(executables: &Built) -> Result<()> {
    let tars = [super::tar_of(&[(tar::EntryType::Directory, "d/", "")])?];
    for damaged in ["a", "base", "z"] {
        let repository = Repository::new(executables)?;
        for name in ["a", "base", "z"] {
            repository.write_image(name, &tars)?;
        }
        let [_, _, layer] = blobs(&repository, "a")?;
        let (_, turned) = DAMAGES[1];
        turned(&repository.path(damaged).join("blobs/sha256").join(layer))?;
        for found in repository.json(1, &["verify"])?.as_array().context("a list")? {
            let is_damaged = found["name"] == format!("{damaged}:latest");
            ensure!((found["status"] == "damaged") == is_damaged, "{damaged}: {found}");
        }
    }
    let repository = Repository::new(executables)?;
    for name in ["a", "base", "z"] {
        repository.write_image(name, &tars)?;
    }
    let wrong_id = format!("sha256:{}", "1".repeat(64));
    rewrite_config(&repository, |config| config["rootfs"]["diff_ids"] = json!([wrong_id]))?;
    let found = repository.json(1, &["verify", "a", "base", "z"])?;
    ensure!(found[0]["status"] == "whole" && found[2]["status"] == "whole", "{found}");
    ensure!(found[1]["problems"].to_string().contains("diff ID"), "{found}");
    Ok(())
}

/// What a digest stands for is found out once; that a blob has its digest, each time.
fn what_is_proven_is_hashed_only(executables: &Built) -> Result<()> {
    let repository = Repository::new(executables)?;
    repository.write_image("base", &[super::tar_of(&[(tar::EntryType::Directory, "d/", "")])?])?;
    let cache = tempfile::tempdir().context("make a folder")?;
    let proven = cache.path().join("drydock/proven");
    let status = || -> Result<String> {
        let mut command = repository.command(&["--json", "--quiet", "verify"]);
        let output = project::run(command.env("XDG_CACHE_HOME", cache.path()))?;
        let found: Value = serde_json::from_slice(&output.stdout).with_context(|| output.text())?;
        Ok(found[0]["status"].as_str().context("it has a status")?.to_owned())
    };
    ensure!(status()? == "whole");
    let (line, [_, _, layer]) = (fs::read_to_string(&proven)?, blobs(&repository, "base")?);
    ensure!(line.starts_with(&layer) && line.lines().count() == 1, "{line}");
    for other in ["", "{", &line.replace(&layer, &"2".repeat(64)), &line[..line.len() - 9]] {
        fs::write(&proven, other)?;
        ensure!(status()? == "whole" && fs::read_to_string(&proven)?.contains(&line), "after {other:?}");
    }
    // Who could write there could write the configuration, too; so it shows that nothing was decompressed.
    let wrong_id = format!("sha256:{}", "1".repeat(64));
    rewrite_config(&repository, |config| config["rootfs"]["diff_ids"] = json!([wrong_id]))?;
    ensure!(status()? == "damaged");
    let words: Vec<&str> = line.split(' ').collect();
    fs::write(&proven, format!("{} {} {}\n", words[0], words[1], "1".repeat(64)))?;
    ensure!(status()? == "whole");
    let (_, turned) = DAMAGES[1];
    turned(&repository.path("base").join("blobs/sha256").join(layer))?;
    ensure!(status()? == "damaged");
    // Where no cache can be written, it is found out again.
    fs::remove_dir_all(cache.path().join("drydock"))?;
    fs::write(cache.path().join("drydock"), "")?;
    ensure!(status()? == "damaged");
    Ok(())
}

/// Every blob has its digest, and yet something is wrong: configurations and indexes that say what is not so.
fn contradictions_are_found(executables: &Built) -> Result<()> {
    let wrong_id = format!("sha256:{}", "1".repeat(64));
    let label = |value: &str| json!({"Labels": {"io.buildpacks.lifecycle.metadata": value}});
    let other_layer = json!({"app": [{"sha": wrong_id}], "runImage": {"topLayer": wrong_id}}).to_string();
    for (field, value, says) in [
        ("rootfs", json!({"type": "layers", "diff_ids": [wrong_id]}), "diff ID"),
        ("rootfs", json!({"type": "layers", "diff_ids": []}), "has 1 layers, its configuration 0"),
        ("history", json!([{}, {}]), "tells of 2 layers"),
        ("config", label("{"), "label io.buildpacks.lifecycle.metadata"),
        ("config", label(&other_layer), "the run image's top layer"),
        ("architecture", json!(7), "malformed"),
    ] {
        let repository = Repository::new(executables)?;
        repository.write_image("base", &[super::tar_of(&[(tar::EntryType::Directory, "d/", "")])?])?;
        rewrite_config(&repository, |config| config[field] = value.clone())?;
        let found = repository.json(1, &["verify"])?;
        ensure!(found[0]["problems"].to_string().contains(says), "{field}: {found}");
        repository.refused(1, says, &["verify"])?;
    }
    for (file, text) in [
        ("index.json", "[]"),
        (
            "index.json",
            r#"{"schemaVersion": 2, "manifests": [{"mediaType": "x", "digest": "sha256:1", "size": -1}]}"#,
        ),
        ("oci-layout", r#"{"imageLayoutVersion": "2.0.0"}"#),
    ] {
        let repository = Repository::with(executables, &["run"])?;
        fs::write(repository.path("run").join(file), text)?;
        repository.refused(1, file, &["verify"])?;
        repository.refused(1, file, &["inspect", "run"])?;
        repository.refused(1, file, &["rm", "run"])?;
        repository
            .refused(1, file, &["gc"])
            .or_else(|error| if file == "oci-layout" { Err(error) } else { Ok(()) })?;
    }
    Ok(())
}

/// An image that no command could read takes no name.
fn imports_take_what_can_be_used(executables: &Built) -> Result<()> {
    type Change = fn(&mut Value, &mut Value, &mut Value);
    let cases: [(Change, i32, &str); 5] = [
        (|_, _, config| config["rootfs"]["diff_ids"] = json!([]), 1, "do not fit"),
        (|_, _, config| config["config"]["Labels"] = json!({"a": 7}), 1, "malformed"),
        (|index, _, _| index["manifests"][0]["artifactType"] = json!("application/x"), 1, "holds no image"),
        (|_, _, config| config["os"] = json!("unknown"), 1, "holds no image"),
        (
            |index, _, _| {
                index["manifests"][0]["platform"] = json!({"os": "unknown", "architecture": "unknown"});
            },
            1,
            "holds no image",
        ),
    ];
    let sources = Repository::new(executables)?;
    for (change, exit, says) in cases {
        sources.write_image("base", &[super::tar_of(&[(tar::EntryType::Directory, "d/", "")])?])?;
        rewrite(&sources, change)?;
        let repository = Repository::new(executables)?;
        let source = format!("oci:{}", sources.path("base").display());
        repository.refused(exit, says, &["import", &source, "new"])?;
        repository.refused(3, "", &["inspect", "new"])?;
    }
    let repository = Repository::with(executables, &["run"])?;
    fs::write(repository.path("run").join("oci-layout"), r#"{"imageLayoutVersion": "2.0.0"}"#)?;
    repository.refused(
        1,
        "oci-layout",
        &["import", &format!("oci:{}", repository.path("run").display()), "new"],
    )
}

/// Only the run image's layers may be absent: of an app image up to the one that its label names, of a run image all of them.
fn lost_layers_are_damage(executables: &Built) -> Result<()> {
    let tar = |name| super::tar_of(&[(tar::EntryType::Directory, name, "")]);
    let label = |ids: &Value| json!({"runImage": {"topLayer": ids[0], "reference": "r"}}).to_string();
    for (is_app, lost, status) in [
        (true, &[0][..], "sparse"),
        (true, &[1], "damaged"),
        (false, &[0], "damaged"),
        (false, &[0, 1], "damaged"),
    ] {
        let repository = Repository::new(executables)?;
        repository.write_image("base", &[tar("a/")?, tar("b/")?])?;
        rewrite_config(&repository, |config| {
            if is_app {
                let label = label(&config["rootfs"]["diff_ids"]);
                config["config"]["Labels"] = json!({"io.buildpacks.lifecycle.metadata": label});
            }
        })?;
        lose(&repository, "base", lost, status)?;
    }
    for (lost, status) in [(&[1][..], "damaged"), (&[0, 1], "sparse")] {
        lose(&Repository::with(executables, &["run"])?, "run", lost, status)?;
    }
    Ok(())
}

fn lose(repository: &Repository, name: &str, lost: &[usize], status: &str) -> Result<()> {
    let layout = repository.layout(name);
    let image = layout.verify()?.remove(0);
    for number in lost {
        fs::remove_file(layout.blob_path(&image.layers[*number].digest))?;
    }
    let exit = i32::from(status == "damaged");
    let found = repository.json(exit, &["verify", name])?;
    let lacks = if status == "damaged" { 0 } else { lost.len() };
    ensure!(
        found[0]["status"] == status && found[0]["lacks"].as_array().map(Vec::len) == Some(lacks),
        "{found}"
    );
    let first = &image.layers[lost[0]].digest;
    ensure!(found.to_string().contains(&**first), "{lost:?}: {found}");
    ensure!(repository.json(exit, &["ls"])?[0]["damage"].is_string() == (status == "damaged"));
    Ok(())
}

fn media_types_are_judged(executables: &Built) -> Result<()> {
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    type Change = fn(&mut Value, &mut Value);
    let cases: [(Change, &str); 9] = [
        (|_, manifest| manifest["mediaType"] = json!(INDEX), "says that it is of media type"),
        (
            |index, _| index["mediaType"] = json!("application/vnd.oci.image.manifest.v1+json"),
            "index.json says",
        ),
        (|_, manifest| manifest["manifests"] = json!([]), "has `manifests`"),
        (|index, _| index["layers"] = json!([]), "index.json has `layers`"),
        (|_, manifest| manifest["layers"][1]["mediaType"] = json!("text/plain"), "has media type text/plain"),
        (
            |index, manifest| {
                index["manifests"][0]["platform"] = json!({"os": "linux", "architecture": "amd64"});
                manifest["config"]["mediaType"] = json!("application/vnd.oci.empty.v1+json");
            },
            "has media type application/vnd.oci.empty.v1+json",
        ),
        // An artifact may have a configuration and layers of whatever types.
        (|_, manifest| manifest["config"]["mediaType"] = json!("text/plain"), ""),
        (
            |_, manifest| {
                manifest["artifactType"] = json!("text/plain");
                manifest["layers"][1]["mediaType"] = json!("text/plain");
            },
            "",
        ),
        (
            |_, manifest| {
                manifest["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
            },
            "",
        ),
    ];
    let tar = |name| super::tar_of(&[(tar::EntryType::Directory, name, "")]);
    for (number, (change, says)) in cases.into_iter().enumerate() {
        let repository = Repository::new(executables)?;
        repository.write_image("base", &[tar("a/")?, tar("b/")?])?;
        rewrite(&repository, |index, manifest, _| change(index, manifest))?;
        let found = repository.json(i32::from(!says.is_empty()), &["verify"])?;
        let status = if says.is_empty() { "whole" } else { "damaged" };
        ensure!(found[0]["status"] == status && found[0].to_string().contains(says), "{number}: {found}");
    }
    // Legal, and no image.
    let repository = Repository::with(executables, &["run"])?;
    fs::write(repository.path("run").join("index.json"), r#"{"schemaVersion": 2, "manifests": []}"#)?;
    repository.refused(0, "empty    run:latest", &["verify"])
}

/// Changes the configuration of `base`, and all digests that follow from that.
fn rewrite_config(repository: &Repository, change: impl FnOnce(&mut Value)) -> Result<()> {
    rewrite(repository, |_, _, config| change(config))
}

/// Changes index, manifest and configuration of `base`, and all digests that follow from that.
fn rewrite(repository: &Repository, change: impl FnOnce(&mut Value, &mut Value, &mut Value)) -> Result<()> {
    let dir = repository.path("base");
    let blobs = dir.join("blobs/sha256");
    let read = |descriptor: &Value| -> Result<Value> {
        let digest = descriptor["digest"].as_str().context("a digest")?.replace("sha256:", "");
        Ok(serde_json::from_slice(&fs::read(blobs.join(digest))?)?)
    };
    let put = |value: &Value, descriptor: &mut Value| -> Result<()> {
        let text = value.to_string();
        let digest = drydock_acceptance::sha256(text.as_bytes());
        fs::write(blobs.join(digest.replace("sha256:", "")), &text)?;
        descriptor["digest"] = json!(digest);
        descriptor["size"] = json!(text.len());
        Ok(())
    };
    let mut index: Value = repository.layout("base").json("index.json")?;
    let mut manifest = read(&index["manifests"][0])?;
    let mut config = read(&manifest["config"])?;
    change(&mut index, &mut manifest, &mut config);
    put(&config, &mut manifest["config"])?;
    put(&manifest, &mut index["manifests"][0])?;
    fs::write(dir.join("index.json"), index.to_string()).context("write the index")
}
