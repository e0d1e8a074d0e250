//! A scenario's trees, laid out in a temporary folder that becomes the root of the file system for its steps.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;
use walkdir::WalkDir;

use crate::layout::Layout;
use crate::scenario::{Operation, Scenario};
use crate::snapshot;

/// The user that owns the layers, the app and the image layouts, and that buildpacks run as.
pub const UID: u32 = 1000;
/// That user's group.
pub const GID: u32 = 1000;

/// The trees that a scenario may give; those that it does not give are empty folders.
pub const TREES: [&str; 7] =
    ["cnb", "layers", "workspace", "platform", "cache", "launch-cache", "layout-repo"];
/// These stay root's, as in a builder image.
const OF_ROOT: [&str; 2] = ["cnb", "platform"];

/// The staged trees; dropped, they are gone.
#[derive(Debug)]
pub struct Stage {
    root: TempDir,
}

impl Stage {
    /// Copies the scenario's trees, and the images that it names from `images`, then does its set-up.
    pub fn new(scenario: &Scenario, images: &Path) -> Result<Self> {
        let root =
            tempfile::Builder::new().prefix("drydock-stage-").tempdir().context("make a temporary folder")?;
        chmod(root.path(), 0o755)?;
        let stage = Self { root };
        for tree in TREES {
            let given = scenario.dir.join("in").join(tree);
            if given.exists() { copy(&given, &stage.path(tree))? } else { make_dir(&stage.path(tree))? }
        }
        make_dir(&stage.path("cnb/lifecycle"))?;
        for (layout, image) in &scenario.images {
            let to = stage.path("layout-repo").join(layout);
            make_dir(to.parent().context("a layout path has a parent")?)?;
            copy(&images.join(image), &to)?;
        }
        stage.own()?;
        stage.apply(&scenario.setup)?;
        stage.own()?;
        Ok(stage)
    }

    /// A stage with empty trees, set up like this.
    pub fn empty(setup: Vec<Operation>) -> Result<Self> {
        let nowhere = Scenario {
            dir: PathBuf::from("/nonexistent"),
            images: BTreeMap::new(),
            setup,
            steps: Vec::new(),
        };
        Self::new(&nowhere, Path::new(""))
    }

    /// The folder that becomes `/`.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where `path`, as the phases see it, is from outside.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    /// Changes the trees.
    pub fn apply(&self, operations: &[Operation]) -> Result<()> {
        operations
            .iter()
            .try_for_each(|operation| self.do_one(operation).with_context(|| format!("{operation:?}")))
    }

    fn do_one(&self, operation: &Operation) -> Result<()> {
        match operation {
            Operation::MakeDir(path) => make_dir(&self.path(path))?,
            Operation::Write(path, text) => self.write(path, text.as_bytes())?,
            Operation::Fill(path, length) => {
                let bytes: Vec<u8> = b"0123456789abcdef".iter().copied().cycle().take(*length).collect();
                self.write(path, &bytes)?;
            }
            Operation::ChangeMode(path, mode) => chmod(&self.path(path), *mode)?,
            Operation::Symlink(path, target) => {
                make_dir(self.path(path).parent().context("the path has a parent")?)?;
                symlink(target, self.path(path))?;
            }
            Operation::HardLink(path, existing) => fs::hard_link(self.path(existing), self.path(path))?,
            Operation::Fifo(path) => {
                mknodat(CWD, self.path(path), FileType::Fifo, Mode::from_raw_mode(0o644), 0)?;
                chmod(&self.path(path), 0o644)?;
            }
            Operation::Remove(path) => remove(&self.path(path))?,
            Operation::Empty(path) => {
                for entry in fs::read_dir(self.path(path))? {
                    remove(&entry?.path())?;
                }
            }
            Operation::RemoveLayer(layout, entry) => self.remove_layer(layout, entry)?,
        }
        Ok(())
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(path);
        make_dir(path.parent().context("the path has a parent")?)?;
        let new = !path.exists();
        fs::write(&path, bytes)?;
        if new { chmod(&path, 0o644) } else { Ok(()) }
    }

    fn remove_layer(&self, layout: &str, entry: &str) -> Result<()> {
        let layout = Layout::new(self.path("layout-repo").join(layout));
        let mut removed = 0;
        for image in layout.images()? {
            for descriptor in &image.layers {
                let Some(blob) = layout.blob(&descriptor.digest)? else { continue };
                if snapshot::layer(&blob)?.entries.iter().any(|e| e[0] == entry) {
                    fs::remove_file(layout.blob_path(&descriptor.digest))?;
                    removed += 1;
                }
            }
        }
        ensure!(removed > 0, "no layer has the entry {entry}");
        Ok(())
    }

    /// Gives all trees but root's own to the build user.
    fn own(&self) -> Result<()> {
        for tree in TREES.iter().filter(|tree| !OF_ROOT.contains(tree)) {
            for entry in WalkDir::new(self.path(tree)) {
                let entry = entry?;
                lchown(entry.path(), Some(UID), Some(GID))
                    .with_context(|| format!("give {} to user {UID}", entry.path().display()))?;
            }
        }
        Ok(())
    }
}

/// Copies a tree. Git keeps only the executable bit: files get mode 0755 or 0644, folders 0755.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in WalkDir::new(from) {
        let entry = entry.with_context(|| format!("read {}", from.display()))?;
        let relative = entry.path().strip_prefix(from).context("a walk stays under its start")?;
        let to = if relative.as_os_str().is_empty() { to.to_owned() } else { to.join(relative) };
        if entry.file_type().is_dir() {
            make_dir(&to)?;
        } else if entry.file_type().is_symlink() {
            symlink(fs::read_link(entry.path())?, &to)
                .with_context(|| format!("make the link {}", to.display()))?;
        } else {
            fs::copy(entry.path(), &to).with_context(|| format!("copy to {}", to.display()))?;
            let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
            chmod(&to, if executable { 0o755 } else { 0o644 })?;
        }
    }
    Ok(())
}

/// Makes a folder and its parents, those that are new with mode 0755 whatever the umask.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    fs::create_dir(path).with_context(|| format!("make {}", path.display()))?;
    chmod(path, 0o755)
}

/// Gives a file or folder this mode.
pub fn chmod(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("chmod {}", path.display()))
}

fn remove(path: &Path) -> Result<()> {
    let is_dir = fs::symlink_metadata(path).with_context(|| format!("find {}", path.display()))?.is_dir();
    if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) }
        .with_context(|| format!("remove {}", path.display()))
}
