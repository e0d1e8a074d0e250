//! The language of Dockerfiles, as values: nothing here reads a file or runs anything.
//!
//! [`parse`] makes a [`Dockerfile`] of a text, with the line of each instruction; what is between quotes and behind `$` is left as
//! it stands. [`expand`] puts in the values of variables, when they are known. [`IgnoreRules`] are those of a `.dockerignore`,
//! [`Pattern`]s their words.
//!
//! Specification: the Dockerfile reference of `BuildKit`, without what it calls experimental.

mod arguments;
mod error;
mod ignore;
mod instruction;
mod lines;
mod mount;
mod parse;
mod pattern;
#[cfg(test)]
mod tests;
mod variables;
mod words;

pub use error::SyntaxError;
pub use ignore::IgnoreRules;
pub use instruction::{
    Argument, CommandLine, Copy, Dockerfile, HealthCheck, HereDocument, Instruction, Kind, Network, Run,
    Source, Stage,
};
pub(crate) use lines::here_document;
pub use mount::{MountFlag, MountKind};
pub use parse::{MAX_TEXT, parse, parse_trigger};
pub use pattern::Pattern;
pub use variables::{MAX_MATCHED, MAX_VALUE, expand, expand_text};
