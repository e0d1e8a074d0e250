//! Which stages are needed, and what each of them begins with.

use std::collections::{BTreeMap, BTreeSet};

use drydock_model::config::{ImageConfig, Settings};
use drydock_model::platform::{InvalidPlatform, Platform};

use super::planner::{AROUND, Args, Globals, Planner, Spent};
use super::{Base, Build, From, PlannedStage, settings};
use crate::language::{Dockerfile, Instruction, Kind, Stage, SyntaxError, parse_trigger};

/// What is wanted of a Dockerfile.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The name or the number of a stage; the last one, if none.
    pub target: Option<&'a str>,
    /// Arguments, of which later ones of one name count.
    pub args: &'a [(String, String)],
    /// What the image is to run on.
    pub platform: &'a Platform,
}

/// Why a Dockerfile cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// What it says is wrong.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// The stage that is wanted is not there.
    #[error("there is no stage `{wanted}`; {}", stages(there))]
    NoStage {
        /// What was asked for.
        wanted: String,
        /// The names that there are.
        there: Vec<String>,
    },
    /// An image is not to be had.
    #[error("line {line}: image `{name}`")]
    Image {
        /// Where it is named.
        line: usize,
        /// The image.
        name: String,
        /// Why.
        source: anyhow::Error,
    },
}

fn stages(there: &[String]) -> String {
    if there.is_empty() {
        "no stage has a name".to_owned()
    } else {
        format!("there are {}", there.join(", "))
    }
}

/// Gives the configuration of an image that a Dockerfile names; of one that files are copied from, only that it is to be had
/// matters.
pub type Images<'a> = dyn FnMut(&str, &Platform) -> anyhow::Result<ImageConfig> + 'a;

impl Build {
    /// What a Dockerfile comes to. Each image is asked for once, and all before this returns.
    pub fn of(
        dockerfile: &Dockerfile,
        wanted: &Wanted<'_>,
        images: &mut Images<'_>,
    ) -> Result<Self, PlanError> {
        let names = Names::of(&dockerfile.stages);
        let last = match wanted.target {
            None => dockerfile.stages.len().saturating_sub(1),
            Some(target) => {
                let found = names.find(target, usize::MAX).or_else(|| target.parse().ok());
                found.filter(|number| *number < dockerfile.stages.len()).ok_or_else(|| {
                    PlanError::NoStage { wanted: target.to_owned(), there: names.0.keys().cloned().collect() }
                })?
            }
        };
        let globals = Globals::of(dockerfile, wanted)?;
        let mut images = Asked { images, known: BTreeMap::new() };
        let mut drafts = BTreeMap::new();
        let mut spent = Spent::default();
        // A stage needs only those before it: when it comes to one, it is known to be needed.
        let mut needed = BTreeSet::from([last]);
        while let Some(number) = needed.pop_last() {
            let draft = Draft::of(dockerfile, number, &names, &globals, wanted.platform, &mut images)?;
            let texts = draft.triggers.iter().map(|trigger| trigger.text.len() + AROUND);
            spent.add(texts.sum()).map_err(|problem| SyntaxError { line: draft.stage.line, problem })?;
            needed.extend(draft.needs(&names, wanted.platform, &mut images)?);
            drafts.insert(number, draft);
        }
        let places: BTreeMap<usize, usize> =
            drafts.keys().enumerate().map(|(place, number)| (*number, place)).collect();
        let mut stages: Vec<PlannedStage> = Vec::new();
        let mut declared: Vec<Args> = Vec::new();
        for (number, draft) in drafts {
            let from = |name: &str| match names.from(name, number) {
                Ok(From::Stage(number)) => Ok(From::Stage(places[&number])),
                other => other,
            };
            let nothing = Args::new;
            let (base, config, args) = match draft.base {
                DraftBase::Scratch => (Base::Scratch, scratch(wanted.platform), nothing()),
                DraftBase::Image { name, platform, config } => {
                    (Base::Image { name, platform }, *config, nothing())
                }
                DraftBase::Stage(base) => {
                    let place = places[&base];
                    (Base::Stage(place), stages[place].plan.config.clone(), declared[place].clone())
                }
            };
            let planner = Planner::new(dockerfile.escape, &globals, &from, &mut spent, config, args);
            let (plan, args) = planner.plan(draft.stage, &draft.triggers)?;
            let name = draft.stage.name.clone().unwrap_or_else(|| number.to_string());
            stages.push(PlannedStage { line: draft.stage.line, name, base, plan });
            declared.push(args);
        }
        Ok(Self { stages })
    }

    /// The stage that was wanted.
    pub fn last(&self) -> &PlannedStage {
        self.stages.last().expect("there is one at least")
    }
}

/// A configuration for no files.
fn scratch(platform: &Platform) -> ImageConfig {
    let config = Settings { working_dir: "/".to_owned(), ..Settings::default() };
    ImageConfig { config, ..ImageConfig::empty(platform) }
}

/// The numbers of the stages by their names.
struct Names(BTreeMap<String, Vec<usize>>);

impl Names {
    fn of(stages: &[Stage]) -> Self {
        let mut names: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (number, stage) in stages.iter().enumerate() {
            if let Some(name) = &stage.name {
                names.entry(name.clone()).or_default().push(number);
            }
        }
        Self(names)
    }

    /// The last stage of this name before another one.
    fn find(&self, name: &str, before: usize) -> Option<usize> {
        let numbers = self.0.get(&name.to_ascii_lowercase())?;
        numbers[..numbers.partition_point(|number| *number < before)].last().copied()
    }

    /// What `--from` of an instruction of this stage means: stages are by their numbers in the Dockerfile.
    fn from(&self, name: &str, stage: usize) -> Result<From, String> {
        if name.contains('$') {
            return Err(format!(
                "`{name}`: a `from` has no variables; begin a stage from it (`FROM {name} AS <name>`), and name that"
            ));
        }
        if let Some(number) = self.find(name, stage) {
            return Ok(From::Stage(number));
        }
        match name.parse::<usize>() {
            Ok(number) if number < stage => Ok(From::Stage(number)),
            Ok(number) => Err(format!("there is no stage {number} before this one; name one that is there")),
            Err(_) if self.find(name, stage + 1).is_some() => Err(format!(
                "the stage `{name}` cannot take files from itself; leave the `from` out, or name another"
            )),
            Err(_) => Ok(From::Image(name.to_owned())),
        }
    }
}

/// Images that were asked for.
struct Asked<'a, 'b> {
    images: &'a mut Images<'b>,
    known: BTreeMap<(String, String), ImageConfig>,
}

impl Asked<'_, '_> {
    fn get(&mut self, line: usize, name: &str, platform: &Platform) -> Result<&ImageConfig, PlanError> {
        let key = (name.to_owned(), platform.to_string());
        if !self.known.contains_key(&key) {
            let found = (self.images)(name, platform);
            let found = found.map_err(|source| PlanError::Image { line, name: name.to_owned(), source })?;
            self.known.insert(key.clone(), found);
        }
        Ok(&self.known[&key])
    }
}

/// A stage of which it is known what it begins with.
struct Draft<'a> {
    number: usize,
    stage: &'a Stage,
    base: DraftBase,
    /// What that asks for.
    triggers: Vec<Instruction>,
}

enum DraftBase {
    Scratch,
    Stage(usize),
    Image { name: String, platform: Platform, config: Box<ImageConfig> },
}

impl<'a> Draft<'a> {
    fn of(
        dockerfile: &'a Dockerfile,
        number: usize,
        names: &Names,
        globals: &Globals,
        wanted: &Platform,
        images: &mut Asked<'_, '_>,
    ) -> Result<Self, PlanError> {
        let stage = &dockerfile.stages[number];
        let line = stage.line;
        let wrong = |problem| SyntaxError { line, problem };
        let name = globals.expand(&stage.base, dockerfile.escape).map_err(wrong)?;
        let base = match names.find(&name, number) {
            Some(base) => DraftBase::Stage(base),
            None if name == "scratch" => DraftBase::Scratch,
            None if name.is_empty() => {
                let problem = format!("`FROM {}` names no image; give its variables a value", stage.base);
                return Err(wrong(problem).into());
            }
            None => {
                let platform = stage.platform.as_deref().map(|text| {
                    let text = globals.expand(text, dockerfile.escape)?;
                    platform(&text)
                });
                let platform = platform.transpose().map_err(wrong)?.unwrap_or_else(|| wanted.clone());
                let config = Box::new(images.get(line, &name, &platform)?.clone());
                DraftBase::Image { name, platform, config }
            }
        };
        let texts = match &base {
            DraftBase::Scratch => Vec::new(),
            DraftBase::Image { config, .. } => settings::triggers(config),
            DraftBase::Stage(base) => {
                let instructions = dockerfile.stages[*base].instructions.iter();
                let texts = instructions.filter_map(|instruction| match &instruction.kind {
                    Kind::OnBuild(text) => Some(text.clone()),
                    _ => None,
                });
                texts.collect()
            }
        };
        let trigger = |text: &String| match parse_trigger(text) {
            Ok(instruction) => Ok(Instruction { line: 0, ..instruction }),
            Err(problem) => Err(of_trigger(line, &problem)),
        };
        let triggers = texts.iter().map(trigger).collect::<Result<_, _>>()?;
        Ok(Self { number, stage, base, triggers })
    }

    /// The stages that it needs. Images that it needs are asked for.
    fn needs(
        &self,
        names: &Names,
        platform: &Platform,
        images: &mut Asked<'_, '_>,
    ) -> Result<BTreeSet<usize>, PlanError> {
        let mut needed = BTreeSet::new();
        if let DraftBase::Stage(base) = &self.base {
            needed.insert(*base);
        }
        for instruction in self.triggers.iter().chain(&self.stage.instructions) {
            let of_mount: Vec<&String> = match &instruction.kind {
                Kind::Run(run) => run.mounts.iter().filter_map(|mount| mount.options.get("from")).collect(),
                Kind::Copy(copy) => copy.from.iter().collect(),
                _ => continue,
            };
            for name in of_mount {
                let found = names.from(name, self.number).map_err(|problem| match instruction.line {
                    0 => of_trigger(self.stage.line, &problem),
                    line => SyntaxError { line, problem },
                })?;
                match found {
                    From::Stage(number) => {
                        needed.insert(number);
                    }
                    From::Image(name) => {
                        images.get(instruction.line.max(self.stage.line), &name, platform)?;
                    }
                    From::Context => {}
                }
            }
        }
        Ok(needed)
    }
}

/// Something wrong with what an image asks for that a stage begins with, on this line.
pub(super) fn of_trigger(line: usize, problem: &str) -> SyntaxError {
    SyntaxError { line, problem: format!("ONBUILD of the image that it begins from: {problem}") }
}

/// `os/architecture`, maybe with a variant; or an architecture of Linux.
fn platform(text: &str) -> Result<Platform, String> {
    let whole = if text.contains('/') { text.to_owned() } else { format!("linux/{text}") };
    whole.parse().map_err(|error: InvalidPlatform| format!("--platform: {error}"))
}
