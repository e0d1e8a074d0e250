//! Trees of files on the disk, as builds find them: buildpacks, and the source of an app from an archive.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result};
use drydock_encode::compress::Format;

use super::layers::is_run;
use super::tree::{Member, MemberKind, Tree};
use crate::import::{SourceError, format_of};
use crate::watch::Watch;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// All is there.
    Done,
    /// The file is neither a tar nor a zip file.
    NoArchive,
}

/// Unpacks the source of an app into a folder that is empty and nobody else's: a tar, compressed or not, or a zip file.
/// Links that lead out of the folder are refused.
pub fn source(archive: &Path, to: &Path, watch: &dyn Watch) -> Result<Placed> {
    let tree = Tree::at(archive)?;
    let may_be = match &tree {
        Tree::Folder(_) => false,
        Tree::Zip(_) => true,
        Tree::Tar(path) => is_tar(path)?,
    };
    if !may_be {
        return Ok(Placed::NoArchive);
    }
    watch.begin("unpacking", archive.metadata().map_or(0, |facts| facts.len()));
    place(&tree, to, watch, &|member| match member.kind {
        MemberKind::Symlink { target } if leads_out(member.path, target) => {
            Err(SourceError::entry(member.path, "is a link that may lead out of the folder").into())
        }
        _ => Ok(member.executable),
    })?;
    watch.end();
    Ok(Placed::Done)
}

/// Whether a file is a tar, or compressed.
fn is_tar(path: &Path) -> Result<bool> {
    /// Where every tar that is not very old says that it is one.
    const MAGIC: (u64, &[u8; 5]) = (257, b"ustar");
    let failed = || format!("cannot read `{}`", path.display());
    let mut file = drydock_io::read::open(path).with_context(failed)?;
    if format_of(&file).with_context(failed)? != Format::Plain {
        return Ok(true);
    }
    let mut magic = Vec::new();
    file.seek(SeekFrom::Start(MAGIC.0)).with_context(failed)?;
    file.take(5).read_to_end(&mut magic).with_context(failed)?;
    Ok(magic == MAGIC.1)
}

/// Whether a link may lead out of the tree. In one that does not, `..` stands at the beginning only: there it leaves folders, while
/// further on it might leave what another link leads to.
fn leads_out(path: &[u8], target: &[u8]) -> bool {
    let mut depth = path.iter().filter(|byte| **byte == b'/').count();
    let mut parts = target.split(|byte| *byte == b'/').filter(|part| *part != b".").peekable();
    while parts.next_if_eq(&&b".."[..]).is_some() {
        match depth.checked_sub(1) {
            Some(above) => depth = above,
            None => return true,
        }
    }
    target.starts_with(b"/") || parts.any(|part| part == b"..")
}

/// Makes the files of a buildpack or an extension in a folder that is empty and nobody else's, with the modes that they have in
/// a builder.
pub(super) fn module(tree: &Tree, to: &Path, watch: &dyn Watch) -> Result<()> {
    place(tree, to, watch, &|member| Ok(member.executable || is_run(member.path)))
}

/// Makes the files of a tree. `decide` says of each whether it may be run. No file lies in what is no folder of the tree ([`Tree`]), so
/// nothing is followed.
fn place(
    tree: &Tree,
    to: &Path,
    watch: &dyn Watch,
    decide: &dyn Fn(&Member<'_>) -> Result<bool>,
) -> Result<()> {
    make_dir(to)?;
    tree.visit(watch, &mut |member, contents| {
        let executable = decide(member)?;
        let inner = |path: &[u8]| to.join(OsStr::from_bytes(path));
        let path = inner(member.path);
        let failed = || format!("cannot make `{}`", path.display());
        for (at, _) in member.path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            make_dir(&inner(&member.path[..at]))?;
        }
        match member.kind {
            MemberKind::Dir => make_dir(&path)?,
            MemberKind::File { size } => {
                let mut file = File::create_new(&path).with_context(failed)?;
                let copied = io::copy(&mut contents.take(size.saturating_add(1)), &mut file);
                if copied.with_context(failed)? != size {
                    return Err(SourceError::entry(member.path, "has another size than it is said to").into());
                }
                let mode = if executable { 0o755 } else { 0o644 };
                file.set_permissions(Permissions::from_mode(mode)).with_context(failed)?;
            }
            MemberKind::Symlink { target } => {
                symlink(OsStr::from_bytes(target), &path).with_context(failed)?;
            }
            MemberKind::HardLink { target } => fs::hard_link(inner(target), &path).with_context(failed)?,
        }
        Ok(())
    })
}

fn make_dir(path: &Path) -> Result<()> {
    let made = match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        made => made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755))),
    };
    made.with_context(|| format!("cannot make `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_within() {
        for (path, target, want) in [
            ("l", "a", false),
            ("l", "./a/b", false),
            ("a/l", "../b", false),
            ("a/b/l", "../../c/d", false),
            ("a/l", "./../b", false),
            ("l", "..", true),
            ("l", "../a", true),
            ("a/l", "../../b", true),
            ("l", "/etc/passwd", true),
            // Another link may be on the way.
            ("a/l", "b/../c", true),
        ] {
            assert_eq!(leads_out(path.as_bytes(), target.as_bytes()), want, "{path} → {target}");
        }
    }
}
