//! What is fuzzed. A target panics when something does not hold.

mod archives;
mod compression;
mod deflate;
mod dockerfile;
mod ignore;
mod json;
mod reference;
mod registry;
mod sources;
mod tar;
mod toml;
mod variables;

use std::path::Path;

/// Something that takes input from outside.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Inputs have at most so many bytes.
    pub(crate) longest: usize,
    /// What is worth being inserted.
    pub(crate) words: &'static [&'static [u8]],
    /// Whether a file of the acceptance tests, with these contents, is good input.
    pub(crate) can_use: fn(&Path, &[u8]) -> bool,
    /// Says what came of an input: the same for the same kind of outcome.
    pub(crate) run: fn(&[u8]) -> String,
}

pub(crate) const TARGETS: [Target; 12] = [
    reference::TARGET,
    json::TARGET,
    toml::TARGET,
    compression::TARGET,
    deflate::TARGET,
    tar::TARGET,
    archives::TARGET,
    dockerfile::TARGET,
    ignore::TARGET,
    variables::TARGET,
    sources::TARGET,
    registry::TARGET,
];

/// A number's logarithm as a letter: outcomes are compared without their digits.
fn roughly(number: usize) -> char {
    char::from(b'a' + number.checked_ilog2().map_or(0, |log| log.to_le_bytes()[0] + 1))
}
