//! CycloneDX 1.6, as JSON. Specification: <https://cyclonedx.org/docs/1.6/json/>.

use serde_json::{Value, json};

use super::{Subject, TOOL, TOOL_VERSION, sha256};
use crate::dependencies::{Component, Origin};

/// The document.
pub fn document(subject: &Subject) -> Value {
    let dependencies = &subject.dependencies;
    let mut main = component(&dependencies.root, "application");
    main["name"] = subject.name.into();
    main["hashes"] = json!([{ "alg": "SHA-256", "content": subject.sha256 }]);
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial_number(&subject.identity()),
        "version": 1,
        "metadata": {
            "tools": { "components": [{ "type": "application", "name": TOOL, "version": TOOL_VERSION }] },
            "component": main,
        },
        "components": dependencies.components.iter().map(|one| component(one, "library")).collect::<Vec<_>>(),
        "dependencies": dependencies
            .needs
            .iter()
            .map(|(who, whom)| json!({ "ref": who, "dependsOn": whom }))
            .collect::<Vec<_>>(),
    })
}

fn component(component: &Component, kind: &str) -> Value {
    let mut value = json!({
        "type": kind,
        "bom-ref": component.purl(),
        "name": component.name,
        "version": component.version,
        "licenses": [{ "expression": component.licence }],
        "purl": component.purl(),
    });
    if let Origin::Registry { sha256 } = &component.origin {
        value["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
    }
    if let Some(repository) = &component.repository {
        value["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    value
}

/// A UUID of version 8 (RFC 9562), whose bits are a hash of the content.
fn serial_number(identity: &str) -> String {
    let hash = sha256(identity.as_bytes());
    format!(
        "urn:uuid:{}-{}-8{}-8{}-{}",
        &hash[..8],
        &hash[8..12],
        &hash[13..16],
        &hash[17..20],
        &hash[20..32]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sbom::sample;

    #[test]
    fn the_document_says_it_all() {
        let mut got = document(&sample::subject());
        let serial_number = got["serialNumber"].take();
        let want = json!({
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": null,
            "version": 1,
            "metadata": {
                "tools": { "components": [
                    { "type": "application", "name": "drydock-package", "version": TOOL_VERSION },
                ] },
                "component": {
                    "type": "application", "bom-ref": "pkg:generic/app@0.1.0", "name": "lifecycle",
                    "version": "0.1.0", "licenses": [{ "expression": "Apache-2.0" }],
                    "purl": "pkg:generic/app@0.1.0",
                    "hashes": [{ "alg": "SHA-256", "content": "a".repeat(64) }],
                },
            },
            "components": [
                {
                    "type": "library", "bom-ref": "pkg:generic/libc@2.36", "name": "libc", "version": "2.36",
                    "licenses": [{ "expression": "LGPL-2.1-or-later" }], "purl": "pkg:generic/libc@2.36",
                },
                {
                    "type": "library", "bom-ref": "pkg:cargo/one_x@1.0.0%2Ba", "name": "one_x",
                    "version": "1.0.0+a", "licenses": [{ "expression": "MIT OR Apache-2.0" }],
                    "purl": "pkg:cargo/one_x@1.0.0%2Ba",
                    "hashes": [{ "alg": "SHA-256", "content": "1".repeat(64) }],
                    "externalReferences": [{ "type": "vcs", "url": "https://example.com/one" }],
                },
            ],
            "dependencies": [
                { "ref": "pkg:cargo/one_x@1.0.0%2Ba", "dependsOn": [] },
                {
                    "ref": "pkg:generic/app@0.1.0",
                    "dependsOn": ["pkg:cargo/one_x@1.0.0%2Ba", "pkg:generic/libc@2.36"],
                },
                { "ref": "pkg:generic/libc@2.36", "dependsOn": [] },
            ],
        });
        assert_eq!(got, want);
        let serial_number = serial_number.as_str().unwrap().strip_prefix("urn:uuid:").unwrap();
        let lengths: Vec<usize> = serial_number.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
    }

    #[test]
    fn serial_numbers_depend_on_the_content() {
        assert_eq!(serial_number("a"), serial_number("a"));
        assert_ne!(serial_number("a"), serial_number("b"));
    }
}
