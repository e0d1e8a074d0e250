//! The detector: finds the first group of buildpacks that can build the app, and lets extensions generate Dockerfiles.
//!
//! It writes `group.toml` and `plan.toml`; if extensions take part, the generated folder and `analyzed.toml`, too.
//! Specification: `platform.md` § Detector, `buildpack.md` § Phase #1: Detection and § Phase #2: Generate.

mod dockerfile;
mod generate;
mod group;
mod order;
mod report;
mod run;
mod trial;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use drydock_spec::analyzed::{Analyzed, Target};
use drydock_spec::api::PlatformApi;
use drydock_spec::buildpack::ModuleKind;
use drydock_spec::group::Group;
use drydock_spec::order::OrderToml;
use drydock_spec::plan::Plan;
use drydock_spec::system::SystemToml;

use self::generate::Generator;
use self::group::{Groups, Passed};
use self::order::Order;
use self::report::Report;
use self::run::Runner;
use self::walk::{Modules, Outcome, walk};
use crate::buildpacks::Store;
use crate::env::BuildEnv;
use crate::experimental::Experimental;
use crate::file::{check_app_dir, read_toml, read_toml_if_exists, write_toml};
use crate::process::Signals;
use crate::timer::timed;
use crate::{Error, Kind, Level, Log, target};

/// Everything that the detector needs to know. Paths are absolute.
#[derive(Debug)]
pub struct Inputs {
    /// The Platform API that the platform speaks.
    pub platform_api: PlatformApi,
    /// The app.
    pub app_dir: PathBuf,
    /// Buildpacks and extensions.
    pub store: Store,
    /// The groups to try.
    pub order_path: PathBuf,
    /// The platform's own buildpacks, read from Platform API 0.15 on.
    pub system_path: PathBuf,
    /// What the analyzer found, which need not exist; written if extensions take part.
    pub analyzed_path: PathBuf,
    /// Run images by name, read if extensions take part.
    pub run_path: PathBuf,
    /// Where the group is written.
    pub group_path: PathBuf,
    /// Where the build plan is written.
    pub plan_path: PathBuf,
    /// Where extensions write Dockerfiles.
    pub generated_dir: PathBuf,
    /// What the platform gives to buildpacks.
    pub platform_dir: PathBuf,
    /// What the builder image's author gives to buildpacks.
    pub build_config_dir: PathBuf,
    /// Where temporary files go.
    pub temp_dir: PathBuf,
    /// The file by which the build's file system says which distribution it is: [`target::OS_RELEASE`].
    pub os_release_path: PathBuf,
    /// The execution environment; empty if there is none.
    pub exec_env: String,
    /// The environment that buildpacks are given a part of.
    pub env: Vec<(OsString, OsString)>,
    /// What to do if extensions are to be tried where they are experimental: before Platform API 0.13.
    pub experimental: Experimental,
}

/// What was found out and written.
#[derive(Debug, Clone, PartialEq)]
pub struct Detected {
    /// Who takes part.
    pub group: Group,
    /// Who provides what to whom, without what extensions provide.
    pub plan: Plan,
    /// What the analyzer found, with the run image that extensions want.
    pub analyzed: Analyzed,
}

/// Detects, generates, and writes what came of it.
///
/// Fails with [`Kind::NoGroup`] or [`Kind::NoGroupAfterError`] if no group passes; with [`Kind::ExtensionFailed`] if a
/// `bin/generate` fails and [`Kind::Generate`] if what it left is not usable; with [`Kind::BuildpackApi`] if a module
/// speaks an API that is not supported; with [`Kind::General`] if something to begin with is missing; with
/// [`Kind::Interrupted`] if a signal ends a module's process; with [`Kind::Phase`] otherwise.
pub fn detect(inputs: &Inputs, signals: &Signals, log: &dyn Log) -> Result<Detected, Error> {
    check_app_dir(&inputs.app_dir).map_err(initialize)?;
    let analyzed = read_analyzed(&inputs.analyzed_path, log).map_err(initialize)?;
    let mut modules = Modules::new(inputs.store.clone());
    let order = read_order(inputs, log).map_err(initialize)?;
    for element in order.modules() {
        modules.get(element).map_err(|error| match error.kind {
            Kind::BuildpackApi => error,
            _ => initialize(error.cause)
                .with_help(format!("{} names it: add it, or take it out there", inputs.order_path.display())),
        })?;
    }
    if !order.extensions.is_empty() && !inputs.platform_api.has_stable_extensions() {
        inputs.experimental.guard("Dockerfiles", Level::Info, log)?;
    }

    let env = BuildEnv::new(&inputs.env);
    let target = run_image_target(inputs, &analyzed, log);
    let shown = drydock_spec::json::to_string(&target).expect("strings make JSON");
    log.debug(&format!("Run image target: {shown}"));
    let runner = Runner { inputs, env: env.clone(), target: target.clone(), signals };
    let Passed { members, plan } =
        timed(log, "Detector", || detect_order(&order, &mut modules, runner, log))?;
    let of_kind = |kind: ModuleKind| {
        members.iter().filter(|m| m.kind == kind).map(|m| m.element.clone()).collect::<Vec<_>>()
    };
    let group =
        Group { group: of_kind(ModuleKind::Buildpack), group_extensions: of_kind(ModuleKind::Extension) };
    write_toml(&inputs.group_path, &group).map_err(general)?;
    write_toml(&inputs.plan_path, &plan).map_err(general)?;
    if group.group_extensions.is_empty() {
        return Ok(Detected { group, plan, analyzed });
    }

    let generator = Generator { inputs, env, target, signals, log };
    let (plan, analyzed) =
        timed(log, "Generator", || generator.generate(&group.group_extensions, plan, analyzed))?;
    write_toml(&inputs.analyzed_path, &analyzed).map_err(general)?;
    write_toml(&inputs.plan_path, &plan).map_err(general)?;
    Ok(Detected { group, plan, analyzed })
}

fn detect_order(
    order: &Order,
    modules: &mut Modules,
    runner: Runner,
    log: &dyn Log,
) -> Result<Passed, Error> {
    let mut groups = Groups { runner, runs: HashMap::new(), report: Report::default(), log };
    let outcome = walk(order, modules, &mut groups);
    if matches!(outcome, Ok(Outcome::Passed(_))) {
        groups.report.tell(log);
    } else {
        groups.report.tell_all(log).context("failed to write to the log")?;
    }
    match outcome? {
        Outcome::Passed(passed) => Ok(passed),
        Outcome::Failed { errored: true } => {
            log.error("No buildpack groups passed detection.");
            Err(Error::new(Kind::NoGroupAfterError, anyhow!("buildpack(s) failed with err")))
        }
        Outcome::Failed { errored: false } => {
            log.error("No buildpack groups passed detection.");
            log.error("Please check that you are running against the correct path.");
            Err(Error::new(Kind::NoGroup, anyhow!("no buildpacks participating")))
        }
    }
}

fn run_image_target(inputs: &Inputs, analyzed: &Analyzed, log: &dyn Log) -> Target {
    let target = analyzed.run_image.as_ref().and_then(|image| image.target.clone()).unwrap_or_default();
    target::complete(target, &inputs.os_release_path, log)
}

fn read_analyzed(path: &Path, log: &dyn Log) -> anyhow::Result<Analyzed> {
    Ok(read_toml_if_exists(path)?.unwrap_or_else(|| {
        log.warn(&format!("No analyzed metadata found at path \"{}\"", path.display()));
        Analyzed::default()
    }))
}

fn read_order(inputs: &Inputs, log: &dyn Log) -> anyhow::Result<Order> {
    let order: OrderToml =
        read_toml(&inputs.order_path).context("failed to read order file").context("reading order")?;
    let mut system = SystemToml::default();
    if inputs.platform_api.has_exec_env() {
        match read_toml_if_exists(&inputs.system_path).context("reading system")? {
            Some(found) => system = found,
            None => {
                log.debug(&format!(
                    "No system buildpacks found at path \"{}\"",
                    inputs.system_path.display()
                ));
            }
        }
    }
    Ok(Order::new(&order, &system.system, log))
}

fn initialize(cause: anyhow::Error) -> Error {
    general(cause.context("failed to initialize detector"))
}

fn general(cause: anyhow::Error) -> Error {
    Error::new(Kind::General, cause)
}
