//! What is said of builds, and kept of that: logs, but no secrets.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::{run, succeed};
use drydock_acceptance::sandboxed::Who;
use libtest_mimic::Trial;
use serde_json::Value;
use walkdir::WalkDir;

use super::{EVERYBODY, Site};
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("dockerfile_sources::secrets_are_nowhere", secrets_are_nowhere),
            ("dockerfile_sources::logs_are_kept", logs_are_kept),
        ],
    )
}

/// Every file below a folder that has a text in it, itself or decompressed.
fn files_with(dir: &Path, text: &[u8]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in WalkDir::new(dir) {
        let entry = entry.context("list a folder")?;
        if !entry.file_type().is_file() {
            continue;
        }
        let bytes = fs::read(entry.path())?;
        let mut all = vec![bytes.clone()];
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain)?;
            all.push(plain);
        }
        if all.iter().any(|bytes| bytes.windows(text.len()).any(|window| window == text)) {
            found.push(entry.path().to_owned());
        }
    }
    Ok(found)
}

fn secrets_are_nowhere(built: &Built) -> Result<()> {
    let dockerfile = "FROM acme/run:base\nUSER 0\n\
        RUN --mount=type=secret,id=file --mount=type=secret,id=variable,env=OF_VARIABLE \
        cat /run/secrets/file && echo \"$OF_VARIABLE\" && wc -c </run/secrets/file >/length\n\
        RUN --mount=type=secret,id=file,target=/elsewhere,required=true test -s /elsewhere && ls / >/listed\n";
    for who in EVERYBODY {
        let site = Site::new(built, who, &[("Dockerfile", dockerfile)])?;
        site.house.write("secret", "open-sesame-of-a-file\n")?;
        let arguments = [
            "import",
            "dockerfile:app",
            "acme/x:1",
            "--network",
            "none",
            "--secret",
            "id=file,src=secret",
            "--secret",
            "id=variable,env=SESAME",
        ];
        let output = run(site.command(&arguments).env("SESAME", "open-sesame-of-a-variable"))?;
        ensure!(output.exit == 0, "{who:?}: {}", output.text());
        let said = output.text();
        ensure!(!said.contains("open-sesame") && said.contains("***"), "{who:?}: {said}");
        let log = succeed(&mut site.command(&["log", "acme/x:1"]))?.text();
        ensure!(!log.contains("open-sesame") && log.contains("***"), "{who:?}: {log}");
        let files = site.files("acme/x:1", "files")?;
        ensure!(
            fs::read_to_string(files.join("length"))?.trim() == "22",
            "{who:?}: the program has not seen it"
        );
        for dir in ["layout-repo", "home"] {
            let found = files_with(&site.house.path(dir), b"open-sesame")?;
            ensure!(found.is_empty(), "{who:?}: it is in {found:?}");
        }
        // With another secret nothing is done anew: it is in no key.
        site.house.write("secret", "another-secret-for-it\n")?;
        let again = run(site.command(&arguments).env("SESAME", "another"))?;
        ensure!(
            again.exit == 0 && again.text().contains("2 steps, 2 of them known"),
            "{who:?}: {}",
            again.text()
        );
        let said =
            site.refused(4, "the secret `file` is not given", &["dockerfile:app", "acme/y:1", "--no-cache"])?;
        ensure!(said.contains("line 4"), "{said}");
    }
    Ok(())
}

fn logs_are_kept(built: &Built) -> Result<()> {
    let dockerfile = "FROM acme/run:base\nUSER 0\nRUN echo out; echo err >&2; printf 'no end'\nRUN <<END\necho second\nEND\n";
    let site = Site::new(built, Who::Ordinary, &[("Dockerfile", dockerfile)])?;
    let output = site.imported(&["dockerfile:app", "acme/x:1"])?;
    let text = output.text();
    for line in ["[0 1/2] RUN echo out", "out\n", "err\n", "no end\n", "[0 2/2] RUN <<END", "second\n"] {
        ensure!(text.contains(line), "not `{line}`: {text}");
    }
    let log = succeed(&mut site.command(&["log", "acme/x:1"]))?.text();
    for line in ["[0 1/2] RUN echo out", "out\n", "err\n", "no end\n", "second\n"] {
        ensure!(log.contains(line), "the log has not `{line}`: {log}");
    }
    let json = succeed(&mut site.command(&["log", "acme/x:1", "--json"]))?.stdout;
    let lines: Vec<Value> =
        String::from_utf8(json)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(lines.iter().all(|line| line["phase"] == "dockerfile"), "{lines:?}");
    let of = |text: &str| lines.iter().find(|line| line["text"] == text).map(|line| line["stream"].clone());
    ensure!(
        of("out").is_some_and(|stream| stream == "stdout")
            && of("err").is_some_and(|stream| stream == "stderr")
    );
    // Events and the answer are JSON; everything is known now.
    let output = site.imported(&["dockerfile:app", "acme/x:1", "--json"])?;
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(answer["steps"]["known"] == 2 && answer["steps"]["done"] == 0, "{answer}");
    let events = String::from_utf8(output.stderr)?;
    let steps: Vec<Value> = events.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let steps: Vec<&Value> = steps.iter().filter(|event| event["event"] == "step").collect();
    ensure!(steps.len() == 2 && steps[0]["line"] == 3 && steps[0]["known"] == true, "{events}");
    // While it runs, it can be followed.
    site.put("Dockerfile", "FROM acme/run:base\nUSER 0\nRUN echo begun; sleep 10; echo over\n")?;
    let mut running = site
        .command(&["import", "dockerfile:app", "acme/x:1", "--network", "none"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let dir = site.layout("acme/x/1").dir().to_owned();
    let is_log = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with(".drydock-log-");
    let began = Instant::now();
    while !fs::read_dir(&dir)?.flatten().any(|entry| is_log(&entry.file_name())) {
        ensure!(began.elapsed() < Duration::from_mins(1), "there is no log while it is built");
        thread::sleep(Duration::from_millis(50));
    }
    let followed = succeed(&mut site.command(&["log", "acme/x:1", "--follow"]))?.text();
    ensure!(running.wait()?.success(), "the build failed");
    ensure!(followed.contains("begun") && followed.contains("over"), "{followed}");
    Ok(())
}
