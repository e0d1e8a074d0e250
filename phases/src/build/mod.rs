//! The builder: runs the buildpacks of the group, one after the other, and writes `config/metadata.toml`.
//!
//! Specification: `platform.md` § Builder, `buildpack.md` § Phase #3: Build.

mod layers;
mod outputs;
mod processes;
mod sbom;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, anyhow};
use drydock_spec::analyzed::{Analyzed, Target};
use drydock_spec::api::{BuildpackApi, PlatformApi};
use drydock_spec::buildpack::ModuleKind;
use drydock_spec::group::{Group, GroupElement};
use drydock_spec::label::bom_to_json;
use drydock_spec::launch::{BomEntry, BuildMetadata};
use drydock_spec::plan::{BuildpackPlan, Plan};

use crate::buildpacks::{Module, Store, buildpack_api, dir_name};
use crate::env::{BuildEnv, Invocation};
use crate::file::{self, check_app_dir, read_toml, read_toml_if_exists};
use crate::layers::clear_up;
use crate::process::{self, Program, Signals, describe};
use crate::timer::timed;
use crate::{Error, Kind, Log, target};

use outputs::Outputs;
use processes::Processes;
use sbom::SbomFile;

/// Everything that the builder needs to know. Folders are absolute.
#[derive(Debug)]
pub struct Inputs {
    /// The Platform API that the platform speaks.
    pub platform_api: PlatformApi,
    /// The app.
    pub app_dir: PathBuf,
    /// Where buildpacks lie.
    pub store: Store,
    /// The layers directory.
    pub layers_dir: PathBuf,
    /// What the platform gives to buildpacks.
    pub platform_dir: PathBuf,
    /// What the builder image's author gives to buildpacks.
    pub build_config_dir: PathBuf,
    /// Where temporary files go.
    pub temp_dir: PathBuf,
    /// The file by which the build's file system says which distribution it is: [`target::OS_RELEASE`].
    pub os_release_path: PathBuf,
    /// What the analyzer found, which need not exist.
    pub analyzed_path: PathBuf,
    /// Which buildpacks run.
    pub group_path: PathBuf,
    /// Who provides what to whom.
    pub plan_path: PathBuf,
    /// The execution environment; empty if there is none.
    pub exec_env: String,
    /// The environment that buildpacks are given a part of.
    pub env: Vec<(OsString, OsString)>,
}

/// Reads what earlier phases wrote, and builds.
///
/// Fails with [`Kind::General`] if that cannot be read, and else like [`build_group`].
pub fn build(inputs: &Inputs, signals: &Signals, log: &dyn Log) -> Result<BuildMetadata, Error> {
    let general = |doing: &'static str| move |error| Error::new(Kind::General, error).context(doing);
    check_app_dir(&inputs.app_dir).map_err(general("failed to find the app"))?;
    let group: Group = read_toml(&inputs.group_path).map_err(general("failed to read group file"))?;
    let plan: Plan = read_toml(&inputs.plan_path).map_err(general("failed to read plan file"))?;
    let analyzed: Option<Analyzed> =
        read_toml_if_exists(&inputs.analyzed_path).map_err(general("failed to read analyzed file"))?;
    if analyzed.is_none() {
        let path = inputs.analyzed_path.display();
        log.warn(&format!("No analyzed metadata found at path \"{path}\""));
    }
    let run_image = analyzed.and_then(|analyzed| analyzed.run_image).unwrap_or_default();
    build_group(inputs, &group, plan, run_image.target.unwrap_or_default(), signals, log)
}

/// Runs the buildpacks of a group, and writes what came of it: `config/metadata.toml` and `sbom/` in the layers
/// directory. `target` is the run image's, as far as it is known.
///
/// Fails with [`Kind::BuildpackApi`] before anything runs if a buildpack's API is none that is supported, and with
/// [`Kind::BuildpackFailed`] if a `bin/build` fails, with [`Kind::Interrupted`] if a signal ends it.
pub fn build_group(
    inputs: &Inputs,
    group: &Group,
    plan: Plan,
    target: Target,
    signals: &Signals,
    log: &dyn Log,
) -> Result<BuildMetadata, Error> {
    clear_up(&inputs.layers_dir, log);
    timed(log, "Builder", || run_group(inputs, group, plan, target, signals, log))
}

fn run_group(
    inputs: &Inputs,
    group: &Group,
    mut plan: Plan,
    target: Target,
    signals: &Signals,
    log: &dyn Log,
) -> Result<BuildMetadata, Error> {
    for element in &group.group {
        buildpack_api(ModuleKind::Buildpack, &element.full_name(), &element.api)?;
    }
    let sbom_dir = inputs.layers_dir.join("sbom");
    let clear = || {
        let removed = drydock_tar::remove_all(&sbom_dir);
        removed.with_context(|| format!("remove {} of an earlier build", sbom_dir.display()))
    };
    clear()?;

    let mut builder = Builder {
        inputs,
        env: BuildEnv::new(&inputs.env),
        target: target::complete(target, &inputs.os_release_path, log),
        signals,
        log,
    };
    let mut metadata = BuildMetadata {
        buildpacks: group.group.clone(),
        extensions: group.group_extensions.clone(),
        ..BuildMetadata::default()
    };
    let mut processes = Processes::default();
    let (mut build_bom, mut launch_bom, mut sbom_files) = (Vec::new(), Vec::new(), Vec::new());
    for element in &group.group {
        log.debug(&format!("Running build for buildpack {}", element.full_name()));
        let outputs = builder.build(element, &plan.part_of(&element.id, false))?;
        plan = plan.without(&outputs.met);
        build_bom.extend(outputs.build_bom);
        launch_bom.extend(outputs.launch.bom);
        sbom_files.extend(outputs.sbom_files);
        metadata.labels.extend(outputs.launch.labels);
        metadata.slices.extend(outputs.launch.slices);
        if let Some(r#type) = processes.add(outputs.launch.processes) {
            log.warn(&format!(
                "redefining the following default process type with a process not marked as default: {type}"
            ));
        }
        log.debug(&format!("Finished running build for buildpack {}", element.full_name()));
    }

    (metadata.processes, metadata.buildpack_default_process_type) = processes.finish(inputs.platform_api);
    // A buildpack may have put anything there, and it is not a buildpack's.
    clear()?;
    write_sbom(inputs.platform_api, &sbom_dir, &sbom_files, &build_bom, &launch_bom)?;
    if inputs.platform_api.has_legacy_bom() {
        metadata.bom = launch_bom;
    }
    file::write(&inputs.layers_dir.join("config/metadata.toml"), metadata.to_toml().as_bytes())?;
    Ok(metadata)
}

/// Fills `<layers>/sbom`, from which the exporter makes a layer and the cache takes its part.
fn write_sbom(
    api: PlatformApi,
    dir: &Path,
    files: &[SbomFile],
    build_bom: &[BomEntry],
    launch_bom: &[BomEntry],
) -> anyhow::Result<()> {
    if api.has_sbom_layer() {
        files.iter().try_for_each(|file| sbom::copy(file, dir))?;
    }
    if api.has_legacy_bom_files() {
        for (kind, bom) in [("launch", launch_bom), ("build", build_bom)] {
            let json = bom_to_json(bom).with_context(|| format!("encode {kind} bom"))?;
            file::write(&dir.join(kind).join("sbom.legacy.json"), (json + "\n").as_bytes())?;
        }
    }
    Ok(())
}

/// What the runs of all buildpacks share.
struct Builder<'a> {
    inputs: &'a Inputs,
    env: BuildEnv,
    target: Target,
    signals: &'a Signals,
    log: &'a dyn Log,
}

impl Builder<'_> {
    /// Runs one buildpack and takes in what it leaves behind.
    fn build(&mut self, element: &GroupElement, plan: &BuildpackPlan) -> Result<Outputs, Error> {
        let full_name = element.full_name();
        let module = self.inputs.store.load(ModuleKind::Buildpack, &element.id, &element.version)?;
        let api = module.buildpack_api()?;
        let dir = self.inputs.layers_dir.join(dir_name(&element.id)?);
        drydock_io::file::make_dirs(&dir).with_context(|| format!("make folder {}", dir.display()))?;

        self.run(&module, api, &dir, plan)?;

        let context = || format!("buildpack {full_name}");
        let layers =
            layers::process(&dir).context("failed to process buildpack layer").with_context(context)?;
        for layer in layers.iter().filter(|layer| layer.types.build) {
            self.env.add_layer(&dir.join(&layer.name)).with_context(context)?;
        }
        outputs::read(&dir, &module, api, &layers, plan, self.log).with_context(context).map_err(Error::from)
    }

    fn run(&self, module: &Module, api: BuildpackApi, dir: &Path, plan: &BuildpackPlan) -> Result<(), Error> {
        let inputs = self.inputs;
        // Until the plan's folder is gone.
        let held = self.signals.hold();
        let plan_dir = tempfile::Builder::new()
            .prefix("plan.")
            .tempdir_in(&inputs.temp_dir)
            .with_context(|| format!("make a folder in {}", inputs.temp_dir.display()))?;
        let plan_path = plan_dir.path().join("plan.toml");
        file::write(&plan_path, plan.to_toml().as_bytes())?;

        let invocation = Invocation {
            api,
            root_dir: (ModuleKind::Buildpack.dir_variable(), &module.root_dir),
            clear_env: module.info.clear_env,
            platform_dir: &inputs.platform_dir,
            build_config_dir: &inputs.build_config_dir,
            paths: &[("CNB_BP_PLAN_PATH", &plan_path), ("CNB_LAYERS_DIR", dir)],
            target: &self.target,
            exec_env: &inputs.exec_env,
        };
        let executable = module.root_dir.join("bin/build");
        let mut command = Command::new(&executable);
        command.arg(dir).arg(&inputs.platform_dir).arg(&plan_path).current_dir(&inputs.app_dir);
        command.env_clear().envs(self.env.variables(&invocation)?);

        let doing = || format!("{} of buildpack {}", executable.display(), module.full_name());
        let failed = |cause| Error::new(Kind::BuildpackFailed, cause);
        let program = Program { command, output: &mut *self.log.output(&module.id) };
        let status = held.end_left(process::run(program, &held)).map_err(|error| error.context(doing()))?;
        let status = status.map_err(|error| {
            failed(anyhow::Error::from(error).context(format!("failed to run {}", doing())))
        })?;
        if status.success() { Ok(()) } else { Err(failed(anyhow!("{} from {}", describe(status), doing()))) }
    }
}

#[cfg(test)]
mod tests;
