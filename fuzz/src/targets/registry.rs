//! What registries answer: manifests and lists, challenges and tokens, redirects, pages, explanations.
//!
//! An input holds the answers in the order in which they are given, headers included, with a line `====` between them. The last
//! one is given again and again. All hosts are this one: it is the proxy, too.

use std::io::{self, Read as _};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use drydock_fake_registry::{Answer, Fake};
use drydock_model::digest::Digest;
use drydock_model::manifest::Descriptor;
use drydock_model::reference::ImageRef;
use drydock_registry::auth::{Auth, Credentials, Secret};
use drydock_registry::{Environment, Host, Options, Registry, Retry};

use super::{Target, roughly};

pub(crate) const TARGET: Target = Target {
    name: "registry",
    longest: 1 << 13,
    words: &[
        b"\n====\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 401 Unauthorized\r\n",
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /x\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-9/10\r\n",
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\n",
        b"WWW-Authenticate: Basic realm=\"r\"\r\n",
        b"WWW-Authenticate: Bearer realm=\"http://HOST/token\",service=\"s\",scope=\"x\"\r\n",
        b"Link: </v2/a/tags/list?last=b>; rel=\"next\"\r\n",
        b"Docker-Content-Digest: sha256:",
        b"Content-Type: application/vnd.oci.image.index.v1+json\r\n",
        b"Content-Length: 9\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n\r\n",
        b"{\"token\": \"t\", \"expires_in\": 1}",
        b"{\"errors\": [{\"code\": \"X\", \"message\": \"m\"}]}",
        b"{\"schemaVersion\": 2, \"manifests\": []}",
        b"{\"tags\": [\"a\"]}",
    ],
    can_use: |_, _| false,
    run,
};

/// The bytes of a blob that some answers hold.
const BLOB: &[u8] = b"a blob of ten";

/// Tags and referrers are read up to here.
const MOST: usize = 100;

/// The answers that are left, the next one last.
static ANSWERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn server() -> &'static Fake {
    static SERVER: OnceLock<Fake> = OnceLock::new();
    SERVER.get_or_init(|| {
        Fake::start(|_, _| {
            let mut answers = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
            let next = if answers.len() > 1 { answers.pop() } else { answers.first().cloned() };
            Answer::raw(next.unwrap_or_default())
        })
    })
}

fn run(input: &[u8]) -> String {
    let fake = server();
    fake.forget();
    let host = fake.host.as_str();
    let text = String::from_utf8_lossy(input).replace("HOST", host);
    let mut answers: Vec<Vec<u8>> = text.split("\n====\n").map(|answer| answer.as_bytes().to_vec()).collect();
    answers.reverse();
    *ANSWERS.lock().unwrap_or_else(PoisonError::into_inner) = answers;
    let password = Secret("hunter2".to_owned());
    let auth = Auth::Given(Credentials::Password { user: "user".to_owned(), password });
    let plain = Host { plain_http: true, ca_file: None, auth };
    let proxy = format!("http://{host}");
    let environment: Environment = [("HTTPS_PROXY", proxy.as_str())].into_iter().collect();
    let retry = Retry {
        attempts: 2,
        first_wait: Duration::ZERO,
        longest_wait: Duration::ZERO,
        stalled: Duration::from_secs(2),
        until: None,
    };
    let options = Options { hosts: [(host.to_owned(), plain)].into(), environment, retry };
    let client = Registry::new(&options).expect("the settings are good");
    let image: ImageRef = format!("{host}/a/b").parse().expect("it is a reference");
    let blob = Descriptor::new("application/octet-stream", Digest::of(BLOB), BLOB.len() as u64);
    let (mut found, mut file) = (Vec::new(), Vec::new());
    let manifest = client.manifest(&image).map(|(descriptor, bytes)| {
        assert_eq!(descriptor.digest, Digest::of(&bytes));
        assert_eq!(descriptor.size, bytes.len() as u64);
        roughly(bytes.len())
    });
    let read = client.blob(&image, &blob, 0).map_err(io::Error::from);
    let read = read.and_then(|mut download| download.read_to_end(&mut found));
    if read.is_ok() {
        assert_eq!(found.len(), BLOB.len(), "it yields as many bytes as the descriptor says");
    }
    let referrers = client.referrers(&image, blob.digest, MOST).map(|all| {
        assert!(all.len() <= MOST);
        roughly(all.len())
    });
    let tags = client.tags(&image, MOST).map(|all| {
        assert!(all.len() <= MOST);
        roughly(all.len())
    });
    let from_url = client.file(&format!("http://{host}/f")).map_err(io::Error::from);
    let from_url = from_url.and_then(|download| download.take(1 << 16).read_to_end(&mut file));
    let said = [
        format!("{:?}", manifest.map_err(|error| error.to_string())),
        format!("{:?}", read.map(roughly).map_err(|error| error.to_string())),
        format!("{:?}", referrers.map_err(|error| error.to_string())),
        format!("{:?}", tags.map_err(|error| error.to_string())),
        format!("{:?}", client.check(host).map_err(|error| error.to_string())),
        format!("{:?}", from_url.map(roughly).map_err(|error| error.to_string())),
    ]
    .concat();
    assert!(!said.contains("hunter2") && !said.contains("dXNlcjpodW50ZXIy"), "a password is shown: {said}");
    assert!(!said.contains('\u{1b}'), "a message holds what steers terminals: {said}");
    said.replace(host, "")
}
