//! Whole builds with buildpacks that are shell scripts.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use drydock_spec::launch::{Command, Label, Slice};
use proptest::prelude::*;

use super::*;
use crate::memory_log::MemoryLog;

/// All folders of a build, with buildpacks in them.
struct Scene {
    root: tempfile::TempDir,
    inputs: Inputs,
    log: MemoryLog,
}

impl Scene {
    /// Of buildpacks given as ID, Buildpack API and script. `$layers` and `$plan` are the script's arguments.
    fn new(buildpacks: &[(&str, &str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let inputs = Inputs {
            platform_api: PlatformApi::NEWEST,
            app_dir: path("app"),
            store: Store { buildpacks_dir: path("buildpacks"), extensions_dir: path("extensions") },
            layers_dir: path("layers"),
            platform_dir: path("platform"),
            build_config_dir: path("build-config"),
            temp_dir: path("tmp"),
            os_release_path: path("os-release"),
            analyzed_path: path("layers/analyzed.toml"),
            group_path: path("layers/group.toml"),
            plan_path: path("layers/plan.toml"),
            exec_env: "production".into(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        };
        let scene = Self { inputs, log: MemoryLog::default(), root };
        let mut group = String::new();
        for (id, api, script) in buildpacks {
            writeln!(group, "[[group]]\nid='{id}'\nversion='1'\napi='{api}'").unwrap();
            let dir = format!("buildpacks/{}/1", id.replace('/', "_"));
            scene.write(
                &format!("{dir}/buildpack.toml"),
                &format!("api='{api}'\n[buildpack]\nid='{id}'\nsbom-formats=['application/spdx+json']\n"),
            );
            scene.write(
                &format!("{dir}/bin/build"),
                &format!("#!/bin/sh\nset -e\nlayers=$1 plan=$3\n{script}\n"),
            );
            let executable = scene.root.path().join(dir).join("bin/build");
            fs::set_permissions(executable, Permissions::from_mode(0o755)).unwrap();
        }
        scene.write("layers/group.toml", &group);
        scene.write("layers/plan.toml", "");
        scene.write("app/file", "");
        scene.write("tmp/file", "");
        scene
    }

    fn write(&self, path: &str, text: &str) {
        file::write(&self.root.path().join(path), text.as_bytes()).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.path().join(path)).unwrap()
    }

    fn exists(&self, path: &str) -> bool {
        self.root.path().join(path).exists()
    }

    fn build(&self) -> Result<BuildMetadata, Error> {
        build(&self.inputs, &Signals::handle().unwrap(), &self.log)
    }

    /// What buildpacks print, with `/` for the root of the scene.
    fn printed(&self) -> String {
        let text = String::from_utf8(self.log.printed()).unwrap();
        text.replace(self.root.path().to_str().unwrap(), "")
    }
}

#[test]
fn a_buildpack_is_given_what_it_needs() {
    let script = "pwd; echo $1 $2; dirname $(dirname $3); cat $3; env | grep CNB_ | grep -v PLAN | sort; \
        [ $3 = $CNB_BP_PLAN_PATH ]; [ ! -s /dev/stdin ]; echo $USERVAR";
    let scene = Scene::new(&[("acme/a", "0.12", script)]);
    scene.write("layers/analyzed.toml", "[run-image.target]\nos='linux'\narch='arm64'\ndistro={name='d'}");
    scene.write("platform/env/USERVAR", "given");
    scene.build().unwrap();
    assert_eq!(
        scene.printed(),
        "/app\n/layers/acme_a /platform\n/tmp\nCNB_BUILDPACK_DIR=/buildpacks/acme_a/1\nCNB_EXEC_ENV=production\n\
         CNB_LAYERS_DIR=/layers/acme_a\nCNB_PLATFORM_DIR=/platform\nCNB_TARGET_ARCH=arm64\n\
         CNB_TARGET_DISTRO_NAME=d\nCNB_TARGET_OS=linux\ngiven\n"
    );
    assert_eq!(fs::read_dir(&scene.inputs.temp_dir).unwrap().count(), 1, "the plan's folder is gone");
}

#[test]
fn output_passes_through_as_it_comes() {
    let script = r"printf '100%% done %%d\n\033[1m'; printf '\377\000' >&2; printf 'no newline'";
    let scene = Scene::new(&[("a", "0.10", script), ("b", "0.10", "echo; (sleep 0.1; echo later) &")]);
    scene.build().unwrap();
    assert_eq!(scene.log.printed(), b"100% done %d\n\x1b[1m\xff\0no newline\nlater\n");
    assert!(!scene.log.text().contains("done"), "{}", scene.log.text());
}

#[test]
fn a_daemon_does_not_hold_the_build_up() {
    // It would hold the output open for much longer than any build lasts.
    let scene = Scene::new(&[("a", "0.10", "sleep 100000 & echo $! > $layers/pid; echo done")]);
    scene.build().unwrap();
    assert_eq!(scene.printed(), "done\n");
    let daemon = scene.read("layers/a/pid").trim().parse().ok().and_then(rustix::process::Pid::from_raw);
    assert_eq!(rustix::process::test_kill_process(daemon.unwrap()), Err(rustix::io::Errno::SRCH));
}

#[test]
fn failures_are_told_apart() {
    for (script, kind, message) in [
        ("exit 7", Kind::BuildpackFailed, "exit status 7 from"),
        ("kill -9 $$", Kind::BuildpackFailed, "signal: SIGKILL from"),
        ("echo 'launch=true' > $layers/l.toml", Kind::Phase, "should be in the types table of"),
        ("echo '[types' > $layers/l.toml", Kind::Phase, "l.toml"),
        ("echo '[[processes' > $layers/launch.toml", Kind::Phase, "launch.toml"),
        ("printf '[[unmet]]\nname=\"q\"' > $layers/build.toml", Kind::Phase, "unmet.name 'q' must match"),
        (
            "echo > $layers/launch.sbom.cdx.json",
            Kind::Phase,
            "for buildpack: 'acme/a@1': undeclared SBOM media type",
        ),
        (
            "printf '[[processes]]\ntype=\"w\"\ncommand=[]' > $layers/launch.toml",
            Kind::Phase,
            "process 'w' has no command",
        ),
        (
            "mkdir -p $layers/l/env; ln -s x $layers/l/env/A; printf '[types]\nbuild=true' > $layers/l.toml",
            Kind::Phase,
            "l/env",
        ),
    ] {
        let scene = Scene::new(&[("acme/a", "0.10", script), ("acme/b", "0.10", "echo not reached")]);
        let error = scene.build().unwrap_err();
        assert_eq!(error.kind, kind, "{script}: {error}");
        assert!(error.to_string().contains(message), "{script}: {error}");
        assert!(error.to_string().contains("acme/a@1"), "{script}: {error}");
        assert_eq!(scene.printed(), "", "{script}");
        assert!(!scene.exists("layers/config/metadata.toml"), "{script}");
    }
}

#[test]
fn what_is_not_there_is_named() {
    let scene = Scene::new(&[("a", "0.10", "")]);
    fs::remove_file(scene.root.path().join("buildpacks/a/1/bin/build")).unwrap();
    let error = scene.build().unwrap_err();
    assert_eq!(error.kind, Kind::BuildpackFailed);
    assert!(error.to_string().contains("buildpacks/a/1/bin/build"), "{error}");

    for (file, kind) in [
        ("buildpacks/a/1/buildpack.toml", Kind::Phase),
        ("layers/plan.toml", Kind::General),
        ("layers/group.toml", Kind::General),
        ("app", Kind::General),
    ] {
        fs::rename(scene.root.path().join(file), scene.root.path().join("removed")).unwrap();
        let error = scene.build().unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.to_string().contains(file), "{error}");
        drop(fs::remove_file(scene.root.path().join("removed")));
    }
    assert!(scene.log.text().contains("No analyzed metadata found at path"), "{}", scene.log.text());
}

#[test]
fn unsupported_apis_are_refused_before_anything_runs() {
    let scene = Scene::new(&[("a", "0.10", "echo not reached"), ("b", "0.99", "")]);
    scene.write("layers/sbom/launch/old", "kept");
    let error = scene.build().unwrap_err();
    assert_eq!(error.kind, Kind::BuildpackApi);
    assert!(error.to_string().contains("'b@1'"), "{error}");
    assert_eq!((scene.printed().as_str(), scene.exists("layers/sbom/launch/old")), ("", true));
}

#[test]
fn plans_get_smaller() {
    let unmet = "printf '[[unmet]]\nname=\"x\"' > $layers/build.toml";
    let show = "grep name $plan || echo none";
    let first = format!("{show}; {unmet}");
    let scene = Scene::new(&[("a", "0.10", &first), ("b", "0.10", show), ("c", "0.10", show)]);
    let all = "providers=[{id='a'}, {id='b'}, {id='c'}]";
    scene.write(
        "layers/plan.toml",
        &format!(
            "[[entries]]\n{all}\nrequires=[{{name='x', metadata={{v=1}}}}]\n[[entries]]\n{all}\nrequires=[{{name='y'}}]\n\
             [[entries]]\nproviders=[{{id='a', extension=true}}]\nrequires=[{{name='z'}}]"
        ),
    );
    scene.build().unwrap();
    let names = "  name = \"x\"\n  name = \"y\"\n  name = \"x\"\nnone\n";
    assert_eq!(scene.printed(), names);
}

#[test]
fn later_buildpacks_see_build_layers() {
    let make = "mkdir -p $layers/l/bin $layers/l/env $layers/n/env; printf one > $layers/l/env/A; \
        printf no > $layers/n/env/B; printf '[types]\nbuild=true' > $layers/l.toml; printf '[types]\nlaunch=true' > $layers/n.toml; \
        mkdir $layers/none; touch $layers/none.toml";
    let scene = Scene::new(&[("a", "0.10", make), ("b", "0.10", "echo $A-$B; echo ${PATH%%:*}")]);
    scene.build().unwrap();
    assert_eq!(scene.printed(), "one-\n/layers/a/l/bin\n");
    assert!(scene.exists("layers/a/none.ignore") && !scene.exists("layers/a/none"));
}

/// Two buildpacks, of which the first speaks an old API.
fn launching() -> Scene {
    let old = "cat > $layers/launch.toml <<'T'
[[processes]]
type = 'web'
command = 'run & wait'
default = true
working-dir = '/w'
[[labels]]
key = 'k'
value = '1'
[[bom]]
name = 'dep'
[bom.metadata]
n = 1
T";
    let new = "cat > $layers/launch.toml <<'T'
[[processes]]
type = 'job'
command = ['a', 'b']
args = ['c']
working-dir = '/w'
[[labels]]
key = 'k'
value = '2'
[[slices]]
paths = ['*.txt']
T
printf '[types]\nlaunch=true\ncache=true' > $layers/l.toml
echo l > $layers/l.sbom.spdx.json; echo b > $layers/build.sbom.spdx.json";
    Scene::new(&[("acme/a", "0.7", old), ("acme/b", "0.9", new)])
}

#[test]
fn metadata_is_returned_and_written() {
    let scene = launching();
    let metadata = scene.build().unwrap();
    let text = scene.read("layers/config/metadata.toml");
    assert_eq!(toml::from_str::<BuildMetadata>(&text).unwrap(), metadata);
    assert!(text.contains(r#"command = ["run \u0026 wait"]"#), "{text}");
    assert_eq!(metadata.buildpack_default_process_type, "web");
    let label = |value: &str| Label { key: "k".into(), value: value.into() };
    assert_eq!(metadata.labels, [label("1"), label("2")]);
    assert_eq!(metadata.slices, [Slice { paths: vec!["*.txt".into()] }]);
    let [job, web] = &metadata.processes[..] else { panic!("{metadata:?}") };
    assert_eq!((job.buildpack_id.as_str(), job.direct, job.working_dir.as_str()), ("acme/b", true, "/w"));
    assert_eq!((web.buildpack_id.as_str(), web.direct, web.working_dir.as_str()), ("acme/a", false, ""));
    assert_eq!(web.command, Command::List(vec!["run & wait".into()]));
    assert!(
        scene.log.text().contains("Ignoring working directory for process 'web'"),
        "{}",
        scene.log.text()
    );
    assert!(scene.log.text().contains("BOM table is deprecated"), "{}", scene.log.text());
}

#[test]
fn what_platform_apis_want_of_boms() {
    const BOM: &str =
        "[{\"name\":\"dep\",\"metadata\":{\"n\":1},\"buildpack\":{\"id\":\"acme/a\",\"version\":\"1\"}}]\n";
    for (api, sbom, legacy) in [(7, false, false), (8, true, false), (9, true, true), (15, true, true)] {
        let mut scene = launching();
        scene.write("layers/sbom/launch/old", "of an earlier build");
        scene.inputs.platform_api = PlatformApi::minor(api);
        let metadata = scene.build().unwrap();
        assert!(!scene.exists("layers/sbom/launch/old"));
        for file in ["launch/acme_b/l", "cache/acme_b/l", "build/acme_b"] {
            assert_eq!(scene.exists(&format!("layers/sbom/{file}/sbom.spdx.json")), sbom, "{api} {file}");
        }
        assert_eq!(metadata.bom.len(), usize::from(!legacy), "{api}");
        if legacy {
            assert_eq!(scene.read("layers/sbom/launch/sbom.legacy.json"), BOM);
            assert_eq!(scene.read("layers/sbom/build/sbom.legacy.json"), "null\n");
        } else {
            assert!(!scene.exists("layers/sbom/launch/sbom.legacy.json"), "{api}");
        }
    }
}

#[test]
fn a_default_can_be_lost() {
    let web = |more: &str| {
        format!("printf '[[processes]]\ntype=\"web\"\ncommand=[\"w\"]\n{more}' > $layers/launch.toml")
    };
    let scene = Scene::new(&[("a", "0.10", &web("default=true")), ("b", "0.10", &web(""))]);
    assert_eq!(scene.build().unwrap().buildpack_default_process_type, "");
    let warning =
        "Warn: redefining the following default process type with a process not marked as default: web\n";
    assert!(scene.log.text().contains(warning), "{}", scene.log.text());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a buildpack leaves behind, the build succeeds or fails.
    #[test]
    fn no_file_of_a_buildpack_panics(
        files in prop::collection::vec(
            (prop::sample::select(vec!["launch.toml", "build.toml", "store.toml", "l.toml"]),
             r#"(\[\[(processes|unmet|bom|labels|slices)\]\]|\[types\]|\[metadata\]|type|command|name|launch|default|key| = |\["a"\]|"a"|true|1|\n|,){0,16}"#),
            1..4))
    {
        let scene = Scene::new(&[("a", "0.10", "")]);
        let platform = scene.inputs.platform_api;
        for (name, text) in files {
            scene.write(&format!("layers/a/{name}"), &text);
        }
        if let Ok(metadata) = scene.build() {
            prop_assert!(metadata.processes.iter().all(|process| process.clone().for_platform(platform) == *process));
            prop_assert!(scene.exists("layers/config/metadata.toml"));
        }
    }
}
