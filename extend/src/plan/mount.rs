//! What a `RUN` sees besides the image: its mounts, and the network.

use super::From;

/// Something that is there while a program runs, and in no layer. Targets are absolute; they are made if they are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// A file or a folder of a context.
    Bind {
        /// Where it comes from.
        from: From,
        /// Which one, absolute.
        source: String,
        /// Where it is seen.
        target: String,
        /// Whether it can be written; what is written is thrown away.
        writable: bool,
    },
    /// A folder that is kept for the next time.
    Cache {
        /// What it is called: mounts of one name are one folder.
        id: String,
        /// Where it is seen.
        target: String,
        /// Who may use it at a time.
        sharing: Sharing,
        /// What it holds when it is new; nothing, if none.
        from: Option<From>,
        /// The folder there, absolute.
        source: String,
        /// Permissions when it is new.
        mode: u32,
        /// Whose it is when it is new.
        uid: u32,
        /// Whose it is when it is new.
        gid: u32,
        /// Whether it can be written.
        writable: bool,
    },
    /// An empty folder in memory.
    Tmpfs {
        /// Where it is seen.
        target: String,
        /// Bytes that it holds; as the kernel chooses, if none.
        size: Option<u64>,
    },
    /// A secret, as a file, as a variable or as both.
    Secret {
        /// Which one.
        id: String,
        /// Where the file is seen.
        target: Option<String>,
        /// What the variable is called.
        env: Option<String>,
        /// Whether it must be there.
        required: bool,
        /// Permissions of the file.
        mode: u32,
        /// Whose the file is.
        uid: u32,
        /// Whose the file is.
        gid: u32,
    },
}

/// Who may use a cache at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Everyone.
    Shared,
    /// Everyone has one alone.
    Private,
    /// One after the other.
    Locked,
}

/// Which network a program sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// That which the engine gives to programs.
    Default,
    /// None.
    None,
    /// The machine's.
    Host,
}
