//! SPDX 2.3, as JSON. Specification: <https://spdx.github.io/spdx-spec/v2.3/>.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Subject, TOOL, TOOL_VERSION};
use crate::dependencies::{Component, Origin};

/// When the document says that it was made. It has to say some time, and the same content shall give the same document:
/// this is the time that builder tools give to all files.
const CREATED: &str = "1980-01-01T00:00:01Z";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";

/// The document.
pub fn document(subject: &Subject) -> Value {
    let dependencies = &subject.dependencies;
    let mut main = package(&dependencies.root, "APPLICATION");
    main["name"] = subject.name.into();
    main["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": subject.sha256 }]);
    let ids: BTreeMap<String, String> = std::iter::once(&dependencies.root)
        .chain(&dependencies.components)
        .map(|component| (component.purl(), id(component)))
        .collect();
    let mut relationships = vec![relationship(DOCUMENT, "DESCRIBES", &id(&dependencies.root))];
    for (who, whom) in &dependencies.needs {
        relationships.extend(whom.iter().map(|whom| relationship(&ids[who], "DEPENDS_ON", &ids[whom])));
    }
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": subject.name,
        "documentNamespace": format!("https://spdx.org/spdxdocs/{}", subject.identity()),
        "creationInfo": { "created": CREATED, "creators": [format!("Tool: {TOOL}-{TOOL_VERSION}")] },
        "packages": std::iter::once(main)
            .chain(dependencies.components.iter().map(|component| package(component, "LIBRARY")))
            .collect::<Vec<_>>(),
        "relationships": relationships,
    })
}

fn package(component: &Component, purpose: &str) -> Value {
    let repository = component.repository.as_ref();
    let mut value = json!({
        "SPDXID": id(component),
        "name": component.name,
        "versionInfo": component.version,
        "primaryPackagePurpose": purpose,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": component.licence,
        "copyrightText": "NOASSERTION",
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": component.purl(),
        }],
    });
    if let Origin::Registry { sha256 } = &component.origin {
        let Component { name, version, .. } = component;
        let location = format!("https://static.crates.io/crates/{name}/{name}-{version}.crate");
        value["downloadLocation"] = location.replace('+', "%2B").into();
        value["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": sha256 }]);
    }
    if let Some(repository) = repository {
        value["homepage"] = repository.as_str().into();
    }
    value
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

/// An identifier takes letters, digits, `.` and `-` only; crates.io lets no two names differ just in `-` and `_`.
fn id(component: &Component) -> String {
    let text = format!("SPDXRef-Package-{}-{}", component.name, component.version);
    text.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sbom::sample;

    #[test]
    fn the_document_says_it_all() {
        let got = document(&sample::subject());
        let purl = |locator: &str| json!([{ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": locator }]);
        let hash = |digit: &str| json!([{ "algorithm": "SHA256", "checksumValue": digit.repeat(64) }]);
        let (app, one, libc) =
            ("SPDXRef-Package-app-0.1.0", "SPDXRef-Package-one-x-1.0.0-a", "SPDXRef-Package-libc-2.36");
        let want = json!({
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": "lifecycle",
            "documentNamespace": format!("https://spdx.org/spdxdocs/lifecycle-0.1.0-{}", "a".repeat(64)),
            "creationInfo": {
                "created": "1980-01-01T00:00:01Z",
                "creators": [format!("Tool: drydock-package-{TOOL_VERSION}")],
            },
            "packages": [
                {
                    "SPDXID": app, "name": "lifecycle", "versionInfo": "0.1.0",
                    "primaryPackagePurpose": "APPLICATION", "downloadLocation": "NOASSERTION",
                    "filesAnalyzed": false, "licenseConcluded": "NOASSERTION", "licenseDeclared": "Apache-2.0",
                    "copyrightText": "NOASSERTION", "externalRefs": purl("pkg:generic/app@0.1.0"),
                    "checksums": hash("a"),
                },
                {
                    "SPDXID": libc, "name": "libc", "versionInfo": "2.36",
                    "primaryPackagePurpose": "LIBRARY", "downloadLocation": "NOASSERTION",
                    "filesAnalyzed": false, "licenseConcluded": "NOASSERTION",
                    "licenseDeclared": "LGPL-2.1-or-later", "copyrightText": "NOASSERTION",
                    "externalRefs": purl("pkg:generic/libc@2.36"),
                },
                {
                    "SPDXID": one, "name": "one_x", "versionInfo": "1.0.0+a",
                    "primaryPackagePurpose": "LIBRARY",
                    "downloadLocation": "https://static.crates.io/crates/one_x/one_x-1.0.0%2Ba.crate",
                    "filesAnalyzed": false, "licenseConcluded": "NOASSERTION",
                    "licenseDeclared": "MIT OR Apache-2.0", "copyrightText": "NOASSERTION",
                    "externalRefs": purl("pkg:cargo/one_x@1.0.0%2Ba"), "checksums": hash("1"),
                    "homepage": "https://example.com/one",
                },
            ],
            "relationships": [
                relationship("SPDXRef-DOCUMENT", "DESCRIBES", app),
                relationship(app, "DEPENDS_ON", one),
                relationship(app, "DEPENDS_ON", libc),
            ],
        });
        assert_eq!(got, want);
    }
}
