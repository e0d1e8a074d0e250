use std::fs;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};

use std::io;
use std::num::NonZeroUsize;
use std::panic;
use std::path::Path;

use drydock_io::dir::Place;
use drydock_io::sink::Sink;
use drydock_model::digest::{DiffId, Digest};

use crate::compress::{CHUNK, Compression, decompressed};
use crate::pipeline::{Done, Error, Job, Settings, Source, run};

const FAST: Compression = Compression::FAST_GZIP;

fn settings(threads: usize, compression: Compression) -> Settings {
    Settings { threads: NonZeroUsize::new(threads).unwrap(), compression, write_out: false }
}

fn threads(n: usize) -> Settings {
    settings(n, FAST)
}

/// Bytes that compress a little, different for each seed.
fn bytes(seed: u64, n: usize) -> Vec<u8> {
    let mut state = seed;
    let step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b'a' + (state >> 60) as u8
    };
    std::iter::repeat_with(step).take(n).collect()
}

/// Writes in pieces that end anywhere.
fn source(bytes: &[u8]) -> impl Fn(&mut dyn Sink) -> io::Result<()> + Sync {
    |sink| bytes.chunks(10_007).try_for_each(|piece| sink.write_all(piece))
}

fn names(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

/// Everything that is asserted of a layer's files.
fn check(done: &mut Done, tar: &[u8], compression: Compression) {
    assert_eq!((done.diff_id, done.size), (DiffId::of(tar), tar.len() as u64));
    let blob = done.blob.as_mut().unwrap();
    let stored = fs::read(blob.file.path()).unwrap();
    assert_eq!((blob.digest, blob.size), (Digest::of(&stored), stored.len() as u64));
    assert_eq!(blob.media_type, compression.format().media_type());
    assert!(stored == compression.compress(tar), "threads changed the bytes");
    let mut unpacked = Vec::new();
    decompressed(&stored[..], compression.format()).unwrap().read_to_end(&mut unpacked).unwrap();
    assert!(unpacked == tar);
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::by_path(&dir.path().join("layer"));
    let sizes = [3 * CHUNK + 5, 0, 1, CHUNK, CHUNK - 1, 2 * CHUNK, 100];
    let tars: Vec<Vec<u8>> = (0..).zip(sizes).map(|(seed, size)| bytes(seed, size)).collect();
    for compression in ["gzip", "gzip:6", "zstd", "none"] {
        let compression: Compression = compression.parse().unwrap();
        for n in [1, 2, 8] {
            let sources: Vec<_> = tars.iter().map(|tar| source(tar)).collect();
            let jobs: Vec<_> = sources
                .iter()
                .map(|source| Job { source, known: None, blob: Some(&place), copy: Some(dir.path()) })
                .collect();
            let mut done = run(&jobs, settings(n, compression)).unwrap();
            assert_eq!(done.len(), tars.len());
            for (done, tar) in done.iter_mut().zip(&tars) {
                check(done, tar, compression);
                assert!(fs::read(done.copy.as_ref().unwrap().path()).unwrap() == *tar);
            }
        }
    }
    assert_eq!(names(dir.path()), 0, "a temporary file is left");
}

#[test]
fn many_small_jobs() {
    let dir = tempfile::tempdir().unwrap();
    // Some of them the same.
    let tars: Vec<Vec<u8>> = (0..300).map(|i| bytes(i % 7, 200)).collect();
    let sources: Vec<_> = tars.iter().map(|tar| source(tar)).collect();
    let place = Place::by_path(&dir.path().join("layer"));
    let blob = Some(&place);
    let jobs: Vec<_> = sources.iter().map(|source| Job { source, known: None, blob, copy: None }).collect();
    let mut done = run(&jobs, threads(4)).unwrap();
    for (done, tar) in done.iter_mut().zip(&tars) {
        check(done, tar, FAST);
    }
}

#[test]
fn no_jobs() {
    assert!(run::<io::Error>(&[], threads(2)).unwrap().is_empty());
}

#[test]
fn without_outputs_it_hashes() {
    let tar = bytes(1, CHUNK + 1);
    let source = source(&tar);
    let done = run(&[Job { source: &source, known: None, blob: None, copy: None }], threads(2)).unwrap();
    assert_eq!((done[0].diff_id, done[0].size), (DiffId::of(&tar), tar.len() as u64));
    assert!(done[0].blob.is_none() && done[0].copy.is_none());
}

#[test]
fn copy_alone() {
    let dir = tempfile::tempdir().unwrap();
    let tar = bytes(1, CHUNK + 1);
    let source = source(&tar);
    let done =
        run(&[Job { source: &source, known: None, blob: None, copy: Some(dir.path()) }], threads(2)).unwrap();
    assert_eq!(done[0].diff_id, DiffId::of(&tar));
    assert!(fs::read(done[0].copy.as_ref().unwrap().path()).unwrap() == tar);
}

#[test]
fn known_layer_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let (same, changed) = (bytes(1, CHUNK + 1), bytes(2, CHUNK + 1));
    let sources = [source(&same), source(&changed)];
    let known = Some(DiffId::of(&same));
    let place = Place::by_path(&dir.path().join("layer"));
    let blob = Some(&place);
    let copy = Some(dir.path());
    let jobs = sources.each_ref().map(|source| Job { source, known, blob, copy });
    let mut done = run(&jobs, threads(2)).unwrap();
    assert_eq!(done[0].diff_id, DiffId::of(&same));
    assert!(done[0].blob.is_none() && done[0].copy.is_none());
    check(&mut done[1], &changed, FAST);
    assert_eq!(names(dir.path()), 2);
}

#[test]
fn failing_source_stops_all() {
    let dir = tempfile::tempdir().unwrap();
    let stopped = AtomicBool::new(false);
    // Goes on until it is told to stop, which it then reports as an error of its own.
    let endless = |sink: &mut dyn Sink| -> io::Result<()> {
        loop {
            if let Err(error) = sink.write_all(&[0; 1000]) {
                stopped.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
    };
    let failing = |sink: &mut dyn Sink| -> io::Result<()> {
        sink.write_all(&bytes(1, 2 * CHUNK + 9))?;
        Err(io::Error::other("file changed"))
    };
    let place = Place::by_path(&dir.path().join("layer"));
    let blob = Some(&place);
    for n in [2, 8] {
        stopped.store(false, Ordering::Relaxed);
        let jobs = [
            Job { source: &endless as &Source<'_, io::Error>, known: None, blob, copy: None },
            Job { source: &failing, known: None, blob, copy: None },
            Job { source: &failing, known: None, blob, copy: None },
        ];
        let error = run(&jobs, threads(n)).unwrap_err();
        assert!(matches!(error, Error::Source(_)));
        assert_eq!(error.to_string(), "file changed");
        assert!(stopped.load(Ordering::Relaxed));
        assert_eq!(names(dir.path()), 0, "a temporary file is left");
    }
}

#[test]
fn source_that_ignores_the_stop_changes_nothing() {
    let ignoring = |sink: &mut dyn Sink| -> io::Result<()> {
        while sink.write_all(&[0; 1000]).is_ok() {}
        Ok(())
    };
    let failing = |_: &mut dyn Sink| -> io::Result<()> { Err(io::Error::other("file changed")) };
    let jobs = [
        Job { source: &ignoring as &Source<'_, io::Error>, known: None, blob: None, copy: None },
        Job { source: &failing, known: None, blob: None, copy: None },
    ];
    assert_eq!(run(&jobs, threads(2)).unwrap_err().to_string(), "file changed");
}

#[test]
fn a_source_that_panics_ends_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let endless = |sink: &mut dyn Sink| -> io::Result<()> {
        loop {
            sink.write_all(&[0; 1000])?;
        }
    };
    let panicking = |sink: &mut dyn Sink| -> io::Result<()> {
        sink.write_all(&bytes(1, 2 * CHUNK))?;
        panic!("on purpose")
    };
    let place = Place::by_path(&dir.path().join("layer"));
    let blob = Some(&place);
    let jobs = [
        Job { source: &endless as &Source<'_, io::Error>, known: None, blob, copy: None },
        Job { source: &panicking, known: None, blob, copy: None },
    ];
    let ended = panic::catch_unwind(panic::AssertUnwindSafe(|| run(&jobs, threads(2)).map(|_| ())));
    assert!(ended.is_err());
    assert_eq!(names(dir.path()), 0, "a temporary file is left");
}

#[test]
fn folder_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Place::by_path(&dir.path().join("missing/layer"));
    let tar = bytes(1, 10);
    let source = source(&tar);
    let job = Job { source: &source, known: None, blob: Some(&missing), copy: None };
    let error = run(&[job], threads(1)).unwrap_err();
    assert!(matches!(error, Error::Write(_)));
    assert!(error.to_string().contains("missing"), "{error}");
}
