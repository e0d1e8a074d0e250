//! What a buildpack tells the builder after its build: `build.toml`, `launch.toml`, SBOM files.

use std::path::Path;

use anyhow::{Context as _, bail};
use drydock_spec::api::BuildpackApi;
use drydock_spec::build_toml::{BuildToml, Unmet};
use drydock_spec::group::GroupElement;
use drydock_spec::launch::BomEntry;
use drydock_spec::launch_toml::LaunchToml;
use drydock_spec::plan::BuildpackPlan;

use super::layers::Layer;
use super::sbom::{self, SbomFile};
use crate::Log;
use crate::buildpacks::Module;
use crate::file::{read_text_if_exists, read_toml_if_exists};

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    /// Names of the plan entries that later buildpacks need not provide any more.
    pub(super) met: Vec<String>,
    /// The old bill of materials of the build.
    pub(super) build_bom: Vec<BomEntry>,
    /// What goes into the app image besides layers.
    pub(super) launch: LaunchToml,
    /// SBOM files.
    pub(super) sbom_files: Vec<SbomFile>,
}

/// Reads and checks a buildpack's outputs in its layers directory. `plan` is the plan that it was given.
pub(super) fn read(
    dir: &Path,
    module: &Module,
    api: BuildpackApi,
    layers: &[Layer],
    plan: &BuildpackPlan,
    log: &dyn Log,
) -> anyhow::Result<Outputs> {
    let build: BuildToml = read_toml_if_exists(&dir.join("build.toml"))?.unwrap_or_default();
    let met = met(plan, &build.unmet)?;
    let sbom_files = sbom::find(dir, &module.full_name(), layers, &module.info.sbom_formats)?;
    let mut launch = read_launch(&dir.join("launch.toml"), api)?;

    let has_bom = !build.bom.is_empty() || !launch.bom.is_empty();
    if has_bom && !sbom::any(dir)? {
        log.warn(
            "BOM table is deprecated in this buildpack api version, though it remains supported for backwards \
             compatibility. Buildpack authors should write BOM information to <layer>.sbom.<ext>, launch.sbom.<ext>, \
             or build.sbom.<ext>.",
        );
    }
    for process in launch.processes.iter_mut().map(|launch| &mut launch.process) {
        process.buildpack_id.clone_from(&module.id);
        if !api.has_dir_variables() && !process.working_dir.is_empty() {
            log.warn(&format!(
                "process working directory isn't supported in this buildpack api version. Ignoring working directory \
                 for process '{}'",
                process.r#type
            ));
            process.working_dir.clear();
        }
    }
    launch.bom = of_module(launch.bom, module);
    Ok(Outputs { met, build_bom: of_module(build.bom, module), launch, sbom_files })
}

fn read_launch(path: &Path, api: BuildpackApi) -> anyhow::Result<LaunchToml> {
    let text = read_text_if_exists(path)?.unwrap_or_default();
    LaunchToml::parse(&text, api).with_context(|| format!("failed to parse `{}`", path.display()))
}

/// The names in a plan that are not among the unmet ones.
fn met(plan: &BuildpackPlan, unmet: &[Unmet]) -> anyhow::Result<Vec<String>> {
    for Unmet { name } in unmet {
        if name.is_empty() {
            bail!("unmet.name is required");
        }
        if !plan.entries.iter().any(|entry| entry.name == *name) {
            bail!("unmet.name '{name}' must match a requested dependency");
        }
    }
    let is_met = |name: &String| !unmet.iter().any(|unmet| unmet.name == *name);
    Ok(plan.entries.iter().map(|entry| entry.name.clone()).filter(is_met).collect())
}

fn of_module(bom: Vec<BomEntry>, module: &Module) -> Vec<BomEntry> {
    let buildpack =
        GroupElement { id: module.id.clone(), version: module.version.clone(), ..GroupElement::default() };
    bom.into_iter().map(|entry| BomEntry { buildpack: buildpack.clone(), ..entry }).collect()
}

#[cfg(test)]
mod tests {
    use drydock_spec::plan::Require;

    use super::*;

    #[test]
    fn what_is_not_unmet_is_met() {
        let plan = |names: &[&str]| BuildpackPlan {
            entries: names
                .iter()
                .map(|name| Require { name: (*name).into(), ..Require::default() })
                .collect(),
        };
        for (names, unmet, expected) in [
            (&[][..], &[][..], Ok(&[][..])),
            (&["a", "b", "a"], &[], Ok(&["a", "b", "a"])),
            (&["a", "b", "a"], &["a"], Ok(&["b"])),
            (&["a"], &["a", "a"], Ok(&[])),
            (&["a"], &["q"], Err("unmet.name 'q' must match a requested dependency")),
            (&[], &["q"], Err("unmet.name 'q' must match a requested dependency")),
            (&["a"], &[""], Err("unmet.name is required")),
        ] {
            let unmet: Vec<_> = unmet.iter().map(|name| Unmet { name: (*name).into() }).collect();
            let found = met(&plan(names), &unmet).map_err(|error| error.to_string());
            let expected = expected.map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(found, expected.map_err(ToOwned::to_owned), "{names:?} {unmet:?}");
        }
    }
}
