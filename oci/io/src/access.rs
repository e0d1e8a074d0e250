//! What the mode of a file or a folder lets a user do, without access control lists.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::Stat;
use rustix::process::{getegid, geteuid};

/// The right to read.
pub const READ: u32 = 0o4;
/// The right to write.
pub const WRITE: u32 = 0o2;
/// The right to look for a name in a folder.
pub const SEARCH: u32 = 0o1;

/// A user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

impl User {
    /// Who this process runs as.
    pub fn current() -> Self {
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw() }
    }
}

/// Who may do what with a file or a folder.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// Whose it is.
    pub owner: User,
    /// Its mode; what is not of permissions does not count.
    pub mode: u32,
}

impl From<&Metadata> for Access {
    fn from(facts: &Metadata) -> Self {
        Self { owner: User { uid: facts.uid(), gid: facts.gid() }, mode: facts.mode() }
    }
}

impl From<&Stat> for Access {
    fn from(facts: &Stat) -> Self {
        Self { owner: User { uid: facts.st_uid, gid: facts.st_gid }, mode: facts.st_mode }
    }
}

impl Access {
    /// Whether `user` may do this.
    pub fn allows(self, user: User, right: u32) -> bool {
        let shift = match self.owner {
            User { uid, .. } if uid == user.uid => 6,
            User { gid, .. } if gid == user.gid => 3,
            _ => 0,
        };
        self.mode >> shift & right == right
    }

    /// Whether the user with this number may do this, whichever groups that user is in.
    pub fn allows_in_any_groups(self, uid: u32, right: u32) -> bool {
        let rights = if uid == self.owner.uid { self.mode >> 6 } else { self.mode >> 3 & self.mode };
        rights & right == right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_fits_counts() {
        let user = User { uid: 1000, gid: 1001 };
        for (uid, gid, mode, right, want) in [
            (1000, 0, 0o100_400, READ, true),
            (1000, 0, 0o100_044, READ, false),
            (0, 1001, 0o100_040, READ, true),
            (0, 1001, 0o100_604, READ, false),
            (0, 0, 0o100_004, READ, true),
            (0, 0, 0o40_750, SEARCH, false),
            (1001, 1000, 0o40_771, SEARCH, true),
            (1001, 1000, 0o40_771, READ | SEARCH, false),
            (0, 1001, 0o40_720, WRITE, true),
        ] {
            let access = Access { owner: User { uid, gid }, mode };
            assert_eq!(access.allows(user, right), want, "{uid}:{gid} {mode:o} {right}");
        }
        for (uid, mode, want) in [
            (1000, 0o100_400, true),
            (1000, 0o100_044, false),
            (0, 0o100_640, false),
            (0, 0o100_604, false),
            (0, 0o100_644, true),
        ] {
            let access = Access { owner: User { uid, gid: 1001 }, mode };
            assert_eq!(access.allows_in_any_groups(user.uid, READ), want, "{uid} {mode:o}");
        }
    }
}
