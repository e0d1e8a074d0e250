//! What is fuzzed. A target panics when something does not hold.

mod archives;
mod builder;
mod compression;
mod credentials;
mod deflate;
mod dockerfile;
mod etc;
mod flags;
mod ignore;
mod image;
mod json;
mod launch;
mod layers;
mod notes;
mod packed;
mod places;
mod project;
mod reference;
mod registry;
mod sbom;
mod silent;
mod sources;
mod tar;
mod toml;
mod upper;
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

pub(crate) const TARGETS: [Target; 25] = [
    reference::TARGET,
    places::TARGET,
    json::TARGET,
    toml::TARGET,
    compression::TARGET,
    deflate::TARGET,
    tar::TARGET,
    archives::TARGET,
    layers::TARGET,
    packed::TARGET,
    image::TARGET,
    notes::TARGET,
    sbom::TARGET,
    builder::TARGET,
    project::TARGET,
    dockerfile::TARGET,
    ignore::TARGET,
    variables::TARGET,
    upper::TARGET,
    etc::TARGET,
    flags::TARGET,
    launch::TARGET,
    sources::TARGET,
    credentials::TARGET,
    registry::TARGET,
];

/// The parts of an input that has several, with a line `====` between them.
fn parts(mut input: &[u8]) -> impl Iterator<Item = &[u8]> {
    const LINE: &[u8] = b"\n====\n";
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let at = input.windows(LINE.len()).position(|bytes| bytes == LINE);
        is_over = at.is_none();
        let (part, rest) = at.map_or((input, &[][..]), |at| (&input[..at], &input[at + LINE.len()..]));
        input = rest;
        Some(part)
    })
}

/// A number's logarithm as a letter: outcomes are compared without their digits.
fn roughly(number: usize) -> char {
    char::from(b'a' + number.checked_ilog2().map_or(0, |log| log.to_le_bytes()[0] + 1))
}
