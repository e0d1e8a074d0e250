//! The packaged executables in place of the Go lifecycle's: argument errors, exit codes, privileges, restoring without
//! layouts, and versions, at every Platform API. The values are those of the Go lifecycle, except where it is said why not.

mod flags;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::layout::Layout;
use drydock_acceptance::packaged::{Packaged, pack};
use drydock_acceptance::project;
use drydock_acceptance::run;
use drydock_acceptance::scenario::Operation::{self, ChangeMode, Write};
use drydock_acceptance::scenario::User::{self, Cnb, Root};
use drydock_acceptance::stage::{GID, Stage, UID};
use drydock_acceptance::tools::{self, SKOPEO};
use drydock_acceptance::{sha256, tree};
use flate2::read::GzDecoder;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::building::Houses;
use crate::test;

/// Every Platform API that is supported.
const APIS: [&str; 9] = ["0.7", "0.8", "0.9", "0.10", "0.11", "0.12", "0.13", "0.14", "0.15"];
/// The executables with a name of their own, in the Go lifecycle and here.
const PHASES: [&str; 8] =
    ["analyzer", "builder", "creator", "detector", "exporter", "extender", "rebaser", "restorer"];

/// This module's tests.
pub(crate) fn trials(houses: &Arc<Houses>) -> Vec<Trial> {
    let tests: [(&str, Check); 12] = [
        ("argument_errors", argument_errors),
        ("exit_codes", exit_codes),
        ("flags", flags::each_is_known_where_it_should_be),
        ("platform_apis", platform_apis),
        ("versions", versions),
        ("root_gives_the_layers_away", root_gives_the_layers_away),
        ("usable_layers_are_left_alone", usable_layers_are_left_alone),
        ("restores_without_layouts", restores_without_layouts),
        ("contents", contents),
        ("lifecycle_image", lifecycle_image),
        ("executables_are_static_and_small", executables_are_static_and_small),
        ("packed_twice_the_same", packed_twice_the_same),
    ];
    tests
        .into_iter()
        .map(|(name, run)| {
            let houses = Arc::clone(houses);
            test(&format!("drop_in::{name}"), move || run(houses.packaged()?))
        })
        .collect()
}

type Check = fn(&Packaged) -> Result<()>;

/// What a run at one Platform API came to.
struct Outcome {
    api: String,
    exit: i32,
    /// Both streams: the Go lifecycle puts errors on standard output, and we do not.
    text: String,
}

/// Runs one command at each Platform API, one after the other on the same stage.
fn at_each_api(packaged: &Packaged, stage: &Stage, user: User, command: &[&str]) -> Result<Vec<Outcome>> {
    const LOOP: &str = "for api in $APIS; do \
        out=$(CNB_PLATFORM_API=$api /cnb/lifecycle/\"$@\" 2>&1); \
        printf '%s\\0%s\\0%s\\0' \"$api\" $? \"$out\"; done";
    let printed = shell(packaged, stage, user, LOOP, command)?;
    let mut fields = printed.split('\0');
    let mut outcomes = Vec::new();
    while let (Some(api), Some(exit), Some(text)) = (fields.next(), fields.next(), fields.next()) {
        let exit = exit.parse().with_context(|| format!("parse the exit code {exit}"))?;
        outcomes.push(Outcome { api: api.to_owned(), exit, text: text.to_owned() });
    }
    ensure!(outcomes.len() == APIS.len(), "the shell printed {printed:?}");
    Ok(outcomes)
}

/// Runs a shell script on the stage; gives what it prints.
fn shell(packaged: &Packaged, stage: &Stage, user: User, script: &str, arguments: &[&str]) -> Result<String> {
    let environment: BTreeMap<&str, String> = [
        ("PATH", "/usr/bin:/bin".to_owned()),
        ("CNB_NO_COLOR", "true".to_owned()),
        ("CNB_USER_ID", UID.to_string()),
        ("CNB_GROUP_ID", GID.to_string()),
        ("APIS", APIS.join(" ")),
    ]
    .into();
    let mut command = run::command(stage, &packaged.lifecycle(), user, &environment);
    let output =
        command.args(["sh", "-c", script, "sh"]).args(arguments).output().context("start a shell")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && errors.is_empty(), "the shell failed: {} {errors}", output.status);
    String::from_utf8(output.stdout).context("read what the shell printed")
}

/// One command, the same at each Platform API.
struct Case {
    user: User,
    setup: Vec<Operation>,
    /// The executable and its arguments.
    command: &'static [&'static str],
    exit: i32,
    /// What it must say, among other things.
    says: &'static str,
}

fn check(packaged: &Packaged, cases: Vec<Case>) -> Result<()> {
    let mut wrong = Vec::new();
    for Case { user, setup, command, exit, says } in cases {
        let stage = Stage::empty(setup)?;
        for outcome in at_each_api(packaged, &stage, user, command)? {
            if outcome.exit != exit || !outcome.text.contains(says) {
                let Outcome { api, exit: got, text } = outcome;
                wrong
                    .push(format!("{command:?} at {api}: exit code {got}, not {exit}; `{says}` in {text:?}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn argument_errors(packaged: &Packaged) -> Result<()> {
    let case = |command, exit, says| Case { user: Cnb, setup: Vec::new(), command, exit, says };
    let cases = vec![
        case(&["lifecycle"], 3, "failed to parse arguments"),
        case(
            &["lifecycle", "foo"],
            3,
            "failed to recognize phase: foo \nValid phases: detect, analyze, restore, build, export, rebase, create, extend",
        ),
        case(&["lifecycle", "analyze"], 3, "failed to parse arguments: received 0 arguments, but expected 1"),
        case(&["analyzer"], 3, "failed to parse arguments: received 0 arguments, but expected 1"),
        case(&["analyzer", "a", "b"], 3, "failed to parse arguments: received 2 arguments, but expected 1"),
        case(&["analyzer", ""], 3, "failed to resolve inputs: image argument is required"),
        case(
            &["analyzer", "-run-image", "r", "A B"],
            3,
            "failed to resolve inputs: could not parse reference: ",
        ),
        case(&["exporter"], 3, "failed to parse arguments: at least one image argument is required"),
        case(
            &["exporter", "-run-image", "r", "app"],
            3,
            "failed to resolve inputs: -run-image is unsupported",
        ),
        case(&["exporter", "-image", "r", "app"], 3, "failed to resolve inputs: -image is unsupported"),
        case(&["creator"], 3, "failed to parse arguments: received 0 arguments, but expected 1"),
        case(&["creator", "a", "b"], 3, "failed to parse arguments: received 2 arguments, but expected 1"),
        case(&["rebaser"], 3, "failed to parse arguments: at least one image argument is required"),
        case(
            &["rebaser", "-run-image", "a", "-image", "b", "app"],
            3,
            "failed to resolve inputs: supply only one of -run-image or (deprecated) -image",
        ),
        case(&["detector", "x"], 3, "failed to parse arguments: received unexpected arguments"),
        case(&["builder", "x"], 3, "failed to parse arguments: received unexpected arguments"),
        case(&["extender", "x"], 3, "failed to parse arguments: received unexpected arguments"),
        case(&["restorer", "x"], 3, "failed to parse arguments: received unexpected Args"),
        case(&["detector", "-log-level", "loud"], 1, "failed to parse log level: invalid level"),
        case(&["detector", "-nonsense"], 2, "flag provided but not defined: -nonsense"),
    ];
    check(packaged, cases)
}

/// A group of one buildpack, `acme/a`.
fn group(api: &str) -> Operation {
    let text = format!("[[group]]\nid = \"acme/a\"\nversion = \"1.0.0\"\napi = \"{api}\"\n");
    Write("/layers/group.toml".to_owned(), text)
}

/// The buildpack `acme/a`, alone in the order.
fn buildpack(api: &str, detect: &str, build: &str) -> Vec<Operation> {
    let dir = "/cnb/buildpacks/acme_a/1.0.0";
    let named = "id = \"acme/a\"\nversion = \"1.0.0\"\n";
    let script = |name: &str, text: &str| {
        let path = format!("{dir}/bin/{name}");
        [Write(path.clone(), format!("#!/bin/sh\n{text}\n")), ChangeMode(path, 0o755)]
    };
    let mut setup = vec![
        order(),
        Write(format!("{dir}/buildpack.toml"), format!("api = \"{api}\"\n[buildpack]\n{named}[[targets]]\n")),
    ];
    setup.extend(script("detect", detect));
    setup.extend(script("build", build));
    setup
}

fn order() -> Operation {
    let text = "[[order]]\n[[order.group]]\nid = \"acme/a\"\nversion = \"1.0.0\"\n";
    Write("/cnb/order.toml".to_owned(), text.to_owned())
}

/// What the builder reads, with a buildpack that builds like this.
fn building(build: &str) -> Vec<Operation> {
    let mut setup = buildpack("0.10", "exit 0", build);
    setup.extend([group("0.10"), plan()]);
    setup
}

fn plan() -> Operation {
    Write("/layers/plan.toml".to_owned(), String::new())
}

fn exit_codes(packaged: &Packaged) -> Result<()> {
    let case = |user, setup, command, exit, says| Case { user, setup, command, exit, says };
    let nothing = Vec::new;
    let metadata = |text: &str| vec![Write("/layers/config/metadata.toml".to_owned(), text.to_owned())];
    let detecting = |detect: &str| buildpack("0.10", detect, "exit 0");
    let wrong_api = "failed to set API for Buildpack 'acme/a@1.0.0': buildpack API version '0.2' is incompatible with the lifecycle";
    let cases = vec![
        case(Root, nothing(), &["detector"], 1, "failed to detect: refusing to run as root"),
        case(Root, building("exit 0"), &["builder"], 1, "failed to build: refusing to run as root"),
        case(Cnb, nothing(), &["detector"], 1, "failed to initialize detector: reading order: "),
        case(Cnb, vec![order()], &["detector"], 1, "failed to initialize detector: "),
        case(Cnb, detecting("exit 100"), &["detector"], 20, "failed to detect: no buildpacks participating"),
        case(Cnb, detecting("exit 3"), &["detector"], 21, "failed to detect: buildpack(s) failed with err"),
        case(Cnb, detecting("exit 0"), &["detector"], 0, "acme/a 1.0.0"),
        case(Cnb, buildpack("0.2", "exit 0", "exit 0"), &["detector"], 12, wrong_api),
        case(Cnb, nothing(), &["builder"], 1, "failed to read group file: "),
        case(Cnb, vec![group("0.10")], &["builder"], 1, "failed to read plan file: "),
        case(Cnb, vec![group("0.2"), plan()], &["builder"], 12, wrong_api),
        case(Cnb, building("exit 0"), &["builder"], 0, ""),
        case(Cnb, building("exit 7"), &["builder"], 51, "failed to build: exit status 7"),
        case(Cnb, building("echo = >\"$CNB_LAYERS_DIR/launch.toml\""), &["builder"], 52, "failed to build: "),
        case(Cnb, nothing(), &["restorer"], 1, "failed to read group file: "),
        case(Cnb, vec![group("0.2")], &["restorer"], 12, wrong_api),
        case(Cnb, building("exit 0"), &["restorer"], 0, "No cached data will be used, no cache specified."),
        case(Cnb, nothing(), &["launcher"], 1, "failed to read metadata: "),
        case(
            Cnb,
            metadata(""),
            &["launcher"],
            82,
            "failed to launch: determine start command: when there is no default process a command is required",
        ),
        case(
            Cnb,
            metadata(""),
            &["launcher", "--", "nonesuch"],
            82,
            "failed to launch: path lookup: exec: \"nonesuch\": executable file not found in $PATH",
        ),
        case(Cnb, metadata(""), &["launcher", "--", "sh", "-c", "exit 5"], 5, ""),
        case(
            Cnb,
            metadata("[[buildpacks]]\nid = \"acme/a\"\nversion = \"1.0.0\"\napi = \"0.2\"\n"),
            &["launcher", "--", "true"],
            12,
            "failed to set API for buildpack 'acme/a': buildpack API version '0.2' is incompatible with the lifecycle",
        ),
        // Images are layouts here: where none are asked for there is none.
        case(Cnb, nothing(), &["analyzer", "-run-image", "run", "app"], 32, "set CNB_USE_OCI_LAYOUT=true"),
        case(Cnb, nothing(), &["extender"], 102, "failed to extend: an image is extended by root"),
    ];
    check(packaged, cases)
}

fn platform_apis(packaged: &Packaged) -> Result<()> {
    let stage = Stage::empty(Vec::new())?;
    for (setting, want) in [
        (
            "unset CNB_PLATFORM_API",
            "failed to get platform API version; please set 'CNB_PLATFORM_API' to specify the desired platform API version",
        ),
        ("export CNB_PLATFORM_API=nonsense", "failed to parse platform API 'nonsense'"),
        (
            "export CNB_PLATFORM_API=0.6",
            "failed to set platform API: platform API version '0.6' is incompatible with the lifecycle",
        ),
        (
            "export CNB_PLATFORM_API=0.16",
            "failed to set platform API: platform API version '0.16' is incompatible with the lifecycle",
        ),
    ] {
        for command in PHASES.iter().copied().chain(["lifecycle detect", "lifecycle foo", "launcher"]) {
            let script = format!("{setting}; /cnb/lifecycle/{command} 2>&1; echo $?");
            let printed = shell(packaged, &stage, Cnb, &script, &[])?;
            let exit = printed.lines().last();
            ensure!(printed.contains(want) && exit == Some("11"), "{setting}, {command}: {printed}");
            if command == "launcher" || command == "lifecycle foo" {
                continue;
            }
            for (flag, want) in [("-version", env!("CARGO_PKG_VERSION")), ("-help", "-log-level")] {
                let script = format!("{setting}; /cnb/lifecycle/{command} {flag} 2>&1; echo $?");
                let printed = shell(packaged, &stage, Cnb, &script, &[])?;
                let exit = printed.lines().last();
                ensure!(
                    printed.contains(want) && exit == Some("0"),
                    "{setting}, {command} {flag}: {printed}"
                );
            }
        }
    }
    Ok(())
}

fn versions(packaged: &Packaged) -> Result<()> {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    let stage = Stage::empty(Vec::new())?;
    let printed = shell(packaged, &stage, Cnb, "/cnb/lifecycle/lifecycle -version", &[])?;
    ensure!(printed.trim_end() == VERSION, "lifecycle -version: {printed}");
    for phase in PHASES {
        for outcome in at_each_api(packaged, &stage, Root, &[phase, "-version"])? {
            let Outcome { api, exit, text } = outcome;
            ensure!(exit == 0 && text == VERSION, "{phase} at {api}: {exit} {text}");
        }
    }
    let descriptor: toml::Table = packaged.descriptor()?.parse().context("parse lifecycle.toml")?;
    let descriptor = serde_json::to_value(descriptor)?;
    let want = json!({
        "api": { "platform": "0.7", "buildpack": "0.7" },
        "apis": {
            "platform": { "deprecated": [], "supported": APIS },
            "buildpack": { "deprecated": [], "supported": ["0.7", "0.8", "0.9", "0.10", "0.11", "0.12"] },
        },
        "lifecycle": {
            "version": VERSION,
            "sbom-formats":
                ["application/vnd.cyclonedx+json", "application/spdx+json", "application/vnd.syft+json"],
        },
    });
    ensure!(descriptor == want, "lifecycle.toml says {descriptor}");
    Ok(())
}

/// What the restorer reads: the smallest phase that root gives the layers away before.
fn restoring() -> Vec<Operation> {
    vec![group("0.10"), Write("/layers/deep/file".to_owned(), String::new())]
}

/// Runs the restorer as root at one API; gives the owners of these files afterwards.
fn owners(packaged: &Packaged, stage: &Stage, api: &str, paths: &[&str]) -> Result<Vec<(u32, u32)>> {
    let script = "CNB_PLATFORM_API=$1 /cnb/lifecycle/restorer -cache-dir /cache 2>&1; echo $?";
    let printed = shell(packaged, stage, Root, script, &[api])?;
    ensure!(printed.lines().last() == Some("0"), "at {api}: {printed}");
    let owner = |path: &&str| -> Result<(u32, u32)> {
        let facts = fs::symlink_metadata(stage.path(path)).with_context(|| format!("look at {path}"))?;
        Ok((facts.uid(), facts.gid()))
    };
    paths.iter().map(owner).collect()
}

fn root_gives_the_layers_away(packaged: &Packaged) -> Result<()> {
    let paths = ["/layers", "/layers/deep", "/layers/deep/file", "/layers/link", "/cache"];
    for api in APIS {
        let mut setup = restoring();
        setup.push(Operation::Symlink("/layers/link".to_owned(), "/cnb".to_owned()));
        let stage = Stage::empty(setup)?;
        for path in paths {
            lchown(stage.path(path), Some(0), Some(0))?;
        }
        let got = owners(packaged, &stage, api, &paths)?;
        ensure!(got.iter().all(|&owner| owner == (UID, GID)), "at {api}: {got:?}");
        let cnb = fs::metadata(stage.path("/cnb"))?;
        ensure!(cnb.uid() == 0, "at {api}: a link was followed");
    }
    Ok(())
}

/// Only the folder itself is looked at: what is in a usable one stays as it is.
fn usable_layers_are_left_alone(packaged: &Packaged) -> Result<()> {
    for api in APIS {
        for (owner, mode, want) in [
            ((UID, 0), 0o755, 0),
            ((0, GID), 0o775, 0),
            ((0, 0), 0o777, 0),
            ((0, GID), 0o755, UID),
            ((0, 0), 0o775, UID),
        ] {
            let stage = Stage::empty(restoring())?;
            lchown(stage.path("/layers/deep"), Some(0), Some(0))?;
            lchown(stage.path("/layers"), Some(owner.0), Some(owner.1))?;
            fs::set_permissions(stage.path("/layers"), fs::Permissions::from_mode(mode))?;
            let got = owners(packaged, &stage, api, &["/layers/deep"])?;
            ensure!(got[0].0 == want, "at {api}, {owner:?} {mode:o}: {got:?}");
        }
    }
    Ok(())
}

fn restores_without_layouts(packaged: &Packaged) -> Result<()> {
    let layer = {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_uid(UID.into());
        header.set_gid(GID.into());
        header.set_size(5);
        tar.append_data(&mut header, "layers/acme_a/kept/file", &b"hello"[..])?;
        tar.into_inner()?
    };
    let sha = sha256(&layer);
    let metadata = json!({ "buildpacks": [{
        "key": "acme/a",
        "version": "1.0.0",
        "layers": { "kept": { "sha": sha, "data": { "n": 1 }, "build": true, "launch": false, "cache": true } },
    }] });
    for api in APIS {
        for user in [Root, Cnb] {
            let cached = "/cache/committed/io.buildpacks.lifecycle.cache.metadata";
            let mut setup = buildpack("0.10", "exit 0", "exit 0");
            setup.extend([group("0.10"), Write(cached.to_owned(), metadata.to_string())]);
            let stage = Stage::empty(setup)?;
            fs::write(stage.path(&format!("/cache/committed/{sha}.tar")), &layer)?;
            let kept = ["/layers/acme_a/kept.toml", "/layers/acme_a/kept/file"];
            let script = "CNB_PLATFORM_API=$1 /cnb/lifecycle/restorer -cache-dir /cache 2>&1; echo $?";
            let printed = shell(packaged, &stage, user, script, &[api])?;
            ensure!(printed.lines().last() == Some("0"), "at {api}: {printed}");
            let read =
                |path| fs::read_to_string(stage.path(path)).with_context(|| format!("at {api}: {printed}"));
            let toml: toml::Table = read(kept[0])?.parse().context("parse the layer's metadata")?;
            ensure!(toml["metadata"]["n"].as_integer() == Some(1), "at {api}: {toml}");
            ensure!(read(kept[1])? == "hello", "at {api}");
            ensure!(fs::metadata(stage.path(kept[1]))?.uid() == UID, "at {api}: it is not the user's");
        }
    }
    Ok(())
}

fn contents(packaged: &Packaged) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(packaged.lifecycle())? {
        let entry = entry?;
        let name = entry.file_name().display().to_string();
        if PHASES.contains(&name.as_str()) {
            let target = fs::read_link(entry.path()).with_context(|| format!("{name} is no link"))?;
            ensure!(target == Path::new("lifecycle"), "{name} leads to {}", target.display());
        } else {
            names.push(name);
        }
    }
    names.sort();
    let mut want = Vec::new();
    for name in ["launcher", "lifecycle"] {
        want.push(name.to_owned());
        want.extend(["cdx", "spdx", "syft"].map(|format| format!("{name}.sbom.{format}.json")));
    }
    ensure!(names == want, "the folder has {names:?}");
    for (name, others) in [("lifecycle", ["zstd-sys", "glibc"]), ("launcher", ["rustix", "toml"])] {
        let read = |format: &str| -> Result<Value> {
            let path = packaged.lifecycle().join(format!("{name}.sbom.{format}.json"));
            serde_json::from_slice(&fs::read(&path)?).with_context(|| format!("parse {}", path.display()))
        };
        let executable = sha256(&fs::read(packaged.lifecycle().join(name))?);
        let executable = executable.trim_start_matches("sha256:");
        let (cdx, spdx, syft) = (read("cdx")?, read("spdx")?, read("syft")?);
        ensure!(cdx["metadata"]["component"]["hashes"][0]["content"] == executable, "{name}: CycloneDX");
        ensure!(spdx["packages"][0]["checksums"][0]["checksumValue"] == executable, "{name}: SPDX");
        ensure!(syft["source"]["metadata"]["digests"][0]["value"] == executable, "{name}: Syft");
        for (document, list) in [(&cdx, "components"), (&spdx, "packages"), (&syft, "artifacts")] {
            let components = document[list].as_array().with_context(|| format!("{name}: {list}"))?;
            for other in others {
                ensure!(components.iter().any(|one| one["name"] == other), "{name}: {list} lack {other}");
            }
        }
    }
    Ok(())
}

/// Other people's tools read the image, and find in it what is in the archive.
fn lifecycle_image(packaged: &Packaged) -> Result<()> {
    let descriptor: toml::Table = packaged.descriptor()?.parse()?;
    let version = descriptor["lifecycle"]["version"].as_str().context("a version")?;
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("image.tar"), &packaged.files.image)?;
    let copy = ["copy", "--quiet", &format!("oci-archive:image.tar:{version}"), "oci:copy:latest"];
    SKOPEO.run(dir.path(), &copy)?;
    Layout::new(dir.path().join("copy")).verify()?;
    tar::Archive::new(packaged.files.image.as_slice()).unpack(dir.path().join("layout"))?;
    let layout = Layout::new(dir.path().join("layout"));
    let faults = layout.faults()?;
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    let image = layout.verify()?.remove(0);

    let labels = &image.config["config"]["Labels"];
    ensure!(labels["io.buildpacks.lifecycle.version"] == version, "{labels}");
    let parse = |key: &str| serde_json::from_str::<Value>(labels[key].as_str().unwrap_or_default());
    let apis = parse("io.buildpacks.lifecycle.apis")?;
    ensure!(apis == serde_json::to_value(&descriptor["apis"])?, "{apis}");
    let legacy = parse("io.buildpacks.builder.metadata")?;
    ensure!(legacy == json!({"lifecycle": {"version": version}, "api": descriptor["api"]}), "{legacy}");

    // `pack builder create` leaves out the first entry of the last layer, and `/cnb/` of the names of the others.
    let last = image.layers.last().context("layers")?;
    let layer = GzDecoder::new(fs::File::open(layout.blob_path(&last.digest))?);
    let mut names = Vec::new();
    for entry in tar::Archive::new(layer).entries()? {
        names.push(String::from_utf8(entry?.path_bytes().into_owned())?);
    }
    ensure!(names[..2] == ["/cnb", "/cnb/lifecycle.toml"], "{names:?}");
    ensure!(names[2..].iter().all(|name| name.starts_with("/cnb/lifecycle")), "{names:?}");

    let scratch = tempfile::tempdir()?;
    let root = tools::Image::new(layout.dir(), version, scratch.path())?.unpack()?;
    let found = tree::read(&root.join("cnb/lifecycle"))?;
    let mut wanted = tree::read(&packaged.lifecycle())?;
    for node in wanted.values_mut() {
        (node.uid, node.gid) = (0, 0);
    }
    let differences = tree::differences(&wanted, &found);
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    ensure!(fs::read_to_string(root.join("cnb/lifecycle.toml"))? == packaged.descriptor()?, "lifecycle.toml");
    let passwd = fs::read_to_string(root.join("etc/passwd"))?;
    ensure!(passwd.starts_with("root:x:0:0:"), "{passwd}");
    let root = root.to_str().context("the path is UTF-8")?;
    let mut analyzer = Command::new("chroot");
    analyzer.args([root, "/cnb/lifecycle/analyzer", "-version"]).env("CNB_PLATFORM_API", "0.15");
    let output = project::succeed(&mut analyzer)?;
    ensure!(output.text().contains(version), "{}", output.text());
    Ok(())
}

/// The launcher is in every app image, and all of them in every builder.
fn executables_are_static_and_small(packaged: &Packaged) -> Result<()> {
    const KIB: usize = 1024;
    let mut sum = 0;
    for (name, most) in [("launcher", 700 * KIB), ("lifecycle", 8 * KIB * KIB)] {
        let bytes = fs::read(packaged.lifecycle().join(name))?;
        ensure!(bytes.len() <= most, "{name} has {} KiB", bytes.len() / KIB);
        sum += bytes.len();
        for section in [".symtab", ".interp"] {
            let found = bytes.windows(section.len()).any(|window| window == section.as_bytes());
            ensure!(!found, "{name} has a section {section}");
        }
    }
    // The Go lifecycle's two are 26 MB.
    ensure!(sum < 24_000_000, "all have {sum} bytes");
    let launcher = fs::read(packaged.lifecycle().join("launcher"))?;
    let dynamic = launcher.windows(8).any(|window| window == b".dynamic");
    ensure!(!dynamic, "the launcher has a dynamic section");
    Ok(())
}

fn packed_twice_the_same(packaged: &Packaged) -> Result<()> {
    ensure!(packaged.files == pack()?, "the second time other files are written");
    Ok(())
}
