//! Permissions that directories are given at the end, because they would keep us from making what is in them.

use rustix::fs::Mode;

/// So much is remembered: the permissions of 270,000 directories with paths of a hundred bytes.
const MOST: usize = 32 << 20;

/// Directories and the permissions that they are to get.
#[derive(Debug, Default)]
pub(super) struct LateModes {
    /// One after the other.
    paths: Vec<u8>,
    /// Where the path of each begins.
    modes: Vec<(usize, Mode)>,
}

impl LateModes {
    /// Adds a directory after those that it is in; tells whether there was room.
    pub(super) fn add(&mut self, path: &[u8], mode: Mode) -> bool {
        let used = self.paths.len() + self.modes.len() * size_of::<(usize, Mode)>();
        if path.len() > MOST.saturating_sub(used) {
            return false;
        }
        self.modes.push((self.paths.len(), mode));
        self.paths.extend_from_slice(path);
        true
    }

    /// Takes away the one that was added last: those in a directory come before it.
    pub(super) fn take_last(&mut self) -> Option<(Vec<u8>, Mode)> {
        let (start, mode) = self.modes.pop()?;
        Some((self.paths.split_off(start), mode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_comes_first() {
        let mut late = LateModes::default();
        let dirs = [("a", 0o500), ("a/b", 0o400), ("c", 0)];
        assert!(dirs.iter().all(|(path, mode)| late.add(path.as_bytes(), Mode::from_raw_mode(*mode))));
        let taken = std::iter::from_fn(|| late.take_last());
        let taken: Vec<_> =
            taken.map(|(path, mode)| (String::from_utf8(path).unwrap(), mode.as_raw_mode())).collect();
        assert_eq!(taken, [("c".to_owned(), 0), ("a/b".to_owned(), 0o400), ("a".to_owned(), 0o500)]);
    }

    #[test]
    fn there_is_room_for_many_and_no_more() {
        for (path, least, most) in [
            (&b"x"[..], 1_000_000, 2_000_000),
            (&[b'x'; 100], 270_000, 300_000),
            (&[b'x'; 4096], 8_000, 8_192),
        ] {
            let mut late = LateModes::default();
            let added = (0..3_000_000).take_while(|_| late.add(path, Mode::RUSR)).count();
            assert!((least..=most).contains(&added), "{}: {added}", path.len());
        }
    }
}
