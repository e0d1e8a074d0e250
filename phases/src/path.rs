//! Paths as texts.

use std::path::{Component, Path, PathBuf};

/// Without `.`, `..`, doubled slashes and a slash at the end, as far as can be told without looking at the disk.
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => match clean.components().next_back() {
                Some(Component::Normal(_)) => {
                    clean.pop();
                }
                Some(Component::RootDir) => {}
                _ => clean.push(component),
            },
            _ => clean.push(component),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_paths() {
        for (path, expected) in [
            ("/a//b/./c/", "/a/b/c"),
            ("/../a/../b", "/b"),
            ("a/../../b", "../b"),
            ("./a", "a"),
            ("", ""),
            (".", ""),
            ("/", "/"),
        ] {
            assert_eq!(clean(Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
