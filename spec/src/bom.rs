//! The old bill of materials, as buildpacks write it into `build.toml` and `launch.toml`.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::launch::BomEntry;
use crate::metadata::Metadata;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Written {
    name: String,
    version: String,
    metadata: Option<Metadata>,
}

/// Reads the entries, which do not say yet whose they are. A version belongs into an entry's metadata, not beside it.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<BomEntry>, D::Error> {
    let entry = |Written { name, version, metadata }| {
        if version.is_empty() {
            Ok(BomEntry { name, metadata, ..BomEntry::default() })
        } else {
            Err(D::Error::custom(format!(
                "bom entry '{name}' has a top level version which is not allowed. The buildpack should instead set \
                 metadata.version"
            )))
        }
    };
    Vec::<Written>::deserialize(from)?.into_iter().map(entry).collect()
}
