//! The log of a build: in a file, beside the image, and while the build runs.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::Layout;
use drydock_acceptance::project::{APP_IMAGE, APP_LAYOUT, Project, RUN_IMAGE, run, succeed};
use drydock_acceptance::run::Output;
use drydock_acceptance::scenario::User;
use drydock_acceptance::stage::{GID, UID};
use drydock_acceptance::tools::{self, SKOPEO};
use libtest_mimic::Trial;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("build_logs::beside_the_image", beside_the_image),
            ("build_logs::other_tools_read_the_image", other_tools_read_the_image),
            ("build_logs::phases_one_by_one", phases_one_by_one),
            ("build_logs::nothing_is_opened_as_root", nothing_is_opened_as_root),
            ("build_logs::hostile_buildpacks", hostile_buildpacks),
            ("build_logs::where_nothing_can_be_written", where_nothing_can_be_written),
            ("build_logs::a_rebuild_replaces_it", a_rebuild_replaces_it),
            ("build_logs::a_running_build_is_followed", a_running_build_is_followed),
            ("build_logs::a_killed_build_leaves_nothing", a_killed_build_leaves_nothing),
            ("build_logs::a_file_is_followed_over_all_phases", a_file_is_followed_over_all_phases),
        ],
    )
}

/// What the artifact is, and its layer.
const MEDIA_TYPE: &str = "application/vnd.drydock.build-log.v1+jsonl";

/// Nothing here takes as long.
const PATIENT: [&str; 4] = ["timeout", "--foreground", "--signal=KILL", "120"];

/// A project with a buildpack whose `bin/build` is this script. Scripts run in the app's folder.
struct Scene {
    project: Project,
    drydock: PathBuf,
}

impl Scene {
    fn new(executables: &Built, user: User, script: &str) -> Result<Self> {
        let drydock = executables.get()?.dir().join("drydock");
        let scene = Self { project: Project::new(executables.for_everyone()?, user)?, drydock };
        let project = &scene.project;
        project.write("cnb/order.toml", "[[order]]\n[[order.group]]\nid = \"acme/a\"\nversion = \"1\"\n")?;
        let buildpack = "cnb/buildpacks/acme_a/1";
        project.write(
            &format!("{buildpack}/buildpack.toml"),
            "api = \"0.10\"\n[buildpack]\nid = \"acme/a\"\n",
        )?;
        for (program, script) in [("detect", "exit 0"), ("build", script)] {
            let path = format!("{buildpack}/bin/{program}");
            // Another process writes it: one that this process has open for writing could not be run meanwhile.
            let text = format!("{path}.text");
            project.write(&text, format!("#!/bin/sh\n{script}\n"))?;
            succeed(Command::new("cp").arg(project.path(&text)).arg(project.path(&path)))?;
            fs::set_permissions(project.path(&path), Permissions::from_mode(0o755)).context("chmod")?;
        }
        project.own()?;
        Ok(scene)
    }

    /// A phase with all that it needs, started by another program: its words come first.
    fn phase_under(&self, starter: &[&str], phase: &str) -> Result<Command> {
        let project = &self.project;
        let mut command = project.phase(starter, phase)?;
        for (variable, path) in [
            ("CNB_APP_DIR", "app"),
            ("CNB_BUILDPACKS_DIR", "cnb/buildpacks"),
            ("CNB_ORDER_PATH", "cnb/order.toml"),
            ("CNB_PLATFORM_DIR", "platform"),
            ("CNB_BUILD_CONFIG_DIR", "build-config"),
        ] {
            command.env(variable, project.path(path));
        }
        let arguments: &[&str] = match phase {
            "creator" => &["-run-image", RUN_IMAGE, APP_IMAGE],
            "analyzer" | "exporter" => &[APP_IMAGE],
            _ => &[],
        };
        if ["creator", "exporter"].contains(&phase) {
            command.arg("-launcher").arg(project.path("cnb/launcher"));
        }
        command.args(arguments);
        Ok(command)
    }

    fn phase(&self, phase: &str, log: &str) -> Result<Command> {
        let mut command = self.phase_under(&PATIENT, phase)?;
        command.env("CNB_BUILD_LOG", log);
        Ok(command)
    }

    /// Builds with the log beside the image.
    fn create(&self) -> Result<Output> {
        succeed(&mut self.phase("creator", "auto")?)
    }

    fn drydock(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(&PATIENT[1..]).arg(&self.drydock).args(arguments);
        command.current_dir(self.project.path("")).stdin(Stdio::null()).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("CNB_OCI_LAYOUT_PATH", self.project.path("layout-repo"));
        command
    }

    /// What it prints.
    fn said(&self, arguments: &[&str]) -> Result<String> {
        let output = succeed(&mut self.drydock(arguments))?;
        String::from_utf8(output.stdout).context("the answer is UTF-8")
    }

    fn layout(&self) -> Layout {
        self.project.layout(APP_LAYOUT)
    }

    fn index(&self) -> Result<Vec<Value>> {
        let index: Value = self.layout().json("index.json")?;
        Ok(index["manifests"].as_array().context("it is a list")?.clone())
    }

    /// The digest of the image, and those of its logs.
    fn digests(&self) -> Result<(String, Vec<String>)> {
        let digest = |it: &Value| it["digest"].as_str().unwrap_or_default().to_owned();
        let (logs, images): (Vec<Value>, Vec<Value>) =
            self.index()?.into_iter().partition(|it| it["artifactType"] == MEDIA_TYPE);
        ensure!(images.len() == 1, "there are {} images", images.len());
        Ok((digest(&images[0]), logs.iter().map(digest).collect()))
    }

    /// Files in the layout's folder, but not in those below.
    fn files(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(self.project.path(APP_LAYOUT)).context("list the layout")?;
        let mut names: Vec<String> =
            entries.map(|entry| Ok(entry?.file_name().display().to_string())).collect::<Result<_>>()?;
        names.sort();
        Ok(names)
    }
}

/// The lines of a log: each must have the keys that are documented, and no other.
fn lines(text: &str) -> Result<Vec<Value>> {
    let line = |line: &str| -> Result<Value> {
        let value: Value = serde_json::from_str(line).with_context(|| format!("`{line}`"))?;
        let keys = value.as_object().context("a line is an object")?.keys();
        for key in keys {
            let known = ["time", "phase", "buildpack", "stream", "text", "exit"];
            ensure!(known.contains(&key.as_str()), "{key} in {line}");
        }
        let time = value["time"].as_str().unwrap_or_default();
        ensure!(time.len() == "1970-01-01T00:00:00.000Z".len() && time.ends_with('Z'), "{line}");
        ensure!(["stdout", "stderr"].contains(&value["stream"].as_str().unwrap_or_default()), "{line}");
        Ok(value)
    };
    text.lines().map(line).collect()
}

/// `phase buildpack text` of each.
fn short(lines: &[Value]) -> Vec<String> {
    let field = |line: &Value, key: &str| line[key].as_str().unwrap_or("-").to_owned();
    lines.iter().map(|line| ["phase", "buildpack", "text"].map(|key| field(line, key)).join(" ")).collect()
}

fn has(lines: &[String], wanted: &[&str]) -> Result<()> {
    let mut rest = lines.iter();
    for want in wanted {
        ensure!(rest.any(|line| line.starts_with(want)), "`{want}` is not next in\n{}", lines.join("\n"));
    }
    Ok(())
}

fn beside_the_image(executables: &Built) -> Result<()> {
    let scene = Scene::new(executables, User::Root, "echo one; echo two >&2; env")?;
    succeed(&mut scene.phase_under(&PATIENT, "creator")?)?;
    let (image, logs) = scene.digests()?;
    ensure!(logs.is_empty(), "it was not asked for");
    let refused = run(&mut scene.drydock(&["log", APP_IMAGE]))?;
    ensure!(refused.exit == 1 && refused.text().contains("has no build log"), "{}", refused.text());
    let unknown = run(&mut scene.drydock(&["log", "ap"]))?;
    ensure!(unknown.exit == 3 && unknown.text().contains("did you mean `app:latest`"), "{}", unknown.text());

    let help = run(scene.project.phase(&PATIENT, "creator")?.arg("-h"))?;
    ensure!(help.text().contains("--log-file=<path|auto>"), "{}", help.text());
    let output = scene.create()?;
    let (same, logs) = scene.digests()?;
    ensure!(same == image, "the log changes nothing in the image");
    ensure!(!output.text().contains("CNB_BUILD_LOG"), "the buildpack sees the variable: {}", output.text());
    ensure!(scene.files()? == ["blobs", "index.json", "oci-layout"], "{:?}", scene.files()?);

    let text = scene.said(&["log", APP_IMAGE])?;
    ensure!(text.contains("\none\ntwo\n") && text.contains("\n===> EXPORTING\n"), "{text}");
    let shown = output.text();
    let is_there = |all: &str, line: &str| all.lines().any(|other| other == line);
    let other: Vec<&str> = text.lines().filter(|line| !is_there(&shown, line)).collect();
    ensure!(other.is_empty(), "nobody has printed {other:?}");
    let shown = String::from_utf8_lossy(&output.stdout);
    let (until_saved, _) = shown.split_once("*** Images (").context("it says what it has saved")?;
    let missing: Vec<&str> = until_saved.lines().filter(|line| !is_there(&text, line)).collect();
    ensure!(missing.is_empty(), "{missing:?} is not kept");
    let all = short(&lines(&scene.said(&["--json", "log", APP_IMAGE])?)?);
    has(
        &all,
        &[
            "creator - Warning: No cached data will be used",
            "analyzer - ===> ANALYZING",
            "detector - ===> DETECTING",
            "restorer - ===> RESTORING",
            "builder - ===> BUILDING",
            "builder acme/a one",
            "builder acme/a two",
            "exporter - ===> EXPORTING",
            "exporter - Saving ",
        ],
    )?;
    ensure!(scene.said(&["log", "--follow", APP_IMAGE])? == text, "nothing runs: it is what there is");

    let inspected: Value = serde_json::from_str(&scene.said(&["--json", "inspect", APP_IMAGE])?)?;
    let want = json!([{"digest": logs[0], "artifactType": MEDIA_TYPE, "size": scene.layout().blob(&logs[0])?.map(|blob| blob.len())}]);
    ensure!(inspected["referrers"] == want, "{inspected}");
    succeed(&mut scene.drydock(&["tag", APP_IMAGE, "other:v1"]))?;
    ensure!(scene.said(&["log", "other:v1"])? == text, "it goes with the image");
    succeed(&mut scene.drydock(&["export", APP_IMAGE, "oci:./copy:latest"]))?;
    ensure!(scene.said(&["log", "./copy"])? == text, "it goes with the image to other places");
    succeed(&mut scene.drydock(&["export", APP_IMAGE, "oci-archive:./app.tar"]))?;
    SKOPEO.run(&scene.project.path("."), &["copy", "--quiet", "oci-archive:app.tar", "oci:skopeo:latest"])?;
    succeed(&mut scene.drydock(&["import", "oci-archive:./app.tar", "archived:v1"]))?;
    ensure!(
        scene.said(&["log", "archived:v1"])? == text,
        "it goes with the image, and nobody sees two images"
    );
    succeed(&mut scene.drydock(&["verify"]))?;

    let manifest: Value = serde_json::from_slice(&scene.layout().blob(&logs[0])?.context("it is there")?)?;
    let log = manifest["layers"][0]["digest"].as_str().context("it has a layer")?;
    let path = scene.layout().blob_path(log);
    let other = fs::read_to_string(&path)?.replace("one", "two");
    fs::write(path, other)?;
    let damaged = run(&mut scene.drydock(&["log", APP_IMAGE]))?;
    ensure!(damaged.exit == 1 && damaged.stdout.is_empty(), "{}", damaged.text());
    Ok(())
}

fn other_tools_read_the_image(executables: &Built) -> Result<()> {
    let scene = Scene::new(executables, User::Root, "echo one")?;
    scene.create()?;
    let (digest, _) = scene.digests()?;
    let scratch = tempfile::tempdir().context("make a folder")?;
    let image = tools::Image::new(&scene.project.path(APP_LAYOUT), "latest", scratch.path())?;
    ensure!(image.config()?["config"]["WorkingDir"].is_string(), "skopeo reads the image");
    image.archive("oci-archive")?;
    let root = image.unpack()?;
    ensure!(root.join("cnb").is_dir(), "umoci unpacks the image");
    SKOPEO.run(scratch.path(), &["copy", "--quiet", "oci:layout:latest", "oci:copy:latest"])?;
    let copied: Value = Layout::new(scratch.path().join("copy")).json("index.json")?;
    ensure!(copied["manifests"][0]["digest"] == digest.as_str(), "{copied}");
    Ok(())
}

const PHASES: [&str; 5] = ["analyzer", "detector", "restorer", "builder", "exporter"];

fn phases_one_by_one(executables: &Built) -> Result<()> {
    let scene = Scene::new(executables, User::Cnb, "echo one; env")?;
    let file = scene.project.path("build.jsonl");
    let file = file.to_str().context("it is UTF-8")?;
    for phase in PHASES {
        let output = succeed(&mut scene.phase(phase, file)?)?;
        ensure!(!output.text().contains("CNB_BUILD_LOG"), "{}", output.text());
    }
    ensure!(scene.digests()?.1.is_empty(), "a file is all that was asked for");
    let in_file = lines(&fs::read_to_string(file)?)?;
    let ends: Vec<_> =
        in_file.iter().filter(|line| line["exit"] == 0).map(|line| line["phase"].clone()).collect();
    ensure!(ends == PHASES, "{ends:?}");
    has(&short(&in_file), &["analyzer - ", "detector - ", "builder acme/a one", "exporter - *** Images ("])?;
    let text = scene.said(&["log", "./build.jsonl"])?;
    ensure!(text.contains("\none\n") && text == scene.said(&["log", "--follow", "./build.jsonl"])?, "{text}");

    // Whatever an earlier build has left there.
    scene.project.write("layers/build-log.jsonl", "{}\n")?;
    scene.project.own()?;
    for phase in PHASES {
        succeed(&mut scene.phase(phase, "auto")?)?;
    }
    let kept = lines(&scene.said(&["--json", "log", APP_IMAGE])?)?;
    let ends: Vec<_> =
        kept.iter().filter(|line| line["exit"] == 0).map(|line| line["phase"].clone()).collect();
    ensure!(ends == PHASES[..4], "{ends:?}");
    has(&short(&kept), &["analyzer - ", "detector - ", "builder acme/a one", "exporter - Saving "])?;
    let followed = scene.said(&["log", "--follow", "./layers/build-log.jsonl"])?;
    ensure!(followed.contains("*** Images ("), "{followed}");

    // The end of a phase that fails is the end of the build.
    let failed = Scene::new(executables, User::Cnb, "echo one; exit 3")?;
    for phase in &PHASES[..4] {
        run(&mut failed.phase(phase, "log")?)?;
    }
    let text = fs::read_to_string(failed.project.path("log"))?;
    ensure!(lines(&text)?.last().is_some_and(|line| line["exit"] == 51), "{text}");
    let followed = failed.said(&["log", "--follow", "./log"])?;
    ensure!(followed.contains("ERROR: failed to build: exit status 3"), "{followed}");
    Ok(())
}

fn nothing_is_opened_as_root(executables: &Built) -> Result<()> {
    let scene = Scene::new(executables, User::Root, "echo one")?;
    for log in ["auto", "layers/log"] {
        for phase in PHASES {
            let mut command = scene.phase(phase, log)?;
            match phase {
                "detector" | "builder" => command.uid(UID).gid(GID),
                _ => command.env("CNB_USER_ID", UID.to_string()).env("CNB_GROUP_ID", GID.to_string()),
            };
            let output = succeed(&mut command)?;
            ensure!(!output.text().contains("The build's log"), "{}", output.text());
        }
    }
    for name in ["build-log.jsonl", "log"] {
        let owner = scene.project.path("layers").join(name).metadata().context("it is there")?.uid();
        ensure!(owner == UID, "{name} is {owner}'s");
    }
    ensure!(scene.digests()?.1.len() == 1, "the image is the same, and has its log");
    // Where only root may write, nobody does.
    let output = succeed(
        scene
            .phase("analyzer", "log")?
            .env("CNB_USER_ID", UID.to_string())
            .env("CNB_GROUP_ID", GID.to_string()),
    )?;
    ensure!(
        output.text().contains("Permission denied") && !scene.project.path("log").exists(),
        "{}",
        output.text()
    );
    Ok(())
}

/// Nothing that buildpacks print breaks a line, gets to the terminal, or is held in memory.
fn hostile_buildpacks(executables: &Built) -> Result<()> {
    let script = r#"printf 'a\033[2J\033[31mred\033]0;title\007\377\n{"text":"b"}\n'
        head -c 3000000 /dev/zero | tr '\0' x
        printf '\n\000c\r\nd'"#;
    let scene = Scene::new(executables, User::Root, script)?;
    scene.create()?;
    let text = scene.said(&["--json", "log", APP_IMAGE])?;
    let all = lines(&text)?;
    let printed: Vec<_> = all.iter().filter(|line| line["buildpack"] == "acme/a").collect();
    let text_of = |line: &Value| line["text"].as_str().unwrap_or_default().to_owned();
    ensure!(text_of(printed[0]) == "a\u{1b}[2J\u{1b}[31mred\u{1b}]0;title\u{7}\u{fffd}", "{}", printed[0]);
    ensure!(text_of(printed[1]) == "{\"text\":\"b\"}", "{}", printed[1]);
    let (long, last) = printed[2..].split_at(printed.len() - 4);
    ensure!(long.len() > 40 && long.iter().all(|line| text_of(line).len() <= 65536), "{}", long.len());
    ensure!(long.iter().map(|line| text_of(line).len()).sum::<usize>() == 3_000_000, "nothing is lost");
    ensure!(text_of(last[0]) == "\0c\r" && text_of(last[1]) == "d", "{last:?}");

    let shown = scene.said(&["log", APP_IMAGE])?;
    ensure!(
        shown.contains("\na\\u{1b}[2Jred\\u{1b}]0;title\\u{7}\u{fffd}\n"),
        "{}",
        &shown[..shown.len().min(3000)]
    );
    let wrong = shown.chars().find(|c| c.is_control() && *c != '\n' && *c != '\t');
    ensure!(wrong.is_none(), "{wrong:?} is shown");

    // What is in the layers directory, buildpacks can write to.
    let forger = "printf 'no line\\n' >> $CNB_LAYERS_DIR/../build-log.jsonl";
    let scene = Scene::new(executables, User::Cnb, forger)?;
    for phase in PHASES {
        succeed(&mut scene.phase(phase, "auto")?)?;
    }
    let kept = short(&lines(&scene.said(&["--json", "log", APP_IMAGE])?)?);
    has(&kept, &["analyzer - ", "exporter - 1 lines are left out here"])
}

fn where_nothing_can_be_written(executables: &Built) -> Result<()> {
    for (phase, user) in [("creator", User::Root), ("exporter", User::Cnb)] {
        let scene = Scene::new(executables, user, "exit 0")?;
        let path = |name: &str| scene.project.path(name);
        fs::create_dir(path("folder"))?;
        scene.project.write("target", "as it was")?;
        symlink("target", path("link"))?;
        mknodat(CWD, path("fifo"), FileType::Fifo, Mode::from_raw_mode(0o666), 0)?;
        scene.project.own()?;
        if phase == "exporter" {
            PHASES[..4].iter().try_for_each(|phase| succeed(&mut scene.phase(phase, "")?).map(drop))?;
        }
        for (log, why) in [
            ("no/log", "No such file"),
            ("folder", "directory"),
            ("link", "it is a symbolic link"),
            ("fifo", "not a regular file"),
            ("/dev/full", "not a regular file"),
        ] {
            let output = succeed(&mut scene.phase(phase, log)?)?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let warnings = said.lines().filter(|line| line.contains("The build's log")).collect::<Vec<_>>();
            ensure!(warnings.len() == 1 && warnings[0].contains(why), "{phase} {log}: {said}");
        }
        ensure!(fs::read_to_string(path("target"))? == "as it was", "a link was followed");
        succeed(&mut scene.drydock(&["verify"]))?;
    }
    // Where the export takes it from.
    let scene =
        Scene::new(executables, User::Cnb, "ln -sf ../group.toml $CNB_LAYERS_DIR/../build-log.jsonl")?;
    let mut said = String::new();
    for phase in PHASES {
        said = succeed(&mut scene.phase(phase, "auto")?)?.text();
    }
    ensure!(said.contains("The build's log is not kept: "), "{said}");
    let (_, logs) = scene.digests()?;
    ensure!(logs.is_empty(), "{logs:?}");
    Ok(())
}

fn a_rebuild_replaces_it(executables: &Built) -> Result<()> {
    let scene = Scene::new(executables, User::Root, "cat said")?;
    let say = |text: &str| fs::write(scene.project.path("app/said"), text);
    say("first\n")?;
    scene.create()?;
    let (first, first_logs) = scene.digests()?;
    scene.create()?;
    let (again, logs) = scene.digests()?;
    ensure!(again == first && logs.len() == 1 && logs != first_logs, "{first_logs:?} {logs:?}");
    say("second\n")?;
    scene.create()?;
    let (second, logs) = scene.digests()?;
    ensure!(second != first && logs.len() == 1, "{logs:?}");
    let text = scene.said(&["log", APP_IMAGE])?;
    ensure!(text.contains("\nsecond\n") && !text.contains("first"), "{text}");
    // The last log goes with the image, whoever replaces that, and nothing of any is left.
    say("third\n")?;
    succeed(&mut scene.phase_under(&PATIENT, "creator")?)?;
    ensure!(scene.digests()?.1.is_empty(), "it is another image's");
    Ok(())
}

/// Reads lines until one is this.
fn read_until(reader: &mut impl BufRead, wanted: &str) -> Result<()> {
    let mut said = String::new();
    while !said.ends_with(&format!("{wanted}\n")) {
        ensure!(reader.read_line(&mut said)? > 0, "`{wanted}` is not said: {said}");
    }
    Ok(())
}

fn end(mut child: Child) -> Result<String> {
    let mut said = String::new();
    child.stderr.take().context("it is captured")?.read_to_string(&mut said)?;
    let status = child.wait().context("wait")?;
    ensure!(status.success(), "{status}: {said}");
    Ok(said)
}

/// A build that waits until there is a file `go` after it has said so.
const SLOW: &str = "echo waiting; while ! test -e go; do sleep 0.05; done; echo done";

fn follow(scene: &Scene, name: &str) -> Result<(Child, BufReader<std::process::ChildStdout>)> {
    let mut command = scene.drydock(&["log", "--follow", name]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start drydock")?;
    let reader = BufReader::new(child.stdout.take().context("it is captured")?);
    Ok((child, reader))
}

/// Waits until a running build has its file.
fn wait_for(what: impl Fn() -> bool) -> Result<()> {
    for _ in 0..2400 {
        if what() {
            return Ok(());
        }
        sleep(Duration::from_millis(50));
    }
    anyhow::bail!("waited in vain")
}

fn has_spool(scene: &Scene) -> bool {
    scene.files().is_ok_and(|files| files.iter().any(|name| name.starts_with(".drydock-log-")))
}

fn a_running_build_is_followed(executables: &Built) -> Result<()> {
    let scene = Scene::new(executables, User::Root, SLOW)?;
    let output = File::create(scene.project.path("output")).context("make a file")?;
    let build = scene.phase("creator", "auto")?.stdout(output).stderr(Stdio::piped()).spawn()?;
    wait_for(|| has_spool(&scene))?;
    let (followers, mut readers): (Vec<_>, Vec<_>) =
        (0..2).map(|_| follow(&scene, APP_IMAGE)).collect::<Result<Vec<_>>>()?.into_iter().unzip();
    for reader in &mut readers {
        read_until(reader, "waiting")?;
    }
    // Nobody takes it for what is left over.
    succeed(&mut scene.drydock(&["gc"]))?;
    ensure!(has_spool(&scene), "gc removes the log of a build that runs");
    fs::write(scene.project.path("app/go"), "")?;
    for (follower, mut reader) in followers.into_iter().zip(readers) {
        let mut rest = String::new();
        reader.read_to_string(&mut rest)?;
        ensure!(rest.starts_with("done\n") && rest.contains("*** Images ("), "{rest}");
        ensure!(end(follower)?.is_empty(), "there is nothing to note");
    }
    end(build)?;
    ensure!(!has_spool(&scene), "{:?}", scene.files()?);
    ensure!(scene.said(&["log", APP_IMAGE])?.contains("\ndone\n"), "it is kept");

    // A build that fails leaves nothing, not even folders.
    let scene = Scene::new(executables, User::Root, "exit 1")?;
    let output = run(&mut scene.phase("creator", "auto")?)?;
    ensure!(output.exit == 51, "{}", output.text());
    ensure!(!scene.project.path("layout-repo/index.docker.io").exists(), "{:?}", scene.files());
    Ok(())
}

fn a_killed_build_leaves_nothing(executables: &Built) -> Result<()> {
    for next in ["creator", "gc"] {
        let scene = Scene::new(executables, User::Root, SLOW)?;
        let mut command = scene.phase_under(&["env", "CNB_BUILD_LOG=auto"], "creator")?;
        let mut build = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        wait_for(|| has_spool(&scene))?;
        let (follower, mut reader) = follow(&scene, APP_IMAGE)?;
        read_until(&mut reader, "waiting")?;
        build.kill()?;
        build.wait()?;
        reader.read_to_string(&mut String::new())?;
        ensure!(end(follower)?.contains("the build was killed"), "{next}");
        fs::write(scene.project.path("app/go"), "")?;
        let refused = run(&mut scene.drydock(&["log", "--follow", APP_IMAGE]))?;
        ensure!(refused.exit == 3, "{}", refused.text());
        match next {
            "creator" => drop(scene.create()?),
            _ => drop(succeed(&mut scene.drydock(&["gc"]))?),
        }
        ensure!(!has_spool(&scene), "{next} leaves {:?}", scene.files()?);
    }
    Ok(())
}

fn a_file_is_followed_over_all_phases(executables: &Built) -> Result<()> {
    let scene = Scene::new(executables, User::Cnb, SLOW)?;
    succeed(&mut scene.phase("analyzer", "log")?)?;
    let (follower, mut reader) = follow(&scene, "./log")?;
    succeed(&mut scene.phase("detector", "log")?)?;
    succeed(&mut scene.phase("restorer", "log")?)?;
    let builder = scene.phase("builder", "log")?.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    read_until(&mut reader, "waiting")?;
    fs::write(scene.project.path("app/go"), "")?;
    end(builder)?;
    read_until(&mut reader, "done")?;
    succeed(&mut scene.phase("exporter", "log")?)?;
    let mut rest = String::new();
    reader.read_to_string(&mut rest)?;
    ensure!(rest.contains("*** Images ("), "{rest}");
    ensure!(end(follower)?.is_empty(), "it has seen the end");
    ensure!(Path::new(&scene.project.path("log")).is_file(), "the file stays");
    Ok(())
}
