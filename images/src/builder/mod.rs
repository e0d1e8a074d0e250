//! Builders, and the buildpacks that they are made of: [`create`](mod@create), [`inspect`](mod@inspect),
//! [`package`](mod@package), [`skeleton`]; and what one build has besides its builder: [`given`] buildpacks, and the source of the
//! app ([`place`], [`selection`]).
//!
//! Images are what `pack` makes of the same files: the same folders, labels and owners. All that they consist of belongs to
//! root (but for the folders that builds write to), has one time of modification and one of two modes, so the same inputs
//! give the same digest, whoever runs this.
//!
//! Buildpacks and archives are untrusted: links are kept and not followed, and what would reach out of a folder is refused.
//! Limits:
//!
//! | what | limit |
//! |---|---|
//! | `builder.toml`, `package.toml`, `buildpack.toml`, `lifecycle.toml` | [`MAX_DOCUMENT`] bytes each |
//! | files of a buildpack, a lifecycle or a source | [`MAX_FILES`] |
//! | bytes in them | [`MAX_BYTES`] |
//!
//! Specification: `platform.md` § Build Image, `distribution.md`.

pub mod create;
pub mod given;
pub mod inspect;
mod layers;
mod lifecycle;
mod module;
mod order;
pub mod package;
pub mod place;
pub mod selection;
pub mod skeleton;
mod tree;
mod zip;

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use drydock_io::lock::Identity;
use drydock_model::platform::Platform;
use drydock_spec::toml_text;
use serde::de::DeserializeOwned;

pub use tree::{MAX_BYTES, MAX_FILES};

use crate::flatten;

/// A document may have so many bytes.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// When everything was made, as buildpacks have it.
const CREATED: &str = "1980-01-01T00:00:01Z";

/// How an image is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// What it runs on.
    pub platform: Platform,
    /// How its layers are written.
    pub write: flatten::Options,
    /// What is no part of a buildpack's folder though it lies there: the file that a package is written to.
    pub without: Vec<Identity>,
}

/// What a file asks for, and cannot be.
#[derive(Debug, thiserror::Error)]
#[error("`{}`: {key} {reason}", file.display())]
pub struct Wrong {
    /// The file.
    pub file: PathBuf,
    /// Where in it: `order[0].group[1].id`.
    pub key: String,
    /// What is wrong with the value.
    pub reason: String,
}

impl Wrong {
    fn new(file: &Path, key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { file: file.to_owned(), key: key.into(), reason: reason.into() }
    }
}

/// Reads a document that is a file of a folder or an archive.
fn read_document(name: &str, contents: &mut dyn Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    contents.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        bail!("`{name}` has more than {MAX_DOCUMENT} bytes");
    }
    Ok(bytes)
}

/// Reads a document on the disk.
fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let failed = || format!("cannot read `{}`", path.display());
    let text = drydock_io::read::read_to_string(path, MAX_DOCUMENT).with_context(failed)?;
    toml_text::from_str(&text).with_context(failed)
}
