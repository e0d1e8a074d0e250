//! The search for a build plan: which alternatives of those that passed fit together.
//!
//! A trial takes one alternative of each member. It succeeds if everything that is required was provided by an earlier
//! member or the same one, and everything that is provided is required later or by the same one; optional members for
//! which that does not hold are left out. Trials are made in the order in which the specification wants them, the last
//! member's alternatives changing first; where many of them cannot succeed for one and the same reason, they are passed
//! over together. Specification: `buildpack.md` § Phase #1: Detection.

use std::collections::{HashMap, HashSet};

use anyhow::bail;
use drydock_spec::plan::{PlanEntry, PlanSections, Provider, Require};

use super::report::Report;

/// Trials that have so little before them are made one by one: passing over them would not pay.
const SMALL: u64 = 64;

/// How many trials and looks ahead are made before the search is given up. Alternatives that need so many are not meant.
const MOST: u32 = 100_000;

/// A buildpack or an extension that passed.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Who it is.
    pub(super) provider: Provider,
    /// Whether the group can do without it.
    pub(super) optional: bool,
    /// What it would provide and require; never empty.
    pub(super) alternatives: Vec<PlanSections>,
}

impl Candidate {
    fn name(&self) -> String {
        format!("{}@{}", self.provider.id, self.provider.version)
    }
}

/// What a trial came to.
#[derive(Debug, PartialEq)]
pub(super) struct Resolution {
    /// Those of the candidates that take part, by their place.
    pub(super) taking_part: Vec<usize>,
    /// Who provides what to whom.
    pub(super) entries: Vec<PlanEntry>,
}

/// Finds the first trial that succeeds. `None`: there is no such trial.
///
/// Fails if there are too many to try.
pub(super) fn resolve(candidates: &[Candidate], report: &mut Report) -> anyhow::Result<Option<Resolution>> {
    resolve_within(MOST, candidates, report)
}

fn resolve_within(
    most: u32,
    candidates: &[Candidate],
    report: &mut Report,
) -> anyhow::Result<Option<Resolution>> {
    let trials_from = trials_from(candidates);
    let mut chosen: Vec<usize> = Vec::with_capacity(candidates.len());
    let mut number: u64 = 1;
    for _ in 0..most {
        let ahead = trials_from[chosen.len()];
        if chosen.len() == candidates.len() {
            report.debug(format!("Resolving plan... (try #{number})"));
            let mut members = members(candidates, &chosen);
            match settle(&mut members, report) {
                Ok(()) if members.iter().any(Member::takes_part) => return Ok(Some(resolution(&members))),
                Ok(()) => report.debug("fail: no viable buildpacks in group"),
                Err(reason) => report.debug(reason),
            }
        } else if ahead > SMALL
            && let Err(reason) = settle(&mut members(candidates, &chosen), &mut Report::default())
        {
            report.debug(format!(
                "Resolving plan... (tries #{number} to #{})",
                number.saturating_add(ahead - 1)
            ));
            report.debug(reason);
        } else {
            chosen.push(0);
            continue;
        }
        number = number.saturating_add(ahead);
        if !advance(&mut chosen, candidates) {
            return Ok(None);
        }
    }
    bail!(
        "the build plans of this group have too many alternatives: {number} trials did not find any that fit"
    )
}

/// How many trials there are once the first `n` members have chosen, for each `n`. At most `u64::MAX`.
fn trials_from(candidates: &[Candidate]) -> Vec<u64> {
    let mut counts = vec![1_u64];
    for candidate in candidates.iter().rev() {
        let after = counts[counts.len() - 1];
        counts.push(after.saturating_mul(candidate.alternatives.len() as u64));
    }
    counts.reverse();
    counts
}

/// Lets the last member that can choose its next alternative, and those after it choose anew.
fn advance(chosen: &mut Vec<usize>, candidates: &[Candidate]) -> bool {
    while let Some(last) = chosen.pop() {
        if last + 1 < candidates[chosen.len()].alternatives.len() {
            chosen.push(last + 1);
            return true;
        }
    }
    false
}

/// A candidate in a trial, or in what several trials have in common.
struct Member<'a> {
    candidate: &'a Candidate,
    /// What it may choose: in a trial, one alternative; or all, while it has not chosen; or none, if it was left out.
    alternatives: Vec<&'a PlanSections>,
    /// Whether it can be left out.
    optional: bool,
}

impl Member<'_> {
    fn takes_part(&self) -> bool {
        !self.alternatives.is_empty()
    }
}

/// The first candidates as they have chosen, and the others with everything that they can still choose.
///
/// A candidate can be left out only once it has no alternative left: its last one decides.
fn members<'a>(candidates: &'a [Candidate], chosen: &[usize]) -> Vec<Member<'a>> {
    let member = |(place, candidate): (usize, &'a Candidate)| match chosen.get(place) {
        Some(&choice) => Member {
            candidate,
            alternatives: vec![&candidate.alternatives[choice]],
            optional: candidate.optional && choice + 1 == candidate.alternatives.len(),
        },
        None => Member {
            candidate,
            alternatives: candidate.alternatives.iter().collect(),
            optional: candidate.optional,
        },
    };
    candidates.iter().enumerate().map(member).collect()
}

/// An alternative that cannot be chosen.
struct Fault<'a> {
    member: usize,
    alternative: usize,
    /// What is required or provided.
    name: &'a str,
}

/// Takes away what cannot be chosen until all that is left fits. Fails with the reason if a member that cannot be left
/// out has nothing left to choose; then no trial with these choices succeeds.
///
/// What is taken away would not fit with less around it either, so the order of taking away does not matter; and where
/// a member has not chosen, every alternative of it is counted in, so nothing is taken away that fits in some trial.
fn settle(members: &mut [Member], report: &mut Report) -> Result<(), String> {
    loop {
        let unmet = unmet_requires(members).into_iter().map(|fault| (fault, "requires"));
        let unused = unused_provides(members).into_iter().map(|fault| (fault, "provides unused"));
        let mut taken: HashMap<usize, HashSet<usize>> = HashMap::new();
        for (fault, what) in unmet.chain(unused) {
            let member = &members[fault.member];
            let taken = taken.entry(fault.member).or_default();
            taken.insert(fault.alternative);
            let message = format!("{} {what} {}", member.candidate.name(), fault.name);
            if taken.len() == member.alternatives.len() && !member.optional {
                return Err(format!("fail: {message}"));
            }
            report.debug(format!("skip: {message}"));
        }
        if taken.is_empty() {
            return Ok(());
        }
        for (member, taken) in taken {
            let mut place = 0..;
            members[member].alternatives.retain(|_| place.next().is_none_or(|place| !taken.contains(&place)));
        }
    }
}

fn unmet_requires<'a>(members: &[Member<'a>]) -> Vec<Fault<'a>> {
    let mut faults = Vec::new();
    let mut provided: HashSet<&str> = HashSet::new();
    for (member, Member { alternatives, .. }) in members.iter().enumerate() {
        for (alternative, sections) in alternatives.iter().enumerate() {
            let own: HashSet<&str> = provided_by(sections).collect();
            let unmet = required_by(sections).filter(|name| !provided.contains(name) && !own.contains(name));
            faults.extend(unmet.map(|name| Fault { member, alternative, name }));
        }
        provided.extend(alternatives.iter().flat_map(|sections| provided_by(sections)));
    }
    faults
}

fn unused_provides<'a>(members: &[Member<'a>]) -> Vec<Fault<'a>> {
    let mut faults = Vec::new();
    let mut required: HashSet<&str> = HashSet::new();
    for (member, Member { alternatives, .. }) in members.iter().enumerate().rev() {
        for (alternative, sections) in alternatives.iter().enumerate().rev() {
            let own: HashSet<&str> = required_by(sections).collect();
            let unused =
                provided_by(sections).rev().filter(|name| !required.contains(name) && !own.contains(name));
            faults.extend(unused.map(|name| Fault { member, alternative, name }));
        }
        required.extend(alternatives.iter().flat_map(|sections| required_by(sections)));
    }
    faults.reverse();
    faults
}

fn provided_by(sections: &PlanSections) -> impl DoubleEndedIterator<Item = &str> {
    sections.provides.iter().map(|provide| provide.name.as_str())
}

fn required_by(sections: &PlanSections) -> impl Iterator<Item = &str> {
    sections.requires.iter().map(|require| require.name.as_str())
}

/// What comes of a trial in which everything fits.
fn resolution(members: &[Member]) -> Resolution {
    let mut entries: Vec<PlanEntry> = Vec::new();
    // Of each name: its entry, and those who provide it but for whom nobody has asked yet.
    let mut by_name: HashMap<&str, (usize, Vec<Provider>)> = HashMap::new();
    let mut taking_part = Vec::new();
    for (place, member) in members.iter().enumerate() {
        let Some(sections) = member.alternatives.first() else { continue };
        taking_part.push(place);
        for name in provided_by(sections) {
            let (_, waiting) = by_name.entry(name).or_insert_with(|| {
                entries.push(PlanEntry::default());
                (entries.len() - 1, Vec::new())
            });
            waiting.push(member.candidate.provider.clone());
        }
        for require in &sections.requires {
            // Everything that is required has been provided before, or the trial would have failed.
            if let Some((entry, waiting)) = by_name.get_mut(require.name.as_str()) {
                entries[*entry].providers.append(waiting);
                entries[*entry].requires.push(Require::from(require));
            }
        }
    }
    Resolution { taking_part, entries }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory_log::MemoryLog;

    /// A candidate written as `id: +provided -required | +alternative`; its ID ends in `?` if it is optional.
    fn candidate(text: &str) -> Candidate {
        let (id, plan) = text.split_once(':').unwrap();
        let sections = |text: &str| {
            let mut sections = PlanSections::default();
            for word in text.split_whitespace() {
                match word.split_at(1) {
                    ("+", name) => sections.provides.push(drydock_spec::plan::Provide { name: name.into() }),
                    (_, name) => sections.requires.push(drydock_spec::plan::DeclaredRequire {
                        name: name.into(),
                        ..Default::default()
                    }),
                }
            }
            sections
        };
        Candidate {
            provider: Provider { id: id.trim_end_matches('?').into(), version: "1".into(), extension: false },
            optional: id.ends_with('?'),
            alternatives: plan.split('|').map(sections).collect(),
        }
    }

    /// Who takes part with which plan (`name: provider... -> how many requires`), and what is said.
    fn run(candidates: &[Candidate]) -> (Option<String>, String) {
        let mut report = Report::default();
        let resolution = resolve(candidates, &mut report).unwrap();
        let log = MemoryLog::default();
        report.tell(&log);
        let text = resolution.map(|Resolution { taking_part, entries }| {
            let ids: Vec<_> = taking_part.iter().map(|&i| candidates[i].provider.id.as_str()).collect();
            let entries = entries.iter().map(|PlanEntry { providers, requires }| {
                let ids: Vec<_> = providers.iter().map(|p| p.id.as_str()).collect();
                format!("; {}: {} -> {}", requires[0].name, ids.join(" "), requires.len())
            });
            ids.join(" ") + &entries.collect::<String>()
        });
        (text, log.text().replace("Debug: ", ""))
    }

    fn check(candidates: &[&str], want: Option<&str>, said: &[&str]) {
        let parsed: Vec<_> = candidates.iter().map(|text| candidate(text)).collect();
        let (got, log) = run(&parsed);
        assert_eq!(got.as_deref(), want, "{candidates:?}\n{log}");
        let want: String =
            said.iter().map(|line| line.replace('#', "Resolving plan... (try #") + "\n").collect();
        assert_eq!(log, want, "{candidates:?}");
    }

    #[test]
    fn provides_and_requires_meet() {
        check(&["a:"], Some("a"), &["#1)"]);
        check(&["a: +x", "b: -x"], Some("a b; x: a -> 1"), &["#1)"]);
        check(&["a: +x -x"], Some("a; x: a -> 1"), &["#1)"]);
        check(&["a: +x", "b: +x -x", "c: -x"], Some("a b c; x: a b -> 2"), &["#1)"]);
        check(&["a: +x", "b: -x", "c: +x", "d: -x"], Some("a b c d; x: a c -> 2"), &["#1)"]);
        check(&["a: +x +y", "b: -y -x -x"], Some("a b; x: a -> 2; y: a -> 1"), &["#1)"]);
    }

    #[test]
    fn what_is_required_by_the_group_must_fit() {
        check(&["a: -x"], None, &["#1)", "fail: a@1 requires x"]);
        check(&["a: +x"], None, &["#1)", "fail: a@1 provides unused x"]);
        check(&["a: -x", "b: +x -x"], None, &["#1)", "fail: a@1 requires x"]);
        check(&["a: -x", "b: +x"], None, &["#1)", "fail: a@1 requires x"]);
        check(&["a: +x -x", "b: +x"], None, &["#1)", "fail: b@1 provides unused x"]);
    }

    #[test]
    fn optional_members_are_left_out() {
        check(&["a:", "b?: -x"], Some("a"), &["#1)", "skip: b@1 requires x"]);
        check(&["a?: +x", "b:"], Some("b"), &["#1)", "skip: a@1 provides unused x"]);
        check(
            &["a: +x", "b?: -x -y", "c:"],
            None,
            &["#1)", "skip: b@1 requires y", "fail: a@1 provides unused x"],
        );
        check(
            &["a?: +x -z", "b?: +y -x", "c?: -y", "d:"],
            Some("d"),
            &["#1)", "skip: a@1 requires z", "skip: b@1 requires x", "skip: c@1 requires y"],
        );
        check(&["a?: -x"], None, &["#1)", "skip: a@1 requires x", "fail: no viable buildpacks in group"]);
    }

    #[test]
    fn alternatives_are_tried_in_order_and_the_last_decides() {
        check(&["a: +x | +y", "b: -y"], Some("a b; y: a -> 1"), &["#1)", "fail: b@1 requires y", "#2)"]);
        check(&["a: +x | ", "b: -y | -x"], Some("a b; x: a -> 1"), &["#1)", "fail: b@1 requires y", "#2)"]);
        check(
            &["a?: -x | -y", "b:"],
            Some("b"),
            &["#1)", "fail: a@1 requires x", "#2)", "skip: a@1 requires y"],
        );
        check(
            &["a: -x | -y", "b: | "],
            None,
            &[
                "#1)",
                "fail: a@1 requires x",
                "#2)",
                "fail: a@1 requires x",
                "#3)",
                "fail: a@1 requires y",
                "#4)",
                "fail: a@1 requires y",
            ],
        );
    }

    #[test]
    fn hopeless_trials_are_passed_over_and_counted() {
        let mut group: Vec<String> = (0..40).map(|n| format!("m{n}: | ")).collect();
        group.insert(0, "a: -z | ".into());
        group.push("l:".into());
        let candidates: Vec<_> = group.iter().map(|text| candidate(text)).collect();
        let (got, log) = run(&candidates);
        assert!(got.unwrap().starts_with("a m0"), "{log}");
        assert_eq!(
            log,
            "Resolving plan... (tries #1 to #1099511627776)\nfail: a@1 requires z\n\
             Resolving plan... (try #1099511627777)\n"
        );

        group.push("e: -z".into());
        let candidates: Vec<_> = group.iter().map(|text| candidate(text)).collect();
        let (got, log) = run(&candidates);
        assert_eq!((got, log.lines().count()), (None, 2), "{log}");
    }

    #[test]
    fn a_search_without_end_is_given_up() {
        // Seven pigeons in six holes: whether pigeon p is in hole h (`p.h`) or not (`-p.h`) is chosen for each; each
        // must be in some hole, and of two in a hole one must not be there. Nothing short of trying shows that it
        // cannot be.
        let (pigeons, holes) = (7, 6);
        let each = || (0..pigeons).flat_map(|p| (0..holes).map(move |h| format!("{p}.{h}")));
        let choice = each().map(|at| format!("choose{at}: +{at} | +-{at}"));
        let housed = (0..pigeons).map(|p| {
            let places: Vec<_> = (0..holes).map(|h| format!("-{p}.{h}")).collect();
            format!("housed{p}: {}", places.join(" | "))
        });
        let alone = (0..holes).flat_map(|h| {
            let pairs = (0..pigeons).flat_map(|p| (0..p).map(move |q| (p, q)));
            pairs.map(move |(p, q)| format!("alone{p}.{q}.{h}: --{p}.{h} | --{q}.{h}"))
        });
        let used = each().map(|at| format!("use{at}: -{at} | --{at}"));
        let group: Vec<_> =
            choice.chain(housed).chain(alone).chain(used).map(|text| candidate(&text)).collect();
        let error = resolve_within(500, &group, &mut Report::default()).unwrap_err().to_string();
        assert!(error.contains("too many alternatives"), "{error}");
    }

    /// The first trial that succeeds, found by making them all.
    fn exhaustive(candidates: &[Candidate]) -> Option<Resolution> {
        let mut chosen = vec![0; candidates.len()];
        loop {
            let mut members = members(candidates, &chosen);
            if settle(&mut members, &mut Report::default()).is_ok() && members.iter().any(Member::takes_part)
            {
                return Some(resolution(&members));
            }
            let place =
                (0..chosen.len()).rev().find(|&i| chosen[i] + 1 < candidates[i].alternatives.len())?;
            chosen[place] += 1;
            chosen[place + 1..].fill(0);
        }
    }

    proptest! {
        #[test]
        fn passing_over_changes_nothing(group in prop::collection::vec(
            "[ab]\\??:( [+-][xyz]){0,2}( \\|( [+-][xyz]){0,2}){0,2}", 1..8)) {
            let candidates: Vec<_> = group.iter().map(|text| candidate(text)).collect();
            let found = resolve(&candidates, &mut Report::default()).unwrap();
            prop_assert_eq!(found, exhaustive(&candidates));
        }
    }
}
