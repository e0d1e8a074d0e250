//! Names of entries, as paths below the directory that is extracted to.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

/// The directory whose contents are extracted, as the tar calls it.
#[derive(Debug)]
pub(super) struct Below {
    names: Vec<Vec<u8>>,
}

/// Where an entry belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// On the way to the directory.
    Above,
    /// It is the directory itself.
    Itself,
    /// In the directory.
    Below,
}

/// A path below the directory may have so many bytes: those that a system call takes. One that is much longer would have
/// very many directories.
const MAX_PATH: usize = 4096;

impl Below {
    pub(super) fn new(dir: &Path) -> Self {
        let mut names = Vec::new();
        for component in dir.components() {
            match component {
                Component::Normal(name) => names.push(name.as_bytes().to_vec()),
                Component::ParentDir => drop(names.pop()),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        Self { names }
    }

    /// Tells where `name` belongs, and puts its path below the directory into `path`: names joined with single slashes,
    /// none of them `.` or `..`.
    pub(super) fn locate(&self, name: &[u8], path: &mut Vec<u8>) -> Result<Where, &'static str> {
        path.clear();
        if name.is_empty() {
            return Err("it has no name");
        }
        if name.contains(&0) {
            return Err("its name has a NUL");
        }
        let mut above = self.names.iter();
        for name in name.split(|&byte| byte == b'/').filter(|&name| !matches!(name, b"" | b".")) {
            if name == b".." {
                return Err("its name has a `..`");
            }
            match above.next() {
                Some(expected) if expected == name => {}
                Some(_) => return Err("it lies outside"),
                None => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(name);
                }
            }
        }
        match (path.len(), above.next()) {
            (0, Some(_)) => Ok(Where::Above),
            (0, None) => Ok(Where::Itself),
            (..=MAX_PATH, _) => Ok(Where::Below),
            _ => Err("its path is longer than 4096 bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locates_names() {
        let below = Below::new(Path::new("/layers/./x/"));
        let mut path = Vec::new();
        let mut locate = |name: &str| {
            below
                .locate(name.as_bytes(), &mut path)
                .map(|place| (place, String::from_utf8(path.clone()).unwrap()))
        };
        for (name, place) in [
            ("/", Where::Above),
            (".", Where::Above),
            ("./", Where::Above),
            ("/layers", Where::Above),
            ("layers/", Where::Above),
            ("/layers/x", Where::Itself),
            ("//layers//x//", Where::Itself),
        ] {
            assert_eq!(locate(name), Ok((place, String::new())), "{name}");
        }
        let long = "d/".repeat(2047) + "dd";
        for (name, path) in [
            (&*format!("/layers/x/{long}"), &*long),
            ("/layers/x/a", "a"),
            ("layers/x//a/./b/", "a/b"),
            ("./layers/x/...", "..."),
        ] {
            assert_eq!(locate(name), Ok((Where::Below, path.to_owned())), "{name}");
        }
        let outside = [
            "",
            "/etc",
            "/layers/y",
            "/layersx/x/a",
            "/layers/x/../x/a",
            "../layers/x/a",
            "..",
            "/layers/x/\0",
            &format!("/layers/x/{}", "d/".repeat(2049)),
        ];
        for name in outside {
            assert!(locate(name).is_err(), "{name}");
        }
    }

    #[test]
    fn everything_is_below_the_root() {
        let mut path = Vec::new();
        assert_eq!(Below::new(Path::new("/")).locate(b"a/b", &mut path), Ok(Where::Below));
        assert_eq!(path, b"a/b");
    }
}
