//! What registries may do to who reads from them.

use std::io::{self, Read as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::fake::{Client as _, describe, quick, some_bytes};
use drydock_fake_registry::{Answer, Fake, Request};
use drydock_model::digest::Digest;
use drydock_model::manifest::Descriptor;
use drydock_registry::auth::Auth;
use drydock_registry::{Download, Error, ErrorKind, MANIFEST_LIMIT, Options, Registry, Retry};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn manifest() -> String {
    format!(r#"{{"schemaVersion": 2, "mediaType": "{MANIFEST}", "layers": []}}"#)
}

/// Reads a whole blob.
fn download(
    registry: &Registry,
    fake: &Fake,
    descriptor: &Descriptor,
    offset: u64,
) -> Result<Vec<u8>, ErrorKind> {
    let mut bytes = Vec::new();
    let blob = registry.blob(&fake.image("a/b"), descriptor, offset);
    match blob.map_err(io::Error::from).and_then(|mut blob| blob.read_to_end(&mut bytes)) {
        Ok(_) => Ok(bytes),
        Err(e) => Err(e.into_inner().unwrap().downcast::<Error>().unwrap().kind),
    }
}

/// The bytes from the one that was asked for, up to `end`, where the connection breaks off if it is not all.
fn part(bytes: &[u8], offset: Option<usize>, end: usize) -> Answer {
    let from = offset.unwrap_or_default();
    let answer = Answer::new(if offset.is_some() { 206 } else { 200 }, &bytes[from..end])
        .announcing(bytes.len() - from);
    if offset.is_some() {
        answer.with("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()))
    } else {
        answer
    }
}

#[test]
fn a_download_goes_on_where_it_broke_off() {
    let bytes = some_bytes(3_000_000);
    let descriptor = describe(&bytes);
    for has_ranges in [true, false] {
        let sent = bytes.clone();
        let fake = Fake::start(move |request, before| {
            let end = sent.len().min((before + 1) * 800_000);
            part(&sent, request.offset().filter(|_| has_ranges), end)
        });
        assert_eq!(download(&fake.client(), &fake, &descriptor, 0).unwrap(), bytes);
        let offsets: Vec<_> = fake.seen().iter().map(Request::offset).collect();
        assert_eq!(offsets, [None, Some(800_000), Some(1_600_000), Some(2_400_000)]);
    }
}

#[test]
fn a_download_begins_in_the_middle() {
    let bytes = some_bytes(100_000);
    for has_ranges in [true, false] {
        let sent = bytes.clone();
        let fake =
            Fake::start(move |request, _| part(&sent, request.offset().filter(|_| has_ranges), sent.len()));
        let client = fake.client();
        for offset in [1, 50_000, 99_999] {
            assert_eq!(
                download(&client, &fake, &describe(&bytes), offset).unwrap(),
                &bytes[usize::try_from(offset).unwrap()..]
            );
        }
        let asked = fake.seen().len();
        assert_eq!(download(&client, &fake, &describe(&bytes), 100_000).unwrap(), b"");
        assert_eq!(fake.seen().len(), asked, "nothing is left to ask for");
        let error = download(&client, &fake, &describe(&bytes), 100_001).unwrap_err();
        assert!(matches!(error, ErrorKind::LengthMismatch { .. }), "{error}");
    }
}

#[test]
fn a_file_has_the_time_that_the_server_says() {
    for (text, want) in [
        ("Tue, 15 Nov 1994 12:45:26 GMT", Some(784_903_526)),
        ("Tuesday, 15-Nov-94 12:45:26 GMT", Some(784_903_526)),
        ("Tue Nov 15 12:45:26 1994", Some(784_903_526)),
        ("yesterday", None),
        ("", None),
    ] {
        let fake = Fake::start(move |_, _| Answer::new(200, "x").with("Last-Modified", text));
        let registry = fake.client();
        let file = registry.file(&format!("http://{}/f", fake.host)).unwrap();
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(file.modified().map(seconds), want, "{text}");
    }
}

#[test]
fn a_file_goes_on_only_if_it_is_still_the_same() {
    let bytes = some_bytes(300_000);
    for (etags, want) in [
        (["\"a\"", "\"a\""], None),
        (["\"a\"", "\"b\""], Some("the file was replaced while it was read")),
        (["W/\"a\"", "W/\"a\""], Some("the connection broke off")),
        (["", ""], Some("the connection broke off")),
    ] {
        let sent = bytes.clone();
        let fake = Fake::start(move |request, before| {
            let etag = etags[before.min(1)];
            let is_same = request.header("if-range").is_some_and(|same| same == etag);
            let end = if before == 0 { 100_000 } else { sent.len() };
            part(&sent, request.offset().filter(|_| is_same), end).with("ETag", etag)
        });
        let client = fake.client();
        let mut found = Vec::new();
        let mut file = client.file(&format!("http://{}/images/a.tar?key=hunter2", fake.host)).unwrap();
        assert_eq!(file.size(), Some(300_000));
        match (file.read_to_end(&mut found), want) {
            (Ok(_), None) => assert!(found == bytes),
            (Err(error), Some(want)) => {
                let error = error.to_string();
                assert!(error.starts_with(&format!("http://{}/images/a.tar: {want}", fake.host)), "{error}");
            }
            (got, want) => panic!("{got:?}, but {want:?}"),
        }
        assert!(fake.seen().iter().all(|request| request.header("authorization").is_none()));
    }
    let fake = Fake::start(|_, _| Answer::new(404, ""));
    for (url, want) in [
        (format!("http://{}/a", fake.host), "no such file"),
        ("http://127.0.0.1:1/a".to_owned(), "not said to have plain HTTP"),
        (format!("http://user:hunter2@{}/a", fake.host), "without a user"),
        ("/etc/passwd".to_owned(), "it must have a URL"),
    ] {
        let error = fake.client().file(&url).unwrap_err().to_string();
        assert!(error.contains(want) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_connection_that_always_breaks_is_given_up() {
    let fake = Fake::start(|_, _| Answer::new(200, "begin").announcing(1000));
    let error = download(&fake.client(), &fake, &describe(&some_bytes(1000)), 0).unwrap_err();
    assert!(matches!(error, ErrorKind::Broken { .. }), "{error}");
    // The second connection and all after it send what is there already: no progress.
    assert_eq!(fake.seen().len(), 5);
}

#[test]
fn a_registry_that_says_nothing_is_given_up() {
    let fake = Fake::start(|_, _| {
        std::thread::sleep(Duration::from_millis(400));
        Answer::new(200, "late")
    });
    let mut options = fake.options(&[], Auth::Default);
    options.retry = Retry { attempts: 2, stalled: Duration::from_millis(50), ..quick() };
    let error = Registry::new(&options).unwrap().manifest(&fake.image("a/b:1")).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Broken { .. }), "{error}");
}

#[test]
fn what_is_not_done_in_time_is_given_up() {
    let begun = || Answer::new(200, "begin").announcing(1000);
    for answer in [Answer::raw("").stalling(), begun().stalling(), begun().trickling()] {
        let fake = Fake::start(move |_, _| answer.clone());
        let until = || Some(Instant::now() + Duration::from_millis(200));
        let client = || {
            let options = fake.options(&[], Auth::Default);
            let retry = Retry { until: until(), ..quick() };
            Registry::new(&Options { retry, ..options }).unwrap()
        };
        let error = download(&client(), &fake, &describe(&some_bytes(1000)), 0).unwrap_err();
        assert!(matches!(error, ErrorKind::TimeIsOver), "{error}");
        let registry = client();
        let read = |mut file: Download<'_>| file.read_to_end(&mut Vec::new());
        let error = registry.file(&format!("http://{}/f", fake.host)).map_err(io::Error::from).and_then(read);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("its time is over"), "{error}");
        let error = client().manifest(&fake.image("a/b:1")).unwrap_err().kind;
        assert!(matches!(error, ErrorKind::TimeIsOver), "{error}");
    }
}

#[test]
fn a_blob_of_another_length_is_refused() {
    let bytes = some_bytes(1000);
    let descriptor = describe(&bytes);
    for (answer, want) in [
        (Answer::new(200, &bytes[..999]), "expected 1000 bytes, found 999"),
        (Answer::new(200, some_bytes(1001)), "expected 1000 bytes, found 1001"),
        (Answer::new(200, bytes.clone()).endless(), "expected 1000 bytes, found more"),
        (
            Answer::new(206, &bytes[..10]).with("Content-Range", "bytes 0-9/10"),
            "expected 1000 bytes, found 10",
        ),
        (Answer::new(206, bytes.clone()), "a part without `Content-Range`"),
    ] {
        let fake = Fake::start(move |_, _| answer.clone());
        let error = download(&fake.client(), &fake, &descriptor, 0).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
        assert_eq!(fake.seen().len(), 1, "it is not asked for again");
    }
    let fake = Fake::start(|_, _| Answer::new(416, ""));
    let error = download(&fake.client(), &fake, &descriptor, 7).unwrap_err();
    assert!(error.to_string().contains("at most 7"), "{error}");
}

#[test]
fn manifests_are_what_was_asked_for() {
    let text = manifest();
    let digest = Digest::of(text.as_bytes());
    let other = Digest::of(b"other");
    let sent = text.clone();
    let fake = Fake::start(move |request, _| {
        let answer = Answer::new(200, sent.clone()).with("Content-Type", MANIFEST);
        if request.path.ends_with("/liar") { answer.with("Docker-Content-Digest", other) } else { answer }
    });
    let client = fake.client();
    let (descriptor, bytes) = client.manifest(&fake.image("a/b:1")).unwrap();
    assert_eq!(
        (descriptor, bytes),
        (Descriptor::new(MANIFEST, digest, text.len() as u64), text.into_bytes())
    );
    client.manifest(&fake.image(&format!("a/b@{digest}"))).unwrap();
    for name in [format!("a/b@{other}"), "a/b:liar".to_owned()] {
        let reference = fake.image(&name);
        let error = client.manifest(&reference).unwrap_err();
        assert!(
            matches!(error.kind, ErrorKind::DigestMismatch { expected, found } if (expected, found) == (other, digest))
        );
        assert!(error.to_string().starts_with(&format!("{reference}: expected digest {other}")), "{error}");
    }
    assert!(fake.seen()[0].header("accept").unwrap().contains("application/vnd.oci.image.index.v1+json"));
}

#[test]
fn manifests_that_are_none_are_refused() {
    let huge = usize::try_from(MANIFEST_LIMIT).unwrap() + 1;
    for (answer, want) in [
        (Answer::new(200, "<html>"), "the manifest: expected value"),
        (Answer::new(200, r#"{"schemaVersion": 1, "name": "a"}"#), "schema 1"),
        (
            Answer::new(200, r#"{"schemaVersion": 2}"#).with("Content-Type", "text/plain"),
            "without a media type",
        ),
        (Answer::new(200, vec![b' '; huge]), "more than 8388608 bytes"),
        (Answer::new(200, vec![b' '; 100_000]).endless(), "more than 8388608 bytes"),
        (Answer::new(200, "").with("X-Long", "x".repeat(200_000)), "more than"),
        (Answer::new(404, ""), "there is no such manifest"),
        (
            Answer::new(418, r#"{"errors": [{"code": "X", "message": "no\u001b[2J\nway"}]}"#),
            "status 418: no [2J way",
        ),
        (Answer::new(302, "").with("Location", "ftp://x/y"), "`Location` is no URL"),
        (Answer::new(302, ""), "without `Location`"),
    ] {
        let fake = Fake::start(move |_, _| answer.clone());
        let reference = fake.image("a/b:1");
        let error = fake.client().manifest(&reference).unwrap_err().to_string();
        assert!(error.starts_with(&reference.to_string()) && error.contains(want), "{error}");
        assert_eq!(fake.seen().len(), 1, "{error}");
    }
}

#[test]
fn what_passes_is_tried_again() {
    for (first, want) in [
        (Answer::new(500, ""), Ok(3)),
        (Answer::new(503, ""), Ok(3)),
        (Answer::new(429, ""), Ok(3)),
        (Answer::new(429, "").with("Retry-After", "1"), Ok(3)),
        (Answer::new(200, "{").announcing(100), Ok(3)),
        (Answer::new(429, "").with("Retry-After", "3600"), Err("too many requests; try again in 3600 s")),
        (Answer::new(501, ""), Err("status 501")),
    ] {
        let fake = Fake::start(
            move |_, before| {
                if before < 2 { first.clone() } else { Answer::new(200, manifest()) }
            },
        );
        match (fake.client().manifest(&fake.image("a/b:1")), want) {
            (Ok(_), Ok(requests)) => assert_eq!(fake.seen().len(), requests),
            (Err(error), Err(want)) => {
                assert!(error.to_string().contains(want), "{error}");
                assert_eq!(fake.seen().len(), 1);
            }
            (got, want) => panic!("{got:?}, but {want:?}"),
        }
    }
    let fake = Fake::start(|_, _| Answer::new(502, ""));
    let error = fake.client().manifest(&fake.image("a/b:1")).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Status { status: 502, .. }));
    assert_eq!(fake.seen().len(), 5);
}

#[test]
fn redirects_are_followed_within_limits() {
    let fake = Fake::start(|request, _| Answer::new(307, "").with("Location", format!("{}x", request.path)));
    let error = fake.client().manifest(&fake.image("a/b:1")).unwrap_err().to_string();
    assert!(error.contains("too many redirects"), "{error}");
    assert_eq!(fake.seen().len(), 6);
    let fake = Fake::start(|_, _| {
        Answer::new(307, "").with("Location", "http://127.0.0.1:1/blob?signature=hunter2")
    });
    let error = fake.client().manifest(&fake.image("a/b:1")).unwrap_err().to_string();
    assert!(
        error.contains("http://127.0.0.1:1, which is not followed: the host is not said to have plain HTTP"),
        "{error}"
    );
    assert!(!error.contains("hunter2"));
}

#[test]
fn nobody_there() {
    let fake = Fake::start(|_, _| Answer::new(200, ""));
    let client = fake.client();
    let reference = "127.0.0.1:1/a/b".parse().unwrap();
    let error = client.manifest(&reference).unwrap_err();
    assert!(matches!(&error.kind, ErrorKind::Connect { host, .. } if host == "127.0.0.1:1"), "{error}");
    // Not said to have plain HTTP, it is spoken to by TLS only.
    let options = drydock_registry::Options { retry: quick(), ..Default::default() };
    let strict = Registry::new(&options).unwrap();
    let error = strict.manifest(&fake.image("a/b")).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Tls { .. } | ErrorKind::CaFile { .. }), "{error:?}");
}

#[test]
fn a_proxy_is_used_where_it_is_named() {
    let fake = Fake::start(|_, _| Answer::new(200, manifest()));
    let proxy = Fake::start(|_, _| Answer::new(403, ""));
    let mut options = fake.options(&[], Auth::Default);
    let url = format!("http://user:hunter2@{}", proxy.host);
    for (exceptions, is_direct) in [("", false), ("other.io", false), ("other.io, 127.0.0.1", true)] {
        options.environment = [("http_proxy", url.as_str()), ("NO_PROXY", exceptions)].into_iter().collect();
        let registry = Registry::new(&options).unwrap();
        assert!(!format!("{registry:?}").contains("hunter2"));
        let result = registry.manifest(&fake.image("a/b"));
        assert_eq!(result.is_ok(), is_direct, "{result:?}");
        assert!(proxy.lines().len() <= 2, "{result:?}");
    }
    assert_eq!(proxy.lines()[0], format!("CONNECT {}", fake.host));
    options.environment = [("HTTP_PROXY", "hunter2:no proxy")].into_iter().collect();
    let error = Registry::new(&options).unwrap_err().to_string();
    assert!(
        error.contains("`HTTP_PROXY` is not the URL of a proxy") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn tags_come_in_pages() {
    let fake = Fake::start(|request, _| match request.path.as_str() {
        "/v2/a/b/tags/list?n=1000" => Answer::new(200, r#"{"name": "a/b", "tags": ["1", "2"]}"#)
            .with("Link", r#"</v2/a/b/tags/list?n=2&last=2>; rel="next""#),
        "/v2/a/b/tags/list?n=2&last=2" => Answer::new(200, r#"{"tags": ["3"]}"#),
        "/v2/none/tags/list?n=1000" => Answer::new(200, r#"{"tags": null}"#),
        "/v2/bad/tags/list?n=1000" => Answer::new(200, r#"{"tags": 1}"#),
        "/v2/far/tags/list?n=1000" => {
            Answer::new(200, r#"{"tags": ["1"]}"#).with("Link", r#"<https://other.io/v2/>; rel="next""#)
        }
        "/v2/loop/tags/list?n=1000" => {
            Answer::new(200, r#"{"tags": []}"#).with("Link", r#"</v2/loop/tags/list?n=1000>; rel="next""#)
        }
        _ => Answer::new(404, ""),
    });
    let client = fake.client();
    let tags = |name: &str, limit| client.tags(&fake.image(name), limit).map_err(|e| e.to_string());
    assert_eq!(tags("a/b", 10).unwrap(), ["1", "2", "3"]);
    assert_eq!(tags("a/b", 1).unwrap(), ["1"]);
    assert_eq!(tags("none", 10).unwrap(), [""; 0]);
    for (name, want) in [
        ("bad", "the list of tags: invalid type"),
        ("far", "at another host"),
        ("loop", "without end"),
        ("gone", "no such repository"),
    ] {
        let error = tags(name, 10).unwrap_err();
        assert!(error.contains(want) && error.contains(name), "{error}");
    }
}

#[test]
fn referrers_by_interface_or_tag() {
    let subject = Digest::of(b"subject");
    let index = format!(
        r#"{{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
            {{"mediaType": "{MANIFEST}", "digest": "{}", "size": 1, "artifactType": "x/y"}},
            {{"mediaType": "{MANIFEST}", "digest": "{}", "size": 2}}]}}"#,
        Digest::of(b"1"),
        Digest::of(b"2"),
    );
    let fake = Fake::start(move |request, _| {
        let is_there = match request.path.split('/').nth(2).unwrap() {
            "new" => request.path.contains("/referrers/"),
            "page" if request.path.contains("/referrers/") => {
                return Answer::new(200, "<html>Welcome</html>");
            }
            "old" | "page" => request.path.ends_with(&format!("/manifests/sha256-{}", subject.hex())),
            _ => false,
        };
        if is_there { Answer::new(200, index.clone()) } else { Answer::new(404, "") }
    });
    let client = fake.client();
    for (name, limit, want) in
        [("new", 10, 2), ("old", 10, 2), ("page", 10, 2), ("old", 1, 1), ("new", 1, 1), ("none", 10, 0)]
    {
        let found = client.referrers(&fake.image(name), subject, limit).unwrap();
        assert_eq!(found.len(), want, "{name}");
        assert!(found.first().is_none_or(|first| first.rest["artifactType"] == "x/y"));
    }
}
