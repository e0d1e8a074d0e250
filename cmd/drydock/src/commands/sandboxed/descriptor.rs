//! `project.toml`: what an app says of its own build.
//!
//! What the command line says wins.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use drydock_images::builder::selection::Selection;
use drydock_io::read::is_dir;
use drydock_spec::descriptor::{ProjectBuildpack, ProjectDescriptor, ProjectScript};
use drydock_spec::toml_text;
use serde_json::json;

use super::order::Asked;
use super::source;
use crate::cli_sandboxed::Build;

/// The name that it has in the folder of the source.
pub(super) const FILE: &str = "project.toml";

/// Bytes that it may have.
const MAX_FILE: u64 = 1 << 20;

/// A buildpack that consists of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inline {
    pub(super) id: String,
    version: String,
    api: String,
    shell: String,
    script: String,
}

impl Inline {
    /// Writes its folder: it takes part in any build, and its `bin/build` is the script.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let Self { id, version, api, shell, script } = self;
        let toml = toml_text::to_string(&json!({"api": api, "buildpack": {"id": id, "version": version}}))?;
        let bin = dir.join("bin");
        drydock_io::file::make_dirs(&bin).with_context(|| format!("cannot make `{}`", bin.display()))?;
        for (name, text) in [
            ("buildpack.toml", toml),
            ("bin/detect", format!("#!{shell}\nexit 0\n")),
            ("bin/build", format!("#!{shell}\n{script}\n")),
        ] {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
        }
        Ok(())
    }
}

/// Reads the descriptor of a build, if there is one, and adds what it says to what the command line has left open.
pub(crate) fn apply(options: &mut Build) -> Result<()> {
    let path = options.descriptor.clone().unwrap_or_else(|| options.path.join(FILE));
    let read = match options.descriptor {
        Some(_) => drydock_io::read::read_to_string(&path, MAX_FILE).map(Some).map_err(anyhow::Error::from),
        None => match is_dir(&options.path) {
            Ok(true) => source::text(&options.path, FILE, MAX_FILE),
            Ok(false) => return Ok(()),
            Err(error) => Err(error.into()),
        },
    };
    let Some(text) = read.with_context(|| format!("cannot read `{}`", path.display()))? else {
        return Ok(());
    };
    let (wanted, unknown) = ProjectDescriptor::parse(&text)
        .with_context(|| format!("`{}` cannot be followed", path.display()))?;
    options.unknown_keys = Some((path.clone(), unknown)).filter(|(_, unknown)| !unknown.is_empty());
    let dir = path.parent().unwrap_or(Path::new("")).to_owned();
    add(options, wanted, &dir).with_context(|| format!("`{}` cannot be followed", path.display()))
}

fn add(options: &mut Build, wanted: ProjectDescriptor, dir: &Path) -> Result<()> {
    if !wanted.include.is_empty() && !wanted.exclude.is_empty() {
        bail!("it has both `include` and `exclude`");
    }
    options.builder = options.builder.take().or(wanted.builder);
    if options.buildpack.is_empty() {
        for (asked, group) in [
            (&mut options.buildpack, &wanted.group),
            (&mut options.pre_buildpack, &wanted.pre.group),
            (&mut options.post_buildpack, &wanted.post.group),
        ] {
            if asked.is_empty() {
                *asked = group.iter().map(|one| buildpack(one, dir)).collect::<Result<_>>()?;
            }
        }
    }
    let env = || wanted.env.iter().chain(&wanted.build.env);
    if let Some(one) = env().find(|one| one.name.contains('=')) {
        bail!("it sets a variable `{}`, and no name has a `=`", one.name);
    }
    options.described_env = env().map(|one| format!("{}={}", one.name, one.value)).collect();
    options.selection = match (wanted.include.as_slice(), wanted.exclude.as_slice()) {
        ([], []) => Selection::All,
        (include, []) => Selection::Only(include.to_owned()),
        (_, exclude) => Selection::Without(exclude.to_owned()),
    };
    Ok(())
}

/// As `--buildpack` names it. Paths begin in the descriptor's folder.
fn buildpack(wanted: &ProjectBuildpack, dir: &Path) -> Result<Asked> {
    let ProjectBuildpack { id, version, uri, script } = wanted;
    if let Some(ProjectScript { api, inline, shell }) = script.as_ref().filter(|_| uri.is_empty()) {
        if id.is_empty() || api.is_empty() || inline.is_empty() {
            bail!("the buildpack `{id}` has a `script`, which needs an `id`, and `api` and `inline` in it");
        }
        let or = |text: &String, other: &str| if text.is_empty() { other.to_owned() } else { text.clone() };
        let shell = or(shell, "/bin/sh");
        if !shell.starts_with('/') || shell.contains(['\n', '\0']) {
            bail!("the shell of the buildpack `{id}` is no absolute path");
        }
        let (id, api, script) = (id.clone(), api.clone(), inline.clone());
        return Ok(Asked::Inline(Inline { id, version: or(version, "0.0.0"), api, shell, script }));
    }
    Ok(Asked::Named(match (id.as_str(), version.as_str(), uri.as_str()) {
        ("", _, "") => bail!("a buildpack has neither `id` nor `uri`"),
        (id, "", "") => format!("from=builder:{id}"),
        (id, version, "") => format!("from=builder:{id}@{version}"),
        (_, _, uri) => {
            // What is no path there may name something else.
            match fs::canonicalize(dir.join(uri.strip_prefix("file://").unwrap_or(uri))) {
                Ok(path) => path
                    .into_os_string()
                    .into_string()
                    .ok()
                    .context("the path of a buildpack is not UTF-8")?,
                Err(_) => uri.to_owned(),
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn descriptors_are_regular_short_and_in_the_source() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("project.toml");
        let mut options = Build::of(&["app", "--path", dir.path().to_str().unwrap()]);
        let mut read = || apply(&mut options).map_err(|error| format!("{error:#}"));
        assert_eq!(read(), Ok(()));
        symlink("/etc/passwd", &path).unwrap();
        assert!(read().unwrap_err().ends_with("`project.toml` leads out of the source"));
        fs::remove_file(&path).unwrap();
        mkfifoat(CWD, &path, Mode::RWXU).unwrap();
        assert!(read().unwrap_err().ends_with("not a regular file"));
        fs::remove_file(&path).unwrap();
        fs::write(&path, vec![b'#'; 1 + (1 << 20)]).unwrap();
        assert!(read().unwrap_err().ends_with("more than 1048576 bytes"));
        let long = "x".repeat(100_000);
        for (text, says) in [
            (format!("[build]\nbuilder = 3 # {long}"), "expected a string"),
            (format!("[build]\nenv = '{long}'"), "expected a sequence"),
            (format!("[_]\nschema-version = '{long}'"), "0.1 and 0.2 are known"),
            ("[[build.env]]\nname = 'A=B'\nvalue = '1'".to_owned(), "no name has a `=`"),
            (format!("[_]\nschema-version = '0.2'\n[io]\nbuildpacks = '{long}'"), "invalid type"),
        ] {
            fs::write(&path, text).unwrap();
            let error = read().unwrap_err();
            assert!(error.len() < 1000 && error.contains(says), "{error}");
        }
    }

    #[test]
    fn buildpacks_are_named_or_written() {
        let text = |part: &str| buildpack(&toml::from_str(part).unwrap(), Path::new("/"));
        for (part, want) in [
            ("id = 'a/b'\nversion = '1'", "from=builder:a/b@1"),
            ("id = 'a/b'", "from=builder:a/b"),
            ("uri = 'tmp'", "/tmp"),
            ("uri = 'file:///tmp'", "/tmp"),
            ("id = 'x'\nuri = 'acme/package:1'", "acme/package:1"),
            ("uri = 'https://example.com/b.tgz'", "https://example.com/b.tgz"),
        ] {
            assert_eq!(text(part).unwrap(), Asked::Named(want.to_owned()), "{part}");
        }
        for (part, says) in [
            ("version = '1'", "neither `id` nor `uri`"),
            ("id = 'a'\n[script]\napi = '0.10'", "`inline`"),
            ("id = 'a'\n[script]\ninline = 'x'", "`api`"),
            ("[script]\napi = '0.10'\ninline = 'x'", "an `id`"),
            ("id = 'a'\n[script]\napi = '0.10'\ninline = 'x'\nshell = 'sh'", "no absolute path"),
            ("id = 'a'\n[script]\napi = '0.10'\ninline = 'x'\nshell = \"/bin/sh\\nx\"", "no absolute path"),
        ] {
            let error = text(part).unwrap_err().to_string();
            assert!(error.contains(says), "{part}: {error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let part = "id = 'me/x'\n[script]\napi = '0.10'\ninline = 'echo hello'\n";
        let Asked::Inline(inline) = text(part).unwrap() else { panic!("it has a script") };
        inline.write(dir.path()).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("bin/build"), "#!/bin/sh\necho hello\n");
        assert_eq!(read("bin/detect"), "#!/bin/sh\nexit 0\n");
        let toml: drydock_spec::buildpack::BuildpackToml = toml::from_str(&read("buildpack.toml")).unwrap();
        assert_eq!((toml.buildpack.id.as_str(), toml.buildpack.version.as_str()), ("me/x", "0.0.0"));
    }

    #[test]
    fn the_command_line_wins() {
        let part = "builder = 'b'\n[[group]]\nid = 'g'\n[[pre.group]]\nid = 'p'\n[[post.group]]\nid = 'q'\n";
        for (args, want) in [
            (&["app"][..], ("b", "from=builder:g", "from=builder:p", "from=builder:q")),
            (&["app", "--builder", "c"], ("c", "from=builder:g", "from=builder:p", "from=builder:q")),
            (&["app", "--pre-buildpack", "x"], ("b", "from=builder:g", "x", "from=builder:q")),
            (&["app", "--buildpack", "x"], ("b", "x", "", "")),
        ] {
            let mut options = Build::of(args);
            add(&mut options, toml::from_str(part).unwrap(), Path::new("/")).unwrap();
            let only = |list: &[Asked]| match list {
                [] => String::new(),
                [Asked::Named(text)] => text.clone(),
                other => panic!("{other:?}"),
            };
            let Build { builder, buildpack, pre_buildpack, post_buildpack, .. } = &options;
            let found =
                (builder.clone().unwrap(), only(buildpack), only(pre_buildpack), only(post_buildpack));
            assert_eq!(
                (found.0.as_str(), found.1.as_str(), found.2.as_str(), found.3.as_str()),
                want,
                "{args:?}"
            );
        }
    }
}
