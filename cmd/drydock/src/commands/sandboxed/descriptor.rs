//! `project.toml`: what an app says of its own build.
//!
//! Specification: `extensions/project-descriptor.md`, versions 0.1 and 0.2. What the command line says wins.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use drydock_spec::toml_text;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::Deserialize;

use crate::cli_sandboxed::Build;
use crate::exit::Usage;

/// The name that it has in the folder of the source.
const FILE: &str = "project.toml";

/// Bytes that it may have.
const MAX_FILE: u64 = 1 << 20;

/// The parts that both versions have, under other names.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Wanted {
    builder: Option<String>,
    include: Vec<String>,
    exclude: Vec<String>,
    #[serde(alias = "buildpacks")]
    group: Vec<Buildpack>,
    env: Vec<Variable>,
    build: Env,
    pre: Option<toml::Table>,
    post: Option<toml::Table>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Env {
    env: Vec<Variable>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Buildpack {
    id: String,
    version: String,
    uri: String,
    script: Option<toml::Table>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Variable {
    name: String,
    value: String,
}

/// Reads the descriptor of a build, if there is one, and adds what it says to what the command line has left open.
pub(crate) fn apply(options: &mut Build) -> Result<()> {
    let (path, is_asked) = match &options.descriptor {
        Some(path) => (path.clone(), true),
        None => (options.path.join(FILE), false),
    };
    let failed = || format!("cannot read `{}`", path.display());
    let is_missing = |kind| matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory);
    let text = match drydock_io::read::read_to_string(&path, MAX_FILE) {
        Err(error) if is_missing(error.kind()) && !is_asked => return Ok(()),
        read => read.with_context(failed)?,
    };
    let wanted = parse(&text).with_context(|| format!("`{}` cannot be followed", path.display()))?;
    let dir = path.parent().unwrap_or(Path::new("")).to_owned();
    add(options, wanted, &dir)
}

/// The part that is about builds.
fn parse(text: &str) -> Result<Wanted> {
    let mut table: toml::Table = toml_text::from_str(text)?;
    let version = table.get("_").and_then(|meta| meta.get("schema-version")).and_then(toml::Value::as_str);
    let part = match version.unwrap_or("0.1") {
        "0.1" => table.remove("build"),
        "0.2" => table.remove("io").and_then(|mut io| io.as_table_mut()?.remove("buildpacks")),
        other => bail!("its schema version is {other}; 0.1 and 0.2 are known"),
    };
    Ok(part.map_or(Ok(Wanted::default()), toml::Value::try_into)?)
}

fn add(options: &mut Build, wanted: Wanted, dir: &Path) -> Result<()> {
    if wanted.pre.is_some() || wanted.post.is_some() {
        bail!(
            "groups that come before or after the builder's (`pre`, `post`) are not supported: list all buildpacks in `group`"
        );
    }
    if !wanted.include.is_empty() && !wanted.exclude.is_empty() {
        bail!("it has both `include` and `exclude`");
    }
    options.builder = options.builder.take().or(wanted.builder);
    if options.buildpack.is_empty() {
        options.buildpack = wanted.group.iter().map(|one| buildpack(one, dir)).collect::<Result<_>>()?;
    }
    let env = wanted.env.into_iter().chain(wanted.build.env);
    options.described_env = env.map(|one| format!("{}={}", one.name, one.value)).collect();
    options.selection = match (wanted.include.as_slice(), wanted.exclude.as_slice()) {
        ([], []) => Selection::All,
        (include, []) => Selection::Only(include.to_owned()),
        (_, exclude) => Selection::Without(exclude.to_owned()),
    };
    Ok(())
}

/// As `--buildpack` names it.
fn buildpack(wanted: &Buildpack, dir: &Path) -> Result<String> {
    if wanted.script.is_some() {
        bail!(
            "buildpacks within it (`script`) are not supported: put `{}` into a folder of its own",
            wanted.id
        );
    }
    if wanted.uri.is_empty() {
        let at = if wanted.version.is_empty() { "" } else { "@" };
        return Ok(format!("{}{at}{}", wanted.id, wanted.version));
    }
    let text = wanted.uri.strip_prefix("file://").unwrap_or(&wanted.uri);
    let path: PathBuf = dir.join(text);
    if !path.is_dir() {
        bail!("`{}` is no folder with a buildpack, and no other URIs are supported", wanted.uri);
    }
    let path = fs::canonicalize(&path).with_context(|| format!("cannot find `{}`", path.display()))?;
    path.into_os_string().into_string().ok().context("the path of a buildpack is not UTF-8")
}

/// Which files of the source are built: patterns are those of `.gitignore`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All.
    #[default]
    All,
    /// Those that fit a pattern.
    Only(Vec<String>),
    /// Those that fit none.
    Without(Vec<String>),
}

impl Selection {
    /// Removes from a copy of the source what is not to be built.
    pub(super) fn apply(&self, root: &Path) -> Result<()> {
        let (lines, keep) = match self {
            Self::All => return Ok(()),
            Self::Only(lines) => (lines, true),
            Self::Without(lines) => (lines, false),
        };
        let mut patterns = GitignoreBuilder::new(root);
        for line in lines {
            patterns
                .add_line(None, line)
                .map_err(|error| Usage(format!("{FILE}: the pattern `{line}`: {error}")))?;
        }
        let patterns = patterns.build().context("the patterns are too many")?;
        prune(root, &patterns, keep).map(drop)
    }
}

/// Gives whether anything is left in the folder.
fn prune(dir: &Path, patterns: &Gitignore, keep: bool) -> Result<bool> {
    let failed = || format!("cannot choose the files in `{}`", dir.display());
    let mut is_left = false;
    for entry in fs::read_dir(dir).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let (path, is_dir) = (entry.path(), entry.file_type().with_context(failed)?.is_dir());
        let fits = patterns.matched_path_or_any_parents(&path, is_dir).is_ignore();
        let stays = if is_dir {
            let stays = fits == keep;
            // A folder that fits nothing may hold what does; one that is left out is so with all that it holds.
            let holds = (stays || keep) && prune(&path, patterns, keep)?;
            stays || holds
        } else {
            fits == keep
        };
        if !stays {
            drydock_tar::remove_all(&path).with_context(failed)?;
        }
        is_left |= stays;
    }
    Ok(is_left)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn both_versions_say_the_same() {
        let old = "[project]\nname = 'x'\n[build]\nbuilder = 'b'\nexclude = ['*.log']\n[[build.buildpacks]]\nid = 'acme/a'\n\
                   version = '1'\n[[build.env]]\nname = 'A'\nvalue = '1'\n";
        let new = "[_]\nschema-version = '0.2'\n[io.buildpacks]\nbuilder = 'b'\nexclude = ['*.log']\n[[io.buildpacks.group]]\n\
                   id = 'acme/a'\nversion = '1'\n[[io.buildpacks.build.env]]\nname = 'A'\nvalue = '1'\n";
        let (old, new) = (parse(old).unwrap(), parse(new).unwrap());
        assert_eq!((&old.builder, &old.exclude, &old.group), (&new.builder, &new.exclude, &new.group));
        assert_eq!((old.env, old.group[0].id.as_str()), (new.build.env, "acme/a"));
        assert_eq!(parse("[project]\nid = 'x'\n").unwrap(), Wanted::default());
        assert!(parse("[_]\nschema-version = '9'\n").is_err());
    }

    #[test]
    fn descriptors_are_regular_and_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("project.toml");
        let mut options = Build::of(&["app", "--path", dir.path().to_str().unwrap()]);
        let mut read = || apply(&mut options).map_err(|error| format!("{error:#}"));
        assert_eq!(read(), Ok(()));
        mkfifoat(CWD, &path, Mode::RWXU).unwrap();
        assert!(read().unwrap_err().ends_with("not a regular file"));
        fs::remove_file(&path).unwrap();
        fs::write(&path, vec![b'#'; 1 + (1 << 20)]).unwrap();
        assert!(read().unwrap_err().ends_with("more than 1048576 bytes"));
        fs::write(&path, format!("[build]\nbuilder = 3 # {}", "x".repeat(100_000))).unwrap();
        let error = read().unwrap_err();
        assert!(error.len() < 1000 && error.contains("expected a string"), "{error}");
    }

    #[test]
    fn what_is_not_supported_is_said() {
        let text = |part: &str| buildpack(&toml::from_str(part).unwrap(), Path::new("/"));
        assert_eq!(text("id = 'a/b'\nversion = '1'").unwrap(), "a/b@1");
        assert_eq!(text("uri = 'tmp'").unwrap(), fs::canonicalize("/tmp").unwrap().to_str().unwrap());
        for part in ["id = 'a'\n[script]\napi = '0.10'", "uri = 'https://example.com/b.tgz'"] {
            assert!(text(part).is_err(), "{part}");
        }
    }

    #[test]
    fn patterns_choose_as_gitignore_does() {
        let files = ["a.log", "src/a.rs", "src/b.log", "docs/x/y.md", "keep.log"];
        for (selection, want) in [
            (Selection::All, files.to_vec()),
            (
                Selection::Without(vec!["*.log".into(), "!keep.log".into(), "/docs".into()]),
                vec!["src/a.rs", "keep.log"],
            ),
            (
                Selection::Only(vec!["src".into(), "*.md".into()]),
                vec!["src/a.rs", "src/b.log", "docs/x/y.md"],
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            for file in files {
                let path = dir.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            selection.apply(dir.path()).unwrap();
            let found: Vec<&str> = files.into_iter().filter(|file| dir.path().join(file).exists()).collect();
            assert_eq!(found, want, "{selection:?}");
        }
    }
}
