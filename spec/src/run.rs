//! `run.toml` and `stack.toml`: the run images that a builder knows.
//!
//! Specification: `platform.md` § `run.toml`, § `stack.toml`.

use serde::{Deserialize, Serialize};

use crate::analyzed::StackRunImage;

/// `run.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunToml {
    /// The images, the one to use first.
    pub images: Vec<StackRunImage>,
}

/// `stack.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct StackToml {
    /// The image.
    pub run_image: StackRunImage,
}
