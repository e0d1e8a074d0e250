//! The rebaser.

use std::process::ExitCode;

use drydock::Phase;

fn main() -> ExitCode {
    drydock::run(Phase::Rebase)
}
