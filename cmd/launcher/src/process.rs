//! Which process is started, and with which arguments.

use alloc::vec::Vec;

use crate::api::PlatformApi;
use crate::error::Error;
use crate::metadata::{Metadata, Process};
use crate::path;
use crate::text::lossy;

/// The process that the launcher was called for.
///
/// `caller` is the launcher's `argv[0]`, whose last element is a process type when the launcher is called by its name;
/// `args` is what the user gave after it: arguments of that process, or else a command.
pub(crate) fn select(
    metadata: &Metadata,
    platform_api: PlatformApi,
    exec_env: &[u8],
    caller: &[u8],
    args: &[Vec<u8>],
) -> Result<Process, Error> {
    let process_type = path::base(caller);
    let mut of_type = metadata.processes.iter().filter(|process| process.r#type == process_type).peekable();
    if process_type.is_empty() || of_type.peek().is_none() {
        return user_process(args);
    }
    let process = of_type
        .find(|process| !platform_api.has_exec_env() || is_for(process, exec_env))
        .ok_or_else(|| Error::new(format_args!("process type {} was not found", lossy(process_type))))?
        .clone();
    if platform_api.has_overridable_args() {
        override_args(metadata, process, args)
    } else {
        Ok(append_args(process, args))
    }
}

fn is_for(process: &Process, exec_env: &[u8]) -> bool {
    process.exec_env.is_empty() || process.exec_env.iter().any(|env| env == b"*" || env == exec_env)
}

/// A command of the user's: after `--` it is started directly, otherwise by a shell.
fn user_process(args: &[Vec<u8>]) -> Result<Process, Error> {
    let (direct, command, args) = match args {
        [] => return Err(Error::new("when there is no default process a command is required")),
        [dashes, command, args @ ..] if dashes == b"--" => (true, command, args),
        [command, args @ ..] => (false, command, args),
    };
    Ok(Process { command: Vec::from([command.clone()]), args: args.to_vec(), direct, ..Process::default() })
}

fn append_args(mut process: Process, args: &[Vec<u8>]) -> Process {
    process.args.extend_from_slice(args);
    process
}

/// The user's arguments replace the process's `args`, which are defaults, but never what follows the program in
/// `command`. A command of one word may come from a buildpack to which `args` were not defaults yet.
fn override_args(metadata: &Metadata, mut process: Process, args: &[Vec<u8>]) -> Result<Process, Error> {
    if process.command.len() > 1 {
        let chosen = if args.is_empty() { process.args } else { args.to_vec() };
        process.args = process.command.split_off(1);
        process.args.extend(chosen);
        return Ok(process);
    }
    if args.is_empty() {
        return Ok(process);
    }
    let buildpack =
        metadata.buildpacks.iter().find(|buildpack| buildpack.id == process.buildpack_id).ok_or_else(
            || {
                Error::new(format_args!(
                    "failed to find buildpack for process {} with buildpack ID {}",
                    lossy(&process.r#type),
                    lossy(&process.buildpack_id)
                ))
            },
        )?;
    if !buildpack.api.has_overridable_args() {
        return Ok(append_args(process, args));
    }
    process.args = args.to_vec();
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &[u8] = br#"
        [[buildpacks]]
        id = "old"
        api = "0.8"
        [[buildpacks]]
        id = "new"
        api = "0.9"
        [[processes]]
        type = "web"
        command = ["run", "always"]
        args = ["default"]
        buildpack-id = "new"
        [[processes]]
        type = "short"
        command = ["run"]
        args = ["default"]
        buildpack-id = "new"
        [[processes]]
        type = "old"
        command = "run"
        args = ["always"]
        buildpack-id = "old"
        [[processes]]
        type = "stray"
        command = "run"
        buildpack-id = "none"
        [[processes]]
        type = "env"
        command = "for test"
        exec-env = ["test", "ci"]
        [[processes]]
        type = "env"
        command = "for all"
        exec-env = ["*"]
        [[processes]]
        type = "test-only"
        command = "run"
        exec-env = ["test"]
        [[processes]]
        type = ""
        command = "nameless"
    "#;

    fn selected(api: &str, exec_env: &str, caller: &str, args: &[&str]) -> Result<String, String> {
        let metadata = Metadata::parse(METADATA).unwrap();
        let api = PlatformApi::verify(api.as_bytes()).unwrap();
        let args: Vec<Vec<u8>> = args.iter().map(|arg| arg.as_bytes().to_vec()).collect();
        let process = select(&metadata, api, exec_env.as_bytes(), caller.as_bytes(), &args)
            .map_err(|e| e.to_string())?;
        let words = |words: &[Vec<u8>]| {
            words.iter().map(|w| String::from_utf8_lossy(w).into_owned()).collect::<Vec<_>>()
        };
        Ok(format!(
            "{}{} | {}",
            if process.direct { "direct " } else { "" },
            words(&process.command).join(","),
            words(&process.args).join(",")
        ))
    }

    #[test]
    fn arguments() {
        for (api, caller, args, expected) in [
            ("0.10", "/cnb/process/web", &[][..], "run | always,default"),
            ("0.10", "web", &["user"], "run | always,user"),
            ("0.9", "web", &["user"], "run,always | default,user"),
            ("0.9", "web", &[], "run,always | default"),
            ("0.10", "short", &[], "run | default"),
            ("0.10", "short", &["user"], "run | user"),
            ("0.9", "short", &["user"], "run | default,user"),
            ("0.10", "old", &["user"], "run | always,user"),
            ("0.10", "stray", &[], "run | "),
            ("0.9", "stray", &["user"], "run | user"),
            ("0.10", "launcher", &["run"], "run | "),
            ("0.10", "launcher", &["run", "user"], "run | user"),
            ("0.10", "launcher", &["--", "run", "user"], "direct run | user"),
            ("0.10", "launcher", &["--"], "-- | "),
            ("0.10", "launcher", &["", "--"], " | --"),
            ("0.10", "launcher/", &["run"], "run | "),
            ("0.10", "", &["run"], "run | "),
            ("0.10", "/cnb/process/web/", &["run"], "run | "),
        ] {
            assert_eq!(
                selected(api, "production", caller, args).as_deref(),
                Ok(expected),
                "{api} {caller} {args:?}"
            );
        }
    }

    #[test]
    fn execution_environments() {
        for (api, exec_env, caller, expected) in [
            ("0.15", "test", "env", Ok("for test | ")),
            ("0.15", "production", "env", Ok("for all | ")),
            ("0.14", "production", "env", Ok("for test | ")),
            ("0.15", "production", "test-only", Err("process type test-only was not found")),
            ("0.14", "production", "test-only", Ok("run | ")),
        ] {
            let result = selected(api, exec_env, caller, &[]);
            assert_eq!(result.as_deref().map_err(String::as_str), expected, "{api} {exec_env} {caller}");
        }
    }

    #[test]
    fn errors() {
        assert_eq!(
            selected("0.10", "", "launcher", &[]),
            Err("when there is no default process a command is required".into())
        );
        assert_eq!(
            selected("0.10", "", "stray", &["user"]),
            Err("failed to find buildpack for process stray with buildpack ID none".into())
        );
    }
}
