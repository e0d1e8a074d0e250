//! A buildpack's layers after its build.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use drydock_spec::layer::{LayerToml, LayerTomlError, Types};

use crate::file::read_text_if_exists;
use crate::layers::is_other_folder;

/// A layer of which there is a `<layer>.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    /// Its name.
    pub(super) name: OsString,
    /// What it is for.
    pub(super) types: Types,
}

/// Reads every `<layer>.toml` in a buildpack's layers directory, in byte order of the files' names. The folder of a
/// layer that is for nothing is renamed to `<layer>.ignore`.
///
/// `launch.toml`, `build.toml` and `store.toml` count too, as layers that are for nothing.
pub(super) fn process(dir: &Path) -> anyhow::Result<Vec<Layer>> {
    let mut names = layer_names(dir).with_context(|| format!("read folder {}", dir.display()))?;
    names.sort_unstable_by_key(|name| with_ending(name, ".toml"));
    let layer = |name: OsString| {
        let path = dir.join(with_ending(&name, ".toml"));
        let types = read_types(&path).context("failed to decode layer metadata file")?;
        if types.is_none() {
            set_aside(&dir.join(&name)).context("failed to rename layer directory")?;
        }
        Ok(Layer { name, types })
    };
    names.into_iter().map(layer).collect()
}

fn layer_names(dir: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let file_name = entry.file_name();
        if let Some(name) = file_name.as_bytes().strip_suffix(b".toml")
            && !name.is_empty()
            && !entry.file_type()?.is_dir()
        {
            if is_other_folder(name) {
                let text =
                    format!("no layer can be called `{}`: rename it", OsStr::from_bytes(name).display());
                return Err(io::Error::new(ErrorKind::InvalidInput, text));
            }
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

fn with_ending(name: &OsStr, ending: &str) -> OsString {
    OsString::from_vec([name.as_bytes(), ending.as_bytes()].concat())
}

fn read_types(path: &Path) -> anyhow::Result<Types> {
    // None: a link that leads nowhere.
    let Some(text) = read_text_if_exists(path)? else { return Ok(Types::default()) };
    match LayerToml::parse(&text) {
        Ok(layer) => Ok(layer.types),
        Err(error @ LayerTomlError::FlagsOutsideTypes) => Err(anyhow!("{error} of {}", path.display())),
        Err(LayerTomlError::Toml(error)) => Err(error).with_context(|| format!("parse {}", path.display())),
    }
}

fn set_aside(dir: &Path) -> anyhow::Result<()> {
    let aside = PathBuf::from(with_ending(dir.as_os_str(), ".ignore"));
    match fs::rename(dir, &aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| {
            format!("rename {} to {}, which must not exist", dir.display(), aside.display())
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_for_nothing_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for name in ["a", "b", "c-1", "c", "none", "untold"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        for (name, text) in [
            ("a.toml", "[types]\nlaunch=true"),
            ("b.toml", "[types]\nbuild=true\ncache=true"),
            ("c.toml", "[types]\ncache=true"),
            ("c-1.toml", "[types]\ncache=true"),
            ("none.toml", "[types]\n[metadata]\nk='v'"),
            ("gone.toml", "[types]\n"),
            ("launch.toml", "[[processes]]\ntype='x'"),
            (".toml", "not TOML"),
            ("a.sbom.cdx.json", "{}"),
        ] {
            fs::write(dir.join(name), text).unwrap();
        }
        fs::create_dir(dir.join("dir.toml")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.join("link.toml")).unwrap();

        let layers = process(dir).unwrap();
        let layers: Vec<_> = layers
            .iter()
            .map(|Layer { name, types: Types { launch, build, cache } }| {
                let flags = [(launch, 'l'), (build, 'b'), (cache, 'c')];
                let flags: String = flags.iter().filter(|(set, _)| **set).map(|(_, c)| c).collect();
                format!("{}:{flags}", name.to_str().unwrap())
            })
            .collect();
        assert_eq!(layers, ["a:l", "b:bc", "c-1:c", "c:c", "gone:", "launch:", "link:", "none:"]);
        let folders: Vec<_> = names(dir).into_iter().filter(|name| dir.join(name).is_dir()).collect();
        assert_eq!(folders, ["a", "b", "c", "c-1", "dir.toml", "none.ignore", "untold"]);
    }

    #[test]
    fn an_earlier_builds_folder_is_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        fs::create_dir_all(dir.join("none")).unwrap();
        fs::create_dir_all(dir.join("none.ignore/x")).unwrap();
        fs::write(dir.join("none.toml"), "").unwrap();
        let error = format!("{:#}", process(dir).unwrap_err());
        assert!(error.contains("none.ignore, which must not exist"), "{error}");
    }

    #[test]
    fn a_layer_is_no_other_folder() {
        for name in [".", ".."] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(format!("{name}.toml")), "[types]\nlaunch = true").unwrap();
            let error = format!("{:#}", process(dir.path()).unwrap_err());
            assert!(error.contains(&format!("no layer can be called `{name}`: rename it")), "{error}");
        }
    }

    #[test]
    fn errors_name_the_file() {
        for (text, message) in [
            (&b"launch = true"[..], "the launch, cache and build flags should be in the types table of "),
            (b"[types]\nbuild = 'x'", "build = 'x'"),
            (b"[types", "parse "),
            (b"\xff", "read "),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("l.toml"), text).unwrap();
            let error = format!("{:#}", process(dir.path()).unwrap_err());
            assert!(error.contains(message) && error.contains("/l.toml"), "{error}");
        }
    }
}
