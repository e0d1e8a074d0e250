//! A server that plays a registry, for tests: each connection is one request, which a function answers.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// A request that came.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Its verb.
    pub method: String,
    /// With the query.
    pub path: String,
    /// By names in lower case.
    pub headers: BTreeMap<String, String>,
    /// What was sent.
    pub body: Vec<u8>,
}

impl Request {
    /// A header's value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// What was asked for, in two words.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The first byte that is wanted.
    pub fn offset(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// The length that is announced, if it is another than the body's.
    length: Option<usize>,
    then: Then,
    /// Nothing but the body is sent: it has headers of its own.
    is_raw: bool,
}

/// What follows the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The end of the connection.
    End,
    /// The body once more, and so on.
    Again,
    /// Nothing, until nobody listens.
    Silence,
    /// A byte of no meaning now and then, until nobody listens.
    Trickle,
}

impl Answer {
    /// With this status and body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), length: None, then: Then::End, is_raw: false }
    }

    /// These bytes, which need not be an answer.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { is_raw: true, ..Self::new(0, bytes) }
    }

    /// With a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Announces this many bytes; the connection ends after the body all the same.
    #[must_use]
    pub fn announcing(mut self, length: usize) -> Self {
        self.length = Some(length);
        self
    }

    /// Repeats the body until nobody listens, without saying how long it is.
    #[must_use]
    pub fn endless(mut self) -> Self {
        self.then = Then::Again;
        self
    }

    /// Says nothing more after the body, and keeps the connection.
    #[must_use]
    pub fn stalling(mut self) -> Self {
        self.then = Then::Silence;
        self
    }

    /// Adds a byte of no meaning now and then.
    #[must_use]
    pub fn trickling(mut self) -> Self {
        self.then = Then::Trickle;
        self
    }

    fn send(&self, stream: &mut TcpStream, method: &str) -> io::Result<()> {
        if !self.is_raw {
            stream.write_all(self.head().as_bytes())?;
            if method == "HEAD" {
                return Ok(());
            }
        }
        self.send_body(stream)
    }

    fn head(&self) -> String {
        let length = self.length.unwrap_or(self.body.len());
        let length = ("Content-Length".to_owned(), length.to_string());
        let headers = self.headers.iter().chain((self.then != Then::Again).then_some(&length));
        let headers: Vec<_> = headers.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("HTTP/1.1 {} Answer\r\nConnection: close\r\n{}\r\n", self.status, headers.concat())
    }

    fn send_body(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(&self.body)?;
        loop {
            match self.then {
                Then::End => return Ok(()),
                Then::Again => stream.write_all(&self.body)?,
                Then::Silence => return io::copy(stream, &mut io::sink()).map(drop),
                Then::Trickle => {
                    thread::sleep(Duration::from_millis(20));
                    stream.write_all(b"x")?;
                }
            }
        }
    }
}

/// A server on an address of this machine. Its threads end with the process.
#[derive(Debug)]
pub struct Fake {
    /// `127.0.0.1:PORT`.
    pub host: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    /// `answer` is given each request, and how many came before.
    ///
    /// # Panics
    /// This machine has no free port.
    pub fn start(answer: impl FnMut(&Request, usize) -> Answer + Send + 'static) -> Self {
        Self::reading(usize::MAX, answer)
    }

    /// The same; of a body that is longer than this, it reads nothing, and `answer` is given none.
    ///
    /// # Panics
    /// This machine has no free port.
    pub fn reading(longest: usize, answer: impl FnMut(&Request, usize) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("this machine has a free port");
        let host = listener.local_addr().expect("it is bound to an address").to_string();
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let state = Arc::new((Arc::clone(&seen), Mutex::new(answer)));
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&state);
                thread::spawn(move || {
                    let (seen, answer) = &*state;
                    let Some(request) = read(&stream, longest) else {
                        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
                        return;
                    };
                    let answer = {
                        let mut answer = lock(answer);
                        let mut seen = lock(seen);
                        seen.push(request.clone());
                        let before = seen.len() - 1;
                        drop(seen);
                        answer(&request, before)
                    };
                    // Whoever has enough goes away.
                    let _ = answer.send(&mut stream, &request.method);
                    let _ = stream.shutdown(Shutdown::Write);
                    let _ = stream.read(&mut [0; 1024]);
                });
            }
        });
        Self { host, seen }
    }

    /// The requests that came.
    pub fn seen(&self) -> Vec<Request> {
        lock(&self.seen).clone()
    }

    /// Forgets the requests that came.
    pub fn forget(&self) {
        lock(&self.seen).clear();
    }

    /// What was asked for, in two words each.
    pub fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Request::line).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(stream: &TcpStream, longest: usize) -> Option<Request> {
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
    let length = request.header("content-length").map_or(Some(0), |text| text.parse().ok())?;
    if length > longest {
        return Some(request);
    }
    request.body = vec![0; length];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}
