//! The recorded scenarios, one test each.

use std::sync::Arc;

use anyhow::{Result, ensure};
use drydock_acceptance::{here, run, scenario};
use libtest_mimic::Trial;

use crate::{Built, test};

/// The families (the part of a scenario's name before the first `-`) that run.
const FAMILIES: &[&str] = &["analyze", "build", "creator", "detect", "export", "launch", "phases", "restore"];

/// All scenarios as tests, and one test that each of them belongs to a family above.
pub(crate) fn trials(executables: &Arc<Built>) -> Result<Vec<Trial>> {
    let names = scenario::names(&here("scenarios"))?;
    let mut trials = Vec::new();
    for name in names.clone() {
        let executables = Arc::clone(executables);
        trials.push(test(&format!("scenarios::{name}"), move || check(&name, &executables)));
    }
    trials.push(test("scenarios_are_registered", move || all_registered(&names)));
    Ok(trials)
}

fn family(name: &str) -> &str {
    name.split_once('-').map_or(name, |(family, _)| family)
}

fn check(name: &str, executables: &Built) -> Result<()> {
    let scenario = scenario::Scenario::load(&here("scenarios").join(name))?;
    let differences = run::scenario(&scenario, &here("images"), executables.get()?.dir())?;
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

fn all_registered(names: &[String]) -> Result<()> {
    ensure!(!names.is_empty(), "there are no scenarios");
    for name in names {
        let family = family(name);
        ensure!(FAMILIES.contains(&family), "no test runs the scenario {name}");
    }
    for family in FAMILIES {
        ensure!(names.iter().any(|name| self::family(name) == *family), "no scenario belongs to {family}");
    }
    Ok(())
}
