//! The pipeline under a model checker ([`drydock_checker`]): that nothing waits for ever, that no chunk is lost and that the first
//! failure is the result, in many orders, and with as few chunks and threads as there can be.

use std::io;
use std::num::NonZeroUsize;
use std::path::Path;

use drydock_checker as sync;
use drydock_checker::in_many_orders;
use drydock_io::dir::Place;
use drydock_io::sink::Sink;
use drydock_model::digest::DiffId;

use self::pipeline::{Error, Job, Resources, Settings, Source, run_with};
use crate::compress::CHUNK;

#[path = "pipeline/mod.rs"]
#[expect(clippy::duplicate_mod, reason = "it is compiled once more")]
#[allow(dead_code, unreachable_pub, reason = "nobody but these tests uses it")]
mod pipeline;

const ORDERS: usize = 100;

/// As few as there can be of each, up to two; sources, workers, chunks.
const FEW: [Resources; 4] = [
    Resources { sources: 1, workers: 1, chunks: 1 },
    Resources { sources: 2, workers: 1, chunks: 1 },
    Resources { sources: 2, workers: 2, chunks: 2 },
    Resources { sources: 3, workers: 2, chunks: 4 },
];

fn settings(compression: &str) -> Settings {
    let compression = compression.parse().unwrap();
    Settings { threads: NonZeroUsize::MIN, compression, write_out: false }
}

/// A tar of zeros; where it ends, it says `fails` if that is something.
fn source(size: usize, fails: Option<&'static str>) -> impl Fn(&mut dyn Sink) -> io::Result<()> + Sync {
    move |sink| {
        let mut left = size;
        while left > 0 {
            let n = sink.space()?.len().min(left);
            sink.advance(n);
            left -= n;
        }
        fails.map_or(Ok(()), |text| Err(io::Error::other(text)))
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn all_layers_are_made_in_every_order() {
    const SIZES: [usize; 3] = [CHUNK + 7, 0, 2 * CHUNK];
    for compression in ["gzip", "none"] {
        in_many_orders(ORDERS, move || {
            let dir = tempfile::tempdir().unwrap();
            let place = Place::by_path(&dir.path().join("layer"));
            let sources = SIZES.map(|size| source(size, None));
            let wanted = SIZES.map(|size| DiffId::of(&vec![0; size]));
            // The first is as before, the others are not; and one is only hashed.
            let known = [Some(wanted[0]), Some(wanted[0]), None];
            for resources in &FEW {
                let jobs: Vec<_> = (0..SIZES.len())
                    .map(|at| Job {
                        source: &sources[at] as &Source<'_, io::Error>,
                        known: known[at],
                        blob: Some(&place).filter(|_| at != 1),
                        copy: None,
                    })
                    .collect();
                let done = run_with(&jobs, settings(compression), resources).unwrap();
                assert_eq!(done.iter().map(|done| done.diff_id).collect::<Vec<_>>(), wanted);
                assert!(done[0].blob.is_none() && done[2].blob.is_some(), "{resources:?}");
            }
            assert!(is_empty(dir.path()), "a temporary file is left");
        });
    }
}

#[test]
fn a_failure_ends_all_in_every_order() {
    in_many_orders(ORDERS, || {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::by_path(&dir.path().join("layer"));
        let sources = [
            source(2 * CHUNK, None),
            source(CHUNK + 1, Some("failed")),
            source(0, Some("failed")),
            source(CHUNK, None),
        ];
        for resources in &FEW {
            let jobs = sources.each_ref().map(|source| Job {
                source: source as &Source<'_, io::Error>,
                known: None,
                blob: Some(&place),
                copy: None,
            });
            match run_with(&jobs, settings("gzip"), resources) {
                Err(Error::Source(error)) => assert_eq!(error.to_string(), "failed"),
                other => panic!("{other:?}"),
            }
        }
        assert!(is_empty(dir.path()), "a temporary file is left");
    });
}
