//! The Bash command line of a process that is not direct.
//!
//! An outer Bash sources the profile scripts and changes to the working directory; it is then replaced by an inner
//! Bash, which runs the command.

use alloc::vec::Vec;

use core::fmt::Write;

use alloc::string::String;

/// The shell that runs processes.
pub(crate) const PROGRAM: &[u8] = b"/bin/bash";

/// The argument vector for [`PROGRAM`].
///
/// `caller` is `$0` while `profiles` are sourced. Without `args`, `command` is a script. With `args`, the command and
/// each argument are words: the shell expands variables in them, but does not split them.
pub(crate) fn arguments(
    caller: &[u8],
    profiles: &[Vec<u8>],
    working_dir: &[u8],
    command: &[u8],
    args: &[Vec<u8>],
) -> Vec<Vec<u8>> {
    let mut script = Vec::new();
    for profile in profiles {
        script.extend([b"source \"", profile.as_slice(), b"\"\n"].concat());
    }
    script.extend([b"cd \"", working_dir, b"\"\n"].concat());
    script.extend(inner_shell(args.len()).into_bytes());
    let mut arguments =
        Vec::from([b"bash".to_vec(), b"-c".to_vec(), script, caller.to_vec(), command.to_vec()]);
    arguments.extend_from_slice(args);
    arguments
}

/// Runs the inner Bash, for a command with so many arguments.
fn inner_shell(args: usize) -> String {
    if args == 0 {
        return String::from(r#"exec bash -c "$@""#);
    }
    let mut script = String::from(r#"exec bash -c '"$(eval echo \"$0\")""#);
    for number in 1..=args {
        write!(script, r#" "$(eval echo \"${{{number}}}\")""#).expect("writing to a string cannot fail");
    }
    script.push_str(r#"' "${@:1}""#);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script() {
        let argv = arguments(b"/cnb/process/web", &[], b"/workspace", b"echo $HOME", &[]);
        assert_eq!(
            argv,
            [
                &b"bash"[..],
                b"-c",
                b"cd \"/workspace\"\nexec bash -c \"$@\"",
                b"/cnb/process/web",
                b"echo $HOME"
            ]
        );
    }

    #[test]
    fn words_with_profiles() {
        let profiles = [b"/layers/a/l/profile.d/x.sh".to_vec(), b".profile".to_vec()];
        let argv = arguments(b"launcher", &profiles, b"/tmp", b"echo", &[b"a b".to_vec(), b"\"".to_vec()]);
        let script = concat!(
            "source \"/layers/a/l/profile.d/x.sh\"\nsource \".profile\"\ncd \"/tmp\"\n",
            r#"exec bash -c '"$(eval echo \"$0\")" "$(eval echo \"${1}\")" "$(eval echo \"${2}\")"' "${@:1}""#
        );
        assert_eq!(argv, [&b"bash"[..], b"-c", script.as_bytes(), b"launcher", b"echo", b"a b", b"\""]);
    }
}
