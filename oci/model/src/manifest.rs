//! Descriptors, manifests and indexes, with every field that these types do not know.
//!
//! Specification: OCI image-spec `descriptor.md`, `manifest.md`, `image-index.md`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value as Json};

use crate::digest::{Digest, is_foreign};
use crate::media;
use crate::platform::Platform;

/// The annotation that names an image inside a layout.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The digest, of whichever algorithm, that a manifest or an index refers to as its `subject`.
pub fn subject(manifest: &Json) -> Option<&str> {
    manifest.get("subject")?.get("digest")?.as_str()
}

/// Annotations by key.
pub type Annotations = BTreeMap<String, String>;

/// What a blob is, how large, and how it is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What is said of it.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
    /// What the image runs on, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Whatever else is said of it.
    #[serde(flatten)]
    pub rest: Map<String, Json>,
}

impl Descriptor {
    /// With nothing but what is required.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            annotations: Annotations::new(),
            platform: None,
            rest: Map::new(),
        }
    }

    /// Its OCI media type, whichever it has.
    pub fn oci_media_type(&self) -> &str {
        media::to_oci(&self.media_type)
    }

    /// The same with the OCI media type.
    #[must_use]
    pub fn into_oci(mut self) -> Self {
        self.media_type = media::to_oci(&self.media_type).to_owned();
        self
    }
}

/// An image's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u8,
    /// Which kind of manifest.
    #[serde(default)]
    pub media_type: String,
    /// The image's configuration.
    pub config: Descriptor,
    /// Its layers, lowest first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<Descriptor>,
    /// What is said of it.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
    /// Whatever else is said of it.
    #[serde(flatten)]
    pub rest: Map<String, Json>,
}

/// An index: `index.json`, or one nested in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u8,
    /// Which kind of index.
    #[serde(default)]
    pub media_type: String,
    /// Images, and other indexes.
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Members,
    /// What is said of it.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
    /// Whatever else is said of it.
    #[serde(flatten)]
    pub rest: Map<String, Json>,
}

/// What an index names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// What has a digest that is understood here.
    pub descriptors: Vec<Descriptor>,
    /// Descriptors with a digest of another algorithm, as they are. They are written after the others.
    pub foreign: Vec<Json>,
}

impl From<Vec<Descriptor>> for Members {
    fn from(descriptors: Vec<Descriptor>) -> Self {
        Self { descriptors, foreign: Vec::new() }
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.descriptors.len() + self.foreign.len()))?;
        self.descriptors.iter().try_for_each(|descriptor| list.serialize_element(descriptor))?;
        self.foreign.iter().try_for_each(|descriptor| list.serialize_element(descriptor))?;
        list.end()
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of descriptors")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Members, A::Error> {
        let mut members = Members::default();
        while let Some(member) = list.next_element::<Json>()? {
            if member.get("digest").and_then(Json::as_str).is_some_and(is_foreign) {
                members.foreign.push(member);
            } else {
                members.descriptors.push(Descriptor::deserialize(member).map_err(A::Error::custom)?);
            }
        }
        Ok(members)
    }
}

impl Index {
    /// Without any image.
    pub fn empty() -> Self {
        Self {
            schema_version: 2,
            media_type: media::INDEX.to_owned(),
            manifests: Members::default(),
            annotations: Annotations::new(),
            rest: Map::new(),
        }
    }
}

/// Other programs write `null` for a list or a table without members.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
