//! The extender, as root in the file system of the image that it extends.

mod kept;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{self, APP_LAYOUT, Project, RUN_LAYOUT, succeed};
use drydock_acceptance::run::Output;
use drydock_acceptance::run_image;
use drydock_acceptance::scenario::User;
use drydock_acceptance::tools;
use drydock_acceptance::tree;
use libtest_mimic::Trial;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    let mut trials = with_executables(
        executables,
        [
            ("extending::run_image", run_image),
            ("extending::run_image_before_0_13", run_image_before_0_13),
            ("extending::build_image", build_image),
            ("extending::images_for_extenders", images_for_extenders),
            ("extending::what_is_wrong_is_said_before_anything_runs", before_anything_runs),
            ("extending::failures_leave_what_was_there", failures),
            ("extending::interrupted", interrupted),
            ("extending::hostile_contexts", hostile_contexts),
            ("extending::programs_inherit_nothing", programs_inherit_nothing),
        ],
    );
    trials.extend(kept::trials(executables));
    trials
}

const EXTENDED: &str = "layers/extended/run";
const GENERATED: &str = "layers/generated/acme_ext";
const EXTENSION: &str = "id = \"acme/ext\"\nversion = \"1\"\napi = \"0.10\"\n";

/// A project on the busybox run image, which an extension extends, and that image's file system.
pub(crate) struct Extending {
    pub(crate) project: Project,
    executables: PathBuf,
    pub(crate) scratch: TempDir,
}

impl Extending {
    pub(crate) fn new(executables: &Built) -> Result<Self> {
        let executables = executables.get()?.dir().to_owned();
        let project = Project::new(&executables, User::Root)?;
        fs::remove_dir_all(project.path(RUN_LAYOUT)).context("remove the recorded run image")?;
        run_image::write(&project.path(RUN_LAYOUT))?;
        let group = fs::read_to_string(project.path("layers/group.toml"))?;
        project.write("layers/group.toml", format!("{group}\n[[group-extensions]]\n{EXTENSION}"))?;
        project.analyze()?;
        let analyzed = fs::read_to_string(project.path("layers/analyzed.toml"))?;
        let reference =
            analyzed.lines().find(|line| line.contains(RUN_LAYOUT)).context("a run image")?.to_owned();
        let analyzed = analyzed.replace("[run-image]\n", "[run-image]\nextend = true\n");
        project.write("layers/analyzed.toml", format!("{analyzed}\n[build-image]\n{reference}\n"))?;
        let extending = Self { project, executables, scratch: tempfile::tempdir()? };
        Ok(extending)
    }

    /// The image's file system, as it is when a container starts.
    pub(crate) fn root(&self) -> Result<PathBuf> {
        let root = self.scratch.path().join("root");
        if root.exists() {
            fs::remove_dir_all(&root).context("remove the root")?;
        }
        let scratch = tempfile::tempdir_in(self.scratch.path())?;
        let unpacked =
            tools::Image::new(&self.project.path(RUN_LAYOUT), "latest", scratch.path())?.unpack()?;
        fs::rename(unpacked, &root)?;
        Ok(root)
    }

    pub(crate) fn generate(&self, name: &str, text: &str) -> Result<()> {
        self.project.write(&format!("{GENERATED}/{name}"), text)
    }

    /// The extender in a container of the image; it may not take longer than two minutes.
    fn extender(&self, root: &Path, kind: &str) -> Result<Command> {
        self.extender_under(&["timeout", "--foreground", "--signal=KILL", "120"], root, kind)
    }

    /// The same, started by another program: its words come first.
    fn extender_under(&self, words: &[&str], root: &Path, kind: &str) -> Result<Command> {
        self.extender_inside(words, &[], root, kind)
    }

    /// The same, with further words in the container.
    pub(crate) fn extender_inside(
        &self,
        words: &[&str],
        inside: &[&str],
        root: &Path,
        kind: &str,
    ) -> Result<Command> {
        let utf8 = |path: &Path| Ok::<_, anyhow::Error>(path.to_str().context("a path is UTF-8")?.to_owned());
        let (root, project, executables) =
            (utf8(root)?, utf8(&self.project.path("").canonicalize()?)?, utf8(&self.executables)?);
        let starter = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            include_str!("../in_root.sh"),
            "sh",
            &root,
            &project,
            &executables,
        ];
        let mut command = self.project.phase(&[words, &starter, inside].concat(), "extender")?;
        command.args(["-kind", kind, "-app"]).arg(self.project.path("app"));
        Ok(command)
    }

    fn extend_run(&self) -> Result<Output> {
        project::run(&mut self.extender(&self.root()?, "run")?)
    }

    /// The names in `<extended>`, and in its folder `run`.
    fn extended(&self) -> Result<(Vec<String>, Vec<String>)> {
        let list = |path: &str| -> Result<Vec<String>> {
            let entries = match fs::read_dir(self.project.path(path)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            entries.map(|entry| Ok(entry?.file_name().display().to_string())).collect()
        };
        Ok((list("layers/extended")?, list(EXTENDED)?))
    }
}

fn said(output: &Output, exit: i32, wanted: &[&str]) -> Result<()> {
    ensure!(output.exit == exit, "exit code {}, not {exit}\n{}", output.exit, output.text());
    for wanted in wanted {
        ensure!(output.text().contains(wanted), "`{wanted}` is not said:\n{}", output.text());
    }
    Ok(())
}

const RUN_DOCKERFILE: &str = r#"ARG base_image
FROM ${base_image}

USER root
ARG build_id=0
RUN echo ${build_id}
ARG from=nobody
ENV GREETING="hello $from" PATH=/opt/ext/bin:$PATH
LABEL io.buildpacks.rebasable=true acme.from=$from
COPY --chown=cnb --chmod=u=rwX,go=rX . /opt/ext/
RUN rm /etc/motd && \
    # a comment
    echo "$GREETING" > /etc/greeting && ln /etc/greeting /etc/other && ln -s greeting /etc/link && \
    chmod 4751 /opt/ext/bin/tool && mkdir -p /var/empty && \
    rm -r /home/cnb && mkdir /home/cnb && echo new > /home/cnb/file && chown -R cnb:cnb /home/cnb
SHELL ["/bin/sh", "-euc"]
USER cnb
WORKDIR work
RUN <<EOF
id -u > who
id -G >> who
pwd >> who
echo "$HOME" >> who
EOF
ARG user_id group_id
USER ${user_id}:${group_id}
EXPOSE 8080
"#;

fn run_image(executables: &Built) -> Result<()> {
    let extending = Extending::new(executables)?;
    let Extending { project, .. } = &extending;
    extending.generate("run.Dockerfile", RUN_DOCKERFILE)?;
    extending.generate(
        "extend-config.toml",
        "[[build.args]]\nname = \"from\"\nvalue = \"wrong\"\n[[run.args]]\nname = \"from\"\nvalue = \"config\"\n",
    )?;
    for (name, text) in
        [("bin/tool", "#!/bin/sh\n"), ("a.md", "no"), ("sub/data", "data"), (".dockerignore", "*.md\n.d*\n")]
    {
        extending.generate(&format!("context.run/{name}"), text)?;
    }
    extending.generate("context.build/wrong", "")?;
    succeed(&mut project.restorer()?)?;
    let mut digests = Vec::new();
    for _ in 0..2 {
        let root = extending.root()?;
        let mut extender = extending.extender(&root, "run")?;
        let output = succeed(extender.env("SOURCE_DATE_EPOCH", "1700000000"))?;
        said(&output, 0, &["acme/ext [2/5] COPY --chown=cnb", "Extended run image: "])?;
        let (beside, found) = extending.extended()?;
        ensure!(beside == ["run"] && found.len() == 1, "there are {beside:?}, {found:?}");
        digests.extend(found);
    }
    ensure!(digests[0] == digests[1], "the same gives other bytes: {digests:?}");
    project.export()?;

    let layout = project.layout(APP_LAYOUT);
    let faults = layout.faults()?;
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    let image = layout.verify()?.remove(0);
    let config = &image.config["config"];
    ensure!(config["User"] == "1000:1000", "User: {}", config["User"]);
    let env = config["Env"].as_array().context("an environment")?;
    ensure!(env.contains(&json!("GREETING=hello config")), "Env: {env:?}");
    ensure!(config["ExposedPorts"] == json!({"8080/tcp": {}}), "ports: {config}");
    let labels = &config["Labels"];
    ensure!(
        labels["io.buildpacks.rebasable"] == "true" && labels["acme.from"] == "config",
        "labels: {labels}"
    );
    // What the base asks for in images on it.
    ensure!(env.contains(&json!("BUILT_UPON=yes")) && config["OnBuild"].is_null(), "triggers: {config}");
    let history = image.config["history"].as_array().context("a history")?;
    let texts: Vec<&str> = history.iter().filter_map(|entry| entry["created_by"].as_str()).collect();
    let ours = |text: &str| format!("Layer: '{text}', Created by extension: acme/ext");
    ensure!(
        texts[2] == ours("COPY --chown=cnb --chmod=u=rwX,go=rX . /opt/ext/")
            && texts[3].starts_with("Layer: 'RUN rm /etc/motd && ")
            && texts[4] == ours("WORKDIR work")
            && texts[5] == ours("RUN <<EOF")
            && texts[6] == "Application Layer",
        "history: {texts:#?}"
    );

    let scratch = tempfile::tempdir()?;
    let judged = tools::Image::new(&project.path(APP_LAYOUT), "latest", scratch.path())?;
    let root = judged.unpack()?;
    for (path, wanted) in [
        ("etc/greeting", "hello config\n"),
        ("etc/other", "hello config\n"),
        ("etc/link", "hello config\n"),
        ("opt/ext/sub/data", "data"),
        ("home/cnb/file", "new\n"),
        ("home/cnb/work/who", "1000\n1000\n/home/cnb/work\n/home/cnb\n"),
        ("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n"),
    ] {
        let found = fs::read_to_string(root.join(path)).with_context(|| format!("read {path}"))?;
        ensure!(found == wanted, "{path} holds {found:?}");
    }
    for path in [
        "etc/motd",
        "etc/issue",
        "opt/ext/a.md",
        "opt/ext/.dockerignore",
        "home/cnb/.profile",
        "kaniko",
        "usr/lib",
    ] {
        ensure!(fs::symlink_metadata(root.join(path)).is_err(), "{path} is there");
    }
    for (path, mode, owner) in [
        ("opt/ext/bin/tool", 0o4751, 1000),
        ("opt/ext/sub", 0o755, 1000),
        ("etc/greeting", 0o644, 0),
        ("home/cnb", 0o755, 1000),
        ("home/cnb/work", 0o755, 1000),
        ("home/cnb/work/who", 0o644, 1000),
        ("etc/shadow", 0o640, 0),
        ("var/mail", 0o2775, 0),
    ] {
        let facts = fs::symlink_metadata(root.join(path))?;
        let found = (facts.mode() & 0o7777, facts.uid());
        ensure!(found == (mode, owner), "{path} is {:o} of {}", found.0, found.1);
    }
    let file = |path: &str| fs::metadata(root.join(path));
    ensure!(file("etc/greeting")?.ino() == file("etc/other")?.ino(), "the hard link is none any more");
    ensure!(file("etc/greeting")?.mtime() <= 1_700_000_000, "a file is later than it may be");
    Ok(())
}

/// Files are by image then, and the context is the app.
fn run_image_before_0_13(executables: &Built) -> Result<()> {
    let extending = Extending::new(executables)?;
    let Extending { project, .. } = &extending;
    let dir = "layers/generated/run/acme_ext";
    project.write(
        &format!("{dir}/Dockerfile"),
        "ARG base_image\nFROM ${base_image}\nARG a\nCOPY file /opt/$a\n",
    )?;
    project
        .write(&format!("{dir}/extend-config.toml"), "[[run.args]]\nname = \"a\"\nvalue = \"from-app\"\n")?;
    let mut extender = extending.extender(&extending.root()?, "run")?;
    succeed(extender.env("CNB_PLATFORM_API", "0.12"))?;
    let mut exporter = project.exporter()?;
    succeed(
        exporter.env("CNB_PLATFORM_API", "0.12").env("CNB_EXPERIMENTAL_MODE", "warn").arg(project::APP_IMAGE),
    )?;
    let image = project.layout(APP_LAYOUT).verify()?.remove(0);
    ensure!(image.config["config"]["Labels"]["io.buildpacks.rebasable"] == "false", "it is rebasable");
    let scratch = tempfile::tempdir()?;
    let root = tools::Image::new(&project.path(APP_LAYOUT), "latest", scratch.path())?.unpack()?;
    ensure!(fs::read_to_string(root.join("opt/from-app"))? == "content\n", "the app's file is another");
    Ok(())
}

fn build_image(executables: &Built) -> Result<()> {
    let extending = Extending::new(executables)?;
    let Extending { project, .. } = &extending;
    extending.generate(
        "build.Dockerfile",
        "ARG base_image\nFROM ${base_image}\nUSER root\nRUN echo tool > /usr/bin/tool && umask > /umask\nENV CPATH=/opt/x PATH=/opt/bin:$PATH\n\
         ARG user_id\nUSER ${user_id}\n",
    )?;
    let buildpack = "cnb/buildpacks/acme_a/1";
    project.write(
        &format!("{buildpack}/buildpack.toml"),
        "api = \"0.10\"\n[buildpack]\nid = \"acme/a\"\nversion = \"1\"\n[[targets]]\nos = \"linux\"\n",
    )?;
    let script = "#!/bin/sh\ncat /usr/bin/tool /umask\nid -u\necho \"CPATH=$CPATH PATH=$PATH HOME=$HOME\"\nexit ${FAIL:-0}\n";
    project.write(&format!("{buildpack}/bin/build"), script)?;
    drydock_acceptance::stage::chmod(&project.path(&format!("{buildpack}/bin/build")), 0o755)?;
    project.write("layers/plan.toml", "")?;
    let build = || -> Result<Output> {
        let mut extender = extending.extender(&extending.root()?, "build")?;
        extender
            .arg("-buildpacks")
            .arg(project.path("cnb/buildpacks"))
            .args(["-uid", "1000", "-gid", "1000"]);
        extender.arg("-platform").arg(project.path("platform"));
        project::run(&mut extender)
    };
    let output = build()?;
    said(
        &output,
        0,
        &["tool\n0022\n1000\n", "CPATH=/opt/x PATH=/opt/bin:/usr/local/sbin", "HOME=/home/cnb"],
    )?;
    let metadata = project.path("layers/config/metadata.toml").metadata()?;
    ensure!(metadata.uid() == 1000, "the layers directory was not given away");
    let left: Vec<String> = fs::read_dir(project.path("layers"))?
        .map(|entry| Ok(entry?.file_name().display().to_string()))
        .filter(|name| name.as_ref().is_ok_and(|name: &String| name.starts_with('.')))
        .collect::<Result<_>>()?;
    ensure!(left.is_empty(), "these are left: {left:?}");
    ensure!(!project.path("layers/extended").exists(), "an extended image was written");

    project.write("platform/env/FAIL", "7")?;
    said(&build()?, 51, &["failed to build: ", "exit status 7"])?;
    let mut as_root = extending.extender(&extending.root()?, "build")?;
    said(&project::run(as_root.args(["-uid", "0"]))?, 1, &["failed to build: refusing to run as root"])?;
    ensure!(!extending.scratch.path().join("root/usr/bin/tool").exists(), "it was extended all the same");
    Ok(())
}

/// Whatever the extender was started with: programs of instructions and buildpacks have no more descriptors, variables, groups
/// and capabilities than their user.
fn programs_inherit_nothing(executables: &Built) -> Result<()> {
    const STATUS: &str = "grep -E '^(Uid|Groups|Cap(Inh|Prm|Eff|Amb)):' /proc/self/status | xargs; \
                          ls /proc/self/fd | tr '\\n' ' '; echo; env | grep -c a-secret || true";
    let extending = Extending::new(executables)?;
    let Extending { project, .. } = &extending;
    extending.generate(
        "build.Dockerfile",
        &format!(
            "ARG base_image\nFROM ${{base_image}}\nUSER root\nRUN {STATUS}; echo of root\nUSER cnb\nRUN {STATUS}; echo of cnb\n"
        ),
    )?;
    let buildpack = "cnb/buildpacks/acme_a/1";
    project.write(
        &format!("{buildpack}/buildpack.toml"),
        "api = \"0.10\"\n[buildpack]\nid = \"acme/a\"\nversion = \"1\"\n[[targets]]\nos = \"linux\"\n",
    )?;
    project.write(&format!("{buildpack}/bin/build"), format!("#!/bin/sh\n{STATUS}; echo of buildpack\n"))?;
    drydock_acceptance::stage::chmod(&project.path(&format!("{buildpack}/bin/build")), 0o755)?;
    project.write("layers/plan.toml", "")?;
    let starter = "exec 3< /etc/passwd 4>&1 7< /dev/null; exec \"$@\"";
    let words =
        ["setpriv", "--groups=0,4,6", "--inh-caps=+chown,+kill,+setuid", "--", "sh", "-c", starter, "sh"];
    let mut extender = extending.extender_under(&words, &extending.root()?, "build")?;
    extender.env("CNB_REGISTRY_AUTH", "a-secret").env("SECRET", "a-secret");
    extender.arg("-buildpacks").arg(project.path("cnb/buildpacks")).args(["-uid", "1000", "-gid", "1000"]);
    let output = succeed(extender.arg("-platform").arg(project.path("platform")))?;
    let none = "0000000000000000";
    let user = |groups: &str| {
        format!(
            "Uid: 1000 1000 1000 1000 Groups:{groups} CapInh: {none} CapPrm: {none} CapEff: {none} CapAmb: {none}\n\
             0 1 2 3 \n0\n"
        )
    };
    let text = output.text();
    for (who, wanted) in
        [("cnb", user(" 1000")), ("buildpack", user("")), ("root", "0 1 2 3 \n0\n".to_owned())]
    {
        ensure!(text.contains(&format!("{wanted}of {who}\n")), "{who}, not\n{wanted}\n{text}");
    }
    Ok(())
}

/// Where the layouts are not in sight, platforms put manifest and configuration into a folder for extenders.
fn images_for_extenders(executables: &Built) -> Result<()> {
    let extending = Extending::new(executables)?;
    let Extending { project, .. } = &extending;
    extending.generate("run.Dockerfile", "ARG base_image\nFROM ${base_image}\nRUN touch /tmp/new\n")?;
    let base = project.layout(RUN_LAYOUT).images()?.remove(0);
    let digest = base.descriptor.digest.clone();
    let reference = format!("example.com/acme/run@{digest}");
    let text = format!(
        "[run-image]\nreference = \"{reference}\"\nimage = \"example.com/acme/run\"\nextend = true\n"
    );
    project.write("layers/analyzed.toml", text)?;
    said(
        &extending.extend_run()?,
        102,
        &["failed to extend: getting run image to extend", &digest, "put the image at"],
    )?;

    let given = format!("kaniko/cache/base/{digest}");
    for name in ["oci-layout", "index.json"] {
        project.write(&format!("{given}/{name}"), fs::read(project.path(RUN_LAYOUT).join(name))?)?;
    }
    let manifest: serde_json::Value =
        serde_json::from_slice(&project.layout(RUN_LAYOUT).blob(&digest)?.context("a manifest")?)?;
    for digest in [&digest, manifest["config"]["digest"].as_str().context("a config")?] {
        let blob = project.layout(RUN_LAYOUT).blob(digest)?.context("a blob")?;
        project.write(&format!("{given}/blobs/{}", digest.replacen(':', "/", 1)), blob)?;
    }
    said(&extending.extend_run()?, 0, &["Extended run image"])
}

/// Each of these fails, with these words and this exit code, and no program has run.
fn before_anything_runs(executables: &Built) -> Result<()> {
    let extending = Extending::new(executables)?;
    let Extending { project, .. } = &extending;
    let root = extending.root()?;
    let from = "ARG base_image\nFROM ${base_image}\nRUN touch /tmp/ran\n";
    let path = project.path(&format!("{GENERATED}/run.Dockerfile")).display().to_string();
    for (rest, wanted) in [
        ("RUNN x\n", "line 4: unknown instruction: RUNN; did you mean RUN?"),
        ("COPY --from=x y z\n", "line 4: COPY --from=x is not supported here"),
        ("ADD https://example.com/x /y\n", "line 4: ADD of a download is not supported here"),
        ("RUN --mount=type=secret,id=x y\n", "line 4: RUN --mount=type=secret is not supported here"),
        ("RUN --network=none y\n", "line 4: RUN --network=none is not supported here"),
        ("FROM x\n", "line 4: a second stage is not supported here"),
        ("ENV a=${b:?'b is missing'}\n", "line 4: `b` is not set or empty: b is missing"),
        ("USER 0\n", "extending run image: the final user ID is 0 (root)"),
        ("USER ${user_id}:${group_id}\n", "extending run image: the final user ID is empty (root)"),
        ("RUN <<E\n", "line 4: the here-document `E` does not end"),
    ] {
        extending.generate("run.Dockerfile", &format!("{from}{rest}"))?;
        let output = project::run(&mut extending.extender(&root, "run")?)?;
        said(&output, 102, &["failed to extend: ", wanted])?;
        if wanted.starts_with("line") {
            said(&output, 102, &[&format!("{path}: {wanted}")])?;
        }
    }
    extending.generate("run.Dockerfile", from)?;
    extending.generate("extend-config.toml", "[[run.args]\n")?;
    said(&project::run(&mut extending.extender(&root, "run")?)?, 102, &["extend-config.toml"])?;
    extending.generate("extend-config.toml", "")?;
    extending.generate("context.run/.dockerignore", "a[\n")?;
    said(
        &project::run(&mut extending.extender(&root, "run")?)?,
        102,
        &[".dockerignore: line 1: the pattern"],
    )?;
    project.write("layers/analyzed.toml", "")?;
    said(&project::run(&mut extending.extender(&root, "run")?)?, 102, &["names none", "analyzer"])?;
    ensure!(!root.join("tmp/ran").exists(), "a program has run");
    let found = extending.extended()?;
    ensure!(found.1.is_empty(), "there are {found:?}");
    Ok(())
}

fn failures(executables: &Built) -> Result<()> {
    let extending = Extending::new(executables)?;
    let from = "ARG base_image\nFROM ${base_image}\n";
    let path = extending.project.path(&format!("{GENERATED}/run.Dockerfile")).display().to_string();
    for first in [true, false] {
        let before = extending.extended()?.1;
        for (rest, wanted) in [
            ("RUN touch /tmp/a\nRUN exit 3\n", "line 4: RUN exit 3: exit status 3"),
            (
                "RUN [\"/no/such/program\"]\n",
                "line 3: RUN [\"/no/such/program\"]: failed to run `/no/such/program`",
            ),
            ("COPY none /x\n", "line 3: COPY none /x: `none` is not in the context"),
            (
                "COPY --chown=stranger file /x\n",
                "line 3: COPY --chown=stranger file /x: `stranger` is no user",
            ),
            ("RUN touch /tmp/.wh.x\n", "begins with `.wh.`"),
            ("RUN kill -9 $$\n", "line 3: RUN kill -9 $$: signal: SIGKILL"),
        ] {
            extending.generate("run.Dockerfile", &format!("{from}{rest}"))?;
            let output = extending.extend_run()?;
            said(&output, 102, &["failed to extend: ", &path, wanted])?;
            let (beside, found) = extending.extended()?;
            ensure!(
                found == before && beside.iter().all(|name| name == "run"),
                "there are {beside:?}, {found:?}"
            );
        }
        if first {
            extending.generate("run.Dockerfile", &format!("{from}RUN touch /tmp/a\n"))?;
            said(&extending.extend_run()?, 0, &[])?;
            ensure!(extending.extended()?.1.len() == 1, "nothing was written");
        }
    }
    Ok(())
}

fn interrupted(executables: &Built) -> Result<()> {
    let extending = Extending::new(executables)?;
    let from = "ARG base_image\nFROM ${base_image}\n";
    extending.generate("run.Dockerfile", &format!("{from}RUN touch /tmp/a\n"))?;
    said(&extending.extend_run()?, 0, &[])?;
    let before = extending.extended()?;
    extending.generate("run.Dockerfile", &format!("{from}RUN touch /tmp/begun; sleep 20 & sleep 20\n"))?;
    for (signal, exit) in [(Signal::TERM, 128 + 15), (Signal::KILL, 128 + 9)] {
        let root = extending.root()?;
        let child = extending
            .extender_under(&[], &root, "run")?
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let id = Pid::from_child(&child);
        let started = Instant::now();
        while !root.join("tmp/begun").exists() {
            ensure!(started.elapsed() < Duration::from_mins(1), "the program does not begin");
            thread::sleep(Duration::from_millis(20));
        }
        // The starter has become the extender.
        kill_process(id, signal)?;
        let output = child.wait_with_output()?;
        let status = std::os::unix::process::ExitStatusExt::signal(&output.status).map_or(-1, |it| 128 + it);
        let code = output.status.code().unwrap_or(status);
        ensure!(code == exit, "exit code {code}: {}", String::from_utf8_lossy(&output.stderr));
        ensure!(extending.extended()?.1 == before.1, "another image is there");
        if signal == Signal::TERM {
            let left = extending.extended()?.0;
            ensure!(left == before.0, "these are left: {left:?}");
        }
    }
    // What was killed has left a folder, which the next one removes.
    extending.generate("run.Dockerfile", &format!("{from}RUN touch /tmp/b\n"))?;
    said(&extending.extend_run()?, 0, &[])?;
    let found = extending.extended()?;
    ensure!(found.0 == ["run"] && found.1.len() == 1 && found.1 != before.1, "there are {found:?}");
    Ok(())
}

/// The context is an app's folder, in which anybody can put anything.
fn hostile_contexts(executables: &Built) -> Result<()> {
    let extending = Extending::new(executables)?;
    let Extending { project, .. } = &extending;
    let context = project.path(&format!("{GENERATED}/context.run"));
    extending.generate("context.run/file", "good\n")?;
    symlink("/etc/shadow", context.join("shadow"))?;
    symlink("../../../../../../../../../etc", context.join("etc"))?;
    symlink("/", context.join("root"))?;
    mknodat(CWD, context.join("fifo"), FileType::Fifo, Mode::RWXU, 0)?;
    let from = "ARG base_image\nFROM ${base_image}\n";
    for (rest, wanted) in [
        ("COPY shadow /x\n", "/shadow`: Too many levels"),
        ("COPY etc/shadow /x\n", "/etc/shadow`: Too many levels"),
        ("COPY root/etc/shadow /x\n", "/root/etc/shadow`: Too many levels"),
        ("COPY ../../../../../../../etc/shadow /x\n", "/etc/shadow`: Too many levels"),
    ] {
        extending.generate("run.Dockerfile", &format!("{from}{rest}"))?;
        said(&extending.extend_run()?, 102, &[wanted])?;
    }
    // Links and pipes come as they are, and what a root in the context is, is the context.
    extending.generate("run.Dockerfile", &format!("{from}COPY . /x/\nCOPY root/file /y\n"))?;
    let root = extending.root()?;
    succeed(&mut extending.extender(&root, "run")?)?;
    ensure!(fs::read_to_string(root.join("y"))? == "good\n", "`root/file` is another file");
    let copied = tree::read(&root.join("x"))?;
    ensure!(copied.len() == 5, "there are {:?}", copied.keys());
    ensure!(copied[Path::new("fifo")].kind == tree::Kind::Fifo, "the pipe is another");
    ensure!(fs::read_link(root.join("x/shadow"))? == Path::new("/etc/shadow"), "the link is another");
    Ok(())
}
