//! The exporter is killed, at many moments of an export over an existing image: what it leaves must be the old image or
//! the new one, whole, and the next export must clear up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{self, APP_IMAGE, Project, succeed};
use drydock_acceptance::scenario::User;
use drydock_acceptance::tools::{Image, STRACE};
use libtest_mimic::Trial;

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("killed::at_system_calls", |executables| at_system_calls(Series::new(executables, &CACHE_DIR)?)),
            ("killed::at_any_time", |executables| at_any_time(Series::new(executables, &CACHE_DIR)?)),
            ("killed::with_a_cache_image", |executables| {
                at_any_time(Series::new(executables, &CACHE_IMAGE)?)
            }),
        ],
    )
}

/// System calls that change files, each with how many of its calls the exporter is killed at, at most.
const CALLS: [(&str, usize); 9] = [
    ("mkdirat", 4),
    ("flock", 4),
    ("openat", 10),
    ("fchmod", 20),
    ("write", 10),
    ("linkat", 10),
    ("renameat", 20),
    ("unlinkat", 20),
    ("renameat2", 4),
];
/// In how many places an export is killed by the clock.
const MOMENTS: u32 = 100;
/// Of how many exports one is looked at by skopeo.
const INSPECT_EVERY: u32 = 6;

/// A project whose image is exported again and again, each time with another content.
struct Series {
    project: Project,
    version: usize,
    /// The manifests' digests of the last whole export: the app image's and, where it is one, the cache's.
    digests: Vec<String>,
    cache: &'static Cache,
    kills: u32,
}

/// The app image's names and the layouts that they stand for.
const LAYOUTS: [(&str, &str); 2] = [
    (APP_IMAGE, "layout-repo/index.docker.io/library/app/latest"),
    ("other.example.com/team/app:v1", "layout-repo/other.example.com/team/app/v1"),
];

/// The cache that the exporter is given.
struct Cache {
    arguments: [&'static str; 2],
    /// Where it is, if it is an image.
    layout: Option<&'static str>,
}

const CACHE_DIR: Cache = Cache { arguments: ["-cache-dir", "cache"], layout: None };
const CACHE_IMAGE: Cache = Cache {
    arguments: ["-cache-image", "app-cache"],
    layout: Some("layout-repo/index.docker.io/library/app-cache/latest"),
};

impl Series {
    fn new(executables: &Built, cache: &'static Cache) -> Result<Self> {
        let project = Project::new(executables.get()?.dir(), User::Root)?;
        for file in 0..150 {
            project.write(&format!("app/{file}"), noise(file, 20_000))?;
        }
        let mut series = Self { project, version: 0, digests: Vec::new(), cache, kills: 0 };
        series.next_version()?;
        series.digests = series.export()?;
        Ok(series)
    }

    /// Changes the app and one layer, leaves the other, and analyzes.
    fn next_version(&mut self) -> Result<()> {
        self.version += 1;
        self.project.write("app/version", self.version.to_string())?;
        self.project.write_layer("changes", "launch = true\ncache = true", noise(self.version, 300_000))?;
        self.project.write_layer("stays", "launch = true\ncache = true", noise(0, 300_000))?;
        self.project.write_layer("tool", "build = true\ncache = true", noise(self.version, 200_000))?;
        self.project.analyze()?;
        Ok(())
    }

    fn arguments(&self) -> Vec<&'static str> {
        self.cache.arguments.into_iter().chain(LAYOUTS.map(|(name, _)| name)).collect()
    }

    /// Exports to the end; gives the images' digests.
    fn export(&self) -> Result<Vec<String>> {
        succeed(self.project.exporter()?.args(self.arguments()))?;
        let whole = |path| -> Result<String> {
            let layout = self.project.layout(path);
            let faults = layout.faults()?;
            ensure!(faults.is_empty(), "left in {path}:\n{}", faults.join("\n"));
            Ok(layout.verify()?.remove(0).descriptor.digest)
        };
        let [one, other] = LAYOUTS.map(|(_, path)| whole(path));
        let (one, other) = (one?, other?);
        ensure!(one == other, "one export wrote {one} and {other}");
        [Ok(one)].into_iter().chain(self.cache.layout.map(whole)).collect()
    }

    /// Starts an export under a program that may kill it, and looks at what is left; `false` if it was not killed.
    fn kill_one(&mut self, starter: &[&str]) -> Result<bool> {
        self.next_version()?;
        let output = project::run(self.project.exporter_under(starter)?.args(self.arguments()))?;
        let was_killed = output.exit == 137;
        // 124: the clock's time was over, but the exporter was done.
        ensure!([0, 124, 137].contains(&output.exit), "exit code {}\n{}", output.exit, output.text());
        let mut left = Vec::new();
        for path in LAYOUTS.map(|(_, path)| path).into_iter().chain(self.cache.layout) {
            let images =
                self.project.layout(path).verify().with_context(|| format!("what is left in {path}"))?;
            ensure!(images.len() == 1, "{} images are left in {path}", images.len());
            left.push(images[0].descriptor.digest.clone());
        }
        self.kills += u32::from(was_killed);
        if self.kills.is_multiple_of(INSPECT_EVERY) {
            let scratch = tempfile::tempdir()?;
            Image::new(&self.project.path(LAYOUTS[0].1), "latest", scratch.path())?.config()?;
        }
        let new = self.export().context("the next export")?;
        for digest in left {
            ensure!(
                self.digests.contains(&digest) || new.contains(&digest),
                "{digest} is neither of the old images nor of the new ones"
            );
        }
        self.digests = new;
        Ok(was_killed)
    }
}

/// Bytes that are not easily compressed, the same for the same seed.
pub(crate) fn noise(seed: usize, length: usize) -> Vec<u8> {
    let mut state = seed as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 58) as u8
    };
    (0..length).map(step).collect()
}

/// Just before each of the calls that change files, or before some of them where they are many.
fn at_system_calls(mut series: Series) -> Result<()> {
    for (call, most) in CALLS {
        at_calls(&mut series, call, most, &[])?;
    }
    // Where the image appears, whatever else is written.
    for path in LAYOUTS.map(|(_, path)| path).into_iter().chain(series.cache.layout) {
        let dir = series.project.path(path);
        let dir = dir.to_str().context("the path is UTF-8")?;
        let index = format!("{dir}/index.json");
        // A file gets its name in a folder that is open.
        for (call, path) in [("openat", &*index), ("write", &index), ("renameat", dir)] {
            at_calls(&mut series, call, usize::MAX, &["-P", path])?;
        }
    }
    ensure!(series.kills >= 40, "only {} exports were killed", series.kills);
    Ok(())
}

/// Before each call, or evenly spread from the first call to the last. `only` are strace's options that choose calls.
fn at_calls(series: &mut Series, call: &str, most: usize, only: &[&str]) -> Result<()> {
    let calls = count_calls(series, call, only)?;
    for number in 0..calls.min(most) {
        let when = if calls <= most { number + 1 } else { 1 + number * (calls - 1) / (most - 1) };
        let inject = format!("inject={call}:signal=KILL:when={when}");
        let starter = [STRACE.name, "-f", "-qqq", "-o", "/dev/null", "-e", &inject];
        series
            .kill_one(&[&starter, only].concat())
            .with_context(|| format!("killed at {call} {only:?} number {when} of {calls}"))?;
    }
    Ok(())
}

/// How often the thread that calls it most often makes a call in an export.
fn count_calls(series: &mut Series, call: &str, only: &[&str]) -> Result<usize> {
    series.next_version()?;
    let log = series.project.path("calls");
    let log = log.to_str().context("the path is UTF-8")?;
    let trace = format!("trace={call}");
    let starter = [&[STRACE.name, "-f", "-qqq", "-o", log, "-e", &trace], only].concat();
    succeed(series.project.exporter_under(&starter)?.args(series.arguments()))?;
    series.digests = series.export()?;
    let mut of_threads = BTreeMap::new();
    for line in std::fs::read_to_string(log).context("read what strace wrote")?.lines() {
        if line.contains(&format!(" {call}(")) {
            *of_threads.entry(line.split(' ').next().map(str::to_owned)).or_insert(0) += 1;
        }
    }
    Ok(of_threads.into_values().max().unwrap_or(0))
}

/// At moments that are spread over the time that an export takes.
fn at_any_time(mut series: Series) -> Result<()> {
    series.next_version()?;
    let start = Instant::now();
    succeed(series.project.exporter()?.args(series.arguments()))?;
    let duration = start.elapsed();
    series.digests = series.export()?;
    for number in 1..=MOMENTS * 4 {
        // The fractional parts of multiples of the golden ratio are spread evenly, however many are taken.
        let delay = duration.mul_f64((f64::from(number) * 0.618_033_988_75).fract()).as_secs_f64();
        let starter = ["timeout", "--foreground", "--signal=KILL", &format!("{delay:.6}")];
        series.kill_one(&starter).with_context(|| format!("killed after {delay:.6} of {duration:?}"))?;
        if series.kills == MOMENTS {
            return Ok(());
        }
    }
    anyhow::bail!("only {} exports were killed in time", series.kills)
}
