//! Dockerfiles that are carried out in sandboxes, as root and as an ordinary user: what their steps see, what is in the layers, what is
//! known of an earlier build, and what is left of builds that fail.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project;
use drydock_acceptance::project::succeed;
use drydock_acceptance::run::Output;
use drydock_acceptance::sandboxed::{House, Who};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use walkdir::WalkDir;

use crate::building::{EVERYBODY, both_at_once};
use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("aside::layers_have_what_steps_changed", layers_have_what_steps_changed),
            ("aside::what_layers_cannot_have", what_layers_cannot_have),
            ("aside::programs_see_what_is_mounted", programs_see_what_is_mounted),
            ("aside::mounts_are_of_what_is_named", mounts_are_of_what_is_named),
            ("aside::secrets_are_on_no_disk", secrets_are_on_no_disk),
            ("aside::what_is_known_is_not_done_again", what_is_known_is_not_done_again),
            ("aside::what_fails_leaves_the_image", what_fails_leaves_the_image),
            ("aside::killed_at_any_moment", killed_at_any_moment),
        ],
    )
}

/// A house whose source is this Dockerfile.
fn house(built: &Built, who: Who, dockerfile: &str) -> Result<House> {
    let dir = tempfile::tempdir().context("make a folder")?;
    fs::write(dir.path().join("Dockerfile"), dockerfile)?;
    fs::write(dir.path().join("file"), "of the context\n")?;
    let house = House::new(
        &built.for_everyone()?.join("drydock"),
        Path::new("/nowhere"),
        who,
        dir.path(),
        dir.path(),
    )?;
    house.own()?;
    Ok(house)
}

const IMPORT: [&str; 3] = ["import", "dockerfile:app", "app"];

fn build(house: &House, further: &[&str]) -> Result<Output> {
    project::run(&mut house.patient(&[&IMPORT, &["--network", "none"][..], further].concat()))
}

fn built(house: &House, further: &[&str]) -> Result<String> {
    let output = build(house, further)?;
    ensure!(output.exit == 0, "exit code {}\n{}", output.exit, output.text());
    house.is_clean().with_context(|| output.text())?;
    Ok(output.text())
}

/// The lines of the layers above the base's, as `drydock tree` tells them.
fn told(house: &House) -> Result<Vec<String>> {
    let text = succeed(&mut house.patient(&["tree", "app"]))?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    let above = lines.skip_while(|line| !line.starts_with("layer 3 "));
    Ok(above.filter(|line| line.starts_with(['+', '-', '~'])).collect())
}

fn layers_have_what_steps_changed(executables: &Built) -> Result<()> {
    let dockerfile = "FROM acme/run:base AS first
USER root
RUN mkdir -p /out/full && echo old >/out/full/old && echo kept >/out/kept && echo gone >/out/gone
RUN true
FROM first
RUN rm -r /out/full /out/gone && mkdir /out/full && echo new >/out/full/new && ln /out/full/new /out/second && \\
    ln -s kept /out/link && chown 1000:1000 /out/kept && chmod 4750 /out/kept && mkfifo /out/fifo
COPY --chown=cnb file /out/deep/er/
WORKDIR /made
";
    for who in EVERYBODY {
        let house = house(executables, who, dockerfile)?;
        built(&house, &[])?;
        let image = house.image()?;
        let layers = image.config["rootfs"]["diff_ids"].as_array().map(Vec::len);
        ensure!(layers == Some(6), "{who:?}: a step that changes nothing makes no layer: {layers:?}");
        let found = told(&house)?;
        let want =
            ["+ folder out", "+ folder out/full", "+ 4 B out/full/old", "+ 5 B out/gone", "+ 5 B out/kept"];
        ensure!(found.starts_with(&want.map(str::to_owned)), "{who:?}: {found:#?}");
        for says in ["out/full/new", "out/second", "out/deep/er/file", "folder made"] {
            ensure!(
                found.iter().any(|line| line.starts_with('+') && line.ends_with(says)),
                "{who:?}: {says}: {found:#?}"
            );
        }
        for left in ["proc", "sys", "dev", "resolv.conf", "hosts", ".drydock"] {
            ensure!(
                !found.iter().any(|line| line.ends_with(left)),
                "{who:?}: `{left}` is in a layer: {found:#?}"
            );
        }
        let script = "ls -A /out /out/full; stat -c '%a %u:%g %h %n' /out/kept /out/full/new /out/deep/er/file; readlink /out/link; \
                      [ -p /out/fifo ]; [ ! -e /out/gone ]";
        let printed =
            succeed(&mut house.patient(&["run", "app", "--network", "none", "--", "sh", "-ec", script]))?;
        let want = "/out:\ndeep\nfifo\nfull\nkept\nlink\nsecond\n\n/out/full:\nnew\n4750 1000:1000 1 /out/kept\n\
                    644 0:0 2 /out/full/new\n644 1000:1000 1 /out/deep/er/file\nkept\n";
        let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
        ensure!(printed == want, "{who:?}: {printed}");
    }
    Ok(())
}

fn what_layers_cannot_have(executables: &Built) -> Result<()> {
    let dockerfile = "FROM acme/run:base AS first\nUSER root\nRUN chmod 700 / && touch /here && echo begins\nUSER cnb\n\
                      RUN echo \"root has $(stat -c %a /)\"\n";
    for who in EVERYBODY {
        let house = house(executables, who, dockerfile)?;
        let text = built(&house, &[])?;
        ensure!(text.contains("root has 755\n"), "{who:?}: {text}");
        // What is known to be too much is said before anything begins.
        let copies = "COPY file /file\n".repeat(150);
        house
            .write("app/Dockerfile", &format!("{dockerfile}{copies}FROM first\nRUN echo begins\n{copies}"))?;
        let output = build(&house, &["--no-cache"])?;
        let text = output.text();
        ensure!(
            output.exit == 4 && text.contains("line 206: the image has too many layers"),
            "{who:?}: {text}"
        );
        ensure!(!text.contains("begins"), "{who:?}: {text}");
        house.is_clean()?;
    }
    Ok(())
}

fn programs_see_what_is_mounted(executables: &Built) -> Result<()> {
    let dockerfile = "FROM acme/run:base AS other
USER root
RUN mkdir /given && echo of-a-stage >/given/file
FROM acme/run:base
USER root
RUN --mount=type=bind,target=/context --mount=type=bind,from=other,source=/given,target=/var/given,rw \\
    cat /context/file /var/given/file && ! touch /context/x 2>/dev/null && touch /var/given/x && echo x >/seen
RUN --mount=type=tmpfs,target=/memory --mount=type=cache,id=c,target=/var/cache/c,uid=1000,mode=700 \\
    grep -q ' /memory tmpfs ' /proc/mounts && touch /memory/x && stat -c '%a %u' /var/cache/c && echo x >>/var/cache/c/n && wc -l </var/cache/c/n
RUN --mount=type=secret,id=s,env=SECRET --mount=type=secret,id=s,uid=1000 stat -c '%a %u' /run/secrets/s && \\
    [ \"$(cat /run/secrets/s)\" = \"$SECRET\" ] && [ ${#SECRET} = 11 ]
RUN --network=none ! grep -q eth /proc/net/dev
USER cnb
RUN id -u && id -g && echo $HOME && as-root && grep -i 'capeff' /proc/self/status
RUN <<END
#!/bin/sh
echo \"a script of $(id -u)\"
END
";
    for who in EVERYBODY {
        let house = house(executables, who, dockerfile)?;
        house.write("secret", "top-secret!")?;
        let text = built(&house, &["--secret", "id=s,src=secret"])?;
        for says in [
            "of the context\nof-a-stage\n",
            "700 1000\n1\n",
            "400 1000\n",
            "1000\n1000\n/home/cnb\n",
            "CapEff:\t0000000000000000\n",
            "a script of 1000\n",
        ] {
            ensure!(text.contains(says), "{who:?}: {says}\n{text}");
        }
        let found = told(&house)?;
        ensure!(found == ["+ 2 B seen"], "{who:?}: what is mounted is in a layer: {found:#?}");
        // The cache is kept for a step that is done again; the umask of whoever builds does not show.
        let arguments =
            [&IMPORT, &["--network", "none", "--secret", "id=s,src=secret", "--no-cache"][..]].concat();
        let inner = house.patient(&arguments);
        let mut command = Command::new("sh");
        command.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
        command
            .current_dir(house.path(""))
            .env_clear()
            .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let text = succeed(&mut command)?.text();
        ensure!(text.contains("700 1000\n2\n"), "{who:?}: {text}");
        ensure!(text.contains("a script of 1000\n"), "{who:?}: {text}");
    }
    Ok(())
}

fn mounts_are_of_what_is_named(executables: &Built) -> Result<()> {
    let dockerfile = |filled: &str| {
        format!(
            "FROM acme/run:base AS filled\nUSER root\nRUN mkdir /o && echo {filled} >/o/f\nFROM acme/run:base\nUSER root\n\
             RUN --mount=target=/bound,source=a[b]c --mount=type=cache,target=/cache,from=filled,source=/o \
             cat /bound /cache/f && echo kept >>/cache/f\n"
        )
    };
    for who in EVERYBODY {
        let house = house(executables, who, &dockerfile("one"))?;
        house.write("app/a[b]c", "named\n")?;
        house.write("app/abc", "other\n")?;
        for (filled, further, says) in [
            ("one", &[][..], "named\none\n"),
            ("one", &["--no-cache"][..], "named\none\nkept\n"),
            ("two", &[][..], "named\ntwo\n"),
        ] {
            house.write("app/Dockerfile", &dockerfile(filled))?;
            let text = built(&house, further)?;
            ensure!(text.contains(says), "{who:?}: {says}\n{text}");
        }
    }
    Ok(())
}

fn secrets_are_on_no_disk(executables: &Built) -> Result<()> {
    const SECRET: &str = "open-sesame-in-clear";
    let dockerfile = "FROM acme/run:base\nUSER root\nRUN --mount=type=secret,id=s,env=S --mount=type=secret,id=s [ $S = $(cat /run/secrets/s) ] && \
                      echo waiting && sleep 300\n";
    for who in EVERYBODY {
        let house = house(executables, who, dockerfile)?;
        let mut command =
            house.command(&[&IMPORT, &["--network", "none", "--secret", "id=s,env=TOKEN"][..]].concat());
        let mut child = command.env("TOKEN", SECRET).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        ensure!(lines.any(|line| line.is_ok_and(|line| line == "waiting")), "the program did not begin");
        child.kill()?;
        child.wait()?;
        while !house.processes().is_empty() {
            thread::sleep(Duration::from_millis(10));
        }
        let mut looked = 0;
        for entry in WalkDir::new(house.path("home")) {
            let entry = entry?;
            if entry.file_type().is_file() {
                let bytes = fs::read(entry.path())?;
                let is_there = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
                ensure!(!is_there, "{who:?}: the secret is in {}", entry.path().display());
                looked += 1;
            }
        }
        ensure!(looked > 0, "{who:?}: nothing is left of the build");
    }
    Ok(())
}

fn what_is_known_is_not_done_again(executables: &Built) -> Result<()> {
    let dockerfile = "FROM acme/run:base\nUSER root\nARG WHO=one\nRUN echo \"installs\" && cat /proc/sys/kernel/random/uuid >/once\nCOPY file /file\n\
                      RUN echo \"for $WHO\"\n";
    for who in EVERYBODY {
        let house = house(executables, who, dockerfile)?;
        let digest = || -> Result<String> { Ok(house.image()?.descriptor.digest) };
        let says = |text: &str| (text.contains("installs\n"), text.contains("for one\n"));
        ensure!(says(&built(&house, &[])?) == (true, true), "{who:?}: nothing is printed");
        let first = digest()?;
        ensure!(says(&built(&house, &[])?) == (false, false), "{who:?}: what is known is done again");
        ensure!(digest()? == first, "{who:?}: another image than before");
        house.write("app/file", "another\n")?;
        ensure!(
            says(&built(&house, &[])?) == (false, true),
            "{who:?}: another file changes too little or too much"
        );
        let text = built(&house, &["--build-arg", "WHO=two"])?;
        ensure!(text.contains("for two\n"), "{who:?}: {text}");
        ensure!(
            says(&built(&house, &["--no-cache"])?) == (true, true),
            "{who:?}: --no-cache takes what is known"
        );
        house.write("app/file", "of the context\n")?;
        built(&house, &[])?;
        ensure!(digest()? != first, "{who:?}: what was done anew is forgotten");
        // How other machines are reached changes nothing, but for a variable of the image that is called so.
        let proxied =
            |value: &str| dockerfile.replace("ARG WHO", &format!("ENV HTTP_PROXY={value}\nARG WHO"));
        for (value, argument, is_done) in [("a", "x", true), ("a", "y", false), ("b", "y", true)] {
            house.write("app/Dockerfile", &proxied(value))?;
            let text = built(&house, &["--build-arg", &format!("https_proxy={argument}")])?;
            ensure!(says(&text).0 == is_done, "{who:?}: HTTP_PROXY={value}, https_proxy={argument}: {text}");
        }
    }
    Ok(())
}

const SLOW: &str = "FROM acme/run:base\nUSER root\nRUN sleep 300 & sleep 0.2; echo one >/one\nCOPY file /file\n\
                    RUN sleep 300 & echo waiting; sleep 0.2; rm /one\n";

fn what_fails_leaves_the_image(executables: &Built) -> Result<()> {
    for who in EVERYBODY {
        let house = house(executables, who, SLOW)?;
        built(&house, &[])?;
        let wanted = house.image()?.descriptor.digest;
        house.write("app/Dockerfile", "FROM acme/run:base\nRUN echo broken >&2; exit 3\n")?;
        let output = build(&house, &[])?;
        ensure!(output.exit != 0 && output.text().contains("broken"), "{}", output.text());
        ensure!(
            output.text().contains("line 2: RUN echo broken >&2; exit 3: exit code 3"),
            "{}",
            output.text()
        );
        house.is_clean()?;
        house.write(
            "app/Dockerfile",
            "FROM acme/run:base\nRUN --mount=type=tmpfs,target=/etc/passwd/x true\n",
        )?;
        let output = build(&house, &[])?;
        let says =
            "line 2: RUN --mount=type=tmpfs,target=/etc/passwd/x true: `/etc/passwd/x` cannot be mounted";
        ensure!(output.exit != 0 && output.text().contains(says), "{}", output.text());
        house.write("app/Dockerfile", "FROM acme/run:base\nRUN echo waiting; sleep 300 & sleep 300\n")?;
        for (signal, exit) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let mut child = house
                .command(&[&IMPORT, &["--network", "none"][..]].concat())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()?;
            let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
            ensure!(lines.any(|line| line.is_ok_and(|line| line == "waiting")), "the program did not begin");
            kill_process(Pid::from_child(&child), signal)?;
            let status = child.wait()?;
            ensure!(status.code() == Some(exit), "{who:?} {signal:?}: {status:?}");
            house.is_clean()?;
        }
        let output = build(&house, &["--timeout", "2s"])?;
        ensure!(
            output.exit == 4 && output.text().contains("--timeout"),
            "{}\n{}",
            output.exit,
            output.text()
        );
        house.is_clean()?;
        ensure!(house.image()?.descriptor.digest == wanted, "{who:?}: another image than before");
    }
    Ok(())
}

/// Kills 50 builds; the next one cleans up, and makes the same image as if nothing had happened.
fn killed_at_any_moment(executables: &Built) -> Result<()> {
    const KILLS: u64 = 25;
    let kill = |who| -> Result<()> {
        let house = house(executables, who, SLOW)?;
        // No file is later, so that the same is made again.
        let further = ["--creation-time", "1700000000", "--no-cache"];
        built(&house, &further)?;
        let wanted = house.image()?.descriptor.digest;
        for round in 0..KILLS {
            let after = Duration::from_millis(20 + 137 * round % 1500);
            house.killed(&[&IMPORT, &["--network", "none"][..], &further].concat(), after)?;
            let found = house.published().with_context(|| format!("{who:?}, round {round}"))?;
            ensure!(found.descriptor.digest == wanted, "{who:?}, round {round}: another image");
        }
        built(&house, &further)?;
        ensure!(house.image()?.descriptor.digest == wanted, "{who:?}: another image than before");
        Ok(())
    };
    both_at_once(&kill)
}
