//! A server that plays a registry: each connection is one request, which a function answers.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use drydock_model::digest::Digest;
use drydock_model::manifest::Descriptor;
use drydock_model::reference::ImageRef;
use drydock_registry::auth::Auth;
use drydock_registry::{Environment, Host, Options, Registry, Retry};

/// A request that came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    /// By names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// What was asked for, in two words.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The first byte that is wanted.
    pub(crate) fn offset(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// The length that is announced, if it is another than the body's.
    length: Option<usize>,
    is_endless: bool,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), length: None, is_endless: false }
    }

    pub(crate) fn with(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Announces this many bytes; the connection ends after the body all the same.
    pub(crate) fn announcing(mut self, length: usize) -> Self {
        self.length = Some(length);
        self
    }

    /// Repeats the body until nobody listens, without saying how long it is.
    pub(crate) fn endless(mut self) -> Self {
        self.is_endless = true;
        self
    }

    fn send(&self, stream: &mut TcpStream, method: &str) -> std::io::Result<()> {
        let length = self.length.unwrap_or(self.body.len());
        let length = ("Content-Length".to_owned(), length.to_string());
        let headers = self.headers.iter().chain((!self.is_endless).then_some(&length));
        let headers: Vec<_> = headers.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("HTTP/1.1 {} Answer\r\nConnection: close\r\n{}", self.status, headers.concat());
        stream.write_all(head.as_bytes())?;
        stream.write_all(b"\r\n")?;
        if method == "HEAD" {
            return Ok(());
        }
        loop {
            stream.write_all(&self.body)?;
            if !self.is_endless {
                return Ok(());
            }
        }
    }
}

/// A server on an address of this machine. Its thread ends with the process.
#[derive(Debug)]
pub(crate) struct Fake {
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    /// `answer` is given each request, and how many came before.
    pub(crate) fn start(mut answer: impl FnMut(&Request, usize) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let requests = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(request) = read(&stream) else {
                    let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
                    continue;
                };
                let answer = {
                    let mut requests = requests.lock().unwrap();
                    requests.push(request.clone());
                    answer(&request, requests.len() - 1)
                };
                // Whoever has enough goes away.
                let _ = answer.send(&mut stream, &request.method);
                let _ = stream.shutdown(Shutdown::Write);
                let _ = stream.read(&mut [0; 1024]);
            }
        });
        Self { host, seen }
    }

    /// The requests that came.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Request::line).collect()
    }

    /// An image in it.
    pub(crate) fn image(&self, name: &str) -> ImageRef {
        format!("{}/{name}", self.host).parse().unwrap()
    }

    /// A client for it, and for other such servers, that does not wait long; with these credentials for this
    /// one, if any.
    pub(crate) fn client_with(&self, others: &[&Self], auth: Auth) -> Registry {
        Registry::new(&self.options(others, auth)).unwrap()
    }

    pub(crate) fn client(&self) -> Registry {
        self.client_with(&[], Auth::Default)
    }

    pub(crate) fn options(&self, others: &[&Self], auth: Auth) -> Options {
        let plain = |auth| Host { plain_http: true, ca_file: None, auth };
        let mut hosts: BTreeMap<_, _> =
            others.iter().map(|other| (other.host.clone(), plain(Auth::Default))).collect();
        hosts.insert(self.host.clone(), plain(auth));
        Options { hosts, environment: Environment::default(), retry: quick() }
    }
}

/// Tries again at once.
pub(crate) fn quick() -> Retry {
    Retry {
        first_wait: std::time::Duration::from_millis(1),
        longest_wait: std::time::Duration::from_secs(1),
        ..Retry::default()
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let mut request = Request { method: words.next()?, path: words.next()?, ..Request::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = request.header("content-length").map_or(0, |text| text.parse().unwrap());
    request.body = vec![0; length];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

/// Bytes that repeat only after a while.
pub(crate) fn some_bytes(size: usize) -> Vec<u8> {
    (0..size).map(|i| u8::try_from((i * 7 + i / 251) % 256).unwrap()).collect()
}

pub(crate) fn describe(bytes: &[u8]) -> Descriptor {
    Descriptor::new("application/octet-stream", Digest::of(bytes), bytes.len() as u64)
}
