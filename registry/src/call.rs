//! One request with all that belongs to it: authorization, redirects, another try, and what an answer's
//! status means.

use std::io::{self, Read};

use drydock_model::json;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, IF_RANGE, LOCATION, RANGE, RETRY_AFTER,
};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use ureq::{AsSendBody as _, Body, SendBody};

use crate::auth::{Access, Tokens};
use crate::error::ErrorKind;
use crate::options::{Options, Retry};
use crate::retry::with_retries;
use crate::text::printable;
use crate::transport::Transport;
use crate::url::{Origin, join};
use crate::{ANSWER_LIMIT, REDIRECT_LIMIT};

/// How much of an explanation is read.
const EXPLANATION_LIMIT: u64 = 64 << 10;

/// A request.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: Uri,
    /// Whose credentials may be shown.
    pub(crate) access: Option<&'a Access>,
    /// What is missing if the answer is 404.
    pub(crate) what: &'static str,
    /// The media types that are understood.
    pub(crate) accept: Option<&'static str>,
    /// The first byte that is wanted.
    pub(crate) offset: u64,
    /// What it must still be for that.
    pub(crate) if_range: Option<&'a HeaderValue>,
    /// What is sent.
    pub(crate) content: Option<Content<'a>>,
}

/// What is sent, and may have to be sent again.
pub(crate) struct Content<'a> {
    pub(crate) media_type: &'a str,
    pub(crate) size: u64,
    pub(crate) open: &'a mut dyn FnMut() -> io::Result<Box<dyn Read + 'a>>,
    /// Nothing is sent before the registry wants it, or says nothing for a second.
    pub(crate) asks_first: bool,
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, url: Uri, access: Option<&'a Access>, what: &'static str) -> Self {
        Self { method, url, access, what, accept: None, offset: 0, if_range: None, content: None }
    }
}

/// Makes calls.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) transport: Transport,
    pub(crate) tokens: Tokens,
    pub(crate) retry: Retry,
}

impl Caller {
    pub(crate) fn new(options: &Options) -> Result<Self, ErrorKind> {
        Ok(Self {
            transport: Transport::new(options)?,
            tokens: Tokens::new(options),
            retry: options.retry.clone(),
        })
    }

    /// The answer, once it is one of success; tries again what may pass.
    pub(crate) fn call(&self, call: &mut Call<'_>) -> Result<Response<Body>, ErrorKind> {
        with_retries(&self.retry, || self.attempt(call))
    }

    /// The answer, if it is one of success.
    pub(crate) fn attempt(&self, call: &mut Call<'_>) -> Result<Response<Body>, ErrorKind> {
        let registry = call.access.map(|access| self.transport.origin(&access.registry)).transpose()?;
        let mut url = call.url.clone();
        let mut redirects = 0;
        let mut was_asked = false;
        loop {
            // Nobody but the registry itself gets what is meant for it.
            let access = call.access.filter(|_| Origin::of(&url) == registry);
            let authorization = match access {
                Some(access) => self.tokens.authorization(&self.transport, access)?,
                None => None,
            };
            let with_credentials = authorization.is_some();
            let mut response = self.send(call, &url, authorization)?;
            match (response.status().as_u16(), access) {
                (200..=299, _) => return Ok(response),
                (301 | 302 | 303 | 307 | 308, _) if matches!(call.method, Method::GET | Method::HEAD) => {
                    redirects += 1;
                    url = self.redirected(&url, &response, redirects)?;
                }
                (401, Some(access)) if !was_asked && self.tokens.challenged(access, response.headers()) => {
                    was_asked = true;
                }
                (401 | 403, Some(access)) => {
                    let found =
                        with_credentials && self.tokens.credentials(&self.transport, access)?.is_some();
                    return Err(refused(&access.registry, found, &mut response));
                }
                _ => return Err(failure(response, call.what)),
            }
        }
    }

    fn redirected(&self, from: &Uri, response: &Response<Body>, redirects: u32) -> Result<Uri, ErrorKind> {
        let url = location(from, response.headers())?;
        let origins = Origin::of(from).zip(Origin::of(&url));
        let (from, to) = origins.ok_or_else(|| malformed("a redirect to what is no URL"))?;
        let refuse = |reason| Err(ErrorKind::Redirect { to: to.to_string(), reason });
        if redirects > REDIRECT_LIMIT {
            return refuse("there are too many redirects");
        }
        if from.is_https && !to.is_https {
            return refuse("it leads from TLS to plain HTTP");
        }
        if !self.transport.allows(&to) {
            return refuse("the host is not said to have plain HTTP");
        }
        Ok(url)
    }

    fn send(
        &self,
        call: &mut Call<'_>,
        url: &Uri,
        authorization: Option<HeaderValue>,
    ) -> Result<Response<Body>, ErrorKind> {
        let mut request = Request::builder().method(&call.method).uri(url);
        let mut header =
            |name: HeaderName, value: Result<HeaderValue, _>| match (request.headers_mut(), value) {
                (Some(headers), Ok(value)) => {
                    headers.insert(name, value);
                    Ok(())
                }
                _ => Err(malformed("a request that cannot be sent")),
            };
        if let Some(accept) = call.accept {
            header(ACCEPT, HeaderValue::from_str(accept))?;
        }
        if call.offset > 0 {
            header(RANGE, HeaderValue::from_str(&format!("bytes={}-", call.offset)))?;
            if let Some(same) = call.if_range {
                header(IF_RANGE, Ok(same.clone()))?;
            }
        }
        if let Some(authorization) = authorization {
            header(AUTHORIZATION, Ok(authorization))?;
        }
        let invalid = |_| malformed("a URL that cannot be asked");
        let Some(content) = &mut call.content else {
            // An empty body has a length, and none has not: servers want to know it of a POST.
            return match call.method {
                Method::POST => self.transport.send(request.body([].as_slice().as_body()).map_err(invalid)?),
                _ => self.transport.send(request.body(SendBody::none()).map_err(invalid)?),
            };
        };
        header(CONTENT_TYPE, HeaderValue::from_str(content.media_type))?;
        header(CONTENT_LENGTH, Ok(content.size.into()))?;
        if content.asks_first {
            header(EXPECT, Ok(HeaderValue::from_static("100-continue")))?;
        }
        let reader = (content.open)().map_err(ErrorKind::Input)?;
        let mut input = Input { reader, left: content.size, failure: None };
        let result = self.transport.send(request.body(SendBody::from_reader(&mut input)).map_err(invalid)?);
        match input.failure {
            Some(failure) => Err(ErrorKind::Input(failure)),
            None => result,
        }
    }
}

/// What is sent: exactly so many bytes, or an error that is told from those of the connection.
struct Input<'a> {
    reader: Box<dyn Read + 'a>,
    left: u64,
    failure: Option<io::Error>,
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let result = self.reader.read(&mut buffer[..wanted]);
        let error = match result {
            Ok(0) if wanted > 0 => {
                io::Error::new(io::ErrorKind::UnexpectedEof, format!("it ends {} bytes too early", self.left))
            }
            Ok(n) => {
                self.left -= n as u64;
                return Ok(n);
            }
            Err(error) => error,
        };
        let copy = io::Error::new(error.kind(), error.to_string());
        self.failure = Some(error);
        Err(copy)
    }
}

/// Where an answer leads.
pub(crate) fn location(from: &Uri, headers: &HeaderMap) -> Result<Uri, ErrorKind> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    join(from, location.ok_or_else(|| malformed("an answer without `Location`"))?)
}

/// A small answer in JSON.
pub(crate) fn json<T: DeserializeOwned>(body: Body, what: &str) -> Result<T, ErrorKind> {
    // The parser's message may show what is in the answer: a token.
    json::from_slice(&bytes(body, ANSWER_LIMIT)?).map_err(|e| {
        malformed(&format!("{what} is no valid JSON (line {}, column {})", e.line(), e.column()))
    })
}

/// A whole answer.
pub(crate) fn bytes(body: Body, limit: u64) -> Result<Vec<u8>, ErrorKind> {
    let mut bytes = Vec::new();
    let read = body.into_reader().take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|e| ErrorKind::Broken { reason: printable(&e.to_string()) })?;
    if bytes.len() as u64 > limit { Err(ErrorKind::TooLarge { limit }) } else { Ok(bytes) }
}

/// What an answer that is none of success means.
pub(crate) fn failure(mut response: Response<Body>, what: &'static str) -> ErrorKind {
    let seconds =
        response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    match response.status().as_u16() {
        404 => ErrorKind::NotFound { what },
        429 => ErrorKind::TooManyRequests { wait: seconds.map(std::time::Duration::from_secs) },
        status => ErrorKind::Status { status, message: explanation(&mut response) },
    }
}

/// What an answer 401 or 403 means.
pub(crate) fn refused(registry: &str, with_credentials: bool, response: &mut Response<Body>) -> ErrorKind {
    let registry = if registry == "index.docker.io" { "docker.io" } else { registry }.to_owned();
    ErrorKind::Unauthorized { registry, with_credentials, reason: explanation(response) }
}

/// The registry's own words, if it has any.
fn explanation(response: &mut Response<Body>) -> String {
    #[derive(Deserialize)]
    struct Answer {
        errors: Vec<Reason>,
    }
    #[derive(Deserialize)]
    struct Reason {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let mut text = Vec::new();
    // Where the explanation breaks off, the status still says enough.
    let _ = response.body_mut().as_reader().take(EXPLANATION_LIMIT).read_to_end(&mut text);
    let Ok(Answer { errors }) = json::from_slice(&text) else { return String::new() };
    let reasons: Vec<String> = errors
        .into_iter()
        .map(|Reason { code, message }| if message.is_empty() { code } else { message })
        .filter(|reason| !reason.is_empty())
        .collect();
    printable(&reasons.join("; "))
}

pub(crate) fn malformed(reason: &str) -> ErrorKind {
    ErrorKind::Malformed { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Host;

    #[test]
    fn no_redirect_leads_out_of_tls() {
        let plain = Host { plain_http: true, ..Host::default() };
        let options = Options { hosts: [("plain.io".to_owned(), plain)].into(), ..Options::default() };
        let caller = Caller::new(&options).unwrap();
        for (from, to, redirects, want) in [
            ("https://r.io/x", "https://other.io/y", 5, ""),
            ("http://plain.io/x", "https://other.io/y", 1, ""),
            ("http://plain.io/x", "/y", 1, ""),
            ("https://r.io/x", "http://plain.io/y", 1, "it leads from TLS to plain HTTP"),
            ("http://plain.io/x", "http://other.io/y", 1, "the host is not said to have plain HTTP"),
            ("https://r.io/x", "https://other.io/y", 6, "there are too many redirects"),
        ] {
            let response = Response::builder().header(LOCATION, to).body(Body::builder().data("")).unwrap();
            let error = caller.redirected(&from.parse().unwrap(), &response, redirects).err();
            let message = error.map_or(String::new(), |error| error.to_string());
            assert!(message.ends_with(want) && message.is_empty() == want.is_empty(), "{to}: {message}");
        }
    }
}
