//! Layers that the exporter puts together itself: the launcher, and links for the process types.

use std::fs::File;
use std::path::{Path, PathBuf};

use drydock_io::sink::Sink;
use drydock_tar::{Kind, Owner, TarError, write_contents, write_end};

use super::{LayerSource, Outline, write_entry};

/// Where the launcher lies in an app image.
const LAUNCHER: &str = "/cnb/lifecycle/launcher";

/// The launcher: `/cnb`, `/cnb/lifecycle` and `/cnb/lifecycle/launcher`, all 0755 and root's.
#[derive(Debug, Clone)]
pub struct LauncherLayer {
    file: PathBuf,
}

impl LauncherLayer {
    /// With the contents of `file`.
    pub fn new(file: &Path) -> Self {
        Self { file: file.to_owned() }
    }
}

impl LayerSource for LauncherLayer {
    fn write(&self, out: &mut dyn Sink) -> Result<Option<Outline>, TarError> {
        let file = File::open(&self.file).map_err(TarError::read("open the launcher", &self.file))?;
        let metadata = file.metadata().map_err(TarError::read("look up the launcher", &self.file))?;
        if !metadata.is_file() {
            return Err(TarError::read("use as launcher", &self.file)(std::io::ErrorKind::IsADirectory));
        }
        let size = metadata.len();
        for (name, kind) in
            [("/cnb", Kind::Dir), ("/cnb/lifecycle", Kind::Dir), (LAUNCHER, Kind::File { size })]
        {
            write_own(name, kind, out)?;
        }
        write_contents(&file, size, out, &|| self.file.clone())?;
        write_end(out).map(|()| None).map_err(TarError::Write)
    }
}

/// A symlink to the launcher for each process type: `/cnb` and `/cnb/process`, then `/cnb/process/<type>`, all 0755
/// and root's.
#[derive(Debug, Clone)]
pub struct ProcessTypesLayer {
    types: Vec<String>,
}

impl ProcessTypesLayer {
    /// For these types, in this order.
    pub fn new(types: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { types: types.into_iter().map(Into::into).collect() }
    }
}

impl LayerSource for ProcessTypesLayer {
    fn write(&self, out: &mut dyn Sink) -> Result<Option<Outline>, TarError> {
        write_own("/cnb", Kind::Dir, out)?;
        write_own("/cnb/process", Kind::Dir, out)?;
        for process_type in &self.types {
            let name = format!("/cnb/process/{process_type}");
            write_own(&name, Kind::Symlink { target: LAUNCHER.as_bytes() }, out)?;
        }
        write_end(out).map(|()| None).map_err(TarError::Write)
    }
}

fn write_own(name: &str, kind: Kind<'_>, out: &mut dyn Sink) -> Result<(), TarError> {
    write_entry(name.as_bytes(), kind, 0o755, Owner::ROOT, out).map_err(TarError::Write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer_tar::testing::diff_id;

    // The diff IDs are those of the layers that the Go lifecycle made.

    #[test]
    fn launcher() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("launcher");
        std::fs::write(&file, "#!/bin/sh\necho launcher stand-in\n").unwrap();
        let expected = "sha256:07f7b413aa6453d03ddec914a6245873da2d9166b93305df9abddaac0b867149";
        assert_eq!(diff_id(&LauncherLayer::new(&file)), expected);
    }

    #[test]
    fn process_types() {
        let one = "sha256:83d85471d9f8a3834b4e27cf701e3f0aef220cc816d9c173c7d32cd73909a590";
        assert_eq!(diff_id(&ProcessTypesLayer::new(["web"])), one);
        let two = "sha256:000b7a5f073be626f8d25cbe5ba514af7a4c5eb45d43904fcc8663fb2d7bafee";
        assert_eq!(diff_id(&ProcessTypesLayer::new(["web", "worker.1"])), two);
    }

    #[test]
    fn launcher_must_be_a_file() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path(), &dir.path().join("missing")] {
            let result = LauncherLayer::new(path).write(&mut drydock_io::sink::MemorySink::default());
            assert!(matches!(result, Err(TarError::Read { .. })), "{}", path.display());
        }
    }
}
