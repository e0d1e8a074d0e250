//! The launch, from the launcher's own arguments and environment to the program that takes its place.

use alloc::format;
use alloc::vec::Vec;
use core::convert::Infallible;

use drydock_env::{Action, Env, LAUNCH_PATHS};

use crate::api::{PLATFORM_API_VARIABLE, PlatformApi};
use crate::error::{Context, Error, Failure};
use crate::limits::DOCUMENT;
use crate::log::{Level, format_line};
use crate::metadata::{Metadata, Process};
use crate::system::{Exit, Kind, System};
use crate::text::{lossy, quote};
use crate::{exec_d, layers, lookup, path, process, shell};

/// Launches a process, and returns only if that fails: the code to exit with, the reason having been logged.
///
/// `arguments` are the launcher's, its own name first; `environment` holds `NAME=value` entries.
pub fn run(system: &impl System, arguments: &[Vec<u8>], environment: &[Vec<u8>]) -> i32 {
    let env = Env::from_entries(environment.iter().map(Vec::as_slice));
    let coloured = allows_colour(&env);
    let log = |level, message: &str| {
        system.write_stderr(&format_line(level, message, coloured && system.stderr_is_terminal()));
    };
    let Err(failure) = launch(system, arguments, env, |warning| log(Level::Warning, warning));
    log(Level::Error, &failure.message);
    failure.code
}

/// Colour is refused by either variable. A value of `CNB_NO_COLOR` that is not a boolean refuses it too: a process must
/// not fail to start because of colour.
fn allows_colour(env: &Env) -> bool {
    let refused =
        !matches!(env.get("CNB_NO_COLOR"), b"" | b"0" | b"f" | b"F" | b"false" | b"False" | b"FALSE");
    !refused && env.get("NO_COLOR").is_empty()
}

fn launch(
    system: &impl System,
    arguments: &[Vec<u8>],
    env: Env,
    warn: impl Fn(&str),
) -> Result<Infallible, Failure> {
    let or_default = |name: &str, default: &str| match env.get(name) {
        b"" => default.as_bytes().to_vec(),
        value => value.to_vec(),
    };
    let (caller, arguments) =
        arguments.split_first().map_or((&b""[..], arguments), |(first, rest)| (first, rest));

    let platform_api = PlatformApi::verify(env.get(PLATFORM_API_VARIABLE))?;
    let layers_dir = or_default("CNB_LAYERS_DIR", "/layers");
    let metadata_path = path::join(&layers_dir, b"config/metadata.toml");
    let metadata = system.read_file(&metadata_path, DOCUMENT).map_err(Failure::metadata)?;
    let metadata = Metadata::parse(&metadata)?;
    if let process_type @ [_, ..] = env.get("CNB_PROCESS_TYPE") {
        let process_type = lossy(process_type);
        warn(&format!("CNB_PROCESS_TYPE is not supported in Platform API {platform_api}"));
        warn(&format!("Run with ENTRYPOINT '{process_type}' to invoke the '{process_type}' process type"));
    }

    let app_dir = or_default("CNB_APP_DIR", "/workspace");
    let exec_env = or_default("CNB_EXEC_ENV", "production");
    let start = || {
        let process = process::select(&metadata, platform_api, &exec_env, caller, arguments)
            .context("determine start command")?;
        system.change_dir(&app_dir).context("change to app directory")?;
        let layers =
            layers::of_buildpacks(system, &layers_dir, &metadata.buildpacks).context("modify env")?;
        let launch = Launch { system, metadata: &metadata, layers, app_dir: &app_dir, caller, process };
        launch.start(env.for_launch())
    };
    start().map_err(Failure::launch)
}

/// A process that is about to be started.
struct Launch<'a, S> {
    system: &'a S,
    metadata: &'a Metadata,
    /// The layer folders of each buildpack.
    layers: Vec<Vec<Vec<u8>>>,
    app_dir: &'a [u8],
    caller: &'a [u8],
    process: Process,
}

impl<S: System> Launch<'_, S> {
    fn start(self, mut env: Env) -> Result<Infallible, Error> {
        self.add_layers(&mut env).context("modify env")?;
        self.run_exec_d(&mut env).context("exec.d")?;
        if self.process.direct { self.start_directly(&env) } else { self.start_shell(&env) }
    }

    /// What the layers' folders and environment files say.
    fn add_layers(&self, env: &mut Env) -> Result<(), Error> {
        for layers in &self.layers {
            for layer in layers {
                self.add_layer_paths(env, layer).context("add layer root")?;
            }
            for layer in layers {
                self.add_env_files(env, layer).context("add layer env")?;
            }
        }
        Ok(())
    }

    fn add_layer_paths(&self, env: &mut Env, layer: &[u8]) -> Result<(), Error> {
        let layer = if layer.starts_with(b"/") {
            layer.to_vec()
        } else {
            path::join(&self.system.current_dir().context("getwd")?, layer)
        };
        env.add_layer_paths(&layer, LAUNCH_PATHS, |dir| layers::exists(self.system, dir)).map_err(Error::new)
    }

    fn add_env_files(&self, env: &mut Env, layer: &[u8]) -> Result<(), Error> {
        let common = [path::join(layer, b"env")];
        for dir in common.into_iter().chain(self.folders(layer, b"env.launch")) {
            let files = layers::env_files_in(self.system, &dir)
                .context(format_args!("apply env files from dir '{}'", lossy(&dir)))?;
            env.apply_files(&files, Action::Override);
        }
        Ok(())
    }

    /// What the layers' programs say, each of which gets the environment that those before it have made.
    fn run_exec_d(&self, env: &mut Env) -> Result<(), Error> {
        for program in self.files_of_all_layers(b"exec.d")? {
            let at_path = format!("exec.d file at path '{}'", lossy(&program));
            let entries: Vec<Vec<u8>> = env.entries().collect();
            let failed = format_args!("failed to execute {at_path}");
            let finished = self.system.run_exec_d(&program, &entries, DOCUMENT).context(failed)?;
            if finished.exit != Exit::Code(0) {
                return Err(finished.exit).context(failed);
            }
            let variables = exec_d::parse_output(&finished.output)
                .context(format_args!("failed to decode output from {at_path}"))?;
            for (name, value) in variables {
                env.set(name, value);
            }
        }
        Ok(())
    }

    fn start_directly(self, env: &Env) -> Result<Infallible, Error> {
        let Process { r#type: process_type, command, args, .. } = &self.process;
        let Some(name) = command.first() else {
            let process_type = quote(process_type);
            return Err(Error::new(format_args!("no command provided for process type {process_type}")));
        };
        let program = lookup::look_path(self.system, name, env.get("PATH")).context("path lookup")?;
        self.system.change_dir(self.working_dir()).context("change directory")?;
        let arguments = [command.as_slice(), args.as_slice()].concat();
        let entries: Vec<Vec<u8>> = env.entries().collect();
        Err(self.system.exec(&program, &arguments, &entries)).context("direct exec")
    }

    fn start_shell(self, env: &Env) -> Result<Infallible, Error> {
        let profiles = self.profiles().context("find profiles")?;
        let Process { r#type: process_type, command, args, buildpack_id, .. } = &self.process;
        let known =
            buildpack_id.is_empty() || self.metadata.buildpacks.iter().any(|known| known.id == *buildpack_id);
        if !args.is_empty() && !known {
            return Err(Error::new(format_args!(
                "process type '{}' provided by unknown buildpack '{}'",
                lossy(process_type),
                lossy(buildpack_id)
            )));
        }
        let arguments =
            shell::arguments(self.caller, &profiles, self.working_dir(), &command.join(&b' '), args);
        let entries: Vec<Vec<u8>> = env.entries().collect();
        Err(self.system.exec(shell::PROGRAM, &arguments, &entries)).context("bash exec")
    }

    /// The scripts that set up a shell: those of the layers, and the app's own.
    fn profiles(&self) -> Result<Vec<Vec<u8>>, Error> {
        let mut profiles = self.files_of_all_layers(b"profile.d")?;
        let own = path::join(self.app_dir, b".profile");
        let kind = layers::none_if_missing(self.system.kind(&own)).context(format_args!(
            "failed to determine if app profile script exists at path '{}'",
            lossy(&own)
        ))?;
        if kind.is_some_and(|kind| kind != Kind::Directory) {
            profiles.push(b".profile".to_vec());
        }
        Ok(profiles)
    }

    fn files_of_all_layers(&self, folder: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let mut files = Vec::new();
        for layer in self.layers.iter().flatten() {
            for dir in self.folders(layer, folder) {
                files.extend(layers::files_in(self.system, &dir)?);
            }
        }
        Ok(files)
    }

    /// A folder of a layer, and the folder in it that is for this type of process alone.
    fn folders(&self, layer: &[u8], folder: &[u8]) -> impl Iterator<Item = Vec<u8>> + use<S> {
        let for_all = path::join(layer, folder);
        let process_type = &self.process.r#type;
        let for_type = (!process_type.is_empty()).then(|| path::join(&for_all, process_type));
        [for_all].into_iter().chain(for_type)
    }

    fn working_dir(&self) -> &[u8] {
        if self.process.working_dir.is_empty() { self.app_dir } else { &self.process.working_dir }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::fake::Fake;

    const METADATA: &str = r#"
        [[buildpacks]]
        id = "z/first"
        api = "0.10"
        [[buildpacks]]
        id = "absent"
        api = "0.10"
        [[buildpacks]]
        id = "second"
        api = "0.8"
        [[processes]]
        type = "web"
        command = ["run", "--always"]
        direct = true
        buildpack-id = "second"
        [[processes]]
        type = "shell"
        command = "echo $A"
        working-dir = "/tmp"
        buildpack-id = "second"
        [[processes]]
        type = "nothing"
        command = []
        direct = true
        [[processes]]
        type = "stray"
        command = "echo"
        args = ["x"]
        buildpack-id = "unknown"
    "#;

    /// What happens on a call: everything that is done, and what is logged.
    fn run_with(files: &[(&str, &str)], args: &[&str], env: &[&str]) -> (i32, Vec<String>, String) {
        let system =
            Fake::new(&[&[("/l/config/metadata.toml", METADATA), ("/bin/run", "x")], files].concat());
        let bytes = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        let env = [&["CNB_PLATFORM_API=0.14", "CNB_LAYERS_DIR=/l", "CNB_NO_COLOR=1"], env].concat();
        let code = run(&system, &bytes(args), &bytes(&env));
        (code, system.calls.take(), system.stderr.take())
    }

    #[test]
    fn a_direct_process() {
        let files = [
            ("/l/z_first/b/env/A", "b"),
            ("/l/z_first/a/env/A", "a"),
            ("/l/z_first/a/env.launch/A.append", "+launch"),
            ("/l/z_first/a/env.launch/web/A.append", "+web"),
            ("/l/z_first/a/env.launch/other/A.append", "+other"),
            ("/l/z_first/a/env.build/A.append", "+build"),
            ("/l/second/a/bin/run", "x"),
            ("/l/second/a/env/A.prepend", "second+"),
            ("/l/second/a/exec.d/2", "x\nA = 'two'"),
            ("/l/second/a/exec.d/1", "x\nB = 'one'"),
            ("/l/second/a/exec.d/web/3", "x\n"),
        ];
        let (code, calls, stderr) =
            run_with(&files, &["/cnb/process/web", "user"], &["PATH=/cnb/process:/bin"]);
        assert_eq!(
            calls,
            [
                "chdir /workspace",
                "exec.d /l/second/a/exec.d/1 A=second+b CNB_NO_COLOR=1 PATH=/l/second/a/bin:/bin",
                "exec.d /l/second/a/exec.d/2 A=second+b B=one CNB_NO_COLOR=1 PATH=/l/second/a/bin:/bin",
                "exec.d /l/second/a/exec.d/web/3 A=two B=one CNB_NO_COLOR=1 PATH=/l/second/a/bin:/bin",
                "chdir /workspace",
                "exec /l/second/a/bin/run | run --always user | A=two B=one CNB_NO_COLOR=1 PATH=/l/second/a/bin:/bin",
            ]
        );
        assert_eq!((code, &*stderr), (82, "ERROR: failed to launch: direct exec: exec format error\n"));
    }

    #[test]
    fn order_of_env_folders() {
        let files = [
            ("/l/z_first/a/env/A", "1"),
            ("/l/z_first/a/env.launch/A.append", "2"),
            ("/l/z_first/a/env.launch/web/A.append", "3"),
            ("/l/z_first/b/env/A.append", "4"),
            ("/l/second/a/env.launch/A.append", "5"),
        ];
        let (_, calls, _) = run_with(&files, &["web"], &["PATH=/bin"]);
        assert_eq!(calls.last().unwrap(), "exec /bin/run | run --always | A=12345 CNB_NO_COLOR=1 PATH=/bin");
        let (_, calls, _) = run_with(&files, &["launcher", "--", "run"], &["PATH=/bin"]);
        assert_eq!(calls.last().unwrap(), "exec /bin/run | run | A=1245 CNB_NO_COLOR=1 PATH=/bin");
    }

    #[test]
    fn a_shell_process() {
        let files = [
            ("/app/.profile", ""),
            ("/l/second/a/profile.d/b.sh", ""),
            ("/l/second/a/profile.d/a.sh", ""),
            ("/l/second/a/profile.d/shell/c.sh", ""),
            ("/l/z_first/a/profile.d/d.sh", ""),
            ("/l/z_first/a/profile.d/web/e.sh", ""),
        ];
        let (code, calls, stderr) = run_with(&files, &["/cnb/process/shell"], &["CNB_APP_DIR=/app"]);
        let script = concat!(
            "source \"/l/z_first/a/profile.d/d.sh\"\nsource \"/l/second/a/profile.d/a.sh\"\n",
            "source \"/l/second/a/profile.d/b.sh\"\nsource \"/l/second/a/profile.d/shell/c.sh\"\n",
            "source \".profile\"\ncd \"/tmp\"\nexec bash -c \"$@\""
        );
        let exec = format!("exec /bin/bash | bash -c {script} /cnb/process/shell echo $A | CNB_NO_COLOR=1");
        assert_eq!(calls, ["chdir /app", &exec]);
        assert_eq!((code, &*stderr), (82, "ERROR: failed to launch: bash exec: exec format error\n"));
    }

    #[test]
    fn folders_of_relative_layers_are_absolute_in_the_environment() {
        let files = [
            ("l/config/metadata.toml", METADATA),
            ("/current/l/second/a/lib/x", ""),
            ("l/second/a/lib/x", ""),
        ];
        let (_, calls, _) = run_with(&files, &["launcher", "run"], &[]);
        assert!(!calls[1].contains("LD_LIBRARY_PATH"), "{calls:?}");
        let system = Fake::new(&files);
        let env = [b"CNB_PLATFORM_API=0.14".to_vec(), b"CNB_LAYERS_DIR=./l/".to_vec()];
        run(&system, &[b"launcher".to_vec(), b"run".to_vec()], &env);
        let calls = system.calls.take();
        assert!(calls[1].ends_with("| LD_LIBRARY_PATH=/current/l/second/a/lib"), "{calls:?}");
    }

    #[test]
    fn failures() {
        let broken = ("/l/second/a/exec.d/x", "x\nA = 1");
        let failing = ("/l/second/a/exec.d/x", "-");
        for (files, args, env, code, message) in [
            (
                &[][..],
                &["web"][..],
                &["PATH=/none"][..],
                82,
                "launch: path lookup: exec: \"run\": executable file not found in $PATH",
            ),
            (&[], &["nothing"], &[], 82, "launch: no command provided for process type \"nothing\""),
            (
                &[],
                &["stray"],
                &[],
                82,
                "launch: process type 'stray' provided by unknown buildpack 'unknown'",
            ),
            (
                &[],
                &["launcher"],
                &[],
                82,
                "launch: determine start command: when there is no default process a command is required",
            ),
            (
                &[],
                &[],
                &[],
                82,
                "launch: determine start command: when there is no default process a command is required",
            ),
            (
                &[],
                &["web"],
                &["CNB_APP_DIR=/missing"],
                82,
                "launch: change to app directory: chdir /missing: no such file or directory",
            ),
            (
                &[broken],
                &["web"],
                &[],
                82,
                "launch: exec.d: failed to decode output from exec.d file at path '/l/second/a/exec.d/x': toml: line 1: \"A\" must be a string, but is of type integer",
            ),
            (
                &[failing],
                &["web"],
                &[],
                82,
                "launch: exec.d: failed to execute exec.d file at path '/l/second/a/exec.d/x': exit status 7",
            ),
        ] {
            let (actual_code, _, stderr) = run_with(files, args, env);
            assert_eq!((actual_code, &*stderr), (code, &*format!("ERROR: failed to {message}\n")));
        }
    }

    #[test]
    fn the_api_and_the_metadata_come_first() {
        let run = |env: &[&str]| {
            let system = Fake::new(&[]);
            let env: Vec<_> = env.iter().map(|entry| entry.as_bytes().to_vec()).collect();
            let code = run(&system, &[b"launcher".to_vec()], &env);
            assert!(system.calls.take().is_empty());
            (code, system.stderr.take())
        };
        let (code, stderr) = run(&["CNB_PLATFORM_API=0.6", "NO_COLOR=1"]);
        let message =
            "failed to set platform API: platform API version '0.6' is incompatible with the lifecycle";
        assert_eq!((code, stderr), (11, format!("ERROR: {message}\n")));
        let (code, stderr) = run(&["CNB_PLATFORM_API=0.7", "CNB_LAYERS_DIR="]);
        let message = "failed to read metadata: open /layers/config/metadata.toml: no such file or directory";
        assert_eq!((code, stderr), (1, format!("\x1b[31;1mERROR: \x1b[0m{message}\n")));
    }

    #[test]
    fn process_type_variable_is_warned_about() {
        let (_, _, stderr) =
            run_with(&[], &["web"], &["CNB_PROCESS_TYPE=x", "CNB_PLATFORM_API=ignored", "PATH=/bin"]);
        let lines: Vec<_> = stderr.lines().collect();
        assert_eq!(
            lines[..2],
            [
                "Warning: CNB_PROCESS_TYPE is not supported in Platform API 0.14",
                "Warning: Run with ENTRYPOINT 'x' to invoke the 'x' process type"
            ]
        );
    }

    #[test]
    fn colour_is_refused() {
        for (entry, allowed) in [
            ("A=1", true),
            ("CNB_NO_COLOR=", true),
            ("CNB_NO_COLOR=false", true),
            ("CNB_NO_COLOR=0", true),
            ("CNB_NO_COLOR=true", false),
            ("CNB_NO_COLOR=1", false),
            ("CNB_NO_COLOR=please", false),
            ("NO_COLOR=", true),
            ("NO_COLOR=0", false),
        ] {
            assert_eq!(allows_colour(&Env::from_entries([entry.as_bytes()])), allowed, "{entry}");
        }
    }
}
