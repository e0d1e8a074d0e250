//! The creator.

use std::process::ExitCode;

use drydock::Phase;

fn main() -> ExitCode {
    drydock::run(Phase::Create)
}
