//! `drydock build` again: cached layers are where they were, and nobody could tell.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{run, succeed};
use drydock_acceptance::sandboxed::{House, Who};
use libtest_mimic::Trial;

use crate::Built;
use crate::building::{GREETER, Houses, with_houses};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>, houses: &Arc<Houses>) -> Vec<Trial> {
    with_houses(
        executables,
        houses,
        [
            ("rebuilds::files_of_cached_layers_are_not_touched", files_of_cached_layers_are_not_touched),
            ("rebuilds::what_was_done_to_kept_layers_is_undone", what_was_done_to_kept_layers_is_undone),
            ("rebuilds::kept_layers_are_out_of_sight", kept_layers_are_out_of_sight),
        ],
    )
}

const EVERYBODY: [Who; 2] = [Who::Root, Who::Ordinary];
const TRUST: [&[&str]; 2] = [&[], &["--trust-builder"]];

fn digest(house: &House) -> Result<String> {
    Ok(house.image()?.descriptor.digest.clone())
}

/// The folders of the layers that were kept.
fn kept(house: &House) -> Result<Vec<PathBuf>> {
    let builds = house.path("home/.cache/drydock/builds");
    let app = fs::read_dir(&builds)?.next().context("an app was built")??.path();
    let layers = fs::read_dir(app.join("kept")).context("layers are kept")?;
    layers.map(|entry| Ok(entry?.path())).collect()
}

/// Builds, and gives the calls that opened, read or removed something.
fn traced(house: &House, further: &[&str]) -> Result<String> {
    let (trace, inner) = (house.path("trace"), house.command(&house.build_arguments(further)?));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-e", "trace=openat,read,pread64,preadv2,unlinkat", "-o"]).arg(&trace);
    strace.arg(inner.get_program()).args(inner.get_args()).current_dir(house.path("")).env_clear();
    strace.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = succeed(&mut strace)?;
    ensure!(output.text().contains("The greeter came back"), "{}", output.text());
    Ok(String::from_utf8_lossy(&fs::read(&trace)?).into_owned())
}

fn files_of_cached_layers_are_not_touched(built: &Built, houses: &Houses) -> Result<()> {
    for who in EVERYBODY {
        for trust in TRUST {
            let house = houses.with_script(built, who, GREETER)?;
            house.built(trust)?;
            let first = digest(&house)?;
            // What is exported in the moment in which it was written is not believed.
            house.built(trust)?;
            for build in 0..2 {
                let trace = traced(&house, trust)?;
                let is_touched = |line: &&str| {
                    line.contains("greeter/bin>, \"greet\"")
                        || (line.contains(".tar>") && line.contains("read"))
                };
                let found: Vec<_> = trace.lines().filter(is_touched).collect();
                ensure!(found.is_empty(), "{who:?} {trust:?}, build {build}: {found:#?}");
                ensure!(digest(&house)? == first, "{who:?} {trust:?}: another image");
            }
            ensure!(kept(&house)?.len() == 1, "{who:?} {trust:?}: {:?}", kept(&house)?);
            fs::write(kept(&house)?[0].join("more"), "")?;
            let trace = traced(&house, trust)?;
            let is_made = trace.lines().any(|line| line.contains("greeter/bin>, \"greet\", O_WRONLY"));
            ensure!(is_made, "{who:?} {trust:?}: a changed layer is not extracted:\n{trace}");
            ensure!(digest(&house)? == first, "{who:?} {trust:?}: another image");
        }
    }
    Ok(())
}

/// By a buildpack whose build fails then, and by somebody between two builds.
fn what_was_done_to_kept_layers_is_undone(built: &Built, houses: &Houses) -> Result<()> {
    const SPOIL: &str = "
        if [ -n \"${SPOIL:-}\" ]; then
            printf '#!/bin/sh\\necho spoilt\\n' >\"$layer/bin/greet\"; touch \"$layer/more\"; exit 9
        fi
    ";
    for who in EVERYBODY {
        for trust in TRUST {
            let house = houses.with_script(built, who, &format!("{GREETER}{SPOIL}"))?;
            house.built(trust)?;
            let first = digest(&house)?;
            let output = house.build(&[&["--env", "SPOIL=1"][..], trust].concat())?;
            ensure!(output.exit != 0, "{who:?} {trust:?}: {}", output.text());
            ensure!(kept(&house)?[0].join("more").exists(), "{who:?} {trust:?}: what failed is not kept");
            house.built(trust)?;
            ensure!(digest(&house)? == first, "{who:?} {trust:?}: what a failed build did is in the image");
            let file = kept(&house)?[0].join("bin/greet");
            let (text, modified) = (fs::read(&file)?, fs::metadata(&file)?.modified()?);
            let mut open = File::options().write(true).open(&file)?;
            open.write_all(&text.to_ascii_uppercase())?;
            open.set_modified(modified)?;
            drop(open);
            house.built(trust)?;
            ensure!(digest(&house)? == first, "{who:?} {trust:?}: what was edited is in the image");
            let output = house.built(&[&["--clear-cache"][..], trust].concat())?;
            ensure!(output.text().contains("Making a greeter"), "{}", output.text());
            ensure!(digest(&house)? == first, "{who:?} {trust:?}: another image");
        }
    }
    Ok(())
}

/// A buildpack sees neither layers of another one, nor what is not restored, nor where they were kept.
fn kept_layers_are_out_of_sight(built: &Built, houses: &Houses) -> Result<()> {
    const LOOK: &str = "find /layers | sort | sed 's/^/sees /'\n";
    const OTHERS: &str = "
        mkdir \"$CNB_LAYERS_DIR/launched\" && printf '[types]\\nlaunch = true\\n' >\"$CNB_LAYERS_DIR/launched.toml\"
        touch \"$CNB_LAYERS_DIR/launched/file\"
    ";
    let script = GREETER.replacen("set -eu\n", &format!("set -eu\n{LOOK}"), 1);
    for who in EVERYBODY {
        let house = houses.with_script(built, who, &format!("{script}{OTHERS}"))?;
        let seen = |further: &[&str]| -> Result<Vec<String>> {
            let text = house.built(further)?.text();
            Ok(text.lines().filter(|line| line.starts_with("sees ")).map(str::to_owned).collect())
        };
        let fresh = seen(&[])?;
        let again = seen(&[])?;
        // As by an extraction.
        ensure!(kept(&house)?.len() == 1, "{who:?}: {:?}", kept(&house)?);
        fs::remove_dir_all(kept(&house)?[0].parent().context("it has a parent")?)?;
        let extracted = seen(&[])?;
        ensure!(again == extracted && again.len() > fresh.len(), "{who:?}: {again:#?}\n{extracted:#?}");
        for trust in TRUST {
            let found = seen(trust)?;
            ensure!(!found.iter().any(|line| line.contains(".kept")), "{who:?} {trust:?}: {found:#?}");
            ensure!(!found.iter().any(|line| line.ends_with("launched")), "{who:?} {trust:?}: {found:#?}");
        }
        // The detector of a builder that is not trusted sees nothing either.
        let spy = tempfile::tempdir()?;
        crate::building::write_buildpack(spy.path(), GREETER)?;
        let detect = spy.path().join("buildpacks/acme_a/1/bin/detect");
        fs::write(&detect, "#!/bin/sh\nif [ -e /layers/.kept ] || [ -e /layers/acme_a ]; then exit 9; fi\n")?;
        let house = houses.house(built, who, spy.path(), &house.path("app"))?;
        for _ in 0..2 {
            let output = run(&mut house.patient(&house.build_arguments(&[])?))?;
            ensure!(output.exit == 0, "{who:?}: {}", output.text());
        }
    }
    Ok(())
}
