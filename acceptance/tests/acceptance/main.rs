//! All acceptance tests: the recorded scenarios (`scenarios::NAME`) and the tests of this folder's modules.
//!
//! `cargo test -p drydock-acceptance --test acceptance [FILTER]`. Executables are built for release when the first test
//! asks for them.

mod scenarios;
mod tools;

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::{here, namespace};
use libtest_mimic::{Arguments, Failed, Trial};

#[expect(clippy::print_stderr, reason = "what keeps the tests from running at all has no other place")]
fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = namespace::become_root().and_then(|()| trials());
    match trials {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn trials() -> Result<Vec<Trial>> {
    let mut trials = scenarios::trials()?;
    trials.extend(tools::trials());
    trials.push(test("every_module_is_registered", every_module_is_registered));
    Ok(trials)
}

/// One named test.
fn test(name: &str, run: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, || run().map_err(|error| Failed::from(format!("{error:#}"))))
}

/// A file in this folder that `main.rs` does not name would never run.
fn every_module_is_registered() -> Result<()> {
    let folder = here("tests/acceptance");
    for entry in folder.read_dir().context("list this folder")? {
        let name = entry?.file_name().display().to_string();
        let module = name.strip_suffix(".rs").unwrap_or(&name);
        let registered = include_str!("main.rs").lines().any(|line| line == format!("mod {module};"));
        ensure!(module == "main" || registered, "main.rs does not register {name}");
    }
    Ok(())
}
