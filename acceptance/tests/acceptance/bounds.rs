//! Memory stays bounded whatever the size of a layer, and the benchmark measures all that it is meant to.
//!
//! That the bytes are the same for one core and for all is in `repeated`; for 8 threads, in the pipeline's own tests.

mod sizes;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::here;
use drydock_acceptance::project::{APP_IMAGE, Project, succeed};
use drydock_acceptance::scenario::User;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{Built, with_executables};

const MIB: u64 = 1 << 20;

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    let mut trials = sizes::trials(executables);
    trials.extend(with_executables(
        executables,
        [
            ("bounds::memory_does_not_grow_with_a_layer", memory_does_not_grow_with_a_layer),
            ("bounds::benchmark_has_every_row", benchmark_has_every_row),
            ("bounds::loop_has_every_row", loop_has_every_row),
            ("bounds::repository_has_every_row", repository_has_every_row),
            ("bounds::limits_are_kept_by_small_inputs", limits_are_kept_by_small_inputs),
        ],
    ));
    trials
}

fn memory_does_not_grow_with_a_layer(executables: &Built) -> Result<()> {
    let project = Project::new(executables.get()?.dir(), User::Root)?;
    project.write_layer("big", "launch = true\ncache = true", "")?;
    let mut file = File::create(project.path("layers/acme_a/big/file"))?;
    let block = noise(usize::try_from(MIB)?);
    for _ in 0..300 {
        file.write_all(&block)?;
    }
    project.analyze()?;
    let measure = here("bench/measure.py");
    let measure = measure.to_str().context("the path is UTF-8")?;
    let mut exporter = project.exporter_under(&["python3", "-I", "-S", measure])?;
    let output = succeed(exporter.arg("-cache-dir").arg(project.path("cache")).arg(APP_IMAGE))?;
    let cost: Value = serde_json::from_slice(&output.stdout).context("parse what measure.py printed")?;
    let peak = cost["rss"].as_u64().context("there is a figure for memory")?;
    let bound = (48 + 8 * u64::try_from(available_parallelism()?.get())?) * MIB;
    ensure!(peak <= bound, "peak memory is {} MiB, more than {} MiB", peak / MIB, bound / MIB);
    Ok(())
}

/// Bytes that cannot be compressed, so that every chunk is as large in its compressed form.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes
}

/// A script of the benchmark on small inputs, without a rival.
fn quick(script: &str, executables: &Built, dir: &Path) -> Result<Command> {
    let mut bench = Command::new("python3");
    bench.arg("-B").arg(here("bench").join(script)).args(["--quick", "--json", "--rounds", "1"]);
    bench.arg("--executables").arg(executables.get()?.dir()).arg("--dir").arg(dir);
    bench.env_remove("REFERENCE_LIFECYCLE_DIR");
    Ok(bench)
}

/// Rows that a script prints.
fn rows(bench: &mut Command) -> Result<Value> {
    serde_json::from_slice(&succeed(bench)?.stdout).context("parse what was printed")
}

fn loop_has_every_row(executables: &Built) -> Result<()> {
    let dir = tempfile::tempdir().context("make a folder")?;
    let mut script = quick("loop.py", executables, dir.path())?;
    let result = rows(script.args(["--scene", "both", "--scene", "packages"]))?;
    let rows = result["rows"].as_array().context("there are rows")?;
    // Three builds have four rows, the first has no restorer.
    ensure!(rows.len() == 2 * (3 + 3 * 4), "{} rows", rows.len());
    for row in rows {
        ensure!(row["ours"]["wall"].as_f64().is_some_and(|wall| wall > 0.0), "no time in {row}");
    }
    let own = dir.path().join("own");
    std::fs::create_dir_all(own.join("layer"))?;
    std::fs::write(own.join("layer/file"), "content\n")?;
    let mut script = quick("loop.py", executables, dir.path())?;
    let result = self::rows(script.arg("--layer").arg(own.join("layer")))?;
    ensure!(result["rows"].as_array().is_some_and(|rows| rows.len() == 15), "{result}");
    Ok(())
}

fn limits_are_kept_by_small_inputs(executables: &Built) -> Result<()> {
    let dir = tempfile::tempdir().context("make a folder")?;
    let result = rows(&mut quick("limits.py", executables, dir.path())?)?;
    let rows = result.as_array().context("there are rows")?;
    ensure!(rows.len() == 5 + 2 + 4, "{} rows", rows.len());
    for row in rows.iter().filter(|row| row["unit"] == "MiB") {
        ensure!(row["value"].as_f64() <= row["limit"].as_f64(), "{row}");
    }
    Ok(())
}

fn repository_has_every_row(executables: &Built) -> Result<()> {
    let dir = tempfile::tempdir().context("make a folder")?;
    let mut script = quick("repository.py", executables, dir.path())?;
    let result = rows(script.arg("--drydock").arg(executables.get()?.dir().join("drydock")))?;
    let rows = result.as_array().context("there are rows")?;
    ensure!(rows.len() == 9, "{} rows", rows.len());
    for cost in rows.iter().flat_map(|row| [&row["ours"], &row["theirs"]]) {
        ensure!(cost["wall"].as_f64().is_some_and(|wall| wall > 0.0), "no time in {cost}");
    }
    Ok(())
}

fn benchmark_has_every_row(executables: &Built) -> Result<()> {
    let dir = tempfile::tempdir().context("make a folder")?;
    let plot = dir.path().join("scaling.svg");
    let result = rows(quick("bench.py", executables, dir.path())?.arg("--plot").arg(&plot))?;
    let rows = result["rows"].as_array().context("there are rows")?;
    let mut found = Vec::new();
    for row in rows {
        for who in ["ours", "theirs"] {
            ensure!(row[who]["wall"].as_f64().is_some_and(|wall| wall > 0.0), "no time in {row}");
        }
        found.push((row["work"].as_str().unwrap_or_default(), row["rival"].as_str().unwrap_or_default()));
    }
    let wanted = [
        ("first export", "shell pipeline"),
        ("nothing changed, -cache-dir", "our first export"),
        ("restore", "sha256sum, tar -x"),
        ("a layer of 2 GB in one file", "shell pipeline"),
        ("a layer of 200,000 empty files", "shell pipeline"),
    ];
    ensure!(found == wanted, "the rows are {found:?}");
    ensure!(result["base"]["ours"] == 0, "base layers take {} bytes anew", result["base"]["ours"]);
    let svg = std::fs::read_to_string(&plot).context("read the plot")?;
    ensure!(svg.matches("<polyline").count() >= 2 && svg.ends_with("</svg>\n"), "the plot is {svg:?}");
    Ok(())
}
