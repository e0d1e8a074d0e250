//! The files through which phases talk to each other.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use drydock_io::file::{TempFile, open_there};
use drydock_io::read;
use drydock_spec::toml_text;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits;

/// A system call that failed on a path, in the words that platforms look for: `open /a: no such file or directory`.
#[derive(Debug)]
pub struct PathError {
    /// The name of the call.
    pub call: &'static str,
    /// What it was given.
    pub path: PathBuf,
    /// Why it failed. Its text is in this error's.
    pub error: io::Error,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.call, self.path.display(), plain(&self.error))
    }
}

impl std::error::Error for PathError {}

impl PathError {
    fn is_missing(&self) -> bool {
        matches!(self.error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
    }
}

/// Names the call and the path in an error of theirs.
pub fn failed(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PathError {
    move |error| PathError { call, path: path.to_owned(), error }
}

/// The text of an I/O error in lower case and without the number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or(&text);
    let mut rest = text.chars();
    rest.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(rest).collect()
}

/// Whether anything lies at a path.
pub fn exists(path: &Path) -> Result<bool, PathError> {
    read::look(path).map(|found| found.is_some()).map_err(failed("stat", path))
}

/// Whether a folder lies at a path.
pub fn is_dir(path: &Path) -> Result<bool, PathError> {
    let found = read::look(path).map_err(failed("stat", path))?;
    Ok(found.is_some_and(|found| found.is_dir()))
}

/// Reads a file of at most `limit` bytes.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, PathError> {
    let file = read::open(path).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput if path.is_dir() => failed("read", path)(ErrorKind::IsADirectory.into()),
        _ => failed("open", path)(error),
    })?;
    read::read_all(file, limit).map_err(failed("read", path))
}

/// Reads a text file of at most [`limits::DOCUMENT`] bytes.
pub fn read_text(path: &Path) -> Result<String, PathError> {
    String::from_utf8(read(path, limits::DOCUMENT)?)
        .map_err(|error| failed("read", path)(io::Error::new(ErrorKind::InvalidData, error.utf8_error())))
}

/// Reads a text file of at most [`limits::DOCUMENT`] bytes that need not be there.
pub fn read_text_if_exists(path: &Path) -> Result<Option<String>, PathError> {
    match read_text(path) {
        Err(error) if error.is_missing() => Ok(None),
        text => text.map(Some),
    }
}

/// Reads a TOML file of at most [`limits::DOCUMENT`] bytes.
pub fn read_toml<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    parse(&read_text(path)?, path)
}

/// Reads a TOML file of at most [`limits::DOCUMENT`] bytes that need not be there.
pub fn read_toml_if_exists<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    read_text_if_exists(path)?.map(|text| parse(&text, path)).transpose()
}

fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> anyhow::Result<T> {
    toml_text::from_str(text).with_context(|| format!("failed to parse `{}`", path.display()))
}

/// Fails if there is no folder with an app: programs that begin in it would seem to be missing themselves.
pub(crate) fn check_app_dir(path: &Path) -> anyhow::Result<()> {
    let found = fs::metadata(path).map_err(failed("open", path));
    let found = found.and_then(|found| {
        if found.is_dir() { Ok(()) } else { Err(failed("open", path)(ErrorKind::NotADirectory.into())) }
    });
    found.map_err(|error| anyhow!("{error} (the app's folder, which `-app` or `CNB_APP_DIR` names)"))
}

/// Writes a TOML file as [`write`] does.
pub fn write_toml(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    stage_toml(path, value)?.publish()
}

/// A file that has everything but its name, or what is to be written to something that is there.
#[derive(Debug)]
pub struct Staged {
    to: To,
    path: PathBuf,
}

#[derive(Debug)]
enum To {
    File(TempFile),
    There(File, Vec<u8>),
}

impl Staged {
    fn new(path: &Path, bytes: &[u8]) -> anyhow::Result<Self> {
        let stage = || -> io::Result<To> {
            let dir = path.parent().unwrap_or(Path::new("/"));
            drydock_io::file::make_dirs(dir)?;
            if path.is_dir() {
                return Err(ErrorKind::IsADirectory.into());
            }
            if let Some(there) = open_there(path)? {
                return Ok(To::There(there, bytes.to_owned()));
            }
            let mut file = TempFile::create_in(dir)?;
            file.file().write_all(bytes)?;
            Ok(To::File(file))
        };
        let to = stage().with_context(|| format!("failed to write `{}`", path.display()))?;
        Ok(Self { to, path: path.to_owned() })
    }

    /// Gives it its name.
    pub fn publish(self) -> anyhow::Result<()> {
        let Self { to, path } = self;
        let written = match to {
            To::File(file) => file.persist(&path),
            To::There(mut there, bytes) => there.write_all(&bytes),
        };
        written.with_context(|| format!("failed to write `{}`", path.display()))
    }
}

/// Writes a TOML file beside its place, and makes its folder if need be: what can fail has not failed then.
pub fn stage_toml(path: &Path, value: &impl Serialize) -> anyhow::Result<Staged> {
    let text = toml::to_string(value).with_context(|| format!("failed to encode `{}`", path.display()))?;
    Staged::new(path, text.as_bytes())
}

/// Writes a file in one step, and makes its folder if need be. A device or a pipe that is there is written to.
pub fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    Staged::new(path, bytes)?.publish()
}

/// Copies a regular file of at most `limit` bytes in one step, and makes the folder of the copy if need be.
pub fn copy(from: &Path, to: &Path, limit: u64) -> anyhow::Result<()> {
    let copy = || -> io::Result<()> {
        let too_large = || io::Error::new(ErrorKind::FileTooLarge, format!("more than {limit} bytes"));
        let source = read::open(from)?;
        if source.metadata()?.len() > limit {
            return Err(too_large());
        }
        let dir = to.parent().unwrap_or(Path::new("."));
        drydock_io::file::make_dirs(dir)?;
        let mut copy = TempFile::create_in(dir)?;
        // It may grow meanwhile.
        if io::copy(&mut source.take(limit.saturating_add(1)), copy.file())? > limit {
            return Err(too_large());
        }
        copy.persist(to)
    };
    copy().with_context(|| format!("failed to copy `{}` to `{}`", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn errors_name_the_file_and_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("group.toml");
        let shown = path.display();
        let told = || format!("{:#}", read_toml::<toml::Table>(&path).unwrap_err());
        assert_eq!(told(), format!("open {shown}: no such file or directory"));
        assert!(read_toml_if_exists::<toml::Table>(&path).unwrap().is_none());
        assert!(read_toml_if_exists::<toml::Table>(&path.join("below")).unwrap().is_none());
        for (bytes, want) in [
            (&b"= no"[..], format!("failed to parse `{shown}`: toml: line 1, column 1: ")),
            (b"\xff", format!("read {shown}: invalid utf-8 ")),
        ] {
            fs::write(&path, bytes).unwrap();
            assert!(told().starts_with(&want), "{}", told());
            assert!(read_toml_if_exists::<toml::Table>(&path).is_err());
        }
        let below = read_text(&path.join("below")).unwrap_err().to_string();
        assert_eq!(below, format!("open {shown}/below: not a directory"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(told(), format!("read {shown}: is a directory"));
    }

    #[test]
    fn only_files_within_the_limits() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        mkfifoat(CWD, path("fifo"), Mode::RWXU).unwrap();
        fs::File::create(path("large")).unwrap().set_len(limits::DOCUMENT + 1).unwrap();
        for (name, why) in [
            ("fifo", "not a regular file"),
            ("/dev/zero", "not a regular file"),
            ("large", "more than 4194304"),
        ] {
            let path = path(name);
            for error in [
                read_toml::<toml::Table>(&path).unwrap_err(),
                read_toml_if_exists::<toml::Table>(&path).unwrap_err(),
                copy(&path, &dir.path().join("copy"), limits::DOCUMENT).unwrap_err(),
            ] {
                let text = format!("{error:#}");
                assert!(text.contains(name) && text.contains(why), "{text}");
            }
        }
        copy(&path("large"), &path("a/copy"), limits::DOCUMENT + 1).unwrap();
        assert_eq!(fs::metadata(path("a/copy")).unwrap().len(), limits::DOCUMENT + 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "a copy that failed is left");
    }

    #[test]
    fn depth_has_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep.toml");
        let depth = 20_000;
        for text in [
            format!("a = {}{}", "[".repeat(depth), "]".repeat(depth)),
            format!("a = {}1{}", "{a = ".repeat(depth), "}".repeat(depth)),
            format!("[{}a]", "a.".repeat(depth)),
            format!("[[{}a]]", "a.".repeat(depth)),
            format!("{}a = 1", "a.".repeat(depth)),
        ] {
            fs::write(&path, text).unwrap();
            assert!(format!("{:#}", read_toml::<toml::Table>(&path).unwrap_err()).contains("deep.toml"));
        }
    }

    #[test]
    fn devices_and_pipes_stay_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        mkfifoat(CWD, path("fifo"), Mode::RWXU).unwrap();
        for (link, to) in [("null", "/dev/null"), ("stdout", "/proc/self/fd/1"), ("to-fifo", "fifo")] {
            std::os::unix::fs::symlink(to, path(link)).unwrap();
        }
        let error = format!("{:#}", write(&path("fifo"), b"x").unwrap_err());
        assert!(error.contains("fifo") && error.contains("nobody reads"), "{error}");
        // Nobody is waited for: it is both ends.
        let both = fs::File::options().read(true).write(true).open(path("fifo")).unwrap();
        for name in ["fifo", "to-fifo", "null"] {
            write_toml(&path(name), &toml::Table::from_iter([("k".to_owned(), toml::Value::from(1))]))
                .unwrap();
        }
        let mut read = [0; 12];
        (&both).read_exact(&mut read).unwrap();
        assert_eq!(&read, b"k = 1\nk = 1\n");
        write(&path("stdout"), b"").unwrap();
        for name in ["null", "stdout", "to-fifo"] {
            assert!(path(name).is_symlink(), "{name}");
        }
        assert!(!fs::metadata(path("fifo")).unwrap().is_file());
        if rustix::process::geteuid().is_root() {
            // Somebody else would choose the device.
            std::os::unix::fs::lchown(path("null"), Some(1234), None).unwrap();
            write(&path("null"), b"").unwrap();
            assert!(!path("null").is_symlink());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn folders_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/report.toml");
        write_toml(&path, &toml::Table::from_iter([("k".to_owned(), toml::Value::from(1))])).unwrap();
        assert_eq!(read_toml::<toml::Table>(&path).unwrap()["k"].as_integer(), Some(1));
    }
}
