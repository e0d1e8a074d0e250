//! Software bills of materials. They depend on what they tell of and on nothing else: what the formats want to be unique
//! is a hash of the content.

pub mod cyclonedx;
pub mod spdx;
pub mod syft;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::dependencies::Dependencies;

/// What is told about an executable.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its file name.
    pub name: &'static str,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// What is in it.
    pub dependencies: Dependencies,
}

/// Tells of an executable in one format.
pub type Format = fn(&Subject) -> Value;

/// The formats by the ends of their files' names, in which the buildpack specification knows them.
pub const FORMATS: [(&str, Format); 3] =
    [("cdx", cyclonedx::document), ("spdx", spdx::document), ("syft", syft::document)];

impl Subject {
    /// A name for this very executable, that no other content has.
    fn identity(&self) -> String {
        format!("{}-{}-{}", self.name, self.dependencies.root.version, self.sha256)
    }
}

/// The SHA-256 of `bytes`, in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes whatever is written to it");
        text
    })
}

/// The name of the tool that says all this, as it is recorded.
const TOOL: &str = env!("CARGO_PKG_NAME");
/// Its version.
const TOOL_VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
pub(crate) mod sample {
    use std::collections::{BTreeMap, BTreeSet};

    use super::Subject;
    use crate::dependencies::{Component, Dependencies, Origin};

    /// An executable with a crate and a C library in it.
    pub(crate) fn subject() -> Subject {
        let component = |name: &str, version: &str, origin, licence: &str| Component {
            name: name.to_owned(),
            version: version.to_owned(),
            origin,
            licence: licence.to_owned(),
            repository: None,
        };
        let root = component("app", "0.1.0", Origin::Workspace, "Apache-2.0");
        let one = Origin::Registry { sha256: "1".repeat(64) };
        let one = component("one_x", "1.0.0+a", one, "MIT OR Apache-2.0");
        let one = Component { repository: Some("https://example.com/one".to_owned()), ..one };
        let libc = component("libc", "2.36", Origin::Toolchain, "LGPL-2.1-or-later");
        let needs = BTreeMap::from([
            (root.purl(), BTreeSet::from([one.purl(), libc.purl()])),
            (one.purl(), BTreeSet::new()),
            (libc.purl(), BTreeSet::new()),
        ]);
        let dependencies = Dependencies { root, components: vec![libc, one], needs };
        Subject { name: "lifecycle", sha256: "a".repeat(64), dependencies }
    }
}
