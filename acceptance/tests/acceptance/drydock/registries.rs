//! `import` and `export` by a network: Debian's `docker-registry` on an address of this machine, with skopeo as the judge;
//! and the file of sources.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use drydock_acceptance::project::succeed;
use drydock_acceptance::{here, sha256, tools};
use drydock_fake_registry::Fake;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::Repository;
use super::served::Served;
use crate::{Built, with_executables};

/// The password of `user` is `open sesame`.
const HTPASSWD: &str = "user:$2b$05$p765s/lP7FNs5fmK0jtK1ujLptqTJrlHDMeGohW.aHp4Cre7Tv3Ke\n";

/// This module's tests.
pub(super) fn trials(executables: &Arc<Built>) -> Vec<Trial> {
    with_executables(
        executables,
        [
            ("drydock::registries_keep_digests", registries_keep_digests),
            ("drydock::registries_want_credentials", registries_want_credentials),
            ("drydock::registries_that_lie_are_refused", registries_that_lie_are_refused),
            ("drydock::sources_say_what_may_come", sources_say_what_may_come),
            ("drydock::locked_images_stay_the_same", locked_images_stay_the_same),
            ("drydock::archives_come_from_urls", archives_come_from_urls),
        ],
    )
}

/// A running registry, which ends with the test.
pub(super) struct Server {
    child: Child,
    dir: tempfile::TempDir,
    pub(super) host: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is this test's own child, and has nothing to save.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(has_password: bool) -> Result<Self> {
        Self::start_with(has_password, None)
    }

    /// With a certificate and its key, it speaks TLS.
    pub(super) fn start_with(has_password: bool, tls: Option<[&Path; 2]>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        // The port is free now; should somebody take it meanwhile, the next one is tried.
        for _ in 0..5 {
            let host = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
            let mut config = vec![
                "version: 0.1\nlog: {level: error}".to_owned(),
                format!("storage: {{filesystem: {{rootdirectory: {}}}}}", dir.path().join("data").display()),
                format!("http:\n  addr: {host}"),
            ];
            if let Some([certificate, key]) = tls.map(|files| files.map(Path::display)) {
                config.push(format!("  tls: {{certificate: {certificate}, key: {key}}}"));
            }
            if has_password {
                let path = dir.path().join("htpasswd");
                fs::write(&path, HTPASSWD)?;
                config.push(format!("auth: {{htpasswd: {{realm: test, path: {}}}}}", path.display()));
            }
            let path = dir.path().join("config.yml");
            fs::write(&path, config.join("\n"))?;
            let log = File::create(dir.path().join("log"))?;
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg(&path).env("OTEL_TRACES_EXPORTER", "none");
            let mut child = command
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .context("docker-registry is missing: apt-get install docker-registry")?;
            if is_up(&mut child, &host)? {
                return Ok(Self { child, dir, host });
            }
            let _ = child.kill();
            child.wait()?;
        }
        bail!("docker-registry does not start: {}", fs::read_to_string(dir.path().join("log"))?)
    }

    /// What skopeo says of an image.
    fn digest(&self, name: &str) -> Result<Value> {
        let name = format!("docker://{}/{name}", self.host);
        let arguments = ["inspect", "--raw", "--tls-verify=false", &name];
        Ok(json!(sha256(&tools::SKOPEO.run(self.dir.path(), &arguments)?)))
    }

    /// Sends an image by skopeo.
    fn fill(&self, image: &str, name: &str) -> Result<()> {
        let scratch = tempfile::tempdir()?;
        std::os::unix::fs::symlink(here("images").join(image), scratch.path().join("layout"))?;
        let to = format!("docker://{}/{name}", self.host);
        let options = ["copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"];
        tools::SKOPEO.run(scratch.path(), &[&options[..], &["oci:layout:latest", &to]].concat()).map(drop)
    }
}

fn is_up(child: &mut Child, host: &str) -> Result<bool> {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(30) && child.try_wait()?.is_none() {
        if TcpStream::connect(host).is_ok() {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(false)
}

/// Writes a file of sources for hosts with plain HTTP; gives its path.
pub(super) fn sources(dir: &Path, hosts: &[&str], more: &str) -> Result<String> {
    let path = dir.join("sources.toml");
    let hosts: Vec<String> = hosts.iter().map(|host| format!("[host.'{host}']\nplain-http = true")).collect();
    fs::write(&path, format!("{more}\n{}\n", hosts.join("\n")))?;
    Ok(path.to_str().context("temporary folders are UTF-8")?.to_owned())
}

pub(super) fn named(layout: &Path) -> Result<Value> {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    Ok(index["manifests"][0]["digest"].clone())
}

fn registries_keep_digests(executables: &Built) -> Result<()> {
    let server = Server::start(false)?;
    let repository = Repository::with(executables, &["run", "run-docker", "run-two-platforms"])?;
    let signature = super::writing::sign(&repository, "run")?;
    let dir = tempfile::tempdir()?;
    let file = sources(dir.path(), &[&server.host], "")?;
    for name in ["run", "run-docker", "run-two-platforms"] {
        let remote = format!("{}/team/{name}:v1", server.host);
        let docker = format!("docker://{remote}");
        let pushed = repository.json(0, &["--sources", &file, "export", name, &docker])?;
        ensure!(server.digest(&format!("team/{name}:v1"))? == pushed["digest"], "{name}: {pushed}");
        // Once more, nothing is to be sent.
        repository.text(&["--sources", &file, "export", name, &docker])?;
        let fresh = Repository::new(executables)?;
        let said = fresh.text(&["--sources", &file, "import", &docker])?;
        ensure!(said.contains(pushed["digest"].as_str().context("a digest")?), "{said}");
        let layout = fresh.dir.path().join(&server.host).join("team").join(name).join("v1");
        drydock_acceptance::layout::Layout::new(&layout).verify()?;
        ensure!(named(&layout)? == pushed["digest"], "{name}: another digest");
        ensure!(fresh.json(0, &["verify"])?[0]["status"] == "whole", "{name}");
        // By digest, for one platform, and with all blobs there already.
        let pin =
            format!("docker://{}/team/{name}@{}", server.host, pushed["digest"].as_str().unwrap_or_default());
        let again =
            fresh.json(0, &["--sources", &file, "import", &pin, "again", "--platform", "linux/amd64"])?;
        ensure!(again["fetched"] == 0, "{again}");
    }
    let found = Repository::new(executables)?;
    found.text(&["--sources", &file, "import", &format!("docker://{}/team/run:v1", server.host), "run"])?;
    ensure!(found.json(0, &["inspect", "run"])?["referrers"][0]["digest"] == signature.as_str());
    let lacking = format!("docker://{}/team/none", server.host);
    found.refused(3, "there is no such", &["--sources", &file, "import", &lacking])?;
    found.refused(4, "no trusted connection", &["import", &lacking])
}

fn registries_want_credentials(executables: &Built) -> Result<()> {
    let server = Server::start(true)?;
    let repository = Repository::with(executables, &["run"])?;
    let dir = tempfile::tempdir()?;
    let file = sources(dir.path(), &[&server.host], "")?;
    let target = format!("docker://{}/team/run", server.host);
    let command = |arguments: &[&str]| {
        let mut command = repository.command(&[&["--sources", file.as_str()][..], arguments].concat());
        command.env("HOME", dir.path());
        command
    };
    repository.refused(4, "wants credentials", &["--sources", &file, "export", "run", &target])?;
    let login = |password: &str| -> Result<(bool, String)> {
        let mut command = command(&["login", &server.host, "--user", "user", "--password-stdin"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("a pipe")?.write_all(password.as_bytes())?;
        let output = child.wait_with_output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    };
    let (done, said) = login("wrong\n")?;
    ensure!(!done && said.contains("does not allow it") && !said.contains("wrong"), "{said}");
    ensure!(!dir.path().join(".docker").exists(), "a wrong password is kept");
    let (done, said) = login("open sesame\n")?;
    ensure!(done && said.contains("config.json") && !said.contains("sesame"), "{said}");
    succeed(&mut command(&["export", "run", &target]))?;
    succeed(&mut command(&["import", &target, "new"]))?;
    ensure!(named(&repository.path("new"))? == named(&repository.path("run"))?);
    succeed(&mut command(&["logout", &server.host]))?;
    let output = command(&["import", &target, "third"]).output()?;
    ensure!(output.status.code() == Some(4), "credentials are still there");
    // Without a terminal, nobody is asked.
    let output = command(&["login", &server.host]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2) && said.contains("--password-stdin"), "{said}");
    Ok(())
}

fn registries_that_lie_are_refused(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run"])?;
    let image = Served::image(&repository.layout("run"))?;
    let dir = tempfile::tempdir()?;
    let mut without_one = image.clone();
    without_one.0.remove(&image.blobs()[0]);
    let mut nonsense = Served::default();
    nonsense.put("/v2/x/y/manifests/latest", "application/vnd.oci.image.manifest.v1+json", b"{}".to_vec());
    let empty = Repository::new(executables)?;
    for (served, exit, says) in [
        (image.clone().with_blobs(|bytes| bytes[0] ^= 1), 1, "is corrupt where it comes from"),
        (image.clone().with_blobs(|bytes| bytes.truncate(bytes.len() - 1)), 1, "bytes, found"),
        (without_one, 1, "is not there"),
        (nonsense, 4, "what a registry says"),
    ] {
        let fake = Fake::start(move |request, _| served.answer(request));
        let host = &fake.host;
        let file = sources(dir.path(), &[host], "")?;
        empty.refused(exit, says, &["--sources", &file, "import", &format!("docker://{host}/x/y"), "new"])?;
    }
    let fake = Fake::start(move |request, _| image.answer(request));
    let file = sources(dir.path(), &[&fake.host], "")?;
    empty.text(&["--sources", &file, "import", &format!("docker://{}/x/y", fake.host), "new"]).map(drop)
}

fn sources_say_what_may_come(executables: &Built) -> Result<()> {
    let server = Server::start(false)?;
    for name in ["team/run:v1", "team/secret:v1", "other/run:v1"] {
        server.fill("run", name)?;
    }
    let repository = Repository::new(executables)?;
    let dir = tempfile::tempdir()?;
    let host = &server.host;
    let rules = format!(
        "strict = true\n[source.hub]\nkind = 'registry'\nlocation = '{host}'\nallow = ['team/*']\ndeny = ['team/secret']\n\
         images = ['team/run:v1']\n[source.files]\nkind = 'archive'\nlocation = '.'\n[source.mirrored]\nkind = 'registry'\n\
         location = '{host}/other'\nmirrors = ['{host}/gone']\n[source.flat]\nkind = 'layout'\nlocation = '{}'\n\
         flatten = true\nplatforms = ['linux/amd64']\n",
        here("images").display()
    );
    let file = sources(dir.path(), &[host], &rules)?;
    let import = |arguments: &[&str]| {
        [&["--sources", file.as_str(), "import"][..], arguments]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let text = |arguments: &[&str]| {
        let all = import(arguments);
        repository.text(&all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let refused = |exit, says, arguments: &[&str]| {
        let all = import(arguments);
        repository.refused(exit, says, &all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    ensure!(text(&["hub/team/run:v1"])?.starts_with(&format!("{host}/team/run:v1 is sha256:")));
    text(&[&format!("docker://{host}/team/run:v1"), "by-reference"])?;
    refused(4, "`team/secret` is in its `deny`", &["hub/team/secret:v1", "x"])?;
    refused(4, "nothing in its `allow` matches", &["hub/other/run:v1", "x"])?;
    refused(4, "the file of sources is strict", &["docker://example.com/run", "x"])?;
    // The mirror has nothing; what comes from elsewhere is called as if it were not.
    ensure!(text(&["mirrored/run:v1"])?.starts_with(&format!("{host}/other/run:v1 is sha256:")));
    // Files, too, must be where they may come from.
    let archive = dir.path().join("run.tar");
    repository.text(&["export", "by-reference", &format!("oci-archive:{}", archive.display())])?;
    text(&["files/run.tar", "from-file"])?;
    text(&[&format!("oci-archive:{}", archive.display()), "by-path"])?;
    let outside = tempfile::tempdir()?;
    let elsewhere = outside.path().join("run.tar");
    fs::copy(&archive, &elsewhere)?;
    refused(4, "the file of sources is strict", &[&format!("oci-archive:{}", elsewhere.display()), "x"])?;
    std::os::unix::fs::symlink(&elsewhere, dir.path().join("link.tar"))?;
    let link = dir.path().join("link.tar");
    refused(4, "the file of sources is strict", &[&format!("oci-archive:{}", link.display()), "x"])?;
    text(&["flat/run-two-platforms", "flat"])?;
    let flat = repository.json(0, &["inspect", "flat"])?;
    ensure!(flat["layers"].as_array().map(Vec::len) == Some(1), "{flat}");
    refused(
        2,
        "is not for platform linux/arm64",
        &["flat/run-two-platforms", "x", "--platform", "linux/arm64"],
    )?;
    repository.refused(4, "unknown field", &["--sources", &bad_file(dir.path())?, "import", "hub/x"])?;
    ensure!(repository.json(0, &["verify"])?.as_array().context("a list")?.len() == 6);
    Ok(())
}

fn bad_file(dir: &Path) -> Result<String> {
    let path = dir.join("bad.toml");
    fs::write(&path, "strictly = true")?;
    Ok(path.display().to_string())
}

fn locked_images_stay_the_same(executables: &Built) -> Result<()> {
    let server = Server::start(false)?;
    server.fill("run", "team/run:v1")?;
    server.fill("run-v2", "team/other:v1")?;
    let dir = tempfile::tempdir()?;
    let rules = format!(
        "[source.hub]\nkind = 'registry'\nlocation = '{0}'\nimages = ['team/run:v1', 'team/other:v1']\n",
        server.host
    );
    let repository = Repository::new(executables)?;
    let file = sources(dir.path(), &[&server.host], &rules)?;
    let all = |more: &str| ["--sources", &file, "import", "--all", more].map(str::to_owned);
    let run = |repository: &Repository, more: &str| {
        let all = all(more);
        repository.text(&all.iter().map(String::as_str).filter(|word| !word.is_empty()).collect::<Vec<_>>())
    };
    repository.refused(
        4,
        "is not in the lock file",
        &["--sources", &file, "import", "hub/team/run:v1", "--locked"],
    )?;
    run(&repository, "--lock")?;
    let lock = fs::read_to_string(dir.path().join("sources.lock"))?;
    let old = server.digest("team/run:v1")?;
    ensure!(lock.contains(old.as_str().context("a digest")?) && lock.contains("hub/team/run:v1"), "{lock}");
    // The tag moves on; what is locked does not.
    server.fill("run-v2", "team/run:v1")?;
    let at = |repository: &Repository| named(&repository.dir.path().join(&server.host).join("team/run/v1"));
    let (locked, free) = (Repository::new(executables)?, Repository::new(executables)?);
    run(&locked, "--locked")?;
    run(&free, "")?;
    ensure!(at(&locked)? == old && at(&free)? == server.digest("team/run:v1")?);
    let names: BTreeSet<String> =
        locked.text(&["ls", "--format", "{name}"])?.lines().map(str::to_owned).collect();
    ensure!(names.len() == 2, "{names:?}");
    repository.refused(2, "lies beside a file of sources", &["import", "docker://x/y", "--locked"])
}

fn archives_come_from_urls(executables: &Built) -> Result<()> {
    let repository = Repository::with(executables, &["run"])?;
    let dir = tempfile::tempdir()?;
    let archive = dir.path().join("run.tar");
    repository.text(&["export", "run", &format!("oci-archive:{}", archive.display())])?;
    succeed(Command::new("gzip").arg(&archive))?;
    let bytes = fs::read(dir.path().join("run.tar.gz"))?;
    let tree = super::tar_of(&[(tar::EntryType::Regular, "f", "x")])?;
    let mut files = Served::default();
    for (path, bytes) in
        [("/run.tar.gz", &bytes[..]), ("/half.tar.gz", &bytes[..bytes.len() / 2]), ("/t.tar", &tree)]
    {
        files.put(path, "application/gzip", bytes.to_vec());
    }
    let fake = Fake::start(move |request, _| files.answer(request));
    let host = &fake.host;
    let fresh = Repository::new(executables)?;
    let rules = sources(dir.path(), &[host], "")?;
    fresh.text(&["--sources", &rules, "import", &format!("http://{host}/run.tar.gz"), "run"])?;
    ensure!(named(&fresh.path("run"))? == named(&repository.path("run"))?);
    fresh.text(&["--sources", &rules, "import", &format!("rootfs:http://{host}/t.tar"), "tree"])?;
    ensure!(fresh.json(0, &["inspect", "tree"])?["layers"].as_array().map(Vec::len) == Some(1));
    let import = |name: &str| {
        ["--sources".to_owned(), rules.clone(), "import".into(), format!("http://{host}/{name}"), "x".into()]
    };
    for (name, exit, says) in
        [("half.tar.gz", 1, "cannot be decompressed"), ("none.tar", 3, "there is no such file")]
    {
        let all = import(name);
        fresh.refused(exit, says, &all.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    fresh.refused(4, "use HTTPS", &["import", &format!("http://{host}/run.tar.gz"), "x"])
}
