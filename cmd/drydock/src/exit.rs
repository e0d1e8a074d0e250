//! Exit codes, and what is said of failures: what, where, why, and what to do.

use std::io;
use std::process::ExitCode;

use anyhow::Error;
use drydock_images::Unknown;
use drydock_images::import::{Choose, SourceError};
use drydock_images::layer::LayerError;
use drydock_layout::LayoutError;
use drydock_model::reference::ReferenceError;
use drydock_registry::ErrorKind;
use drydock_registry::git::{GitError, InvalidGitAddress};
use drydock_registry::sources::Refused;

use crate::output::{Unwritten, printable};
use crate::progress::eprint_line;

/// Damage, or a difference, was found.
pub(crate) const FOUND: u8 = 1;
/// The command line is not right.
pub(crate) const USAGE: u8 = 2;
/// There is no such image.
const UNKNOWN: u8 = 3;
/// Something else failed.
pub(crate) const FAILED: u8 = 4;

/// The command line is well-formed, and asks for what cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

fn of_registry(error: &drydock_registry::Error) -> (u8, Option<String>) {
    match error.kind {
        ErrorKind::NotFound { .. } => (UNKNOWN, None),
        ref kind if kind.is_damage() => (FOUND, None),
        _ => (FAILED, None),
    }
}

/// What a failure amounts to.
fn classify(error: &Error) -> (u8, Option<String>) {
    // What the system did not let be read may well be whole.
    let is_of_the_system = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.raw_os_error().is_some())
    };
    match find_kind(error) {
        (FOUND, _) if error.chain().any(is_of_the_system) => (FAILED, None),
        found => found,
    }
}

fn find_kind(error: &Error) -> (u8, Option<String>) {
    for cause in error.chain() {
        if let Some(unknown) = cause.downcast_ref::<Unknown>() {
            return (UNKNOWN, Some(propose(unknown)));
        }
        if cause.is::<Usage>() || cause.is::<ReferenceError>() || cause.is::<glob::PatternError>() {
            return (USAGE, None);
        }
        if let Some(error) = drydock_registry::Error::find(cause) {
            return of_registry(error);
        }
        if let Some(Refused::Name { .. }) = cause.downcast_ref() {
            return (USAGE, None);
        }
        if cause.is::<InvalidGitAddress>() {
            return (USAGE, None);
        }
        if let Some(GitError::NoCommit { .. }) = cause.downcast_ref() {
            return (UNKNOWN, None);
        }
        if cause.is::<SourceError>() {
            return (FOUND, Some("nothing was written; get a good copy from where it comes".to_owned()));
        }
        if cause.is::<Choose>() {
            return (UNKNOWN, None);
        }
        if let Some(layout) = cause.downcast_ref::<LayoutError>() {
            return of_layout(layout);
        }
        match cause.downcast_ref::<LayerError>() {
            Some(LayerError::Layout(layout)) => return of_layout(layout),
            Some(_) => return (FOUND, None),
            None => {}
        }
    }
    (FAILED, None)
}

fn of_layout(error: &LayoutError) -> (u8, Option<String>) {
    match error {
        LayoutError::NotFound(_) | LayoutError::NoManifest { .. } => (UNKNOWN, None),
        LayoutError::NoPlatform { .. } => (UNKNOWN, Some("name another one with --platform".to_owned())),
        LayoutError::NamedByDigest(_) => (USAGE, Some("name the new image with a tag".to_owned())),
        LayoutError::Inside { .. } => (USAGE, None),
        LayoutError::MissingBlob { .. } => {
            (FOUND, Some("put the blob there, or import the image again".to_owned()))
        }
        // Without an index, nothing says what is an image there.
        LayoutError::Malformed { path, .. } if path.ends_with("index.json") => {
            let help = "put a good copy of it there, or remove its folder and import the image again";
            (FOUND, Some(help.to_owned()))
        }
        error if error.is_damage() => (FOUND, Some("`drydock verify` tells all that is wrong".to_owned())),
        _ => (FAILED, None),
    }
}

fn propose(unknown: &Unknown) -> String {
    match unknown.similar.as_slice() {
        [] => "`drydock ls` lists what there is; --layout-dir says where".to_owned(),
        similar => {
            let quoted: Vec<String> = similar.iter().map(|name| format!("`{name}`")).collect();
            format!("did you mean {}?", quoted.join(" or "))
        }
    }
}

/// Says why it failed, if it did.
pub(crate) fn code(result: Result<u8, Error>) -> ExitCode {
    let error = match result {
        Ok(code) => return ExitCode::from(code),
        Err(error) => error,
    };
    // Whoever read the answer has enough of it.
    let is_unread = |cause: &(dyn std::error::Error + 'static)| {
        let unwritten = cause.downcast_ref::<Unwritten>();
        unwritten.is_some_and(|Unwritten(error)| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(is_unread) {
        return ExitCode::SUCCESS;
    }
    let (code, help) = classify(&error);
    eprint_line(&format!("error: {}", printable(&format!("{error:#}"))));
    if let Some(help) = help {
        eprint_line(&format!("  help: {}", printable(&help)));
    }
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_read_is_not_called_damaged() {
        let compression = |source: io::Error| {
            let error = SourceError::Compression { path: "x".into(), source };
            classify(&Error::from(error).context("cannot import")).0
        };
        assert_eq!(compression(io::ErrorKind::InvalidData.into()), FOUND);
        assert_eq!(compression(io::Error::from_raw_os_error(5)), FAILED);
    }
}
