//! `config/metadata.toml`: what the builder tells the exporter and the launcher.
//!
//! Specification: `platform.md` § `metadata.toml`.

use serde::{Deserialize, Serialize};

use crate::api::PlatformApi;
use crate::group::GroupElement;
use crate::metadata::Metadata;

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct BuildMetadata {
    /// The process type that the last buildpack with a wish wants to start by default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub buildpack_default_process_type: String,
    /// The bill of materials (before Platform API 0.9).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bom: Vec<BomEntry>,
    /// The buildpacks that took part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub buildpacks: Vec<GroupElement>,
    /// The extensions that took part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<GroupElement>,
    /// Labels for the app image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
    /// What can be started.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<Process>,
    /// Parts of the app that get a layer each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<Slice>,
}

/// A label for the app image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Label {
    /// Its name.
    pub key: String,
    /// Its text.
    pub value: String,
}

/// A part of the app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slice {
    /// Globs.
    pub paths: Vec<String>,
}

/// An entry of the old bill of materials.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BomEntry {
    /// What it is about.
    pub name: String,
    /// Anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// Who says so.
    pub buildpack: GroupElement,
}

/// Something that can be started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Process {
    /// Its name.
    pub r#type: String,
    /// The program, and the arguments that users cannot replace.
    pub command: Command,
    /// Arguments that users can replace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Whether it is started without a shell.
    pub direct: bool,
    /// Whether its buildpack wants it to be the one to start by default.
    #[serde(skip_serializing_if = "crate::is_false")]
    pub default: bool,
    /// Which buildpack defined it.
    pub buildpack_id: String,
    /// Where it runs; in the app directory if empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// The execution environments that it is for; all if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exec_env: Vec<String>,
}

impl Process {
    /// In the form of a Platform API version: before 0.10 the command is one string, and the rest of it goes before
    /// the arguments.
    #[must_use]
    pub fn for_platform(mut self, api: PlatformApi) -> Self {
        if !api.has_command_list() {
            if let Command::List(mut words) = self.command {
                let rest = words.split_off(words.len().min(1));
                self.args = Some(rest.into_iter().chain(self.args.unwrap_or_default()).collect());
                self.command = Command::Text(words.pop().unwrap_or_default());
            }
        } else if let Command::Text(text) = self.command {
            self.command = Command::List(vec![text]);
        }
        self
    }
}

/// A command: one string in old files, a list in newer ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Command {
    /// Before Platform API 0.10.
    Text(String),
    /// From Platform API 0.10 on.
    List(Vec<String>),
}

impl Default for Command {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_command_are_read_and_written() {
        let old: Process = toml::from_str("type='web'\ncommand='sh'\nargs=['-c']").unwrap();
        let new: Process = toml::from_str("type='web'\ncommand=['sh', '-e']\nargs=['-c']").unwrap();
        let words = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (v09, v10) = (PlatformApi::minor(9), PlatformApi::minor(10));
        assert_eq!(old.clone().for_platform(v09), old);
        assert_eq!(new.clone().for_platform(v10), new);
        assert_eq!(old.for_platform(v10).command, Command::List(words(&["sh"])));
        let new = new.for_platform(v09);
        assert_eq!((new.command, new.args), (Command::Text("sh".into()), Some(words(&["-e", "-c"]))));
    }

    #[test]
    fn an_empty_command_is_no_panic() {
        let process = Process::default().for_platform(PlatformApi::minor(7));
        assert_eq!(process.command, Command::Text(String::new()));
    }
}
