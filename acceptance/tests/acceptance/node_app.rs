//! A Node.js app with real packages (`node-app/`): built, built again, and built with one file changed. The registry of npm
//! must be in reach.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::app_build::{AppBuild, Unpacked};
use drydock_acceptance::here;
use drydock_acceptance::layout::Image;
use drydock_acceptance::scenario::Operation;
use drydock_acceptance::tools::Tool;
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;

use crate::{Built, with_executables};

/// This module's tests.
pub(crate) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(executables, [("node_app::three_builds", three_builds)])
}

const NODE: Tool = Tool { name: "node", package: "nodejs" };
const NPM: Tool = Tool { name: "npm", package: "npm" };
const LDD: Tool = Tool { name: "ldd", package: "libc-bin" };

const PACKAGES: &str = "layer 'acme/npm:packages'";
const APP: &str = "1/1 app layer(s)";

fn three_builds(executables: &Built) -> Result<()> {
    let executables = executables.get()?.dir();
    NPM.run(Path::new("/"), &["--version"])?;
    let build = AppBuild::new(&here("node-app"), &node()?)?;
    let create = || -> Result<(String, Image)> {
        // Each build has a new container.
        build.stage.apply(&[Operation::Empty("/layers".into())])?;
        let log = build.create(executables, &proxies())?;
        Ok((log, build.image()?))
    };

    let (log, first) = create()?;
    lines(&log, &["npm ci", &format!("Adding {PACKAGES}"), &format!("Added {APP}")], "Reusing ")?;
    answers(&build.unpack()?, "soup")?;

    let (log, second) = create()?;
    let reused = format!("Reusing {PACKAGES}");
    let cached = format!("Reusing cache {PACKAGES}");
    lines(&log, &[&reused, &cached, &format!("Reused {APP}")], "Adding layer ")?;
    ensure!(!log.contains("npm ci"), "packages are installed again:\n{log}");
    ensure!(second.descriptor == first.descriptor, "the image of the same app is another");

    let source = here("node-app/in/workspace/server.js");
    let source = std::fs::read_to_string(source).context("read the app's source")?;
    let changed = source.replace("'soup'", "'stew'");
    ensure!(changed != source, "the source has no soup");
    build.stage.apply(&[Operation::Write("/workspace/server.js".into(), changed)])?;
    let (log, third) = create()?;
    lines(&log, &[&reused, &cached, &format!("Added {APP}")], "Adding layer ")?;
    ensure!(!log.contains("npm ci"), "packages are installed again:\n{log}");
    only_the_app_is_new(&first, &third)?;
    answers(&build.unpack()?, "stew")
}

/// The log has all of these, and no line with that.
fn lines(log: &str, wanted: &[&str], unwanted: &str) -> Result<()> {
    for wanted in wanted {
        ensure!(log.contains(wanted), "{wanted:?} is not in the log:\n{log}");
    }
    ensure!(!log.contains(unwanted), "{unwanted:?} is in the log:\n{log}");
    Ok(())
}

fn only_the_app_is_new(before: &Image, after: &Image) -> Result<()> {
    let (old, new) = (before.diff_ids()?, after.diff_ids()?);
    ensure!(old.len() == new.len(), "{} layers became {}", old.len(), new.len());
    let mut changed = Vec::new();
    for position in 0..new.len() {
        let same_diff_id = old[position] == new[position];
        ensure!(same_diff_id == (before.layers[position] == after.layers[position]), "layer {position}");
        if !same_diff_id {
            changed.push(position);
        }
    }
    let label = after.config["config"]["Labels"]["io.buildpacks.lifecycle.metadata"].as_str();
    let label: serde_json::Value = serde_json::from_str(label.context("the lifecycle's label")?)?;
    let app: Vec<_> = changed.iter().map(|position| json!({"sha": new[*position]})).collect();
    ensure!(changed.len() == 1 && label["app"] == json!(app), "the layers {changed:?} changed; {label}");
    Ok(())
}

/// The machine's Node.js, and the files that it needs.
pub(crate) fn node() -> Result<Vec<PathBuf>> {
    // Debian's reads some of its own modules from files.
    const MODULES: &str = r#"
        const match = (define) => define.match(/^NODE_SHARED_BUILTIN_\w+_PATH="?([^"]+)/);
        const defines = process.config.target_defaults.defines;
        for (const found of defines.map(match).filter(Boolean)) console.log(found[1]);
    "#;
    let node = PathBuf::from("/usr/bin/node");
    let modules = String::from_utf8(NODE.run(Path::new("/"), &["-e", MODULES])?)?;
    ensure!(node.exists(), "/usr/bin/node is missing: apt-get install {}", NODE.package);
    let libraries = String::from_utf8(LDD.run(Path::new("/"), &["/usr/bin/node"])?)?;
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    Ok([node].into_iter().chain(libraries.chain(modules.lines()).map(PathBuf::from)).collect())
}

/// What npm must know to reach its registry from here.
pub(crate) fn proxies() -> BTreeMap<&'static str, String> {
    let names = ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
    #[expect(clippy::disallowed_methods, reason = "this machine's way to the network")]
    names.into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?))).collect()
}

/// The app, started; dropped, it is stopped.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It is a group of its own. When it is gone already, there is nothing to stop.
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Starts the image's entrypoint and asks it over HTTP.
fn answers(unpacked: &Unpacked, meal: &str) -> Result<()> {
    let mut command: Command = unpacked.entrypoint()?;
    command.env("PORT", "0").stdout(Stdio::piped()).process_group(0);
    let mut app = Started(command.spawn().context("start the app")?);
    let output = app.0.stdout.take().context("the app's output is a pipe")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    asks(&line, meal)
}

/// Asks an app that has said on which port it listens.
pub(crate) fn asks(line: &str, meal: &str) -> Result<()> {
    let port = line.trim().strip_prefix("listening on port ");
    let port: u16 = port.with_context(|| format!("the app says {line:?}"))?.parse()?;
    let answer = get(port, "/lunch/2024-02-29")?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
    let wanted = json!({"day": "Thursday", "meal": meal}).to_string();
    ensure!(answer.starts_with("HTTP/1.1 200 ") && body == Some(&wanted), "the app answers {answer}");
    let answer = get(port, "/lunch/someday")?;
    ensure!(answer.starts_with("HTTP/1.1 400 "), "to a wrong day, the app answers {answer}");
    Ok(())
}

fn get(port: u16, path: &str) -> Result<String> {
    let patience = Some(Duration::from_secs(20));
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("connect to the app")?;
    stream.set_read_timeout(patience)?;
    stream.set_write_timeout(patience)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("read the app's answer")?;
    Ok(answer)
}
