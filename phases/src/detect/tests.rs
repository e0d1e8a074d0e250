//! Whole detections, with buildpacks that are shell scripts.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use drydock_spec::analyzed::Analyzed;
use drydock_spec::group::{Group, GroupElement};
use proptest::prelude::*;

use super::*;
use crate::memory_log::MemoryLog;

/// Buildpacks, an order, and all else that a detection needs, in a folder that is gone when dropped.
struct Fixture {
    dir: tempfile::TempDir,
    inputs: Inputs,
    log: MemoryLog,
}

impl Fixture {
    fn new(order: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let inputs = Inputs {
            platform_api: "0.13".parse().unwrap(),
            app_dir: at("app"),
            store: Store { buildpacks_dir: at("buildpacks"), extensions_dir: at("extensions") },
            order_path: at("order.toml"),
            system_path: at("system.toml"),
            analyzed_path: at("analyzed.toml"),
            run_path: at("run.toml"),
            group_path: at("layers/group.toml"),
            plan_path: at("layers/plan.toml"),
            generated_dir: at("layers/generated"),
            platform_dir: at("platform"),
            build_config_dir: at("build-config"),
            temp_dir: at("tmp"),
            os_release_path: at("os-release"),
            exec_env: "production".into(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into()), ("SECRET".into(), "s".into())],
            experimental: Experimental::Refuse,
        };
        let fixture = Self { dir, inputs, log: MemoryLog::default() };
        fixture.write("app/here", "").write("tmp/here", "").write("order.toml", order)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(self, name: &str, text: &str) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Adds a buildpack of version 1. The descriptor's API is 0.12 unless it says otherwise.
    fn buildpack(self, id: &str, descriptor: &str, detect: &str) -> Self {
        let dir = format!("buildpacks/{}/1", id.replace('/', "_"));
        let fixture = self.write(&format!("{dir}/buildpack.toml"), &with_api(descriptor));
        script(&fixture.path(&dir).join("bin/detect"), detect);
        fixture
    }

    fn composite(self, id: &str, order: &str) -> Self {
        let dir = format!("buildpacks/{id}/1");
        self.write(&format!("{dir}/buildpack.toml"), &with_api(order))
    }

    fn extension(self, id: &str, detect: &str, generate: &str) -> Self {
        let dir = format!("extensions/{id}/1");
        let fixture = self.write(&format!("{dir}/extension.toml"), &with_api(""));
        for (name, text) in [("detect", detect), ("generate", generate)] {
            if !text.is_empty() {
                script(&fixture.path(&dir).join("bin").join(name), text);
            }
        }
        fixture
    }

    fn api(mut self, api: &str) -> Self {
        self.inputs.platform_api = api.parse().unwrap();
        self
    }

    fn detect(&self) -> Result<Detected, Error> {
        detect(&self.inputs, &Signals::handle().unwrap(), &self.log)
    }

    /// Who takes part, extensions after a bar; or the kind of the error.
    fn outcome(&self) -> Result<String, Kind> {
        let ids = |elements: &[GroupElement]| {
            elements.iter().map(|element| element.id.clone()).collect::<Vec<_>>().join(" ")
        };
        let Detected { group, .. } = self.detect().map_err(|error| error.kind)?;
        assert_eq!(toml::from_str::<Group>(&self.read("layers/group.toml")).unwrap(), group);
        Ok(match &group.group_extensions[..] {
            [] => ids(&group.group),
            extensions => format!("{} | {}", ids(&group.group), ids(extensions)),
        })
    }

    fn printed(&self) -> String {
        String::from_utf8_lossy(&self.log.printed_with_errors()).into_owned()
    }
}

fn with_api(descriptor: &str) -> String {
    let api = if descriptor.contains("api =") { "" } else { "api = '0.12'\n" };
    format!("{api}{descriptor}")
}

/// Makes a script. Another process writes it: while one of ours has it open for writing, it cannot be run, and a child
/// of another test's could still have it open.
fn script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut shell = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    write!(shell.stdin.take().unwrap(), "#!/bin/sh\n{text}\n").unwrap();
    assert!(shell.wait().unwrap().success());
}

/// An order of groups, each `a b? c`: IDs, with `?` if optional.
fn order(groups: &[&str]) -> String {
    order_of("order", groups)
}

fn order_of(key: &str, groups: &[&str]) -> String {
    let member = |word: &str| {
        let id = word.trim_end_matches('?');
        format!("[[{key}.group]]\nid = '{id}'\nversion = '1'\noptional = {}\n", word.ends_with('?'))
    };
    let group = |text: &&str| format!("[[{key}]]\n") + &text.split(' ').map(member).collect::<String>();
    groups.iter().map(group).collect()
}

/// Buildpacks that pass (`p…`), fail (`f…`) or err (`e…`).
fn with_simple(mut fixture: Fixture, ids: &str) -> Fixture {
    for id in ids.split(' ') {
        let code = match &id[..1] {
            "p" => 0,
            "f" => 100,
            _ => 3,
        };
        fixture = fixture.buildpack(id, "", &format!("echo {id} >> runs; exit {code}"));
    }
    fixture
}

#[test]
fn the_first_group_that_passes_is_taken() {
    use Kind::{NoGroup, NoGroupAfterError};
    for (groups, want) in [
        (&["p1"][..], Ok("p1")),
        (&["f", "p1"], Ok("p1")),
        (&["e", "p1"], Ok("p1")),
        (&["p1 f", "p2"], Ok("p2")),
        (&["p1 f? p2"], Ok("p1 p2")),
        (&["p1 e? p2"], Ok("p1 p2")),
        (&["p1 p1 p2"], Ok("p1 p2")),
        (&["f"], Err(NoGroup)),
        (&["f?"], Err(NoGroup)),
        (&["e"], Err(NoGroupAfterError)),
        (&["e", "f"], Err(NoGroupAfterError)),
        (&["f", "f? f?"], Err(NoGroup)),
        (&["e? f"], Err(NoGroupAfterError)),
        (&[], Err(NoGroup)),
        // Composite buildpacks: cp of [f] [p2 p3], cf of [f], ce of [e] [f].
        (&["cp"], Ok("p2 p3")),
        (&["p1 cp p2"], Ok("p1 p2 p3")),
        (&["cf", "p1"], Ok("p1")),
        (&["p1 cf? p2"], Ok("p1 p2")),
        (&["cf"], Err(NoGroup)),
        (&["ce"], Err(NoGroupAfterError)),
        (&["ce? f"], Err(NoGroup)),
        (&["p1 ce? cp? p4"], Ok("p1 p2 p3 p4")),
        (&["p1 cp? f", "p4"], Ok("p4")),
    ] {
        let fixture = with_simple(Fixture::new(&order(groups)), "p1 p2 p3 p4 f e")
            .composite("cp", &order(&["f", "p2 p3"]))
            .composite("cf", &order(&["f"]))
            .composite("ce", &order(&["e", "f"]));
        assert_eq!(fixture.outcome(), want.map(str::to_owned), "{groups:?}: {}", fixture.printed());
    }
}

#[test]
fn each_buildpack_detects_once() {
    let fixture = with_simple(Fixture::new(&order(&["p1 f", "p1 p2 f", "p1"])), "p1 p2 f");
    assert_eq!(fixture.outcome().unwrap(), "p1");
    let runs = fixture.read("app/runs");
    let mut runs: Vec<&str> = runs.lines().collect();
    runs.sort_unstable();
    assert_eq!(runs, ["f", "p1", "p2"]);
}

#[test]
fn a_cycle_is_an_error() {
    for (composites, want) in [
        (&[("a", "a")][..], "a@1 > a@1"),
        (&[("a", "b"), ("b", "p1 c"), ("c", "a?")], "a@1 > b@1 > c@1 > a@1"),
    ] {
        let mut fixture = with_simple(Fixture::new(&order(&["a"])), "p1");
        for (id, group) in composites {
            fixture = fixture.composite(id, &order(&[group]));
        }
        let error = fixture.detect().unwrap_err();
        assert_eq!(error.kind, Kind::Phase);
        assert!(error.to_string().contains(want), "{error}");
    }
    // What was found elsewhere delays the finding.
    let fixture = with_simple(Fixture::new(&order(&["x", "a"])), "f")
        .composite("x", &order(&["y"]))
        .composite("y", &order(&["f"]))
        .composite("a", &order(&["a"]));
    let error = fixture.detect().unwrap_err();
    assert!(error.to_string().ends_with("a@1 > a@1"), "{error}");
    // Twice in a row is no cycle.
    let fixture = with_simple(Fixture::new(&order(&["c c c"])), "p1").composite("c", &order(&["p1"]));
    assert_eq!(fixture.outcome().unwrap(), "p1");
}

#[test]
fn depth_and_breadth_of_orders_are_bounded() {
    let deep = 500;
    let mut fixture = with_simple(Fixture::new(&order(&["c0"])), "p1");
    for n in 0..deep {
        let inner = if n + 1 < deep { format!("c{}", n + 1) } else { "p1".into() };
        fixture = fixture.composite(&format!("c{n}"), &order(&[&inner]));
    }
    let on_a_small_stack = std::thread::Builder::new().stack_size(128 * 1024);
    let fixture = on_a_small_stack
        .spawn(move || {
            assert_eq!(fixture.outcome().unwrap(), "p1");
            fixture
        })
        .unwrap()
        .join()
        .unwrap();

    // Each stands for two of the next: a million million in all.
    let mut fixture = fixture.write("order.toml", &order(&["c0"]));
    for n in 0..40 {
        let inner = format!("c{}", n + 1);
        fixture = fixture.composite(&format!("c{n}"), &order(&[&format!("{inner} {inner}")]));
    }
    fixture = fixture.composite("c40", &order(&["p1"]));
    let error = fixture.detect().unwrap_err();
    assert!(error.to_string().contains("too many groups"), "{error}");
}

#[test]
fn the_environment_of_detect() {
    let fixture = Fixture::new(&order(&["a/b"]))
        .buildpack("a/b", "", "env | grep -v -e ^PWD= -e ^SHLVL= -e ^_= | sort; pwd; echo \"$@\" >&2; exit 1")
        .write("platform/env/GIVEN", "yes")
        .write("os-release", "ID=debian\nVERSION_ID=12\n");
    fixture.outcome().unwrap_err();
    let printed = fixture.printed().replace(fixture.dir.path().to_str().unwrap(), "");
    let plan = printed.split("CNB_BUILD_PLAN_PATH=").nth(1).unwrap().lines().next().unwrap();
    assert!(plan.starts_with("/tmp/plan.") && plan.ends_with("/plan.toml"), "{plan}");
    let arch = drydock_model::platform::Platform::host().architecture;
    assert_eq!(
        printed.replace(plan, "PLAN"),
        format!(
            "======== Output: a/b@1 ========\nCNB_BUILDPACK_DIR=/buildpacks/a_b/1\nCNB_BUILD_PLAN_PATH=PLAN\n\
             CNB_EXEC_ENV=production\nCNB_PLATFORM_DIR=/platform\nCNB_TARGET_ARCH={arch}\n\
             CNB_TARGET_DISTRO_NAME=debian\nCNB_TARGET_DISTRO_VERSION=12\nCNB_TARGET_OS=linux\nGIVEN=yes\n\
             PATH=/usr/bin:/bin\n/app\n/platform PLAN\n======== Results ========\nerr:  a/b@1 (1)\n"
        )
    );
    assert!(!fixture.path(plan.trim_start_matches('/')).exists());
}

#[test]
fn without_an_app_nothing_is_run() {
    for (app, reason) in [("missing", "no such file or directory"), ("order.toml", "not a directory")] {
        let mut fixture = with_simple(Fixture::new(&order(&["p"])), "p");
        fixture.inputs.app_dir = fixture.path(app);
        let error = fixture.detect().unwrap_err();
        assert_eq!(error.kind, Kind::General);
        let want = format!("failed to initialize detector: open {}: {reason} (", fixture.path(app).display());
        assert!(error.to_string().starts_with(&want), "{error}");
        assert_eq!(fixture.printed(), "");
    }
}

#[test]
fn output_is_never_a_format() {
    let fixture = Fixture::new(&order(&["a"])).buildpack("a", "", "printf '100%% done {} %%s'; exit 100");
    assert_eq!(fixture.outcome(), Err(Kind::NoGroup));
    assert!(fixture.printed().contains("\n100% done {} %s\n"), "{}", fixture.printed());
    assert!(
        fixture.log.text().contains("Error: Please check that you are running against the correct path.")
    );
}

#[test]
fn what_is_not_usable_is_an_error_of_the_buildpack() {
    for (detect, want) in [
        ("echo '= no' > $2", "err:  a@1\n"),
        ("rm $2", "err:  a@1\n"),
        (
            "echo '[[requires]]\nname=\"x\"\nversion=\"1\"' > $2",
            "\"metadata.version\" should be used instead",
        ),
        ("kill -9 $$", "err:  a@1\n"),
        ("exit 7", "err:  a@1 (7)\n"),
    ] {
        let fixture = Fixture::new(&order(&["a"])).buildpack("a", "", detect);
        assert_eq!(fixture.outcome(), Err(Kind::NoGroupAfterError), "{detect}");
        assert!(fixture.printed().contains(want), "{detect}: {}", fixture.printed());
    }
    let fixture = Fixture::new(&order(&["a"])).buildpack("a", "", "");
    fs::remove_file(fixture.path("buildpacks/a/1/bin/detect")).unwrap();
    assert_eq!(fixture.outcome(), Err(Kind::NoGroupAfterError));
    assert!(fixture.printed().contains("bin/detect"), "{}", fixture.printed());
}

#[test]
fn targets_and_execution_environments() {
    let windows = "[[targets]]\nos = 'windows'\n";
    let for_test = "[buildpack]\nexec-env = ['test']\n";
    let for_test_as_table = "[[buildpack.exec-env]]\nname = 'test'\n";
    for (api, descriptor, order_text, want) in [
        ("0.12", windows, "x p1", Err(Kind::NoGroupAfterError)),
        ("0.12", windows, "x? p1", Ok("x p1")),
        ("0.11", windows, "x p1", Ok("x p1")),
        ("0.15", for_test, "x p1", Ok("p1")),
        ("0.15", for_test_as_table, "x p1", Ok("p1")),
        ("0.14", for_test, "x p1", Ok("x p1")),
        ("0.15", "api = '0.11'\n[buildpack]\nexec-env = ['test']\n", "x p1", Ok("x p1")),
    ] {
        let fixture =
            with_simple(Fixture::new(&order(&[order_text])), "p1").buildpack("x", descriptor, "").api(api);
        assert_eq!(fixture.outcome(), want.map(str::to_owned), "{api} {descriptor}");
    }
}

#[test]
fn how_targets_were_compared_is_told_at_debug_level() {
    let targets =
        "[[targets]]\nos = 'windows'\n[[targets]]\narch = 'm68k'\n[[targets]]\ndistros = [{name = 'arch'}]\n";
    let analyzed = "[run-image]\nreference = 'r'\n[run-image.target]\nos = 'linux'\narch = 'arm64'\n\
        distro = {name = 'debian', version = '12'}\n";
    let fixture = with_simple(Fixture::new(&order(&["x? p1"])), "p1")
        .buildpack("x", targets, "exit 100")
        .composite("p1", "[[targets]]\nos = 'linux'\n")
        .write("analyzed.toml", analyzed);
    assert_eq!(fixture.outcome().unwrap(), "p1");
    let said = fixture.log.text();
    let told: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("Debug: ")).collect();
    for want in [
        r#"Run image target: {"os":"linux","arch":"arm64","distro":{"name":"debian","version":"12"}}"#,
        r#"Target {"os":"windows","arch":""} of x@1 does not fit: os is `windows`, but the image's is `linux`"#,
        r#"Target {"os":"","arch":"m68k"} of x@1 does not fit: arch is `m68k`, but the image's is `arm64`"#,
        r#"Target {"os":"","arch":"","distros":[{"name":"arch","version":""}]} of x@1 does not fit: none of the distros is the image's, `debian 12`"#,
        "x@1 detects all the same: it is optional",
        r#"Target {"os":"linux","arch":""} of p1@1 fits"#,
    ] {
        assert!(told.contains(&want), "{want}: {said}");
    }
}

#[test]
fn what_is_missing_to_begin_with() {
    let error = |fixture: Fixture| {
        let error = fixture.detect().unwrap_err();
        (error.kind, error.to_string())
    };
    let (kind, text) = error(Fixture::new(&order(&["a"])));
    assert_eq!(kind, Kind::General);
    assert!(text.starts_with("failed to initialize detector: buildpack `a@1`"), "{text}");
    let (kind, text) = error(Fixture::new("= no"));
    assert!(kind == Kind::General && text.contains("order.toml"), "{text}");
    let fixture = Fixture::new("");
    let path = fixture.path("order.toml");
    fs::remove_file(&path).unwrap();
    let want = "failed to initialize detector: reading order: failed to read order file: open ";
    assert_eq!(error(fixture).1, format!("{want}{}: no such file or directory", path.display()));
    let (kind, text) = error(Fixture::new(&order(&["a"])).buildpack("a", "api = '99.0'", ""));
    assert!(
        kind == Kind::BuildpackApi && text.starts_with("failed to set API for Buildpack 'a@1'"),
        "{text}"
    );
    let (kind, text) = error(Fixture::new(&order(&["../../x"])));
    assert!(kind == Kind::General && text.contains(".._.._x"), "{text}");
}

const PROVIDES: &str = "echo '[[provides]]\nname=\"x\"' > $2";
const REQUIRES: &str = "echo '[[requires]]\nname=\"x\"\n[requires.metadata]\nn=1' > $2";
const BUILD: &str = "printf 'ARG base_image\\nFROM ${base_image}\\nRUN x\\nCMD y\\n' > $1/build.Dockerfile";

fn with_extensions(groups: &[&str], extensions: &[&str]) -> Fixture {
    let text = order(groups) + &order_of("order-extensions", extensions);
    let analyzed =
        "[run-image]\nreference = 'old@1'\nimage = 'old'\n[run-image.target]\nos = 'linux'\narch = 'amd64'\n";
    Fixture::new(&text).write("analyzed.toml", analyzed).buildpack("a", "", REQUIRES)
}

#[test]
fn an_extension_provides_and_generates() {
    let generate = format!("env | grep ^CNB_; cat $3; echo \"$@\"; {BUILD}");
    let fixture = with_extensions(&["a"], &["missing-nothing e", "e"])
        .extension("missing-nothing", "exit 100", "")
        .extension("e", PROVIDES, &generate);
    assert_eq!(fixture.outcome().unwrap(), "a | e");
    let printed = String::from_utf8(fixture.log.printed()).unwrap();
    for want in
        ["CNB_EXTENSION_DIR=", "CNB_OUTPUT_DIR=", "CNB_PLATFORM_DIR=", "CNB_BP_PLAN_PATH=", "CNB_TARGET_OS="]
    {
        assert!(printed.contains(want), "{want}: {printed}");
    }
    assert!(!printed.contains("CNB_EXEC_ENV") && printed.contains("name = \"x\"\n"), "{printed}");
    assert!(fixture.path("layers/generated/e/build.Dockerfile").exists());
    assert_eq!(fixture.read("layers/plan.toml"), "");
    assert!(fixture.log.text().contains("Warn: build.Dockerfile command CMD on line 4 is not recommended"));
    let analyzed: Analyzed = toml::from_str(&fixture.read("analyzed.toml")).unwrap();
    assert_eq!(analyzed.run_image.unwrap().image, "old");
}

#[test]
fn what_buildpacks_have_put_there_is_not_generated() {
    for (api, dirs) in
        [("0.12", ["generated/run/e", "generated/build/e"]), ("0.13", ["generated/e", "generated/e/context"])]
    {
        let mut fixture = with_extensions(&["a"], &["e"]).extension("e", PROVIDES, BUILD).api(api);
        fixture.inputs.experimental = Experimental::Allow;
        for name in dirs
            .iter()
            .flat_map(|dir| ["Dockerfile", "run.Dockerfile"].map(|name| format!("layers/{dir}/{name}")))
        {
            fixture = fixture.write(&name, "FROM planted");
        }
        assert_eq!(fixture.outcome().unwrap(), "a | e");
        let found = walkdir::WalkDir::new(fixture.path("layers/generated")).into_iter().map(Result::unwrap);
        let found: Vec<_> = found.filter(|entry| entry.file_type().is_file()).collect();
        let want =
            if api == "0.12" { "generated/build/e/Dockerfile" } else { "generated/e/build.Dockerfile" };
        assert_eq!(found.len(), 1, "{api}: {found:?}");
        assert!(
            found[0].path().ends_with(want) && !fixture.read(&format!("layers/{want}")).contains("planted")
        );
    }
}

#[test]
fn the_last_run_image_to_be_named_is_taken() {
    let from = |lines: &str| format!("{PROVIDES}\x00printf '{lines}' > $1/run.Dockerfile");
    for (first, second, image, extend, ignored) in [
        ("FROM new", "FROM ${base_image}\\nRUN x", "new", true, false),
        ("FROM one\\nRUN x", "FROM two", "two", false, true),
        ("FROM ${base_image}\\nRUN x", "FROM ${base_image}", "old", true, false),
        ("FROM ${base_image}\\nRUN x", "FROM old", "old", false, true),
    ] {
        for api in ["0.12", "0.13"] {
            let (first_scripts, second_scripts) = (from(first), from(second));
            let scripts = |text: &str| -> (String, String) {
                let (detect, generate) = text.split_once('\x00').unwrap();
                (detect.into(), generate.into())
            };
            let ((d1, g1), (d2, g2)) = (scripts(&first_scripts), scripts(&second_scripts));
            let mut fixture = with_extensions(&["a"], &["e1 e2"])
                .extension("e1", &d1, &g1)
                .extension("e2", &d2, &g2)
                .api(api);
            fixture.inputs.experimental = Experimental::Allow;
            let run_image = fixture.detect().unwrap().analyzed.run_image.unwrap();
            assert_eq!((run_image.image.as_str(), run_image.extend), (image, extend), "{first} {second}");
            assert_eq!(run_image.target.is_none(), image != "old");
            let path =
                if api == "0.12" { "generated/run/e1/Dockerfile" } else { "generated/e1/run.Dockerfile" };
            let name = format!("layers/{path}{}", if ignored { ".ignore" } else { "" });
            assert!(fixture.path(&name).exists(), "{api} {name}");
            assert_eq!(fixture.log.text().contains("not found in run metadata"), image != "old");
        }
    }
}

#[test]
fn a_run_image_is_known_by_any_digest() {
    let generate = format!("printf 'FROM acme/new@sha256:{}' > $1/run.Dockerfile", "a".repeat(64));
    let fixture = with_extensions(&["a"], &["e"])
        .extension("e", PROVIDES, &generate)
        .write("run.toml", "[[images]]\nimage = 'x'\nmirrors = ['index.docker.io/acme/new:latest']\n");
    fixture.detect().unwrap();
    assert!(!fixture.log.text().contains("not found in run metadata"), "{}", fixture.log.text());
}

#[test]
fn an_extension_without_executables() {
    let fixture = with_extensions(&["a"], &["e"])
        .extension("e", "", "")
        .write("extensions/e/1/detect/plan.toml", "[[provides]]\nname = 'x'\n")
        .write("extensions/e/1/generate/build.Dockerfile", "ARG base_image\nFROM ${base_image}\n")
        .write("extensions/e/1/generate/context/file", "c");
    assert_eq!(fixture.outcome().unwrap(), "a | e");
    assert_eq!(fixture.read("layers/generated/e/context/file"), "c");
    assert!(fixture.path("layers/generated/e/build.Dockerfile").exists());
}

#[test]
fn what_extensions_may_not() {
    for (generate, kind, want) in [
        ("exit 3", Kind::ExtensionFailed, "exit status 3"),
        (
            "echo 'FROM x' > $1/build.Dockerfile",
            Kind::Generate,
            "failed to parse build.Dockerfile for extension e: ",
        ),
        (
            "echo 'FOO x' > $1/run.Dockerfile",
            Kind::Generate,
            "failed to parse run.Dockerfile for extension e: ",
        ),
        ("printf '[[run.args]]\\nname=\"user_id\"' > $1/extend-config.toml", Kind::Generate, "`user_id`"),
        ("mkdir $1/context $1/context.run", Kind::Generate, "shared context"),
    ] {
        let fixture = with_extensions(&["a"], &["e"]).extension("e", PROVIDES, generate);
        let error = fixture.detect().unwrap_err();
        assert_eq!(error.kind, kind, "{generate}: {error}");
        assert!(error.to_string().contains(want), "{generate}: {error}");
    }
    let requires = REQUIRES;
    let fixture = with_extensions(&["a"], &["e"]).extension("e", requires, "");
    assert!(fixture.outcome().is_err());
    assert!(fixture.printed().contains("outputs \"requires\" which is not allowed"), "{}", fixture.printed());
}

#[test]
fn extensions_are_experimental_before_0_13() {
    let requested = "Platform requested experimental feature 'Dockerfiles'\n";
    for (api, experimental, want, level) in [
        ("0.12", Experimental::Refuse, Err(Kind::General), "Error: "),
        ("0.12", Experimental::Warn, Ok("a | e"), "Info: "),
        ("0.12", Experimental::Allow, Ok("a | e"), ""),
        ("0.13", Experimental::Refuse, Ok("a | e"), ""),
    ] {
        let mut fixture = with_extensions(&["a"], &["e"]).extension("e", PROVIDES, BUILD).api(api);
        fixture.inputs.experimental = experimental;
        assert_eq!(fixture.outcome(), want.map(str::to_owned), "{api} {experimental:?}");
        let said = fixture.log.text();
        assert_eq!(said.contains(requested), !level.is_empty(), "{said}");
        assert!(level.is_empty() || said.contains(&(level.to_owned() + requested)), "{said}");
    }
}

#[test]
fn a_group_of_extensions_alone_does_not_pass() {
    let fixture = Fixture::new(&(order(&["f"]) + &order_of("order-extensions", &["e"])))
        .extension("e", "exit 0", "")
        .buildpack("f", "", "exit 100");
    assert_eq!(fixture.outcome(), Err(Kind::NoGroup));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_order_panics(
        text in r"(\[\[order(-extensions|\.group)?\]\]|id|version|optional| = |'a'|'1'|'\.\.'|true|\n|[\[\]{},]){0,40}",
        composite in r"(\[\[(order|order\.group|targets)\]\]|id|version|api| = |'a'|'0\.10'|'1'|\n){0,40}",
    ) {
        let fixture = Fixture::new(&text).write("buildpacks/a/1/buildpack.toml", &composite);
        let _ = fixture.detect();
    }
}
