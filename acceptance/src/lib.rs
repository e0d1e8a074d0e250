//! What the acceptance tests are made of: recorded scenarios and the means to run the real executables on them, and a
//! judgement of image layouts that shares no code with the crates under test.
//!
//! A scenario is a folder ([`scenario`]). Its trees are laid out in a temporary folder ([`stage`]) in which each step
//! runs as in a container ([`run`]), with executables that were just built ([`executables`]), or as
//! they ship ([`packaged`]). What a step left behind becomes a value ([`snapshot`]), and two values are compared
//! ([`compare`]).
//!
//! Where a test needs no recording, it makes its own build ([`project`]).
//!
//! Beside that stand whole builds of apps ([`app_build`]), those that `drydock build` makes ([`sandboxed`]), a full check of a layout ([`layout`]), other people's tools ([`tools`]), trees of files as values
//! ([`tree`]) and a run image made on the spot ([`run_image`]).
//!
//! The tests change owners and mount folders. As an ordinary user they run in a user namespace ([`namespace`]).

pub mod app_build;
pub mod compare;
pub mod executables;
pub mod faults;
pub mod layout;
pub mod namespace;
pub mod packaged;
pub mod power;
pub mod project;
pub mod run;
pub mod run_image;
pub mod sandboxed;
pub mod scenario;
pub mod snapshot;
pub mod stage;
pub mod tools;
pub mod trace;
pub mod tree;

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// A folder or file of this package, by its path in the package.
pub fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The SHA-256 of `bytes` in the form `sha256:` and 64 hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    print_sha256(Sha256::digest(bytes).as_slice())
}

fn print_sha256(hash: &[u8]) -> String {
    use std::fmt::Write as _;
    hash.iter().fold(String::from("sha256:"), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes whatever is written to it");
        text
    })
}
