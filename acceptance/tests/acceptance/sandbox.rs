//! What a sandbox keeps buildpacks and apps from, tried by a buildpack that tries all of it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{self, run, succeed};
use drydock_acceptance::sandboxed::{RUN, Who};
use drydock_acceptance::tree;
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};

use crate::Built;
use crate::building::{GREETER, Houses, with_houses};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>, houses: &Arc<Houses>) -> Vec<Trial> {
    with_houses(
        executables,
        houses,
        [
            ("sandbox::nothing_of_the_machine_is_seen", nothing_of_the_machine_is_seen),
            ("sandbox::nothing_shared_is_changed", nothing_shared_is_changed),
            ("sandbox::links_lead_nowhere", links_lead_nowhere),
            ("sandbox::outputs_follow_no_link", outputs_follow_no_link),
            ("sandbox::networks", networks),
            ("sandbox::published_ports", published_ports),
            ("sandbox::full_disks", full_disks),
            ("sandbox::processes_are_limited", processes_are_limited),
            ("sandbox::phases_run_no_foreign_library", phases_run_no_foreign_library),
            ("sandbox::shells", shells),
            ("sandbox::gc_removes_what_is_old", gc_removes_what_is_old),
        ],
    )
}

const EVERYBODY: [Who; 2] = [Who::Root, Who::Ordinary];

/// Each line of what it prints begins with a word that says what was tried.
const SPY: &str = r#"
echo "status $(grep -E '^(CapEff|CapPrm|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\t' | tr '\n' ' ')"
for path in /layout-repo /cache "$HOUSE" "$HOUSE/home/secret" /proc/1/root/home/cnb/x; do
    if [ -e "$path" ]; then echo "sees $path"; fi
done
echo "processes $(ls /proc | grep -c '^[0-9]')"
if kill -0 1 2>/dev/null && [ "$(id -u)" = 0 ]; then echo "kills"; fi
if mount -t tmpfs none /mnt 2>/dev/null; then echo "mounts"; fi
if mknod /tmp/device b 8 0 2>/dev/null; then echo "makes devices"; fi
if hostname other 2>/dev/null; then echo "renames the machine"; fi
env | sed 's/^/env /'
setsid sleep 300 </dev/null >/dev/null 2>&1 &
"#;

fn nothing_of_the_machine_is_seen(built: &Built, houses: &Houses) -> Result<()> {
    for who in EVERYBODY {
        for trust in [&[][..], &["--trust-builder"][..]] {
            let house = houses.with_script(built, who, &format!("{GREETER}{SPY}"))?;
            house.write("home/secret", "secret\n")?;
            let dir = format!("HOUSE={}", house.path("").display());
            let arguments = house.build_arguments(&[&["--env", &dir][..], trust].concat())?;
            let output = succeed(house.patient(&arguments).env("OF_THE_MACHINE", "1"))?;
            let (text, about) = (output.text(), format!("{who:?} {trust:?}"));
            // The creator is let see the repository and the cache.
            let sees =
                |line: &&str| line.starts_with("sees ") && (trust.is_empty() || line.contains("house"));
            ensure!(!text.lines().any(|line| sees(&line)), "{about}:\n{text}");
            for line in ["kills", "mounts", "makes devices", "renames the machine"] {
                ensure!(!text.lines().any(|found| found == line), "{about}:\n{text}");
            }
            let status = "status CapPrm:0000000000000000 CapEff:0000000000000000 NoNewPrivs:1 Seccomp:2";
            ensure!(text.contains(status), "{about}:\n{text}");
            ensure!(text.contains("env HOME=/home/cnb"), "{about}:\n{text}");
            ensure!(!text.contains("OF_THE_MACHINE"), "{about}:\n{text}");
            let processes = text.lines().find_map(|line| line.strip_prefix("processes "));
            let processes: usize = processes.context("it counts processes")?.parse()?;
            ensure!(processes < 10, "{about}: {processes} processes are seen");
            house.is_clean()?;
        }
    }
    Ok(())
}

/// What a buildpack writes beside its folders is gone with its sandbox, and the unpacked builder is as it was.
fn nothing_shared_is_changed(built: &Built, houses: &Houses) -> Result<()> {
    const WRITER: &str = "
        if [ -e /tmp/mark ]; then echo 'a mark is left'; fi
        echo x >/tmp/mark; echo x >/home/cnb/mark
        rm -rf /home/cnb/.profile; chmod 000 /home/cnb
        for file in /cnb/order.toml /bin/busybox /etc/passwd; do echo x 2>/dev/null >$file && echo \"writes $file\"; done
        true
    ";
    for who in EVERYBODY {
        let house = houses.with_script(built, who, &format!("{GREETER}{WRITER}"))?;
        house.built(&[])?;
        let roots = house.path("home/.cache/drydock/roots");
        let before = tree::read(&roots)?;
        for trust in [&[][..], &["--trust-builder"][..]] {
            let output = house.built(trust)?;
            for said in ["a mark is left", "writes /"] {
                ensure!(!output.text().contains(said), "{who:?}: {}", output.text());
            }
        }
        let changed = tree::differences(&before, &tree::read(&roots)?);
        ensure!(changed.is_empty(), "{who:?}: the unpacked builder has changed: {}", changed.join("\n"));
    }
    Ok(())
}

/// Links that a buildpack plants are not followed by what runs outside its sandbox.
fn links_lead_nowhere(built: &Built, houses: &Houses) -> Result<()> {
    const PLANTER: &str = "
        mkdir -p /layers/sbom/launch/acme_a
        ln -s \"$HOUSE/home/secret\" /layers/sbom/launch/acme_a/secret.json
        ln -s \"$HOUSE/home\" /layers/sbom/launch/home
        ln -s \"$HOUSE/home/secret\" /layers/greeter-link
        ln -s /layout-repo/index.docker.io/acme/run/base/index.json /layers/report.toml
        ln -s \"$HOUSE/home/secret\" /workspace/link
    ";
    for who in EVERYBODY {
        let house = houses.with_script(built, who, &format!("{GREETER}{PLANTER}"))?;
        house.write("home/secret", "the secret\n")?;
        let repository = house.path("layout-repo/index.docker.io/acme");
        let before = tree::read(&repository)?;
        let dir = format!("HOUSE={}", house.path("").display());
        let output =
            house.build(&["--env", &dir, "--sbom-output-dir", "sbom", "--report-output-dir", "report"])?;
        let changed = tree::differences(&before, &tree::read(&repository)?);
        ensure!(changed.is_empty(), "{who:?}: {}\n{}", changed.join("\n"), output.text());
        ensure!(
            fs::read_to_string(house.path("home/secret"))? == "the secret\n",
            "{who:?}: the secret has changed"
        );
        for folder in ["sbom", "report"] {
            let found = Command::new("grep").args(["-rs", "the secret"]).arg(house.path(folder)).output()?;
            ensure!(found.stdout.is_empty(), "{who:?}: {}", String::from_utf8_lossy(&found.stdout));
        }
        house.is_clean()?;
    }
    Ok(())
}

/// Links that another user has planted where root wants copies: what they lead to stays as it is.
fn outputs_follow_no_link(built: &Built, houses: &Houses) -> Result<()> {
    let sbom = "mkdir -p /layers/sbom/launch/acme_a\necho '{}' > /layers/sbom/launch/acme_a/sbom.cdx.json\n";
    let house = houses.with_script(built, Who::Root, &format!("{GREETER}{sbom}"))?;
    let arguments = ["--sbom-output-dir", "out", "--report-output-dir", "out"];
    for dir in ["treasure", "out"] {
        fs::create_dir(house.path(dir)).context("make a folder")?;
    }
    house.write("treasure/file", "root's\n")?;
    symlink("../treasure", house.path("out/launch")).context("plant a link")?;
    symlink("../treasure/file", house.path("out/report.toml")).context("plant a link")?;
    let before = tree::read(&house.path("treasure"))?;
    let output = house.build(&arguments)?;
    ensure!(output.exit != 0 && output.text().contains("out/launch/"), "{}", output.text());
    let changed = tree::differences(&before, &tree::read(&house.path("treasure"))?);
    ensure!(changed.is_empty(), "{}\n{}", changed.join("\n"), output.text());
    ensure!(house.path("out/report.toml").symlink_metadata()?.is_file(), "the report is not there");

    fs::remove_file(house.path("out/launch")).context("remove the link")?;
    house.built(&arguments)?;
    ensure!(house.path("out/launch").is_dir(), "no SBOM was copied");
    Ok(())
}

/// What listens on this machine for itself: at 127.0.0.1, and with an abstract name.
fn networks(built: &Built, houses: &Houses) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen")?;
    let port = listener.local_addr()?.port();
    // Whoever connects is let go at once; this ends with the tests.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let name = format!("drydock-test-{port}");
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?).context("listen")?;
    let script = format!(
        "{GREETER}
        if nc -w 2 127.0.0.1 {port} </dev/null; then echo reaches the machine; fi
        if grep -q {name} /proc/net/unix; then echo sees sockets; fi
        if [ -n \"$(ip -o link show up | grep -v ': lo:')\" ]; then echo is linked; fi\n"
    );
    for who in EVERYBODY {
        let house = houses.with_script(built, who, &script)?;
        for (network, says) in [
            (&["--network", "host"][..], &["reaches the machine", "sees sockets", "is linked"][..]),
            (&["--network", "none"], &[]),
            (&[], &["is linked"]),
        ] {
            let output = house.built(network)?;
            let text = output.text();
            let found: Vec<_> = ["reaches the machine", "sees sockets", "is linked"]
                .into_iter()
                .filter(|said| text.lines().any(|line| line == *said))
                .collect();
            ensure!(found == says, "{who:?}, {network:?}: {text}");
            ensure!(!text.contains("warning: what runs can reach"), "{who:?}, {network:?}: {text}");
        }
    }
    Ok(())
}

/// An app that listens in a network of its own is reached where it is published, by either program that carries packets.
fn published_ports(built: &Built, houses: &Houses) -> Result<()> {
    for who in EVERYBODY {
        let house = houses.with_script(built, who, GREETER)?;
        for carrier in ["pasta", "slirp4netns"] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen")?;
            let port = listener.local_addr()?.port();
            drop(listener);
            let publish = format!("{port}:8080");
            let serve = ["--", "sh", "-c", "echo said >/tmp/file; exec httpd -f -v -p 8080 -h /tmp"];
            let mut command = house.command(&[&["run", RUN, "--publish", &publish][..], &serve].concat());
            if carrier != "pasta" {
                command = without(&command, "pasta");
            }
            let mut child = command.spawn()?;
            let answer = ask(port);
            kill_process(Pid::from_child(&child), Signal::TERM)?;
            let status = child.wait()?;
            let answer = answer.with_context(|| format!("{who:?}, {carrier}: {status:?}"))?;
            ensure!(answer.contains("said"), "{who:?}, {carrier}: {answer}");
            house.is_clean()?;
        }
        let output =
            run(&mut house.patient(&["run", RUN, "--network", "none", "--publish", "1", "--", "true"]))?;
        ensure!(output.exit == 2, "{who:?}: {}", output.text());
    }
    Ok(())
}

/// Hides a program of `/usr/bin` from a command.
fn without(command: &Command, program: &str) -> Command {
    among(command, &format!("mount --bind /dev/null /usr/bin/{program}; exec \"$@\""))
}

/// A command that a script starts among mounts of its own, as `"$@"`.
fn among(command: &Command, script: &str) -> Command {
    let mut among = Command::new("unshare");
    among.args(["--mount", "--", "sh", "-c", &format!("set -e; {script}"), "sh"]);
    among.arg(command.get_program()).args(command.get_args()).env_clear();
    among.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = command.get_current_dir() {
        among.current_dir(dir);
    }
    among
}

/// What a server says that may not be there yet.
fn ask(port: u16) -> Result<String> {
    let mut last = Err(std::io::ErrorKind::NotConnected.into());
    for _ in 0..600 {
        last = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).and_then(|mut stream| {
            stream.write_all(b"GET /file HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        });
        match &last {
            Ok(answer) if !answer.is_empty() => break,
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
    last.context("nobody answers")
}

/// Of the repository with an image that is to be replaced, and of the cache.
fn full_disks(built: &Built, houses: &Houses) -> Result<()> {
    const BIG: &str = "
        if [ -n \"${BIG:-}\" ]; then dd if=/dev/urandom of=$layer/big bs=1024 count=4000 2>/dev/null; fi
    ";
    for who in EVERYBODY {
        let house = houses.with_script(built, who, &format!("{GREETER}{BIG}"))?;
        house.built(&[])?;
        let images = house.path("layout-repo/index.docker.io/library");
        let (cache, left) = (house.path("home/.cache"), house.path("left"));
        let before = tree::read(&images)?;
        let command = house.patient(&house.build_arguments(&["--env", "BIG=1"])?);
        let script = format!(
            "mkdir {left}; mount -t tmpfs -o size=2m none /mnt; cp -a {images}/. /mnt; chown --reference={images} /mnt; \
             mount --bind /mnt {images}; code=0; \"$@\" || code=$?; cp -a {images}/. {left}; exit $code",
            left = left.display(),
            images = images.display()
        );
        let output = run(among(&command, &script).stdin(Stdio::null()))?;
        ensure!(output.exit != 0 && output.text().contains("No space left"), "{who:?}: {}", output.text());
        let changed = tree::differences(&before, &tree::read(&left)?);
        ensure!(changed.is_empty(), "{who:?}: the repository has changed: {}", changed.join("\n"));
        house.is_clean()?;
        house.built(&["--env", "BIG=1"])?;

        let script = format!(
            "mount -t tmpfs -o size=1m none /mnt; chown --reference={cache} /mnt; mount --bind /mnt {cache}; exec \"$@\"",
            cache = cache.display()
        );
        let output = run(among(&command, &script).stdin(Stdio::null()))?;
        ensure!(output.exit != 0 && output.text().contains("No space left"), "{who:?}: {}", output.text());
        house.is_clean()?;
        house.built(&[])?;
    }
    Ok(())
}

fn processes_are_limited(built: &Built, houses: &Houses) -> Result<()> {
    let script = format!("{GREETER}\nfor number in $(seq 200); do sleep 2 & done\necho all of them\n");
    for who in EVERYBODY {
        let house = houses.with_script(built, who, &script)?;
        ensure!(house.built(&[])?.text().contains("all of them"), "{who:?}: it fails without a limit");
        let output = house.build(&["--pids-limit", "40"])?;
        ensure!(output.exit == 51, "{who:?}: exit code {}\n{}", output.exit, output.text());
        ensure!(output.text().contains("can't fork"), "{who:?}: {}", output.text());
        house.is_clean()?;
    }
    Ok(())
}

fn phases_run_no_foreign_library(built: &Built, houses: &Houses) -> Result<()> {
    let house = houses.with_script(built, Who::Root, GREETER)?;
    let dynamic = built.get()?.dir().to_str().context("a path is UTF-8")?.to_owned();
    let arguments = ["build", "app", "--builder", "acme/builder", "--path", "app", "--lifecycle", &dynamic];
    let output = project::run(&mut house.patient(&arguments))?;
    ensure!(output.exit == 4 && output.text().contains("linked dynamically"), "{}", output.text());
    Ok(())
}

fn shells(built: &Built, houses: &Houses) -> Result<()> {
    for who in EVERYBODY {
        let house = houses.with_script(built, who, GREETER)?;
        let script = house.path("home/script");
        house.write("home/script", "id -u; pwd; echo x >/tmp/x && echo written; exit 5\n")?;
        for further in [&[][..], &["--busybox", "/bin/busybox"][..]] {
            let mut command = house.patient(&[&["shell", "acme/run:base"][..], further].concat());
            let output = project::run(command.stdin(fs::File::open(&script)?))?;
            ensure!(output.exit == 5, "{who:?}: exit code {}\n{}", output.exit, output.text());
            ensure!(output.stdout == b"1000\n/home/cnb\nwritten\n", "{who:?}: {}", output.text());
            house.is_clean()?;
        }
    }
    Ok(())
}

fn gc_removes_what_is_old(built: &Built, houses: &Houses) -> Result<()> {
    for who in EVERYBODY {
        let house = houses.with_script(built, who, GREETER)?;
        house.built(&[])?;
        let roots = house.path("home/.cache/drydock/roots");
        let names =
            || -> Result<Vec<_>> { Ok(fs::read_dir(&roots)?.flatten().map(|entry| entry.path()).collect()) };
        succeed(&mut house.patient(&["gc"]))?;
        let there = names()?;
        ensure!(there.len() == 1, "{who:?}: {there:?}");
        succeed(Command::new("touch").args(["-d", "8 days ago"]).args(&there))?;
        succeed(&mut house.patient(&["gc"]))?;
        ensure!(names()?.is_empty(), "{who:?}: {:?}", names()?);

        // The cache of a build stays as long as its image, as a build may use it, and for days after that.
        house.built(&[])?;
        let cache =
            fs::read_dir(house.path("home/.cache/drydock/builds"))?.next().context("a cache")??.path();
        let gc_leaves = |leaves: bool, when: &str| -> Result<()> {
            succeed(&mut house.patient(&["gc"]))?;
            ensure!(cache.exists() == leaves, "{who:?}: {when}: {leaves}");
            Ok(())
        };
        let make_old = || succeed(Command::new("touch").args(["-d", "8 days ago"]).arg(&cache));
        make_old()?;
        gc_leaves(true, "an image is there")?;
        house.built(&[])?;
        succeed(&mut house.patient(&["rm", "app"]))?;
        gc_leaves(true, "a build has used it")?;
        make_old()?;
        let used = fs::File::open(&cache)?;
        used.lock()?;
        gc_leaves(true, "a build uses it")?;
        drop(used);
        gc_leaves(false, "nobody uses it")?;
        house.built(&[])?;
        // An ordinary user cannot remove files of other users: what is left is not taken for all of it.
        for root in names()? {
            fs::remove_dir_all(root.join("files/cnb"))?;
            fs::remove_file(root.join("whole"))?;
        }
        house.built(&[])?;
        let all = succeed(&mut house.patient(&["gc", "--all"]))?.text();
        ensure!(all.contains("caches of builds that nobody uses: 1 removed"), "{who:?}: {all}");
        ensure!(!cache.exists() && names()?.is_empty(), "{who:?}: {:?}", names()?);
        house.built(&[])?;
    }
    Ok(())
}
