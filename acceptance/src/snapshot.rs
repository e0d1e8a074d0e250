//! What a step left behind, as a value: the layers folder, the layouts that were written, the cache, what was printed.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::LazyLock;

use anyhow::{Context as _, Result, ensure};
use flate2::read::MultiGzDecoder;
use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use walkdir::{DirEntry, WalkDir};

use crate::layout::{Image, Layout};
use crate::run::Output;
use crate::scenario::Scenario;
use crate::stage::Stage;

/// One step's outcome.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The exit code.
    pub exit: i32,
    /// Lines without colour, times and temporary names.
    pub stdout: Vec<String>,
    /// Likewise.
    pub stderr: Vec<String>,
    /// All under `/layers`, by path: `dir`, a TOML file's value, another file's digest, a link's target.
    pub layers: Map<String, Value>,
    /// All layouts that were not given, by path: index annotations, configs, layers with their entries.
    pub layouts: Map<String, Value>,
    /// The cache's files, by path: a tar's diff ID, the metadata's value, another file's digest.
    pub cache: Map<String, Value>,
    /// What is wrong whatever the scenario expects.
    #[serde(skip)]
    pub faults: Vec<String>,
}

/// A part that is compared as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// [`Snapshot::layers`].
    Layers,
    /// [`Snapshot::layouts`].
    Layouts,
    /// [`Snapshot::cache`].
    Cache,
    /// [`Snapshot::stdout`].
    Stdout,
}

impl Part {
    /// What is compared when a step does not say.
    pub fn usual() -> Vec<Self> {
        vec![Self::Layers, Self::Layouts, Self::Cache]
    }

    /// The field's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Layers => "layers",
            Self::Layouts => "layouts",
            Self::Cache => "cache",
            Self::Stdout => "stdout",
        }
    }
}

/// A layer's or cache entry's content.
#[derive(Debug)]
pub struct Layer {
    /// The digest of the tar.
    pub diff_id: String,
    /// Name, kind, mode, uid, gid, modification time, and the content's digest or the link's target.
    pub entries: Vec<Value>,
}

/// Looks at the stage after `phase` ran there.
pub fn take(stage: &Stage, scenario: &Scenario, phase: &str, output: &Output) -> Result<Snapshot> {
    let repository = stage.path("layout-repo");
    let mut layouts = Map::new();
    let mut faults = Vec::new();
    let mut digests = Vec::new();
    for path in written_layouts(&repository, scenario)? {
        let layout = Layout::new(repository.join(&path));
        layouts.insert(path.clone(), describe_layout(&layout).with_context(|| format!("layout {path}"))?);
        faults.extend(layout.faults()?.into_iter().map(|fault| format!("{path}: {fault}")));
        digests.extend(layout.images()?.into_iter().map(|image| image.descriptor.digest));
    }
    let layers = describe_tree(&stage.path("layers"))?;
    if let Some(report) = layers.get("report.toml").filter(|report| report.is_object())
        && ["exporter", "creator"].contains(&phase)
        && output.exit == 0
    {
        let digest = &report["image"]["digest"];
        if !digests.iter().any(|known| digest == known) {
            faults.push(format!("report.toml: image.digest is {digest}, not a manifest in an index.json"));
        }
    }
    Ok(Snapshot {
        exit: output.exit,
        stdout: lines(&output.stdout),
        stderr: lines(&output.stderr),
        layers,
        layouts,
        cache: describe_cache(&stage.path("cache"))?,
        faults,
    })
}

/// The layouts under `repository` that the scenario did not give.
fn written_layouts(repository: &Path, scenario: &Scenario) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for (path, entry) in walk(repository)? {
        let Some(layout) = path.strip_suffix("/index.json") else { continue };
        if entry.file_type().is_file() && !scenario.images.contains_key(layout) && !path.contains("/blobs/") {
            paths.push(layout.to_owned());
        }
    }
    Ok(paths)
}

fn describe_layout(layout: &Layout) -> Result<Value> {
    let images: Result<Vec<Value>> =
        layout.images()?.iter().map(|image| describe_image(layout, image)).collect();
    Ok(json!({"oci-layout": layout.json::<Value>("oci-layout")?, "images": images?}))
}

fn describe_image(layout: &Layout, image: &Image) -> Result<Value> {
    let diff_ids = image.diff_ids()?;
    ensure!(
        diff_ids.len() == image.layers.len(),
        "{} layers, {} diff IDs",
        image.layers.len(),
        diff_ids.len()
    );
    let mut layers = Vec::new();
    for (descriptor, diff_id) in image.layers.iter().zip(diff_ids) {
        let media_type = oci_media_type(&descriptor.media_type);
        layers.push(match layout.blob(&descriptor.digest)? {
            None => json!({"mediaType": media_type, "diffID": diff_id, "blob": "absent"}),
            Some(blob) => {
                let found = layer(&blob)?;
                ensure!(found.diff_id == diff_id, "layer {}: diff ID {}", descriptor.digest, found.diff_id);
                json!({"mediaType": media_type, "diffID": diff_id, "entries": found.entries})
            }
        });
    }
    let mut config = image.config.clone();
    if let Some(Value::Object(labels)) = config.pointer_mut("/config/Labels") {
        for (name, value) in labels {
            let Value::String(text) = value else { continue };
            if text.starts_with(['{', '[']) {
                *value = serde_json::from_str(text).with_context(|| format!("label {name}"))?;
            }
            if name == "io.buildpacks.build.metadata" && value.get("launcher").is_some() {
                value["launcher"] = json!("<launcher>");
            }
        }
    }
    Ok(json!({"annotations": image.descriptor.annotations, "config": config, "layers": layers}))
}

/// Docker's layer media types are compared as the OCI ones that stand for the same.
fn oci_media_type(media_type: &str) -> &str {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar" => "application/vnd.oci.image.layer.v1.tar",
        other => other,
    }
}

/// Reads a tar, plain or in gzip.
pub fn layer(blob: &[u8]) -> Result<Layer> {
    let mut unpacked = Vec::new();
    let tar = if blob.starts_with(&[0x1f, 0x8b]) {
        MultiGzDecoder::new(blob).read_to_end(&mut unpacked).context("decompress a layer")?;
        &unpacked
    } else {
        blob
    };
    let mut entries = Vec::new();
    for entry in tar::Archive::new(tar).entries()? {
        entries.push(describe_entry(&mut entry?)?);
    }
    Ok(Layer { diff_id: crate::sha256(tar), entries })
}

fn describe_entry<R: std::io::Read>(entry: &mut tar::Entry<R>) -> Result<Value> {
    let header = entry.header();
    let (mode, kind) = (header.mode()?, header.entry_type());
    let (mut uid, mut gid, mut time) = (json!(header.uid()?), json!(header.gid()?), json!(header.mtime()?));
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        let field = match extension.key()? {
            "uid" => &mut uid,
            "gid" => &mut gid,
            "mtime" => &mut time,
            _ => continue,
        };
        *field = json!(extension.value()?.parse::<f64>()?);
    }
    let mut name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let target = entry.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
    let word = match kind.as_byte() {
        b'0' | 0 => "file".to_owned(),
        b'1' => "hardlink".to_owned(),
        b'2' => "symlink".to_owned(),
        b'5' => "dir".to_owned(),
        other => char::from(other).to_string(),
    };
    if word == "dir" {
        name.truncate(name.trim_end_matches('/').len());
    }
    if name.is_empty() {
        name.push('/');
    }
    let mut fields = vec![json!(name), json!(word), json!(format!("0o{mode:o}")), uid, gid, time];
    if word == "file" {
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        fields.push(json!(short(&content)));
    } else if let Some(target) = target.filter(|target| !target.is_empty()) {
        fields.push(json!(target));
    }
    Ok(Value::Array(fields))
}

/// The first 16 digits of the digest: enough to tell two contents apart.
fn short(content: &[u8]) -> String {
    crate::sha256(content)["sha256:".len()..][..16].to_owned()
}

fn describe_cache(root: &Path) -> Result<Map<String, Value>> {
    let mut files = Map::new();
    for (path, entry) in walk(root)? {
        if entry.path().is_dir() {
            continue;
        }
        let bytes = fs::read(entry.path()).with_context(|| format!("read {}", entry.path().display()))?;
        let value = if entry.path().extension().is_some_and(|extension| extension == "tar") {
            json!(layer(&bytes).with_context(|| format!("cache file {path}"))?.diff_id)
        } else if entry.file_name() == "io.buildpacks.lifecycle.cache.metadata" {
            serde_json::from_slice(&bytes).unwrap_or(json!("not JSON"))
        } else {
            json!(crate::sha256(&bytes)["sha256:".len()..])
        };
        files.insert(path, value);
    }
    Ok(files)
}

fn describe_tree(root: &Path) -> Result<Map<String, Value>> {
    let mut files = Map::new();
    for (path, entry) in walk(root)? {
        let kind = entry.file_type();
        let value = if kind.is_symlink() {
            json!(["symlink", fs::read_link(entry.path())?.to_string_lossy()])
        } else if kind.is_dir() {
            json!("dir")
        } else if !kind.is_file() {
            json!("special")
        } else {
            let bytes = fs::read(entry.path()).with_context(|| format!("read {}", entry.path().display()))?;
            if entry.path().extension().is_some_and(|extension| extension == "toml") {
                let text = String::from_utf8(bytes).with_context(|| format!("read {path}"))?;
                toml::from_str::<toml::Table>(&text)
                    .map_or_else(|_| json!(text), |table| from_toml(table.into()))
            } else {
                json!(format!("sha256:{}", short(&bytes)))
            }
        };
        files.insert(path, value);
    }
    Ok(files)
}

fn from_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => json!(text),
        toml::Value::Integer(number) => json!(number),
        toml::Value::Float(number) => json!(number),
        toml::Value::Boolean(truth) => json!(truth),
        toml::Value::Datetime(date) => json!(date.to_string()),
        toml::Value::Array(values) => values.into_iter().map(from_toml).collect(),
        toml::Value::Table(table) => table.into_iter().map(|(key, value)| (key, from_toml(value))).collect(),
    }
}

/// All under `root`, sorted, each with its path relative to it. Links are not followed.
fn walk(root: &Path) -> Result<Vec<(String, DirEntry)>> {
    let mut entries = Vec::new();
    for entry in WalkDir::new(root).min_depth(1).sort_by_file_name() {
        let entry = entry?;
        let path = entry.path().strip_prefix(root).context("a walk stays under its start")?;
        entries.push((path.to_string_lossy().into_owned(), entry));
    }
    Ok(entries)
}

/// What was printed, without what differs from run to run.
fn lines(printed: &[u8]) -> Vec<String> {
    static VOLATILE: LazyLock<[(Regex, &str); 5]> = LazyLock::new(|| {
        [
            (r"\x1b\[[0-9;]*m", ""),
            (r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", "<time>"),
            (r"ran for [0-9.hmµns]+ and", "ran for <duration> and"),
            (r"/tmp/[A-Za-z0-9_.\-]+", "<tmp>"),
            (r" on [0-9]+\.[0-9]+\.[0-9]+\.[0-9]+:53", ""),
        ]
        .map(|(pattern, with)| (Regex::new(pattern).expect("the patterns are fixed and right"), with))
    });
    let text = String::from_utf8_lossy(printed).into_owned();
    let text =
        VOLATILE.iter().fold(text, |text, (pattern, with)| pattern.replace_all(&text, *with).into_owned());
    text.split('\n').map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_lines_lose_what_differs() {
        for (printed, line) in [
            ("\u{1b}[31;1mred\u{1b}[0m  ", "red"),
            ("at 2024-01-02T03:04:05Z", "at <time>"),
            (
                "Timer: Builder ran for 1.5ms and ended at 2024-01-02T03:04:05Z",
                "Timer: Builder ran for <duration> and ended at <time>",
            ),
            ("in /tmp/plan.123-x/file", "in <tmp>/file"),
            ("plain", "plain"),
        ] {
            assert_eq!(lines(printed.as_bytes()), [line]);
        }
        assert_eq!(lines(b"a\nb\n"), ["a", "b", ""]);
    }

    #[test]
    fn tar_entries() {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o4755);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(9);
        header.set_size(2);
        archive.append_pax_extensions([("mtime", b"1.5".as_slice())]).unwrap();
        archive.append_data(&mut header, "a/file", b"hi".as_slice()).unwrap();
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Directory);
        archive.append_data(&mut header, "a/", [].as_slice()).unwrap();
        header.set_entry_type(tar::EntryType::Symlink);
        archive.append_link(&mut header, "a/link", "file").unwrap();
        let tar = archive.into_inner().unwrap();
        let found = layer(&tar).unwrap();
        assert_eq!(found.diff_id, crate::sha256(&tar));
        assert_eq!(
            Value::Array(found.entries),
            json!([
                ["a/file", "file", "0o4755", 7, 8, 1.5, "8f434346648f6b96"],
                ["a", "dir", "0o4755", 7, 8, 9],
                ["a/link", "symlink", "0o4755", 7, 8, 9, "file"]
            ])
        );
    }
}
