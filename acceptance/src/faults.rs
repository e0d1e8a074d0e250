//! System calls that fail, by strace: which one, with what, and on which file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::tools::STRACE;
use crate::trace::Call;

/// System calls, and what they fail with. A short read is not among them: one end of a file that is none, and then more of it, is what no
/// file does.
pub const CALLS: [(&str, &str); 42] = [
    ("openat", "EMFILE"),
    ("openat", "EACCES"),
    ("openat2", "EMFILE"),
    ("openat2", "EACCES"),
    ("statx", "EIO"),
    ("newfstatat", "EIO"),
    ("fstat", "EIO"),
    ("read", "EIO"),
    ("pread64", "EIO"),
    ("getdents64", "EIO"),
    ("readlink", "EIO"),
    ("readlinkat", "EIO"),
    ("lseek", "EIO"),
    ("write", "ENOSPC"),
    ("write", "EPIPE"),
    ("pwrite64", "ENOSPC"),
    ("copy_file_range", "ENOSPC"),
    ("ftruncate", "ENOSPC"),
    ("mkdir", "ENOSPC"),
    ("mkdirat", "ENOSPC"),
    ("symlink", "ENOSPC"),
    ("symlinkat", "ENOSPC"),
    ("link", "EMLINK"),
    ("linkat", "EMLINK"),
    ("rename", "EROFS"),
    ("renameat", "EROFS"),
    ("renameat2", "EROFS"),
    ("unlink", "EROFS"),
    ("unlinkat", "EROFS"),
    ("rmdir", "EROFS"),
    ("fsync", "EIO"),
    ("fdatasync", "EIO"),
    ("flock", "ENOLCK"),
    ("chmod", "EPERM"),
    ("fchmod", "EPERM"),
    ("fchmodat", "EPERM"),
    ("fchownat", "EPERM"),
    ("utimensat", "EPERM"),
    ("fgetxattr", "EIO"),
    ("fsetxattr", "ENOSPC"),
    ("fstatfs", "EIO"),
    ("clone3", "EAGAIN"),
];

/// In each thread, one call of a kind fails.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The call's name.
    pub call: &'static str,
    /// The error's name.
    pub error: &'static str,
    /// Which of the thread's calls: the first is 1.
    pub number: usize,
}

/// A call that was made to fail.
#[derive(Debug)]
pub struct Felt {
    /// The error's text.
    pub cause: String,
    /// The files that the call was about.
    pub paths: Vec<PathBuf>,
}

/// Words that start a program under strace, which writes to `log` what it does by these calls. What the program starts is
/// left alone.
fn strace(log: &Path, calls: &str, further: &[&str]) -> Vec<String> {
    let trace = format!("trace={calls}");
    let log = log.display().to_string();
    let words = [STRACE.name, "-f", "-b", "execve", "-qqq", "-y", "-s", "0", "-o", &log, "-e", &trace];
    words.iter().chain(further).map(|&word| word.to_owned()).collect()
}

/// Words that start a program, and have all its calls that may be made to fail in a log.
pub fn watching(log: &Path) -> Vec<String> {
    let calls: BTreeSet<&str> = CALLS.iter().map(|(call, _)| *call).collect();
    strace(log, &calls.into_iter().map(|call| format!("?{call}")).collect::<Vec<_>>().join(","), &[])
}

impl Fault {
    /// Words that start a program that meets the fault.
    pub fn starter(&self, log: &Path) -> Vec<String> {
        let Self { call, error, number } = self;
        strace(log, call, &["-e", &format!("inject={call}:error={error}:when={number}")])
    }
}

/// What strace says of calls that it made fail.
pub fn felt(log: &str) -> Vec<Felt> {
    let calls = Call::parse(log).into_iter().filter(|call| call.text.contains("(INJECTED)"));
    let felt = |call: Call| {
        let end = call.text.rsplit_once(" = -1 ").map_or("", |(_, end)| end);
        let cause =
            end.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(text, _)| text);
        Felt { cause: cause.to_owned(), paths: files(&call) }
    };
    calls.map(felt).collect()
}

/// Which of a thread's calls of each name were about files below one of these folders.
pub fn of_folders(log: &str, folders: &[&Path]) -> BTreeMap<String, BTreeSet<usize>> {
    let mut made: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut own: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for call in Call::parse(log) {
        let number = made.entry((call.thread.clone(), call.name.clone())).or_default();
        *number += 1;
        let is_own = |path: &PathBuf| folders.iter().any(|dir| path.starts_with(dir));
        // A thread is about no file.
        if call.name == "clone3" || files(&call).iter().any(is_own) {
            own.entry(call.name).or_default().insert(*number);
        }
    }
    own
}

/// The files that a call names, or those behind its descriptors if it names none.
fn files(call: &Call) -> Vec<PathBuf> {
    let named = call.paths(true).unwrap_or_default();
    let mut files = if named.is_empty() { call.handles() } else { named };
    files.retain(|path| path.is_absolute());
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"10 openat(AT_FDCWD</a>, "/lib/x", O_RDONLY) = 3</lib/x>
10 openat(AT_FDCWD</a>, "/a/b/c", O_RDONLY <unfinished ...>
11 openat(5</a/b>, "d", O_RDONLY) = -1 EMFILE (Too many open files) (INJECTED)
10 <... openat resumed>) = 4</a/b/c>
10 read(4</a/b/c>, ""..., 8192) = -1 EIO (Input/output error) (INJECTED)
"#;

    #[test]
    fn what_was_made_to_fail_is_known_with_its_file() {
        let felt = felt(LOG);
        assert_eq!(felt[0].cause, "Too many open files");
        assert_eq!(felt[0].paths, [Path::new("/a/b/d")]);
        assert_eq!(
            (felt[1].cause.as_str(), felt[1].paths.as_slice()),
            ("Input/output error", &["/a/b/c".into()][..])
        );
    }

    #[test]
    fn calls_on_files_elsewhere_do_not_count() {
        let own = of_folders(LOG, &[Path::new("/a/b")]);
        assert_eq!(own["openat"], [1, 2].into());
        assert_eq!(own["read"], [1].into());
    }
}
