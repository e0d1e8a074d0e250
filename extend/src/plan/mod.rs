//! What a Dockerfile comes to, before anything is done: the stages that are needed, each with its steps and with the configuration in
//! the end.
//!
//! A file system is nowhere in this: variables and settings depend on the Dockerfile, on the arguments and on the configurations that
//! it begins with, and on nothing that a program does. So whatever is wrong with them is known before anything runs.

mod build;
mod mode;
mod mount;
mod planner;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use drydock_model::config::{History, ImageConfig};
use drydock_model::digest::Digest;
use drydock_model::platform::Platform;

pub use self::build::{Images, PlanError, Wanted};
pub use self::mode::Permissions;
pub use self::mount::{Mount, Sharing};
pub use self::planner::{MAX_PLAN, PREDEFINED};
use crate::language::IgnoreRules;
pub use crate::language::Network;

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

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// All instructions, for the history of the image.
    pub told: Vec<Told>,
    /// The configuration when all is done; layers and history are those that it began with.
    pub config: ImageConfig,
}

impl Plan {
    /// What the image's history says of this: of each instruction, with whether it made a layer, as `makes_layer` tells of the steps
    /// by their number.
    pub fn history(&self, created: Option<&str>, makes_layer: &dyn Fn(usize) -> bool) -> Vec<History> {
        let entry = |told: &Told| History {
            created: created.map(str::to_owned),
            created_by: told.text.clone(),
            empty_layer: !told.step.is_some_and(makes_layer),
            ..History::default()
        };
        self.told.iter().map(entry).collect()
    }
}

/// What the history of an image says of an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The instruction with its variables put in. Of programs it tells the arguments that were given to them, as well: no secret
    /// should be one.
    pub text: String,
    /// Its place in [`Plan::steps`], if it does something to files.
    pub step: Option<usize>,
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
    /// How it reaches other machines: [`PREDEFINED`] arguments that are given, but for those among `env`. No part of what it does.
    pub proxies: BTreeMap<String, String>,
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
    /// The same, with the folders that it is in, from the beginning or from a `/./` on; `**` are any folders.
    WithParents(String),
    /// The Dockerfile itself.
    Text {
        /// What the file is called.
        name: String,
        /// What is in it.
        contents: String,
    },
    /// A download.
    Url {
        /// Its address (`http:` or `https:`), in which arguments may be that are secret.
        url: String,
        /// What the file is called, if the address says it.
        name: Option<String>,
        /// What its contents must have, if that is said.
        checksum: Option<Digest>,
        /// Whether it is unpacked, if it is an archive.
        unpacks: bool,
    },
}
