//! The launcher: sets up the environment of an app image's process, and becomes that process.
//!
//! Everything that is decided is decided here, apart from the operating system, which is behind [`System`]. The
//! executable (`main.rs`, `linux.rs`, `bare/`) adds that, an entry point and an allocator. Specification:
//! `platform.md` § launcher, `buildpack.md` § Launch.
//!
//! There is no std and no C library: the file is in every app image, so it is small, static, and has as little in it
//! as can be that might need an update one day.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod api;
mod document;
mod error;
mod exec_d;
mod launch;
mod layers;
mod limits;
mod log;
mod lookup;
mod metadata;
mod path;
mod process;
mod shell;
mod system;
mod text;

pub use error::{Errno, Error, IoError, Reason};
pub use launch::run;
pub use system::{Entry, Exit, Finished, Kind, System};
