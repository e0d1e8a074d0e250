//! What analyzer and exporter say, and how they exit, when their arguments make no task.

use std::process::{Command, Output};

const ANALYZER: &str = env!("CARGO_BIN_EXE_analyzer");
const EXPORTER: &str = env!("CARGO_BIN_EXE_exporter");
const CREATOR: &str = env!("CARGO_BIN_EXE_creator");

fn run(executable: &str, env: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::new(executable)
        .env_clear()
        .envs(env.iter().copied())
        .args(arguments)
        .output()
        .expect("it is there to run")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("every message is UTF-8")
}

/// Exit code and standard error; nothing may be on standard output.
fn told(executable: &str, env: &[(&str, &str)], arguments: &[&str]) -> (i32, String) {
    let output = run(executable, env, arguments);
    assert_eq!(text(&output.stdout), "");
    (output.status.code().expect("no signal ends it"), text(&output.stderr).to_owned())
}

const API: (&str, &str) = ("CNB_PLATFORM_API", "0.14");
const LAYOUT: (&str, &str) = ("CNB_USE_OCI_LAYOUT", "true");

#[test]
fn the_platform_api_comes_first() {
    let help =
        "  help: this lifecycle supports Platform API 0.7 to 0.15: set CNB_PLATFORM_API to one of them\n";
    for (env, want) in [
        (
            &[][..],
            "ERROR: failed to get platform API version; please set 'CNB_PLATFORM_API' to specify the desired \
             platform API version\n",
        ),
        (
            &[("CNB_PLATFORM_API", " ")],
            "ERROR: failed to get platform API version; please set 'CNB_PLATFORM_API' to specify the desired \
             platform API version\n",
        ),
        (&[("CNB_PLATFORM_API", "x")], "ERROR: failed to parse platform API 'x'\n"),
        (
            &[("CNB_PLATFORM_API", "0.16")],
            "ERROR: failed to set platform API: platform API version '0.16' is incompatible with the lifecycle\n",
        ),
    ] {
        for arguments in
            [&["-version=false"][..], &["-version=maybe"], &["-help", "-nonsense"], &["-nonsense"], &[]]
        {
            assert_eq!(told(ANALYZER, env, arguments), (11, [want, help].concat()), "{arguments:?}");
        }
    }
}

#[test]
fn version_and_help_need_no_platform_api() {
    for (env, newest) in [
        (&[API][..], "0.14"),
        (&[], "0.15"),
        (&[("CNB_PLATFORM_API", "x")], "0.15"),
        (&[("CNB_PLATFORM_API", "0.16")], "0.15"),
    ] {
        let output = run(ANALYZER, env, &["-version"]);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).starts_with(env!("CARGO_PKG_VERSION")));

        for help in ["-h", "-help", "--help"] {
            let (code, usage) = told(EXPORTER, env, &[help]);
            assert_eq!(code, 0);
            let api = format!("Flags of Platform API {newest}.");
            for part in [&api, "--process-type=<type>", "CNB_PROCESS_TYPE", "/workspace", "--parallel"] {
                assert!(usage.contains(part), "{part}: {usage}");
            }
        }
    }
}

#[test]
fn a_flag_that_does_not_exist() {
    let (code, usage) = told(ANALYZER, &[API], &["-nonsense", "app"]);
    assert_eq!(code, 2);
    assert_eq!(
        usage,
        "ERROR: flag provided but not defined: -nonsense\nUsage: analyzer [<flags>] <image>\n  \
         help: `analyzer -help` lists all flags\n"
    );
    let env = [("CNB_PLATFORM_API", "0.7")];
    assert_eq!(told(ANALYZER, &env, &["-skip-layers", "app"]).0, 2);
    assert_eq!(told(EXPORTER, &env, &["-run", "/cnb/run.toml", "app"]).0, 2);
}

#[test]
fn arguments_that_make_no_task() {
    for (executable, env, arguments, code, want) in [
        (
            ANALYZER,
            LAYOUT,
            &[][..],
            3,
            "ERROR: failed to parse arguments: received 0 arguments, but expected 1\n  \
             help: usage: analyzer [<flags>] <image>\n",
        ),
        (
            EXPORTER,
            LAYOUT,
            &[],
            3,
            "ERROR: failed to parse arguments: at least one image argument is required\n  \
             help: usage: exporter [<flags>] <image> [<image>...]\n",
        ),
        (
            ANALYZER,
            LAYOUT,
            &["-uid", "abc", "app"],
            3,
            "ERROR: failed to resolve inputs: -uid is `abc`: it must be a whole number from 0 to 4294967294\n",
        ),
        (
            ANALYZER,
            ("CNB_USE_OCI_LAYOUT", "aye"),
            &["app"],
            3,
            "ERROR: failed to resolve inputs: CNB_USE_OCI_LAYOUT is `aye`: it must be `true` or `false`\n",
        ),
        (
            ANALYZER,
            ("CNB_NO_COLOR", "never"),
            &["app"],
            3,
            "ERROR: failed to resolve inputs: CNB_NO_COLOR is `never`: it must be `true` or `false`\n",
        ),
        (
            ANALYZER,
            ("CNB_LOG_LEVEL", "loud"),
            &["app"],
            1,
            "ERROR: failed to parse log level: invalid level: CNB_LOG_LEVEL is `loud`: it must be `debug`, `info`, \
             `warn` or `error`\n",
        ),
        (
            EXPORTER,
            LAYOUT,
            &["-layer-compression", "gzip:0", "app"],
            3,
            "Warning: No cached data will be used, no cache specified.\n\
             ERROR: failed to resolve inputs: -layer-compression is `gzip:0`: it must be `gzip`, `zstd` or `none`, \
             with a level if any: `gzip:6` (1 to 9), `zstd:3` (1 to 19)\n",
        ),
        (
            EXPORTER,
            LAYOUT,
            &["-daemon", "app"],
            3,
            "ERROR: failed to resolve inputs: exporting to multiple targets is unsupported\n  \
             help: images are either OCI layouts or in a daemon: leave out -daemon (CNB_USE_DAEMON)\n",
        ),
        (
            ANALYZER,
            ("CNB_USE_LAYOUT", "true"),
            &["app"],
            1,
            "ERROR: Platform requested experimental feature 'export to OCI layout format'\n\
             ERROR: experimental features are disabled by CNB_EXPERIMENTAL_MODE=error\n  \
             help: set CNB_EXPERIMENTAL_MODE=warn, or leave it unset and ask with CNB_USE_OCI_LAYOUT=true\n",
        ),
    ] {
        assert_eq!(told(executable, &[API, env], arguments), (code, want.to_owned()), "{arguments:?}");
    }
}

#[test]
fn without_layouts_each_says_what_to_set() {
    for (executable, code, begin) in [
        (ANALYZER, 32, "ERROR: failed to analyze: "),
        (
            CREATOR,
            32,
            "Warning: No cached data will be used, no cache specified.\nERROR: failed to analyze: ",
        ),
        (
            EXPORTER,
            62,
            "Warning: No cached data will be used, no cache specified.\nERROR: failed to export: ",
        ),
    ] {
        let (got, text) = told(executable, &[API, ("CNB_OCI_LAYOUT_PATH", "/nonexistent")], &["app"]);
        assert_eq!(got, code);
        assert!(text.starts_with(begin) && text.contains("CNB_USE_OCI_LAYOUT"), "{executable}: {text}");
    }
}

#[test]
fn what_looks_like_a_flag_after_the_image_is_warned_about() {
    let (code, text) = told(ANALYZER, &[API, LAYOUT], &["app", "-layers"]);
    assert_eq!(code, 3);
    assert!(text.starts_with("Warning: `-layers` is not read as a flag"), "{text}");
}

/// A user without root asks for another user; root itself would get it.
#[test]
fn another_user_cannot_be_had_without_root() {
    let me = rustix::process::geteuid();
    let env =
        [API, ("CNB_OCI_LAYOUT_PATH", "/nonexistent"), ("CNB_USER_ID", "54321"), ("CNB_GROUP_ID", "54321")];
    let (code, text) = told(ANALYZER, &env, &["-layers", "/nonexistent", "app"]);
    if me.is_root() {
        assert_eq!(code, 32, "{text}");
    } else {
        assert_eq!(code, 1);
        assert!(text.starts_with("ERROR: failed to exec as user 54321:54321: "), "{text}");
    }
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = Command::new(ANALYZER)
        .env_clear()
        .envs([API, ("CNB_LOG_LEVEL", "debug")])
        .arg("app")
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(32));
}
