//! JSON files of layouts and caches, labels, and lines of build logs.

use std::fmt::Display;

use drydock_model::config::ImageConfig;
use drydock_model::manifest::{Index, Manifest};
use drydock_spec::build_log::Line;
use drydock_spec::cache::CacheMetadata;
use drydock_spec::label::{lifecycle_metadata_from_json, lifecycle_metadata_to_json};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Target;

pub(crate) const TARGET: Target = Target {
    name: "json",
    longest: 1 << 16,
    words: &[
        b"null",
        b"true",
        b"[]",
        b"{}",
        b"\"\"",
        b"{\"a\":",
        b"[",
        b",",
        b"\\u0000",
        b"\\ud800",
        b"1.5",
        b"-0.0",
        b"1e999",
        b"\"size\":-1,",
        b"\"mediaType\":null,",
        b"\"manifests\":",
        b"\"layers\":",
        b"\"config\":",
        b"\"annotations\":",
        b"\"platform\":",
        b"\"artifactType\":\"a\",",
        b"\"subject\":{}",
        b"\"history\":",
        b"\"rootfs\":",
        b"\"diff_ids\":",
        b"\"stream\":\"stdout\",",
    ],
    can_use: |_, bytes| bytes.first() == Some(&b'{'),
    run,
};

fn run(input: &[u8]) -> String {
    let mut said = [again::<Index>(input), again::<Manifest>(input), again::<ImageConfig>(input)].concat();
    said += &again::<Line>(input);
    if let Ok(text) = str::from_utf8(input) {
        said += &outcome(lifecycle_metadata_from_json(text), |metadata| {
            // What comes of JSON can be written as JSON.
            let printed = lifecycle_metadata_to_json(&metadata).expect("no number is new");
            let again = lifecycle_metadata_from_json(&printed).expect("what was printed can be read");
            assert_eq!(lifecycle_metadata_to_json(&again).as_ref(), Ok(&printed));
        });
        said += &outcome(CacheMetadata::from_json(text), |metadata| {
            let printed = metadata.to_json().expect("no number is new");
            let again = CacheMetadata::from_json(&printed).expect("what was printed can be read");
            assert_eq!(again.to_json().as_ref(), Ok(&printed));
        });
    }
    said
}

/// Reads, prints, reads and prints: the same must be printed.
fn again<T: Serialize + DeserializeOwned>(input: &[u8]) -> String {
    outcome(serde_json::from_slice::<T>(input), |value| {
        let print = |value: &T| serde_json::to_string(value).expect("structs with string keys make JSON");
        let printed = print(&value);
        let read: T = serde_json::from_str(&printed).expect("what was printed can be read");
        assert_eq!(print(&read), printed);
    })
}

fn outcome<T, E: Display>(parsed: Result<T, E>, check: impl FnOnce(T)) -> String {
    match parsed {
        Ok(value) => {
            check(value);
            "ok;".to_owned()
        }
        Err(error) => format!("{error};"),
    }
}
