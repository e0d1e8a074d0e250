//! A git server of this machine: git's own program for HTTP, behind a server that wants a user and a token.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, thread};

use anyhow::{Context as _, Result, ensure};
use drydock_fake_registry::{Answer, Fake, Request};

/// `user:open sesame`, as it is shown.
const BASIC: &str = "Basic dXNlcjpvcGVuIHNlc2FtZQ==";

/// The token in that.
pub(super) const TOKEN: &str = "open sesame";

/// Runs git in a folder, as nobody's settings say.
pub(super) fn git(dir: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("git");
    command.args([
        "-c",
        "user.name=Tester",
        "-c",
        "user.email=tester@example.com",
        "-c",
        "init.defaultBranch=main",
    ]);
    command.args(["-c", "safe.directory=*", "-c", "commit.gpgSign=false"]).args(arguments);
    command.current_dir(dir).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.env("GIT_AUTHOR_DATE", "2024-05-06T07:08:09Z").env("GIT_COMMITTER_DATE", "2024-05-06T07:08:09Z");
    let output = command.output().context("git is missing: apt-get install git")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "git {arguments:?}: {said}");
    Ok(String::from_utf8(output.stdout).context("git prints UTF-8")?.trim().to_owned())
}

/// Serves the repositories in a folder. With a token, only who shows it gets anything; `seen` is given the words of all processes of this
/// machine at each request.
pub(super) fn serve(root: &Path, wants_token: bool, seen: impl Fn(&str) + Send + 'static) -> Fake {
    let root = root.to_owned();
    Fake::start(move |request, _| {
        seen(&processes());
        if wants_token && request.header("authorization") != Some(BASIC) {
            return Answer::new(401, "who are you?").with("WWW-Authenticate", "Basic realm=\"git\"");
        }
        backend(&root, request).unwrap_or_else(|error| Answer::new(500, format!("{error:#}")))
    })
}

/// The words that all processes were started with.
fn processes() -> String {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let words = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    words.map(|words| String::from_utf8_lossy(&words).replace('\0', " ") + "\n").collect()
}

fn backend(root: &Path, request: &Request) -> Result<Answer> {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let mut command = Command::new("git");
    command
        .args(["-c", "safe.directory=*", "http-backend"])
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1");
    command.env("PATH_INFO", path).env("QUERY_STRING", query).env("REQUEST_METHOD", &request.method);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("REMOTE_USER", "user");
    command.env("CONTENT_LENGTH", request.body.len().to_string());
    for (header, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ] {
        if let Some(value) = request.header(header) {
            command.env(variable, value);
        }
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start git")?;
    let (mut stdin, body) = (child.stdin.take().context("a pipe")?, request.body.clone());
    // Whoever has enough reads no more.
    let writer = thread::spawn(move || drop(stdin.write_all(&body)));
    let output = child.wait_with_output().context("wait for git")?;
    drop(writer.join());
    let end = output.stdout.windows(4).position(|four| four == b"\r\n\r\n").context("git prints headers")?;
    let head = String::from_utf8_lossy(&output.stdout[..end]).into_owned();
    let headers: Vec<(&str, &str)> = head.lines().filter_map(|line| line.split_once(": ")).collect();
    let status = headers
        .iter()
        .find(|(name, _)| *name == "Status")
        .and_then(|(_, value)| value.get(..3)?.parse().ok());
    let answer = Answer::new(status.unwrap_or(200), &output.stdout[end + 4..]);
    let kept = headers.iter().filter(|(name, _)| *name != "Status");
    Ok(kept.fold(answer, |answer, (name, value)| answer.with(name, value)))
}
