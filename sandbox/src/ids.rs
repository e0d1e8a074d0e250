//! The users and groups of a user namespace.
//!
//! An ordinary user has subordinate ids, which `/etc/subuid` and `/etc/subgid` list. In the namespace, the user is one
//! chosen id: files that the process writes as this id belong to the user outside. All other ids are subordinate ones.

use std::fs;

/// Some ids that follow each other: inside, outside, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first one inside.
    pub inside: u32,
    /// The first one outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Which ids there are in this process's user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// All: it is the machine's own.
    All,
    /// Several.
    Several,
    /// Only that of this process.
    One,
}

impl Ids {
    /// Those of this process.
    pub fn of_process() -> Self {
        // Without /proc, there is nothing to be known of it; then nothing that needs more ids works.
        fs::read_to_string("/proc/self/uid_map").map_or(Self::One, |map| Self::of_map(&map))
    }

    fn of_map(map: &str) -> Self {
        let ranges: Vec<Vec<u64>> = map
            .lines()
            .map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
            .collect();
        match ranges.as_slice() {
            [only] if only.as_slice() == [0, 0, u64::from(u32::MAX)] => Self::All,
            [only] if only.get(2) == Some(&1) => Self::One,
            _ => Self::Several,
        }
    }
}

/// Whether there is an id in a namespace, by the text of its `/proc/<pid>/uid_map` or `gid_map`.
pub(crate) fn is_mapped(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(count))) = (numbers.next(), numbers.nth(1)) else { return false };
        u64::from(id).checked_sub(first).is_some_and(|after| after < count)
    })
}

/// The ids of the namespace: `outside` is `inside` there, and all others from 0 on are subordinate ones.
pub fn map(inside: u32, outside: u32, subordinate: (u32, u32)) -> Vec<Range> {
    let (first, count) = subordinate;
    let before = inside.min(count);
    let mut ranges = vec![Range { inside, outside, count: 1 }];
    if before > 0 {
        ranges.insert(0, Range { inside: 0, outside: first, count: before });
    }
    if count > before && inside < u32::MAX {
        ranges.push(Range { inside: inside + 1, outside: first + before, count: count - before });
    }
    ranges
}

/// The first subordinate ids of a user, and how many they are, from the text of `/etc/subuid` or `/etc/subgid`.
pub fn subordinate(text: &str, name: Option<&str>, uid: u32) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (owner, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        let is_ours = Some(owner) == name || owner.parse() == Ok(uid);
        let (first, count): (u32, u32) = (first.trim().parse().ok()?, count.trim().parse().ok()?);
        (is_ours && count > 0 && first.checked_add(count).is_some()).then_some((first, count))
    })
}

/// The name of a user in the text of `/etc/passwd`.
pub fn name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(found: &[Range]) -> Vec<(u32, u32, u32)> {
        found.iter().map(|range| (range.inside, range.outside, range.count)).collect()
    }

    #[test]
    fn what_a_map_has_is_there() {
        let map = "         0     100000       1000\n      1000       1001          1\nx\n";
        for (id, want) in [(0, true), (999, true), (1000, true), (1001, false), (u32::MAX, false)] {
            assert_eq!(is_mapped(map, id), want, "{id}");
        }
        assert!(is_mapped("0 0 4294967295\n", 4_294_967_294));
    }

    #[test]
    fn the_user_is_the_chosen_id_and_the_others_are_subordinate() {
        let sub = (100_000, 65_536);
        assert_eq!(
            ranges(&map(1000, 1001, sub)),
            [(0, 100_000, 1000), (1000, 1001, 1), (1001, 101_000, 64_536)]
        );
        assert_eq!(ranges(&map(0, 1001, sub)), [(0, 1001, 1), (1, 100_000, 65_536)]);
        assert_eq!(ranges(&map(70_000, 1001, sub)), [(0, 100_000, 65_536), (70_000, 1001, 1)]);
    }

    #[test]
    fn subordinate_ids_are_found_by_name_and_by_number() {
        let text = "other:100000:65536\nanna:165536:1000\n1002:300000:5\nbad:x:y\nfull:4294967295:2\n";
        assert_eq!(subordinate(text, Some("anna"), 1001), Some((165_536, 1000)));
        assert_eq!(subordinate(text, None, 1002), Some((300_000, 5)));
        for name in ["bad", "full", "nobody"] {
            assert_eq!(subordinate(text, Some(name), 1001), None, "{name}");
        }
    }

    #[test]
    fn maps_tell_which_ids_there_are() {
        for (map, want) in [
            ("         0          0 4294967295\n", Ids::All),
            ("      1000       1001          1\n", Ids::One),
            ("0 100000 1000\n1000 1001 1\n", Ids::Several),
            ("0 0 65536\n", Ids::Several),
        ] {
            assert_eq!(Ids::of_map(map), want, "{map}");
        }
    }

    #[test]
    fn users_have_names() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\ncnb:x:1001:1002::/home/cnb:/bin/sh\n";
        assert_eq!([name(passwd, 1001), name(passwd, 7)], [Some("cnb"), None]);
    }
}
