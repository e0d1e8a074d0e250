//! Entries as values: what an archive says of a file, without the file's contents.

use std::collections::BTreeMap;

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// As it stands in the archive: with or without a slash at the beginning, and at the end of a directory's.
    pub name: &'a [u8],
    /// What it is, with what only that kind has.
    pub kind: Kind<'a>,
    /// Permissions with setuid, setgid and sticky bits (0o7777).
    pub mode: u32,
    /// Who it belongs to, by numbers; names of users and groups are neither written nor read.
    pub owner: Owner,
    /// When it was modified.
    pub modified: Time,
    /// Extended attributes.
    pub xattrs: &'a Xattrs,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A file, whose contents follow.
    File {
        /// Bytes in it.
        size: u64,
    },
    /// A directory.
    Dir,
    /// A symlink.
    Symlink {
        /// What it points to, as it was made: anything.
        target: &'a [u8],
    },
    /// Another name for an entry before this one.
    HardLink {
        /// That entry's name.
        target: &'a [u8],
    },
    /// A FIFO.
    Fifo,
    /// A device of characters.
    CharDevice(Device),
    /// A device of blocks.
    BlockDevice(Device),
}

/// A device's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// The driver's.
    pub major: u32,
    /// The device's among those of the driver.
    pub minor: u32,
}

/// Who a file belongs to: numbers of a tar, which need not be those of users here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
}

impl Owner {
    /// The superuser and its group.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };
}

/// A moment, from 1970-01-01T00:00:00Z on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds, rounded down; negative before 1970.
    pub seconds: i64,
    /// What is left of a second: less than 1,000,000,000.
    pub nanoseconds: u32,
}

/// Extended attributes: values by names such as `security.capability`.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What most files have.
pub const NO_XATTRS: &Xattrs = &Xattrs::new();
