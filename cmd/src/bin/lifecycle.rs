//! Every phase in one executable: the one that it is called by the name of, or else that its first argument names.

use std::process::ExitCode;

fn main() -> ExitCode {
    drydock::lifecycle()
}
