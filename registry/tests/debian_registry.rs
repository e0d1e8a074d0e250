//! Debian's `docker-registry` on an address of this machine, with skopeo as the judge.
#![cfg(test)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use drydock_model::digest::{Digest, HashingWriter};
use drydock_model::manifest::{Descriptor, Index, Manifest};
use drydock_model::media;
use drydock_model::reference::ImageRef;
use drydock_registry::auth::{Auth, Credentials, Secret, login};
use drydock_registry::{Environment, ErrorKind, Host, Options, Pushed, Registry};

/// The password of `user` is `open sesame`.
const HTPASSWD: &str = "user:$2b$05$p765s/lP7FNs5fmK0jtK1ujLptqTJrlHDMeGohW.aHp4Cre7Tv3Ke\n";

/// A running registry, which ends with the test.
struct Server {
    child: Child,
    dir: tempfile::TempDir,
    host: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is this test's own child, and has nothing to save.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(has_password: bool, has_tls: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The port is free now; should somebody take it meanwhile, the next one is tried.
        for _ in 0..5 {
            let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
            let mut config = vec![
                "version: 0.1\nlog: {level: error}".to_owned(),
                format!("storage: {{filesystem: {{rootdirectory: {}}}}}", dir.path().join("data").display()),
                format!("http:\n  addr: {host}"),
            ];
            if has_tls {
                certificates(dir.path());
                let path = |name: &str| dir.path().join(name).display().to_string();
                config.push(format!(
                    "  tls: {{certificate: {}, key: {}}}",
                    path("server.crt"),
                    path("server.key")
                ));
            }
            if has_password {
                let path = dir.path().join("htpasswd");
                fs::write(&path, HTPASSWD).unwrap();
                config.push(format!("auth: {{htpasswd: {{realm: test, path: {}}}}}", path.display()));
            }
            let path = dir.path().join("config.yml");
            fs::write(&path, config.join("\n")).unwrap();
            let log = File::create(dir.path().join("log")).unwrap();
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg(&path).env("OTEL_TRACES_EXPORTER", "none");
            let mut child =
                command.stdout(Stdio::null()).stderr(log).spawn().expect("docker-registry is installed");
            if is_up(&mut child, &host) {
                return Self { child, dir, host };
            }
            let _ = child.kill();
            child.wait().unwrap();
        }
        panic!("docker-registry does not start: {}", fs::read_to_string(dir.path().join("log")).unwrap());
    }

    fn image(&self, name: &str) -> ImageRef {
        format!("{}/{name}", self.host).parse().unwrap()
    }

    fn options(&self, host: Host) -> Options {
        Options { hosts: BTreeMap::from([(self.host.clone(), host)]), ..Options::default() }
    }

    fn plain(&self, auth: Auth) -> Registry {
        Registry::new(&self.options(Host { plain_http: true, auth, ca_file: None })).unwrap()
    }

    fn skopeo(&self, args: &[&str]) -> Vec<u8> {
        let home = self.dir.path();
        let output =
            Command::new("skopeo").arg("--insecure-policy").args(args).env("HOME", home).output().unwrap();
        assert!(output.status.success(), "skopeo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

fn is_up(child: &mut Child, host: &str) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(30) && child.try_wait().unwrap().is_none() {
        if TcpStream::connect(host).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}

/// A certification authority, and a server's certificate by it.
fn certificates(dir: &Path) {
    fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for args in [
        format!("req -x509 {new_key} -keyout ca.key -out ca.crt -days 2 -subj /CN=test"),
        format!("req {new_key} -keyout server.key -out server.csr -subj /CN=localhost"),
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt"
            .to_owned(),
    ] {
        let output = Command::new("openssl").args(args.split(' ')).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// An image layout of the project.
fn layout(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../acceptance/images").join(name)
}

fn blob(layout: &Path, digest: Digest) -> PathBuf {
    layout.join("blobs/sha256").join(digest.hex())
}

/// The image in a layout, or the index itself if there are several.
fn image(layout: &Path) -> (Descriptor, Vec<u8>) {
    let bytes = fs::read(layout.join("index.json")).unwrap();
    let index: Index = serde_json::from_slice(&bytes).unwrap();
    match index.manifests.descriptors.as_slice() {
        [image] => (image.clone(), fs::read(blob(layout, image.digest)).unwrap()),
        _ => (Descriptor::new(media::INDEX, Digest::of(&bytes), bytes.len() as u64), bytes),
    }
}

/// Pushes a manifest or an index with all that it leads to; says how each blob came there.
fn push(
    registry: &Registry,
    layout: &Path,
    (descriptor, bytes): &(Descriptor, Vec<u8>),
    to: &ImageRef,
    from: Option<&ImageRef>,
) -> Vec<Pushed> {
    let mut pushed = Vec::new();
    if descriptor.oci_media_type() == media::INDEX {
        let index: Index = serde_json::from_slice(bytes).unwrap();
        for child in index.manifests.descriptors {
            let to = to.with_digest(child.digest);
            let bytes = fs::read(blob(layout, child.digest)).unwrap();
            pushed.extend(push(registry, layout, &(child, bytes), &to, from));
        }
    } else {
        let manifest: Manifest = serde_json::from_slice(bytes).unwrap();
        for child in manifest.layers.iter().chain([&manifest.config]) {
            let open = &mut || File::open(blob(layout, child.digest));
            pushed.push(registry.put_blob(to, child, from, open).unwrap());
        }
    }
    let digest = registry.put_manifest(to, &descriptor.media_type, bytes).unwrap();
    assert_eq!(digest, descriptor.digest);
    pushed
}

/// Pulls all that a reference leads to, and checks it; says how many blobs that was.
fn pull(registry: &Registry, from: &ImageRef) -> usize {
    let (descriptor, bytes) = registry.manifest(from).unwrap();
    if descriptor.oci_media_type() == media::INDEX {
        let index: Index = serde_json::from_slice(&bytes).unwrap();
        return index
            .manifests
            .descriptors
            .iter()
            .map(|child| pull(registry, &from.with_digest(child.digest)))
            .sum();
    }
    let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
    let blobs = || manifest.layers.iter().chain([&manifest.config]);
    for child in blobs() {
        for offset in [0, child.size / 2] {
            let mut found = vec![0; usize::try_from(offset).unwrap()];
            registry.blob(from, child, 0).unwrap().read_exact(&mut found).unwrap();
            registry.blob(from, child, offset).unwrap().read_to_end(&mut found).unwrap();
            assert_eq!(Digest::of(&found), child.digest);
        }
    }
    blobs().count()
}

#[test]
fn images_and_indexes_go_there_and_come_back() {
    let server = Server::start(false, false);
    let registry = server.plain(Auth::Default);
    for name in ["run", "run-docker", "run-two-platforms"] {
        let layout = layout(name);
        let image = image(&layout);
        let to = server.image(&format!("ours/{name}:1"));
        assert!(push(&registry, &layout, &image, &to, None).contains(&Pushed::Sent));
        assert!(push(&registry, &layout, &image, &to, None).iter().all(|pushed| *pushed == Pushed::Existing));
        let raw = server.skopeo(&["inspect", "--tls-verify=false", "--raw", &format!("docker://{to}")]);
        assert_eq!(Digest::of(&raw), image.0.digest);
        let copy = format!("dir:{}", server.dir.path().join(name).display());
        server.skopeo(&["copy", "--all", "--src-tls-verify=false", &format!("docker://{to}"), &copy]);
        let theirs = server.image(&format!("theirs/{name}:1"));
        server.skopeo(&["copy", "--all", "--dest-tls-verify=false", &copy, &format!("docker://{theirs}")]);
        assert_eq!(registry.manifest(&theirs).unwrap().0.digest, image.0.digest);
        assert!(pull(&registry, &theirs) > 1);
    }
    assert_eq!(registry.tags(&server.image("ours/run"), 10).unwrap(), ["1"]);
    let error = registry.manifest(&server.image("ours/run:2")).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NotFound { what: "manifest" }), "{error}");
    let error = registry.tags(&server.image("ours/none"), 10).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NotFound { what: "repository" }), "{error}");
}

#[test]
fn blobs_are_mounted_from_another_repository() {
    let server = Server::start(false, false);
    let registry = server.plain(Auth::Default);
    let layout = layout("run");
    let image = image(&layout);
    let first = server.image("first/run:1");
    push(&registry, &layout, &image, &first, None);
    let pushed = push(&registry, &layout, &image, &server.image("second/run:1"), Some(&first));
    assert!(pushed.iter().all(|pushed| *pushed == Pushed::Mounted), "{pushed:?}");
    let pushed =
        push(&registry, &layout, &image, &server.image("third/run:1"), Some(&server.image("none/run")));
    assert!(pushed.contains(&Pushed::Sent) && !pushed.contains(&Pushed::Mounted), "{pushed:?}");
    assert!(pull(&registry, &server.image("second/run:1")) > 1);
}

#[test]
fn what_refers_to_an_image_is_found() {
    let server = Server::start(false, false);
    let registry = server.plain(Auth::Default);
    let layout = layout("run");
    let image = image(&layout);
    let to = server.image("acme/run:1");
    push(&registry, &layout, &image, &to, None);
    let empty = Descriptor::new("application/vnd.oci.empty.v1+json", Digest::of(b"{}"), 2);
    registry.put_blob(&to, &empty, None, &mut || Ok(b"{}".as_slice())).unwrap();
    for artifact_type in ["application/vnd.acme.log", "application/vnd.acme.sbom"] {
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": media::MANIFEST, "artifactType": artifact_type,
            "config": empty, "layers": [empty], "subject": image.0,
        });
        let bytes = serde_json::to_vec(&manifest).unwrap();
        registry.put_manifest(&to.with_digest(Digest::of(&bytes)), media::MANIFEST, &bytes).unwrap();
    }
    let found = registry.referrers(&to, image.0.digest, 10).unwrap();
    let types: Vec<_> = found.iter().map(|descriptor| &descriptor.rest["artifactType"]).collect();
    assert_eq!(types, ["application/vnd.acme.log", "application/vnd.acme.sbom"]);
}

#[test]
fn a_password_is_needed_where_there_is_one() {
    let server = Server::start(true, false);
    let to = server.image("acme/run:1");
    let error = server.plain(Auth::Default).manifest(&to).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Unauthorized { with_credentials: false, .. }), "{error}");

    let home = server.dir.path().join("home");
    let mut options = server.options(Host { plain_http: true, ..Host::default() });
    options.environment = [("HOME", &home)].into_iter().collect::<Environment>();
    let credentials = |password: &str| Credentials::Password {
        user: "user".to_owned(),
        password: Secret(password.to_owned()),
    };
    let error = login(&options, &server.host, &credentials("wrong")).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Unauthorized { with_credentials: true, .. }), "{error}");
    login(&options, &server.host, &credentials("open sesame")).unwrap();

    let registry = Registry::new(&options).unwrap();
    let layout = layout("run");
    let image = image(&layout);
    push(&registry, &layout, &image, &to, None);
    let pushed = push(&registry, &layout, &image, &server.image("acme/copy:1"), Some(&to));
    assert!(pushed.iter().all(|pushed| *pushed == Pushed::Mounted), "{pushed:?}");
    assert!(pull(&registry, &to) > 1);
    // Other tools find what was kept.
    let file = home.join(".docker/config.json").display().to_string();
    server.skopeo(&["inspect", "--tls-verify=false", "--authfile", &file, &format!("docker://{to}")]);
}

#[test]
fn a_server_is_trusted_by_its_own_certificates() {
    let server = Server::start(true, true);
    let credentials =
        Credentials::Password { user: "user".to_owned(), password: Secret("open sesame".to_owned()) };
    let host = |ca_file| Host { plain_http: false, ca_file, auth: Auth::Given(credentials.clone()) };
    let ca = server.dir.path().join("ca.crt");
    let registry = Registry::new(&server.options(host(Some(ca.clone())))).unwrap();
    let layout = layout("run");
    let image = image(&layout);
    let to = server.image("acme/run:1");
    push(&registry, &layout, &image, &to, None);
    assert!(pull(&registry, &to) > 1);
    let folder = server.dir.path().join("trusted");
    fs::create_dir(&folder).unwrap();
    fs::copy(&ca, folder.join("ca.crt")).unwrap();
    let folder = folder.display().to_string();
    server.skopeo(&[
        "inspect",
        "--creds",
        "user:open sesame",
        "--cert-dir",
        &folder,
        &format!("docker://{to}"),
    ]);

    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    let registry = Registry::new(&server.options(host(Some(other.path().join("ca.crt"))))).unwrap();
    let error = registry.manifest(&to).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Tls { .. }), "{error}");
    assert!(error.to_string().contains("name the CA file for this host"), "{error}");
    let error = Registry::new(&server.options(host(None))).unwrap().manifest(&to).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Tls { .. } | ErrorKind::CaFile { .. }), "{error}");
    for (file, want) in [("server.key", "there is no PEM certificate in it"), ("gone", "No such file")] {
        let options = server.options(host(Some(server.dir.path().join(file))));
        let error = Registry::new(&options).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }
    // Who expects plain HTTP is told so by the server.
    let error = server.plain(Auth::Default).manifest(&to).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Status { status: 400, .. }), "{error}");
}

/// Of this process, in bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn a_large_blob_passes_through_little_memory() {
    const SIZE: u64 = 300 << 20;
    let server = Server::start(false, false);
    let registry = server.plain(Auth::Default);
    let open = || Ok(io::repeat(7).take(SIZE));
    let mut hash = HashingWriter::new(io::sink());
    io::copy(&mut open().unwrap(), &mut hash).unwrap();
    let (_, digest, _) = hash.finish();
    let to = server.image("acme/large");
    let descriptor = Descriptor::new("application/octet-stream", digest, SIZE);
    assert_eq!(registry.put_blob(&to, &descriptor, None, &mut || open()).unwrap(), Pushed::Sent);
    let mut hash = HashingWriter::new(io::sink());
    io::copy(&mut registry.blob(&to, &descriptor, 0).unwrap(), &mut hash).unwrap();
    hash.flush().unwrap();
    assert_eq!(hash.finish().1, digest);
    let peak = peak_memory();
    assert!(peak < 64 << 20, "{peak}");
}
