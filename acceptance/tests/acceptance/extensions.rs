//! `drydock build` with image extensions: both images are extended in sandboxes, as root and as an ordinary user.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::succeed;
use drydock_acceptance::run_image;
use drydock_acceptance::sandboxed::{House, Who};
use libtest_mimic::Trial;

use crate::Built;
use crate::building::{EVERYBODY, Houses, both_at_once, with_houses, write_buildpack};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>, houses: &Arc<Houses>) -> Vec<Trial> {
    with_houses(
        executables,
        houses,
        [
            ("extensions::both_images_are_extended", both_images_are_extended),
            ("extensions::what_changes_is_extended_anew", what_changes_is_extended_anew),
            ("extensions::the_run_image_is_switched", the_run_image_is_switched),
            ("extensions::what_fails_leaves_the_image", what_fails_leaves_the_image),
            ("extensions::no_other_image_takes_its_place", no_other_image_takes_its_place),
            ("extensions::killed_at_any_moment", killed_at_any_moment),
        ],
    )
}

/// A buildpack that needs what an extension installs, and whose process needs what it installs into the run image.
const BUILDPACK: &str = "#!/bin/sh
set -eu
echo \"The buildpack is $(id -u), and has $(tool)\"
[ -O /layers ] || [ -w /layers ]
[ ! -e /layers/of-extension ]
cat >\"$CNB_LAYERS_DIR/launch.toml\" <<END
[[processes]]
type = \"web\"
command = [\"run-tool\"]
default = true
END
";

const BUILD: &str = "ARG base_image
FROM ${base_image}
USER root
RUN echo 'Installing the tool' && touch /layers/of-extension && mkdir /opt && printf '#!/bin/sh\\necho a tool\\n' >/opt/tool && chmod 755 /opt/tool
ENV PATH=$PATH:/opt
ARG user_id
USER ${user_id}
";

const RUN: &str = "ARG base_image
FROM ${base_image}
USER root
RUN echo 'Installing the run tool' && printf '#!/bin/sh\\necho \"a run tool for $(id -u)\"\\n' >/usr/bin/run-tool && \\
    chmod 755 /usr/bin/run-tool && rm -r /home/cnb && mkdir /home/cnb && chown 1000:1000 /home/cnb
LABEL io.buildpacks.rebasable=true
ARG user_id
USER ${user_id}
";

/// A house whose builder has an extension that writes these Dockerfiles.
fn house(
    executables: &Built,
    houses: &Houses,
    who: Who,
    build: Option<&str>,
    run: Option<&str>,
) -> Result<House> {
    let dir = tempfile::tempdir().context("make a folder")?;
    let (cnb, app) = (dir.path().join("cnb"), dir.path().join("app"));
    write_buildpack(&cnb, BUILDPACK)?;
    write_extension(&cnb, build, run)?;
    fs::create_dir(&app)?;
    fs::write(app.join("name"), "the app\n")?;
    houses.house(executables, who, &cnb, &app)
}

fn write_extension(cnb: &Path, build: Option<&str>, run: Option<&str>) -> Result<()> {
    let order = cnb.join("order.toml");
    let text = fs::read_to_string(&order)?;
    let extensions = "[[order-extensions]]\n[[order-extensions.group]]\nid = 'acme/ext'\nversion = '1'\n";
    fs::write(&order, format!("{text}{extensions}"))?;
    let extension = cnb.join("extensions/acme_ext/1");
    fs::create_dir_all(extension.join("bin"))?;
    fs::write(
        extension.join("extension.toml"),
        "api = '0.10'\n[extension]\nid = 'acme/ext'\nversion = '1'\n[[targets]]\nos = 'linux'\n",
    )?;
    let write = |(kind, text): (&str, &str)| {
        format!("cat >\"$CNB_OUTPUT_DIR/{kind}.Dockerfile\" <<'DOCKERFILE'\n{text}DOCKERFILE\n")
    };
    let written = [("build", build), ("run", run)].into_iter().filter_map(|(kind, text)| Some((kind, text?)));
    let generate = format!("#!/bin/sh\nset -eu\n{}", written.map(write).collect::<String>());
    for (name, text) in [("detect", "#!/bin/sh\n"), ("generate", &generate)] {
        let path = extension.join("bin").join(name);
        fs::write(&path, text)?;
        succeed(Command::new("chmod").arg("755").arg(&path))?;
    }
    Ok(())
}

fn both_images_are_extended(executables: &Built, houses: &Houses) -> Result<()> {
    for who in EVERYBODY {
        let house = house(executables, houses, who, Some(BUILD), Some(RUN))?;
        let mut digests = Vec::new();
        for (further, is_first) in [(&[][..], true), (&[], false), (&["--trust-builder"], false)] {
            let output = house.built(further).with_context(|| format!("{who:?} {further:?}"))?;
            let text = output.text();
            ensure!(text.contains("The buildpack is 1000, and has a tool\n"), "{who:?}: {text}");
            for says in ["Installing the tool\n", "Installing the run tool\n"] {
                ensure!(text.contains(says) == is_first, "{who:?} {further:?}: {says}\n{text}");
            }
            digests.push(house.image()?.descriptor.digest);
        }
        ensure!(digests.iter().all(|digest| *digest == digests[0]), "{who:?}: {digests:?}");
        let image = house.image()?;
        ensure!(image.config["config"]["User"] == "1000", "{who:?}: {}", image.config);
        ensure!(image.config["config"]["Labels"]["io.buildpacks.rebasable"] == "true", "{}", image.config);
        let printed = succeed(&mut house.patient(&["run", "app"]))?;
        ensure!(printed.stdout == b"a run tool for 1000\n", "{who:?}: {}", printed.text());
        let files = succeed(&mut house.patient(&["tree", "app"]))?.text();
        for left in ["resolv.conf", "etc/hosts", "layout-repo", "opt/tool", ".drydock"] {
            ensure!(!files.contains(left), "{who:?}: `{left}` is in the image:\n{files}");
        }
        if who == Who::Ordinary {
            let strangers = house.strangers()?;
            ensure!(strangers.is_empty(), "these belong to somebody else: {strangers:?}");
        }
    }
    Ok(())
}

/// What is extended is known by what extensions write, by the app if they copy from it, and never if they ask for the build's ID.
fn what_changes_is_extended_anew(executables: &Built, houses: &Houses) -> Result<()> {
    let copies = format!("{BUILD}COPY name /from-app\n");
    let house = house(executables, houses, Who::Ordinary, Some(&copies), None)?;
    let installs = |output: &str| output.contains("Installing the tool\n");
    let build = || -> Result<bool> { Ok(installs(&house.build(&[])?.text())) };
    ensure!(build()? && !build()?, "the same is done twice");
    house.write("app/name", "another app\n")?;
    ensure!(build()? && !build()?, "another app is the same, or the same another");
    let asks = BUILD.replace("RUN echo", "ARG build_id\nRUN echo $build_id");
    let house = self::house(executables, houses, Who::Ordinary, Some(&asks), None)?;
    let build = || -> Result<bool> { Ok(house.build(&[])?.text().contains("Installing the tool")) };
    ensure!(build()? && build()?, "what asks for the build's ID is done once");
    Ok(())
}

fn the_run_image_is_switched(executables: &Built, houses: &Houses) -> Result<()> {
    let house = house(executables, houses, Who::Ordinary, Some(BUILD), Some("FROM acme/other\n"))?;
    let missing = house.build(&[])?;
    ensure!(missing.exit != 0 && missing.text().contains("acme/other"), "{}", missing.text());
    run_image::write(&house.path("layout-repo/index.docker.io/acme/other/latest"))?;
    house.own()?;
    house.built(&[])?;
    let image = house.image()?;
    let metadata = image.config["config"]["Labels"]["io.buildpacks.lifecycle.metadata"].to_string();
    ensure!(metadata.contains("acme/other/latest@sha256:"), "{metadata}");
    Ok(())
}

fn what_fails_leaves_the_image(executables: &Built, houses: &Houses) -> Result<()> {
    let script = "[ ! -e /workspace/broken ] || { echo 'It fails' >&2; exit 3; }";
    for who in EVERYBODY {
        // The app is no part of the image, but it is there.
        let run = RUN.replace("RUN echo", &format!("ARG build_id\nRUN {script}\nRUN echo"));
        let house = house(executables, houses, who, Some(BUILD), Some(&run))?;
        house.built(&[])?;
        let wanted = house.image()?.descriptor.digest;
        house.write("app/broken", "")?;
        let output = house.build(&[])?;
        ensure!(output.exit == 102, "{who:?}: exit code {}\n{}", output.exit, output.text());
        for says in ["It fails", "run.Dockerfile: line 5: RUN [ ! -e"] {
            ensure!(output.text().contains(says), "{who:?}: `{says}` is not said:\n{}", output.text());
        }
        ensure!(house.image()?.descriptor.digest == wanted, "{who:?}: another image than before");
        house.is_clean()?;
    }
    Ok(())
}

/// A program of an extension sees the folder that the extender writes to.
fn no_other_image_takes_its_place(executables: &Built, houses: &Houses) -> Result<()> {
    let plant = "for dir in /extended/.* /extended/*; do [ ! -d $dir/image ] || \
                 { mv $dir/image $dir/away && ln -s /layout-repo/other $dir/image; }; done";
    // It changes nothing in the image, so that no layer has to be written there.
    let run = format!(
        "ARG base_image\nFROM ${{base_image}}\nUSER root\nRUN {plant}\nARG user_id\nUSER ${{user_id}}\n"
    );
    let house = house(executables, houses, Who::Root, None, Some(&run))?;
    let output = house.build(&[])?;
    let refused = "a program of an extension has put a link into the extended image";
    ensure!(output.exit != 0 && output.text().contains(refused), "{}", output.text());
    house.is_clean()
}

/// Kills 50 builds in which both images are extended; what is left is removed by the next one.
fn killed_at_any_moment(executables: &Built, houses: &Houses) -> Result<()> {
    const KILLS: u64 = 25;
    let kill = |who| -> Result<()> {
        // Asked for, the ID of the build makes each of them do all of it.
        let asks = |text: &str| text.replace("RUN echo", "ARG build_id\nRUN sleep 300 & sleep 0.2; echo");
        let house = house(executables, houses, who, Some(&asks(BUILD)), Some(&asks(RUN)))?;
        // No file is later, so that the same is made again.
        let time = ["--creation-time", "1700000000"];
        house.built(&time)?;
        let wanted = house.image()?.descriptor.digest;
        for round in 0..KILLS {
            let after = Duration::from_millis(20 + 137 * round % 2000);
            house.killed(&house.build_arguments(&time)?, after)?;
            house.published().with_context(|| format!("{who:?}, round {round}"))?;
        }
        house.built(&time).with_context(|| format!("{who:?}"))?;
        ensure!(house.image()?.descriptor.digest == wanted, "{who:?}: another image than before");
        Ok(())
    };
    both_at_once(&kill)
}
