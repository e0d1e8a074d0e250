//! The SBOM files in an image, one by one or merged.
//!
//! Specification: `platform.md` § Software-Bill-of-Materials: a layer holds
//! `<layers>/sbom/launch/<buildpack>[/<layer>]/sbom.<format>.json`.

use std::collections::BTreeSet;
use std::io::Read as _;

use anyhow::{Context as _, Result, anyhow, bail};
use drydock_layout::Image;
use drydock_model::digest::DiffId;
use drydock_spec::sbom::SbomFormat;
use drydock_tar::Kind;
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use crate::built::Built;
use crate::layer::{self, refused, unreadable};
use crate::watch::Watch;

/// An SBOM file may have so many bytes: it is held, and parsed where it is merged.
pub const MAX_FILE: u64 = 64 << 20;

/// An image may have so many SBOM files.
pub const MAX_FILES: usize = 10_000;

/// A file.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SbomFile {
    /// Where it is in the image.
    pub path: String,
    /// `cyclonedx`, `spdx` or `syft`.
    pub format: &'static str,
    /// The buildpack that it is of, as the folder is called, and its layer, if it is one layer's.
    pub of: String,
    /// Bytes in it.
    pub size: u64,
    /// What is in it, if that was wanted.
    #[serde(skip)]
    pub text: Option<Vec<u8>>,
}

/// How users call a format.
pub fn format_name(format: SbomFormat) -> &'static str {
    match format {
        SbomFormat::CycloneDx => "cyclonedx",
        SbomFormat::Spdx => "spdx",
        SbomFormat::Syft => "syft",
    }
}

/// The SBOM files of an image, sorted by their paths; with what is in those that are wanted. None if there are none.
pub fn files(
    image: &Image,
    watch: &dyn Watch,
    is_wanted: &dyn Fn(&SbomFile) -> bool,
) -> Result<Vec<SbomFile>> {
    let (built, _) = Built::read(&image.config);
    let Some(sha) = built.layers.and_then(|layers| layers.sbom).map(|sbom| sbom.sha) else {
        return Ok(Vec::new());
    };
    let id: DiffId = sha.parse().context("the label io.buildpacks.lifecycle.metadata names no SBOM layer")?;
    let layer = image.layer(&id).ok_or_else(|| {
        anyhow!("{} has no layer {id}, which should hold its SBOM files", image.identifier())
    })?;
    let mut found = Vec::new();
    layer::entries(&layer, watch, &mut |_, mut member| {
        let Kind::File { size } = member.entry.kind else { return Ok(()) };
        let name = member.entry.name.to_vec();
        let path = String::from_utf8_lossy(&name).trim_start_matches('/').to_owned();
        let Some(format) = SbomFormat::ALL.into_iter().find(|format| path.ends_with(format.extension()))
        else {
            return Ok(());
        };
        if found.len() == MAX_FILES {
            return Err(refused(&layer, &name, "is one SBOM file too many"));
        }
        let mut file = SbomFile { of: of(&path), path, format: format_name(format), size, text: None };
        if is_wanted(&file) {
            if size > MAX_FILE {
                return Err(refused(&layer, &name, "is larger than 64 MiB"));
            }
            let mut text = Vec::new();
            member.contents.read_to_end(&mut text).map_err(unreadable(&layer))?;
            file.text = Some(text);
        }
        found.push(file);
        Ok(())
    })?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// `<buildpack>` or `<buildpack>:<layer>`.
fn of(path: &str) -> String {
    let below = path.split_once("sbom/launch/").map_or(path, |(_, below)| below);
    below.rsplit_once('/').map_or("", |(dir, _)| dir).replacen('/', ":", 1)
}

/// One document of several of the same format: what each lists, with what is said of documents as a whole taken from
/// the first. What several list is there once.
pub fn merge(format: SbomFormat, files: &[SbomFile]) -> Result<Json> {
    let mut documents = Vec::new();
    for file in files {
        let text = file.text.as_deref().unwrap_or_default();
        let json: Json =
            serde_json::from_slice(text).with_context(|| format!("`{}` is no JSON", file.path))?;
        let Json::Object(document) = json else { bail!("`{}` holds no JSON object", file.path) };
        documents.push((file.of.as_str(), document));
    }
    Ok(match format {
        SbomFormat::CycloneDx => {
            merge_lists(&documents, &["components", "services", "dependencies", "vulnerabilities"])
        }
        SbomFormat::Syft => merge_lists(&documents, &["artifacts", "artifactRelationships", "files"]),
        SbomFormat::Spdx => merge_spdx(documents),
    })
}

/// The first document, with these lists from all.
fn merge_lists(documents: &[(&str, Map<String, Json>)], lists: &[&str]) -> Json {
    let mut merged = documents.first().map(|(_, first)| first.clone()).unwrap_or_default();
    if documents.len() < 2 {
        return merged.into();
    }
    // It is a document of its own now.
    merged.remove("serialNumber");
    for list in lists {
        let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
        let mut is_there = false;
        for (_, document) in documents {
            let Some(Json::Array(items)) = document.get(*list) else { continue };
            is_there = true;
            all.extend(items.iter().filter(|item| seen.insert(item.to_string())).cloned());
        }
        if is_there {
            merged.insert((*list).to_owned(), all.into());
        }
    }
    Json::Object(merged)
}

/// Identifiers are a document's own in SPDX: each gets its document's number, but for that of the document itself.
fn merge_spdx(documents: Vec<(&str, Map<String, Json>)>) -> Json {
    const LISTS: [&str; 5] = ["packages", "files", "snippets", "relationships", "hasExtractedLicensingInfos"];
    if documents.len() < 2 {
        return documents.into_iter().next().map(|(_, document)| document).unwrap_or_default().into();
    }
    let names: Vec<&str> = documents.iter().map(|(of, _)| *of).collect();
    let name = names.join(", ");
    let mut merged = documents[0].1.clone();
    merged.insert("name".to_owned(), json!(name));
    for list in LISTS {
        merged.remove(list);
    }
    for (number, (_, document)) in documents.into_iter().enumerate() {
        for list in LISTS {
            let Some(Json::Array(items)) = document.get(list) else { continue };
            let into = merged.entry(list).or_insert_with(|| json!([]));
            if let Json::Array(into) = into {
                into.extend(items.iter().map(|item| with_number(item, number)));
            }
        }
        if let Some(Json::Array(described)) = document.get("documentDescribes") {
            let described = described.iter().map(|id| with_number(id, number)).collect::<Vec<_>>();
            match merged.get_mut("documentDescribes") {
                Some(Json::Array(all)) if number > 0 => all.extend(described),
                _ => drop(merged.insert("documentDescribes".to_owned(), described.into())),
            }
        }
    }
    Json::Object(merged)
}

fn with_number(json: &Json, number: usize) -> Json {
    match json {
        Json::String(text) if text != "SPDXRef-DOCUMENT" => {
            for prefix in ["SPDXRef-", "LicenseRef-"] {
                if let Some(rest) = text.strip_prefix(prefix) {
                    return json!(format!("{prefix}{number}-{rest}"));
                }
            }
            json.clone()
        }
        Json::Array(items) => items.iter().map(|item| with_number(item, number)).collect(),
        Json::Object(fields) => {
            fields.iter().map(|(key, value)| (key.clone(), with_number(value, number))).collect()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(of: &str, json: &Json) -> SbomFile {
        let text = Some(json.to_string().into_bytes());
        SbomFile { path: of.to_owned(), format: "", of: of.to_owned(), size: 0, text }
    }

    #[test]
    fn lists_are_merged_without_what_is_there_twice() {
        let a = json!({"bomFormat": "CycloneDX", "serialNumber": "urn:1", "components": [{"name": "x"}, {"name": "y"}]});
        let b =
            json!({"bomFormat": "CycloneDX", "components": [{"name": "y"}, {"name": "z"}], "services": []});
        let merged = merge(SbomFormat::CycloneDx, &[file("a", &a), file("b", &b)]).unwrap();
        let want = json!({"bomFormat": "CycloneDX", "services": [],
            "components": [{"name": "x"}, {"name": "y"}, {"name": "z"}]});
        assert_eq!(merged, want);
        assert_eq!(merge(SbomFormat::CycloneDx, &[file("a", &a)]).unwrap(), a, "one stays as it is");
        let twice = json!({"components": [{"name": "x"}, {"name": "x"}]});
        assert_eq!(merge(SbomFormat::CycloneDx, &[file("a", &twice)]).unwrap(), twice, "that one, too");
    }

    #[test]
    fn identifiers_of_spdx_stay_apart() {
        let document = |name: &str| {
            json!({"SPDXID": "SPDXRef-DOCUMENT", "name": name,
            "packages": [{"SPDXID": "SPDXRef-p", "licenseConcluded": "LicenseRef-x"}],
            "relationships": [{"spdxElementId": "SPDXRef-DOCUMENT", "relatedSpdxElement": "SPDXRef-p"}]})
        };
        let files = [file("a", &document("a")), file("b", &document("b"))];
        let merged = merge(SbomFormat::Spdx, &files).unwrap();
        assert_eq!(merged["SPDXID"], "SPDXRef-DOCUMENT");
        let ids: Vec<_> = merged["packages"].as_array().unwrap().iter().map(|p| &p["SPDXID"]).collect();
        assert_eq!(ids, ["SPDXRef-0-p", "SPDXRef-1-p"]);
        assert_eq!(merged["relationships"][1]["relatedSpdxElement"], "SPDXRef-1-p");
        assert!(merge(SbomFormat::Spdx, &[file("a", &json!([]))]).is_err());
    }

    #[test]
    fn paths_tell_whose_a_file_is() {
        for (path, want) in [
            ("layers/sbom/launch/acme_a/lib/sbom.cdx.json", "acme_a:lib"),
            ("layers/sbom/launch/acme_a/sbom.cdx.json", "acme_a"),
            ("layers/sbom/launch/sbom.legacy.json", ""),
        ] {
            assert_eq!(of(path), want);
        }
    }
}
