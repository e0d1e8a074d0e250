//! The processes of buildpacks and extensions: what they are given, and what becomes of them when they end, when the
//! phase is to end, and when there may be no more of them.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{self, APP_IMAGE, Project, succeed};
use drydock_acceptance::scenario::User;
use drydock_acceptance::stage::{GID, UID};
use drydock_acceptance::tools::STRACE;
use libtest_mimic::Trial;

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            (
                "processes::nothing_that_is_left_behind_is_waited_for",
                nothing_that_is_left_behind_is_waited_for,
            ),
            ("processes::whatever_session_it_is_in_it_ends", whatever_session_it_is_in_it_ends),
            ("processes::nothing_serves_the_next", nothing_serves_the_next),
            ("processes::what_was_there_before_stays", what_was_there_before_stays),
            ("processes::a_signal_ends_all", a_signal_ends_all),
            ("processes::a_signal_ends_what_nobody_listens_to", a_signal_ends_what_nobody_listens_to),
            ("processes::a_signal_ends_the_first_of_a_container", a_signal_ends_the_first_of_a_container),
            ("processes::ignored_signals_stay_ignored", ignored_signals_stay_ignored),
            ("processes::no_descriptors_are_inherited", no_descriptors_are_inherited),
            ("processes::root_is_dropped_for_good", root_is_dropped_for_good),
            ("processes::where_nothing_is_run_there_are_no_new_privileges", no_new_privileges),
            ("processes::who_may_not_drop_root_is_told", who_may_not_drop_root_is_told),
            ("processes::limits_of_processes", limits_of_processes),
            ("processes::nobody_waits_for_the_terminal", nobody_waits_for_the_terminal),
            ("processes::a_missing_app_is_named", a_missing_app_is_named),
        ],
    )
}

/// Phases, each with a program that it runs.
const PROGRAMS: [(&str, &str); 5] = [
    ("detector", "detect"),
    ("detector", "generate"),
    ("builder", "build"),
    ("creator", "detect"),
    ("creator", "build"),
];

/// Longer than any of this takes, and shorter than what would be waited for in vain.
const PATIENT: [&str; 4] = ["timeout", "--foreground", "--signal=KILL", "60"];

/// A project whose buildpack, or extension, has this script as one of its programs; the others just succeed. Scripts run
/// in the app's folder.
struct Scene {
    project: Project,
}

impl Scene {
    fn new(executables: &Built, (phase, program): (&str, &str), script: &str) -> Result<Self> {
        // The detector and the builder refuse root; the creator wants the user to be one of this machine's.
        let user = if phase == "creator" { User::Root } else { User::Cnb };
        let scene = Self { project: Project::new(executables.for_everyone()?, user)? };
        let project = &scene.project;
        let group = "[[order.group]]\nid = \"acme/a\"\nversion = \"1\"\n";
        let extensions = match program {
            "generate" => {
                "[[order-extensions]]\n[[order-extensions.group]]\nid = \"acme/e\"\nversion = \"1\"\n"
            }
            _ => "",
        };
        project.write("cnb/order.toml", format!("[[order]]\n{group}{extensions}"))?;
        project.write(
            "cnb/buildpacks/acme_a/1/buildpack.toml",
            "api = \"0.10\"\n[buildpack]\nid = \"acme/a\"\n",
        )?;
        project.write(
            "cnb/extensions/acme_e/1/extension.toml",
            "api = \"0.10\"\n[extension]\nid = \"acme/e\"\n",
        )?;
        project.write("layers/plan.toml", "")?;
        project.write("tmp/file", "")?;
        fs::remove_file(project.path("tmp/file")).context("empty the folder")?;
        for (path, of) in [
            ("cnb/buildpacks/acme_a/1/bin/detect", "detect"),
            ("cnb/buildpacks/acme_a/1/bin/build", "build"),
            ("cnb/extensions/acme_e/1/bin/detect", ""),
            ("cnb/extensions/acme_e/1/bin/generate", "generate"),
        ] {
            scene.write_script(path, if of == program { script } else { "" })?;
        }
        project.own()?;
        Ok(scene)
    }

    /// Another process writes it: one that this process has open for writing could not be run meanwhile.
    fn write_script(&self, path: &str, script: &str) -> Result<()> {
        let text = format!("{path}.text");
        self.project.write(&text, format!("#!/bin/sh\n{script}\n"))?;
        succeed(Command::new("cp").arg(self.project.path(&text)).arg(self.project.path(path)))?;
        fs::set_permissions(self.project.path(path), Permissions::from_mode(0o755)).context("chmod")
    }

    /// A phase with all that it needs, started by another program: its words come first.
    fn phase(&self, starter: &[&str], phase: &str) -> Result<Command> {
        let project = &self.project;
        let mut command = project.phase(&[&PATIENT, starter].concat(), phase)?;
        for (variable, path) in [
            ("CNB_APP_DIR", "app"),
            ("CNB_BUILDPACKS_DIR", "cnb/buildpacks"),
            ("CNB_EXTENSIONS_DIR", "cnb/extensions"),
            ("CNB_ORDER_PATH", "cnb/order.toml"),
            ("CNB_PLATFORM_DIR", "platform"),
            ("CNB_BUILD_CONFIG_DIR", "build-config"),
            ("TMPDIR", "tmp"),
        ] {
            command.env(variable, project.path(path));
        }
        if phase == "creator" {
            command.arg("-launcher").arg(project.path("cnb/launcher")).arg(APP_IMAGE);
        }
        Ok(command)
    }

    /// What the script wrote to a file in the app's folder.
    fn written(&self, name: &str) -> Result<String> {
        fs::read_to_string(self.project.path("app").join(name)).with_context(|| format!("read {name}"))
    }

    /// Fails if a process runs whose number the script wrote to `pids`, or if a temporary file is left.
    fn is_over(&self) -> Result<()> {
        for pid in self.written("pids")?.split_whitespace() {
            ensure!(!Path::new("/proc").join(pid).exists(), "process {pid} is left");
        }
        let left = fs::read_dir(self.project.path("tmp")).context("list temporary files")?.count();
        ensure!(left == 0, "{left} temporary files are left");
        Ok(())
    }
}

fn nothing_that_is_left_behind_is_waited_for(executables: &Built) -> Result<()> {
    for (phase, program) in PROGRAMS {
        for background in ["sleep 100000", "sh -c 'trap \"\" TERM; while :; do sleep 0.1; done'"] {
            let script = format!("{background} & echo $! > pids; echo said");
            let scene = Scene::new(executables, (phase, program), &script)?;
            let output = succeed(&mut scene.phase(&[], phase)?)
                .with_context(|| format!("{program} with {background}"))?;
            // What a `bin/detect` says is shown where detection fails.
            ensure!(program == "detect" || output.text().contains("said\n"), "{}", output.text());
            scene.is_over().with_context(|| format!("{program} with {background}"))?;
        }
    }
    Ok(())
}

/// Leaves a process in a session of its own, and says its number in `pids`.
const ELSEWHERE: &str =
    "setsid sh -c 'echo $$ > pid; exec sleep 100000' & while [ ! -s pid ]; do :; done; mv pid pids";

fn whatever_session_it_is_in_it_ends(executables: &Built) -> Result<()> {
    for (phase, program) in PROGRAMS {
        for (end, is_success) in
            [("exit 0", true), ("exit 3", false), ("kill -TERM $PPID; sleep 100000", false)]
        {
            let scene = Scene::new(executables, (phase, program), &format!("{ELSEWHERE}; {end}"))?;
            let output = scene.phase(&[], phase)?.output().context("start timeout (package coreutils)")?;
            let what = || format!("{phase} {program} {end}: {output:?}");
            ensure!(output.status.success() == is_success, "{}", what());
            scene.is_over().with_context(what)?;
        }
    }
    Ok(())
}

/// What an extension leaves does not serve the next one.
fn nothing_serves_the_next(executables: &Built) -> Result<()> {
    let script = format!("[ ! -e pids ] || ! [ -e /proc/$(cat pids) ] || exit 3; echo >> runs; {ELSEWHERE}");
    let scene = Scene::new(executables, ("detector", "generate"), &script)?;
    let project = &scene.project;
    let other = "cnb/extensions/acme_f/1";
    project.write(&format!("{other}/extension.toml"), "api = \"0.10\"\n[extension]\nid = \"acme/f\"\n")?;
    project.write(&format!("{other}/bin/file"), "")?;
    for (name, script) in [("detect", ""), ("generate", &script)] {
        scene.write_script(&format!("{other}/bin/{name}"), script)?;
    }
    let order = fs::read_to_string(project.path("cnb/order.toml")).context("read the order")?;
    let order = format!("{order}[[order-extensions.group]]\nid = \"acme/f\"\nversion = \"1\"\n");
    project.write("cnb/order.toml", order)?;
    project.own()?;
    succeed(&mut scene.phase(&[], "detector")?)?;
    ensure!(scene.written("runs")?.lines().count() == 2, "not both ran");
    scene.is_over()
}

/// A shell that becomes a phase may have children: a `tee` that its output goes through, or who serves the build.
fn what_was_there_before_stays(executables: &Built) -> Result<()> {
    const STARTER: [&str; 4] =
        ["sh", "-c", "sleep 100000 >/dev/null 2>&1 & echo $! > app/before; exec \"$@\"", "sh"];
    for (phase, program) in PROGRAMS {
        let scene = Scene::new(executables, (phase, program), ELSEWHERE)?;
        for path in ["app", "tmp"] {
            lchown(scene.project.path(path), Some(UID), Some(GID)).context("give the folder away")?;
        }
        let mut command = scene.phase(&STARTER, phase)?;
        if phase == "creator" {
            command.envs([("CNB_USER_ID", "1000"), ("CNB_GROUP_ID", "1000")]);
        }
        let ran = succeed(command.current_dir(scene.project.path("")));
        let before = scene.written("before")?;
        let is_there = Path::new("/proc").join(before.trim()).exists();
        succeed(Command::new("kill").arg(before.trim()))?;
        ran.with_context(|| format!("{phase} {program}"))?;
        ensure!(is_there, "{phase} {program}: it was ended");
        scene.is_over().with_context(|| format!("{phase} {program}"))?;
    }
    Ok(())
}

fn a_signal_ends_all(executables: &Built) -> Result<()> {
    for (phase, program) in PROGRAMS {
        for (signal, number) in [("INT", 2), ("TERM", 15)] {
            let script = format!(
                "sleep 100000 & echo $! $$ > pids; echo said; kill -{signal} $PPID; wait; sleep 100000"
            );
            let scene = Scene::new(executables, (phase, program), &script)?;
            let output = scene.phase(&[], phase)?.output().context("start timeout (package coreutils)")?;
            let text =
                [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let what = || format!("{phase} {program} {signal}: {}\n{}", output.status, text.concat());
            ensure!(output.status.signal() == Some(number), "{}", what());
            ensure!(text.concat().contains("said\n"), "{}", what());
            ensure!(text[1].contains(&format!(": interrupted by SIG{signal}\n")), "{}", what());
            scene.is_over().with_context(what)?;
        }
    }
    Ok(())
}

/// Runs a program whose output nobody reads, and prints how it ended.
const UNHEARD: &str = "import os, subprocess, sys; \
    (reader, writer) = os.pipe(); \
    print(subprocess.run(sys.argv[1:], stdout=writer, stderr=writer).returncode)";

fn a_signal_ends_what_nobody_listens_to(executables: &Built) -> Result<()> {
    for (phase, program) in PROGRAMS {
        // More than the pipes hold. What `bin/detect` prints is told at its end only.
        let script = "echo $$ > pids; head -c 1000000 /dev/zero & sleep 0.5; kill -TERM $PPID; sleep 100000";
        let scene = Scene::new(executables, (phase, program), script)?;
        let output = project::run(&mut scene.phase(&["python3", "-I", "-S", "-c", UNHEARD], phase)?)?;
        ensure!(output.text() == "-15\n", "{phase} {program}: {}\n{}", output.exit, output.text());
        scene.is_over().with_context(|| format!("{phase} {program}"))?;
    }
    Ok(())
}

/// The kernel shields it from signals that it does not handle.
fn a_signal_ends_the_first_of_a_container(executables: &Built) -> Result<()> {
    let scene = Scene::new(executables, ("creator", "build"), "kill -TERM $PPID; sleep 100000")?;
    let output = project::run(&mut scene.phase(&["unshare", "--pid", "--fork", "--"], "creator")?)?;
    ensure!(output.exit == 128 + 15, "exit code {}\n{}", output.exit, output.text());
    ensure!(output.text().contains("interrupted by SIGTERM"), "{}", output.text());
    Ok(())
}

fn ignored_signals_stay_ignored(executables: &Built) -> Result<()> {
    let scene = Scene::new(executables, ("builder", "build"), "kill -HUP $PPID; kill -INT $PPID; echo said")?;
    let starter = ["sh", "-c", "trap '' HUP INT; exec \"$@\"", "sh"];
    let output = succeed(&mut scene.phase(&starter, "builder")?)?;
    ensure!(output.text().contains("said\n"), "{}", output.text());
    Ok(())
}

fn no_descriptors_are_inherited(executables: &Built) -> Result<()> {
    let starter = ["sh", "-c", "exec 3< /etc/passwd 4>&1 7< /dev/null; exec \"$@\"", "sh"];
    for (phase, program) in PROGRAMS {
        let scene = Scene::new(executables, (phase, program), "ls /proc/self/fd > descriptors")?;
        succeed(&mut scene.phase(&starter, phase)?)?;
        let found = scene.written("descriptors")?;
        // The last one is what `ls` lists.
        ensure!(found == "0\n1\n2\n3\n", "{phase} {program}: {found}");
    }
    Ok(())
}

/// Who is in which group, in a namespace of mounts.
const OTHER_ETC: &str =
    "mount --bind \"$1\" /etc/passwd; mount --bind \"$2\" /etc/group; shift 2; exec \"$@\"";

fn root_is_dropped_for_good(executables: &Built) -> Result<()> {
    let report = "grep -E '^(Uid|Gid|Groups|Cap(Inh|Prm|Eff|Amb)|NoNewPrivs):' /proc/self/status";
    let group = "root:x:0:cnbs\nadm:x:4:\nstaff:x:50:cnb\ncnb:x:1000:\ndocker:x:998:other,cnb\n";
    for (passwd, groups) in [
        ("root:x:0:0::/root:\ncnb:x:1000:1000::/home/cnb:\n", "50 998 "),
        ("root:x:0:0::/root:\nnemo:x:1000:1000::/home/nemo:\n", " "),
    ] {
        for program in ["detect", "build"] {
            let scene = Scene::new(executables, ("creator", program), &format!("{report} > status"))?;
            let project = &scene.project;
            project.write("passwd", passwd)?;
            project.write("group", group)?;
            for path in ["app", "tmp"] {
                lchown(project.path(path), Some(UID), Some(GID)).context("give the folder away")?;
            }
            let (passwd, group) = (project.path("passwd"), project.path("group"));
            let (passwd, group) = (passwd.display().to_string(), group.display().to_string());
            let starter = ["unshare", "--mount", "sh", "-e", "-c", OTHER_ETC, "sh", &passwd, &group];
            // What the caller has is more than root's own: groups, and capabilities that programs would inherit.
            let caller = ["setpriv", "--groups=0,4,6", "--inh-caps=+chown,+kill,+setuid", "--"];
            let mut creator = scene.phase(&[&starter[..], &caller].concat(), "creator")?;
            succeed(creator.envs([("CNB_USER_ID", "1000"), ("CNB_GROUP_ID", "1000")]))?;
            let none = "0000000000000000";
            let ids = "1000\t1000\t1000\t1000";
            let want = format!(
                "Uid:\t{ids}\nGid:\t{ids}\nGroups:\t{groups}\nCapInh:\t{none}\nCapPrm:\t{none}\nCapEff:\t{none}\n\
                 CapAmb:\t{none}\nNoNewPrivs:\t0\n"
            );
            let found = scene.written("status")?;
            ensure!(found == want, "{program}: {found}, not {want}");
        }
    }
    Ok(())
}

fn no_new_privileges(executables: &Built) -> Result<()> {
    let project = Project::new(executables.for_everyone()?, User::Root)?;
    let log = project.path("calls");
    let log = log.to_str().context("the path is UTF-8")?;
    let starter = [STRACE.name, "-f", "-qqq", "-o", log, "-e", "trace=setgroups,setresuid,capset,prctl"];
    let mut analyzer = project.phase(&starter, "analyzer")?;
    succeed(analyzer.envs([("CNB_USER_ID", "1000"), ("CNB_GROUP_ID", "1000")]).arg(APP_IMAGE))?;
    let calls = fs::read_to_string(log).context("read what strace wrote")?;
    for call in ["setgroups(", "setresuid(1000, 1000, 1000)", "capset(", "prctl(PR_SET_NO_NEW_PRIVS, 1"] {
        let succeeded = calls.lines().any(|line| line.contains(call) && line.ends_with("= 0"));
        ensure!(succeeded, "{call} is missing in\n{calls}");
    }
    Ok(())
}

fn who_may_not_drop_root_is_told(executables: &Built) -> Result<()> {
    for (capability, doing) in
        [("setgid", "changing the supplementary groups"), ("setuid", "changing the user")]
    {
        let project = Project::new(executables.for_everyone()?, User::Root)?;
        let without = format!("-{capability}");
        let starter = ["setpriv", "--bounding-set", &without, "--"];
        let mut analyzer = project.phase(&starter, "analyzer")?;
        let ids = [("CNB_USER_ID", "1000"), ("CNB_GROUP_ID", "1000")];
        let output = project::run(analyzer.envs(ids).arg(APP_IMAGE))?;
        ensure!(output.exit == 1, "exit code {}\n{}", output.exit, output.text());
        let told = [&*format!("failed to exec as user 1000:1000: {doing}: "), "help: ", "CAP_SETGID"];
        ensure!(told.iter().all(|text| output.text().contains(text)), "{}", output.text());
    }
    Ok(())
}

/// As a user who has no other process.
fn limits_of_processes(executables: &Built) -> Result<()> {
    let uid = 20_000 + std::process::id() % 20_000;
    let (user, group) = (format!("--reuid={uid}"), format!("--regid={uid}"));
    for (phase, program, limit, exit) in [
        ("detector", "detect", 1, 21),
        ("detector", "detect", 2, 0),
        ("builder", "build", 1, 51),
        ("builder", "build", 2, 0),
    ] {
        let scene = Scene::new(executables, ("creator", program), "echo said")?;
        let project = &scene.project;
        let mut order = "[[order]]\n".to_owned();
        for name in ["a", "b", "c", "d"] {
            let dir = format!("cnb/buildpacks/acme_{name}/1");
            let id = format!("id = \"acme/{name}\"\nversion = \"1\"\n");
            project.write(&format!("{dir}/buildpack.toml"), format!("api = \"0.10\"\n[buildpack]\n{id}"))?;
            scene.write_script(&format!("{dir}/bin/detect"), "echo said")?;
            write!(order, "[[order.group]]\n{id}")?;
        }
        project.write("cnb/order.toml", order)?;
        for entry in walkdir::WalkDir::new(project.path("")) {
            lchown(entry?.path(), Some(uid), Some(uid)).context("give the project away")?;
        }
        let limit = format!("--nproc={limit}");
        let starter = ["prlimit", &limit, "setpriv", &user, &group, "--clear-groups", "--"];
        let output = project::run(&mut scene.phase(&starter, phase)?)?;
        let what = || format!("{program} {limit}: exit code {}\n{}", output.exit, output.text());
        ensure!(output.exit == exit, "{}", what());
        ensure!(!output.text().contains("panicked"), "{}", what());
        ensure!(exit == 0 || output.text().contains("no more processes are allowed"), "{}", what());
    }
    Ok(())
}

/// A process group in the background that reads the terminal would be stopped for ever.
fn nobody_waits_for_the_terminal(executables: &Built) -> Result<()> {
    let on_a_terminal = "import os, pty, sys; \
        sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:], lambda fd: os.read(fd, 1024))))";
    let script = "echo said > /dev/tty; echo $$ > pids; read password < /dev/tty";
    let scene = Scene::new(executables, ("builder", "build"), script)?;
    let output = project::run(&mut scene.phase(&["python3", "-I", "-S", "-c", on_a_terminal], "builder")?)?;
    ensure!(output.exit == 51, "exit code {}\n{}", output.exit, output.text());
    ensure!(output.text().contains("said"), "{}", output.text());
    ensure!(output.text().contains("it asks for input from the terminal"), "{}", output.text());
    scene.is_over()
}

fn a_missing_app_is_named(executables: &Built) -> Result<()> {
    for (phase, program) in [("detector", "detect"), ("builder", "build"), ("creator", "build")] {
        let scene = Scene::new(executables, (phase, program), "")?;
        fs::remove_dir_all(scene.project.path("app")).context("remove the app")?;
        let output = project::run(&mut scene.phase(&[], phase)?)?;
        let reason = format!("open {}: no such file or directory", scene.project.path("app").display());
        let text = output.text();
        ensure!(output.exit == 1, "{phase}: exit code {}\n{text}", output.exit);
        ensure!(text.contains(&reason) && !text.contains("/bin/"), "{phase}: {text}");
    }
    Ok(())
}
