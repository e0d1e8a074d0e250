//! Which files of the source of an app are built.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// A text that is no pattern of `.gitignore`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern `{pattern}`: {reason}")]
pub struct NoPattern {
    /// The text.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Which files of the source are built: patterns are those of `.gitignore`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Selection {
    /// All.
    #[default]
    All,
    /// Those that fit a pattern.
    Only(Vec<String>),
    /// Those that fit none.
    Without(Vec<String>),
}

impl Selection {
    /// Removes from a copy of the source what is not to be built. Fails with [`NoPattern`], or as files cannot be removed.
    pub fn apply(&self, root: &Path) -> Result<()> {
        let (lines, keep) = match self {
            Self::All => return Ok(()),
            Self::Only(lines) => (lines, true),
            Self::Without(lines) => (lines, false),
        };
        let mut patterns = GitignoreBuilder::new(root);
        for line in lines {
            patterns
                .add_line(None, line)
                .map_err(|error| NoPattern { pattern: line.clone(), reason: error.to_string() })?;
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
    use super::*;

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
