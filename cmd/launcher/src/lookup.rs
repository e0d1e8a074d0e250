//! Finding a program as a shell does.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::{Errno, Error};
use crate::path;
use crate::system::{Kind, System};
use crate::text::quote;

/// The path of a program: `name` itself if it holds a slash, else the first file in the folders of `path` (separated
/// by `:`, an empty one being the current folder) that can be executed.
///
/// A program that would be found relative to the current folder, without the name saying so, is refused.
pub(crate) fn look_path(system: &impl System, name: &[u8], path: &[u8]) -> Result<Vec<u8>, Error> {
    let failed = |cause: &str| Err(Error::new(format_args!("exec: {}: {cause}", quote(name))));
    if name.contains(&b'/') {
        return match check_executable(system, name) {
            Ok(()) => Ok(name.to_vec()),
            Err(cause) => failed(&cause),
        };
    }
    let dirs = if path.is_empty() || matches!(name, b"" | b"." | b"..") { None } else { Some(path) };
    let mut candidates = dirs
        .into_iter()
        .flat_map(|path| path.split(|&byte| byte == b':'))
        .map(|dir| path::join(dir_or_dot(dir), name));
    match candidates.find(|candidate| check_executable(system, candidate).is_ok()) {
        Some(found) if found.starts_with(b"/") => Ok(found),
        Some(_) => failed("cannot run executable found relative to current directory"),
        None => failed("executable file not found in $PATH"),
    }
}

fn dir_or_dot(dir: &[u8]) -> &[u8] {
    if dir.is_empty() { b"." } else { dir }
}

/// Why a file cannot be executed.
fn check_executable(system: &impl System, path: &[u8]) -> Result<(), String> {
    if system.kind(path).map_err(|error| format!("{error}"))? == Kind::Directory {
        return Err(format!("{}", Errno::ISDIR));
    }
    system.check_executable(path).map_err(|errno| format!("{errno}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::fake::Fake;

    #[test]
    fn finds() {
        let system = Fake::new(&[
            ("/bin/tool", "x"),
            ("/usr/bin/tool", "x"),
            ("/usr/bin/other", "x"),
            ("/bin/plain", "-"),
            ("/bin/dir/x", "x"),
            ("local", "x"),
            ("sub/run", "x"),
        ]);
        for (name, path, found) in [
            ("tool", "/bin:/usr/bin", Ok("/bin/tool")),
            ("other", "/bin:/usr/bin", Ok("/usr/bin/other")),
            ("tool", "/usr//bin/", Ok("/usr/bin/tool")),
            ("/bin/tool", "", Ok("/bin/tool")),
            ("./local", "", Ok("./local")),
            ("sub/run", "", Ok("sub/run")),
            ("tool", "", Err("exec: \"tool\": executable file not found in $PATH")),
            ("no\"ne", "/bin", Err("exec: \"no\\\"ne\": executable file not found in $PATH")),
            ("plain", "/bin", Err("exec: \"plain\": executable file not found in $PATH")),
            ("dir", "/bin", Err("exec: \"dir\": executable file not found in $PATH")),
            ("", "/bin", Err("exec: \"\": executable file not found in $PATH")),
            ("..", "/bin", Err("exec: \"..\": executable file not found in $PATH")),
            (
                "local",
                "/bin:",
                Err("exec: \"local\": cannot run executable found relative to current directory"),
            ),
            ("run", "sub", Err("exec: \"run\": cannot run executable found relative to current directory")),
            ("./none", "", Err("exec: \"./none\": stat ./none: no such file or directory")),
            ("/bin/dir", "", Err("exec: \"/bin/dir\": is a directory")),
            ("/bin/plain", "", Err("exec: \"/bin/plain\": permission denied")),
        ] {
            let result = look_path(&system, name.as_bytes(), path.as_bytes());
            let expected = found.map(|found| found.as_bytes().to_vec()).map_err(Error::new);
            assert_eq!(result, expected, "{name} {path}");
        }
    }
}
