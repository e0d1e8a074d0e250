//! Which phase knows which flag, at which Platform API.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::packaged::Packaged;
use drydock_acceptance::scenario::User::Cnb;
use drydock_acceptance::stage::Stage;

use super::{APIS, PHASES, shell};

/// A phase, what it knows at every API, and what from one API on: the number after the point.
type Row = (&'static str, &'static str, &'static [(u32, &'static str)]);

/// As the Go lifecycle has them, except for those that phases with images have for layouts: at every API, and the
/// rebaser too; and for `-log-file`, which all phases of a build have. `-stack` is no more from 0.12 on, other than in the creator.
const ROWS: [Row; 8] = [
    (
        "analyzer",
        "analyzed cache-image daemon gid layers layout layout-dir log-file previous-image run-image stack tag uid",
        &[(9, "launch-cache skip-layers"), (12, "run"), (13, "insecure-registry")],
    ),
    (
        "builder",
        "app buildpacks group layers log-file plan platform",
        &[(11, "build-config"), (12, "analyzed")],
    ),
    (
        "creator",
        "app buildpacks cache-dir cache-image daemon gid launch-cache launcher layers layout layout-dir log-file order parallel \
         platform previous-image process-type project-metadata report run-image skip-restore stack tag uid",
        &[(11, "build-config launcher-sbom"), (12, "run"), (13, "insecure-registry"), (15, "system")],
    ),
    (
        "detector",
        "app buildpacks group layers log-file order plan platform",
        &[(10, "analyzed extensions generated"), (11, "build-config"), (12, "run"), (15, "system")],
    ),
    (
        "exporter",
        "analyzed app cache-dir cache-image daemon gid group image launch-cache launcher layers layout layout-dir log-file \
         parallel process-type project-metadata report run-image stack uid",
        &[(11, "launcher-sbom"), (12, "extended run"), (13, "insecure-registry")],
    ),
    (
        "extender",
        "analyzed app buildpacks generated gid group kaniko-cache-ttl layers log-file plan platform uid",
        &[(12, "extended kind")],
    ),
    (
        "rebaser",
        "daemon gid image layout layout-dir report run-image uid",
        &[(11, "previous-image"), (12, "force"), (13, "insecure-registry")],
    ),
    (
        "restorer",
        "analyzed cache-dir cache-image gid group layers layout layout-dir log-file skip-layers uid",
        &[(10, "build-image"), (12, "daemon generated"), (13, "insecure-registry"), (14, "run")],
    ),
];

/// Known by all.
const COMMON: &str = "version log-level no-color";

/// Whether a phase knows a flag at 0.`minor`.
fn is_known((phase, always, later): Row, flag: &str, minor: u32) -> bool {
    let names = |list: &str| list.split(' ').any(|name| name == flag);
    if flag == "stack" && phase != "creator" && minor >= 12 {
        return false;
    }
    names(COMMON) || names(always) || later.iter().any(|&(since, list)| minor >= since && names(list))
}

pub(crate) fn each_is_known_where_it_should_be(packaged: &Packaged) -> Result<()> {
    let mut flags: Vec<&str> = ROWS
        .iter()
        .flat_map(|(_, always, later)| later.iter().map(|(_, list)| *list).chain([*always]))
        .collect();
    flags.push(COMMON);
    let mut flags: Vec<&str> = flags.into_iter().flat_map(|list| list.split(' ')).collect();
    flags.sort_unstable();
    flags.dedup();
    ensure!(ROWS.map(|row| row.0) == PHASES, "each phase has a row");

    // What comes first wins: -h ends with exit code 0, a flag that is not known with 2.
    let script = "for api in $APIS; do for phase in $1; do for flag in $2; do \
        CNB_PLATFORM_API=$api /cnb/lifecycle/$phase -$flag=1 -h >/dev/null 2>&1; \
        echo $api $phase $flag $?; done; done; done";
    let stage = Stage::empty(Vec::new())?;
    let printed = shell(packaged, &stage, Cnb, script, &[&PHASES.join(" "), &flags.join(" ")])?;
    let mut want = String::new();
    for api in APIS {
        let minor = api.strip_prefix("0.").context("all are 0.x")?.parse()?;
        for row in ROWS {
            for flag in &flags {
                let exit = if is_known(row, flag, minor) { 0 } else { 2 };
                writeln!(want, "{api} {} {flag} {exit}", row.0)?;
            }
        }
    }
    let wrong: Vec<String> = printed
        .lines()
        .zip(want.lines())
        .filter(|(got, want)| got != want)
        .map(|(got, want)| format!("{got}, not {want}"))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(printed.len() == want.len(), "not all were run");
    Ok(())
}
