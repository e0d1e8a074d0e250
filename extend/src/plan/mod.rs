//! What a stage of a Dockerfile comes to, before anything is done: each step with all that it needs, and the configuration in the
//! end.
//!
//! A file system is nowhere in this: variables and settings depend on the Dockerfile, on the arguments and on the configuration that
//! it begins with, and on nothing that a program does. So whatever is wrong with them, or cannot be done here, is known before
//! anything runs.

mod mode;
mod mount;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use drydock_model::config::{ImageConfig, Settings};
use drydock_model::digest::Digest;
use drydock_model::platform::Platform;
use serde_json::Value as Json;

pub use self::mode::Permissions;
pub use self::mount::{Mount, Network, Sharing};
use crate::language::{
    CommandLine, Copy, Dockerfile, IgnoreRules, Instruction, Kind, Run, Source, Stage, SyntaxError, expand,
    expand_text, parse_trigger,
};

/// Arguments that need not be declared: how to reach other machines.
pub const PREDEFINED: [&str; 10] = [
    "ALL_PROXY",
    "FTP_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "all_proxy",
    "ftp_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Where programs are looked for when nobody says it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a Dockerfile comes to: the stages that the wanted one needs, each after those that it needs. The wanted one is the last.
#[derive(Debug, Clone, PartialEq)]
pub struct Build {
    /// There is one at least.
    pub stages: Vec<PlannedStage>,
}

/// A stage, and what it begins with.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedStage {
    /// Where its `FROM` stands in the Dockerfile.
    pub line: usize,
    /// Its name, or its number in the Dockerfile.
    pub name: String,
    /// What it begins with.
    pub base: Base,
    /// What is done.
    pub plan: Plan,
}

/// What a stage begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// No files.
    Scratch,
    /// What another stage has come to: its place in [`Build::stages`].
    Stage(usize),
    /// An image.
    Image {
        /// As `FROM` names it.
        name: String,
        /// What it runs on.
        platform: Platform,
    },
}

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

/// Gives the configuration of an image that a Dockerfile names.
pub type Images<'a> = dyn FnMut(&str, &Platform) -> anyhow::Result<ImageConfig> + 'a;

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// The configuration when all is done; layers and history are those that it began with.
    pub config: ImageConfig,
}

/// An instruction that does something to files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where it stands in the Dockerfile; 0 for what the image that it begins from asks for.
    pub line: usize,
    /// How it is written.
    pub text: String,
    /// What is done.
    pub action: Action,
}

/// What is done to files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A program runs.
    Run(Program),
    /// Files come from the context, or from the Dockerfile.
    Copy(Copying),
    /// A folder is made, unless it is there.
    MakeDir {
        /// Where, absolute.
        path: String,
        /// Whose it is, as `USER` says.
        user: String,
    },
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// What runs.
    pub command: Command,
    /// Its variables, in byte order of their names.
    pub env: BTreeMap<String, String>,
    /// Where it runs, absolute.
    pub dir: String,
    /// Who runs it, as `USER` says; empty for root.
    pub user: String,
    /// What it sees besides the image.
    pub mounts: Vec<Mount>,
    /// Which network it sees.
    pub network: Network,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A program with its arguments.
    Words(Vec<String>),
    /// A text that says by its first line (`#!`) what runs it.
    Script(String),
}

/// Files that come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copying {
    /// Where it comes from.
    pub from: From,
    /// What comes.
    pub sources: Vec<Origin>,
    /// Where to, absolute; a slash at its end if it is a folder.
    pub target: String,
    /// Whose it is then: root's, if nobody's.
    pub chown: Option<String>,
    /// Which permissions it has then: those that it has, if none.
    pub chmod: Option<Permissions>,
    /// What is left out.
    pub exclude: IgnoreRules,
    /// Whether archives are unpacked.
    pub unpacks: bool,
}

/// A folder that files come from: a context.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum From {
    /// That of the build.
    Context,
    /// What a stage has come to: its place in [`Build::stages`].
    Stage(usize),
    /// An image, as the Dockerfile names it, of the wanted platform.
    Image(String),
}

/// What comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A path in the context, or a pattern of paths.
    Context(String),
    /// The Dockerfile itself.
    Text {
        /// What the file is called.
        name: String,
        /// What is in it.
        contents: String,
    },
    /// A download.
    Url {
        /// Its address (`http:` or `https:`).
        url: String,
        /// What it must have, if that is said.
        checksum: Option<Digest>,
    },
}

/// The only stage of a Dockerfile.
pub fn only_stage(dockerfile: &Dockerfile) -> Result<&Stage, SyntaxError> {
    match dockerfile.stages.as_slice() {
        [stage] => Ok(stage),
        [_, second, ..] => {
            Err(SyntaxError { line: second.line, problem: not_there("a second stage", "have one FROM") })
        }
        [] => Err(SyntaxError { line: 1, problem: "there is no FROM".to_owned() }),
    }
}

fn not_there(what: &str, instead: &str) -> String {
    format!("{what} is not supported here; {instead}")
}

impl Plan {
    /// What the stage comes to on an image with this configuration, with these arguments, of which later ones of one name count.
    pub fn of(
        dockerfile: &Dockerfile,
        stage: &Stage,
        config: &ImageConfig,
        args: &[(String, String)],
    ) -> Result<Self, SyntaxError> {
        let given: BTreeMap<String, String> = args.iter().cloned().collect();
        let mut planner = Planner {
            escape: dockerfile.escape,
            globals: platform_args(&config.platform()),
            given,
            args: BTreeMap::new(),
            config: config.clone(),
            has_cmd: false,
            steps: Vec::new(),
        };
        for instruction in &dockerfile.global_args {
            if let Kind::Arg(arguments) = &instruction.kind {
                planner.declare_globals(arguments).map_err(at(instruction.line))?;
            }
        }
        for trigger in settings::take_triggers(&mut planner.config) {
            let wrong = |problem| SyntaxError {
                line: stage.line,
                problem: format!("ONBUILD of the image that it begins from: {problem}"),
            };
            let instruction = parse_trigger(&trigger).map_err(wrong)?;
            planner.add(&Instruction { line: 0, ..instruction }).map_err(wrong)?;
        }
        for instruction in &stage.instructions {
            planner.add(instruction).map_err(at(instruction.line))?;
        }
        Ok(Self { steps: planner.steps, config: planner.config })
    }
}

fn at(line: usize) -> impl FnOnce(String) -> SyntaxError {
    move |problem| SyntaxError { line, problem }
}

/// What stages may ask for.
fn platform_args(platform: &Platform) -> BTreeMap<String, String> {
    let Platform { os, architecture, .. } = platform;
    let variant = platform.variant.clone().unwrap_or_default();
    let values = ["TARGET", "BUILD"].into_iter().flat_map(|of| {
        [
            (format!("{of}PLATFORM"), platform.to_string()),
            (format!("{of}OS"), os.clone()),
            (format!("{of}ARCH"), architecture.clone()),
            (format!("{of}VARIANT"), variant.clone()),
        ]
    });
    values.collect()
}

struct Planner {
    escape: char,
    /// What was declared before the stage, or is there in any case.
    globals: BTreeMap<String, String>,
    /// What was given from outside.
    given: BTreeMap<String, String>,
    /// What the stage has declared.
    args: BTreeMap<String, String>,
    config: ImageConfig,
    /// Whether this stage has said what a container runs.
    has_cmd: bool,
    steps: Vec<Step>,
}

impl Planner {
    /// What a variable holds: variables of the image come before arguments.
    fn value(&self, name: &str) -> Option<String> {
        self.config.config.env(name).map(str::to_owned).or_else(|| self.args.get(name).cloned())
    }

    fn expand(&self, word: &str) -> Result<String, String> {
        expand(word, self.escape, &|name| self.value(name))
    }

    fn expand_all(&self, words: &[String]) -> Result<Vec<String>, String> {
        words.iter().map(|word| self.expand(word)).collect()
    }

    fn expand_pairs(&self, pairs: &[(String, String)]) -> Result<Vec<(String, String)>, String> {
        let pair = |(name, value): &(String, String)| match self.expand(name)? {
            name if name.is_empty() => Err(format!("the name before `={value}` is empty; give it one")),
            name => Ok((name, self.expand(value)?)),
        };
        pairs.iter().map(pair).collect()
    }

    fn declare_globals(&mut self, arguments: &[crate::language::Argument]) -> Result<(), String> {
        for argument in arguments {
            let value = match (self.given.get(&argument.name), &argument.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(word)) => {
                    Some(expand(word, self.escape, &|name| self.globals.get(name).cloned())?)
                }
                (None, None) => None,
            };
            self.globals.extend(value.map(|value| (argument.name.clone(), value)));
        }
        Ok(())
    }

    fn declare(&mut self, arguments: &[crate::language::Argument]) -> Result<(), String> {
        for argument in arguments {
            let name = &argument.name;
            let value = match (self.given.get(name), &argument.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(word)) => Some(self.expand(word)?),
                (None, None) => self.globals.get(name).cloned(),
            };
            self.args.extend(value.map(|value| (name.clone(), value)));
        }
        Ok(())
    }

    fn add(&mut self, instruction: &Instruction) -> Result<(), String> {
        let action = match &instruction.kind {
            Kind::Add(copy) => Some(Action::Copy(self.copying(copy, true)?)),
            Kind::Copy(copy) => Some(Action::Copy(self.copying(copy, false)?)),
            Kind::Run(run) => Some(Action::Run(self.program(run)?)),
            Kind::WorkDir(path) => {
                let path = below(&self.config.config.working_dir, &self.expand(path)?);
                self.config.config.working_dir.clone_from(&path);
                Some(Action::MakeDir { path, user: self.config.config.user.clone() })
            }
            kind => {
                self.set(kind)?;
                None
            }
        };
        let step = |action| Step { line: instruction.line, text: instruction.text.clone(), action };
        self.steps.extend(action.map(step));
        Ok(())
    }

    /// What does nothing to files.
    fn set(&mut self, kind: &Kind) -> Result<(), String> {
        match kind {
            Kind::Arg(arguments) => self.declare(arguments)?,
            Kind::Env(pairs) => {
                for (name, value) in self.expand_pairs(pairs)? {
                    self.config.config.set_env(&name, &value);
                }
            }
            Kind::Label(pairs) => self.config.config.labels.extend(self.expand_pairs(pairs)?),
            Kind::User(user) => {
                let user = self.expand(user)?;
                if user.is_empty() {
                    return Err("USER is empty when its variables are put in; give them values".to_owned());
                }
                self.config.config.user = user;
            }
            Kind::Cmd(command) => {
                self.config.config.cmd = settings::words(command, &self.config);
                self.has_cmd = true;
            }
            Kind::Entrypoint(command) => {
                self.config.config.entrypoint = settings::words(command, &self.config);
                if !self.has_cmd {
                    self.config.config.cmd.clear();
                }
            }
            Kind::Expose(words) => {
                for word in self.expand_all(words)? {
                    for port in word.split_whitespace().map(settings::ports) {
                        port?
                            .iter()
                            .for_each(|port| settings::add_to_set(&mut self.config, "ExposedPorts", port));
                    }
                }
            }
            Kind::Volume(paths) => {
                for path in self.expand_all(paths)? {
                    if path.is_empty() {
                        return Err("VOLUME has an empty path; write one".to_owned());
                    }
                    settings::add_to_set(&mut self.config, "Volumes", &path);
                }
            }
            Kind::StopSignal(signal) => {
                let signal = self.expand(signal)?;
                if !settings::is_signal(&signal) {
                    return Err(format!("`{signal}` is no signal; write it like `SIGTERM` or `15`"));
                }
                settings::set(&mut self.config, "StopSignal", signal);
            }
            Kind::HealthCheck(check) => settings::set_health_check(&mut self.config, check.as_ref()),
            Kind::Shell(words) => settings::set(&mut self.config, "Shell", words.clone()),
            Kind::OnBuild(trigger) => settings::add_trigger(&mut self.config, trigger),
            Kind::Maintainer(who) => {
                self.config.rest.insert("author".to_owned(), Json::String(who.clone()));
            }
            Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::WorkDir(_) => {}
        }
        Ok(())
    }

    fn program(&self, run: &Run) -> Result<Program, String> {
        if let Some(mount) = run.mounts.first() {
            return Err(not_there(
                &format!("RUN --mount={mount}"),
                "copy what is needed, and remove it in the same RUN",
            ));
        }
        for (flag, value) in [("network", &run.network), ("security", &run.security)] {
            if let Some(value) =
                value.as_ref().filter(|value| !matches!(value.as_str(), "default" | "sandbox"))
            {
                return Err(not_there(&format!("RUN --{flag}={value}"), "leave it out"));
            }
        }
        let Settings { user, working_dir, env, .. } = &self.config.config;
        let mut variables: BTreeMap<String, String> = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
        let predefined = self.given.iter().filter(|(name, _)| PREDEFINED.contains(&name.as_str()));
        variables.extend(predefined.chain(&self.args).map(|(name, value)| (name.clone(), value.clone())));
        let pairs = env.iter().filter_map(|pair| pair.split_once('='));
        variables.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let program = Program {
            command: self.command(run),
            env: variables,
            dir: below("/", working_dir),
            user: user.clone(),
            mounts: Vec::new(),
            network: Network::Default,
        };
        match &program.command {
            Command::Words(words) if words.is_empty() => Err("RUN has no program; write one".to_owned()),
            _ => Ok(program),
        }
    }

    fn command(&self, run: &Run) -> Command {
        let text = match &run.command {
            CommandLine::Exec(words) => return Command::Words(words.clone()),
            CommandLine::Shell(text) => text,
        };
        let mut words = settings::shell(&self.config);
        words.push(match run.here_documents.as_slice() {
            [] => text.clone(),
            // Nothing but the here-document: it is what runs.
            [only] if text.starts_with("<<") && !text.contains(char::is_whitespace) => {
                let contents = only.contents();
                if contents.starts_with("#!") {
                    return Command::Script(contents);
                }
                contents
            }
            several => {
                let documents = several.iter().map(|here| format!("\n{}{}", here.text, here.name));
                std::iter::once(text.clone()).chain(documents).collect()
            }
        });
        Command::Words(words)
    }

    fn copying(&self, copy: &Copy, is_add: bool) -> Result<Copying, String> {
        if let Some(from) = &copy.from {
            return Err(not_there(&format!("COPY --from={from}"), "put the files into the context"));
        }
        if copy.checksum.is_some() {
            return Err("--checksum is for what ADD downloads; leave it out".to_owned());
        }
        let source = |source: &Source| match source {
            Source::Path(written) => {
                let path = self.expand(written)?;
                let is_remote = ["http://", "https://", "git://", "ssh://", "git@"]
                    .iter()
                    .any(|beginning| path.starts_with(beginning));
                if is_add && is_remote {
                    // Arguments in it may be secret.
                    return Err(not_there(&format!("ADD of `{written}`"), "put the file into the context"));
                }
                Ok(Origin::Context(path))
            }
            Source::Here(here) => {
                let contents = here.contents();
                let contents = if here.expands {
                    expand_text(&contents, self.escape, &|name| self.value(name))?
                } else {
                    contents
                };
                Ok(Origin::Text { name: here.name.clone(), contents })
            }
        };
        let sources = copy.sources.iter().map(source).collect::<Result<Vec<_>, _>>()?;
        let written = self.expand(&copy.target)?;
        let mut target = below(&self.config.config.working_dir, &written);
        let is_dir = ["/", "/.", "/.."].iter().any(|end| written.ends_with(end))
            || matches!(written.as_str(), "" | "." | "..");
        if is_dir && !target.ends_with('/') {
            target.push('/');
        }
        if sources.len() > 1 && !target.ends_with('/') {
            return Err(format!("`{written}` must be a folder, as several files come; write `{written}/`"));
        }
        let chmod = copy.chmod.as_deref().map(|text| Permissions::parse(&self.expand(text)?)).transpose()?;
        let exclude = self.expand_all(&copy.exclude)?;
        Ok(Copying {
            from: From::Context,
            sources,
            target,
            chown: copy.chown.as_deref().map(|text| self.expand(text)).transpose()?,
            chmod,
            exclude: IgnoreRules::of(exclude.iter().map(String::as_str))?,
            unpacks: copy.unpack.unwrap_or(is_add),
        })
    }
}

/// A path as seen from a folder: absolute, without `.` and `..`, and without a slash at its end.
fn below(dir: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("/{dir}/{path}") };
    let mut names: Vec<&str> = Vec::new();
    for name in whole.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}
