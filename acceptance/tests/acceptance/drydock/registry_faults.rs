//! Registries that break off, refuse, send elsewhere or say nothing, and imports that are stopped: what is said, what is left,
//! and where the next import begins.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use drydock_acceptance::project::succeed;
use drydock_fake_registry::{Answer, Fake, Request};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tar::EntryType as Type;

use super::registries::{Server, named, sources};
use super::served::Served;
use super::{Repository, tar_of};
use crate::killed::noise;
use crate::{Built, with_executables};

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("drydock::imports_go_on_where_they_broke_off", imports_go_on_where_they_broke_off),
            ("drydock::failed_imports_are_taken_up_again", failed_imports_are_taken_up_again),
            ("drydock::stopped_imports_are_taken_up_again", stopped_imports_are_taken_up_again),
            ("drydock::stopped_before_anything_came", stopped_before_anything_came),
            ("drydock::registries_refuse", registries_refuse),
            ("drydock::registries_are_busy", registries_are_busy),
            ("drydock::referrers_are_refused", referrers_are_refused),
            ("drydock::redirects_take_no_credentials_along", redirects_take_no_credentials_along),
            ("drydock::pushes_that_fail", pushes_that_fail),
            ("drydock::certificates_of_an_own_ca", certificates_of_an_own_ca),
        ],
    )
}

/// An image of three layers, the last of which is the largest of its blobs, as a registry serves it.
pub(super) fn image(executables: &Built) -> Result<(Repository, Served)> {
    let repository = Repository::new(executables)?;
    let letters = |seed, length| -> String {
        noise(seed, length).into_iter().map(|byte| char::from(b'a' + byte % 16)).collect()
    };
    let layers = [(1, 60_000), (2, 80_000), (3, 900_000)].map(|(seed, length)| (seed, letters(seed, length)));
    let layers = layers.map(|(seed, text)| tar_of(&[(Type::Regular, &format!("file{seed}"), &text)]));
    repository.write_image("image", &layers.into_iter().collect::<Result<Vec<_>>>()?)?;
    let served = Served::image(&repository.layout("image"))?;
    Ok((repository, served))
}

/// Ways to answer.
type Serve = fn(&Served, &Request) -> Answer;
type Take = fn(&Request) -> Answer;
type Refuse = fn() -> Answer;

/// Words of an import from a registry that a test plays.
struct Import {
    _dir: tempfile::TempDir,
    file: String,
    from: String,
}

impl Import {
    fn new(fakes: &[&Fake]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let hosts: Vec<&str> = fakes.iter().map(|fake| fake.host.as_str()).collect();
        let file = sources(dir.path(), &hosts, "")?;
        Ok(Self { _dir: dir, file, from: format!("docker://{}/x/y", fakes[0].host) })
    }

    fn words(&self) -> [&str; 5] {
        ["--sources", &self.file, "import", &self.from, "new"]
    }
}

/// Whether the import's image is there, whole, and nothing else is.
fn is_there(repository: &Repository, served: &Repository) -> Result<()> {
    ensure!(named(&repository.path("new"))? == named(&served.path("image"))?);
    repository.layout("new").verify()?;
    ensure!(repository.json(0, &["verify"])?[0]["status"] == "whole");
    let faults = repository.layout("new").faults()?;
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// Of those that a server saw, the requests for blobs.
fn blobs_in(requests: &[Request]) -> Vec<String> {
    requests.iter().map(|request| request.path.clone()).filter(|path| path.contains("/blobs/")).collect()
}

fn imports_go_on_where_they_broke_off(executables: &Built) -> Result<()> {
    let (source, served) = image(executables)?;
    let registry = served.clone();
    let fake = Fake::start(move |request, _| registry.part(request, 500_000));
    let (repository, import) = (Repository::new(executables)?, Import::new(&[&fake])?);
    repository.text(&import.words())?;
    is_there(&repository, &source)?;
    let largest = served.blobs().pop().context("it has blobs")?;
    let offsets: Vec<_> =
        fake.seen().iter().filter(|request| request.path == largest).map(Request::offset).collect();
    ensure!(offsets == [None, Some(500_000)], "{offsets:?}");
    Ok(())
}

/// The largest blob never comes whole, or another one is refused: the next import fetches the rest and nothing else.
fn failed_imports_are_taken_up_again(executables: &Built) -> Result<()> {
    let (source, served) = image(executables)?;
    let blobs = served.blobs();
    let largest = blobs.last().context("it has blobs")?;
    let cases: [(i32, &str, Serve); 3] = [
        (4, "the connection broke off", |served, request| match request.offset() {
            None => served.part(request, 500_000),
            Some(_) => served.part(request, 0),
        }),
        (4, "status 418", |_, _| Answer::new(418, "")),
        (4, "too many requests; try again in 3600", |_, _| Answer::new(429, "").with("Retry-After", 3600)),
    ];
    for (exit, says, answer) in cases {
        let is_well = Arc::new(AtomicBool::new(false));
        let (registry, bad, well) = (served.clone(), largest.clone(), Arc::clone(&is_well));
        let fake = Fake::start(move |request, _| {
            if request.path == bad && !well.load(Ordering::Relaxed) {
                // The others have come by then.
                sleep(Duration::from_millis(300));
                return answer(&registry, request);
            }
            registry.answer(request)
        });
        let (repository, import) = (Repository::new(executables)?, Import::new(&[&fake])?);
        repository.fails(exit, says, &import.words())?;
        let before = fake.seen().len();
        is_well.store(true, Ordering::Relaxed);
        repository.text(&import.words())?;
        is_there(&repository, &source)?;
        let asked = blobs_in(&fake.seen()[before..]);
        ensure!(asked.contains(largest) && asked.len() < blobs.len(), "{says}: {asked:?}");
    }
    Ok(())
}

/// Begins an import, and waits until all but the largest blob are in their places.
fn begin(repository: &Repository, import: &Import, blobs: usize) -> Result<Child> {
    let mut command = repository.command_under(&[], &import.words());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let deadline = Instant::now() + Duration::from_mins(1);
    let dir = repository.path("new").join("blobs/sha256");
    let count = |is_temporary: bool| -> Result<usize> {
        let Ok(found) = fs::read_dir(&dir) else { return Ok(0) };
        let names = found.map(|entry| Ok(entry?.file_name().to_string_lossy().starts_with(".drydock-")));
        Ok(names.collect::<Result<Vec<bool>>>()?.into_iter().filter(|other| *other == is_temporary).count())
    };
    while count(false)? < blobs || count(true)? != 1 {
        ensure!(child.try_wait()?.is_none(), "it was through too early");
        ensure!(Instant::now() < deadline, "it does not get so far");
        sleep(Duration::from_millis(5));
    }
    Ok(child)
}

/// Ctrl-C, SIGTERM or a kill while the largest blob is on its way, from a registry that takes its time or says nothing.
fn stopped_imports_are_taken_up_again(executables: &Built) -> Result<()> {
    let (source, served) = image(executables)?;
    let blobs = served.blobs();
    let largest = blobs.last().context("it has blobs")?;
    for (is_silent, signal, exit) in [
        (false, Signal::INT, Some(130)),
        (false, Signal::TERM, Some(143)),
        (true, Signal::INT, Some(130)),
        (true, Signal::TERM, Some(143)),
        (false, Signal::KILL, None),
    ] {
        let is_well = Arc::new(AtomicBool::new(false));
        let (registry, bad, well) = (served.clone(), largest.clone(), Arc::clone(&is_well));
        let fake = Fake::start(move |request, _| {
            if request.path != bad || well.load(Ordering::Relaxed) {
                return registry.answer(request);
            }
            let answer = registry.part(request, 500_000);
            if is_silent { answer.stalling() } else { answer.trickling() }
        });
        let (repository, import) = (Repository::new(executables)?, Import::new(&[&fake])?);
        // The manifest, the configuration and two layers.
        let mut child = begin(&repository, &import, 4)?;
        let id = Pid::from_raw(i32::try_from(child.id())?).context("a process has a number")?;
        kill_process(id, signal)?;
        let status = child.wait()?;
        let what = format!("{signal:?}, silent: {is_silent}");
        ensure!(status.code() == exit, "{what}: {status}");
        ensure!(!repository.path("new").join("index.json").exists(), "{what}: there is an image");
        if !is_silent && exit.is_some() {
            repository.is_tidy().with_context(|| what.clone())?;
        }
        let before = fake.seen().len();
        is_well.store(true, Ordering::Relaxed);
        repository.text(&import.words())?;
        is_there(&repository, &source).with_context(|| what.clone())?;
        repository.is_tidy().with_context(|| what.clone())?;
        let asked = blobs_in(&fake.seen()[before..]);
        ensure!(asked == [largest.clone()], "{what}: {asked:?}");
    }
    Ok(())
}

/// Ctrl-C while nothing has come yet: from a registry that says nothing, for an import and a login.
fn stopped_before_anything_came(executables: &Built) -> Result<()> {
    let fake = Fake::start(|_, _| Answer::raw("").stalling());
    let (repository, import) = (Repository::new(executables)?, Import::new(&[&fake])?);
    let login = ["--sources", &import.file, "login", &fake.host, "--user", "u", "--password-stdin"];
    let password = tempfile::NamedTempFile::new()?;
    fs::write(password.path(), "hunter2\n")?;
    for (words, signal, exit) in
        [(&import.words()[..], Signal::INT, 130), (&login, Signal::INT, 130), (&login, Signal::TERM, 143)]
    {
        let before = fake.seen().len();
        let mut command = repository.command_under(&[], words);
        command.stdin(fs::File::open(password.path())?).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let deadline = Instant::now() + Duration::from_mins(1);
        while fake.seen().len() == before {
            ensure!(Instant::now() < deadline && child.try_wait()?.is_none(), "{words:?} asks for nothing");
            sleep(Duration::from_millis(5));
        }
        let id = Pid::from_raw(i32::try_from(child.id())?).context("a process has a number")?;
        kill_process(id, signal)?;
        let status = child.wait()?;
        ensure!(status.code() == Some(exit), "{words:?}: {status}");
        ensure!(fs::read_dir(repository.dir.path())?.next().is_none(), "{words:?}: something is left");
    }
    Ok(())
}

/// What a registry says of its refusals.
fn errors(message: &str) -> String {
    json!({"errors": [{"code": "X", "message": message}]}).to_string()
}

/// Whether the manifest or a blob is refused: what is said, and that nothing has changed.
fn registries_refuse(executables: &Built) -> Result<()> {
    let (_source, served) = image(executables)?;
    let basic = || Answer::new(401, errors("who are you")).with("WWW-Authenticate", "Basic realm=\"r\"");
    let cases: [(Refuse, i32, [&str; 2]); 6] = [
        (|| Answer::new(404, errors("gone")), 3, ["there is no such manifest", "is not there"]),
        (|| Answer::new(403, errors("not for you")), 4, ["not for you"; 2]),
        (|| Answer::new(400, errors("bad \u{1b}[31mred")), 4, ["status 400: bad [31mred"; 2]),
        (|| Answer::new(301, ""), 4, ["without `Location`"; 2]),
        (|| Answer::new(302, "").with("Location", "http://127.0.0.1:1/"), 4, ["is not followed"; 2]),
        (|| Answer::new(200, "").announcing(1 << 40), 4, ["", ""]),
    ];
    for (answer, exit, says) in cases {
        for (part, says) in ["/manifests/", "/blobs/"].into_iter().zip(says) {
            // A blob that is not there is damage.
            let exit = if exit == 3 && part == "/blobs/" { 1 } else { exit };
            let registry = served.clone();
            let fake =
                Fake::start(
                    move |request, _| {
                        if request.path.contains(part) { answer() } else { registry.answer(request) }
                    },
                );
            let exit = if part == "/blobs/" && says.is_empty() { 1 } else { exit };
            let (repository, import) = (Repository::new(executables)?, Import::new(&[&fake])?);
            repository.fails(exit, says, &import.words()).with_context(|| format!("{says} of {part}"))?;
        }
    }
    for (is_known, says) in [(false, "wants credentials (who are you)"), (true, "does not allow it")] {
        let fake = Fake::start(move |_, _| basic());
        let (repository, import) = (Repository::new(executables)?, Import::new(&[&fake])?);
        let config = tempfile::tempdir()?;
        if is_known {
            credentials(config.path(), &fake.host)?;
        }
        let output = repository.command(&import.words()).env("DOCKER_CONFIG", config.path()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(4) && said.contains(says), "{said}");
        ensure!(said.contains("drydock login") && !said.contains("hunter2"), "{said}");
        ensure!(fs::read_dir(repository.dir.path())?.next().is_none(), "something is left");
        let mut login = repository.command(&["--sources", &import.file, "login", &fake.host, "--user", "u"]);
        login.arg("--password-stdin").env("DOCKER_CONFIG", config.path());
        let password = config.path().join("password");
        fs::write(&password, "hunter2\n")?;
        let output = login.stdin(fs::File::open(password)?).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(4) && said.contains("does not allow it"), "{said}");
    }
    Ok(())
}

/// Lets `user:hunter2` be sent to a host.
fn credentials(config: &Path, host: &str) -> Result<()> {
    let text = json!({"auths": {host: {"auth": "dXNlcjpodW50ZXIy"}}}).to_string();
    fs::write(config.join("config.json"), text).context("write credentials")
}

/// 429 and 500 pass, if they do not last.
fn registries_are_busy(executables: &Built) -> Result<()> {
    let (source, served) = image(executables)?;
    for (answer, wait) in [(Answer::new(429, "").with("Retry-After", 1), 1), (Answer::new(500, ""), 0)] {
        let registry = served.clone();
        let mut seen = std::collections::BTreeSet::new();
        // Each thing is had at the second try.
        let fake = Fake::start(move |request, _| {
            if seen.insert(request.path.clone()) { answer.clone() } else { registry.answer(request) }
        });
        let (repository, import) = (Repository::new(executables)?, Import::new(&[&fake])?);
        let begin = Instant::now();
        repository.text(&import.words())?;
        // The manifest, the list of referrers and the blobs, one after the other.
        ensure!(
            begin.elapsed() >= Duration::from_secs(3 * wait),
            "it did not wait as long as it was asked to"
        );
        is_there(&repository, &source)?;
    }
    let cases: [(Refuse, &str, usize); 3] = [
        (|| Answer::new(500, errors("out of order")), "status 500: out of order", 5),
        (|| Answer::new(429, ""), "too many requests", 5),
        (|| Answer::new(429, "").with("Retry-After", 3600), "3600", 1),
    ];
    for (answer, says, tries) in cases {
        let fake = Fake::start(move |_, _| answer());
        let (repository, import) = (Repository::new(executables)?, Import::new(&[&fake])?);
        repository.refused(4, says, &import.words())?;
        ensure!(fake.lines() == vec!["GET /v2/x/y/manifests/latest"; tries], "{:?}", fake.lines());
    }
    Ok(())
}

/// An image is worth having without what refers to it.
fn referrers_are_refused(executables: &Built) -> Result<()> {
    let (source, served) = image(executables)?;
    let page = Answer::new(200, "<html>Welcome</html>").with("Content-Type", "text/html");
    for (answer, is_told) in [(page, false), (Answer::new(403, ""), true)] {
        let registry = served.clone();
        let fake = Fake::start(move |request, _| {
            if request.path.contains("/referrers/") { answer.clone() } else { registry.answer(request) }
        });
        let (repository, import) = (Repository::new(executables)?, Import::new(&[&fake])?);
        let said = succeed(&mut repository.command(&import.words()))?.text();
        is_there(&repository, &source)?;
        ensure!(said.contains("signatures and the like are not imported") == is_told, "{said}");
    }
    // One that is out of order may have some.
    let fake = Fake::start(move |request, _| {
        if request.path.contains("/referrers/") { Answer::new(503, "") } else { served.answer(request) }
    });
    let (repository, import) = (Repository::new(executables)?, Import::new(&[&fake])?);
    repository.refused(4, "status 503", &import.words())
}

fn redirects_take_no_credentials_along(executables: &Built) -> Result<()> {
    let (source, served) = image(executables)?;
    let storage = served.clone();
    let other = Fake::start(move |request, _| storage.answer(request));
    let place = other.host.clone();
    let fake = Fake::start(move |request, _| match request.header("authorization") {
        None => Answer::new(401, "").with("WWW-Authenticate", "Basic realm=\"r\""),
        Some(_) if request.path.contains("/blobs/") => {
            Answer::new(307, "").with("Location", format!("http://{place}{}?signature=secret", request.path))
        }
        Some(_) => served.answer(request),
    });
    let config = tempfile::tempdir()?;
    credentials(config.path(), &fake.host)?;
    let (repository, import) = (Repository::new(executables)?, Import::new(&[&fake, &other])?);
    succeed(repository.command(&import.words()).env("DOCKER_CONFIG", config.path()))?;
    is_there(&repository, &source)?;
    let sent = |fake: &Fake| fake.seen().iter().filter(|one| one.header("authorization").is_some()).count();
    ensure!(sent(&fake) > 0 && other.seen().len() == 4 && sent(&other) == 0, "{:?}", other.seen());
    // Where the other host has no plain HTTP, nothing is sent there at all.
    let (repository, import) = (Repository::new(executables)?, Import::new(&[&fake])?);
    let output = repository.command(&import.words()).env("DOCKER_CONFIG", config.path()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(4) && said.contains("is not followed"), "{said}");
    ensure!(!said.contains("secret") && other.seen().len() == 4, "{said}");
    Ok(())
}

/// Uploads that are refused, and those that break off: the layout stays as it is.
fn pushes_that_fail(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run"])?;
    let dir = tempfile::tempdir()?;
    let cases: [(&str, Take, &str); 4] = [
        ("denied", |_| Answer::new(403, errors("not for you")), "wants credentials"),
        ("full", |request| upload(request, Answer::new(507, errors("no room"))), "status 507: no room"),
        ("gone", |request| upload(request, Answer::new(404, "")), "there is no such"),
        ("elsewhere", |request| upload(request, Answer::new(307, "").with("Location", "ftp://x/")), ""),
    ];
    for (what, answer, says) in cases {
        let fake = Fake::start(move |request, _| answer(request));
        let file = sources(dir.path(), &[&fake.host], "")?;
        let target = format!("docker://{}/x/y", fake.host);
        let exit = if what == "gone" { 3 } else { 4 };
        let words = ["--sources", &file, "export", "run", &target];
        repository.refused(exit, says, &words).with_context(|| what.to_owned())?;
    }
    Ok(())
}

/// There is nothing yet, and an upload may begin; what is sent gets this answer.
fn upload(request: &Request, sent: Answer) -> Answer {
    match request.method.as_str() {
        "HEAD" | "GET" => Answer::new(404, ""),
        "POST" => Answer::new(202, "").with("Location", "/v2/x/y/blobs/uploads/1"),
        _ => sent,
    }
}

/// A certificate for 127.0.0.1, its key, and the CA that has signed it: files in a folder.
fn certificate(dir: &Path) -> Result<()> {
    let openssl = |words: &str| {
        let mut command = Command::new("openssl");
        succeed(command.args(words.split(' ')).current_dir(dir)).context("openssl (package openssl)")
    };
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("{new} -x509 -days 2 -subj /CN=CA -keyout ca.key -out ca.pem"))?;
    openssl(&format!(
        "{new} -subj /CN=registry -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out csr.pem"
    ))?;
    openssl(
        "x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -days 2 -copy_extensions copy -out certificate.pem",
    )?;
    Ok(())
}

fn certificates_of_an_own_ca(executables: &Built) -> Result<()> {
    let dirs = [tempfile::tempdir()?, tempfile::tempdir()?];
    for dir in &dirs {
        certificate(dir.path())?;
    }
    let dir = dirs[0].path();
    let server = Server::start_with(true, Some([&dir.join("certificate.pem"), &dir.join("key.pem")]))?;
    let host = &server.host;
    let repository = Repository::with(executables, &["run"])?;
    let with_ca = |ca: &str| -> Result<String> {
        let file = dir.join("sources.toml");
        fs::write(&file, format!("[host.'{host}']\nca-file = '{ca}'\n"))?;
        Ok(file.display().to_string())
    };
    let target = format!("docker://{host}/team/run:v1");
    let word = dir.join("word");
    fs::write(&word, "open sesame\n")?;
    let file = with_ca("ca.pem")?;
    let mut login =
        repository.command(&["--sources", &file, "login", host, "--user", "user", "--password-stdin"]);
    succeed(login.env("HOME", dir).stdin(fs::File::open(word)?))?;
    let mut command = repository.command(&["--json", "--sources", &file, "export", "run", &target]);
    let pushed: Value = serde_json::from_slice(&succeed(command.env("HOME", dir))?.stdout)?;
    succeed(repository.command(&["--sources", &file, "import", &target, "new"]).env("HOME", dir))?;
    ensure!(named(&repository.path("new"))? == pushed["digest"], "{pushed}");
    // Nobody else's certificates, not the system's, and no plain HTTP will do.
    let other = dirs[1].path().join("ca.pem").display().to_string();
    repository.refused(
        4,
        "no trusted connection",
        &["--sources", &with_ca(&other)?, "import", &target, "x"],
    )?;
    repository.refused(4, "no trusted connection", &["import", &target, "x"])?;
    repository.refused(
        4,
        "read certificates from",
        &["--sources", &with_ca("none")?, "import", &target, "x"],
    )?;
    let plain = sources(dir, &[host], "")?;
    repository.refused(4, "", &["--sources", &plain, "import", &target, "x"])?;
    Ok(())
}
