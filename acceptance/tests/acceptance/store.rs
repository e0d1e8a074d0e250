//! The layouts that phases write to, as others may have left them: what is not replaced stays, what is not verified is not
//! published, and a failure changes nothing.

mod faults;
mod power;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::Layout;
use drydock_acceptance::project::{self, APP_IMAGE, APP_LAYOUT, Project, RUN_IMAGE, RUN_LAYOUT, succeed};
use drydock_acceptance::scenario::User;
use drydock_acceptance::stage::{GID, UID};
use drydock_acceptance::{sha256, tree};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    let mut trials = faults::trials(executables);
    trials.extend(power::trials(executables));
    trials.extend(with_executables(
        executables,
        [
            ("store::blobs_behind_a_link", blobs_behind_a_link),
            ("store::artifacts_stay", artifacts_stay),
            ("store::an_unreadable_index_is_not_replaced", an_unreadable_index_is_not_replaced),
            ("store::pins_are_checked", pins_are_checked),
            ("store::nothing_is_written_under_a_digest", nothing_is_written_under_a_digest),
            ("store::damaged_blobs_are_not_published", damaged_blobs_are_not_published),
            ("store::readers_of_the_old_image_go_on", readers_of_the_old_image_go_on),
            ("store::one_layout_under_two_names", one_layout_under_two_names),
            ("store::endless_layouts_are_refused", endless_layouts_are_refused),
            ("store::shared_indexes_keep_their_names", shared_indexes_keep_their_names),
            ("store::what_another_program_writes_stays", what_another_program_writes_stays),
            ("store::images_that_only_root_may_read", images_that_only_root_may_read),
            ("store::blobs_of_our_own_are_linked", blobs_of_our_own_are_linked),
            ("store::images_and_cache_are_no_part_of_the_app", images_and_cache_are_no_part_of_the_app),
        ],
    ));
    trials
}

/// A project with an app image, and a newer version of the app.
fn built_before(executables: &Built) -> Result<Project> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    project.write_layer("stays", "launch = true", "stays")?;
    project.analyze()?;
    project.export()?;
    project.write("app/file", "newer\n")?;
    project.analyze()?;
    Ok(project)
}

/// Fails with this exit code, says this, and leaves the layouts as they were.
fn refused(project: &Project, command: &mut std::process::Command, exit: i32, says: &str) -> Result<()> {
    let before = tree::read(&project.path("layout-repo"))?;
    let output = project::run(command)?;
    ensure!(output.exit == exit, "exit code {}\n{}", output.exit, output.text());
    ensure!(output.text().contains(says), "{}", output.text());
    ensure!(tree::read(&project.path("layout-repo"))? == before, "layouts have changed");
    Ok(())
}

fn blobs_behind_a_link(executables: &Built) -> Result<()> {
    for below in ["blobs", "blobs/sha256"] {
        let project = built_before(executables)?;
        let own = project.path(APP_LAYOUT).join(below);
        let shared = project.path("shared");
        fs::rename(&own, &shared)?;
        fs::write(shared.join(sha256(b"foreign").replace("sha256:", "")), "foreign")?;
        symlink(&shared, &own)?;
        let before = tree::read(&shared)?;
        refused(&project, project.exporter()?.arg(APP_IMAGE), 62, "symbolic link")?;
        refused(&project, project.rebaser()?.arg(APP_IMAGE), 72, "symbolic link")?;
        ensure!(tree::read(&shared)? == before, "{below}: the shared folder has changed");
    }
    Ok(())
}

/// Puts an SBOM beside the image of a layout: a manifest without an image, and one without a descriptor. Gives the
/// descriptor, and the digests of all its blobs.
pub(crate) fn put_artifact(layout: &Layout) -> Result<(Value, Vec<String>)> {
    let put = |bytes: &[u8]| -> Result<String> {
        let digest = sha256(bytes);
        let path = layout.blob_path(&digest);
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, Permissions::from_mode(0o644))?;
        Ok(digest)
    };
    let mut index: Value = layout.json("index.json")?;
    let mut subject = index["manifests"][0].clone();
    let mut digests = vec![put(b"{}")?, put(b"an SBOM")?];
    let mut manifests = Vec::new();
    for _ in 0..2 {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/spdx+json",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digests[0], "size": 2},
            "layers": [{"mediaType": "application/spdx+json", "digest": digests[1], "size": 7}],
            "subject": {"mediaType": subject["mediaType"], "digest": subject["digest"], "size": subject["size"]},
        })
        .to_string();
        digests.push(put(manifest.as_bytes())?);
        subject = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digests.last(), "size": manifest.len()});
        manifests.push(subject.clone());
    }
    let listed = manifests.remove(0);
    index["manifests"].as_array_mut().context("a list")?.push(listed.clone());
    fs::write(layout.dir().join("index.json"), index.to_string())?;
    Ok((listed, digests))
}

fn artifacts_stay(executables: &Built) -> Result<()> {
    let project = built_before(executables)?;
    put_artifact(&project.layout(RUN_LAYOUT))?;
    let app = project.layout(APP_LAYOUT);
    let (listed, digests) = put_artifact(&app)?;
    for step in ["export", "export again", "rebase"] {
        project.analyze()?;
        if step == "rebase" {
            succeed(project.rebaser()?.arg(APP_IMAGE))?;
        } else {
            project.export()?;
        }
        let index: Value = app.json("index.json")?;
        ensure!(index["manifests"].as_array().is_some_and(|all| all.contains(&listed)), "{step}: {index}");
        for digest in &digests {
            ensure!(app.blob(digest)?.is_some(), "{step}: {digest} is gone");
        }
    }
    Ok(())
}

fn an_unreadable_index_is_not_replaced(executables: &Built) -> Result<()> {
    let project = built_before(executables)?;
    let app = project.layout(APP_LAYOUT);
    let good = fs::read(app.dir().join("index.json"))?;
    let mut index: Value = app.json("index.json")?;
    let lost = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": sha256(b"lost"), "size": 4});
    index["manifests"].as_array_mut().context("a list")?.push(lost.clone());
    for bad in ["{", r#"{"schemaVersion": 2, "manifests": 1}"#] {
        // The image whose layers are reused is another one, so nobody else looks at this index.
        fs::write(app.dir().join("index.json"), &good)?;
        succeed(project.analyzer()?.args(["-previous-image", "other", APP_IMAGE]))?;
        fs::write(app.dir().join("index.json"), bad)?;
        refused(&project, project.exporter()?.arg(APP_IMAGE), 62, APP_LAYOUT)?;
    }
    // What is only named stays, be it for another platform or who knows for what.
    let mut for_another = lost.clone();
    for_another["platform"] = json!({"os": "linux", "architecture": "s390x"});
    for named in [lost, for_another] {
        index["manifests"][1] = named.clone();
        fs::write(app.dir().join("index.json"), index.to_string())?;
        project.export()?;
        let after: Value = app.json("index.json")?;
        ensure!(after["manifests"].as_array().is_some_and(|all| all.contains(&named)), "{after}");
    }
    Ok(())
}

fn pins_are_checked(executables: &Built) -> Result<()> {
    let project = built_before(executables)?;
    let digest = project.layout(RUN_LAYOUT).verify()?.remove(0).descriptor.digest;
    let wrong = sha256(b"another image");
    let repository = project.path(RUN_LAYOUT).parent().context("it has a parent")?.join("sha256");
    fs::create_dir(&repository)?;
    for digest in [&digest, &wrong] {
        let place = repository.join(digest.trim_start_matches("sha256:"));
        drydock_acceptance::stage::copy(&project.path(RUN_LAYOUT), &place)?;
    }
    let name = |digest: &str| format!("{}@{digest}", RUN_IMAGE.trim_end_matches(":base"));
    succeed(project.analyzer()?.args(["-run-image", &name(&digest), APP_IMAGE]))?;
    succeed(project.rebaser()?.args(["-force", "-run-image", &name(&digest), APP_IMAGE]))?;
    for by in [name(&wrong), repository.join(wrong.trim_start_matches("sha256:")).display().to_string()] {
        let says = format!("holds no image with digest {wrong}");
        refused(&project, project.analyzer()?.args(["-run-image", &by, APP_IMAGE]), 32, &says)?;
        refused(&project, project.analyzer()?.args(["-previous-image", &by, APP_IMAGE]), 32, &says)?;
        refused(&project, project.rebaser()?.args(["-force", "-run-image", &by, APP_IMAGE]), 72, &says)?;
        refused(&project, project.rebaser()?.args(["-previous-image", &by, APP_IMAGE]), 72, &says)?;
    }
    Ok(())
}

fn nothing_is_written_under_a_digest(executables: &Built) -> Result<()> {
    let project = built_before(executables)?;
    let name = format!("team/app@{}", sha256(b"not known before"));
    let says = "names an image by digest";
    refused(&project, project.exporter()?.args([APP_IMAGE, &name]), 3, says)?;
    refused(&project, project.analyzer()?.arg(&name), 3, says)?;
    refused(&project, project.analyzer()?.args(["-tag", &name, APP_IMAGE]), 3, says)?;
    refused(&project, project.rebaser()?.args([APP_IMAGE, &name]), 3, says)?;
    refused(&project, project.exporter()?.args(["-cache-image", &name, APP_IMAGE]), 3, says)
}

/// Overwrites a blob with as many zeros.
fn zero(layout: &Layout, digest: &str) -> Result<()> {
    let path = layout.blob_path(digest);
    let size = fs::metadata(&path)?.len().try_into()?;
    Ok(fs::write(path, vec![0; size])?)
}

fn damaged_blobs_are_not_published(executables: &Built) -> Result<()> {
    // The layer is at hand, so it is made again.
    let project = built_before(executables)?;
    let app = project.layout(APP_LAYOUT);
    let layers = |app: &Layout| -> Result<Vec<String>> {
        let run = project.layout(RUN_LAYOUT).verify()?.remove(0).layers.len();
        Ok(app.verify()?.remove(0).layers.into_iter().skip(run).map(|layer| layer.digest).collect())
    };
    let own = layers(&app)?;
    for digest in &own {
        zero(&app, digest)?;
        project.export().with_context(|| format!("with {digest} damaged"))?;
        app.verify().with_context(|| format!("{digest} is published, and damaged"))?;
        project.analyze()?;
    }
    // A rebaser has nothing to make it from.
    zero(&app, layers(&app)?.first().context("a layer")?)?;
    refused(&project, project.rebaser()?.arg(APP_IMAGE), 72, "is corrupt")
}

fn readers_of_the_old_image_go_on(executables: &Built) -> Result<()> {
    let project = built_before(executables)?;
    let app = project.layout(APP_LAYOUT);
    let old = app.verify()?.remove(0);
    for version in ["second", "third"] {
        project.write("app/file", version)?;
        project.analyze()?;
        project.export()?;
        let digests = old.layers.iter().chain([&old.descriptor, &old.config_descriptor]);
        for descriptor in digests {
            ensure!(app.blob(&descriptor.digest)?.is_some(), "{version}: {} is gone", descriptor.digest);
        }
    }
    Ok(())
}

fn one_layout_under_two_names(executables: &Built) -> Result<()> {
    let project = built_before(executables)?;
    let app = project.path(APP_LAYOUT);
    symlink(&app, app.with_file_name("stable"))?;
    for names in [[APP_IMAGE, "app:stable"], ["app:stable", APP_IMAGE]] {
        succeed(project.exporter()?.args(names))?;
        succeed(project.rebaser()?.args(names))?;
        project.layout(APP_LAYOUT).verify()?;
        project.analyze()?;
    }
    Ok(())
}

fn endless_layouts_are_refused(executables: &Built) -> Result<()> {
    let project = built_before(executables)?;
    let run = project.layout(RUN_LAYOUT);
    let put = |manifests: &[Value]| -> Result<Value> {
        let media_type = "application/vnd.oci.image.index.v1+json";
        let text = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}).to_string();
        let digest = sha256(text.as_bytes());
        fs::write(run.blob_path(&digest), &text)?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": text.len()}))
    };
    let good: Value = run.json("index.json")?;
    let write = |manifests: &[Value]| {
        let text = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
        fs::write(run.dir().join("index.json"), text)
    };
    let analyze = || -> Result<_> { Ok(project.analyzer()?.arg(APP_IMAGE).output()?) };

    // 100 to the power of 6, if each were followed as often as it is named.
    let mut index = put(good["manifests"].as_array().context("a list")?)?;
    for _ in 0..6 {
        index = put(&vec![index; 100])?;
    }
    write(&[index])?;
    let output = analyze()?;
    ensure!(output.status.code() == Some(32), "{output:?}");
    // One that is in itself cannot be made by digest; one that is many times too large can.
    write(&vec![good["manifests"][0].clone(); 150_000])?;
    let output = analyze()?;
    ensure!(output.status.code() == Some(32), "{output:?}");
    for (name, size) in [("index.json", 1_u64 << 40), ("oci-layout", 1 << 40)] {
        write(good["manifests"].as_array().context("a list")?)?;
        let path = run.dir().join(name);
        fs::OpenOptions::new().write(true).open(&path)?.set_len(size)?;
        let output = analyze()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(32) && said.contains("more than 8388608 bytes"), "{said}");
        fs::remove_file(&path)?;
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU)?;
        let output = analyze()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(32) && said.contains("not a regular file"), "{said}");
        fs::remove_file(&path)?;
        fs::write(&path, r#"{"imageLayoutVersion": "1.0.0"}"#)?;
    }
    Ok(())
}

/// The mode of every file below a folder.
fn set_modes(dir: &Path, mode: u32) -> Result<()> {
    for entry in walkdir::WalkDir::new(dir) {
        let entry = entry?;
        if entry.file_type().is_file() {
            fs::set_permissions(entry.path(), Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// As `pack` keeps run images: root's, with mode 0600, while phases go on as an ordinary user.
fn images_that_only_root_may_read(executables: &Built) -> Result<()> {
    let ids = [format!("-uid={UID}"), format!("-gid={GID}")];
    for phases in ["phases", "creator"] {
        let project = Project::new(executables.for_everyone()?, User::Root)?;
        set_modes(&project.path(RUN_LAYOUT), 0o600)?;
        if phases == "phases" {
            succeed(project.analyzer()?.args(&ids).arg(APP_IMAGE))?;
            succeed(project.exporter()?.args(&ids).arg(APP_IMAGE))?;
            succeed(project.rebaser()?.args(&ids).arg(APP_IMAGE))?;
        } else {
            project.write(
                "cnb/buildpacks/acme_a/1/buildpack.toml",
                "api = \"0.10\"\n[buildpack]\nid = \"acme/a\"\nversion = \"1\"\n[[targets]]\n",
            )?;
            for name in ["detect", "build"] {
                let path = format!("cnb/buildpacks/acme_a/1/bin/{name}");
                project.write(&path, "#!/bin/sh\n")?;
                fs::set_permissions(project.path(&path), Permissions::from_mode(0o755))?;
            }
            project
                .write("cnb/order.toml", "[[order]]\n[[order.group]]\nid = \"acme/a\"\nversion = \"1\"\n")?;
            fs::create_dir(project.path("platform"))?;
            let mut creator = project.creator()?;
            for (flag, path) in
                [("-buildpacks", "cnb/buildpacks"), ("-order", "cnb/order.toml"), ("-platform", "platform")]
            {
                creator.arg(flag).arg(project.path(path));
            }
            succeed(creator.args(&ids).arg(APP_IMAGE))?;
        }
        let app = project.layout(APP_LAYOUT);
        let image = app.verify()?.remove(0);
        ensure!(image.layers.iter().all(|layer| app.blob_path(&layer.digest).exists()), "{phases}");
        for layer in &image.layers {
            let file = fs::metadata(app.blob_path(&layer.digest))?;
            ensure!((file.uid(), file.mode() & 0o777) == (UID, 0o644), "{phases}: {layer:?}");
        }
        let modes = walkdir::WalkDir::new(project.path(RUN_LAYOUT)).into_iter().flatten();
        let modes: BTreeSet<u32> = modes
            .filter(|entry| entry.file_type().is_file())
            .filter_map(|entry| Some(entry.metadata().ok()?.mode() & 0o777))
            .collect();
        ensure!(modes == BTreeSet::from([0o600]), "the run image was changed: {modes:?}");
    }
    Ok(())
}

/// As umoci writes them.
fn blobs_of_our_own_are_linked(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    set_modes(&project.path(RUN_LAYOUT), 0o600)?;
    project.analyze()?;
    let output = succeed(project.exporter()?.env("CNB_LAYOUT_LINK", "hardlink").arg(APP_IMAGE))?;
    ensure!(output.text().contains(" 0 bytes copied"), "{}", output.text());
    let (run, app) = (project.layout(RUN_LAYOUT), project.layout(APP_LAYOUT));
    for layer in run.verify()?.remove(0).layers {
        let inode = |layout: &Layout| fs::metadata(layout.blob_path(&layer.digest)).map(|file| file.ino());
        ensure!(inode(&run)? == inode(&app)?, "{} was copied", layer.digest);
    }
    let faults = app.faults()?;
    ensure!(faults.is_empty(), "{faults:?}");
    Ok(())
}

/// Tags and platforms as others leave them: one index under two names, and an image that is somebody else's.
fn shared_indexes_keep_their_names(executables: &Built) -> Result<()> {
    let project = built_before(executables)?;
    let app = project.layout(APP_LAYOUT);
    let index: Value = app.json("index.json")?;
    let mut image = index["manifests"][0].clone();
    image["annotations"] = json!({});
    let mut other = image.clone();
    other["platform"] = json!({"os": "linux", "architecture": "s390x"});
    other["digest"] = json!(sha256(b"not here"));
    let media_type = "application/vnd.oci.image.index.v1+json";
    let text = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": [image, other]}).to_string();
    let digest = sha256(text.as_bytes());
    fs::write(app.blob_path(&digest), &text)?;
    let named = |name: &str| {
        json!({"mediaType": media_type, "digest": digest, "size": text.len(),
        "annotations": {"org.opencontainers.image.ref.name": name}})
    };
    let both = json!({"schemaVersion": 2, "annotations": {"com.example": "kept"},
        "manifests": [named("v1"), named("latest")]});
    fs::write(app.dir().join("index.json"), both.to_string())?;
    project.analyze()?;
    project.export()?;
    let after: Value = app.json("index.json")?;
    ensure!(after["annotations"]["com.example"] == "kept", "{after}");
    let manifests = after["manifests"].as_array().context("a list")?;
    ensure!(manifests.len() == 2 && manifests.contains(&named("v1")), "{after}");
    Ok(())
}

/// Another program puts an image into the layout while an export is under way, without a lock.
fn what_another_program_writes_stays(executables: &Built) -> Result<()> {
    let project = built_before(executables)?;
    let index = project.path(APP_LAYOUT).join("index.json");
    let text = fs::read_to_string(&index)?;
    // The exporter holds the lock and waits for its app, which is a large one; meanwhile the index changes.
    for file in 0..40 {
        project.write(&format!("app/{file}"), vec![u8::try_from(file)?; 4 << 20])?;
    }
    let mut command = project.exporter()?;
    let mut child = command.arg(APP_IMAGE).stderr(std::process::Stdio::piped()).spawn()?;
    let blobs = project.path(APP_LAYOUT).join("blobs/sha256");
    let is_writing = || -> Result<bool> {
        let mut names = fs::read_dir(&blobs)?.flatten().map(|entry| entry.file_name());
        Ok(names.any(|name| name.to_string_lossy().starts_with(".drydock-")))
    };
    while !is_writing()? && child.try_wait()?.is_none() {
        std::thread::yield_now();
    }
    let mut changed: Value = serde_json::from_str(&text)?;
    let mut other = changed["manifests"][0].clone();
    other["annotations"] = json!({"org.opencontainers.image.ref.name": "other"});
    changed["manifests"].as_array_mut().context("a list")?.push(other.clone());
    let was_in_time = child.try_wait()?.is_none();
    fs::write(&index, changed.to_string())?;
    let output = child.wait_with_output()?;
    ensure!(was_in_time, "the export was over before: this test shows nothing");
    let after: Value = project.layout(APP_LAYOUT).json("index.json")?;
    let kept = after["manifests"].as_array().is_some_and(|all| all.contains(&other));
    ensure!(kept, "{:?}: {after}", output.status);
    Ok(())
}

/// An app folder that holds both does not grow with each export.
fn images_and_cache_are_no_part_of_the_app(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    project.write_layer("stays", "launch = true\ncache = true", "stays")?;
    project.write("app/layout-repository/file", "of the app\n")?;
    succeed(
        Command::new("cp").arg("-a").args([project.path("layout-repo"), project.path("app/repository")]),
    )?;
    fs::create_dir(project.path("app/cache"))?;
    let mut exported = Vec::new();
    for _ in 0..3 {
        let inside = ["-layout-dir", "app/repository"];
        succeed(project.analyzer()?.args(inside).args(["-run-image", RUN_IMAGE, APP_IMAGE]))?;
        let output =
            succeed(project.exporter()?.args(inside).args(["-cache-dir", "app/cache", APP_IMAGE]))?.text();
        ensure!(output.matches("is no part of the app, and left out").count() == 2, "{output}");
        let layout = APP_LAYOUT.replacen("layout-repo", "app/repository", 1);
        exported.push(project.layout(&layout).images()?.remove(0).descriptor.digest.clone());
    }
    ensure!(exported.iter().all(|digest| *digest == exported[0]), "{exported:?}");
    Ok(())
}
