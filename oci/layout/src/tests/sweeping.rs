//! What a sweep removes, and when.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use super::*;
use crate::sweep::sweep_at;

fn swept(repository: &Repository, name: &str, dry_run: bool, now: SystemTime) -> Swept {
    sweep_at(&repository.dir, &repository.path(name), dry_run, now).unwrap().unwrap()
}

fn later() -> SystemTime {
    SystemTime::now() + 2 * GRACE
}

fn unname(repository: &Repository, name: &str) {
    let transaction = repository.begin(&[name]).unwrap();
    transaction.prepare(&[Change::Unname], &BTreeSet::new()).unwrap().publish().unwrap();
}

#[test]
fn only_what_is_of_no_use_goes_and_only_later() {
    let repository = Repository::new();
    export(&repository, "app", "amd64", &[b"a"]);
    let used = repository.snapshot();
    let unused = repository.put_blob("app", b"unreferenced");
    std::mem::forget(TempFile::create_in(&blobs_dir(repository.path("app").path())).unwrap());
    let all = repository.snapshot();

    let plan = swept(&repository, "app", true, later());
    assert_eq!((plan.temporary.len(), plan.folder, plan.wait), (1, false, None));
    assert_eq!(plan.blobs.iter().map(|blob| (blob.digest, blob.size)).collect::<Vec<_>>(), [(unused, 12)]);
    assert_eq!(repository.snapshot(), all, "nothing is done in a dry run");

    let now = swept(&repository, "app", false, SystemTime::now());
    assert!(now.blobs.is_empty() && now.wait.is_some_and(|wait| wait + Duration::from_mins(1) > GRACE));
    assert_eq!(repository.snapshot().len(), used.len() + 1, "the temporary file goes at once");
    swept(&repository, "app", false, later());
    assert_eq!(repository.snapshot(), used);
}

#[test]
fn a_name_without_an_image_is_no_layout_and_then_gone() {
    let repository = Repository::new();
    export(&repository, "app", "amd64", &[b"a"]);
    export(&repository, "app/debug", "amd64", &[b"b"]);
    unname(&repository, "app");
    assert!(matches!(repository.open("app"), Err(LayoutError::NotFound(_))));
    assert!(!swept(&repository, "app", false, SystemTime::now()).folder, "somebody may still read it");
    assert!(swept(&repository, "app", false, later()).folder);
    assert!(!repository.path("app").path().exists());
    repository.image("app/debug").unwrap();
    unname(&repository, "app/debug");
    assert!(swept(&repository, "app/debug", false, later()).folder);
    assert_eq!(repository.snapshot(), [], "folders above go when they are empty");
}

#[test]
fn other_names_in_an_index_stay() {
    let repository = Repository::new();
    let image = repository.put_image("app", "amd64", b"a", false);
    let named = |name: &str| {
        let mut image = image.clone();
        image["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        image
    };
    repository.put_index("app", &[named("latest"), named("v1")]);
    unname(&repository, "app");
    assert_eq!(repository.open("app").unwrap().index().manifests.descriptors.len(), 1);
    assert!(swept(&repository, "app", false, later()).blobs.is_empty());
    repository.image("app").unwrap();
}

#[test]
fn nothing_goes_behind_a_writer_or_a_link_or_a_damaged_index() {
    let repository = Repository::new();
    export(&repository, "app", "amd64", &[b"a"]);
    repository.put_blob("app", b"unreferenced");
    let all = repository.snapshot();
    let transaction = repository.begin(&["app"]).unwrap();
    assert!(sweep_at(&repository.dir, &repository.path("app"), false, later()).unwrap().is_none());
    drop(transaction);

    let layout = repository.path("app").path().to_owned();
    let (blobs, elsewhere) = (layout.join("blobs"), layout.join("shared"));
    fs::rename(&blobs, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &blobs).unwrap();
    assert!(swept(&repository, "app", false, later()).blobs.is_empty());
    fs::remove_file(&blobs).unwrap();
    fs::rename(&elsewhere, &blobs).unwrap();

    let index = fs::read(layout.join("index.json")).unwrap();
    fs::write(layout.join("index.json"), "{").unwrap();
    let error = sweep_at(&repository.dir, &repository.path("app"), false, later()).unwrap_err();
    assert!(error.is_damage(), "{error}");
    fs::write(layout.join("index.json"), index).unwrap();
    assert_eq!(repository.snapshot(), all);
}

#[test]
fn sweeps_at_once_are_as_good_as_one() {
    for _ in 0..200 {
        let repository = Repository::new();
        let names = ["team/app:a", "team/app:b"];
        for name in names {
            export(&repository, name, "amd64", &[b"a"]);
            unname(&repository, name);
        }
        let sweep = |name| drop(sweep_at(&repository.dir, &repository.path(name), false, later()).unwrap());
        thread::scope(|scope| {
            scope.spawn(|| names.map(sweep));
            names.into_iter().rev().for_each(sweep);
        });
        assert_eq!(repository.snapshot(), []);
    }
}

/// Logs of builds are written and removed without the lock.
#[test]
fn what_goes_meanwhile_is_passed_over() {
    let repository = Repository::new();
    export(&repository, "app", "amd64", &[b"a"]);
    let path = repository.path("app");
    let work = |number: u8| {
        for round in 0..50 {
            export(&repository, "app", "amd64", &[&[number, round]]);
            sweep_at(&repository.dir, &path, false, SystemTime::now()).unwrap();
        }
    };
    thread::scope(|scope| {
        let works = [1, 2].map(|number| scope.spawn(move || work(number)));
        while !works.iter().all(thread::ScopedJoinHandle::is_finished) {
            drop(Spool::create(&repository.dir, &path).unwrap());
        }
    });
}
