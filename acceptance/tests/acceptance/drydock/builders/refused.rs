//! Files of builders, buildpacks and packages that are refused.

use std::fs::{self, File};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use drydock_acceptance::project;
use flate2::Compression;
use flate2::write::GzEncoder;
use libtest_mimic::Trial;
use tar::EntryType as Type;

use super::super::{Entry, tar_of};
use super::{Made, relabel};
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("drydock::builders_of_wrong_files_are_refused", wrong_files_are_refused),
            ("drydock::buildpacks_that_do_harm_are_refused", buildpacks_that_do_harm_are_refused),
            ("drydock::packages_that_do_harm_are_refused", packages_that_do_harm_are_refused),
        ],
    )
}

fn wrong_files_are_refused(executables: &Built) -> Result<()> {
    let mut made = Made::new(executables)?;
    let _alone = made.without_lifecycle()?;
    let toml = "api = '0.10'\n[buildpack]\nid = 'acme/m'\nversion = '1'\n";
    let group = |id: &str| format!("[[order]]\n[[order.group]]\nid = '{id}'\nversion = '1'\n");
    made.write("round/buildpack.toml", format!("{toml}{}", group("acme/m")))?;
    made.write("whole/buildpack.toml", format!("{toml}{}", group("acme/missing")))?;
    made.write("old/buildpack.toml", toml.replace("0.10", "0.2"))?;
    made.write("old/bin/build", "")?;
    made.write("other/buildpack.toml", format!("{toml}[[targets]]\nos = 'linux'\narch = 's390x'\n"))?;
    made.write("other/bin/build", "")?;
    made.write("stack/buildpack.toml", format!("{toml}[[stacks]]\nid = 'other.stack'\n"))?;
    made.write("stack/bin/build", "")?;
    made.write("idle/buildpack.toml", toml)?;
    made.write("bare/file", "")?;
    for (exit, says, from, to) in [
        (4, "builder.toml`: toml: line 2", "[build]", "[built]"),
        (3, "build.image `rum` cannot be used", "image = 'run'\n[[build", "image = 'rum'\n[[build"),
        (
            2,
            "run.images[0].image `RUN` cannot be the name",
            "image = 'run'\nmirrors",
            "image = 'RUN'\nmirrors",
        ),
        (4, "build.env[0].suffix `after` is not one of", "'default'", "'after'"),
        (4, "buildpacks[0] `nowhere` cannot be used", "uri = 'hello'", "uri = 'nowhere'"),
        (
            4,
            "buildpacks[0] `https://example.com/x.tgz` cannot be used",
            "uri = 'hello'",
            "uri = 'https://example.com/x.tgz'",
        ),
        (3, "buildpacks[0] `acme/hello` cannot be used", "uri = 'hello'", "image = 'acme/hello'"),
        (4, "it has no label `io.buildpacks.buildpack.layers`", "uri = 'hello'", "image = 'run'"),
        (4, "has both `uri` and `image`", "uri = 'hello'", "uri = 'hello'\nimage = 'x'"),
        (
            4,
            "asks for id `sample/hello`, but what is there has id `acme/new`",
            "uri = 'hello'",
            "uri = 'new'",
        ),
        (
            4,
            "order[0].group[0].version `0.2.0` of `sample/hello` is not there, but 0.1.0",
            "'0.1.0'",
            "'0.2.0'",
        ),
        (
            4,
            "order[1].group[0].id `acme/old` is not there, but acme/new@1.0.0, sample/hello@0.1.0",
            "id = 'acme/new'",
            "id = 'acme/old'",
        ),
        (4, "order of buildpacks is a cycle: `acme/m@1` → `acme/m@1`", "uri = 'new'", "uri = 'round'"),
        (4, "`acme/m@1`, order[0].group[0].id `acme/missing` is not there", "uri = 'new'", "uri = 'whole'"),
        (
            4,
            "buildpacks[1] `acme/m@1` has Buildpack API 0.2, but lifecycle 1.2.3 speaks 0.7, 0.10, 0.12",
            "uri = 'new'",
            "uri = 'old'",
        ),
        (
            4,
            "buildpacks[1] `acme/m@1` does not fit the build image: arch is `s390x`",
            "uri = 'new'",
            "uri = 'other'",
        ),
        (
            4,
            "`acme/m@1` is for the stacks other.stack, but the build image's is `acme.stack`",
            "uri = 'new'",
            "uri = 'stack'",
        ),
        (4, "`acme/m@1` has neither `bin/build` nor an order", "uri = 'new'", "uri = 'idle'"),
        (4, "it has no `buildpack.toml` at its top", "uri = 'new'", "uri = 'bare'"),
        (
            4,
            "targets do not fit the build image: arch is `s390x`",
            "[lifecycle]",
            "[[targets]]\nos = 'linux'\narch = 's390x'\n[lifecycle]",
        ),
        (
            4,
            "stack.id is `other`, but the build image's is `acme.stack`",
            "[lifecycle]",
            "[stack]\nid = 'other'\n[lifecycle]",
        ),
        (4, "lifecycle is missing: there is none in", "[lifecycle]\nuri = 'lifecycle'\n", ""),
        (4, "lifecycle.uri `hello` cannot be used", "uri = 'lifecycle'", "uri = 'hello'"),
        (
            4,
            "lifecycle.version cannot be there beside lifecycle.uri",
            "uri = 'lifecycle'",
            "uri = 'lifecycle'\nversion = '1'",
        ),
    ] {
        made.refused(exit, says, from, to)?;
    }
    made.repository.refused(2, "id `a_b` may have", &["buildpack", "new", "x", "--id", "a_b"])?;
    made.repository.refused(4, "is not empty", &["buildpack", "new", "hello", "--id", "a"])?;
    made.repository.refused(2, "required", &["buildpack", "package", "hello"])
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes)?;
    Ok(encoder.finish()?)
}

/// A buildpack in a tar, with these entries besides.
fn with_entries(entries: &[Entry<'_>]) -> Result<Vec<u8>> {
    let toml = "api = '0.10'\n[buildpack]\nid = 'acme/m'\nversion = '1'\n";
    let all =
        [&[(Type::Regular, "buildpack.toml", toml), (Type::Regular, "bin/build", "")], entries].concat();
    tar_of(&all)
}

fn buildpacks_that_do_harm_are_refused(executables: &Built) -> Result<()> {
    let made = Made::new(executables)?;
    let refused = |exit, says| made.refused(exit, says, "uri = 'new'", "uri = 'bad'");
    for (entry, says) in [
        ((Type::Regular, "../../../etc/passwd", "x"), "has a `..`"),
        ((Type::Link, "shadow", "/etc/shadow"), "is a hard link to something that is not there"),
        ((Type::Link, "shadow", "../../etc/shadow"), "has a `..`"),
        ((Type::Regular, ".wh.bin", ""), "has the name of a whiteout"),
        ((Type::Char, "null", ""), "is neither a file nor a folder nor a link"),
        ((Type::Fifo, "fifo", ""), "is neither a file nor a folder nor a link"),
        ((Type::Regular, "bin/build", "again"), "comes twice"),
        ((Type::Regular, "bin/build/x", "x"), "lies in something that is no folder"),
    ] {
        made.write("bad", with_entries(&[entry])?)?;
        refused(1, says)?;
    }
    made.write("bad", with_entries(&[(Type::Symlink, "etc", "/etc"), (Type::Regular, "etc/passwd", "x")])?)?;
    refused(1, "its entry `etc/passwd` lies in something that is no folder")?;
    let whole = gzip(&with_entries(&[(Type::Regular, "data", &"x".repeat(5000))])?)?;
    made.write("bad", &whole[..whole.len() - 9])?;
    refused(1, "cannot be decompressed")?;
    made.write("bad", b"no tar at all, and longer than a block of one would be".repeat(20))?;
    refused(1, "cannot use")?;

    fs::remove_file(made.path("bad"))?;
    for (id, version, says) in [
        ("..", "1", "id `..` has a part that is empty or leads elsewhere"),
        ("a/../../b", "1", "id `a/../../b` has a part"),
        ("a", "..", "version `..` cannot be the name of a folder"),
        ("a", "../../../etc", "version `../../../etc` cannot be"),
    ] {
        let toml = format!("api = '0.10'\n[buildpack]\nid = '{id}'\nversion = '{version}'\n");
        made.write("bad/buildpack.toml", toml)?;
        made.write("bad/bin/build", "")?;
        refused(4, says)?;
        made.repository.refused(4, says, &["buildpack", "package", "bad", "x"])?;
    }
    made.write("bad/buildpack.toml", "x".repeat(5 << 20))?;
    refused(4, "`buildpack.toml` has more than")?;
    fs::copy(made.path("new/buildpack.toml"), made.path("bad/buildpack.toml"))?;
    project::succeed(Command::new("mkfifo").arg(made.path("bad/fifo")))?;
    made.repository.refused(1, "its entry `fifo` is neither", &["buildpack", "package", "bad", "x"])?;

    let outside = tempfile::tempdir()?;
    fs::copy(made.path("new/buildpack.toml"), outside.path().join("buildpack.toml"))?;
    // It has no blocks on the disk.
    File::create(outside.path().join("huge"))?.set_len(1 << 40)?;
    let outside = outside.path().to_str().context("the path is UTF-8")?;
    made.repository.refused(1, "its entry `huge` is too large", &["buildpack", "package", outside, "x"])
}

/// A layout in a tar whose one layer has what it must not have.
fn packages_that_do_harm_are_refused(executables: &Built) -> Result<()> {
    let dir = "cnb/buildpacks/acme_m/1";
    let toml = "api = '0.10'\n[buildpack]\nid = 'acme/m'\nversion = '1'\n";
    let files = [(format!("{dir}/buildpack.toml"), toml), (format!("{dir}/bin/build"), "")];
    let cases: [(&str, Type, &str, &str, &str); 6] = [
        (
            "acme/m",
            Type::Regular,
            "/etc/passwd",
            "x",
            "lies in no folder of a buildpack that the labels name",
        ),
        ("acme/m", Type::Regular, "cnb/lifecycle/creator", "x", "lies in no folder of a buildpack"),
        ("acme/m", Type::Symlink, "cnb/buildpacks/acme_m/2", "/", "lies in no folder of a buildpack"),
        ("acme/m", Type::Regular, "cnb/buildpacks/.wh.other", "", "has the name of a whiteout"),
        ("acme/m", Type::Regular, "cnb/buildpacks/acme_m/1/../../../x", "", "has a `..`"),
        ("../m", Type::Regular, "cnb/buildpacks/acme_m/1/x", "", "id `../m` has a part"),
    ];
    for (id, kind, name, content, says) in cases {
        let made = Made::new(executables)?;
        let own = files.iter().map(|(name, text)| (Type::Regular, name.as_str(), *text));
        let tar = tar_of(&own.chain([(kind, name, content)]).collect::<Vec<_>>())?;
        made.repository.write_image("bad", std::slice::from_ref(&tar))?;
        let layer = drydock_acceptance::sha256(&tar);
        let labels = serde_json::json!({
            "io.buildpacks.buildpackage.metadata": serde_json::json!({"id": id, "version": "1"}).to_string(),
            "io.buildpacks.buildpack.layers": serde_json::json!({id: {"1": {"layerDiffID": layer}}}).to_string(),
        });
        relabel(&made.repository.layout("bad"), &labels)?;
        let exit = if id == "acme/m" { 1 } else { 4 };
        made.refused(exit, says, "uri = 'new'", "image = 'bad'")?;
        let path = made.repository.path("bad");
        let tar = ["-cf", "bad.cnb", "-C", path.to_str().context("the path is UTF-8")?, "."];
        project::succeed(Command::new("tar").args(tar).current_dir(made.repository.dir.path()))?;
        made.refused(exit, says, "uri = 'new'", "uri = 'bad.cnb'")?;
    }
    Ok(())
}
