//! What is in an executable: the packages that cargo links into it, and what the toolchain adds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize;

use crate::cargo;
use crate::compile::{Executable, TARGET};

/// Something with a name and a version that an executable is made of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where it comes from.
    pub origin: Origin,
    /// An SPDX licence expression.
    pub licence: String,
    /// Where its sources are kept.
    pub repository: Option<String>,
}

/// Where a component comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// crates.io.
    Registry {
        /// The package file's SHA-256, in hexadecimal digits.
        sha256: String,
    },
    /// This workspace.
    Workspace,
    /// The machine that the executable was built on.
    Toolchain,
}

impl Component {
    /// Its package URL, which also tells it from all others. Only what comes from a registry is called a crate:
    /// what a scanner knows about someone else's crate of the same name does not hold here.
    pub fn purl(&self) -> String {
        let kind = if matches!(self.origin, Origin::Registry { .. }) { "cargo" } else { "generic" };
        format!("pkg:{kind}/{}@{}", self.name, self.version.replace('+', "%2B"))
    }
}

/// All that is in an executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependencies {
    /// The package that the executable is built from.
    pub root: Component,
    /// What is in it, sorted.
    pub components: Vec<Component>,
    /// Package URLs: who needs whom directly.
    pub needs: BTreeMap<String, BTreeSet<String>>,
}

impl Dependencies {
    /// Asks cargo which packages, with the features that are on, end up in the executable: neither build scripts nor
    /// procedural macros do.
    pub fn of(executable: Executable, workspace: &Path) -> Result<Self> {
        let mut command = cargo::command();
        command.args(["tree", "--locked", "--edges=normal,no-proc-macro", "--target", TARGET]);
        command.args(["--prefix=depth", "--format", FORMAT, "--package", executable.package]);
        let tree = cargo::answer(command.arg("--manifest-path").arg(workspace.join(executable.manifest)))?;
        let lock = workspace.join(executable.lock);
        let lock = std::fs::read_to_string(&lock).with_context(|| format!("read {}", lock.display()))?;
        let mut toolchain = vec![Component {
            name: "rust-std".to_owned(),
            version: cargo::rust_version(workspace)?,
            origin: Origin::Toolchain,
            licence: "MIT OR Apache-2.0".to_owned(),
            repository: Some("https://github.com/rust-lang/rust".to_owned()),
        }];
        if executable.has_libc {
            toolchain.push(libc()?);
        }
        Self::read(&tree, &lock, toolchain)
    }

    /// Puts together what `cargo tree` printed, a lock file, and what the root needs besides.
    fn read(tree: &str, lock: &str, toolchain: Vec<Component>) -> Result<Self> {
        let checksums = checksums(lock)?;
        let mut above: Vec<String> = Vec::new();
        let mut components = BTreeSet::new();
        let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut root = None;
        for line in tree.lines() {
            let (depth, component) = component(line, &checksums)
                .with_context(|| format!("parse what cargo tree printed: {line}"))?;
            let purl = component.purl();
            above.truncate(depth);
            if let Some(parent) = above.last() {
                needs.entry(parent.clone()).or_default().insert(purl.clone());
                components.insert(component);
            } else if root.replace(component).is_some() {
                bail!("cargo tree printed two trees");
            }
            needs.entry(purl.clone()).or_default();
            above.push(purl);
        }
        let root = root.context("cargo tree printed nothing")?;
        for component in toolchain {
            needs.entry(root.purl()).or_default().insert(component.purl());
            needs.entry(component.purl()).or_default();
            components.insert(component);
        }
        Ok(Self { root, components: components.into_iter().collect(), needs })
    }
}

/// One line of `cargo tree`, after its depth: name and version, licence, repository.
const FORMAT: &str = "|{p}|{l}|{r}";

fn component(line: &str, checksums: &Checksums) -> Result<(usize, Component)> {
    // A tree that was already printed is marked, and not printed again.
    let mut fields = line.trim_end_matches(" (*)").split('|');
    let mut field = || fields.next().context("a field is missing");
    let depth = field()?.parse()?;
    let mut package = field()?.split(' ');
    let licence = field()?;
    let repository = field()?;
    let name = package.next().context("there is no name")?.to_owned();
    let version =
        package.next().and_then(|version| version.strip_prefix('v')).context("there is no version")?;
    let version = version.to_owned();
    let licence = canonical(licence).with_context(|| format!("the licence of {name} is `{licence}`"))?;
    let key = (name.clone(), version.clone());
    let origin = match checksums.get(&key).context("the lock file does not have it")? {
        Some(sha256) => Origin::Registry { sha256: sha256.clone() },
        None => Origin::Workspace,
    };
    let repository = (!repository.is_empty()).then(|| repository.to_owned());
    Ok((depth, Component { name, version, origin, licence, repository }))
}

/// The same expression as SPDX has it today: some write `/` for `OR`.
fn canonical(licence: &str) -> Result<String> {
    let canonical = spdx::Expression::canonicalize(licence).map_err(|error| anyhow!("{}", error.reason))?;
    let licence = canonical.unwrap_or_else(|| licence.to_owned());
    spdx::Expression::parse(&licence).map_err(|error| anyhow!("{}", error.reason))?;
    Ok(licence)
}

/// By name and version: the checksum, which only packages of a registry have.
type Checksums = BTreeMap<(String, String), Option<String>>;

fn checksums(lock: &str) -> Result<Checksums> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: String,
        checksum: Option<String>,
    }
    let lock: Lock = toml::from_str(lock).context("parse the lock file")?;
    Ok(lock.package.into_iter().map(|package| ((package.name, package.version), package.checksum)).collect())
}

/// The C library that is linked in is this machine's.
fn libc() -> Result<Component> {
    let text = cargo::answer(std::process::Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
    let version =
        text.trim().strip_prefix("glibc ").context("getconf names no version of the GNU C library")?;
    Ok(Component {
        name: "glibc".to_owned(),
        version: version.to_owned(),
        origin: Origin::Toolchain,
        licence: "LGPL-2.1-or-later".to_owned(),
        repository: Some("https://sourceware.org/git/glibc.git".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"
version = 4
[[package]]
name = "app"
version = "0.1.0"
dependencies = ["one", "two"]
[[package]]
name = "one"
version = "1.0.0+spec-1"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "11"
[[package]]
name = "two"
version = "2.0.0"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "22"
"#;
    const TREE: &str = "0|app v0.1.0 (/src/app)|Apache-2.0|\n\
        1|one v1.0.0+spec-1|Unlicense/MIT|https://example.com/one\n\
        2|two v2.0.0|MIT|\n\
        1|two v2.0.0|MIT| (*)\n";

    fn component(name: &str, version: &str, origin: Origin, licence: &str) -> Component {
        let (name, version, licence) = (name.to_owned(), version.to_owned(), licence.to_owned());
        Component { name, version, origin, licence, repository: None }
    }

    #[test]
    fn the_tree_is_read() {
        let libc = component("libc", "1", Origin::Toolchain, "MIT");
        let one = Origin::Registry { sha256: "11".to_owned() };
        let one = Component {
            repository: Some("https://example.com/one".to_owned()),
            ..component("one", "1.0.0+spec-1", one, "Unlicense OR MIT")
        };
        let two = component("two", "2.0.0", Origin::Registry { sha256: "22".to_owned() }, "MIT");
        let needs = [
            ("pkg:cargo/one@1.0.0%2Bspec-1", &["pkg:cargo/two@2.0.0"][..]),
            ("pkg:cargo/two@2.0.0", &[]),
            (
                "pkg:generic/app@0.1.0",
                &["pkg:cargo/one@1.0.0%2Bspec-1", "pkg:cargo/two@2.0.0", "pkg:generic/libc@1"],
            ),
            ("pkg:generic/libc@1", &[]),
        ];
        let needs = needs
            .iter()
            .map(|(who, whom)| ((*who).to_owned(), whom.iter().map(|&whom| whom.to_owned()).collect()))
            .collect();
        let want = Dependencies {
            root: component("app", "0.1.0", Origin::Workspace, "Apache-2.0"),
            components: vec![libc.clone(), one, two],
            needs,
        };
        assert_eq!(Dependencies::read(TREE, LOCK, vec![libc]).unwrap(), want);
    }

    #[test]
    fn what_cannot_be_told_is_an_error() {
        for (tree, want) in [
            ("", "cargo tree printed nothing"),
            ("0|app v0.1.0|Apache-2.0|\n0|app v0.1.0|Apache-2.0|", "cargo tree printed two trees"),
            ("0|app v0.1.0||", "the licence of app is ``"),
            ("0|app v0.1.0|Whatever|", "the licence of app is `Whatever`"),
            ("0|app v0.2.0|MIT|", "the lock file does not have it"),
            ("0|app|MIT|", "there is no version"),
            ("0|app v0.1.0|MIT", "a field is missing"),
            ("app v0.1.0", "invalid digit"),
        ] {
            let error = format!("{:#}", Dependencies::read(tree, LOCK, Vec::new()).unwrap_err());
            assert!(error.contains(want), "{error}");
        }
    }
}
