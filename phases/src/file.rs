//! The files through which phases talk to each other.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, bail};
use drydock_io::file::write_atomically;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads a TOML file.
pub fn read_toml<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("failed to read `{}`", path.display()))?;
    toml::from_str(&text).with_context(|| format!("failed to parse `{}`", path.display()))
}

/// Reads a TOML file that need not be there.
pub fn read_toml_if_exists<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    match fs::metadata(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        _ => read_toml(path).map(Some),
    }
}

/// Fails if there is no folder with an app: programs that begin in it would seem to be missing themselves.
pub(crate) fn check_app_dir(path: &Path) -> anyhow::Result<()> {
    let reason = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "not a directory".to_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => "no such file or directory".to_owned(),
        Err(error) => error.to_string(),
    };
    bail!("open {}: {reason} (the app's folder, which `-app` or `CNB_APP_DIR` names)", path.display())
}

/// Writes a TOML file in one step, and makes its folder if need be.
pub fn write_toml(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let text = toml::to_string(value).with_context(|| format!("failed to encode `{}`", path.display()))?;
    write(path, text.as_bytes())
}

/// Writes a file in one step, and makes its folder if need be.
pub fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("failed to make folder `{}`", dir.display()))?;
    }
    write_atomically(path, bytes).with_context(|| format!("failed to write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("group.toml");
        let read = || read_toml::<toml::Table>(&path);
        assert!(format!("{:#}", read().unwrap_err()).contains("group.toml"));
        assert!(read_toml_if_exists::<toml::Table>(&path).unwrap().is_none());
        for bytes in [&b"= no"[..], &b"\xff"[..]] {
            fs::write(&path, bytes).unwrap();
            assert!(format!("{:#}", read().unwrap_err()).contains("group.toml"));
            assert!(read_toml_if_exists::<toml::Table>(&path).is_err());
        }
    }

    #[test]
    fn folders_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/report.toml");
        write_toml(&path, &toml::Table::from_iter([("k".to_owned(), toml::Value::from(1))])).unwrap();
        assert_eq!(read_toml::<toml::Table>(&path).unwrap()["k"].as_integer(), Some(1));
    }
}
