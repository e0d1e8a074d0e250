//! What can be started, from all buildpacks together.

use std::collections::BTreeMap;

use drydock_spec::api::PlatformApi;
use drydock_spec::launch::Process;
use drydock_spec::launch_toml::LaunchProcess;

/// Processes by their type, and which of them is the default.
#[derive(Debug, Default)]
pub(super) struct Processes {
    by_type: BTreeMap<String, Process>,
    default: Option<String>,
}

impl Processes {
    /// Adds those of one buildpack. A later process takes the place of an earlier one of its type, and a later default
    /// that of an earlier default. Returns the type that lost its being the default to a process that is none.
    pub(super) fn add(&mut self, processes: Vec<LaunchProcess>) -> Option<String> {
        let mut demoted = None;
        for LaunchProcess { process, default } in processes {
            if default {
                self.default = Some(process.r#type.clone());
                demoted = None;
            } else if self.default.as_ref() == Some(&process.r#type) {
                demoted = self.default.take();
            }
            self.by_type.insert(process.r#type.clone(), process);
        }
        demoted
    }

    /// All of them in byte order of their types, in a Platform API's form, and the default's type.
    pub(super) fn finish(self, api: PlatformApi) -> (Vec<Process>, String) {
        let processes = self.by_type.into_values().map(|process| process.for_platform(api)).collect();
        (processes, self.default.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use drydock_spec::launch::Command;

    use super::*;

    /// `*web=x`: a default process of type `web` with the command `x`.
    fn process(text: &str) -> LaunchProcess {
        let (r#type, command) = text.trim_start_matches('*').split_once('=').unwrap();
        let command = Command::List(command.split(' ').map(Into::into).collect());
        let process = Process { r#type: r#type.into(), command, ..Process::default() };
        LaunchProcess { process, default: text.starts_with('*') }
    }

    #[test]
    fn buildpacks_add_and_replace() {
        for (buildpacks, expected, default, demoted) in [
            (&[][..], "", "", None),
            (&[&["web=a", "job=b"][..]], "job=b web=a", "", None),
            (&[&["*web=a"], &["job=b"]], "job=b web=a", "web", None),
            (&[&["*web=a"], &["*job=b"]], "job=b web=a", "job", None),
            (&[&["*web=a"], &["*web=b"]], "web=b", "web", None),
            (&[&["*web=a"], &["web=b"]], "web=b", "", Some("web")),
            (&[&["*web=a"], &["web=b", "*job=c"]], "job=c web=b", "job", None),
            (&[&["*web=a"], &["web=b"], &["job=c"]], "job=c web=b", "", None),
            (&[&["=a"]], "=a", "", None),
        ] {
            let mut processes = Processes::default();
            let mut found_demoted = None;
            for list in buildpacks {
                found_demoted = processes.add(list.iter().map(|text| process(text)).collect());
            }
            let (list, found) = processes.finish(PlatformApi::minor(9));
            let list: Vec<_> = list
                .iter()
                .map(|process| {
                    let Command::Text(command) = &process.command else { panic!("{process:?}") };
                    format!("{}={command}", process.r#type)
                })
                .collect();
            assert_eq!((list.join(" ").as_str(), found.as_str()), (expected, default), "{buildpacks:?}");
            assert_eq!(found_demoted.as_deref(), demoted, "{buildpacks:?}");
        }
    }

    #[test]
    fn the_form_is_the_platforms() {
        let form = |api| {
            let mut processes = Processes::default();
            processes.add(vec![process("web=a b")]);
            let (mut list, _) = processes.finish(PlatformApi::minor(api));
            let Process { command, args, .. } = list.remove(0);
            (command, args)
        };
        assert_eq!(form(9), (Command::Text("a".into()), Some(vec!["b".into()])));
        assert_eq!(form(10), (Command::List(vec!["a".into(), "b".into()]), None));
    }
}
