//! One stage: its instructions in their order, with the variables that they know.

use std::collections::BTreeMap;

use drydock_model::config::ImageConfig;
use drydock_model::platform::Platform;
use serde_json::Value as Json;

use super::build::{Wanted, of_trigger};
use super::{
    Action, Command, Copying, From, Mount, Origin, Permissions, Plan, Program, Step, Told, settings,
};
use crate::language::{
    Argument, CommandLine, Copy, Dockerfile, IgnoreRules, Instruction, Kind, Run, Source, Stage, SyntaxError,
    expand, expand_text, here_document,
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

/// About as many bytes may a Dockerfile come to: all steps of all stages, each with its variables. Few lines could ask for more than
/// any memory, as each program has all variables that are set before it.
pub const MAX_PLAN: usize = 64 << 20;

/// Bytes for what is around a text.
pub(super) const AROUND: usize = 256;

/// How much of [`MAX_PLAN`] is used.
#[derive(Debug, Default)]
pub(super) struct Spent(usize);

impl Spent {
    pub(super) fn add(&mut self, bytes: usize) -> Result<(), String> {
        self.0 = self.0.saturating_add(bytes);
        if self.0 <= MAX_PLAN {
            return Ok(());
        }
        Err(format!(
            "up to here, the Dockerfile comes to more than {MAX_PLAN} bytes with its variables; shorten these, or the Dockerfile"
        ))
    }

    /// A copy of what another stage or an image has.
    pub(super) fn add_config(&mut self, config: &ImageConfig) -> Result<(), String> {
        let labels = config.config.labels.iter().map(|(name, value)| name.len() + value.len());
        let lengths = config.config.env.iter().map(String::len).chain(labels);
        self.add(AROUND + lengths.map(|length| length + AROUND).sum::<usize>())
    }
}

/// What is known before the first stage.
#[derive(Debug)]
pub(super) struct Globals {
    /// What was declared, or is there in any case.
    values: BTreeMap<String, String>,
    /// What was given from outside.
    given: BTreeMap<String, String>,
}

impl Globals {
    pub(super) fn of(dockerfile: &Dockerfile, wanted: &Wanted<'_>) -> Result<Self, SyntaxError> {
        let given: BTreeMap<String, String> = wanted.args.iter().cloned().collect();
        let mut values = platform_args("BUILD", &Platform::host());
        values.extend(platform_args("TARGET", wanted.platform));
        values.insert("TARGETSTAGE".to_owned(), wanted.target.unwrap_or("default").to_owned());
        for (name, value) in &mut values {
            if let Some(given) = given.get(name) {
                value.clone_from(given);
            }
        }
        let mut globals = Self { values, given };
        for instruction in &dockerfile.global_args {
            if let Kind::Arg(arguments) = &instruction.kind {
                globals.declare(arguments, dockerfile.escape).map_err(at(instruction.line))?;
            }
        }
        Ok(globals)
    }

    fn declare(&mut self, arguments: &[Argument], escape: char) -> Result<(), String> {
        for argument in arguments {
            let value = match (self.given.get(&argument.name), &argument.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(word)) => Some(self.expand(word, escape)?),
                (None, None) => None,
            };
            self.values.extend(value.map(|value| (argument.name.clone(), value)));
        }
        Ok(())
    }

    pub(super) fn expand(&self, word: &str, escape: char) -> Result<String, String> {
        expand(word, escape, &|name| self.values.get(name).cloned())
    }
}

fn at(line: usize) -> impl FnOnce(String) -> SyntaxError {
    move |problem| SyntaxError { line, problem }
}

/// What stages may ask for.
fn platform_args(of: &str, platform: &Platform) -> BTreeMap<String, String> {
    let Platform { os, architecture, variant, .. } = platform;
    let values = [
        ("PLATFORM", platform.to_string()),
        ("OS", os.clone()),
        ("ARCH", architecture.clone()),
        ("VARIANT", variant.clone().unwrap_or_default()),
    ];
    values.into_iter().map(|(name, value)| (format!("{of}{name}"), value)).collect()
}

/// What a stage has declared: what stages that begin from it know, too.
pub(super) type Args = BTreeMap<String, String>;

/// What is known of a stage.
pub(super) struct Planner<'a> {
    pub(super) escape: char,
    pub(super) globals: &'a Globals,
    /// What `from` of an instruction means.
    pub(super) from: &'a dyn Fn(&str) -> Result<From, String>,
    pub(super) spent: &'a mut Spent,
    args: Args,
    config: ImageConfig,
    /// Variables of the image.
    env: BTreeMap<String, String>,
    /// Whether this stage has said what a container runs.
    has_cmd: bool,
    steps: Vec<Step>,
    told: Vec<Told>,
}

impl<'a> Planner<'a> {
    /// For a stage that begins with this configuration and these arguments.
    pub(super) fn new(
        escape: char,
        globals: &'a Globals,
        from: &'a dyn Fn(&str) -> Result<From, String>,
        spent: &'a mut Spent,
        config: ImageConfig,
        args: Args,
    ) -> Self {
        let pairs = config.config.env.iter().filter_map(|pair| pair.split_once('='));
        let env = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (has_cmd, steps, told) = (false, Vec::new(), Vec::new());
        Self { escape, globals, from, spent, args, config, env, has_cmd, steps, told }
    }

    /// What the stage comes to, after what its base asks for.
    pub(super) fn plan(
        mut self,
        stage: &Stage,
        triggers: &[Instruction],
    ) -> Result<(Plan, Args), SyntaxError> {
        let begin = |planner: &mut Self| {
            planner.spent.add_config(&planner.config)?;
            settings::remove_triggers(&mut planner.config);
            if planner.config.config.env("PATH").is_none() {
                planner.set_env("PATH", PATH)?;
            }
            Ok(())
        };
        begin(&mut self).map_err(at(stage.line))?;
        for instruction in triggers {
            self.add(instruction).map_err(|problem| of_trigger(stage.line, &problem))?;
        }
        for instruction in &stage.instructions {
            self.add(instruction).map_err(at(instruction.line))?;
        }
        Ok((Plan { steps: self.steps, told: self.told, config: self.config }, self.args))
    }

    /// What a variable holds: variables of the image come before arguments.
    fn value(&self, name: &str) -> Option<String> {
        self.env.get(name).or_else(|| self.args.get(name)).cloned()
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

    fn set_env(&mut self, name: &str, value: &str) -> Result<(), String> {
        // It is looked for among all.
        self.spent.add(name.len() + value.len() + self.config.config.env.len())?;
        self.config.config.set_env(name, value);
        self.env.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    fn add(&mut self, instruction: &Instruction) -> Result<(), String> {
        self.spent.add(instruction.text.len() + AROUND)?;
        let (action, told) = match &instruction.kind {
            Kind::Add(copy) => self.copying(copy, true)?,
            Kind::Copy(copy) => self.copying(copy, false)?,
            Kind::Run(run) => self.program(run)?,
            Kind::WorkDir(path) => {
                let path = below(&self.config.config.working_dir, &self.expand(path)?);
                self.config.config.working_dir.clone_from(&path);
                let told = format!("WORKDIR {path}");
                (Action::MakeDir { path, user: self.config.config.user.clone() }, told)
            }
            kind => {
                let text = self.set(kind, &instruction.text)?;
                self.spent.add(text.len() + AROUND)?;
                self.told.push(Told { text, step: None });
                return Ok(());
            }
        };
        self.spent.add(told.len() + AROUND)?;
        self.told.push(Told { text: told, step: Some(self.steps.len()) });
        self.steps.push(Step { line: instruction.line, text: instruction.text.clone(), action });
        Ok(())
    }

    /// Does what does nothing to files. Gives what the history says of it; `text` is how it is written.
    fn set(&mut self, kind: &Kind, text: &str) -> Result<String, String> {
        let pairs_of = |keyword: &str, pairs: &[(String, String)]| {
            let pairs = pairs.iter().map(|(name, value)| format!(" {name}={value}"));
            std::iter::once(keyword.to_owned()).chain(pairs).collect::<String>()
        };
        Ok(match kind {
            Kind::Arg(arguments) => {
                let mut told = "ARG".to_owned();
                for Argument { name, .. } in self.declare(arguments)? {
                    let value = self.args.get(name).map(|value| format!("={value}"));
                    told.extend([" ", name, &value.unwrap_or_default()]);
                }
                told
            }
            Kind::Env(pairs) => {
                let pairs = self.expand_pairs(pairs)?;
                for (name, value) in &pairs {
                    self.set_env(name, value)?;
                }
                pairs_of("ENV", &pairs)
            }
            Kind::Label(pairs) => {
                let pairs = self.expand_pairs(pairs)?;
                let told = pairs_of("LABEL", &pairs);
                self.config.config.labels.extend(pairs);
                told
            }
            Kind::User(user) => {
                // Empty, it is as if nobody had said it: extensions give back what the image had.
                let user = self.expand(user)?;
                self.config.config.user.clone_from(&user);
                format!("USER {user}")
            }
            Kind::Cmd(command) => {
                self.config.config.cmd = settings::words(command, &self.config);
                self.has_cmd = true;
                format!("CMD {}", listed(&self.config.config.cmd))
            }
            Kind::Entrypoint(command) => {
                self.config.config.entrypoint = settings::words(command, &self.config);
                if !self.has_cmd {
                    self.config.config.cmd.clear();
                }
                format!("ENTRYPOINT {}", listed(&self.config.config.entrypoint))
            }
            Kind::Expose(words) => {
                let mut told = Vec::new();
                for word in self.expand_all(words)? {
                    for port in word.split_whitespace().map(settings::ports) {
                        told.extend(port?);
                        self.spent.add(told.len() * AROUND)?;
                    }
                }
                for port in &told {
                    settings::add_to_set(&mut self.config, "ExposedPorts", port);
                }
                format!("EXPOSE [{}]", told.join(" "))
            }
            Kind::Volume(paths) => {
                let paths = self.expand_all(paths)?;
                if paths.iter().any(String::is_empty) {
                    return Err("VOLUME has an empty path; write one".to_owned());
                }
                for path in &paths {
                    settings::add_to_set(&mut self.config, "Volumes", path);
                }
                format!("VOLUME [{}]", paths.join(" "))
            }
            Kind::StopSignal(signal) => {
                let signal = self.expand(signal)?;
                if !settings::is_signal(&signal) {
                    return Err(format!("`{signal}` is no signal; write it like `SIGTERM` or `15`"));
                }
                settings::set(&mut self.config, "StopSignal", signal.clone());
                format!("STOPSIGNAL {signal}")
            }
            Kind::HealthCheck(check) => {
                settings::set_health_check(&mut self.config, check.as_ref());
                text.to_owned()
            }
            Kind::Shell(words) => {
                settings::set(&mut self.config, "Shell", words.clone());
                format!("SHELL [{}]", words.join(" "))
            }
            Kind::OnBuild(trigger) => {
                settings::add_trigger(&mut self.config, trigger);
                format!("ONBUILD {trigger}")
            }
            Kind::Maintainer(who) => {
                self.config.rest.insert("author".to_owned(), Json::String(who.clone()));
                format!("MAINTAINER {who}")
            }
            Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::WorkDir(_) => text.to_owned(),
        })
    }

    fn declare<'b>(&mut self, arguments: &'b [Argument]) -> Result<&'b [Argument], String> {
        for argument in arguments {
            let name = &argument.name;
            let value = match (self.globals.given.get(name), &argument.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(word)) => Some(self.expand(word)?),
                (None, None) => self.globals.values.get(name).cloned(),
            };
            self.spent.add(name.len() + value.as_ref().map_or(0, String::len))?;
            self.args.extend(value.map(|value| (name.clone(), value)));
        }
        Ok(arguments)
    }

    fn program(&mut self, run: &Run) -> Result<(Action, String), String> {
        if let Some(security) = run.security.as_deref().filter(|security| *security != "sandbox") {
            return Err(format!("RUN --security={security} is not supported; leave it out"));
        }
        let mounts = run.mounts.iter().map(|flag| {
            let from = flag.options.get("from").map(|name| (self.from)(name)).transpose()?;
            Mount::of(flag, from, &self.config.config.working_dir, &|word| self.expand(word))
        });
        let mounts = mounts.collect::<Result<Vec<_>, _>>()?;
        let variables = self.args.iter().chain(&self.env);
        let env: BTreeMap<String, String> =
            variables.map(|(name, value)| (name.clone(), value.clone())).collect();
        let predefined = PREDEFINED.into_iter().filter_map(|name| self.globals.given.get_key_value(name));
        let proxies = predefined.filter(|(name, _)| !env.contains_key(*name));
        let proxies: BTreeMap<String, String> =
            proxies.map(|(name, value)| (name.clone(), value.clone())).collect();
        let all = env.iter().chain(&proxies);
        self.spent.add(all.map(|(name, value)| name.len() + value.len() + AROUND).sum())?;
        let program = Program {
            command: self.command(run),
            env,
            proxies,
            dir: below("/", &self.config.config.working_dir),
            user: self.config.config.user.clone(),
            mounts,
            network: run.network,
        };
        let mut told = vec!["RUN".to_owned()];
        if !self.args.is_empty() {
            told.push(format!("|{}", self.args.len()));
            told.extend(self.args.keys().map(|name| format!("{name}={}", program.env[name])));
        }
        match &program.command {
            Command::Words(words) if words.is_empty() => {
                return Err("RUN has no program; write one".to_owned());
            }
            Command::Words(words) => told.extend(words.iter().cloned()),
            Command::Script(text) => told.push(text.clone()),
        }
        Ok((Action::Run(program), told.join(" ")))
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
            [only] if here_document(text).is_some() => {
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

    fn copying(&mut self, copy: &Copy, is_add: bool) -> Result<(Action, String), String> {
        let from = copy.from.as_deref().map_or(Ok(From::Context), self.from)?;
        let written = self.expand(&copy.target)?;
        let mut target = below(&self.config.config.working_dir, &written);
        let is_dir = copy.parents
            || ["/", "/.", "/.."].iter().any(|end| written.ends_with(end))
            || matches!(written.as_str(), "" | "." | "..");
        if is_dir && !target.ends_with('/') {
            target.push('/');
        }
        let is_dir = target.ends_with('/');
        let sources = copy.sources.iter().map(|source| match source {
            Source::Path(written) => {
                let path = self.expand(written)?;
                match (is_add, copy.parents) {
                    (true, _) => remote(written, path, copy, is_dir),
                    (false, true) => Ok(Origin::WithParents(path)),
                    (false, false) => Ok(Origin::Context(path)),
                }
            }
            Source::Here(_) if copy.from.is_some() => {
                Err("what is written here cannot come --from somewhere else; use two instructions".to_owned())
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
        });
        let sources = sources.collect::<Result<Vec<_>, _>>()?;
        if copy.checksum.is_some() && !matches!(sources.as_slice(), [Origin::Url { .. }]) {
            return Err("--checksum is for one file that ADD downloads; leave it out".to_owned());
        }
        if sources.len() > 1 && !is_dir {
            return Err(format!("`{written}` must be a folder, as several files come; write `{written}/`"));
        }
        let chown = copy.chown.as_deref().map(|text| self.expand(text)).transpose()?;
        let chmod = copy.chmod.as_deref().map(|text| self.expand(text)).transpose()?;
        let exclude = self.expand_all(&copy.exclude)?;

        let mut told = vec![if is_add { "ADD" } else { "COPY" }.to_owned()];
        told.extend(copy.parents.then(|| "--parents".to_owned()));
        told.extend(chown.as_ref().map(|text| format!("--chown={text}")));
        told.extend(chmod.as_ref().map(|text| format!("--chmod={text}")));
        told.extend(exclude.iter().map(|text| format!("--exclude={text}")));
        told.extend(sources.iter().map(|origin| match origin {
            Origin::Context(path) | Origin::WithParents(path) => path.clone(),
            Origin::Text { name, .. } => format!("<<{name}"),
            Origin::Url { url, .. } => url.clone(),
        }));
        told.push(written);
        let of_texts = sources.iter().map(|origin| match origin {
            Origin::Text { contents, .. } => contents.len(),
            _ => AROUND,
        });
        self.spent.add(of_texts.sum())?;
        let copying = Copying {
            from,
            sources,
            target,
            chown,
            chmod: chmod.as_deref().map(Permissions::parse).transpose()?,
            exclude: IgnoreRules::of(exclude.iter().map(String::as_str))?,
            unpacks: copy.unpack.unwrap_or(is_add),
        };
        Ok((Action::Copy(copying), told.join(" ")))
    }
}

/// What a source of `ADD` is: an address is a download. `written` is how it is written: arguments in it may be secret. `to_dir`: it comes
/// into a folder.
fn remote(written: &str, path: String, copy: &Copy, to_dir: bool) -> Result<Origin, String> {
    let before = path.split(['#', '?']).next().unwrap_or_default();
    let is_web = path.starts_with("http://") || path.starts_with("https://");
    let is_git = ["git://", "ssh://", "git@"].iter().any(|beginning| path.starts_with(beginning))
        || is_web && before.strip_suffix(".git").is_some();
    if is_git {
        return Err(format!(
            "ADD of `{written}` is not supported, as it is a git repository; put its files into the context"
        ));
    }
    if !is_web {
        return Ok(Origin::Context(path));
    }
    let checksum = copy.checksum.as_deref().map(|text| {
        let wrong = |_| format!("--checksum is `{text}`; it is `sha256:` and 64 hexadecimal digits");
        text.parse().map_err(wrong)
    });
    let rest = before.split_once("://").unwrap_or_default().1;
    let name = rest.split_once('/').unwrap_or_default().1.rsplit('/').next().unwrap_or_default();
    let name = Some(name).filter(|name| !matches!(*name, "" | "." | ".."));
    let unpacks = copy.unpack == Some(true);
    if name.is_none() && to_dir && !unpacks {
        return Err(format!(
            "ADD of `{written}`: the address has no file's name at its end; name the file in the target"
        ));
    }
    Ok(Origin::Url { name: name.map(str::to_owned), checksum: checksum.transpose()?, unpacks, url: path })
}

/// Words as histories have them.
fn listed(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// A path as seen from a folder: absolute, without `.` and `..`, and without a slash at its end.
pub(super) fn below(dir: &str, path: &str) -> String {
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
