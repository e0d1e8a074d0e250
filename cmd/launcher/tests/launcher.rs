//! Runs the executable as a container would: by a process type's name or its own, on a layers folder.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const LAUNCHER: &str = env!("CARGO_BIN_EXE_launcher");

const METADATA: &str = r#"
    [[buildpacks]]
    id = "acme/a"
    api = "0.10"
    [[processes]]
    type = "web"
    command = ["sh", "-c", 'printf "%s\n" "$@"; env | sort; pwd', "sh"]
    args = ["default"]
    direct = true
    buildpack-id = "acme/a"
"#;

/// A layers folder and an app folder, new for every test.
struct App {
    root: PathBuf,
}

impl App {
    fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        if root.exists() {
            fs::remove_dir_all(&root).unwrap();
        }
        let app = Self { root };
        app.write("app/file", "");
        app.write("layers/config/metadata.toml", METADATA);
        app
    }

    fn write(&self, path: &str, contents: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    fn write_program(&self, path: &str, contents: &str) {
        self.write(path, contents);
        fs::set_permissions(self.root.join(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new(LAUNCHER);
        command.arg0(name).args(args).stdin(Stdio::null());
        self.set_environment(&mut command);
        command
    }

    fn set_environment(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("CNB_PLATFORM_API", "0.14")
            .env("CNB_LAYERS_DIR", self.root.join("layers"))
            .env("CNB_APP_DIR", self.root.join("app"));
    }

    fn run(&self, name: &str, args: &[&str]) -> Output {
        self.command(name, args).output().unwrap()
    }

    /// Standard output of a run that must go well.
    fn output(&self, name: &str, args: &[&str]) -> String {
        let output = self.run(name, args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Exit code and standard error of a run that must print nothing else, with the test's folder cut out.
    fn failure(&self, name: &str, args: &[&str]) -> (i32, String) {
        let output = self.run(name, args);
        assert!(output.stdout.is_empty(), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), stderr.replace(self.root.to_str().unwrap(), ""))
    }
}

#[test]
fn a_process_type_with_its_environment() {
    let app = App::new("process-type");
    app.write("layers/acme_a/l/env/A", "1");
    app.write("layers/acme_a/l/env.launch/web/A.append", "2");
    app.write("layers/acme_a/l/bin/tool", "");
    let root = app.root.display();
    assert_eq!(
        app.output("/cnb/process/web", &["user"]),
        format!("user\nA=12\nPATH={root}/layers/acme_a/l/bin:/usr/bin:/bin\nPWD={root}/app\n{root}/app\n")
    );
    assert!(app.output("web", &[]).starts_with("default\n"));
}

#[test]
fn becomes_the_program() {
    let app = App::new("becomes");
    for args in [&["--", "sh", "-c", "echo $$"][..], &["echo $$"], &["echo", "$$"]] {
        let mut command = app.command("launcher", args);
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        let id = child.id();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{id}\n"), "{args:?}");
    }
    assert_eq!(app.run("launcher", &["--", "sh", "-c", "exit 7"]).status.code(), Some(7));
}

#[test]
fn bytes_pass_through() {
    let app = App::new("bytes");
    let bytes = b"\xff\xfe a\n'\"$\\";
    let output = app
        .command("launcher", &["--", "sh", "-c", r#"printf %s "$1$A""#, "sh"])
        .arg(OsStr::from_bytes(bytes))
        .env("A", OsStr::from_bytes(bytes))
        .output()
        .unwrap();
    assert_eq!(output.stdout, [bytes, &bytes[..]].concat());
}

#[test]
fn shells_source_profiles_and_expand_words() {
    let app = App::new("shell");
    app.write("layers/acme_a/l/profile.d/a.sh", "export A='x  y'");
    app.write("app/.profile", "export A=\"$A z\"");
    assert_eq!(app.output("launcher", &["echo \"$A\"; exit 0"]), "x  y z\n");
    let args = ["printf", r"<%s>\n", "$A", "a b", "'", ""];
    assert_eq!(app.output("launcher", &args), "<x  y z>\n<a b>\n<'>\n<>\n");
}

#[test]
fn exec_d_sets_variables() {
    let app = App::new("exec-d");
    app.write_program(
        "layers/acme_a/l/exec.d/1",
        "#!/bin/sh\necho 'A = \"one\"' >&3\necho \"B = '$(wc -c)'\" >&3",
    );
    app.write_program("layers/acme_a/l/exec.d/2", "#!/bin/sh\necho \"A = '$A two'\" >&3; echo said");
    let big = "#!/bin/sh\nprintf 'BIG = \"'>&3; head -c 100000 /dev/zero | tr '\\0' x >&3; echo '\"' >&3";
    app.write_program("layers/acme_a/l/exec.d/3", big);
    assert_eq!(app.output("launcher", &["echo $A $B ${#BIG}"]), "said\none two 0 100000\n");
}

#[test]
fn exec_d_works_without_standard_streams_and_with_ignored_children() {
    let app = App::new("exec-d-odd");
    app.write_program(
        "layers/acme_a/l/exec.d/x",
        "#!/bin/bash\necho \"A = '$(readlink /proc/$$/fd/0)'\" >&3",
    );
    let script = r#"trap "" CHLD; exec "$0" 'echo $A $(readlink /proc/$$/fd/0) >&2' <&- >&-"#;
    let mut shell = Command::new("/bin/bash");
    app.set_environment(&mut shell);
    let output = shell.args(["-c", script, LAUNCHER]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "/dev/null /dev/null\n");
}

/// What was handed to the launcher is for the app.
#[test]
fn exec_d_inherits_no_other_files() {
    let app = App::new("exec-d-files");
    let count = r"$(ls /proc/$$/fd | grep -cx '6\|7\|20')";
    let program = format!("#!/bin/sh\necho \"A = \\\"{count}\\\"\" >&3");
    app.write_program("layers/acme_a/l/exec.d/x", &program);
    let script = r#"exec 6</dev/null 7>&1 20</dev/null; exec "$0" "echo \$A $1""#;
    let mut shell = Command::new("/bin/bash");
    app.set_environment(&mut shell);
    let output = shell.args(["-c", script, LAUNCHER, count]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0 3\n", "{output:?}");
}

#[test]
fn exec_d_failures() {
    for (name, contents, executable, message) in [
        ("exit", "#!/bin/sh\nexit 3", true, "failed to execute exec.d file at path 'P': exit status 3"),
        (
            "signal",
            "#!/bin/sh\nkill -9 $$",
            true,
            "failed to execute exec.d file at path 'P': signal: killed",
        ),
        (
            "mode",
            "#!/bin/sh",
            false,
            "failed to execute exec.d file at path 'P': fork/exec P: permission denied",
        ),
        (
            "format",
            "no program",
            true,
            "failed to execute exec.d file at path 'P': fork/exec P: exec format error",
        ),
        (
            "output",
            "#!/bin/sh\necho 'A = 1' >&3",
            true,
            "failed to decode output from exec.d file at path 'P': toml: line 1: \"A\" must be a string, but is of type integer",
        ),
    ] {
        let app = App::new(&format!("exec-d-failure-{name}"));
        let path = "layers/acme_a/l/exec.d/x";
        if executable {
            app.write_program(path, contents);
        } else {
            app.write(path, contents);
        }
        let message = message.replace('P', &format!("/{path}"));
        let expected = format!("ERROR: failed to launch: exec.d: {message}\n");
        assert_eq!(app.failure("launcher", &["--", "echo"]), (82, expected), "{name}");
    }
}

#[test]
fn failures_name_what_failed() {
    let app = App::new("failures");
    app.write("layers/acme_a/l/file", "");
    for (args, message) in [
        (&["--", "./none"][..], "path lookup: exec: \"./none\": stat ./none: no such file or directory"),
        (&["--", "/etc"], "path lookup: exec: \"/etc\": is a directory"),
        (&["--", "/etc/passwd"], "path lookup: exec: \"/etc/passwd\": permission denied"),
        (&[], "determine start command: when there is no default process a command is required"),
    ] {
        assert_eq!(app.failure("launcher", args), (82, format!("ERROR: failed to launch: {message}\n")));
    }

    symlink("/none", app.root.join("layers/acme_a/l/env")).unwrap();
    assert_eq!(app.output("launcher", &["--", "echo", "no folder"]), "no folder\n");
    app.write("layers/acme_a/l/env.launch/A", "1");
    symlink("/none", app.root.join("layers/acme_a/l/env.launch/B")).unwrap();
    let message = "failed to launch: modify env: add layer env: apply env files from dir \
                   '/layers/acme_a/l/env.launch': stat /layers/acme_a/l/env.launch/B: no such file or directory";
    assert_eq!(app.failure("launcher", &["--", "echo"]), (82, format!("ERROR: {message}\n")));

    app.write("layers/config/metadata.toml", "processes = [");
    let (code, message) = app.failure("launcher", &["--", "echo"]);
    assert_eq!((code, message.starts_with("ERROR: failed to read metadata: toml: line 1: ")), (1, true));
    fs::remove_file(app.root.join("layers/config/metadata.toml")).unwrap();
    let message =
        "ERROR: failed to read metadata: open /layers/config/metadata.toml: no such file or directory\n";
    assert_eq!(app.failure("launcher", &["--", "echo"]), (1, message.to_owned()));
}

/// What is in the way of a file, and what is said of it.
type Obstacle = (fn(&Path), &'static str);

const OBSTACLES: [Obstacle; 3] = [
    (
        |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        "open P: not a regular file",
    ),
    (|path| symlink("/dev/zero", path).unwrap(), "open P: not a regular file"),
    (|path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap(), "read P: more than N bytes"),
];

#[test]
fn only_regular_files_within_limits_are_read() {
    let app = App::new("limits");
    let metadata = "layers/config/metadata.toml";
    for (put, says) in OBSTACLES {
        fs::remove_file(app.root.join(metadata)).unwrap();
        put(&app.root.join(metadata));
        let says = says.replace('P', &format!("/{metadata}")).replace('N', "4194304");
        let message = format!("ERROR: failed to read metadata: {says}\n");
        assert_eq!(app.failure("launcher", &["--", "echo"]), (1, message));
    }
    fs::remove_file(app.root.join(metadata)).unwrap();
    app.write(metadata, METADATA);

    let dir = "layers/acme_a/l/env";
    app.write(&format!("{dir}/A"), "12");
    for (put, says) in OBSTACLES {
        put(&app.root.join(dir).join("B"));
        let says = says.replace('P', &format!("/{dir}/B")).replace('N', "8388606");
        let message = format!(
            "ERROR: failed to launch: modify env: add layer env: apply env files from dir '/{dir}': {says}\n"
        );
        assert_eq!(app.failure("launcher", &["--", "echo"]), (82, message));
        fs::remove_file(app.root.join(dir).join("B")).unwrap();
    }
}

#[test]
fn what_an_exec_d_program_says_has_a_limit() {
    let app = App::new("exec-d-flood");
    app.write_program("layers/acme_a/l/exec.d/x", "#!/bin/sh\nexec cat /dev/zero >&3");
    let message = "ERROR: failed to launch: exec.d: failed to execute exec.d file at path \
                   '/layers/acme_a/l/exec.d/x': read |0: more than 4194304 bytes\n";
    assert_eq!(app.failure("launcher", &["--", "echo"]), (82, message.to_owned()));
}

#[test]
fn metadata_that_is_deep_is_an_error() {
    let app = App::new("deep");
    let depth = 1_000_000;
    for text in [
        format!("a = {}{}", "[".repeat(depth), "]".repeat(depth)),
        format!("[{}a]", "a.".repeat(depth)),
        format!("{}a = 1", "a.".repeat(depth)),
    ] {
        app.write("layers/config/metadata.toml", &text);
        let (code, message) = app.failure("launcher", &["--", "echo"]);
        assert!(code == 1 && message.contains("toml: line 1") && message.contains("recursion"), "{message}");
    }
}

#[test]
fn metadata_may_be_long() {
    let app = App::new("long");
    let processes = (0..2000)
        .map(|i| format!("[[processes]]\ntype = \"p{i}\"\ncommand = [\"echo\", \"{i}\"]\ndirect = true\n"));
    app.write("layers/config/metadata.toml", &processes.collect::<String>());
    assert_eq!(app.output("/cnb/process/p1999", &["user"]), "1999 user\n");
}

#[test]
fn nothing_is_loaded_or_relocated_at_the_start() {
    let file = fs::read(LAUNCHER).unwrap();
    let number = |at: usize, size: usize| {
        file[at..at + size].iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let types: Vec<usize> = (0..count).map(|index| number(table + index * size, 4)).collect();
    let (load, dynamic, interpreter) = (1, 2, 3);
    assert!(types.contains(&load), "{types:?}");
    assert!(!types.contains(&dynamic) && !types.contains(&interpreter), "{types:?}");
    let fixed_addresses = 2;
    assert_eq!(number(16, 2), fixed_addresses);
}
