//! The bytes of a blob, which go on where a connection broke off.

use std::fmt;
use std::io::{self, Read};

use drydock_model::reference::ImageRef;
use ureq::BodyReader;
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use ureq::http::{HeaderMap, Method, StatusCode};

use crate::call::{Call, malformed};
use crate::error::{Error, ErrorKind};
use crate::registry::{Registry, pull};
use crate::retry::Attempts;
use crate::text::printable;
use crate::{BREAK_LIMIT, PROGRESS};

/// A blob on its way: exactly as many bytes as its descriptor says, or an error. Nobody has checked its digest.
pub struct Blob<'a> {
    registry: &'a Registry,
    reference: ImageRef,
    size: u64,
    position: u64,
    body: Option<BodyReader<'static>>,
    attempts: Attempts<'a>,
    /// Where it was when attempts were counted from the beginning.
    counted_from: u64,
    breaks: u32,
    is_done: bool,
}

impl fmt::Debug for Blob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} at {} of {})", self.reference, self.position, self.size)
    }
}

impl<'a> Blob<'a> {
    pub(crate) fn open(
        registry: &'a Registry,
        reference: ImageRef,
        size: u64,
        offset: u64,
    ) -> Result<Self, Error> {
        let mut blob = Self {
            registry,
            reference,
            size,
            position: offset,
            body: None,
            attempts: Attempts::new(&registry.caller.retry),
            counted_from: offset,
            breaks: 0,
            is_done: offset == size,
        };
        if offset > size {
            let found = format!("already {offset}");
            return Err(blob.error(ErrorKind::LengthMismatch { expected: size, found }));
        }
        // What is missing or forbidden shows here, before anything is written.
        while blob.body.is_none() && !blob.is_done {
            blob.connect().map_err(|kind| blob.error(kind))?;
        }
        Ok(blob)
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(self.reference.to_string(), kind)
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

    fn request(&self) -> Result<BodyReader<'static>, ErrorKind> {
        let digest = self.reference.digest().expect("a blob is named by its digest");
        let access = pull(&self.reference);
        let url = self.registry.url(&self.reference, &format!("blobs/{digest}"))?;
        let mut call = Call { offset: self.position, ..Call::new(Method::GET, url, &access, "blob") };
        let response = match self.registry.caller.attempt(&mut call) {
            Err(ErrorKind::Status { status: 416, .. }) => {
                return Err(self.has_length(format!("at most {}", self.position)));
            }
            other => other?,
        };
        let begin = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = content_range(response.headers());
                let (begin, total) =
                    range.ok_or_else(|| malformed("a part of a blob without `Content-Range`"))?;
                if let Some(total) = total.filter(|&total| total != self.size) {
                    return Err(self.has_length(total.to_string()));
                }
                begin
            }
            _ => 0,
        };
        if begin != 0 && begin != self.position {
            return Err(malformed("another part of the blob than was asked for"));
        }
        if let Some(length) = content_length(response.headers()).filter(|length| begin + length != self.size)
        {
            return Err(self.has_length((begin + length).to_string()));
        }
        let mut body = response.into_body().into_reader();
        // A registry without ranges sends it all again.
        let skip = self.position - begin;
        let skipped = io::copy(&mut body.by_ref().take(skip), &mut io::sink()).map_err(|e| broken(&e))?;
        if skipped < skip { Err(self.has_length(skipped.to_string())) } else { Ok(body) }
    }

    fn has_length(&self, found: String) -> ErrorKind {
        ErrorKind::LengthMismatch { expected: self.size, found }
    }

    /// The connection broke off: counts it, and waits before it is asked again.
    fn broke(&mut self, kind: ErrorKind) -> Result<(), ErrorKind> {
        self.body = None;
        self.breaks += 1;
        if self.breaks > BREAK_LIMIT {
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
        loop {
            if self.position == self.size {
                if !self.is_done {
                    self.finish()?;
                }
                return Ok(0);
            }
            let Some(body) = &mut self.body else {
                self.connect()?;
                continue;
            };
            let left = self.size - self.position;
            let wanted = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            match body.read(&mut buffer[..wanted]) {
                Ok(0) => self.broke(ErrorKind::Broken { reason: "it ended too early".to_owned() })?,
                Ok(n) => {
                    self.position += n as u64;
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => self.broke(broken(&e))?,
            }
        }
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.next(buffer).map_err(|kind| self.error(kind).into())
    }
}

fn broken(error: &io::Error) -> ErrorKind {
    ErrorKind::Broken { reason: printable(&error.to_string()) }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The first byte, and how many there are in all, in `bytes 5-9/10`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}
