//! The lifecycle of a builder: executables in a folder or an archive, or those that the build image has.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use drydock_io::sink::Sink;
use drydock_layout::Image;
use drydock_model::config::ImageConfig;
use drydock_spec::builder::LifecycleSection;
use drydock_spec::json;
use drydock_spec::module::{
    BUILDER_METADATA, BuilderMetadata, LIFECYCLE_APIS, LIFECYCLE_VERSION, LifecycleFacts,
};
use drydock_tar::{Owner, write_end};

use super::layers::{copied, folder, symlink};
use super::module::path_of;
use super::tree::{Member, MemberKind, Tree};
use super::{MAX_DOCUMENT, Wrong, read_document};
use crate::import::SourceError;
use crate::watch::Watch;

const DIR: &str = "cnb/lifecycle";
const DESCRIPTOR: &str = "lifecycle.toml";
/// Without these, it is none.
const EXECUTABLES: [&str; 7] =
    ["analyzer", "builder", "creator", "detector", "exporter", "launcher", "restorer"];

/// A lifecycle.
#[derive(Debug)]
pub(super) struct Lifecycle {
    pub(super) facts: LifecycleFacts,
    /// Where its executables are; none if the build image has them.
    pub(super) files: Option<Files>,
}

/// Its executables.
#[derive(Debug)]
pub(super) struct Files {
    tree: Tree,
    /// Whether they are in a folder of the tree, not at its top.
    nested: bool,
}

/// What a file of `builder.toml` asks for; else the first of `beside` that is there, or that of the build image.
pub(super) fn find(
    file: &Path,
    section: &LifecycleSection,
    beside: &[PathBuf],
    build: &Image,
    watch: &dyn Watch,
) -> Result<Lifecycle> {
    let LifecycleSection { uri, version } = section;
    if !uri.is_empty() {
        if !version.is_empty() {
            return Err(Wrong::new(file, "lifecycle.version", "cannot be there beside lifecycle.uri").into());
        }
        let base = file.parent().context("a file is in a folder")?;
        let found = path_of(uri, base).and_then(|path| read(&path, &build.config, watch));
        return found.with_context(|| Wrong::new(file, "lifecycle.uri", format!("`{uri}` cannot be used")));
    }
    let mut found = Vec::new();
    if let Some(path) = beside.iter().find(|path| path.exists()) {
        found.push(read(path, &build.config, watch)?);
    }
    found.extend(of_image(&build.config)?.map(|facts| Lifecycle { facts, files: None }));
    let wanted = version.strip_prefix('v').unwrap_or(version);
    let there: Vec<String> = found.iter().map(|lifecycle| lifecycle.facts.version.clone()).collect();
    let fits = |lifecycle: &Lifecycle| wanted.is_empty() || lifecycle.facts.version == wanted;
    match found.into_iter().find(fits) {
        Some(lifecycle) => Ok(lifecycle),
        None if there.is_empty() => {
            let looked: Vec<String> = beside.iter().map(|path| format!("`{}`", path.display())).collect();
            let reason = format!(
                "is missing: there is none in {}, and the build image has none; name one by lifecycle.uri \
                 (`cargo run -p drydock-package` makes it)",
                looked.join(", ")
            );
            Err(Wrong::new(file, "lifecycle", reason).into())
        }
        None => {
            let reason = format!(
                "is `{version}`, but there is {}: get that version and name it by lifecycle.uri",
                there.join(", ")
            );
            Err(Wrong::new(file, "lifecycle.version", reason).into())
        }
    }
}

/// What a build image says of its lifecycle, if it has one.
fn of_image(config: &ImageConfig) -> Result<Option<LifecycleFacts>> {
    let mut facts = match config.label(BUILDER_METADATA) {
        Some(text) => json::from_str::<BuilderMetadata>(text).context(BUILDER_METADATA)?.lifecycle,
        None => LifecycleFacts::default(),
    };
    if let (Some(version), Some(apis)) = (config.label(LIFECYCLE_VERSION), config.label(LIFECYCLE_APIS)) {
        version.clone_into(&mut facts.version);
        facts.apis = json::from_str(apis).context(LIFECYCLE_APIS)?;
    }
    Ok((!facts.version.is_empty()).then(|| facts.completed()))
}

/// Reads a lifecycle on the disk: `lifecycle.toml` and a folder with the executables, or all in one folder.
fn read(path: &Path, build: &ImageConfig, watch: &dyn Watch) -> Result<Lifecycle> {
    let failed = || format!("cannot use the lifecycle `{}`", path.display());
    let (tree, outer) = match Tree::at(path)? {
        Tree::Folder(..) if path.join("lifecycle").is_dir() => {
            (Tree::at(&path.join("lifecycle"))?, Some(path.join(DESCRIPTOR)))
        }
        tree => (tree, None),
    };
    let files = Files { nested: matches!(tree, Tree::Tar(_)), tree };
    let mut descriptor = match outer {
        Some(path) => {
            let read = || format!("cannot read `{}`", path.display());
            Some(drydock_io::read::read(&path, MAX_DOCUMENT).with_context(read)?)
        }
        None => None,
    };
    let (mut names, mut machine) = (BTreeSet::new(), None);
    files.tree.visit(watch, &mut |member, contents| {
        if member.path == DESCRIPTOR.as_bytes() && descriptor.is_none() {
            descriptor = Some(read_document(DESCRIPTOR, contents).with_context(failed)?);
        } else if let Some(name) = files.name(member)? {
            if name == b"launcher" {
                let mut head = Vec::new();
                std::io::Read::read_to_end(&mut std::io::Read::take(contents, 20), &mut head)?;
                machine = machine_of(&head);
            }
            names.insert(String::from_utf8_lossy(name).into_owned());
        }
        Ok(())
    })?;
    if let Some(missing) = EXECUTABLES.iter().find(|name| !names.contains(**name)) {
        bail!("{}: it has no executable `{missing}`", failed());
    }
    let descriptor = descriptor.with_context(|| format!("it has no `{DESCRIPTOR}`")).with_context(failed)?;
    let text = String::from_utf8(descriptor).context(DESCRIPTOR).with_context(failed)?;
    let facts = LifecycleFacts::parse(&text).context(DESCRIPTOR).with_context(failed)?;
    if facts.version.is_empty() || facts.apis.buildpack.supported.is_empty() {
        bail!("{}: `{DESCRIPTOR}` tells no version, or no Buildpack API", failed());
    }
    if let Some(machine) = machine.filter(|machine| *machine != build.architecture) {
        bail!("{}: its launcher is for {machine}, the build image for {}", failed(), build.architecture);
    }
    Ok(Lifecycle { facts, files: Some(files) })
}

/// The architecture in the header of an executable, if it is one that is known.
fn machine_of(head: &[u8]) -> Option<&'static str> {
    let is_big = *head.get(5)? == 2;
    let machine: [u8; 2] = head.strip_prefix(b"\x7fELF")?.get(14..16)?.try_into().ok()?;
    Some(match if is_big { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) } {
        3 => "386",
        21 if is_big => "ppc64",
        21 => "ppc64le",
        22 => "s390x",
        40 => "arm",
        62 => "amd64",
        183 => "arm64",
        243 => "riscv64",
        _ => return None,
    })
}

impl Files {
    /// The name of an executable, or of a file beside them; none for what does not belong to the lifecycle.
    fn name<'m>(&self, member: &Member<'m>) -> Result<Option<&'m [u8]>> {
        let mut parts = member.path.split(|byte| *byte == b'/');
        let (first, second, more) = (parts.next(), parts.next(), parts.next());
        let name =
            if self.nested { second.filter(|_| more.is_none()) } else { first.filter(|_| second.is_none()) };
        let Some(name) = name.filter(|name| *name != DESCRIPTOR.as_bytes()) else { return Ok(None) };
        match member.kind {
            MemberKind::Dir => Ok(None),
            MemberKind::Symlink { target }
                if target.is_empty() || target.contains(&b'/') || target == b".." =>
            {
                Err(SourceError::entry(member.path, "leads out of the lifecycle's folder").into())
            }
            MemberKind::HardLink { .. } => {
                Err(SourceError::entry(member.path, "is a hard link, which no lifecycle has").into())
            }
            _ => Ok(Some(name)),
        }
    }

    /// Writes the layer.
    pub(super) fn write(&self, sink: &mut dyn Sink, watch: &dyn Watch) -> Result<()> {
        folder(sink, DIR, Owner::ROOT)?;
        self.tree.visit(watch, &mut |member, contents| {
            let Some(name) = self.name(member)? else { return Ok(()) };
            let path = [DIR.as_bytes(), b"/", name].concat();
            match member.kind {
                MemberKind::File { size } => copied(sink, &path, size, member.executable, contents),
                MemberKind::Symlink { target } => symlink(sink, &String::from_utf8(path)?, target),
                MemberKind::Dir | MemberKind::HardLink { .. } => Ok(()),
            }
        })?;
        // Where lifecycles were before.
        symlink(sink, "lifecycle", b"/cnb/lifecycle")?;
        Ok(write_end(sink)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::watch::Nobody;

    #[test]
    fn documents_that_are_too_large_are_refused() {
        const TEXT: &str = "[apis.buildpack]\nsupported = ['0.12']\n[lifecycle]\nversion = '1.2.3'\n#";
        let limit = usize::try_from(MAX_DOCUMENT).unwrap();
        let dir = tempfile::tempdir().unwrap();
        for name in EXECUTABLES {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let build: ImageConfig =
            serde_json::from_str(r#"{"rootfs":{"type":"layers","diff_ids":[]}}"#).unwrap();
        let read = |size: usize| {
            fs::write(dir.path().join(DESCRIPTOR), [TEXT, &"#".repeat(size - TEXT.len())].concat()).unwrap();
            read(dir.path(), &build, &Nobody)
        };
        assert_eq!(read(limit).unwrap().facts.version, "1.2.3");
        let error = format!("{:#}", read(limit + 1).unwrap_err());
        assert!(error.ends_with("`lifecycle.toml` has more than 4194304 bytes"), "{error}");
    }

    #[test]
    fn machines_of_executables() {
        let head = |class: u8, machine: u8| {
            let mut head = b"\x7fELF\x02\x01\x01".to_vec();
            head[5] = class;
            head.resize(18, 0);
            head.extend([machine, 0]);
            if class == 2 {
                head[18..].rotate_left(1);
            }
            head
        };
        for (head, want) in [
            (head(1, 62), Some("amd64")),
            (head(1, 183), Some("arm64")),
            (head(1, 21), Some("ppc64le")),
            (head(2, 22), Some("s390x")),
            (head(1, 99), None),
            (b"#!/bin/sh\n".to_vec(), None),
            (b"\x7fELF".to_vec(), None),
            (Vec::new(), None),
        ] {
            assert_eq!(machine_of(&head), want, "{head:?}");
        }
    }
}
