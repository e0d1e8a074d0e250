//! From `main` to the phase and back to an exit code.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use drydock_io::access::User;
use drydock_phases::analyze::analyze;
use drydock_phases::build::build;
use drydock_phases::detect::detect;
use drydock_phases::export::export;
use drydock_phases::extend::{self, ExtendKind};
use drydock_phases::process::Signals;
use drydock_phases::rebase::rebase;
use drydock_phases::restore::restore;
use drydock_phases::{Error, Kind, Log, create, file};
use drydock_spec::api::{ApiError, PlatformApi};

use drydock_phases::early::ReadsImages;

use crate::args::command_line::{CommandLine, command};
use crate::args::{self, Options, Task, flag};
use crate::build_log::{Kept, LogFile};
use crate::env::{self, Env};
use crate::exit::Failure;
use crate::log::{Console, Threshold};
use crate::phase::Phase;
use crate::privileges::{Account, Privileges};
use crate::version::version;

/// Runs a phase with the process's arguments and environment.
pub fn run(phase: Phase) -> ExitCode {
    keep_descriptors();
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    ExitCode::from(run_phase(phase, &arguments, Env::of_process()))
}

/// The executable that is every phase: by the name that it is called by, or else by its first argument.
pub fn lifecycle() -> ExitCode {
    keep_descriptors();
    let mut arguments = std::env::args_os();
    let called = arguments.next().unwrap_or_default();
    let arguments: Vec<OsString> = arguments.collect();
    let env = Env::of_process();
    let plain = Console::new(Threshold::default(), refuses_colour(&env));
    ExitCode::from(match choose(&called, &arguments) {
        Choice::Phase(phase, used) => run_phase(phase, &arguments[used..], env),
        Choice::Version => {
            plain.answer(&version());
            0
        }
        Choice::Help => {
            plain.usage(&lifecycle_usage());
            0
        }
        Choice::Nothing => report(&plain, &nothing_chosen()),
        Choice::Unknown(name) => {
            report(&plain, &platform_api(&env).map_or_else(|failure| failure, |_| unknown_phase(&name)))
        }
    })
}

/// Keeps open files of whoever called this process from the buildpacks: they inherit nothing but the standard streams.
fn keep_descriptors() {
    close_fds::set_fds_cloexec(3, &[]);
}

/// What the `lifecycle` executable is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// A phase, and how many arguments it took to name it.
    Phase(Phase, usize),
    Version,
    Help,
    Nothing,
    Unknown(String),
}

fn choose(called: &OsStr, arguments: &[OsString]) -> Choice {
    let find = |name: &OsStr, name_of: fn(Phase) -> &'static str| {
        Phase::ALL.into_iter().find(|&phase| name == name_of(phase))
    };
    if let Some(phase) = Path::new(called).file_stem().and_then(|name| find(name, Phase::executable)) {
        return Choice::Phase(phase, 0);
    }
    let Some(first) = arguments.first() else { return Choice::Nothing };
    match first.to_str() {
        Some("-version" | "--version") => return Choice::Version,
        Some("-h" | "-help" | "--help") => return Choice::Help,
        _ => {}
    }
    let name = Path::new(first).file_name().unwrap_or(first);
    match find(name, Phase::verb) {
        Some(phase) => Choice::Phase(phase, 1),
        None => Choice::Unknown(name.to_string_lossy().into_owned()),
    }
}

fn nothing_chosen() -> Failure {
    Failure { help: Some(lifecycle_usage()), ..Failure::arguments("failed to parse arguments") }
}

fn unknown_phase(name: &str) -> Failure {
    let valid = Phase::ALL.map(Phase::verb).join(", ");
    Failure::arguments(format!("failed to recognize phase: {name} \nValid phases: {valid}"))
}

fn lifecycle_usage() -> String {
    let phases = Phase::ALL.map(|phase| format!("  {:<8} {}\n", phase.verb(), phase.about())).concat();
    format!("lifecycle <phase> [<flags>] [<arguments>], or lifecycle -version. Phases:\n{phases}")
}

/// What a command line asks for.
enum Request {
    Help(String),
    Version,
    Perform(Box<(Options, Console)>),
}

fn run_phase(phase: Phase, arguments: &[OsString], env: Env) -> u8 {
    let before_flags = Console::new(Threshold::default(), refuses_colour(&env));
    match read(phase, arguments, env) {
        Ok(Request::Help(text)) => before_flags.usage(&text),
        Ok(Request::Version) => before_flags.answer(&version()),
        Ok(Request::Perform(asked)) => {
            let (options, console) = &*asked;
            return perform(phase, options, console);
        }
        Err(failure) => return report(&before_flags, &failure),
    }
    0
}

fn report(console: &Console, failure: &Failure) -> u8 {
    console.failure(failure);
    failure.code
}

fn read(phase: Phase, arguments: &[OsString], env: Env) -> Result<Request, Failure> {
    let platform_api = platform_api(&env);
    let shown = platform_api.as_ref().copied().unwrap_or(PlatformApi::NEWEST);
    let mut command = command(phase, shown, args::offers(phase));
    let command_line = CommandLine::parse(&command, arguments);
    // To ask for help or for the version takes no Platform API.
    let platform_api = match platform_api {
        Err(failure) if !command_line.as_ref().is_ok_and(asks) => return Err(failure),
        api => api.unwrap_or(shown),
    };
    let command_line =
        command_line.map_err(|error| Failure::usage(error, format!("`{phase} -help` lists all flags")))?;
    let failure = |error: Error| Failure::new(phase, &error);
    if command_line.switch(&flag::HELP).map_err(|error| failure(error.into()))? {
        return Ok(Request::Help(command.render_help().to_string()));
    }
    if command_line.switch(&flag::VERSION).map_err(|error| failure(error.into()))? {
        return Ok(Request::Version);
    }
    let working_dir = std::env::current_dir().map_err(|error| {
        let cause = anyhow::Error::new(error).context("failed to find out the working directory");
        failure(Error::new(Kind::General, cause))
    })?;
    let options =
        Options { phase, platform_api, env, command_line, working_dir, current_user: User::current() };
    let colour_refused = options.switch(&flag::NO_COLOR).map_err(|error| failure(error.into()))?
        || refuses_colour(&options.env);
    let threshold = options.threshold().map_err(failure)?;
    let console = Console::new(threshold, colour_refused);
    let console = if options.build_log().is_some() { console.recording(phase) } else { console };
    Ok(Request::Perform(Box::new((options, console))))
}

/// Whether the command line asks for something that a phase need not be run for.
fn asks(command_line: &CommandLine) -> bool {
    [&flag::HELP, &flag::VERSION].into_iter().any(|flag| command_line.switch(flag) == Ok(true))
}

/// The Platform API that the platform says it speaks.
fn platform_api(env: &Env) -> Result<PlatformApi, Failure> {
    let text = env.value(env::PLATFORM_API).map(|value| value.text.to_string_lossy().into_owned());
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
        return Err(Failure::platform_api(format!(
            "failed to get platform API version; please set '{}' to specify the desired platform API version",
            env::PLATFORM_API,
        )));
    };
    text.parse().map_err(|error: ApiError| {
        Failure::platform_api(match error {
            ApiError::Malformed { .. } => error.to_string(),
            ApiError::Unsupported { .. } => format!("failed to set platform API: {error}"),
        })
    })
}

/// Whether variables alone refuse colour. A value that cannot be read refuses it too: this is for the message about it.
fn refuses_colour(env: &Env) -> bool {
    env.value(env::NO_COLOR_ANYWHERE).is_some()
        || env.value(env::NO_COLOR).is_some_and(|value| value.boolean() != Ok(false))
}

/// Runs the phase; returns the exit code.
fn perform(phase: Phase, options: &Options, log: &Console) -> u8 {
    let signals = match Signals::handle_alone().context("failed to handle signals") {
        Ok(signals) => signals,
        Err(error) => return report(log, &Failure::new(phase, &error.into())),
    };
    let failure = attempt(phase, options, &signals, log).err();
    let code = failure.as_ref().map_or(0, |failure| report(log, failure));
    log.end_log(code);
    if let Some(signal) = failure.and_then(|failure| failure.signal()) {
        signals.raise(signal);
    }
    code
}

fn attempt(phase: Phase, options: &Options, signals: &Signals, log: &Console) -> Result<(), Failure> {
    for operand in options.command_line.operands() {
        let text = operand.to_string_lossy();
        if text.starts_with('-') {
            log.warn(&format!("`{text}` is not read as a flag: flags come before the first argument"));
        }
    }
    log.debug(&format!("Starting {phase}..."));
    log.debug("Parsing inputs...");
    let failure = |error: Error| Failure::new(phase, &error);
    match phase {
        Phase::Analyze => begin_reading(options, args::analyze::resolve(options, log), log)
            .and_then(|inputs| analyze(&inputs, log)),
        Phase::Detect => begin(options, args::detect::resolve(options), log)
            .and_then(|inputs| detect(&inputs, signals, log).map(drop)),
        Phase::Restore => begin_reading(options, args::restore::resolve(options, log), log)
            .and_then(|inputs| restore(&inputs, log)),
        Phase::Extend => return extend(options, signals, log),
        Phase::Build => begin(options, args::build::resolve(options), log)
            .and_then(|inputs| build(&inputs, signals, log).map(drop)),
        Phase::Export => begin_reading(options, args::export::resolve(options, log), log)
            .and_then(|inputs| export(&inputs, log).map(drop)),
        Phase::Create => {
            // What is wrong before the first phase is told as that phase tells it.
            let inputs = begin_reading(options, args::create::resolve(options, log), log)
                .map_err(|error| Failure::new(Phase::Analyze, &error))?;
            return create(&inputs, signals, log);
        }
        Phase::Rebase => begin_reading(options, args::rebase::resolve(options, log), log)
            .and_then(|inputs| rebase(&inputs, log).map(drop)),
    }
    .map_err(failure)
}

/// The same for a phase that reads images: those that only root may read are opened before root is dropped.
fn begin_reading<I: ReadsImages>(
    options: &Options,
    task: Result<Task<I>, Error>,
    log: &Console,
) -> Result<I, Error> {
    let task = task?;
    let layouts = task.inputs.as_ref().map(I::layouts).unwrap_or_default();
    let early = task.privileges.open_early(&layouts);
    let mut inputs = begin(options, Ok(task), log)?;
    inputs.keep(&early);
    Ok(inputs)
}

/// Deals with privileges, and hands out what the phase works on.
fn begin<I>(options: &Options, task: Result<Task<I>, Error>, log: &Console) -> Result<I, Error> {
    let task = task?;
    log.debug("Ensuring privileges...");
    task.privileges.ensure(options.phase, &|text| log.warn(text))?;
    match options.build_log() {
        // That of the creator lies in the image's layout, as long as it runs.
        Some(Kept::BesideImage { .. }) if options.phase == Phase::Create => {}
        Some(kept) => log.keep_log(|| LogFile::of_phase(&kept, options.phase)),
        None => {}
    }
    log.debug("Executing command...");
    task.inputs
}

/// Runs all phases; a failure is that of the phase in which it happened.
fn create(inputs: &create::Inputs, signals: &Signals, log: &Console) -> Result<(), Failure> {
    let output = &inputs.export.output;
    // Unless it goes to a file, which was opened before.
    log.keep_log(|| LogFile::of_image(&output.layout_dir, &output.names[0]));
    create::create(inputs, signals, log).map(drop).map_err(|(step, error)| Failure::new(step.into(), &error))
}

/// Extends an image; in the build image, the buildpacks run then, and a failure of theirs is the builder's. Where a platform runs them, it
/// gets the image's variables, each with a NUL after it.
fn extend(options: &Options, signals: &Signals, log: &Console) -> Result<(), Failure> {
    let failure = |error: Error| Failure::new(Phase::Extend, &error);
    let args = begin(options, args::extend::resolve(options), log).map_err(failure)?;
    args.check_user().map_err(failure)?;
    let extended = extend::extend(&args.extend, signals, log).map_err(failure)?;
    if args.extend.kind == ExtendKind::Run {
        return Ok(());
    }
    if let Some(path) = &args.env_file {
        let text: String = extended.env.iter().flat_map(|pair| [pair, "\0"]).collect();
        return file::write(path, text.as_bytes()).map_err(|error| failure(error.into()));
    }
    let volumes = vec![args.extend.layers_dir.clone()];
    let privileges = Privileges::Drop { user: args.user, volumes, outputs: None };
    privileges.ensure(Phase::Extend, &|text| log.warn(text)).map_err(failure)?;
    let account = Account::of(args.user.uid).map_err(failure)?;
    let inputs = args.into_build(&extended.env, &account.home, &account.name);
    build(&inputs, signals, log).map(drop).map_err(|error| Failure::new(Phase::Build, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_chosen_by_name_or_first_argument() {
        let unknown = |name: &str| Choice::Unknown(name.to_owned());
        for (called, arguments, want) in [
            ("/cnb/lifecycle/analyzer", &[][..], Choice::Phase(Phase::Analyze, 0)),
            ("exporter.exe", &["export"], Choice::Phase(Phase::Export, 0)),
            ("creator", &["-version"], Choice::Phase(Phase::Create, 0)),
            ("/cnb/lifecycle/lifecycle", &["detect", "-app", "x"], Choice::Phase(Phase::Detect, 1)),
            ("lifecycle", &["/some/rebase"], Choice::Phase(Phase::Rebase, 1)),
            ("analyze", &["create"], Choice::Phase(Phase::Create, 1)),
            ("lifecycle", &["-version"], Choice::Version),
            ("lifecycle", &["--help"], Choice::Help),
            ("lifecycle", &[], Choice::Nothing),
            ("", &[], Choice::Nothing),
            ("lifecycle", &["analyzer"], unknown("analyzer")),
            ("lifecycle", &[""], unknown("")),
            ("lifecycle", &["-v"], unknown("-v")),
        ] {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            assert_eq!(choose(OsStr::new(called), &arguments), want, "{called} {arguments:?}");
        }
        assert_eq!(
            unknown_phase("foo").message,
            "failed to recognize phase: foo \nValid phases: detect, analyze, restore, build, export, rebase, create, extend"
        );
    }

    #[test]
    fn colour_may_be_refused_by_variables() {
        for (name, value, want) in [
            ("NO_COLOR", "0", true),
            ("NO_COLOR", "", false),
            ("CNB_NO_COLOR", "true", true),
            ("CNB_NO_COLOR", "false", false),
            ("CNB_NO_COLOR", "nonsense", true),
        ] {
            assert_eq!(refuses_colour(&Env::from_iter([(name, value)])), want, "{name}={value}");
        }
    }
}
