//! Flags as Go's standard library reads them, on top of clap: `-flag value`, `-flag=value`, `--flag value`; switches
//! bare or with `=value`; nothing after the first argument without a dash, or after `--`, is a flag.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use drydock_spec::api::PlatformApi;

use super::flag::{COMMON, Flag, Form, Offer};
use crate::phase::Phase;
use crate::value::{Value, ValueError, non_empty};

const OPERANDS: &str = "operands";

/// A command line that was read.
#[derive(Debug)]
pub struct CommandLine {
    matches: ArgMatches,
}

/// A flag that does not exist or lacks its value. The message ends with how to call the phase.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

impl UsageError {
    /// In the words of Go's library, which platforms' users know.
    fn new(error: &clap::Error, command: &Command) -> Self {
        let flag = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(name)) => name.split('=').next().unwrap_or(name).replacen("--", "-", 1),
            _ => String::new(),
        };
        let what = match error.kind() {
            ErrorKind::UnknownArgument => format!("flag provided but not defined: {flag}"),
            _ => format!("flag needs an argument: {flag}"),
        };
        Self(format!("{what}\n{}", command.clone().render_usage()))
    }
}

impl CommandLine {
    /// Reads the arguments that follow the executable's name.
    pub fn parse(command: &Command, arguments: &[OsString]) -> Result<Self, UsageError> {
        match command.clone().try_get_matches_from(spelled_for_clap(command, arguments)) {
            Ok(matches) => Ok(Self { matches }),
            Err(error) => Err(UsageError::new(&error, command)),
        }
    }

    /// The values given with a flag, without empty ones. A switch that is given bare has the value `true`.
    pub fn values(&self, flag: &Flag) -> impl Iterator<Item = Value> {
        // A flag that this phase or this Platform API does not have was not given.
        let given = self.matches.try_get_many::<OsString>(flag.name).unwrap_or_default();
        given.into_iter().flatten().filter_map(|text| non_empty(format!("-{}", flag.name), text))
    }

    /// Whether a switch is given, and not with `=false`.
    pub fn switch(&self, flag: &Flag) -> Result<bool, ValueError> {
        self.values(flag).last().map_or(Ok(false), |value| value.boolean())
    }

    /// What follows the flags.
    pub fn operands(&self) -> Vec<OsString> {
        self.matches.get_many(OPERANDS).into_iter().flatten().cloned().collect()
    }
}

/// How to call a phase.
pub fn command(phase: Phase, api: PlatformApi, offers: &[Offer]) -> Command {
    let mut flags: Vec<Flag> =
        COMMON.iter().chain(offers).filter(|offer| offer.is_in(api)).map(|offer| offer.flag).collect();
    flags.sort_by_key(|flag| flag.name);
    let operands = Arg::new(OPERANDS).num_args(0..).hide(true).value_parser(value_parser!(OsString));
    Command::new(phase.executable())
        .about(format!(
            "The {phase} {}.\nFlags of Platform API {api}. They may have one dash or two, and come before arguments.",
            phase.about()
        ))
        .override_usage(phase.usage())
        .help_template("{about}\n\nUsage: {usage}\n\n{options}")
        .disable_help_flag(true)
        .args_override_self(true)
        .args(flags.iter().map(argument))
        .arg(operands)
}

fn argument(flag: &Flag) -> Arg {
    let default =
        if flag.default.is_empty() { String::new() } else { format!(" [default: {}]", flag.default) };
    let variable = flag.variable.map_or(String::new(), |name| format!(" [{name}]"));
    let argument = Arg::new(flag.name)
        .long(flag.name)
        .help(format!("{}{variable}{default}", flag.about))
        .require_equals(true)
        .value_parser(value_parser!(OsString));
    match flag.form {
        Form::Switch => argument.value_name("true|false").num_args(0..=1).default_missing_value("true"),
        Form::One(value) => argument.value_name(value).num_args(1),
        Form::Many(value) => argument.value_name(value).num_args(1).action(ArgAction::Append),
    }
}

/// The same arguments with two dashes, every value after `=`, and `--` where the flags end.
fn spelled_for_clap(command: &Command, arguments: &[OsString]) -> Vec<OsString> {
    let wants_value = |name: &OsStr| {
        let flag = command.get_arguments().find(|a| a.get_long().is_some_and(|long| name == long));
        flag.and_then(Arg::get_num_args).is_some_and(|count| count.min_values() > 0)
    };
    let mut spelled = vec![command.get_name().into()];
    let mut rest = arguments.iter();
    let mut operands = rest.clone();
    while let Some(argument) = rest.next() {
        let bytes = argument.as_bytes();
        if bytes == b"--" {
            operands = rest.clone();
            break;
        }
        if bytes == b"-" || !bytes.starts_with(b"-") {
            break;
        }
        let name = bytes.strip_prefix(b"--").unwrap_or(&bytes[1..]);
        let name = if name == b"h" { b"help" } else { name };
        let mut flag = [b"--", name].concat();
        if wants_value(OsStr::from_bytes(name))
            && let Some(value) = rest.next()
        {
            flag.push(b'=');
            flag.extend_from_slice(value.as_bytes());
        }
        spelled.push(OsString::from_vec(flag));
        operands = rest.clone();
    }
    spelled.push("--".into());
    spelled.extend(operands.cloned());
    spelled
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::flag::{self, always, since, until};
    use super::*;

    const OFFERS: &[Offer] = &[
        always(flag::LAYERS),
        always(flag::UID),
        always(flag::DAEMON),
        always(flag::TAG),
        since(9, flag::SKIP_LAYERS),
        until(11, flag::STACK),
    ];

    fn read(api: &str, arguments: &[&str]) -> Result<CommandLine, UsageError> {
        let command = command(Phase::Analyze, api.parse().unwrap(), OFFERS);
        CommandLine::parse(&command, &arguments.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_is_sound() {
        command(Phase::Analyze, PlatformApi::NEWEST, OFFERS).debug_assert();
    }

    #[test]
    fn every_way_to_write_a_flag() {
        for (arguments, flag, want, operands) in [
            (&["-layers", "/l", "app"][..], flag::LAYERS, &["/l"][..], &["app"][..]),
            (&["-layers=/l", "app"], flag::LAYERS, &["/l"], &["app"]),
            (&["--layers", "/l"], flag::LAYERS, &["/l"], &[]),
            (&["--layers=/l=m"], flag::LAYERS, &["/l=m"], &[]),
            (&["-layers", "/a", "-layers", "/b"], flag::LAYERS, &["/b"], &[]),
            (&["-layers", "", "app"], flag::LAYERS, &[], &["app"]),
            (&["-layers=", "app"], flag::LAYERS, &[], &["app"]),
            (&["-layers", "--", "app"], flag::LAYERS, &["--"], &["app"]),
            (&["-uid", "-1"], flag::UID, &["-1"], &[]),
            (&["-daemon", "app"], flag::DAEMON, &["true"], &["app"]),
            (&["-daemon=false", "app"], flag::DAEMON, &["false"], &["app"]),
            (&["--daemon=T"], flag::DAEMON, &["T"], &[]),
            (&["-daemon", "false"], flag::DAEMON, &["true"], &["false"]),
            (&["-daemon="], flag::DAEMON, &[], &[]),
            (&["-tag", "a", "--tag=b", "-tag="], flag::TAG, &["a", "b"], &[]),
            (&["app", "-layers", "/l"], flag::LAYERS, &[], &["app", "-layers", "/l"]),
            (&["--", "-layers", "/l"], flag::LAYERS, &[], &["-layers", "/l"]),
            (&["-", "--"], flag::LAYERS, &[], &["-", "--"]),
            (&["", "-x"], flag::LAYERS, &[], &["", "-x"]),
            (&["-h"], flag::HELP, &["true"], &[]),
            (&["--help"], flag::HELP, &["true"], &[]),
            (&[], flag::LAYERS, &[], &[]),
        ] {
            let got = read("0.14", arguments).unwrap();
            let values: Vec<_> = got.values(&flag).map(|v| v.text).collect();
            assert_eq!(values, want, "{arguments:?}");
            assert_eq!(got.operands(), operands, "{arguments:?}");
        }
    }

    #[test]
    fn what_is_no_flag_is_told_with_usage() {
        for (arguments, want) in [
            (&["-nonsense"][..], "flag provided but not defined: -nonsense"),
            (&["--nonsense=1"], "flag provided but not defined: -nonsense"),
            (&["-layers"], "flag needs an argument: -layers"),
            (&["-layers=/l", "-uid"], "flag needs an argument: -uid"),
            (&["---layers", "/l"], "flag provided but not defined: --layers"),
            (&["-=x"], "flag provided but not defined: -"),
            (&["-l", "/l"], "flag provided but not defined: -l"),
            (&["-layer", "/l"], "flag provided but not defined: -layer"),
        ] {
            let error = read("0.14", arguments).unwrap_err().to_string();
            assert_eq!(error, format!("{want}\nUsage: analyzer [<flags>] <image>"), "{arguments:?}");
        }
    }

    proptest! {
        #[test]
        fn any_arguments_are_read_or_refused(arguments in prop::collection::vec("-{0,3}(layers|tag|daemon|h|x)?=?.{0,3}", 0..6)) {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            if let Ok(read) = read("0.14", &arguments) {
                let operands = read.operands();
                prop_assert!(arguments.iter().map(OsString::from).collect::<Vec<_>>().ends_with(&operands));
            }
        }
    }

    #[test]
    fn flags_come_and_go_with_versions() {
        for (api, skip_layers, stack) in [
            ("0.7", false, true),
            ("0.8", false, true),
            ("0.9", true, true),
            ("0.11", true, true),
            ("0.12", true, false),
        ] {
            assert_eq!(read(api, &["-skip-layers"]).is_ok(), skip_layers, "{api}");
            assert_eq!(read(api, &["-stack", "x"]).is_ok(), stack, "{api}");
            let got = read(api, &["app"]).unwrap();
            assert_eq!(got.values(&flag::SKIP_LAYERS).count() + got.values(&flag::STACK).count(), 0);
        }
    }

    #[test]
    fn help_lists_flag_variable_and_default() {
        let help = command(Phase::Analyze, PlatformApi::NEWEST, OFFERS).render_help().to_string();
        for part in [
            "--layers=<path>",
            "[CNB_LAYERS_DIR]",
            "[default: /layers]",
            "--daemon[=<true|false>]",
            "--log-level",
        ] {
            assert!(help.contains(part), "{part}: {help}");
        }
        assert!(!help.contains("--stack"), "{help}");
    }
}
