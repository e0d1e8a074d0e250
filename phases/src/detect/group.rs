//! Trying a group: its members detect, and their build plans must fit together.
//!
//! Specification: `buildpack.md` § Phase #1: Detection, `platform.md` § Targets and § Execution Environments.

use std::collections::HashMap;

use drydock_spec::api::BuildpackApi;
use drydock_spec::buildpack::ModuleKind;
use drydock_spec::group::GroupElement;
use drydock_spec::plan::{Plan, Provider};

use super::report::Report;
use super::run::{Run, Runner, Verdict};
use super::trial::{self, Candidate};
use super::walk::{Outcome, Tried, Trier};
use crate::buildpacks::Module;
use crate::{Error, Level, Log};

/// A group that passed.
#[derive(Debug, PartialEq)]
pub(super) struct Passed {
    /// Those who take part, in order.
    pub(super) members: Vec<Member>,
    /// Who provides what to whom.
    pub(super) plan: Plan,
}

/// One who takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Buildpack or extension.
    pub(super) kind: ModuleKind,
    /// As `group.toml` has it.
    pub(super) element: GroupElement,
}

/// Which module, whatever a group says of it.
type Key = (ModuleKind, String, String);

/// Tries groups. Each module detects at most once, however many groups it is in.
pub(super) struct Groups<'a> {
    pub(super) runner: Runner<'a>,
    pub(super) runs: HashMap<Key, Run>,
    pub(super) report: Report,
    pub(super) log: &'a dyn Log,
}

fn key(member: &Tried) -> Key {
    let element = &member.element;
    (element.kind, element.id.clone(), element.version.clone())
}

impl Trier for Groups<'_> {
    type Passed = Passed;

    /// One for another target fails the group with an error, unless it is optional: such a one detects and decides by
    /// itself. One for another execution environment is left out.
    fn admits(&mut self, member: &Tried) -> Result<bool, Error> {
        let module = &member.module;
        let (platform_api, exec_env) = (self.runner.inputs.platform_api, &self.runner.inputs.exec_env);
        if platform_api.has_targets() && !self.fits_target(member)? && !member.element.optional {
            let reason = format!(
                "unable to satisfy target os/arch constraints; run image: {}, buildpack: {}",
                json(&self.runner.target)?,
                json(&module.targets)?,
            );
            self.runs.insert(key(member), Run::unusable(reason));
            return Ok(true);
        }
        let is_told = platform_api.has_exec_env()
            && !exec_env.is_empty()
            && BuildpackApi::has_exec_env(module.buildpack_api()?);
        if is_told && !module.info.is_for(exec_env) {
            self.log.debug(&format!(
                "Skipping {}: it is not for the execution environment `{exec_env}`",
                module.full_name(),
            ));
            return Ok(false);
        }
        Ok(true)
    }

    fn try_group(&mut self, group: &[Tried]) -> Result<Outcome<Passed>, Error> {
        self.run_all(group)?;
        let members: Vec<(&Tried, &Run)> =
            group.iter().filter_map(|member| Some((member, self.runs.get(&key(member))?))).collect();
        tell_runs(&members, &mut self.report);
        match verdict(&members, &mut self.report) {
            Ok(()) => {}
            Err(errored) => return Ok(Outcome::Failed { errored }),
        }
        let passing: Vec<(&Tried, Candidate)> =
            members.iter().filter_map(|(member, run)| Some((*member, candidate(member, run)?))).collect();
        let (passing, candidates): (Vec<&Tried>, Vec<Candidate>) = passing.into_iter().unzip();
        let Some(resolution) = trial::resolve(&candidates, &mut self.report)? else {
            return Ok(Outcome::Failed { errored: false });
        };
        let taking_part: Vec<Member> =
            resolution.taking_part.iter().map(|&place| member_of_group(passing[place])).collect();
        tell_group(&taking_part, group.len(), &mut self.report);
        Ok(Outcome::Passed(Passed { members: taking_part, plan: Plan { entries: resolution.entries } }))
    }
}

impl Groups<'_> {
    fn fits_target(&self, member: &Tried) -> anyhow::Result<bool> {
        let Module { targets, .. } = member.module.as_ref();
        let name = member.module.full_name();
        if targets.is_empty() {
            self.log.debug(&format!("{name} is for every target"));
            return Ok(true);
        }
        for target in targets {
            let mismatch = target.mismatch(&self.runner.target);
            let verdict = mismatch.as_ref().map_or("fits".to_owned(), |why| format!("does not fit: {why}"));
            self.log.debug(&format!("Target {} of {name} {verdict}", json(target)?));
            if mismatch.is_none() {
                return Ok(true);
            }
        }
        if member.element.optional {
            self.log.debug(&format!("{name} detects all the same: it is optional"));
        }
        Ok(false)
    }

    fn run_all(&mut self, group: &[Tried]) -> Result<(), Error> {
        let new: Vec<&Tried> = group.iter().filter(|member| !self.runs.contains_key(&key(member))).collect();
        let modules: Vec<_> = new.iter().map(|member| member.module.as_ref()).collect();
        let runs = self.runner.run_all(&modules, &mut self.report)?;
        self.runs.extend(new.into_iter().map(key).zip(runs));
        Ok(())
    }
}

fn json(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(drydock_spec::json::to_string(value)?)
}

/// Tells what the members printed, and why they were of no use.
fn tell_runs(members: &[(&Tried, &Run)], report: &mut Report) {
    for (member, run) in members {
        let level = match run.verdict {
            Verdict::Pass(_) | Verdict::Fail => Level::Debug,
            Verdict::Exit(_) | Verdict::Unusable(_) => Level::Info,
        };
        let name = member.element.full_name();
        report.printed(level, &member.element.id, &name, &run.output);
        if let Verdict::Unusable(reason) = &run.verdict {
            report.add(level, format!("======== Error: {name} ========"));
            report.add(level, reason);
        }
    }
}

/// Tells how each member ended. Fails if the group cannot pass, with whether an error was the reason.
fn verdict(members: &[(&Tried, &Run)], report: &mut Report) -> Result<(), bool> {
    report.debug("======== Results ========");
    let (mut detected, mut has_buildpack, mut errored) = (true, false, false);
    for (member, run) in members {
        let (name, optional) = (member.element.full_name(), member.element.optional);
        match run.verdict {
            Verdict::Pass(_) => {
                report.debug(format!("pass: {name}"));
                has_buildpack |= member.element.kind == ModuleKind::Buildpack;
                continue;
            }
            Verdict::Fail if optional => report.debug(format!("skip: {name}")),
            Verdict::Fail => report.debug(format!("fail: {name}")),
            Verdict::Exit(Some(code)) => report.info(format!("err:  {name} ({code})")),
            Verdict::Exit(None) | Verdict::Unusable(_) => report.info(format!("err:  {name}")),
        }
        errored |= !matches!(run.verdict, Verdict::Fail);
        detected &= optional;
    }
    if !detected {
        return Err(errored);
    }
    if !has_buildpack {
        report.debug("fail: no viable buildpacks in group");
        return Err(false);
    }
    Ok(())
}

fn candidate(member: &Tried, run: &Run) -> Option<Candidate> {
    let Verdict::Pass(alternatives) = &run.verdict else { return None };
    let element = &member.element;
    Some(Candidate {
        provider: Provider {
            id: element.id.clone(),
            version: element.version.clone(),
            extension: element.kind == ModuleKind::Extension,
        },
        optional: element.optional,
        alternatives: alternatives.clone(),
    })
}

fn member_of_group(member: &Tried) -> Member {
    let Tried { element, module } = member;
    Member {
        kind: element.kind,
        element: GroupElement {
            id: element.id.clone(),
            version: element.version.clone(),
            api: module.api.clone(),
            homepage: module.info.homepage.clone(),
        },
    }
}

fn tell_group(taking_part: &[Member], tried: usize, report: &mut Report) {
    if taking_part.len() != tried {
        report.info(format!("{} of {tried} buildpacks participating", taking_part.len()));
    }
    let width = taking_part.iter().map(|member| member.element.id.chars().count()).max().unwrap_or(0);
    for Member { element, .. } in taking_part {
        report.info(format!("{:width$} {}", element.id, element.version));
    }
}
