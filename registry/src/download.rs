//! Bytes on their way, which go on where a connection broke off.

use std::fmt;
use std::io::{self, Read};
use std::time::SystemTime;

use drydock_model::manifest::Descriptor;
use drydock_model::reference::ImageRef;
use ureq::BodyReader;
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, LAST_MODIFIED};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

use crate::auth::Access;
use crate::call::{Call, Caller, malformed};
use crate::error::{Error, ErrorKind};
use crate::registry::{Registry, pull};
use crate::retry::Attempts;
use crate::text::printable;
use crate::url::Origin;
use crate::{BREAK_LIMIT, PROGRESS};

/// A blob or a file on its way: exactly as many bytes as there should be, or an error whose `get_ref()` is an
/// [`Error`]. Nobody has checked a digest.
pub struct Download<'a> {
    caller: &'a Caller,
    target: String,
    what: &'static str,
    url: Uri,
    /// Whose credentials may be shown; nobody's for a file.
    access: Option<Access>,
    size: Option<u64>,
    /// What tells that a file is still the same. A blob is known by its digest.
    etag: Option<HeaderValue>,
    /// When a file was changed.
    modified: Option<SystemTime>,
    position: u64,
    body: Option<BodyReader<'static>>,
    attempts: Attempts<'a>,
    /// Where it was when attempts were counted from the beginning.
    counted_from: u64,
    breaks: u32,
    is_done: bool,
}

impl fmt::Debug for Download<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Download({} at {} of {:?})", self.target, self.position, self.size)
    }
}

impl Registry {
    /// The bytes of a blob from `offset` on; if the connection breaks off, it goes on where it was. Yields
    /// exactly the bytes that the descriptor's size says, or an error. **The digest is for the caller to
    /// check.**
    pub fn blob(
        &self,
        repository: &ImageRef,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<Download<'_>, Error> {
        let target = repository.with_digest(descriptor.digest);
        let url = self.url(repository, &format!("blobs/{}", descriptor.digest));
        let url = url.map_err(|kind| Error::new(target.to_string(), kind))?;
        let mut download = Download::new(&self.caller, target.to_string(), "blob", url);
        download.access = Some(pull(repository));
        download.size = Some(descriptor.size);
        download.position = offset;
        download.counted_from = offset;
        download.begin()
    }

    /// The file at a URL of HTTPS, or of HTTP if its host is said to have that. No credentials are sent. If
    /// the connection breaks off, it goes on if the server can tell that the file is still the same.
    pub fn file(&self, url: &str) -> Result<Download<'_>, Error> {
        // The rest of the URL may be signed: it is not shown.
        let parsed = url.parse().ok().and_then(|url: Uri| Some((Origin::of(&url)?, url)));
        let (origin, url) = parsed.ok_or_else(|| {
            Error::new(
                "a file",
                ErrorKind::Options("it must have a URL of HTTPS or HTTP, without a user".to_owned()),
            )
        })?;
        let target = format!("{origin}{}", url.path());
        if !self.caller.transport.allows(&origin) {
            let reason = "the host is not said to have plain HTTP; use HTTPS".to_owned();
            return Err(Error::new(target, ErrorKind::Options(reason)));
        }
        Download::new(&self.caller, target, "file", url).begin()
    }
}

impl<'a> Download<'a> {
    fn new(caller: &'a Caller, target: String, what: &'static str, url: Uri) -> Self {
        Self {
            caller,
            target,
            what,
            url,
            access: None,
            size: None,
            etag: None,
            modified: None,
            position: 0,
            body: None,
            attempts: Attempts::new(&caller.retry),
            counted_from: 0,
            breaks: 0,
            is_done: false,
        }
    }

    /// How many bytes there are in all, with those before the offset, if that is known.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// When a file was changed, if the server tells that.
    pub fn modified(&self) -> Option<SystemTime> {
        self.modified
    }

    /// What is missing or forbidden shows here, before anything is written.
    fn begin(mut self) -> Result<Self, Error> {
        if let Some(size) = self.size.filter(|&size| self.position > size) {
            let found = format!("already {}", self.position);
            return Err(Error::new(self.target, ErrorKind::LengthMismatch { expected: size, found }));
        }
        while self.body.is_none() && self.size != Some(self.position) {
            if let Err(kind) = self.connect() {
                return Err(Error::new(self.target, kind));
            }
        }
        Ok(self)
    }

    /// Asks for the rest. Without an error there may still be no body, if it is worth to ask again.
    fn connect(&mut self) -> Result<(), ErrorKind> {
        match self.request() {
            Ok(body) => {
                self.body = Some(body);
                Ok(())
            }
            Err(kind) => self.attempts.failed(kind),
        }
    }

    fn request(&mut self) -> Result<BodyReader<'static>, ErrorKind> {
        let mut call = Call::new(Method::GET, self.url.clone(), self.access.as_ref(), self.what);
        call.offset = self.position;
        call.if_range = self.etag.as_ref();
        let response = match self.caller.attempt(&mut call) {
            Err(ErrorKind::Status { status: 416, .. }) => {
                return Err(self.has_length(format!("at most {}", self.position)));
            }
            other => other?,
        };
        let headers = response.headers();
        let mut total = number(headers, &CONTENT_LENGTH);
        let mut begin = 0;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = content_range(headers);
            let range = range.ok_or_else(|| malformed("a part without `Content-Range`"))?;
            begin = range.0;
            total = range.1.or(total.map(|length| begin.saturating_add(length)));
            if begin != 0 && begin != self.position {
                return Err(malformed("another part than was asked for"));
            }
        }
        if self.access.is_none() {
            if begin != self.position {
                return Err(ErrorKind::Options(
                    "the file was replaced while it was read: begin anew".to_owned(),
                ));
            }
            let is_strong = |etag: &&HeaderValue| etag.as_bytes().starts_with(b"\"");
            self.etag = headers.get(ETAG).filter(is_strong).cloned();
            self.size = self.size.or(total);
            let modified = headers.get(LAST_MODIFIED).and_then(|value| value.to_str().ok());
            self.modified = modified.and_then(|text| httpdate::parse_http_date(text).ok()).or(self.modified);
        }
        if let Some(total) = total.filter(|&total| self.size.is_some_and(|size| size != total)) {
            return Err(self.has_length(total.to_string()));
        }
        let mut body = response.into_body().into_reader();
        // A registry without ranges sends it all again.
        let skip = self.position - begin;
        let skipped = io::copy(&mut body.by_ref().take(skip), &mut io::sink()).map_err(|e| broken(&e))?;
        if skipped < skip { Err(self.has_length(skipped.to_string())) } else { Ok(body) }
    }

    fn has_length(&self, found: String) -> ErrorKind {
        ErrorKind::LengthMismatch { expected: self.size.unwrap_or_default(), found }
    }

    /// The connection broke off: counts it, and waits before it is asked again.
    fn broke(&mut self, kind: ErrorKind) -> Result<(), ErrorKind> {
        self.body = None;
        self.caller.retry.left()?;
        self.breaks += 1;
        let can_go_on = self.access.is_some() || self.etag.is_some() || self.position == 0;
        if self.breaks > BREAK_LIMIT || !can_go_on {
            return Err(kind);
        }
        if self.position - self.counted_from >= PROGRESS {
            self.counted_from = self.position;
            self.attempts.reset();
        }
        self.attempts.failed(kind)
    }

    /// All is there: whatever comes now is too much.
    fn finish(&mut self) -> Result<(), ErrorKind> {
        self.is_done = true;
        let Some(mut body) = self.body.take() else { return Ok(()) };
        match body.read(&mut [0]) {
            Ok(n) if n > 0 => Err(self.has_length("more".to_owned())),
            // A break after the last byte takes nothing away.
            _ => Ok(()),
        }
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        while !self.is_done {
            if self.size == Some(self.position) {
                self.finish()?;
                continue;
            }
            let Some(body) = &mut self.body else {
                self.connect()?;
                continue;
            };
            let left = self.size.map_or(u64::MAX, |size| size - self.position);
            let wanted = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            match body.read(&mut buffer[..wanted]) {
                Ok(0) if self.size.is_none() => self.is_done = true,
                Ok(0) => self.broke(ErrorKind::Broken { reason: "it ended too early".to_owned() })?,
                Ok(n) => {
                    self.position += n as u64;
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => self.broke(broken(&e))?,
            }
        }
        Ok(0)
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.next(buffer).map_err(|kind| Error::new(self.target.clone(), kind).into())
    }
}

fn broken(error: &io::Error) -> ErrorKind {
    ErrorKind::Broken { reason: printable(&error.to_string()) }
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The first byte, and how many there are in all, in `bytes 5-9/10`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}
