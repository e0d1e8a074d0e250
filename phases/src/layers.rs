//! What buildpacks left in the layers directory.
//!
//! Specification: `buildpack.md` § Layers.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use drydock_io::file::remove_stale;
use drydock_spec::analyzed::{BuildpackLayers, Layer, Store};
use drydock_spec::group::GroupElement;
use drydock_spec::layer::LayerToml;

use walkdir::WalkDir;

use crate::Log;
use crate::buildpacks::dir_name;
use crate::file::{is_dir, read_toml, read_toml_if_exists};

/// Files in a buildpack's folder that are no layer's.
const NOT_LAYERS: [&str; 3] = ["launch", "build", "store"];

/// Whether a layer can be called so: its folder and its TOML file lie in the buildpack's folder, and are no other's.
pub fn is_layer_name(name: &str) -> bool {
    const LONGEST: usize = 255 - ".toml".len();
    let is_toml = name.strip_suffix(".toml").is_some();
    let is_file_name = !name.is_empty() && !is_other_folder(name.as_bytes()) && !name.contains(['/', '\0']);
    is_file_name && name.len() <= LONGEST && !is_toml && !NOT_LAYERS.contains(&name)
}

/// Whether a layer of that name would be the buildpack's own folder, or that of all.
pub(crate) fn is_other_folder(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// Removes the temporary files that killed phases left where phases write: they would get into layers.
pub fn clear_up(layers_dir: &Path, log: &dyn Log) {
    // Below that is what buildpacks write, and SBOM files.
    let shallow = WalkDir::new(layers_dir).max_depth(1).into_iter();
    let sbom = WalkDir::new(layers_dir.join("sbom")).min_depth(1).max_depth(4).into_iter();
    let dirs = shallow.chain(sbom).flatten().filter(|entry| entry.file_type().is_dir());
    for dir in dirs {
        if let Err(error) = remove_stale(dir.path()) {
            log.warn(&format!("Temporary files may be left in `{}`: {error}", dir.path().display()));
        }
    }
}

/// Tells which layers an image or a cache has, to whoever asks why one does not come back.
pub fn tell_layers(whose: &str, buildpacks: &[BuildpackLayers], log: &dyn Log) {
    for BuildpackLayers { key, layers, .. } in buildpacks {
        for (name, layer) in layers {
            let Layer { sha, build, launch, cache, .. } = layer;
            let types = format!("build={build}, launch={launch}, cache={cache}");
            log.debug(&format!("{whose} has layer \"{key}:{name}\" ({types}): {sha}"));
        }
    }
}

/// A buildpack's folder.
#[derive(Debug)]
pub struct BuildpackDir {
    /// Where it is; it need not exist.
    pub path: PathBuf,
    /// Its layers by name.
    pub layers: BTreeMap<String, LayerDir>,
    /// What it wants to keep.
    pub store: Option<Store>,
    /// Layers whose TOML cannot be read, with the reason.
    pub malformed: Vec<(String, anyhow::Error)>,
}

/// A layer in a buildpack's folder.
#[derive(Debug)]
pub struct LayerDir {
    /// Its contents.
    pub path: PathBuf,
    /// What is said of it.
    pub toml: LayerToml,
    /// Whether it has contents: without, it stands for the layer of the last build.
    pub has_contents: bool,
}

/// Reads what the buildpack left. A file that is no layer's and cannot be read is an error.
pub fn read_buildpack_dir(layers_dir: &Path, buildpack: &GroupElement) -> anyhow::Result<BuildpackDir> {
    let path = layers_dir.join(dir_name(&buildpack.id)?);
    let mut layers = BTreeMap::new();
    let mut malformed = Vec::new();
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    for entry in entries.with_context(|| format!("failed to list `{}`", path.display()))? {
        let file_name = entry.file_name();
        let Some(name) = file_name.as_encoded_bytes().strip_suffix(b".toml") else { continue };
        let Ok(name) = str::from_utf8(name) else {
            let name = String::from_utf8_lossy(name).into_owned();
            malformed.push((
                name,
                anyhow::anyhow!("its name is not UTF-8, and no image can say it: rename the layer"),
            ));
            continue;
        };
        if name.is_empty() || NOT_LAYERS.contains(&name) {
            continue;
        }
        if is_other_folder(name.as_bytes()) {
            malformed.push((name.to_owned(), anyhow::anyhow!("no layer can be called `{name}`: rename it")));
            continue;
        }
        match read_toml(&entry.path()) {
            Ok(toml) => {
                let path = path.join(name);
                let has_contents = is_dir(&path)?;
                layers.insert(name.to_owned(), LayerDir { path, toml, has_contents });
            }
            Err(error) => malformed.push((name.to_owned(), error)),
        }
    }
    malformed.sort_by(|(a, _), (b, _)| a.cmp(b));
    let store = read_toml_if_exists(&path.join("store.toml"))?;
    Ok(BuildpackDir { path, layers, store, malformed })
}

impl BuildpackDir {
    /// The layers, unless one of them could not be read.
    pub fn all_layers(&self, buildpack: &GroupElement) -> anyhow::Result<&BTreeMap<String, LayerDir>> {
        if self.malformed.is_empty() {
            return Ok(&self.layers);
        }
        let names =
            self.malformed.iter().map(|(name, _)| format!("{}:{name}", buildpack.id)).collect::<Vec<_>>();
        let reasons = self.malformed.iter().map(|(_, error)| format!("{error:#}")).collect::<Vec<_>>();
        anyhow::bail!("failed to parse metadata for layers '[{}]': {}", names.join(" "), reasons.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    fn buildpack() -> GroupElement {
        GroupElement { id: "acme/a".into(), version: "1".into(), ..GroupElement::default() }
    }

    #[test]
    fn a_buildpack_without_a_folder_has_no_layers() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_buildpack_dir(dir.path(), &buildpack()).unwrap().layers.is_empty());
    }

    #[test]
    fn layers_are_told_from_other_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acme_a");
        fs::create_dir_all(path.join("two")).unwrap();
        for (name, text) in [
            ("one.toml", "[types]\nlaunch = true"),
            ("two.toml", ""),
            ("launch.toml", "labels = 3"),
            ("build.toml", ""),
            ("store.toml", "[metadata]\nk = 1"),
            ("notes.txt", "x"),
            (".toml", "[types]\nlaunch = true"),
        ] {
            fs::write(path.join(name), text).unwrap();
        }
        let read = read_buildpack_dir(dir.path(), &buildpack()).unwrap();
        assert_eq!(read.layers.keys().collect::<Vec<_>>(), ["one", "two"]);
        assert!(read.layers["one"].toml.types.launch && !read.layers["one"].has_contents);
        assert!(read.layers["two"].has_contents);
        assert!(!read.store.unwrap().metadata.unwrap().0.is_empty());
    }

    #[test]
    fn malformed_layers_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acme_a");
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("b.toml"), "[types]\nlaunch = 'yes'").unwrap();
        fs::write(path.join(OsStr::from_bytes(b"l\xff.toml")), "[types]\nlaunch = true").unwrap();
        fs::write(path.join("a.toml"), "= x").unwrap();
        fs::write(path.join("...toml"), "[types]\nlaunch = true").unwrap();
        let read = read_buildpack_dir(dir.path(), &buildpack()).unwrap();
        let message = read.all_layers(&buildpack()).unwrap_err().to_string();
        assert!(
            message.contains("'[acme/a:.. acme/a:a acme/a:b acme/a:l\u{fffd}]'")
                && message.contains("b.toml"),
            "{message}"
        );
    }
}
