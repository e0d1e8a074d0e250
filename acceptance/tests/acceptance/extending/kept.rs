//! What the extender keeps of instructions, what survives them, and whom it takes for root.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{self, APP_LAYOUT, succeed};
use drydock_acceptance::run::Output;
use drydock_acceptance::stage;
use libtest_mimic::Trial;

use super::{EXTENDED, EXTENSION, Extending, said};
use crate::{Built, with_executables};

pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("extending::kept::run_image", run_image),
            ("extending::kept::build_image", build_image),
            ("extending::kept::not_from_others", not_from_others),
            ("extending::kept::nothing_goes_on_running", nothing_goes_on_running),
            ("extending::kept::root_by_any_name", root_by_any_name),
            ("extending::kept::rebasable_is_said_by_extensions", rebasable_is_said_by_extensions),
            ("extending::kept::mounted_files", mounted_files),
        ],
    )
}

const FROM: &str = "ARG base_image\nFROM ${base_image}\n";
const CACHED: &str = "kaniko/cache/layers/cached";

/// The digest of the extended image.
fn digest(extending: &Extending) -> Result<String> {
    let (_, mut found) = extending.extended()?;
    ensure!(found.len() == 1, "there are {found:?} in {EXTENDED}");
    Ok(found.remove(0))
}

fn run_image(executables: &Built) -> Result<()> {
    let extending = Extending::new(executables)?;
    fs::create_dir(extending.project.path("kaniko"))?;
    let dockerfile = |second: &str| {
        format!(
            "{FROM}USER root\nARG build_id=0\nRUN rm -r /home/cnb && mkdir /home/cnb && cat /proc/sys/kernel/random/uuid > /home/cnb/first && ln /home/cnb/first /same\n\
             COPY file /copied\nRUN {second}\nUSER 1000:1000\n"
        )
    };
    // Another one each time.
    let without_id = |text: String| text.replace("ARG build_id=0\n", "");
    extending.generate("run.Dockerfile", &without_id(dockerfile("cat /same > /second")))?;
    extending.generate("context.run/file", "1")?;
    let extend = |wanted: &[&str]| -> Result<(String, String)> {
        let root = extending.root()?;
        let output = project::run(extending.extender(&root, "run")?.env("SOURCE_DATE_EPOCH", "1700000000"))?;
        said(&output, 0, wanted)?;
        let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| format!("read {path}"));
        ensure!(read("home/cnb/first")? == read("same")?, "the files are different");
        ensure!(read("second")?.starts_with(&read("same")?), "the second is of another first");
        ensure!(!root.join("home/cnb/.profile").exists(), "what was removed is there");
        let inode = |path: &str| Ok::<_, anyhow::Error>(fs::metadata(root.join(path))?.ino());
        ensure!(inode("same")? == inode("home/cnb/first")?, "two names of a file are two files");
        Ok((digest(&extending)?, read("second")?))
    };
    let first = extend(&[])?;
    let again = extend(&["[1/3] RUN rm -r", "(from the cache)"])?;
    ensure!(first == again, "what is known gives another image: {first:?}, {again:?}");
    extending.project.export()?;
    let faults = extending.project.layout(APP_LAYOUT).faults()?;
    ensure!(faults.is_empty(), "{}", faults.join("\n"));

    // What comes before is taken from the cache all the same.
    extending.generate("run.Dockerfile", &without_id(dockerfile("cat /same > /second; echo >> /second")))?;
    let changed = extend(&["(from the cache)"])?;
    ensure!(changed.1 == format!("{}\n", first.1), "another first has run: {changed:?}, {first:?}");
    extending.generate("context.run/file", "2")?;
    let copied = extend(&["(from the cache)"])?;
    ensure!(copied.0 != changed.0, "another file gives the same image");

    // What asks for the build's ID is of this build.
    extending.generate("run.Dockerfile", &dockerfile("cat /same > /second"))?;
    let one = extend(&[])?;
    ensure!(one != extend(&[])?, "the build's ID is no part of the key");

    extending.generate("run.Dockerfile", &without_id(dockerfile("cat /same > /second")))?;
    let mut late = extending.extender(&extending.root()?, "run")?;
    let output = project::run(late.args(["-kaniko-cache-ttl", "1ns"]))?;
    said(&output, 0, &[])?;
    ensure!(!output.text().contains("from the cache"), "what is too old was used:\n{}", output.text());
    Ok(())
}

fn build_image(executables: &Built) -> Result<()> {
    let extending = Extending::new(executables)?;
    let Extending { project, .. } = &extending;
    fs::create_dir(project.path("kaniko"))?;
    extending.generate(
        "build.Dockerfile",
        &format!("{FROM}USER root\nRUN cat /proc/sys/kernel/random/uuid > /when; touch /tmp/ran\nARG user_id\nUSER ${{user_id}}\n"),
    )?;
    buildpack(&extending, "#!/bin/sh\necho \"when: $(cat /when)\"\n")?;
    let when = || -> Result<String> {
        let root = extending.root()?;
        let output = build(&extending, &root)?;
        said(&output, 0, &["when: "])?;
        let text = output.text();
        let line = text.lines().find_map(|line| line.split_once("when: ")).context("a line")?;
        Ok(line.1.to_owned())
    };
    let first = when()?;
    ensure!(!first.is_empty() && when()? == first, "the instruction was carried out again");
    Ok(())
}

/// A buildpack that does this.
fn buildpack(extending: &Extending, script: &str) -> Result<()> {
    let Extending { project, .. } = extending;
    let dir = "cnb/buildpacks/acme_a/1";
    project.write(
        &format!("{dir}/buildpack.toml"),
        "api = \"0.10\"\n[buildpack]\nid = \"acme/a\"\nversion = \"1\"\n[[targets]]\nos = \"linux\"\n",
    )?;
    project.write(&format!("{dir}/bin/build"), script)?;
    stage::chmod(&project.path(&format!("{dir}/bin/build")), 0o755)?;
    project.write("layers/plan.toml", "")
}

fn build(extending: &Extending, root: &Path) -> Result<Output> {
    let Extending { project, .. } = extending;
    let mut extender = extending.extender(root, "build")?;
    extender.arg("-buildpacks").arg(project.path("cnb/buildpacks")).args(["-uid", "1000", "-gid", "1000"]);
    extender.arg("-platform").arg(project.path("platform"));
    project::run(&mut extender)
}

/// Whoever can write to the cache could be root in the next build.
fn not_from_others(executables: &Built) -> Result<()> {
    let extending = Extending::new(executables)?;
    let cached = extending.project.path(CACHED);
    fs::create_dir_all(&cached)?;
    chown(&cached, Some(1000), Some(1000))?;
    extending.generate("run.Dockerfile", &format!("{FROM}RUN touch /tmp/new\n"))?;
    for _ in 0..2 {
        let output = extending.extend_run()?;
        said(&output, 0, &["every instruction is carried out", "others could write to it"])?;
        ensure!(!output.text().contains("from the cache"), "it was used:\n{}", output.text());
    }
    ensure!(fs::read_dir(&cached)?.next().is_none(), "something was put there");
    Ok(())
}

fn nothing_goes_on_running(executables: &Built) -> Result<()> {
    let extending = Extending::new(executables)?;
    let sleep = "sleep 987";
    extending.generate(
        "build.Dockerfile",
        &format!(
            "{FROM}USER root\nRUN setsid sh -c 'setsid {sleep} & {sleep}' >/dev/null 2>&1 & sleep 1\nARG user_id\nUSER ${{user_id}}\n"
        ),
    )?;
    buildpack(
        &extending,
        "#!/bin/sh\nfor p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | sed 's/^/runs: /'; echo; done\n",
    )?;
    let output = build(&extending, &extending.root()?)?;
    said(&output, 0, &["runs: "])?;
    ensure!(!output.text().contains(&format!("runs: {sleep}")), "it survives:\n{}", output.text());
    Ok(())
}

fn root_by_any_name(executables: &Built) -> Result<()> {
    let extending = Extending::new(executables)?;
    for user in ["0", "root", "root:root", "00", "toor"] {
        extending.generate(
            "run.Dockerfile",
            &format!("{FROM}USER root\nRUN echo toor:x:0:0::/:/bin/sh >> /etc/passwd\nUSER {user}\n"),
        )?;
        let output = extending.extend_run()?;
        let name = user.split(':').next().unwrap_or_default();
        said(&output, 102, &[&format!("the final user ID is {name} (root)")])?;
        ensure!(extending.extended()?.1.is_empty(), "an image was written");
    }
    extending.generate("run.Dockerfile", &format!("{FROM}USER cnb\n"))?;
    said(&extending.extend_run()?, 0, &[])
}

/// Each Dockerfile must say it for what it adds: that another one has said it, or the image, is not enough.
fn rebasable_is_said_by_extensions(executables: &Built) -> Result<()> {
    let extending = Extending::new(executables)?;
    let Extending { project, .. } = &extending;
    let group = fs::read_to_string(project.path("layers/group.toml"))?;
    project.write(
        "layers/group.toml",
        format!("{group}\n[[group-extensions]]\n{}", EXTENSION.replace("acme/ext", "acme/second")),
    )?;
    let label = |value: &str| format!("LABEL io.buildpacks.rebasable={value}\n");
    for (first, second, want) in [
        (label("true"), String::new(), "false"),
        (label("false"), label("true"), "false"),
        (label("true"), label("1"), "true"),
    ] {
        extending.generate("run.Dockerfile", &format!("{FROM}{first}RUN touch /tmp/one\n"))?;
        project.write(
            "layers/generated/acme_second/run.Dockerfile",
            format!("{FROM}{second}RUN touch /tmp/two\n"),
        )?;
        succeed(&mut extending.extender(&extending.root()?, "run")?)?;
        project.export()?;
        let image = project.layout(APP_LAYOUT).verify()?.remove(0);
        let found = &image.config["config"]["Labels"]["io.buildpacks.rebasable"];
        ensure!(found == want, "`{first}`, `{second}`: it is {found}");
    }
    Ok(())
}

/// Container engines mount some files of `/etc`.
fn mounted_files(executables: &Built) -> Result<()> {
    let extending = Extending::new(executables)?;
    extending.generate("context.run/file", "new")?;
    let root = extending.root()?;
    let hosts = root.join("etc/hosts");
    fs::write(&hosts, "")?;
    let words = ["unshare", "--mount", "sh", "-c", "mount --bind /etc/passwd \"$0\" && exec \"$@\""];
    let words = [&words[..], &[hosts.to_str().context("a path is UTF-8")?]].concat();
    for instruction in ["COPY file /etc/hosts", "COPY file /tmp/x\nCOPY <<E /etc/hosts\nE"] {
        extending.generate("run.Dockerfile", &format!("{FROM}{instruction}\n"))?;
        let output = project::run(&mut extending.extender_under(&words, &root, "run")?)?;
        said(
            &output,
            102,
            &["cannot write `/etc/hosts`: something is mounted there", "choose another path"],
        )?;
    }
    let left: Vec<_> = fs::read_dir(root.join("etc"))?.collect::<Result<_, _>>()?;
    let temporary = left.iter().find(|entry| entry.file_name().as_encoded_bytes().starts_with(b".drydock"));
    ensure!(temporary.is_none(), "{temporary:?} is left");
    Ok(())
}
