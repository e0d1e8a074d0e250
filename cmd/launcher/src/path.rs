//! Paths as byte strings: joined, shortened by text alone, taken apart.

use alloc::vec::Vec;

/// Shortens a path without looking at the file system: no empty and no `.` elements, no element before a `..`, no
/// slash at the end. An empty path becomes `.`.
pub(crate) fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.first() == Some(&b'/');
    let mut elements: Vec<&[u8]> = Vec::new();
    for element in path.split(|&byte| byte == b'/') {
        match element {
            b"" | b"." => {}
            b".." if elements.last().is_some_and(|last| *last != b"..") => {
                elements.pop();
            }
            b".." if rooted => {}
            _ => elements.push(element),
        }
    }
    let joined = elements.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/", joined.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

/// Appends an element and shortens the whole.
pub(crate) fn join(dir: &[u8], element: &[u8]) -> Vec<u8> {
    clean(&[dir, element].join(&b'/'))
}

/// What follows the last slash.
pub(crate) fn base(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cleans() {
        for (path, cleaned) in [
            ("", "."),
            (".", "."),
            ("./", "."),
            ("/", "/"),
            ("//", "/"),
            ("/layers/", "/layers"),
            ("/a//b/./c/../d", "/a/b/d"),
            ("/../a", "/a"),
            ("../a/../../b", "../../b"),
            ("a/..", "."),
            ("./run", "run"),
        ] {
            assert_eq!(clean(path.as_bytes()), cleaned.as_bytes(), "{path}");
        }
    }

    #[test]
    fn joins_and_splits() {
        assert_eq!(join(b"/layers/", b"config"), b"/layers/config");
        assert_eq!(join(b".", b"run"), b"run");
        for (path, last) in [("/cnb/process/web", "web"), ("web", "web"), ("/cnb/", ""), ("", "")] {
            assert_eq!(base(path.as_bytes()), last.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn clean_is_idempotent(path in "[a./]{0,12}") {
            let cleaned = clean(path.as_bytes());
            prop_assert_eq!(clean(&cleaned), &*cleaned);
            prop_assert_eq!(cleaned.first() == Some(&b'/'), path.starts_with('/'));
        }
    }
}
