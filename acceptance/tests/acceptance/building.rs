//! `drydock build` and `drydock run`: whole builds of apps in sandboxes, as root and as an ordinary user.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::app_build::AppBuild;
use drydock_acceptance::here;
use drydock_acceptance::packaged::Packaged;
use drydock_acceptance::project::{self, succeed};
use drydock_acceptance::sandboxed::{House, RUN, Who};
use drydock_acceptance::stage::copy;
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use crate::{Built, libcnb, node_app, test};

/// What builds in sandboxes need besides the executables under test: static phases, as they ship.
#[derive(Default)]
pub(crate) struct Houses {
    packaged: OnceLock<Result<Packaged, String>>,
}

impl Houses {
    /// Made when the first test needs it; an error stays one.
    pub(crate) fn packaged(&self) -> Result<&Packaged> {
        let made = self.packaged.get_or_init(|| Packaged::make().map_err(|error| format!("{error:#}")));
        made.as_ref().map_err(|error| anyhow::anyhow!("package the executables: {error}"))
    }

    pub(crate) fn lifecycle(&self) -> Result<PathBuf> {
        let made = self.packaged()?;
        made.open_to_all()?;
        Ok(made.lifecycle())
    }

    /// A house with a builder that has `cnb`.
    pub(crate) fn house(&self, built: &Built, who: Who, cnb: &Path, app: &Path) -> Result<House> {
        House::new(&built.for_everyone()?.join("drydock"), &self.lifecycle()?, who, cnb, app)
    }

    /// A house with one buildpack, `acme/a`, whose `bin/build` is `script`.
    pub(crate) fn with_script(&self, built: &Built, who: Who, script: &str) -> Result<House> {
        let dir = tempfile::tempdir().context("make a folder")?;
        let (cnb, app) = (dir.path().join("cnb"), dir.path().join("app"));
        write_buildpack(&cnb, script)?;
        fs::create_dir(&app)?;
        fs::write(app.join("name"), "the app\n")?;
        self.house(built, who, &cnb, &app)
    }
}

/// A test that builds in sandboxes.
pub(crate) type Test = fn(&Built, &Houses) -> Result<()>;

/// Named tests.
pub(crate) fn with_houses<const N: usize>(
    executables: &Arc<Built>,
    houses: &Arc<Houses>,
    tests: [(&str, Test); N],
) -> Vec<Trial> {
    let trial = |(name, run): (&str, Test)| {
        let (executables, houses) = (Arc::clone(executables), Arc::clone(houses));
        test(name, move || run(&executables, &houses))
    };
    tests.map(trial).into()
}

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>, houses: &Arc<Houses>) -> Vec<Trial> {
    with_houses(
        executables,
        houses,
        [
            ("building::libcnb_as_the_phases_make_it", libcnb_as_the_phases_make_it),
            ("building::node_app_that_answers", node_app_that_answers),
            ("building::options_reach_the_phases", options_reach_the_phases),
            ("building::a_project_says_how_it_is_built", a_project_says_how_it_is_built),
            ("building::images_and_caches_are_no_part_of_the_app", images_and_caches_are_no_part_of_the_app),
            ("building::a_buildpack_changes_no_run_image", a_buildpack_changes_no_run_image),
            ("building::what_fails_says_why", what_fails_says_why),
            ("building::killed_at_any_moment", killed_at_any_moment),
            ("building::interrupted", interrupted),
            ("building::signals_end_what_runs", signals_end_what_runs),
            ("building::two_at_once", two_at_once),
        ],
    )
}

/// A buildpack that makes a layer, and a process that greets.
pub(crate) const GREETER: &str = "#!/bin/sh
set -eu
layer=$CNB_LAYERS_DIR/greeter
if [ -x \"$layer/bin/greet\" ]; then
    echo 'The greeter came back'
else
    echo 'Making a greeter'
    mkdir -p \"$layer/bin\"
    printf '#!/bin/sh\\necho \"Hello from $(cat name)\" \"$@\"\\n' >\"$layer/bin/greet\"
    chmod 755 \"$layer/bin/greet\"
fi
printf '[types]\\nlaunch = true\\ncache = true\\n[metadata]\\nversion = 1\\n' >\"$layer.toml\"
cat >\"$CNB_LAYERS_DIR/launch.toml\" <<END
[[processes]]
type = \"web\"
command = [\"greet\"]
default = true
[[processes]]
type = \"fail\"
command = [\"sh\", \"-c\", \"exit 7\"]
END
";

pub(crate) fn write_buildpack(cnb: &Path, script: &str) -> Result<()> {
    let buildpack = cnb.join("buildpacks/acme_a/1");
    let put = |path: &Path, text: &str| -> Result<()> {
        fs::create_dir_all(path.parent().context("it has a parent")?)?;
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    };
    put(&cnb.join("order.toml"), "[[order]]\n[[order.group]]\nid = 'acme/a'\nversion = '1'\n")?;
    put(&cnb.join("run.toml"), &format!("[[images]]\nimage = '{RUN}'\n"))?;
    put(
        &buildpack.join("buildpack.toml"),
        "api = '0.10'\n[buildpack]\nid = 'acme/a'\nversion = '1'\n[[targets]]\nos = 'linux'\n",
    )?;
    for (name, text) in [("detect", "#!/bin/sh\n"), ("build", script)] {
        let path = buildpack.join("bin").join(name);
        put(&path, text)?;
        succeed(Command::new("chmod").arg("755").arg(&path))?;
    }
    Ok(())
}

pub(crate) const EVERYBODY: [Who; 2] = [Who::Root, Who::Ordinary];

/// Lets root and the ordinary user do the same at the same time.
pub(crate) fn both_at_once(test: &(impl Fn(Who) -> Result<()> + Sync)) -> Result<()> {
    let done = thread::scope(|scope| {
        let both = EVERYBODY.map(|who| scope.spawn(move || test(who)));
        both.map(|one| one.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a test panicked"))))
    });
    done.into_iter().collect()
}

/// Folders of this machine that programs with shared libraries need.
const LIBRARIES: [&str; 4] = ["--volume", "/lib:/lib", "--volume", "/lib64:/lib64"];

fn libcnb_as_the_phases_make_it(built: &Built, houses: &Houses) -> Result<()> {
    let by_hand = AppBuild::new(&here("libcnb-buildpack"), &[])?;
    libcnb::install_buildpack(&by_hand.stage.path("cnb/buildpacks/acme_greeter/0.1.0/bin"))?;
    let cnb = by_hand.stage.path("cnb");
    fs::write(cnb.join("run.toml"), format!("[[images]]\nimage = '{RUN}'\n"))?;
    by_hand.create(&houses.lifecycle()?, &std::collections::BTreeMap::new())?;
    let wanted = by_hand.image()?.descriptor.digest.clone();
    for who in EVERYBODY {
        let house = houses.house(built, who, &cnb, &here("libcnb-buildpack/in/workspace"))?;
        let arguments = [&["--run-image", RUN][..], &LIBRARIES].concat();
        let output = house.built(&arguments)?;
        ensure!(output.text().contains("Installing the greeter"), "{}", output.text());
        ensure!(house.image()?.descriptor.digest == wanted, "{who:?}: another image than by hand");
        let output = house.built(&[&arguments[..], &["--trust-builder"]].concat())?;
        ensure!(output.text().contains("The greeter is there"), "{}", output.text());
        ensure!(house.image()?.descriptor.digest == wanted, "{who:?}, trusted: another image than by hand");
        let log = succeed(&mut house.command(&["log", "app"]))?;
        ensure!(log.text().contains("The greeter is there"), "{who:?}: the log says {}", log.text());
        let printed = succeed(&mut house.patient(&["run", "app", "--env", "GREETING=Salut"]))?;
        ensure!(printed.stdout == b"Salut, world!\n", "{who:?}: {}", printed.text());
        if who == Who::Ordinary {
            let strangers = house.strangers()?;
            ensure!(strangers.is_empty(), "these belong to somebody else: {strangers:?}");
        }
    }
    Ok(())
}

fn node_app_that_answers(built: &Built, houses: &Houses) -> Result<()> {
    let cnb = tempfile::tempdir().context("make a folder")?;
    copy(&here("node-app/in/cnb"), cnb.path())?;
    fs::write(cnb.path().join("run.toml"), format!("[[images]]\nimage = '{RUN}'\n"))?;
    let machine = ["/usr:/usr", "/lib:/lib", "/lib64:/lib64", "/etc:/etc"];
    let machine: Vec<&str> = machine.iter().flat_map(|volume| ["--volume", volume]).collect();
    let proxies: Vec<String> =
        node_app::proxies().iter().map(|(name, value)| format!("--env={name}={value}")).collect();
    let further: Vec<&str> = machine.into_iter().chain(proxies.iter().map(String::as_str)).collect();
    for (who, trust) in [(Who::Ordinary, &[][..]), (Who::Root, &["--trust-builder"][..])] {
        let house = houses.house(built, who, cnb.path(), &here("node-app/in/workspace"))?;
        house.write_run_image(&node_app::node()?)?;
        let arguments = [&further[..], trust].concat();
        let output = house.built(&arguments)?;
        ensure!(output.text().contains("Packages: npm ci"), "{}", output.text());
        let first = house.image()?.descriptor.digest.clone();
        let output = house.built(&arguments)?;
        ensure!(output.text().contains("Packages: those of the build before"), "{}", output.text());
        ensure!(house.image()?.descriptor.digest == first, "{who:?}: the same app is another image");

        let port = free_port()?;
        let env = format!("PORT={port}");
        let network = match who {
            Who::Root => ["--network".to_owned(), "host".to_owned()],
            Who::Ordinary => ["--publish".to_owned(), port.to_string()],
        };
        let arguments = ["run", "app", "--env", &env, &network[0], &network[1]];
        let mut child = house.command(&arguments).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
        let asked = node_app::asks(&line, "soup");
        kill_process(Pid::from_child(&child), Signal::TERM)?;
        let status = child.wait()?;
        asked.with_context(|| format!("{who:?}"))?;
        // It does not handle the signal, which the kernel keeps from process 1 of a namespace.
        ensure!(status.code() == Some(143), "{who:?}: the app was not ended by SIGTERM, but {status:?}");
        house.is_clean()?;
    }
    Ok(())
}

/// A port that nobody listens on.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen")?;
    Ok(listener.local_addr()?.port())
}

/// What phases tell each other in the layers directory is as it was after a buildpack has written there.
fn a_buildpack_changes_no_run_image(built: &Built, houses: &Houses) -> Result<()> {
    let spoil = "if [ \"${SPOIL:-}\" ]; then
    mkdir -p /layers/extended/run /layers/layers
    cp -r /planted /layers/extended/run/image
    mv /layers/analyzed.toml /layers/layers/spoiled.toml
    ln -s /layers/spoiled.toml /layers/analyzed.toml
    for name in spoiled group; do echo spoiled >/layers/$name.toml; done
    rm -rf /layers/sbom && ln -s /layers/layers /layers/sbom
    mkdir /layers/layers/launch && touch /layers/layers/launch/spoiled
fi
";
    for trust in [&[][..], &["--trust-builder"]] {
        let house = houses.with_script(built, Who::Ordinary, &format!("{GREETER}{spoil}"))?;
        let time = [&["--creation-time", "1700000000"], trust].concat();
        house.built(&time)?;
        let image = house.published()?;
        // It stands on the run image, as an extended one does.
        let planted =
            format!("{}:/planted", house.path("layout-repo/index.docker.io/library/app/latest").display());
        let output = house.built(&[&time[..], &["--env", "SPOIL=yes", "--volume", &planted]].concat())?;
        for name in ["analyzed", "group"] {
            let warning = format!("warning: a buildpack has changed {name}.toml, which is as before again");
            // The creator hands on what it knows by no file.
            ensure!(output.text().contains(&warning) == trust.is_empty(), "{}", output.text());
        }
        let (found, wanted) = (house.published()?.descriptor.digest, image.descriptor.digest);
        ensure!(found == wanted, "{trust:?}: {found}, not {wanted}");
        house.is_clean()?;
    }
    Ok(())
}

fn options_reach_the_phases(built: &Built, houses: &Houses) -> Result<()> {
    let house = houses.with_script(
        built,
        Who::Ordinary,
        &format!("{GREETER}echo \"MARK=$MARK OTHER=$OTHER\"\nls /extra\ngrep ' /platform ' /proc/mounts\n"),
    )?;
    house.write("app/file.env", "# variables\nMARK=from-file\nOTHER=from-file\n")?;
    let volume = format!("{}:/extra", house.path("app").display());
    let output = house.built(&[
        "--env-file",
        "app/file.env",
        "--env",
        "MARK=given",
        "--volume",
        &volume,
        "--tag",
        "acme/second:1",
        "--default-process",
        "fail",
        "--creation-time",
        "1700000000",
        "--report-output-dir",
        "home/report",
        "--sbom-output-dir",
        "home/sbom",
        "--cache",
        "home/own-cache",
        "--workspace",
        "/elsewhere",
        "--buildpack",
        "acme/a",
        "--output",
        "oci-archive:home/app.tar",
        "--network",
        "none",
    ])?;
    ensure!(output.text().contains("MARK=given OTHER=from-file\nfile.env\n"), "{}", output.text());
    ensure!(output.text().contains("tmpfs /platform tmpfs"), "variables lie on a disk: {}", output.text());
    let usual = house.build_arguments(&["--volume", &volume, "--env", "MARK=", "--env", "OTHER="])?;
    let like_a_flag = [&usual[..1], &usual[2..], &["--", "-help"]].concat();
    succeed(&mut house.patient(&like_a_flag))?;
    ensure!(house.path("layout-repo/index.docker.io/library/-help/latest/index.json").exists());
    let image = house.image()?;
    ensure!(image.config["created"] == "2023-11-14T22:13:20Z", "{}", image.config);
    ensure!(image.config["config"]["WorkingDir"] == "/elsewhere", "{}", image.config);
    for file in [
        "home/report/report.toml",
        "home/app.tar",
        "home/own-cache",
        "layout-repo/index.docker.io/acme/second/1/index.json",
    ] {
        ensure!(house.path(file).exists(), "{file} is missing");
    }
    let report = fs::read_to_string(house.path("home/report/report.toml"))?;
    let path = fs::canonicalize(house.path("layout-repo/index.docker.io/library/app/latest"))?;
    ensure!(report.contains(&format!("\"{}\"", path.display())), "{report}");
    for (arguments, exit, says) in [
        (&["run", "app"][..], 7, ""),
        (&["run", "app", "--process", "web", "--", "and", "others"], 0, "Hello from the app and others"),
        (&["run", "app", "--process", "none"], 2, "it has `fail`, `web`"),
        (&["run", "app", "--network", "none", "--", "x"], 7, ""),
    ] {
        let output = project::run(&mut house.patient(arguments))?;
        ensure!(
            output.exit == exit && output.text().contains(says),
            "{arguments:?}: {}\n{}",
            output.exit,
            output.text()
        );
    }
    let again = ["--json", "--clear-cache", "--env", "MARK=1", "--env", "OTHER=1", "--volume", &volume];
    let answer = house.built(&again)?;
    let answer: Value = serde_json::from_slice(&answer.stdout).with_context(|| answer.text())?;
    ensure!(answer["phases"].as_array().map(Vec::len) == Some(5), "{answer}");
    ensure!(answer["layers"]["added"].is_number() && answer["digest"].is_string(), "{answer}");
    Ok(())
}

/// Repository and cache may lie in the folder that is built, as they do by default.
fn images_and_caches_are_no_part_of_the_app(built: &Built, houses: &Houses) -> Result<()> {
    let lists = format!(
        "{GREETER}find /workspace -path '*drydock*' -o -path '*layout-repo*' | sed 's/^/seen: /'; ls /workspace\n"
    );
    let house = houses.with_script(built, Who::Ordinary, &lists)?;
    house.write("home/other", "of the app\n")?;
    house.write("name", "the house\n")?;
    let usual = house.build_arguments(&[])?;
    let usual: Vec<&str> = usual.into_iter().filter(|word| !["--path", "app"].contains(word)).collect();
    let usual = [&usual[..1], &["app"], &usual[1..]].concat();
    for (further, count) in [(&[][..], 2), (&["--cache", "home/own"], 3)] {
        let arguments = [&usual[..], &["--path", "."], further].concat();
        let said = succeed(&mut house.patient(&arguments))?.text();
        ensure!(said.contains("\nhome\n") && !said.contains("seen: "), "{said}");
        ensure!(said.matches("is left out of the app").count() == count, "{said}");
    }
    house.write("Dockerfile", &format!("FROM {RUN}\nCOPY . /all\n"))?;
    succeed(&mut house.patient(&["import", "dockerfile:.", "copied"]))?;
    let listed = succeed(&mut house.patient(&["tree", "copied"]))?.text();
    ensure!(listed.contains("all/home/other"), "{listed}");
    ensure!(!listed.contains("all/layout-repo") && !listed.contains("all/home/.cache/drydock"), "{listed}");
    for path in ["layout-repo", "home/.cache/drydock"] {
        let output = project::run(&mut house.patient(&[&usual[..], &["--path", path]].concat()))?;
        ensure!(output.exit == 2 && output.text().contains("no app's source"), "{}", output.text());
    }
    Ok(())
}

/// `project.toml`: the builder, variables, and which files are built.
fn a_project_says_how_it_is_built(built: &Built, houses: &Houses) -> Result<()> {
    let house = houses.with_script(
        built,
        Who::Ordinary,
        &format!("{GREETER}ls /workspace | tr '\\n' ' '; echo $MARK\n"),
    )?;
    house.write("app/app.log", "log\n")?;
    let version =
        "[_]\nschema-version = '0.2'\n[io.buildpacks]\nbuilder = 'acme/builder'\nexclude = ['*.log']\n";
    let env = "[[io.buildpacks.build.env]]\nname = 'MARK'\nvalue = 'described'\nvalu = 'x'\n";
    house.write("app/project.toml", &format!("{version}{env}"))?;
    let usual = house.build_arguments(&[])?;
    let usual: Vec<&str> =
        usual.into_iter().filter(|word| !["--builder", "acme/builder"].contains(word)).collect();
    for (further, says) in
        [(&[][..], "name project.toml described"), (&["--env", "MARK=given"], "name project.toml given")]
    {
        let output = succeed(&mut house.patient(&[&usual[..], further].concat()))?;
        for says in [
            says,
            "project.toml` has keys that mean nothing in its schema version: `io.buildpacks.build.env.valu`",
        ] {
            ensure!(output.text().contains(says), "{says}: {}", output.text());
        }
    }
    fs::remove_file(house.path("app/project.toml"))?;
    let output = project::run(&mut house.patient(&usual))?;
    ensure!(output.exit == 2 && output.text().contains("--builder"), "{}", output.text());
    Ok(())
}

fn what_fails_says_why(built: &Built, houses: &Houses) -> Result<()> {
    let house = houses.with_script(built, Who::Root, "#!/bin/sh\necho broken >&2\nexit 3\n")?;
    symlink("builder", house.path("layout-repo/index.docker.io/acme/alias"))?;
    succeed(&mut house.patient(&["tag", RUN, "acme/package"]))?;
    for (further, exit, says) in [
        (&[][..], 51, "broken"),
        (&["--run-image", "acme/none"][..], 32, "acme/none"),
        (&["--run-image", "acme/none"][..], 32, "note: what it calls `/layout-repo` is `/"),
        (&["--runtime", "no-such-runtime"], 4, "apt-get install crun"),
        (&["--runtime", "/bin/true"], 4, "`/bin/true` has started nothing"),
        (&["--runtime", "/bin/false"], 4, "`/bin/false` has started nothing"),
        (&["--buildpack", "acme/none"], 2, "has no buildpack `acme/none`"),
        (&["--output", "oci-archive:-"], 2, "among what the phases say"),
        (&["--tag", RUN], 2, "the run image of this build"),
        (&["--tag", "acme/builder"], 2, "the builder of this build"),
        (&["--tag", "acme/alias"], 2, "the builder of this build"),
        (&["--buildpack", "acme/package", "--tag", "acme/package"], 2, "the buildpack package of this build"),
        (&["--cache", "app"], 2, "is no cache, as it holds `name`"),
        (&["--workspace", "/cnb"], 2, "need `/cnb/lifecycle` for themselves"),
        (&["--workspace", "/proc/x"], 2, "the kernel's"),
        (&["--workspace", "/extended"], 2, "need `/extended` for themselves"),
        (&["--volume", "/usr:/cnb"], 2, "would hide `/cnb/lifecycle`"),
        (&["--volume", "/usr:/x", "--volume", "/usr:/./workspace/"], 2, "would hide `/workspace`"),
    ] {
        let output = house.build(further)?;
        ensure!(output.exit == exit, "{further:?}: exit code {}\n{}", output.exit, output.text());
        ensure!(output.text().contains(says), "{further:?}: {says} is not said:\n{}", output.text());
        ensure!(
            !house.path("layout-repo/index.docker.io/library/app/latest/index.json").exists(),
            "{further:?}"
        );
    }
    for (arguments, exit, says) in [
        (&["--path", "app/name", "--builder", "acme/builder"][..], 2, "is no folder"),
        (&["--path", "app", "--builder", RUN], 4, "is no builder"),
        (
            &["--path", "app", "--builder", RUN, "--uid", "7", "--gid", "8"],
            4,
            "is no builder: it has no label",
        ),
        (&["--path", "app", "--builder", "acme/none"], 3, "there is no image"),
    ] {
        let lifecycle = houses.lifecycle()?.display().to_string();
        let arguments = [&["build", "app", "--lifecycle", &lifecycle][..], arguments].concat();
        let output = project::run(&mut house.patient(&arguments))?;
        ensure!(output.exit == exit && output.text().contains(says), "{arguments:?}: {}", output.text());
    }
    house.is_clean()
}

/// Kills 50 builds; the next one cleans up, and makes the same image as if nothing had happened.
fn killed_at_any_moment(built: &Built, houses: &Houses) -> Result<()> {
    const KILLS: u64 = 25;
    let kill = |who| -> Result<()> {
        let house = houses.with_script(built, who, &format!("{GREETER}sleep 300 &\nsleep 0.2\n"))?;
        house.built(&[])?;
        let wanted = house.image()?.descriptor.digest.clone();
        for round in 0..KILLS {
            // With layers of earlier builds, and without.
            let further = if round % 2 == 0 { &[][..] } else { &["--clear-cache"] };
            let after = Duration::from_millis(20 + 137 * round % 1500);
            house.killed(&house.build_arguments(further)?, after)?;
            house.published().with_context(|| format!("{who:?}, round {round}"))?;
        }
        house.built(&[]).with_context(|| format!("{who:?}"))?;
        ensure!(house.image()?.descriptor.digest == wanted, "{who:?}: another image than before");
        Ok(())
    };
    both_at_once(&kill)
}

/// Ctrl-C, signals to a process, to its group or to both, and `--timeout` in the middle of a buildpack.
fn interrupted(built: &Built, houses: &Houses) -> Result<()> {
    let house =
        houses.with_script(built, Who::Ordinary, "#!/bin/sh\necho waiting\nsleep 300 & sleep 300\n")?;
    let signals = [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129), (Signal::QUIT, 131)];
    for ((signal, exit), to_group) in signals.into_iter().flat_map(|one| [(one, false), (one, true)]) {
        let mut child = house
            .command(&house.build_arguments(&[])?)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        ensure!(
            lines.any(|line| line.is_ok_and(|line| line.contains("waiting"))),
            "the buildpack did not begin"
        );
        kill_process(Pid::from_child(&child), signal)?;
        if to_group {
            kill_process_group(Pid::from_child(&child), signal)?;
        }
        let status = child.wait()?;
        ensure!(status.code() == Some(exit), "{signal:?}, {to_group}: {status:?}");
        house.is_clean()?;
    }
    let output = house.build(&["--timeout", "2s"])?;
    ensure!(output.exit == 4 && output.text().contains("--timeout"), "{}\n{}", output.exit, output.text());
    house.is_clean()?;
    // While another build has the cache, too.
    let caches =
        fs::read_dir(house.path("home/.cache/drydock/builds"))?.collect::<std::io::Result<Vec<_>>>()?;
    let cache = fs::File::open(caches[0].path())?;
    cache.lock()?;
    let output = house.build(&["--timeout", "1s"])?;
    ensure!(output.exit == 4 && output.text().contains("waiting for another build"), "{}", output.text());
    ensure!(output.text().contains("--timeout"), "{}", output.text());
    house.is_clean()
}

/// As they end it without a sandbox: what handles a signal decides by itself.
fn signals_end_what_runs(built: &Built, houses: &Houses) -> Result<()> {
    let house = houses.with_script(built, Who::Ordinary, GREETER)?;
    for (script, signal, exit) in [
        ("echo ready; exec sleep 300", Signal::TERM, 143),
        ("echo ready; exec sleep 300", Signal::INT, 130),
        ("trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done", Signal::TERM, 5),
        ("trap 'trap - TERM; kill -TERM 1' TERM; echo ready; while :; do sleep 0.1; done", Signal::TERM, 143),
        ("trap 'sleep 1; exit 6' INT; echo ready; while :; do sleep 0.1; done", Signal::INT, 6),
    ] {
        let mut child =
            house.command(&["run", RUN, "--", "sh", "-c", script]).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
        ensure!(line == "ready\n", "{script}: {line}");
        kill_process(Pid::from_child(&child), signal)?;
        let status = child.wait()?;
        ensure!(status.code() == Some(exit), "{script}: {status:?}");
        house.is_clean()?;
    }
    // Ctrl-C on a terminal.
    for (script, exit) in [
        ("echo ready; exec sleep 300", 130),
        ("trap 'exit 5' INT; echo ready; while :; do sleep 0.1; done", 5),
        ("trap '' INT; echo ready; sleep 0.5; exit 6", 6),
        ("/bin/busybox stty -isig; echo ready; sleep 0.5; exit 7", 7),
    ] {
        let inner = house.command(&["run", RUN, "--network", "none", "--", "sh", "-c", script]);
        let mut command = Command::new("python3");
        command.args(["-I", "-S", "-c", CTRL_C]).arg(inner.get_program()).args(inner.get_args());
        command.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = project::run(&mut command)?;
        ensure!(output.exit == exit, "{script}: {}\n{}", output.exit, output.text());
        house.is_clean()?;
    }
    Ok(())
}

/// Gives a program a terminal, and presses Ctrl-C there when it is ready.
const CTRL_C: &str = "import os, pty, signal, sys
signal.alarm(120)
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
said = b''
while b'ready' not in said:
    said += os.read(terminal, 1024)
os.write(terminal, b'\\x03')
try:
    while os.read(terminal, 1024):
        pass
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

/// Two builds of one image wait for one another, those of two do not disturb each other.
fn two_at_once(built: &Built, houses: &Houses) -> Result<()> {
    let house = houses.with_script(built, Who::Ordinary, GREETER)?;
    let other = house
        .build_arguments(&[])?
        .iter()
        .map(|word| if *word == "app" { "other" } else { word })
        .collect::<Vec<_>>();
    // The source's folder has the name of the image.
    let other: Vec<&str> =
        other.iter().enumerate().map(|(at, word)| if at == 5 { "app" } else { word }).collect();
    let commands = [house.build_arguments(&[])?, house.build_arguments(&[])?, other];
    for round in 0..20 {
        let children: Vec<_> = commands
            .iter()
            .map(|arguments| house.patient(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn())
            .collect::<std::io::Result<_>>()?;
        for child in children {
            let output = child.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "round {round}: {said}");
        }
    }
    house.is_clean()?;
    house.image().map(drop)
}
