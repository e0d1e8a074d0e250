//! A platform that shows the layout directory to some phases only, or another one to each.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::Image;
use drydock_acceptance::project::{self, APP_IMAGE, APP_LAYOUT, Project, RUN_IMAGE, RUN_LAYOUT, succeed};
use drydock_acceptance::run::Output;
use drydock_acceptance::scenario::User;
use drydock_acceptance::tree;
use libtest_mimic::Trial;

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("out_of_sight::of_the_analyzer", of_the_analyzer),
            ("out_of_sight::of_all_but_the_exporter", of_all_but_the_exporter),
            ("out_of_sight::of_the_creator", of_the_creator),
            ("out_of_sight::without_a_run_image", without_a_run_image),
            ("out_of_sight::names_from_files", names_from_files),
            ("out_of_sight::elsewhere", elsewhere),
        ],
    )
}

const ANALYZED: &str = "layers/analyzed.toml";
const SBOM: &str = "layers/sbom/launch/acme_a/lib/sbom.cdx.json";

/// A project whose app image has a launch layer and an SBOM file, and whose layers directory has neither.
fn exported(executables: &Built) -> Result<Project> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    project.write_layer("lib", "launch = true\n[metadata]\nkey = 1", "library\n")?;
    project.write(SBOM, "{}")?;
    project.analyze()?;
    project.export()?;
    fs::remove_dir_all(project.path("layers/acme_a")).context("remove the layers")?;
    fs::remove_dir_all(project.path("layers/sbom")).context("remove the SBOM files")?;
    fs::remove_file(project.path(ANALYZED)).context("remove analyzed.toml")?;
    Ok(project)
}

fn out_of_sight<'a>(project: &Project, command: &'a mut Command) -> &'a mut Command {
    command.env("CNB_OCI_LAYOUT_PATH", project.path("not-here"))
}

/// Analyzes without any layout; the names must be left.
fn analyze_unseen(project: &Project, api: &str) -> Result<toml::Table> {
    let mut analyzer = project.analyzer()?;
    out_of_sight(project, &mut analyzer).env("CNB_PLATFORM_API", api);
    let output = succeed(analyzer.args(["-run-image", RUN_IMAGE, APP_IMAGE]))?;
    let warning =
        format!("The layout directory `{}` does not exist here", project.path("not-here").display());
    ensure!(String::from_utf8_lossy(&output.stderr).contains(&warning), "{}", output.text());
    let found = analyzed(project)?;
    ensure!(found["image"]["reference"].as_str() == Some(APP_IMAGE), "{found}");
    ensure!(found["run-image"]["reference"].as_str() == Some(RUN_IMAGE), "{found}");
    ensure!(found["run-image"].get("target").is_none(), "{found}");
    ensure!(!project.path("not-here").exists(), "the analyzer made the layout directory");
    Ok(found)
}

fn analyzed(project: &Project) -> Result<toml::Table> {
    Ok(fs::read_to_string(project.path(ANALYZED))?.parse()?)
}

fn image(project: &Project) -> Result<Image> {
    Ok(project.layout(APP_LAYOUT).verify()?.remove(0))
}

fn fails(output: &Output, exit: i32, wanted: &[&str]) -> Result<()> {
    ensure!(output.exit == exit, "exit code {}, not {exit}\n{}", output.exit, output.text());
    for wanted in wanted {
        ensure!(output.text().contains(wanted), "`{wanted}` is not said:\n{}", output.text());
    }
    Ok(())
}

/// The restorer does what the analyzer would have done.
fn of_the_analyzer(executables: &Built) -> Result<()> {
    for api in ["0.9", "0.11", "0.12", "0.15"] {
        let project = exported(executables)?;
        let before = image(&project)?;
        let arguments = ["-run-image", RUN_IMAGE, APP_IMAGE];
        succeed(project.analyzer()?.env("CNB_PLATFORM_API", api).args(arguments))?;
        let mut wanted = analyzed(&project)?;
        fs::remove_dir_all(project.path("layers/sbom")).context("the analyzer restores SBOM files")?;

        analyze_unseen(&project, api)?;
        succeed(project.restorer()?.env("CNB_PLATFORM_API", api))?;
        let found = analyzed(&project)?;
        // The name that was given, not the path.
        if let Some(image) = wanted["run-image"].get_mut("image") {
            *image = RUN_IMAGE.into();
        }
        ensure!(found == wanted, "Platform API {api}: {found}\nbut the analyzer: {wanted}");
        let metadata = fs::read_to_string(project.path("layers/acme_a/lib.toml"))?;
        ensure!(metadata.contains("key = 1"), "Platform API {api}: restored {metadata}");
        let sbom = project.path("layers/acme_a/lib.sbom.cdx.json");
        ensure!(sbom.is_file(), "Platform API {api}: no SBOM file came back");

        // As a buildpack leaves it that finds its layer unchanged.
        fs::remove_file(sbom)?;
        project.write("layers/acme_a/lib.toml", "[types]\nlaunch = true\n[metadata]\nkey = 1\n")?;
        project.write(SBOM, "{}")?;
        let output = project.export()?;
        ensure!(output.text().contains("Reusing layer 'acme/a:lib'"), "{}", output.text());
        let after = image(&project)?;
        ensure!(
            after.descriptor == before.descriptor,
            "{:?} became {:?}",
            before.descriptor,
            after.descriptor
        );
    }
    Ok(())
}

/// The exporter does what the analyzer would have done.
fn of_all_but_the_exporter(executables: &Built) -> Result<()> {
    let project = exported(executables)?;
    let before = image(&project)?;
    let names = analyze_unseen(&project, "0.14")?;
    succeed(out_of_sight(&project, &mut project.restorer()?))?;
    ensure!(analyzed(&project)? == names, "{}", analyzed(&project)?);
    succeed(project.restorer()?.env_remove("CNB_USE_OCI_LAYOUT"))?;
    ensure!(analyzed(&project)? == names, "{}", analyzed(&project)?);

    project.write("layers/acme_a/lib.toml", "[types]\nlaunch = true\n[metadata]\nkey = 1\n")?;
    project.write(SBOM, "{}")?;
    let output = project.export()?;
    ensure!(output.text().contains("Reusing layer 'acme/a:lib'"), "{}", output.text());
    let after = image(&project)?;
    ensure!(after.descriptor == before.descriptor, "{:?} became {:?}", before.descriptor, after.descriptor);
    Ok(())
}

/// After the creator nobody looks: it fails before anything is built.
fn of_the_creator(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    let mut creator = project.creator()?;
    let output =
        project::run(out_of_sight(&project, &mut creator).args(["-run-image", RUN_IMAGE, APP_IMAGE]))?;
    fails(&output, 32, &["skopeo copy", "example.com/acme/run/base"])?;
    ensure!(!output.text().contains("DETECTING"), "{}", output.text());
    Ok(())
}

/// Where the folder is there and the image is not, each phase says so.
fn without_a_run_image(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    fs::remove_dir_all(project.path(RUN_LAYOUT)).context("remove the run image")?;
    let place = project.path(RUN_LAYOUT);
    let wanted = ["skopeo copy", place.to_str().context("the path is UTF-8")?];
    fails(&project::run(project.analyzer()?.arg(APP_IMAGE))?, 32, &wanted)?;
    analyze_unseen(&project, "0.14")?;
    fails(&project::run(&mut project.restorer()?)?, 42, &wanted)?;
    fails(&project::run(project.exporter()?.arg(APP_IMAGE))?, 62, &wanted)?;
    fails(
        &project::run(out_of_sight(&project, &mut project.exporter()?).arg(APP_IMAGE))?,
        62,
        &["skopeo copy"],
    )
}

/// Of the run image's names that on the app image's registry, with nothing there to choose by.
fn names_from_files(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    let names = "image = \"acme/run\"\nmirrors = [\"example.com/run:1\", \"other.com/run\"]\n";
    project.write("cnb/run.toml", format!("[[images]]\n{names}"))?;
    project.write("cnb/stack.toml", format!("[run-image]\n{names}"))?;
    for (api, app, run_image, name) in [
        ("0.14", "app", "acme/run", Some("acme/run")),
        ("0.14", "other.com/app", "other.com/run", Some("other.com/run")),
        ("0.11", "example.com/app", "example.com/run:1", None),
    ] {
        let mut analyzer = project.analyzer()?;
        out_of_sight(&project, &mut analyzer).env("CNB_PLATFORM_API", api);
        analyzer.env("CNB_STACK_PATH", project.path("cnb/stack.toml"));
        succeed(analyzer.args(["-previous-image", "before:2", app]))?;
        let written = analyzed(&project)?;
        ensure!(written["image"]["reference"].as_str() == Some("before:2"), "{written}");
        ensure!(written["run-image"]["reference"].as_str() == Some(run_image), "{written}");
        let found = written["run-image"].get("image").and_then(toml::Value::as_str);
        ensure!(found == name, "Platform API {api}: {written}");
    }
    Ok(())
}

/// What was analyzed in one layout directory is read there, and written to another one only.
fn elsewhere(executables: &Built) -> Result<()> {
    let project = exported(executables)?;
    project.analyze()?;
    let layouts = project.path("layout-repo");
    let before = tree::read(&layouts)?;
    let in_other = |mut command: Command| {
        command.env("CNB_OCI_LAYOUT_PATH", project.path("other"));
        command
    };
    succeed(&mut in_other(project.restorer()?))?;
    project.write("layers/acme_a/lib.toml", "[types]\nlaunch = true\n[metadata]\nkey = 1\n")?;
    let output = succeed(in_other(project.exporter()?).arg(APP_IMAGE))?;
    ensure!(output.text().contains("Reusing layer 'acme/a:lib'"), "{}", output.text());
    let layout = project.layout(&APP_LAYOUT.replace("layout-repo", "other"));
    let faults = layout.faults()?;
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    let app = layout.verify()?.remove(0);
    let base = project.layout(RUN_LAYOUT).images()?.remove(0);
    ensure!(app.layers.starts_with(&base.layers), "{:?} are not on {:?}", app.layers, base.layers);

    // The label knows the run image by its place alone.
    let output = succeed(in_other(project.rebaser()?).arg(APP_IMAGE))?;
    let identifier = format!("{}@{}", project.path(RUN_LAYOUT).display(), base.descriptor.digest);
    ensure!(output.text().contains(&format!("onto {identifier}")), "{}", output.text());
    layout.verify()?;

    let output = project::run(in_other(project.exporter()?).arg(project.path(APP_LAYOUT)))?;
    fails(&output, 3, &["must lie under the layout directory"])?;
    let differences = tree::differences(&before, &tree::read(&layouts)?);
    ensure!(differences.is_empty(), "the other layout directory became another:\n{}", differences.join("\n"));
    Ok(())
}
