//! Syft's own JSON. Specification: <https://github.com/anchore/syft/tree/main/schema/json>.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Subject, TOOL, TOOL_VERSION, sha256};
use crate::dependencies::{Component, Origin};

/// The version of the schema.
const SCHEMA: &str = "16.0.0";

/// The document.
pub fn document(subject: &Subject) -> Value {
    let dependencies = &subject.dependencies;
    let source = sha256(subject.identity().as_bytes());
    let components = || std::iter::once(&dependencies.root).chain(&dependencies.components);
    let ids: BTreeMap<String, String> = components().map(|one| (one.purl(), id(&one.purl()))).collect();
    let mut relationships: Vec<Value> =
        ids.values().map(|id| relationship(&source, "contains", id)).collect();
    for (who, whom) in &dependencies.needs {
        relationships.extend(whom.iter().map(|whom| relationship(&ids[whom], "dependency-of", &ids[who])));
    }
    json!({
        "artifacts": components().map(|one| artifact(one, subject.name)).collect::<Vec<_>>(),
        "artifactRelationships": relationships,
        "source": {
            "id": source,
            "name": subject.name,
            "version": dependencies.root.version,
            "type": "file",
            "metadata": {
                "path": subject.name,
                "digests": [{ "algorithm": "sha256", "value": subject.sha256 }],
                "mimeType": "application/x-executable",
            },
        },
        "distro": {},
        "descriptor": { "name": TOOL, "version": TOOL_VERSION },
        "schema": {
            "version": SCHEMA,
            "url": format!(
                "https://raw.githubusercontent.com/anchore/syft/main/schema/json/schema-{SCHEMA}.json"
            ),
        },
    })
}

fn artifact(component: &Component, file: &str) -> Value {
    let is_c = component.origin == Origin::Toolchain && component.name == "glibc";
    let mut value = json!({
        "id": id(&component.purl()),
        "name": component.name,
        "version": component.version,
        "type": if is_c { "binary" } else { "rust-crate" },
        "foundBy": TOOL,
        "locations": [{ "path": file, "accessPath": file }],
        "licenses": [{
            "value": component.licence,
            "spdxExpression": component.licence,
            "type": "declared",
            "urls": [],
            "locations": [],
        }],
        "language": if is_c { "" } else { "rust" },
        "cpes": [],
        "purl": component.purl(),
    });
    if let Origin::Registry { sha256 } = &component.origin {
        value["metadataType"] = "rust-cargo-lock-entry".into();
        value["metadata"] = json!({
            "name": component.name,
            "version": component.version,
            "source": "registry+https://github.com/rust-lang/crates.io-index",
            "checksum": sha256,
            "dependencies": [],
        });
    }
    value
}

fn relationship(parent: &str, kind: &str, child: &str) -> Value {
    json!({ "parent": parent, "child": child, "type": kind })
}

/// Identifiers are 16 hexadecimal digits.
fn id(purl: &str) -> String {
    sha256(purl.as_bytes())[..16].to_owned()
}
