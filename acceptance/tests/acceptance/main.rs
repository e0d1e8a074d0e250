//! All acceptance tests: the recorded scenarios (`scenarios::NAME`) and the tests of this folder's modules.
//!
//! `cargo test -p drydock-acceptance --test acceptance [FILTER]`. Executables are built for release when the first test
//! asks for them.

mod archives;
mod aside;
mod bad_input;
mod bounds;
mod build_logs;
mod building;
mod cache_image;
mod caches;
mod chosen;
mod dockerfile_sources;
mod dockerfiles;
mod drop_in;
mod drydock;
mod extending;
mod extensions;
mod faults;
mod foreign_files;
mod killed;
mod layer_index;
mod leftovers;
mod libcnb;
mod long;
mod messages;
mod node_app;
mod other_run_images;
mod out_of_sight;
mod owners;
mod processes;
mod real_image;
mod rebased;
mod rebuilds;
mod repeated;
mod reused;
mod sandbox;
mod scenarios;
mod store;
mod swapped;
mod tools;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::executables::Executables;
use drydock_acceptance::{here, namespace, project};
use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;

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
    let executables = Arc::new(Built::default());
    let mut trials = scenarios::trials(&executables)?;
    let houses = Arc::new(building::Houses::default());
    trials.extend(drop_in::trials(&houses));
    trials.extend(drydock::trials(&executables));
    trials.extend(tools::trials());
    trials.extend(archives::trials(&executables));
    trials.extend(bad_input::trials(&executables));
    trials.extend(cache_image::trials(&executables));
    trials.extend(caches::trials(&executables));
    trials.extend(aside::trials(&executables));
    trials.extend(dockerfiles::trials(&executables));
    trials.extend(dockerfile_sources::trials(&executables));
    trials.extend(extending::trials(&executables));
    trials.extend(foreign_files::trials(&executables));
    trials.extend(bounds::trials(&executables));
    trials.extend(building::trials(&executables, &houses));
    trials.extend(extensions::trials(&executables, &houses));
    trials.extend(chosen::trials(&executables, &houses));
    trials.extend(sandbox::trials(&executables, &houses));
    trials.extend(rebuilds::trials(&executables, &houses));
    trials.extend(drydock::at_once::builds::trials(&executables, &houses));
    trials.extend(long::trials(&executables, &houses));
    trials.extend(build_logs::trials(&executables));
    trials.extend(faults::trials(&executables, &houses));
    trials.extend(killed::trials(&executables));
    trials.extend(layer_index::trials(&executables));
    trials.extend(other_run_images::trials(&executables));
    trials.extend(out_of_sight::trials(&executables));
    trials.extend(leftovers::trials(&executables));
    trials.extend(libcnb::trials(&executables));
    trials.extend(messages::trials(&executables));
    trials.extend(node_app::trials(&executables));
    trials.extend(owners::trials(&executables));
    trials.extend(processes::trials(&executables));
    trials.extend(real_image::trials(&executables));
    trials.extend(rebased::trials(&executables));
    trials.extend(repeated::trials(&executables));
    trials.extend(reused::trials(&executables));
    trials.extend(store::trials(&executables));
    trials.extend(swapped::trials(&executables));
    trials.push(test("every_module_is_registered", every_module_is_registered));
    Ok(trials)
}

/// The executables, built when the first test needs them; an error stays one.
#[derive(Default)]
struct Built {
    executables: OnceLock<Result<Executables, String>>,
    copy: OnceLock<Result<TempDir, String>>,
}

impl Built {
    /// All of them.
    fn get(&self) -> Result<&Executables> {
        let built =
            self.executables.get_or_init(|| Executables::build().map_err(|error| format!("{error:#}")));
        built.as_ref().map_err(|error| anyhow::anyhow!("build the executables: {error}"))
    }

    /// A folder with a copy that every user can reach: they may have been built in somebody's home.
    fn for_everyone(&self) -> Result<&Path> {
        let from = self.get()?.dir();
        let copy = self.copy.get_or_init(|| copy(from).map_err(|error| format!("{error:#}")));
        copy.as_ref().map(TempDir::path).map_err(|error| anyhow::anyhow!("copy the executables: {error}"))
    }
}

/// A program copies: a file that this process had open for writing could not be started while another thread starts
/// something.
fn copy(executables: &Path) -> Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("drydock-executables-").tempdir().context("make a folder")?;
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).context("open the folder to all")?;
    for name in ["analyzer", "builder", "creator", "detector", "drydock", "exporter", "rebaser", "restorer"] {
        project::succeed(Command::new("cp").arg(executables.join(name)).arg(dir.path()))?;
    }
    Ok(dir)
}

/// One named test. If it takes long, it says so: what could be made faster is known then.
fn test(name: &str, run: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    const LONG: Duration = Duration::from_secs(20);
    let told = name.to_owned();
    let timed = move || {
        let begun = Instant::now();
        let done = run().map_err(|error| Failed::from(format!("{error:#}")));
        #[expect(clippy::print_stderr, reason = "it is for who waits for the tests")]
        if begun.elapsed() > LONG {
            eprintln!("{told} took {} s", begun.elapsed().as_secs());
        }
        done
    };
    Trial::test(name, timed)
}

/// A test that runs the executables.
type Test = fn(&Built) -> Result<()>;

/// Named tests that run the executables.
fn with_executables<const N: usize>(executables: &Arc<Built>, tests: [(&str, Test); N]) -> Vec<Trial> {
    let trial = |(name, run): (&str, Test)| {
        let executables = Arc::clone(executables);
        test(name, move || run(&executables))
    };
    tests.map(trial).into()
}

/// How many rounds a test goes that shows more the longer it goes: `usual`, unless `DRYDOCK_TEST_ROUNDS` says it.
fn rounds(usual: u32) -> Result<u32> {
    #[expect(clippy::disallowed_methods, reason = "for runs by hand, which nothing else reads")]
    match std::env::var("DRYDOCK_TEST_ROUNDS") {
        Ok(text) => text.parse().context("DRYDOCK_TEST_ROUNDS is no number"),
        Err(_) => Ok(usual),
    }
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
