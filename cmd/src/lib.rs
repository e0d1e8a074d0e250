//! What the executables of the lifecycle need beside the phases themselves: flags, environment, log, privileges and
//! exit codes. Each executable is one call of [`run`] or [`lifecycle`].

pub mod args;
pub mod build_log;
pub mod env;
pub mod exit;
pub mod log;
pub mod phase;
pub mod privileges;
mod run;
pub mod value;
mod version;

pub use phase::Phase;
pub use run::{lifecycle, run};
