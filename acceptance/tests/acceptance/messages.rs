//! What platforms and people look for in the words of the phases: on which stream, in which order, how long, how often.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::here;
use drydock_acceptance::project::{self, APP_IMAGE, APP_LAYOUT, Project, RUN_LAYOUT, succeed};
use drydock_acceptance::run::{self, Output};
use drydock_acceptance::scenario::Operation::{self, ChangeMode, MakeDir, Write};
use drydock_acceptance::scenario::{Scenario, User};
use drydock_acceptance::stage::Stage;
use libtest_mimic::Trial;

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("messages::files_that_cannot_be_opened", files_that_cannot_be_opened),
            ("messages::a_line_without_end", a_line_without_end),
            ("messages::why_no_group_passes", why_no_group_passes),
            ("messages::an_experimental_feature", an_experimental_feature),
            ("messages::system_buildpacks", system_buildpacks),
            ("messages::damaged_cache_metadata", damaged_cache_metadata),
            ("messages::what_the_analyzer_found", what_the_analyzer_found),
            ("messages::the_report_of_old_platforms", the_report_of_old_platforms),
        ],
    )
}

/// Runs a phase on the stage, as the user that buildpacks run as.
fn phase(
    executables: &Built,
    stage: &Stage,
    variables: &[(&'static str, &str)],
    words: &[&str],
) -> Result<Output> {
    let mut environment = run::environment();
    environment.extend(variables.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let mut command = run::command(stage, executables.get()?.dir(), User::Cnb, &environment);
    let [name, arguments @ ..] = words else { anyhow::bail!("a phase has a name") };
    project::run(command.arg(format!("/cnb/lifecycle/{name}")).args(arguments))
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).context("what it says is UTF-8")
}

fn write(path: &str, content: &str) -> Operation {
    Write(path.to_owned(), content.to_owned())
}

/// The buildpack or extension `acme/<id>`, in version 1, with a script as its `bin/detect`.
fn module(kind: &str, id: &str, detect: &str) -> Vec<Operation> {
    let dir = format!("/cnb/{kind}s/acme_{id}/1");
    let descriptor = format!("api = \"0.10\"\n[{kind}]\nid = \"acme/{id}\"\nversion = \"1\"\n");
    let script = format!("{dir}/bin/detect");
    vec![
        write(&format!("{dir}/{kind}.toml"), &descriptor),
        write(&script, &format!("#!/bin/sh\n{detect}\n")),
        ChangeMode(script, 0o755),
    ]
}

fn order(lists: &[(&str, &[&str])]) -> Operation {
    let member = |list: &str, id: &&str| format!("[[{list}.group]]\nid = \"acme/{id}\"\nversion = \"1\"\n");
    let group = |(list, ids): &(&str, &[&str])| {
        let members: String = ids.iter().map(|id| member(list, id)).collect();
        format!("[[{list}]]\n{members}")
    };
    write("/cnb/order.toml", &lists.iter().map(group).collect::<String>())
}

const GROUP: &str = "[[group]]\nid = \"acme/a\"\nversion = \"1\"\napi = \"0.10\"\n";

fn files_that_cannot_be_opened(executables: &Built) -> Result<()> {
    let group = || write("/layers/group.toml", GROUP);
    let locked = |path: &str| vec![write(path, ""), ChangeMode(path.to_owned(), 0)];
    for (setup, words, want) in [
        (
            vec![],
            &["detector", "-order", "/custom/order.toml"][..],
            "failed to initialize detector: reading order: failed to read order file: open /custom/order.toml: no such \
             file or directory",
        ),
        (
            vec![order(&[("order", &["a"])])],
            &["detector"],
            "failed to initialize detector: buildpack `acme/a@1`: open /cnb/buildpacks/acme_a/1/buildpack.toml: no such \
             file or directory",
        ),
        (
            locked("/layers/analyzed.toml"),
            &["detector"],
            "failed to initialize detector: open /layers/analyzed.toml: permission denied",
        ),
        (
            vec![],
            &["builder"],
            "failed to read group file: open /layers/group.toml: no such file or directory",
        ),
        (
            locked("/layers/group.toml"),
            &["builder"],
            "failed to read group file: open /layers/group.toml: permission denied",
        ),
        (
            vec![MakeDir("/layers/group.toml".to_owned())],
            &["restorer"],
            "failed to read group file: read /layers/group.toml: is a directory",
        ),
        (
            vec![group()],
            &["builder"],
            "failed to read plan file: open /layers/plan.toml: no such file or directory",
        ),
        (
            vec![],
            &["exporter", "app"],
            "failed to read group file: open /layers/group.toml: no such file or directory",
        ),
        (
            vec![group()],
            &["restorer", "-cache-dir", "/nowhere"],
            "failed to create volume cache: stat /nowhere: no such file or directory",
        ),
        (
            vec![],
            &["creator", "-run-image", "acme/run", "-cache-dir", "/nowhere", "app"],
            "failed to create volume cache: stat /nowhere: no such file or directory",
        ),
    ] {
        let output = phase(executables, &Stage::empty(setup)?, &[], words)?;
        let said = text(&output.stderr)?;
        ensure!(output.exit == 1, "{words:?}: exit code {}\n{}", output.exit, output.text());
        ensure!(said.lines().any(|line| line == format!("ERROR: {want}")), "no {want:?} in\n{said}");
    }
    Ok(())
}

fn a_line_without_end(executables: &Built) -> Result<()> {
    let long = "x".repeat(2_000_000);
    let group = || write("/layers/group.toml", GROUP);
    for (setup, words) in [
        (vec![write("/layers/group.toml", &format!("group = \"{long}\""))], &["builder"][..]),
        (vec![group(), write("/layers/plan.toml", &format!("{long} {long}"))], &["builder"]),
        (vec![write("/cnb/order.toml", &format!("a = '{long}' = # {long}"))], &["detector"]),
        (vec![group(), write("/layers/analyzed.toml", &format!("image = '{long}'"))], &["restorer"]),
        (
            vec![
                group(),
                write(
                    "/cache/committed/io.buildpacks.lifecycle.cache.metadata",
                    &format!("{{\"buildpacks\": \"{long}\"}}"),
                ),
            ],
            &["restorer", "-cache-dir", "/cache"],
        ),
        (
            vec![
                write(
                    "/layout-repo/index.docker.io/acme/run/latest/oci-layout",
                    "{\"imageLayoutVersion\":\"1.0.0\"}",
                ),
                write(
                    "/layout-repo/index.docker.io/acme/run/latest/index.json",
                    &format!("{{\"manifests\":\"{long}\"}}"),
                ),
            ],
            &["analyzer", "-run-image", "acme/run", "app"],
        ),
        (launching(&format!("processes = '{long}'")), &["builder"]),
    ] {
        let output = phase(executables, &Stage::empty(setup)?, &[], words)?;
        let said = output.text();
        ensure!(
            said.contains("xxxxxx") && said.contains("line 1"),
            "{words:?}: {}",
            &said[..said.len().min(2000)]
        );
        ensure!(said.len() < 5_000, "{words:?} says {} bytes", said.len());
    }
    Ok(())
}

/// What the builder reads, with a buildpack that leaves this `launch.toml`.
fn launching(launch_toml: &str) -> Vec<Operation> {
    let script = "/cnb/buildpacks/acme_a/1/bin/build";
    let mut setup = module("buildpack", "a", "exit 0");
    setup.extend([
        write("/layers/group.toml", GROUP),
        write("/layers/plan.toml", ""),
        write("/workspace/launch.toml", launch_toml),
        write(script, "#!/bin/sh\ncp launch.toml $1\n"),
        ChangeMode(script.to_owned(), 0o755),
    ]);
    setup
}

fn why_no_group_passes(executables: &Built) -> Result<()> {
    for (detect, exit, verdict) in [("exit 100", 20, "fail: acme/a@1"), ("exit 7", 21, "err:  acme/a@1 (7)")]
    {
        let mut setup = module("buildpack", "a", &format!("echo looked; {detect}"));
        setup.push(order(&[("order", &["a"])]));
        let output = phase(executables, &Stage::empty(setup)?, &[("CNB_LOG_LEVEL", "error")], &["detector"])?;
        ensure!(output.exit == exit, "exit code {}\n{}", output.exit, output.text());
        let (out, err) = (text(&output.stdout)?, text(&output.stderr)?);
        let story = [
            "======== Output: acme/a@1 ========\nlooked\n",
            "======== Results ========\n",
            verdict,
            "ERROR: No buildpack groups passed detection.\n",
            "ERROR: failed to detect: ",
        ];
        let mut rest = err;
        for part in story {
            ensure!(!out.contains(part), "{part:?} is on standard output:\n{out}");
            let (_, after) =
                rest.split_once(part).with_context(|| format!("no {part:?}, in order, in\n{err}"))?;
            rest = after;
        }
    }
    Ok(())
}

fn an_experimental_feature(executables: &Built) -> Result<()> {
    const REQUESTED: &str = "Platform requested experimental feature 'Dockerfiles'";
    let mut setup = module("buildpack", "a", "exit 0");
    setup.extend(module("extension", "e", "exit 0"));
    setup.push(order(&[("order", &["a"]), ("order-extensions", &["e"])]));
    let stage = Stage::empty(setup)?;
    for (api, mode, exit, on_stdout, on_stderr) in [
        ("0.12", "warn", 0, true, false),
        ("0.12", "quiet", 0, false, false),
        ("0.12", "error", 1, false, true),
        ("0.13", "warn", 0, false, false),
    ] {
        let variables = [("CNB_PLATFORM_API", api), ("CNB_EXPERIMENTAL_MODE", mode)];
        let output = phase(executables, &stage, &variables, &["detector"])?;
        let found =
            [&output.stdout, &output.stderr].map(|bytes| text(bytes).map(|said| said.contains(REQUESTED)));
        let [out, err] = found;
        let found = (output.exit, out?, err?);
        ensure!(found == (exit, on_stdout, on_stderr), "{api} {mode}: {found:?}\n{}", output.text());
    }
    Ok(())
}

fn system_buildpacks(executables: &Built) -> Result<()> {
    let ids = ["a", "b", "c"];
    let mut setup: Vec<Operation> = ids.iter().flat_map(|id| module("buildpack", id, "exit 0")).collect();
    setup.push(order(&[("order", &["a"])]));
    let system =
        |side: &str, id: &str| format!("[[system.{side}.buildpacks]]\nid = \"acme/{id}\"\nversion = \"1\"\n");
    setup.push(write("/cnb/system.toml", &(system("pre", "b") + &system("post", "c"))));
    let output = phase(
        executables,
        &Stage::empty(setup)?,
        &[("CNB_PLATFORM_API", "0.15")],
        &["detector", "-log-level", "debug"],
    )?;
    let out = text(&output.stdout)?;
    for line in ["Prepending 1 system buildpack(s) to group", "Appending 1 system buildpack(s) to group"] {
        ensure!(output.exit == 0 && out.lines().any(|found| found == line), "{line:?}: {}", output.text());
    }
    Ok(())
}

fn damaged_cache_metadata(executables: &Built) -> Result<()> {
    let scenario = Scenario::load(&here("scenarios/creator-twice"))?;
    let stage = Stage::new(&scenario, &here("images"))?;
    let (step, _) = scenario.steps.first().context("the scenario has a step")?;
    let create = || {
        let mut command = run::command(&stage, executables.get()?.dir(), step.user, &run::environment());
        succeed(command.arg("/cnb/lifecycle/creator").args(&step.args))
    };
    create()?;
    let again = create()?.text();
    ensure!(again.contains("Reusing cache layer 'acme/a:kept'"), "the cache is not used:\n{again}");
    let metadata = stage.path("cache/committed/io.buildpacks.lifecycle.cache.metadata");
    fs::write(&metadata, "{").with_context(|| format!("damage {}", metadata.display()))?;
    let damaged = create()?.text();
    ensure!(damaged.matches("The cache counts as empty").count() == 1, "not one warning:\n{damaged}");
    ensure!(!damaged.contains("Reusing cache layer"), "it claims to reuse:\n{damaged}");
    ensure!(damaged.contains("Adding cache layer 'acme/a:kept'"), "it caches nothing:\n{damaged}");
    let after = create()?.text();
    ensure!(after.contains("Reusing cache layer 'acme/a:kept'"), "the cache is not whole again:\n{after}");
    Ok(())
}

fn what_the_analyzer_found(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    project.write_layer("lib", "launch = true\nbuild = true", "library\n")?;
    project.analyze()?;
    project.export()?;
    let output = succeed(project.analyzer()?.args(["-log-level", "debug", APP_IMAGE]))?;
    let said = text(&output.stdout)?;
    for want in [
        format!("Found image with identifier \"{}@sha256:", project.path(RUN_LAYOUT).display()),
        format!("Found image with identifier \"{}@sha256:", project.path(APP_LAYOUT).display()),
        "Run image info in analyzed metadata is: {\"reference\":".to_owned(),
        "The previous image has layer \"acme/a:lib\" (build=true, launch=true, cache=false): sha256:"
            .to_owned(),
    ] {
        ensure!(said.lines().any(|line| line.starts_with(&want)), "no {want:?} in\n{said}");
    }
    Ok(())
}

fn the_report_of_old_platforms(executables: &Built) -> Result<()> {
    for api in ["0.7", "0.8", "0.9"] {
        for (build_toml, has_bom) in
            [(None, false), (Some(""), false), (Some("[[bom]]\nname = \"dep\"\n"), true)]
        {
            let project = Project::new(executables.get()?.dir(), User::Root)?;
            project.write("cnb/stack.toml", "")?;
            project.analyze()?;
            if let Some(text) = build_toml {
                project.write("layers/acme_a/build.toml", text)?;
            }
            succeed(project.exporter()?.env("CNB_PLATFORM_API", api).arg(APP_IMAGE))?;
            let report = fs::read_to_string(project.path("layers/report.toml")).context("read the report")?;
            let report: toml::Table = report.parse().context("parse the report")?;
            let want = has_bom && api != "0.9";
            ensure!(report.contains_key("build") == want, "{api} {build_toml:?}: {report:?}");
            let bom: Option<BTreeMap<String, toml::Value>> = report
                .get("build")
                .map(|build| build["bom"][0].clone().try_into())
                .transpose()
                .context("the bill of materials")?;
            ensure!(bom.is_none_or(|bom| bom["name"].as_str() == Some("dep")), "{report:?}");
        }
    }
    Ok(())
}
