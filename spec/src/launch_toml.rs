//! `launch.toml`: what a buildpack adds to the app image besides layers.
//!
//! Specification: `buildpack.md` § `launch.toml`.

use serde::Deserialize;

use crate::api::BuildpackApi;
use crate::buildpack::ExecEnv;
use crate::launch::{BomEntry, Command, Label, Process, Slice};
use crate::toml_text::{self, TomlError};

/// The file, in the form that is common to all Buildpack APIs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LaunchToml {
    /// The old bill of materials of what the app uses.
    pub bom: Vec<BomEntry>,
    /// Labels for the app image.
    pub labels: Vec<Label>,
    /// What can be started.
    pub processes: Vec<LaunchProcess>,
    /// Parts of the app that get a layer each.
    pub slices: Vec<Slice>,
}

/// Something that can be started, as a buildpack defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchProcess {
    /// It; its command is a list, and its buildpack's ID is still empty.
    pub process: Process,
    /// Whether the buildpack wants it to be what the app image starts by default.
    pub default: bool,
}

/// What is wrong with a `launch.toml`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LaunchTomlError {
    /// It is no TOML, or a key has a value of the wrong type.
    #[error(transparent)]
    Toml(#[from] TomlError),
    /// From Buildpack API 0.9 on, all processes are direct.
    #[error("process.direct is not supported on this buildpack version: remove `direct` from process '{0}'")]
    Direct(String),
    /// The command has the form of another Buildpack API.
    #[error("the command of process '{process}' must be {expected} in Buildpack API {api}")]
    CommandForm {
        /// The process's type.
        process: String,
        /// What it must be.
        expected: &'static str,
        /// The buildpack's API.
        api: BuildpackApi,
    },
    /// There is nothing to start.
    #[error("process '{0}' has no command")]
    NoCommand(String),
    /// Which is the default?
    #[error("multiple default process types aren't allowed")]
    MultipleDefaults,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Written {
    #[serde(deserialize_with = "crate::bom::deserialize")]
    bom: Vec<BomEntry>,
    labels: Vec<Label>,
    processes: Vec<WrittenProcess>,
    slices: Vec<Slice>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct WrittenProcess {
    r#type: String,
    command: Option<Command>,
    args: Option<Vec<String>>,
    direct: Option<bool>,
    default: bool,
    working_dir: String,
    exec_env: Vec<ExecEnv>,
}

impl LaunchToml {
    /// Reads the file of a buildpack that speaks `api`.
    pub fn parse(text: &str, api: BuildpackApi) -> Result<Self, LaunchTomlError> {
        let Written { bom, labels, processes, slices } = toml_text::from_str(text)?;
        let processes: Vec<_> =
            processes.into_iter().map(|process| process.common(api)).collect::<Result<_, _>>()?;
        if processes.iter().filter(|process| process.default).count() > 1 {
            return Err(LaunchTomlError::MultipleDefaults);
        }
        Ok(Self { bom, labels, processes, slices })
    }
}

impl WrittenProcess {
    fn common(self, api: BuildpackApi) -> Result<LaunchProcess, LaunchTomlError> {
        let Self { r#type, command, args, direct, default, working_dir, exec_env } = self;
        if direct.is_some() && api.has_command_list() {
            return Err(LaunchTomlError::Direct(r#type));
        }
        let words = match command {
            Some(Command::List(words)) if api.has_command_list() => words,
            Some(Command::Text(text)) if !api.has_command_list() => vec![text],
            None => Vec::new(),
            Some(_) => {
                let expected = if api.has_command_list() { "a list of strings" } else { "a string" };
                return Err(LaunchTomlError::CommandForm { process: r#type, expected, api });
            }
        };
        if words.is_empty() {
            return Err(LaunchTomlError::NoCommand(r#type));
        }
        let direct = direct.unwrap_or(api.has_command_list());
        let command = Command::List(words);
        let exec_env = exec_env.into_iter().map(|ExecEnv(name)| name).collect();
        let buildpack_id = String::new();
        Ok(LaunchProcess {
            process: Process {
                r#type,
                command,
                args,
                direct,
                default: false,
                buildpack_id,
                working_dir,
                exec_env,
            },
            default,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str, api: &str) -> Result<LaunchToml, LaunchTomlError> {
        LaunchToml::parse(text, api.parse().unwrap())
    }

    fn words(words: &[&str]) -> Command {
        Command::List(words.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn both_forms_of_processes() {
        for (api, text, command, direct) in [
            ("0.7", "command='a b'", words(&["a b"]), false),
            ("0.8", "command='a'\ndirect=true", words(&["a"]), true),
            ("0.8", "command='a'\ndirect=false", words(&["a"]), false),
            ("0.9", "command=['a', 'b']", words(&["a", "b"]), true),
            ("0.12", "command=['a']", words(&["a"]), true),
        ] {
            let launch = parse(&format!("[[processes]]\ntype='web'\n{text}"), api).unwrap();
            let process = &launch.processes[0].process;
            assert_eq!((&process.command, process.direct), (&command, direct), "{api} {text}");
        }
    }

    #[test]
    fn everything_is_read() {
        let text = "[[labels]]\nkey='k'\nvalue='v'\n[[slices]]\npaths=['a', 'b']\n[[processes]]\ntype='web'\n\
            command=['c']\nargs=[]\ndefault=true\nworking-dir='/w'\nexec-env=['test', {name='x'}]\nunknown=1\n\
            [[processes]]\ntype='job'\ncommand=['d']\n[[bom]]\nname='b'";
        let launch = parse(text, "0.12").unwrap();
        assert_eq!(launch.labels, [Label { key: "k".into(), value: "v".into() }]);
        assert_eq!(launch.slices[0].paths, ["a", "b"]);
        assert_eq!(launch.bom[0].name, "b");
        let [web, job] = &launch.processes[..] else { panic!("{launch:?}") };
        assert_eq!((web.default, job.default), (true, false));
        assert_eq!((&web.process.args, &job.process.args), (&Some(Vec::new()), &None));
        assert_eq!(
            (web.process.working_dir.as_str(), &web.process.exec_env[..]),
            ("/w", &["test".into(), "x".into()][..])
        );
        assert_eq!(parse("", "0.7").unwrap(), LaunchToml::default());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (api, text, message) in [
            (
                "0.9",
                "command=['a']\ndirect=true",
                "process.direct is not supported on this buildpack version",
            ),
            (
                "0.9",
                "command='a'",
                "the command of process 'p' must be a list of strings in Buildpack API 0.9",
            ),
            ("0.8", "command=['a']", "the command of process 'p' must be a string in Buildpack API 0.8"),
            ("0.9", "command=[]", "process 'p' has no command"),
            ("0.9", "", "process 'p' has no command"),
            ("0.8", "", "process 'p' has no command"),
            ("0.9", "command=[1]", "command=[1]"),
            ("0.9", "command=['a']\nargs='b'", "args='b'"),
            ("0.9", "command=['a']\ndefault='yes'", "expected a boolean"),
            (
                "0.9",
                "command=['a']\ndefault=true\n[[processes]]\ntype='q'\ncommand=['b']\ndefault=true",
                "multiple default process types aren't allowed",
            ),
            ("0.9", "command", "toml: line 3, column 8: "),
        ] {
            let error = parse(&format!("[[processes]]\ntype='p'\n{text}"), api).unwrap_err().to_string();
            assert!(error.contains(message), "{api} {text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String, api in 7..=12) {
            let _ = parse(&text, &format!("0.{api}"));
        }

        /// Keys that mean something, with values of any kind.
        #[test]
        fn no_value_panics(
            keys in prop::collection::vec(
                prop::sample::select(vec!["type", "command", "args", "direct", "default", "working-dir", "exec-env"]),
                0..5),
            values in prop::collection::vec(
                prop::sample::select(vec!["1", "''", "'a'", "[]", "['a']", "[1]", "{}", "true", "1.5", "[[]]"]), 5),
            api in 7..=12)
        {
            let lines: Vec<_> = keys.iter().zip(&values).map(|(key, value)| format!("{key} = {value}\n")).collect();
            if let Ok(launch) = parse(&format!("[[processes]]\n{}", lines.concat()), &format!("0.{api}")) {
                let Command::List(words) = &launch.processes[0].process.command else { panic!("{launch:?}") };
                prop_assert!(!words.is_empty());
            }
        }
    }
}
