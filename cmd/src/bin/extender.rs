//! The extender.

use std::process::ExitCode;

use drydock::Phase;

fn main() -> ExitCode {
    drydock::run(Phase::Extend)
}
