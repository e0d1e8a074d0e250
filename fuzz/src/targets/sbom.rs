//! SBOM files of several buildpacks, merged: all that they list is there, and of one alone nothing changes.
//!
//! The parts of an input are files of one format.

use std::collections::BTreeSet;

use drydock_images::sbom::{SbomFile, format_name, merge};
use drydock_spec::sbom::SbomFormat;
use serde_json::Value as Json;

use super::{Target, parts, roughly};

pub(crate) const TARGET: Target = Target {
    name: "sbom",
    longest: 1 << 13,
    words: &[
        b"\n====\n",
        b"\"components\":[]",
        b"\"artifacts\":[{}]",
        b"\"packages\":[{\"SPDXID\":\"SPDXRef-a\"}]",
        b"\"relationships\":[{\"spdxElementId\":\"SPDXRef-DOCUMENT\",\"relatedSpdxElement\":\"SPDXRef-a\"}]",
        b"\"documentDescribes\":[\"SPDXRef-a\"]",
        b"\"serialNumber\":\"x\"",
        b"null",
        b"[[]]",
        b"{\"a\":",
    ],
    can_use: |path, _| {
        path.to_string_lossy().contains("sbom") && path.extension().is_some_and(|it| it == "json")
    },
    run,
};

/// What is a list in each format.
const LISTS: [&str; 8] =
    ["components", "services", "dependencies", "artifacts", "files", "packages", "snippets", "relationships"];

fn run(input: &[u8]) -> String {
    let mut said = Vec::new();
    for format in SbomFormat::ALL {
        let file = |(number, text): (usize, &[u8])| SbomFile {
            path: format!("{number}"),
            format: format_name(format),
            of: format!("a:{number}"),
            size: text.len() as u64,
            text: Some(text.to_vec()),
        };
        let files: Vec<SbomFile> = parts(input).take(4).enumerate().map(file).collect();
        let merged = match merge(format, &files) {
            Ok(merged) => merged,
            Err(error) => {
                said.push(format!("{error:#}"));
                continue;
            }
        };
        let read = |file: &SbomFile| serde_json::from_slice(file.text.as_deref().unwrap_or_default());
        let documents: Vec<Json> =
            files.iter().map(read).collect::<Result<_, _>>().expect("they were merged");
        if let [only] = &documents[..] {
            assert_eq!(merged, *only, "one alone has changed");
        }
        for list in LISTS {
            let items = |document: &Json| document[list].as_array().cloned().unwrap_or_default();
            let found = items(&merged);
            let all: Vec<Json> = documents.iter().flat_map(items).collect();
            assert!(found.len() <= all.len(), "{list} has become more");
            let different = |items: &[Json]| items.iter().map(Json::to_string).collect::<BTreeSet<_>>().len();
            let is_list = format != SbomFormat::Spdx && merged[list].is_array();
            let is_merged = documents.len() == 1 || merged.get(list) != documents[0].get(list);
            assert!(!is_list || !is_merged || different(&found) == different(&all), "{list} lacks something");
        }
        said.push(format!("{}", roughly(merged.as_object().map_or(0, serde_json::Map::len))));
    }
    said.join(";")
}
