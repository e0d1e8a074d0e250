//! Logs of builds: beside images, and of builds that run.

use std::collections::BTreeSet;

use drydock_io::lock::{Lock, is_written};

use super::*;
use crate::sweep::sweep_at;

/// Exports with a log; gives the digests of image and log.
fn export_with_log(
    repository: &Repository,
    names: &[&str],
    architecture: &str,
    layer: &[u8],
    log: &str,
) -> Digest {
    let transaction = repository.begin(names).unwrap();
    let image = new_image(&transaction, architecture, &[layer]);
    let mut file = TempFile::create_in(&transaction.blobs_dir()).unwrap();
    file.file().write_all(log.as_bytes()).unwrap();
    let new = NewLog { file, digest: Digest::of(log.as_bytes()), size: log.len() as u64 };
    let (prepared, failed) = transaction.prepare_image_and_log(image, Some(new)).unwrap();
    assert!(failed.is_none(), "{failed:?}");
    let image = prepared.committed().unwrap().digest;
    assert!(prepared.publish().unwrap().is_none());
    image
}

/// The logs that the index names: the image of each, and its lines.
fn logs(repository: &Repository, name: &str) -> Vec<(Digest, String)> {
    let layout = repository.open(name).unwrap();
    let path = repository.path(name);
    let log = |descriptor: &&Descriptor| {
        let manifest: Json = serde_json::from_slice(&read_blob(path.path(), descriptor).unwrap()).unwrap();
        (manifest["artifactType"] == media::BUILD_LOG).then(|| {
            assert_eq!(descriptor.rest["artifactType"], media::BUILD_LOG);
            let layer: Descriptor = serde_json::from_value(manifest["layers"][0].clone()).unwrap();
            let mut text = String::new();
            let mut blob = open_whole_blob(path.path(), &layer).unwrap();
            io::Read::read_to_string(&mut blob, &mut text).unwrap();
            (manifest["subject"]["digest"].as_str().unwrap().parse().unwrap(), text)
        })
    };
    layout.artifacts().iter().filter_map(log).collect()
}

#[test]
fn a_log_refers_to_its_image_under_every_name() {
    let repository = Repository::new();
    let plain = export(&repository, "plain", "amd64", &[b"a"]);
    let image = export_with_log(&repository, &["app", "other"], "amd64", b"a", "one\n");
    assert_eq!(image, plain.digest, "the log changes nothing in the image");
    for name in ["app", "other"] {
        assert_eq!(repository.image(name).unwrap().digest(), image);
        assert_eq!(logs(&repository, name), [(image, "one\n".to_owned())]);
    }
}

#[test]
fn it_goes_with_its_image_and_no_other_artifact_does() {
    let log = |image, text: &str| (image, text.to_owned());
    let repository = Repository::new();
    let first = export_with_log(&repository, &["app"], "amd64", b"a", "first\n");
    let arm = export_with_log(&repository, &["app"], "arm64", b"a", "arm\n");
    assert_eq!(logs(&repository, "app"), [log(first, "first\n"), log(arm, "arm\n")]);

    // Beside one that is not ours.
    let subject = json!({"mediaType": media::MANIFEST, "digest": first, "size": 1});
    let signature = put_artifact(&repository, "app", &subject);
    let signature: Descriptor = serde_json::from_value(signature).unwrap();
    let transaction = repository.begin(&["app"]).unwrap();
    transaction.prepare(&[Change::Add(signature.clone())], &BTreeSet::new()).unwrap().publish().unwrap();

    let same = export_with_log(&repository, &["app"], "amd64", b"a", "again\n");
    assert_eq!(same, first);
    assert_eq!(logs(&repository, "app"), [log(arm, "arm\n"), log(first, "again\n")]);
    export(&repository, "app", "amd64", &[b"a"]);
    assert_eq!(logs(&repository, "app").len(), 2, "the image is the same");
    export(&repository, "app", "amd64", &[b"b"]);
    assert_eq!(logs(&repository, "app"), [log(arm, "arm\n")]);
    assert!(repository.open("app").unwrap().artifacts().contains(&&signature));
}

#[test]
fn what_is_left_of_old_ones_is_collected() {
    let repository = Repository::new();
    let count = || fs::read_dir(blobs_dir(repository.path("app").path())).unwrap().count();
    export_with_log(&repository, &["app"], "amd64", b"a", "0\n");
    let at_first = count();
    for log in ["1\n", "2\n"] {
        export_with_log(&repository, &["app"], "amd64", b"a", log);
    }
    assert_eq!(count(), at_first + 4, "somebody may be reading");
    let later = SystemTime::now() + 2 * GRACE;
    let swept = sweep_at(&repository.dir, &repository.path("app"), false, later).unwrap().unwrap();
    assert_eq!((swept.blobs.len(), count()), (4, at_first));
    assert_eq!(logs(&repository, "app")[0].1, "2\n");
}

#[test]
fn a_running_build_has_a_file_that_goes_with_it() {
    let repository = Repository::new();
    let (dir, path) = (&repository.dir, repository.path("team/app"));
    assert!(running(&path).unwrap().is_none());
    let spool = Spool::create(dir, &path).unwrap();
    let mut file = spool.file();
    file.write_all(b"line\n").unwrap();
    let found = running(&path).unwrap().unwrap();
    assert_eq!(io::read_to_string(&found).unwrap(), "line\n");
    drop(spool);
    assert!(!is_written(&found).unwrap());
    assert_eq!(repository.snapshot(), [], "the folders go with it");

    // Another export neither takes it for what a killed process left, nor do its folders go.
    let spool = Spool::create(dir, &path).unwrap();
    export(&repository, "team/app", "amd64", &[b"a"]);
    let later = SystemTime::now() + 2 * GRACE;
    sweep_at(dir, &path, false, later).unwrap().unwrap();
    assert!(running(&path).unwrap().is_some());
    drop(spool);
    repository.image("team/app").unwrap();
}

#[test]
fn what_a_killed_build_left_is_found_by_nobody_and_removed_by_all() {
    let repository = Repository::new();
    let (dir, path) = (&repository.dir, repository.path("app"));
    let left = path.path().join(".drydock-log-1-0");
    let leave = || {
        fs::create_dir_all(blobs_dir(path.path())).unwrap();
        fs::write(&left, "{}\n").unwrap();
        assert!(running(&path).unwrap().is_none());
    };
    leave();
    let spool = Spool::create(dir, &path).unwrap();
    assert!(!left.exists());
    drop(spool);
    leave();
    export(&repository, "app", "amd64", &[b"a"]);
    assert!(!left.exists());
    leave();
    sweep_at(dir, &path, false, SystemTime::now()).unwrap().unwrap();
    assert!(!left.exists());
    std::os::unix::fs::symlink("index.json", &left).unwrap();
    assert!(running(&path).unwrap().is_none());
    let _spool = Spool::create(dir, &path).unwrap();
}

#[test]
fn its_folder_stays_with_whoever_has_that_locked() {
    let repository = Repository::new();
    let path = repository.path("team/app");
    let spool = Spool::create(&repository.dir, &path).unwrap();
    let lock = Lock::acquire(path.path(), &|| {}).unwrap();
    drop(spool);
    assert!(blobs_dir(path.path()).is_dir(), "a blob is about to be put there");
    drop(lock);
    drop(Spool::create(&repository.dir, &path).unwrap());
    assert!(path.path().is_dir(), "it was there before");
}
