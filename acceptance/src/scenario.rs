//! Scenarios as they are written down: `scenario.json` (what is done) and `expect.json` (what comes of it).
//!
//! A scenario is a folder with these two files and `in/`, whose sub-folders are the trees that the phases see at the
//! root of the file system: `cnb`, `layers`, `workspace`, `platform`, `cache`, `launch-cache`, `layout-repo`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::snapshot::{Part, Snapshot};

/// One folder of `acceptance/scenarios`.
#[derive(Debug)]
pub struct Scenario {
    /// The folder.
    pub dir: PathBuf,
    /// Layout paths under the layout repository, each with the name of the image that is copied there.
    pub images: BTreeMap<String, String>,
    /// Done once, after the trees are copied.
    pub setup: Vec<Operation>,
    /// The phases that run, one after the other, each with what is expected of it.
    pub steps: Vec<(Step, Snapshot)>,
}

/// One run of one executable, and which part of the outcome counts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The phase: also the executable's name, unless `program` names another path.
    pub phase: String,
    /// Absolute path of the executable.
    pub program: Option<String>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables over those of the scenario; null takes one away.
    #[serde(default)]
    pub env: BTreeMap<String, Option<String>>,
    /// Who runs it.
    pub user: User,
    /// Done just before.
    #[serde(default)]
    pub setup: Vec<Operation>,
    /// The parts that must equal what was recorded.
    #[serde(default = "Part::usual")]
    pub compare: Vec<Part>,
    /// The right exit code where the recorded one is wrong.
    pub exit: Option<i32>,
    /// Lines that must be printed, on either stream and in any order.
    #[serde(default)]
    pub log: Vec<String>,
    /// A piece of the snapshot that must be there, whatever stands beside it.
    pub expect: Option<Value>,
    /// Layouts that must hold one and the same image.
    pub same_image: Option<Vec<String>>,
    /// No layout may have been written.
    #[serde(default)]
    pub layouts_none: bool,
    /// Only of use while recording.
    #[serde(rename = "record_env")]
    _record_env: Option<Value>,
    /// Only of use while recording.
    #[serde(rename = "record_args")]
    _record_args: Option<Value>,
}

/// The user that a step runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum User {
    /// Uid and gid 0.
    Root,
    /// [`crate::stage::UID`] and [`crate::stage::GID`], without further groups.
    Cnb,
}

/// A change to the staged trees. Paths are absolute, as the phases see them.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<Value>")]
pub enum Operation {
    /// `["mkdir", path]`, with parents.
    MakeDir(String),
    /// `["write", path, text]`, with parents.
    Write(String, String),
    /// `["fill", path, byte count]`: a file of so many bytes.
    Fill(String, usize),
    /// `["chmod", path, octal mode]`.
    ChangeMode(String, u32),
    /// `["symlink", path, target]`, with parents.
    Symlink(String, String),
    /// `["hardlink", path, existing path]`.
    HardLink(String, String),
    /// `["fifo", path]`.
    Fifo(String),
    /// `["rm", path]`: a file, or a folder with all in it.
    Remove(String),
    /// `["empty", folder]`: all in it, not the folder.
    Empty(String),
    /// `["rm-layer", layout path, entry name]`: the blobs of the layers that hold an entry of this name.
    RemoveLayer(String, String),
}

impl TryFrom<Vec<Value>> for Operation {
    type Error = String;

    fn try_from(words: Vec<Value>) -> Result<Self, String> {
        use Value::{Number, String as Text};
        Ok(match words.as_slice() {
            [Text(name), Text(path)] => match name.as_str() {
                "mkdir" => Self::MakeDir(path.clone()),
                "fifo" => Self::Fifo(path.clone()),
                "rm" => Self::Remove(path.clone()),
                "empty" => Self::Empty(path.clone()),
                _ => return Err(format!("no such operation: {words:?}")),
            },
            [Text(name), Text(path), Text(other)] => match name.as_str() {
                "write" => Self::Write(path.clone(), other.clone()),
                "symlink" => Self::Symlink(path.clone(), other.clone()),
                "hardlink" => Self::HardLink(path.clone(), other.clone()),
                "rm-layer" => Self::RemoveLayer(path.clone(), other.clone()),
                "chmod" => match u32::from_str_radix(other, 8) {
                    Ok(mode) => Self::ChangeMode(path.clone(), mode),
                    Err(error) => return Err(format!("mode `{other}`: {error}")),
                },
                _ => return Err(format!("no such operation: {words:?}")),
            },
            [Text(name), Text(path), Number(length)] if name == "fill" => {
                let length = length.as_u64().and_then(|length| usize::try_from(length).ok());
                Self::Fill(path.clone(), length.ok_or_else(|| format!("not a length: {words:?}"))?)
            }
            _ => return Err(format!("no such operation: {words:?}")),
        })
    }
}

/// `scenario.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "about")]
    _about: String,
    env: BTreeMap<String, Option<String>>,
    images: BTreeMap<String, String>,
    setup: Vec<Operation>,
    steps: Vec<Step>,
}

impl Scenario {
    /// Reads the folder.
    pub fn load(dir: &Path) -> Result<Self> {
        let document: Document = parse(&dir.join("scenario.json"))?;
        let expected: Vec<Snapshot> = parse(&dir.join("expect.json"))?;
        ensure!(
            document.steps.len() == expected.len(),
            "{} has {} steps, expect.json {}",
            dir.display(),
            document.steps.len(),
            expected.len()
        );
        let mut steps = document.steps;
        for step in &mut steps {
            let over = std::mem::replace(&mut step.env, document.env.clone());
            step.env.extend(over);
        }
        let steps = steps.into_iter().zip(expected).collect();
        Ok(Self { dir: dir.to_owned(), images: document.images, setup: document.setup, steps })
    }
}

/// The names of all scenarios under `dir`, sorted.
pub fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let entry = entry.with_context(|| format!("read {}", dir.display()))?;
        match entry.file_name().into_string() {
            Ok(name) => names.push(name),
            Err(name) => bail!("{}: the name {} is not UTF-8", dir.display(), name.display()),
        }
    }
    names.sort();
    Ok(names)
}

fn parse<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn operation(words: Value) -> Result<Operation, serde_json::Error> {
        serde_json::from_value(words)
    }

    #[test]
    fn operations() {
        assert_eq!(
            operation(json!(["chmod", "/layers/a", "4755"])).unwrap(),
            Operation::ChangeMode("/layers/a".into(), 0o4755)
        );
        assert_eq!(
            operation(json!(["fill", "/layers/a", 3])).unwrap(),
            Operation::Fill("/layers/a".into(), 3)
        );
        assert_eq!(operation(json!(["rm", "/layers/a"])).unwrap(), Operation::Remove("/layers/a".into()));
        for wrong in [
            json!(["chmod", "/a", "9"]),
            json!(["fill", "/a", -1]),
            json!(["shred", "/a"]),
            json!(["rm", "/a", "/b"]),
            json!(["write", "/a"]),
            json!([]),
        ] {
            assert!(operation(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
