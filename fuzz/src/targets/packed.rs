//! Archives that somebody else packed, of the source of an app and of what a Dockerfile brings: zip files, and tars however compressed.

use std::convert::Infallible;
use std::fs;
use std::path::Path;

use drydock_extend::in_place::{Context, Failure, Identity, Place, Runner, carry_out};
use drydock_extend::language::{IgnoreRules, parse};
use drydock_extend::plan::{Build, Plan, Program, Wanted};
use drydock_images::builder::place::{Placed, context, source};
use drydock_images::watch::Nobody;
use drydock_model::config::ImageConfig;
use drydock_model::platform::Platform;

use super::tar::seal;
use super::{Target, roughly};

pub(crate) const TARGET: Target = Target {
    name: "packed",
    longest: 1 << 12,
    words: &[
        b"PK\x01\x02",
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"PK\x06\x06",
        b"PK\x06\x07",
        b"../",
        b"/",
        b"l/x",
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        b"ustar\x0000",
        b"BZh9",
        b"\xfd7zXZ\0",
        b"\x1f\x8b\x08\0",
        b"\x28\xb5\x2f\xfd",
    ],
    can_use: |_, _| false,
    run,
};

/// No program is run.
struct Unasked;

impl Runner for Unasked {
    type Failure = Infallible;

    fn run(&self, _: &[String], _: &Program, _: &Identity) -> Result<(), Infallible> {
        Ok(())
    }
}

fn run(input: &[u8]) -> String {
    let mut archive = input.to_vec();
    seal(&mut archive);
    let dir = tempfile::tempdir().expect("there is room");
    let file = dir.path().join("archive");
    fs::write(&file, archive).expect("there is room");
    for (name, text) in [("canary", "canary"), ("root/canary", "canary")] {
        fs::create_dir_all(dir.path().join(name).parent().expect("it is in a folder"))
            .expect("there is room");
        fs::write(dir.path().join(name), text).expect("there is room");
    }
    let mut said = Vec::new();
    for (name, unpack) in [("source", source as fn(&Path, &Path, &_) -> _), ("context", context)] {
        let to = dir.path().join(name);
        said.push(match unpack(&file, &to, &Nobody) {
            Ok(Placed::Done) => format!("{}", roughly(count(&to))),
            Ok(Placed::NoArchive) => "no archive".into(),
            Err(error) => format!("{error:#}"),
        });
    }
    said.push(added(dir.path()));
    for name in ["canary", "root/canary"] {
        assert_eq!(fs::read(dir.path().join(name)).expect("it is there"), b"canary");
    }
    for name in ["source", "context", "root"] {
        drydock_tar::remove_all(&dir.path().join(name)).expect("what was unpacked can be removed");
    }
    let left = fs::read_dir(dir.path()).expect("it is a folder").count();
    assert_eq!(left, 2, "something is outside");
    said.join(";").replace(&*dir.path().to_string_lossy(), "")
}

/// How many files there are. Links may lead anywhere: nothing is written there, and nobody follows them.
fn count(root: &Path) -> usize {
    let entries = walkdir::WalkDir::new(root).into_iter();
    entries.filter(|entry| entry.as_ref().expect("root can list everything").depth() > 0).count()
}

/// What `ADD` makes of it in a file system, whose own files are not to be seen from outside.
fn added(dir: &Path) -> String {
    let root = dir.join("root");
    let place = Place { root: &root, left_out: &[], scripts: dir, scripts_inside: dir };
    let mut context = Context::open(dir, IgnoreRules::default()).expect("it is a folder");
    match carry_out(&plan(), &place, &mut context, None, &Unasked, &|_, _| {}) {
        Ok(_) => "added".into(),
        Err(Failure::Files { source, .. }) => format!("{source:#}"),
        Err(Failure::Program { failure, .. }) => match failure {},
    }
}

fn plan() -> Plan {
    let config: ImageConfig =
        serde_json::from_str(r#"{"rootfs":{"type":"layers","diff_ids":[]}}"#).expect("it is one");
    let dockerfile = parse("FROM x\nADD archive /in/\n").expect("it is one");
    let wanted = Wanted { target: None, args: &[], platform: &Platform::linux("amd64") };
    let mut build =
        Build::of(&dockerfile, &wanted, &mut |_, _| Ok(config.clone())).expect("it can be carried out");
    build.stages.pop().expect("it has a stage").plan
}
