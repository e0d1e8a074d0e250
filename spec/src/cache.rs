//! What a cache says of its layers: the file `io.buildpacks.lifecycle.cache.metadata`, or the label of that name.

use crate::analyzed::BuildpackLayers;
use crate::json::{self, JsonError};
use crate::label::{JsonBuildpackLayers, JsonSha};
use crate::metadata::NotJson;

/// The file's and the label's name.
pub const METADATA_NAME: &str = "io.buildpacks.lifecycle.cache.metadata";

/// The folder in a layers directory where a platform may leave what it has kept of cached layers, for the restorer: each is a folder that is called by
/// its diff ID, without the algorithm. Of our own; no specification has it.
pub const KEPT_LAYERS: &str = ".kept";

/// A cache's content.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CacheMetadata {
    /// The layer of SBOM files by its diff ID; empty if there is none.
    pub sbom: String,
    /// The buildpacks' layers.
    pub buildpacks: Vec<BuildpackLayers>,
}

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
struct JsonCacheMetadata {
    sbom: JsonSha,
    buildpacks: Option<Vec<JsonBuildpackLayers>>,
}

impl CacheMetadata {
    /// From the JSON text.
    pub fn from_json(text: &str) -> Result<Self, JsonError> {
        let json: JsonCacheMetadata = json::from_str(text)?;
        Ok(Self {
            sbom: json.sbom.sha,
            buildpacks: json.buildpacks.unwrap_or_default().into_iter().map(Into::into).collect(),
        })
    }

    /// As JSON text.
    pub fn to_json(&self) -> Result<String, NotJson> {
        let buildpacks =
            self.buildpacks.iter().map(JsonBuildpackLayers::try_from).collect::<Result<_, _>>()?;
        let json =
            JsonCacheMetadata { sbom: JsonSha { sha: self.sbom.clone() }, buildpacks: Some(buildpacks) };
        Ok(json::to_string(&json).expect("strings, booleans and JSON values make JSON"))
    }

    /// The layers of the buildpack of this ID, whatever its version.
    pub fn buildpack(&self, id: &str) -> Option<&BuildpackLayers> {
        self.buildpacks.iter().find(|buildpack| buildpack.key == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_what_others_wrote() {
        let text = r#"{"sbom":{"sha":"s"},"buildpacks":[{"key":"a/b","version":"1","layers":{"l":{"sha":"x","data":{"n":1.5},"build":true,"launch":false,"cache":true}}}]}"#;
        let cache = CacheMetadata::from_json(text).unwrap();
        assert!(cache.buildpack("a/b").unwrap().layers["l"].cache);
        assert_eq!(cache.to_json().unwrap(), text);
        assert_eq!(
            CacheMetadata::from_json(r#"{"sbom":{"sha":""},"buildpacks":null}"#).unwrap(),
            CacheMetadata::default()
        );
        assert!(CacheMetadata::from_json("nonsense").is_err());
    }
}
