//! What the launcher needs of the operating system.

use alloc::vec::Vec;

use crate::error::{Errno, Error, IoError};

/// The operating system. Paths are byte strings, relative ones are relative to the current folder.
pub trait System {
    /// Everything that a regular file of at most `limit` bytes holds.
    fn read_file(&self, path: &[u8], limit: usize) -> Result<Vec<u8>, IoError>;

    /// What is in a folder, in any order, without `.` and `..`.
    fn read_dir(&self, path: &[u8]) -> Result<Vec<Entry>, IoError>;

    /// What a path leads to, symbolic links followed.
    fn kind(&self, path: &[u8]) -> Result<Kind, IoError>;

    /// Whether this process may execute a file.
    fn check_executable(&self, path: &[u8]) -> Result<(), Errno>;

    /// The path of the current folder.
    fn current_dir(&self) -> Result<Vec<u8>, Errno>;

    /// Changes the current folder.
    fn change_dir(&self, path: &[u8]) -> Result<(), IoError>;

    /// Runs an `exec.d` program to its end: its standard input is empty, standard output and error are the
    /// launcher's, and what it writes to file descriptor 3, at most `limit` bytes, is returned.
    fn run_exec_d(&self, path: &[u8], env: &[Vec<u8>], limit: usize) -> Result<Finished, Error>;

    /// Becomes another program, with the same process id. Returns only if that fails.
    fn exec(&self, program: &[u8], arguments: &[Vec<u8>], env: &[Vec<u8>]) -> Errno;

    /// Whether standard error is a terminal.
    fn stderr_is_terminal(&self) -> bool;

    /// Writes to standard error; a failure has nowhere to be told.
    fn write_stderr(&self, text: &str);
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Directory,
    /// A symbolic link; only in [`Entry`].
    Symlink,
    /// A file of any other kind.
    File,
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, without the folder.
    pub name: Vec<u8>,
    /// What it is, symbolic links not followed.
    pub kind: Kind,
}

/// A program that was run to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// What it wrote to file descriptor 3.
    pub output: Vec<u8>,
    /// How it ended.
    pub exit: Exit,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited, with this code.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// The signal's number.
        number: i32,
        /// Whether its memory was written to a core file.
        core_dumped: bool,
    },
}

#[cfg(test)]
pub(crate) mod fake {
    //! An operating system of a few files, which notes what is done to it.

    use std::cell::RefCell;
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::error::Reason;
    use crate::path;

    /// Files by path. `x` as contents is a program that ends well and says nothing; contents that begin with `x\n` are
    /// one that writes what follows to file descriptor 3; all else cannot be executed.
    pub(crate) struct Fake {
        files: BTreeMap<Vec<u8>, Vec<u8>>,
        pub(crate) calls: RefCell<Vec<String>>,
        pub(crate) stderr: RefCell<String>,
    }

    impl Fake {
        pub(crate) fn new(files: &[(&str, &str)]) -> Self {
            let files = files.iter().map(|(path, contents)| ((*path).into(), (*contents).into())).collect();
            Self { files, calls: RefCell::default(), stderr: RefCell::default() }
        }

        fn note(&self, call: &str, words: &[&[u8]]) {
            let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
            self.calls.borrow_mut().push(format!("{call} {}", words.join(" ")));
        }

        fn below<'a>(&'a self, dir: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
            self.files.keys().filter_map(move |path| path.strip_prefix(dir)?.strip_prefix(b"/"))
        }
    }

    fn missing(call: &'static str, path: &[u8]) -> IoError {
        IoError { call, path: path.to_vec(), reason: Reason::Errno(Errno::NOENT) }
    }

    impl System for Fake {
        fn read_file(&self, path: &[u8], limit: usize) -> Result<Vec<u8>, IoError> {
            let contents = self.files.get(path).cloned().ok_or_else(|| missing("open", path))?;
            if contents.len() > limit {
                return Err(IoError { call: "read", path: path.to_vec(), reason: Reason::LargerThan(limit) });
            }
            Ok(contents)
        }

        fn read_dir(&self, path: &[u8]) -> Result<Vec<Entry>, IoError> {
            let entries: BTreeSet<(&[u8], bool)> = self
                .below(path)
                .map(|below| match below.iter().position(|byte| *byte == b'/') {
                    Some(slash) => (&below[..slash], true),
                    None => (below, false),
                })
                .collect();
            if entries.is_empty() {
                return Err(missing("open", path));
            }
            let entry = |&(name, is_dir): &(&[u8], bool)| Entry {
                name: name.to_vec(),
                kind: if is_dir { Kind::Directory } else { Kind::File },
            };
            Ok(entries.iter().rev().map(entry).collect())
        }

        fn kind(&self, path: &[u8]) -> Result<Kind, IoError> {
            let clean = path::clean(path);
            match (self.files.contains_key(&clean), self.below(&clean).next()) {
                (true, _) => Ok(Kind::File),
                (false, Some(_)) => Ok(Kind::Directory),
                (false, None) => Err(missing("stat", path)),
            }
        }

        fn check_executable(&self, path: &[u8]) -> Result<(), Errno> {
            let contents = self.files.get(&path::clean(path)).ok_or(Errno::NOENT)?;
            if contents.starts_with(b"x") { Ok(()) } else { Err(Errno::ACCES) }
        }

        fn current_dir(&self) -> Result<Vec<u8>, Errno> {
            Ok(b"/current".to_vec())
        }

        fn change_dir(&self, path: &[u8]) -> Result<(), IoError> {
            self.note("chdir", &[path]);
            if path == b"/missing" { Err(missing("chdir", path)) } else { Ok(()) }
        }

        fn run_exec_d(&self, path: &[u8], env: &[Vec<u8>], _limit: usize) -> Result<Finished, Error> {
            self.note("exec.d", &[path, &env.join(&b' ')]);
            let contents = self.files.get(path).ok_or_else(|| Error::new(missing("fork/exec", path)))?;
            match contents.strip_prefix(b"x\n") {
                Some(output) => Ok(Finished { output: output.to_vec(), exit: Exit::Code(0) }),
                None => Ok(Finished { output: Vec::new(), exit: Exit::Code(7) }),
            }
        }

        fn exec(&self, program: &[u8], arguments: &[Vec<u8>], env: &[Vec<u8>]) -> Errno {
            self.note("exec", &[program, b"|", &arguments.join(&b' '), b"|", &env.join(&b' ')]);
            Errno(8)
        }

        fn stderr_is_terminal(&self) -> bool {
            true
        }

        fn write_stderr(&self, text: &str) {
            self.stderr.borrow_mut().push_str(text);
        }
    }
}
