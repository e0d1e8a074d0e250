//! What is written, what stays, and what goes.

use std::collections::BTreeSet;

use drydock_model::manifest::REF_NAME;

use super::*;

fn digests_there(repository: &Repository, name: &str) -> Vec<String> {
    let entries = fs::read_dir(blobs_dir(repository.path(name).path())).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_written_is_read() {
    let repository = Repository::new();
    export(&repository, "app", "amd64", &[b"old", b"kept"]);
    let committed = export(&repository, "app", "amd64", &[b"kept", b"new"]);
    let image = repository.image("app").unwrap();
    assert_eq!(image.digest(), committed.digest);
    let layers: Vec<_> = image.layers().collect();
    assert!(layers.iter().all(ImageLayer::is_present));
    assert_eq!(fs::read(layers[1].path()).unwrap(), b"new");
    assert_eq!(image.descriptor.annotations[REF_NAME], "latest");
    assert_eq!(image.descriptor.platform, Some(Platform::linux("amd64")));
    for (path, _) in repository.snapshot() {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o755 } else { 0o644 }, "{}", path.display());
    }
}

#[test]
fn the_same_image_gives_the_same_bytes() {
    let repository = Repository::new();
    export(&repository, "one", "amd64", &[b"a", b"b"]);
    let before = repository.snapshot();
    export(&repository, "one", "amd64", &[b"a", b"b"]);
    assert_eq!(repository.snapshot(), before);
}

#[test]
fn given_up_it_leaves_whole_blobs() {
    let repository = Repository::new();
    repository.begin(&["team/new"]).unwrap().leave();
    assert_eq!(repository.snapshot(), []);
    let transaction = repository.begin(&["app"]).unwrap();
    let blob = transaction.put_bytes(media::CONFIG, b"{}").unwrap();
    let unfinished = TempFile::create_in(&transaction.blobs_dir()).unwrap();
    drop(unfinished);
    transaction.leave();
    assert_eq!(digests_there(&repository, "app"), [blob.digest.hex()]);
    assert!(matches!(repository.open("app"), Err(LayoutError::NotFound(_))));
    // The next attempt has it; what that leaves goes in the end, with the folder.
    let transaction = repository.begin(&["app"]).unwrap();
    assert!(transaction.find(&blob).unwrap().is_some());
    drop(transaction);
    assert_eq!(digests_there(&repository, "app"), [blob.digest.hex()]);
    let later = SystemTime::now() + 2 * GRACE;
    let swept = sweep::sweep_at(&repository.dir, &repository.path("app"), false, later).unwrap().unwrap();
    assert!(swept.folder && swept.blobs.len() == 1, "{swept:?}");
}

#[test]
fn what_takes_the_place_of_all_need_not_read_it() {
    let repository = Repository::new();
    let put = |layer: &[u8]| repository.put_image("app", "amd64", layer, false);
    let named = |name: &str, mut descriptor: Json| {
        descriptor["annotations"] = json!({REF_NAME: name});
        descriptor
    };
    let damage = |descriptor: &Json| {
        let digest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        fs::write(blob_path(repository.path("app").path(), &digest), "{").unwrap();
    };
    let (ours, other, unnamed) = (named("latest", put(b"a")), named("other", put(b"b")), put(b"c"));
    let new: Descriptor = serde_json::from_value(put(b"d")).unwrap();
    repository.put_index("app", &[ours.clone(), other.clone(), unnamed.clone()]);
    [&ours, &other, &unnamed].into_iter().for_each(damage);
    repository.begin(&["app"]).unwrap_err();
    let begin = || {
        let path = repository.path("app");
        Transaction::begin_anew(&repository.dir, &path, LinkMode::Auto, Durability::InMemory, &|_| {})
    };
    let before = repository.snapshot();
    drop(begin().unwrap());
    assert_eq!(repository.snapshot(), before);
    let digests = || -> Vec<String> {
        let index = fs::read(repository.path("app").path().join("index.json")).unwrap();
        let index: Json = serde_json::from_slice(&index).unwrap();
        let digest = |one: &Json| one["digest"].as_str().unwrap().to_owned();
        index["manifests"].as_array().unwrap().iter().map(digest).collect()
    };
    let text = |json: &Json| json["digest"].as_str().unwrap().to_owned();
    // What has our name goes, and what has the same digest; what others refer to stays for them to mend.
    for want in [
        [new.digest.to_string(), text(&other), text(&unnamed)],
        [text(&unnamed), text(&other), String::new()],
    ] {
        let transaction = begin().unwrap();
        // Mended meanwhile.
        let root = if want[2].is_empty() { serde_json::from_value(put(b"c")).unwrap() } else { new.clone() };
        let left = transaction.prepare(&[Change::Name(root)], &BTreeSet::new()).unwrap().publish();
        assert!(left.unwrap().is_none());
        assert_eq!(digests(), want.into_iter().filter(|digest| !digest.is_empty()).collect::<Vec<_>>());
    }
}

#[test]
fn dropped_before_it_is_published_nothing_changes() {
    let repository = Repository::new();
    drop(repository.begin(&["team/new"]).unwrap());
    assert_eq!(repository.snapshot(), []);
    export(&repository, "app", "amd64", &[b"a"]);
    let before = repository.snapshot();
    let transaction = repository.begin(&["app"]).unwrap();
    let image = new_image(&transaction, "amd64", &[b"b"]);
    drop((image, transaction));
    assert_eq!(repository.snapshot(), before);
    let transaction = repository.begin(&["app", "other"]).unwrap();
    let image = new_image(&transaction, "amd64", &[b"b"]);
    drop(transaction.prepare_image(image).unwrap());
    assert_eq!(repository.snapshot(), before);
}

#[test]
fn a_reader_of_the_old_index_keeps_its_blobs() {
    let repository = Repository::new();
    export(&repository, "app", "amd64", &[b"first"]);
    let first = digests_there(&repository, "app");
    repository.age("app");
    export(&repository, "app", "amd64", &[b"second"]);
    let second = digests_there(&repository, "app");
    assert!(first.iter().all(|name| second.contains(name)), "someone may be reading the first image");
    export(&repository, "app", "amd64", &[b"third"]);
    let third = digests_there(&repository, "app");
    assert!(second.iter().all(|name| third.contains(name)), "both went out of use just now");
}

#[test]
fn what_a_killed_process_left_is_removed_by_the_next() {
    let repository = Repository::new();
    export(&repository, "app", "amd64", &[b"a"]);
    let layout = repository.path("app").path().to_owned();
    // Somebody's own.
    for name in [".drydock-notes", ".drydock-log-notes"] {
        fs::write(layout.join(name), "kept").unwrap();
    }
    let before = repository.snapshot();
    std::mem::forget(TempFile::create_in(&layout).unwrap());
    std::mem::forget(TempFile::create_in(&blobs_dir(&layout)).unwrap());
    export(&repository, "app", "amd64", &[b"a"]);
    assert_eq!(repository.snapshot(), before);
}

#[test]
fn what_nothing_leads_to_is_collected_and_nothing_else() {
    let repository = Repository::new();
    let image = repository.put_image("app", "amd64", b"a", false);
    let artifact = put_artifact(&repository, "app", &image);
    let unlisted = put_artifact(&repository, "app", &artifact);
    repository.put_index("app", &[image, artifact]);
    let layout = repository.path("app").path().to_owned();
    let kept = digests_there(&repository, "app");
    assert!(kept.contains(&unlisted["digest"].as_str().unwrap()["sha256:".len()..].to_owned()));
    repository.put_blob("app", b"unreferenced");
    fs::write(blobs_dir(&layout).join("README"), "not a blob").unwrap();
    let index = repository.open("app").unwrap().index().manifests.clone();
    collect::collect_at(&Dir::open(&layout).unwrap(), &[&index], SystemTime::now(), SystemTime::now())
        .unwrap();
    assert_eq!(digests_there(&repository, "app").len(), kept.len() + 2, "it is too early");
    let later = SystemTime::now() + 2 * GRACE;
    collect::collect_at(&Dir::open(&layout).unwrap(), &[&index], SystemTime::now(), later).unwrap();
    let mut want = kept;
    want.push("README".to_owned());
    want.sort();
    assert_eq!(digests_there(&repository, "app"), want);
}

#[test]
fn several_names_are_one_image() {
    let repository = Repository::new();
    let names = ["app", "reg.io/team/app:v2"];
    let transaction = repository.begin(&names).unwrap();
    let image = new_image(&transaction, "amd64", &[b"a", b"b"]);
    let committed = publish(transaction, image).unwrap();
    for (name, ref_name) in names.into_iter().zip(["latest", "v2"]) {
        let image = repository.image(name).unwrap();
        assert_eq!(image.digest(), committed.digest);
        assert_eq!(image.descriptor.annotations[REF_NAME], ref_name);
        assert!(image.layers().all(|layer| layer.open().is_ok()));
    }
}

#[test]
fn all_names_are_switched_or_none() {
    let repository = Repository::new();
    export(&repository, "app", "amd64", &[b"old"]);
    let before = repository.snapshot();
    for (name, want) in [("app:second", "index.json"), ("app:third", "oci-layout")] {
        let transaction = repository.begin(&["app", name]).unwrap();
        let image = new_image(&transaction, "amd64", &[b"new"]);
        let in_the_way = repository.path(name).path().join(want);
        fs::create_dir(&in_the_way).unwrap();
        let error = publish(transaction, image).unwrap_err().to_string();
        assert!(error.contains(&in_the_way.display().to_string()), "{error}");
        fs::remove_dir_all(repository.path(name).path()).unwrap();
        assert_eq!(repository.snapshot(), before, "{name}");
    }
    // The last moment: between preparing and switching.
    let transaction = repository.begin(&["app", "app:second"]).unwrap();
    let image = new_image(&transaction, "amd64", &[b"new"]);
    let prepared = transaction.prepare_image(image).unwrap();
    fs::create_dir(repository.path("app:second").path().join("index.json")).unwrap();
    prepared.publish().unwrap_err();
    fs::remove_dir_all(repository.path("app:second").path()).unwrap();
    assert_eq!(repository.snapshot(), before);
}

#[test]
fn two_names_of_one_folder_are_one_layout() {
    let repository = Repository::new();
    export(&repository, "app", "amd64", &[b"old"]);
    let stable = repository.path("app:stable").path().to_owned();
    std::os::unix::fs::symlink(repository.path("app").path(), &stable).unwrap();
    for names in [["app:stable", "app"], ["app", "app:stable"]] {
        let transaction = repository.begin(&names).unwrap();
        let image = new_image(&transaction, "amd64", &[b"new"]);
        let committed = publish(transaction, image).unwrap();
        assert_eq!(repository.image("app").unwrap().digest(), committed.digest);
    }
    assert!(fs::symlink_metadata(stable).unwrap().is_symlink());
}

#[test]
fn images_for_other_platforms_stay() {
    let repository = Repository::new();
    let amd = export(&repository, "app", "amd64", &[b"amd"]);
    let arm = export(&repository, "app", "arm64", &[b"arm"]);
    let image = |architecture| repository.open("app").unwrap().image(&Platform::linux(architecture)).unwrap();
    assert_eq!((image("amd64").digest(), image("arm64").digest()), (amd.digest, arm.digest));
    let amd = export(&repository, "app", "amd64", &[b"amd two"]);
    assert_eq!((image("amd64").digest(), image("arm64").digest()), (amd.digest, arm.digest));
    assert_eq!(
        repository.open("app").unwrap().index().manifests.descriptors.len(),
        1,
        "one name is one index"
    );
}

#[test]
fn an_image_that_is_replaced_goes_whatever_its_platform() {
    let repository = Repository::new();
    let amd = export(&repository, "app", "amd64", &[b"amd"]);
    export(&repository, "app", "arm64", &[b"arm"]);
    let transaction = repository.begin(&["app"]).unwrap();
    let image = NewImage { replaces: Some(amd.digest), ..new_image(&transaction, "s390x", &[b"new"]) };
    publish(transaction, image).unwrap();
    let layout = repository.open("app").unwrap();
    let platforms: Vec<String> = layout.images().iter().map(|(_, platform)| platform.to_string()).collect();
    assert_eq!(platforms, ["linux/arm64", "linux/s390x"]);
}

#[test]
fn an_index_that_cannot_be_read_is_not_replaced() {
    let repository = Repository::new();
    export(&repository, "app", "amd64", &[b"a"]);
    fs::write(repository.path("app").path().join("index.json"), "{").unwrap();
    let before = repository.snapshot();
    assert!(matches!(repository.begin(&["app"]), Err(LayoutError::Malformed { .. })));
    assert_eq!(repository.snapshot(), before);
}

#[test]
fn raw_manifests_keep_their_digests() {
    let repository = Repository::new();
    let raw = |descriptor: &Json| {
        let digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        fs::read(blob_path(repository.path("from").path(), &digest)).unwrap()
    };
    let image = repository.put_image("from", "amd64", b"layer", true);
    let artifact = put_artifact(&repository, "from", &image);
    repository.put_index("from", std::slice::from_ref(&image));
    export(&repository, "to", "amd64", &[b"old"]);
    export(&repository, "to", "arm64", &[b"old arm"]);

    let from = repository.image("from").unwrap();
    let transaction = repository.begin(&["to"]).unwrap();
    for layer in from.layers() {
        transaction.bring(&layer).unwrap();
    }
    let config: Json = serde_json::from_slice(&raw(&image)).unwrap();
    transaction.put_bytes(media::CONFIG, &raw(&config["config"])).unwrap();
    let manifest = transaction.put_bytes(&from.descriptor.media_type, &raw(&image)).unwrap();
    for blob in [&b"{}"[..], b"signature"] {
        transaction.put_bytes("application/spdx+json", blob).unwrap();
    }
    let beside = transaction.put_bytes(media::MANIFEST, &raw(&artifact)).unwrap();
    let changes = [Change::Name(manifest), Change::Add(beside.clone())];
    transaction.prepare(&changes, &BTreeSet::new()).unwrap().publish().unwrap();

    let layout = repository.open("to").unwrap();
    assert_eq!(layout.index().manifests.descriptors.len(), 2);
    assert_eq!(repository.image("to").unwrap().digest(), from.digest());
    let transaction = repository.begin(&["to"]).unwrap();
    let changes = [Change::Remove(beside.digest)];
    transaction.prepare(&changes, &BTreeSet::new()).unwrap().publish().unwrap();
    assert_eq!(repository.open("to").unwrap().index().manifests.descriptors.len(), 1);
}

#[test]
fn blobs_come_from_another_layout_checked() {
    let repository = Repository::new();
    export(&repository, "run", "amd64", &[b"base"]);
    let layer = repository.image("run").unwrap().layers().next().unwrap();
    let shared = repository.begin(&["app"]).unwrap().bring(&layer).unwrap();
    assert_eq!((shared.shared, shared.copied), (4, 0));
    fs::write(layer.path(), b"evil").unwrap();
    let brought = repository.begin(&["b"]).unwrap().bring(&layer);
    assert!(matches!(brought, Err(LayoutError::Corrupt { .. })));
}

#[test]
fn blobs_that_are_in_place_are_not_believed() {
    let repository = Repository::new();
    export(&repository, "app", "amd64", &[b"kept"]);
    let layer = repository.image("app").unwrap().layers().next().unwrap();
    let rebased = |names: &[&str]| {
        let transaction = repository.begin(names).unwrap();
        let mut image = new_image(&transaction, "amd64", &[b"new"]);
        let (diff_id, descriptor) = (layer.diff_id, layer.descriptor.clone());
        image.layers.push(NewLayer { diff_id, descriptor, blob: BlobSource::Placed });
        publish(transaction, image)
    };
    fs::write(layer.path(), b"evil").unwrap();
    assert!(rebased(&["app"]).is_err());
    fs::write(layer.path(), b"kept").unwrap();
    rebased(&["app", "other"]).unwrap();
    assert!(repository.image("other").unwrap().layers().all(|layer| layer.open().is_ok()));
    fs::remove_file(layer.path()).unwrap();
    assert!(matches!(rebased(&["app"]), Err(LayoutError::MissingBlob { .. })));
}

#[test]
fn a_second_writer_waits() {
    let repository = Repository::new();
    let transaction = repository.begin(&["app"]).unwrap();
    let (told, is_told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let told = told;
            let name = [repository.path("app")];
            let tell = |_: &LayoutPath| told.send(()).unwrap();
            Transaction::begin(&repository.dir, &name, LinkMode::Auto, Durability::InMemory, &tell)
                .map(|transaction| transaction.blobs_dir())
        });
        is_told.recv().unwrap();
        // Dropped, the first one removes the folder that it made: the second must notice and make its own.
        drop(transaction);
        assert_eq!(waiting.join().unwrap().unwrap(), blobs_dir(repository.path("app").path()));
    });
}

/// Whoever gives up takes the folders along that are above several names.
#[test]
fn folders_that_others_remove_are_made_again() {
    let repository = Repository::new();
    let path = repository.path("team/app");
    let above = path.path().parent().unwrap();
    fs::create_dir_all(above).unwrap();
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            for _ in 0..20_000 {
                let _ = fs::remove_dir(above);
                let _ = fs::create_dir(above);
            }
        });
        while !others.is_finished() {
            target::folder(&repository.dir, &path, &mut folders::Undo::default()).unwrap();
        }
    });
}

#[test]
fn no_link_is_written_through() {
    let repository = Repository::new();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("precious"), "").unwrap();
    let link = |from: &Path| std::os::unix::fs::symlink(elsewhere.path(), from).unwrap();
    link(&repository.temp.path().join("index.docker.io"));
    let error = repository.begin(&["app"]).unwrap_err().to_string();
    let root = repository.temp.path().display();
    assert!(error.contains(&format!("leads out of `{root}`")), "{error}");
    fs::create_dir(repository.temp.path().join("reg.io")).unwrap();
    link(&repository.temp.path().join("reg.io/team"));
    let error = repository.begin(&["reg.io/team/app"]).unwrap_err().to_string();
    assert!(error.contains(&format!("leads out of `{root}`")), "{error}");
    for below in ["blobs", "blobs/sha256"] {
        let path = repository.path("reg.io/app").path().join(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        link(&path);
        let error = repository.begin(&["reg.io/app"]).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        fs::remove_file(path).unwrap();
    }
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

#[test]
fn no_image_lies_among_the_blobs_of_another() {
    let repository = Repository::new();
    export(&repository, "reg.io/app", "amd64", &[b"base"]);
    let blobs = repository.path("reg.io/app").path().join("blobs");
    std::os::unix::fs::symlink(&blobs, repository.temp.path().join("reg.io/link")).unwrap();
    export(&repository, "reg.io/acme/latest:blobs", "amd64", &[b"base"]);
    export(&repository, "reg.io/app/latest:beside", "amd64", &[b"base"]);
    let before = repository.snapshot();
    for name in ["app/latest:blobs", "app/latest/blobs", "app/latest/blobs/sha256:x", "link:x", "acme"] {
        let error = repository.begin(&[&format!("reg.io/{name}")]).unwrap_err();
        assert!(matches!(error, LayoutError::Inside { .. }), "{name}: {error}");
        assert_eq!(repository.snapshot(), before, "{name}");
    }
    // It is there already.
    export(&repository, "reg.io/app", "amd64", &[b"base"]);
}

#[test]
fn nothing_is_written_under_a_digest() {
    let repository = Repository::new();
    let name = format!("app@{}", Digest::of(b"x"));
    assert!(matches!(repository.begin(&[&name]), Err(LayoutError::NamedByDigest(_))));
    assert_eq!(repository.snapshot(), []);
}

#[test]
fn a_damaged_blob_that_is_nowhere_else_goes() {
    for (damage, want) in [("evil", None), ("torn off", None), ("base", Some(4))] {
        let repository = Repository::new();
        export(&repository, "app", "amd64", &[b"base"]);
        let layer = repository.image("app").unwrap().layers().next().unwrap();
        fs::write(layer.path(), damage).unwrap();
        let found = repository.begin(&["app"]).unwrap().find(&layer.descriptor).unwrap();
        assert_eq!(found.map(|found| found.shared), want, "{damage}");
        assert_eq!(layer.is_absent(), want.is_none(), "{damage}");
    }
}
