//! Other people's tools, as judges of the layouts that are written here.
//!
//! All of them take layouts by path and name, `oci:PATH:NAME`, and each refuses some paths (with a colon, or with capital
//! letters): they are given a link in the folder that they are started in.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::layout::Layout;
use crate::tree::{self, Tree};

/// A program, and the Debian package that it comes in.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// The program's name.
    pub name: &'static str,
    /// The package.
    pub package: &'static str,
}

/// Copies images between forms of storage.
pub const SKOPEO: Tool = Tool { name: "skopeo", package: "skopeo" };
/// Unpacks images, strictly by the OCI specification.
pub const UMOCI: Tool = Tool { name: "umoci", package: "umoci" };
/// Builds upon images.
pub const BUILDAH: Tool = Tool { name: "buildah", package: "buildah" };
/// A whole user land in one static file.
pub const BUSYBOX: Tool = Tool { name: "busybox", package: "busybox-static" };
/// Ends programs at chosen system calls.
pub const STRACE: Tool = Tool { name: "strace", package: "strace" };

impl Tool {
    /// Runs the tool in a folder and gives what it printed on stdout. Any other exit code than 0 is an error that holds all
    /// that the tool printed.
    pub fn run(&self, dir: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
        let mut command = Command::new(self.name);
        command.args(arguments).current_dir(dir);
        let output = match command.output() {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("{} is missing: apt-get install {}", self.name, self.package)
            }
            Err(error) => return Err(error).with_context(|| format!("start {}", self.name)),
        };
        let text = String::from_utf8_lossy;
        ensure!(
            output.status.success(),
            "{command:?}: {}\n{}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        Ok(output.stdout)
    }
}

/// An image in a layout, as the tools name it, and a scratch folder for what they write.
#[derive(Debug)]
pub struct Image<'a> {
    scratch: &'a Path,
    /// `PATH:NAME`, in the scratch folder.
    name: String,
}

/// The link to the layout in the scratch folder.
const LINK: &str = "layout";

impl<'a> Image<'a> {
    /// The image called `name` (its `org.opencontainers.image.ref.name`) in `layout`. `scratch` is an empty folder.
    pub fn new(layout: &Path, name: &str, scratch: &'a Path) -> Result<Self> {
        let layout =
            layout.canonicalize().with_context(|| format!("find the layout {}", layout.display()))?;
        let link = scratch.join(LINK);
        symlink(layout, &link).with_context(|| format!("make the link {}", link.display()))?;
        Ok(Self { scratch, name: format!("{LINK}:{name}") })
    }

    /// The config as `skopeo inspect` reads it.
    pub fn config(&self) -> Result<Value> {
        let printed = SKOPEO.run(self.scratch, &["inspect", "--config", &format!("oci:{}", self.name)])?;
        serde_json::from_slice(&printed).context("parse what skopeo inspect printed")
    }

    /// Copies the image into one file. `kind` is one of skopeo's transports: `oci-archive` or `docker-archive`.
    pub fn archive(&self, kind: &str) -> Result<PathBuf> {
        let file = format!("{kind}.tar");
        let to = format!("{kind}:{file}:example.com/image:latest");
        SKOPEO.run(self.scratch, &["copy", "--quiet", &format!("oci:{}", self.name), &to])?;
        Ok(self.scratch.join(file))
    }

    /// Unpacks the image with umoci; gives the folder with its files.
    pub fn unpack(&self) -> Result<PathBuf> {
        UMOCI.run(self.scratch, &["unpack", "--image", &self.name, "bundle"])?;
        Ok(self.scratch.join("bundle/rootfs"))
    }

    /// Makes a container from the image with buildah.
    pub fn container(&self) -> Result<Container<'a>> {
        let container = Container { scratch: self.scratch };
        // An image's `OnBuild` commands run here already, and change its files when they run a program.
        let isolation = ["--isolation", "chroot"];
        let names = ["--quiet", "--name", Container::NAME, &format!("oci:{}", self.name)];
        container.buildah("from", &[isolation.as_slice(), &names].concat())?;
        Ok(container)
    }

    /// Has everyone read the image: it must be whole and in order ([`Layout`]), skopeo must copy it into both kinds of
    /// archive, and what umoci and buildah unpack must equal `expected`.
    pub fn judge(&self, expected: &Tree) -> Result<()> {
        let layout = Layout::new(self.scratch.join(LINK));
        layout.verify()?;
        let faults = layout.faults()?;
        ensure!(faults.is_empty(), "the layout has faults:\n{}", faults.join("\n"));
        self.archive("oci-archive")?;
        self.archive("docker-archive")?;
        for (tool, root) in [(UMOCI, self.unpack()?), (BUILDAH, self.container()?.mount()?)] {
            let found = tree::differences(expected, &tree::read(&root)?);
            ensure!(found.is_empty(), "{} unpacks something else:\n{}", tool.name, found.join("\n"));
        }
        Ok(())
    }
}

/// A buildah container in a storage of its own, so that tests do not meet, and nothing outlives the scratch folder.
#[derive(Debug)]
pub struct Container<'a> {
    scratch: &'a Path,
}

impl Container<'_> {
    const NAME: &'static str = "container";

    /// The folder with its files.
    pub fn mount(&self) -> Result<PathBuf> {
        let printed = self.buildah("mount", &[Self::NAME])?;
        Ok(PathBuf::from(String::from_utf8(printed).context("read buildah's path")?.trim_end()))
    }

    /// Runs a command in it, with the image's user, environment and working directory; gives what it printed on stdout.
    pub fn run(&self, command: &[&str]) -> Result<Vec<u8>> {
        self.buildah("run", &[["--isolation", "chroot", Self::NAME, "--"].as_slice(), command].concat())
    }

    fn buildah(&self, action: &str, arguments: &[&str]) -> Result<Vec<u8>> {
        let scratch = self.scratch.to_str().context("the scratch folder's path is UTF-8")?;
        let (storage, state) = (format!("{scratch}/storage"), format!("{scratch}/state"));
        let storage = ["--root", &storage, "--runroot", &state, "--storage-driver", "vfs", action];
        BUILDAH.run(self.scratch, &[&storage, arguments].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_with_its_package() {
        let tool = Tool { name: "no-such-program", package: "some-package" };
        let error = tool.run(Path::new("/"), &["--version"]).unwrap_err();
        assert_eq!(error.to_string(), "no-such-program is missing: apt-get install some-package");
    }

    #[test]
    fn a_failing_tool_says_why() {
        let shell = Tool { name: "sh", package: "dash" };
        assert_eq!(shell.run(Path::new("/"), &["-c", "pwd"]).unwrap(), b"/\n");
        let error = shell.run(Path::new("/"), &["-c", "echo because >&2; exit 3"]).unwrap_err().to_string();
        assert!(error.contains("exit status: 3\nbecause\n"), "{error}");
    }
}
