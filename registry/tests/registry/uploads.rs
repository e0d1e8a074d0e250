//! What registries may do to who writes to them.

use std::cell::Cell;
use std::io::{self, Read};

use crate::fake::{Client as _, describe, some_bytes};
use drydock_fake_registry::{Answer, Fake, Request};
use drydock_model::digest::Digest;
use drydock_model::media;
use drydock_registry::{ErrorKind, Pushed};

/// Plays a registry that has no blobs, and takes what comes.
fn taking(request: &Request) -> Answer {
    match request.method.as_str() {
        "HEAD" | "GET" => Answer::new(404, ""),
        "POST" => Answer::new(202, "").with("Location", "/v2/a/b/blobs/uploads/1?state=x"),
        _ => Answer::new(201, ""),
    }
}

#[test]
fn blobs_are_sent_unless_they_are_there() {
    let bytes = some_bytes(1_000_000);
    let descriptor = describe(&bytes);
    let digest = descriptor.digest;
    let fake = Fake::start(move |request, _| match request.line() {
        line if line.starts_with("HEAD /v2/there/") => Answer::new(200, ""),
        line if line.contains("mount=") && line.ends_with("from=has/it") => Answer::new(201, ""),
        line if line.contains("mount=") && line.ends_with("from=secret") => Answer::new(401, ""),
        _ => taking(request),
    });
    let client = fake.client();
    let send = |from: Option<&str>| {
        format!(
            "POST /v2/a/b/blobs/uploads/{}",
            from.map_or(String::new(), |from| format!("?mount={digest}&from={from}"))
        )
    };
    let put = format!("PUT /v2/a/b/blobs/uploads/1?state=x&digest={digest}");
    for (name, from, want, requests) in [
        ("there", None, Pushed::Existing, vec![]),
        ("a/b", None, Pushed::Sent, vec![send(None), put.clone()]),
        ("a/b", Some("has/it"), Pushed::Mounted, vec![send(Some("has/it"))]),
        ("a/b", Some("has/not"), Pushed::Sent, vec![send(Some("has/not")), put.clone()]),
        ("a/b", Some("secret"), Pushed::Sent, vec![send(Some("secret")), send(None), put.clone()]),
        ("a/b", Some("a/b"), Pushed::Sent, vec![send(None), put.clone()]),
    ] {
        let before = fake.seen().len();
        let from = from.map(|from| fake.image(from));
        let open = &mut || Ok(bytes.as_slice());
        assert_eq!(client.put_blob(&fake.image(name), &descriptor, from.as_ref(), open).unwrap(), want);
        let seen = &fake.seen()[before..];
        assert_eq!(seen[0].line(), format!("HEAD /v2/{name}/blobs/{digest}"));
        assert_eq!(seen[1..].iter().map(Request::line).collect::<Vec<_>>(), requests);
        if want == Pushed::Sent {
            let last = &seen[seen.len() - 1];
            assert!(last.body == bytes && last.header("content-type") == Some("application/octet-stream"));
        }
    }
    // Another registry's repositories cannot be mounted from.
    let other = "other.io/has/it".parse().unwrap();
    let open = &mut || Ok(bytes.as_slice());
    let pushed = client.put_blob(&fake.image("a/b"), &descriptor, Some(&other), open).unwrap();
    assert_eq!(pushed, Pushed::Sent);
    assert!(client.has_blob(&fake.image("there"), digest).unwrap());
    assert!(!client.has_blob(&fake.image("gone"), digest).unwrap());
}

#[test]
fn an_upload_that_fails_begins_anew() {
    let bytes = some_bytes(100_000);
    let fake = Fake::start(|request, before| match request.method.as_str() {
        "PUT" if before < 6 => Answer::new(503, ""),
        _ => taking(request),
    });
    let opened = Cell::new(0);
    let mut open = || {
        opened.set(opened.get() + 1);
        Ok(bytes.as_slice())
    };
    let pushed = fake.client().put_blob(&fake.image("a/b"), &describe(&bytes), None, &mut open).unwrap();
    assert_eq!((pushed, opened.get()), (Pushed::Sent, 3));
    let methods: Vec<_> = fake.seen().into_iter().map(|request| request.method).collect();
    assert_eq!(methods, ["HEAD", "POST", "PUT", "POST", "PUT", "POST", "PUT"]);
    assert_eq!(fake.seen()[6].body, bytes);
}

/// Yields some bytes, then fails.
struct Damaged(&'static [u8]);

impl Read for Damaged {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::other("the disk is gone")),
            n => Ok(n),
        }
    }
}

#[test]
fn what_cannot_be_read_is_not_the_registrys_fault() {
    let fake = Fake::start(|request, _| taking(request));
    let client = fake.client();
    let bytes = some_bytes(100_000);
    let image = fake.image("a/b");
    let descriptor = describe(&bytes);
    let errors = [
        client.put_blob(&image, &descriptor, None, &mut || Ok(Damaged(b"some"))).unwrap_err(),
        client.put_blob(&image, &descriptor, None, &mut || Ok(&bytes[..99_999])).unwrap_err(),
        client
            .put_blob(&image, &descriptor, None, &mut || Err::<&[u8], _>(io::Error::other("it is gone")))
            .unwrap_err(),
    ];
    for (error, want) in errors.iter().zip(["the disk is gone", "it ends 1 bytes too early", "it is gone"]) {
        assert!(matches!(&error.kind, ErrorKind::Input(_)), "{error:?}");
        assert!(error.to_string().contains(want), "{error}");
    }
    // Once each, for a registry that would have taken it.
    assert_eq!(fake.lines().iter().filter(|line| line.starts_with("POST")).count(), 3);
}

#[test]
fn a_registry_that_has_something_else_than_was_sent() {
    let other = Digest::of(b"other");
    let fake = Fake::start(move |request, _| taking(request).with("Docker-Content-Digest", other));
    let client = fake.client();
    let bytes = some_bytes(10);
    let descriptor = describe(&bytes);
    let blob = client.put_blob(&fake.image("a/b"), &descriptor, None, &mut || Ok(bytes.as_slice()));
    let manifest = client.put_manifest(&fake.image("a/b:1"), media::MANIFEST, b"{}");
    for error in [blob.unwrap_err(), manifest.unwrap_err()] {
        assert!(matches!(error.kind, ErrorKind::DigestMismatch { found, .. } if found == other), "{error}");
    }
}

#[test]
fn uploads_lead_to_no_strange_places() {
    for (location, want) in [
        (Some("ftp://x/"), "`Location` is no URL"),
        (Some("http://user:password@127.0.0.1/"), "`Location` is no URL"),
        (None, "without `Location`"),
    ] {
        let fake = Fake::start(move |request, _| match (request.method.as_str(), location) {
            ("POST", Some(location)) => Answer::new(202, "").with("Location", location),
            ("POST", None) => Answer::new(202, ""),
            _ => taking(request),
        });
        let bytes = some_bytes(10);
        let error = fake
            .client()
            .put_blob(&fake.image("a/b"), &describe(&bytes), None, &mut || Ok(bytes.as_slice()))
            .unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn why_a_blob_is_refused_is_told_by_who_reads_none_of_it() {
    let fake = Fake::reading(1 << 20, |request, _| match request.method.as_str() {
        "PUT" => Answer::new(413, r#"{"errors": [{"message": "at most 1 MiB"}]}"#),
        _ => taking(request),
    });
    let bytes = some_bytes(64 << 20);
    let error = fake
        .client()
        .put_blob(&fake.image("a/b"), &describe(&bytes), None, &mut || Ok(bytes.as_slice()))
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("it answered with status 413: at most 1 MiB"), "{error}");
}

#[test]
fn manifests_go_under_tags_and_digests() {
    let fake = Fake::start(|request, _| match request.path.as_str() {
        "/v2/full/manifests/1" => Answer::new(413, r#"{"errors": [{"code": "MANIFEST_INVALID"}]}"#),
        _ => taking(request),
    });
    let client = fake.client();
    let bytes = br#"{"schemaVersion": 2}"#;
    let digest = Digest::of(bytes);
    assert_eq!(client.put_manifest(&fake.image("a/b:1"), media::INDEX, bytes).unwrap(), digest);
    client.put_manifest(&fake.image("a/b:1").with_digest(digest), media::INDEX, bytes).unwrap();
    let error = client.put_manifest(&fake.image("a/b:1").with_digest(Digest::of(b"")), media::INDEX, bytes);
    assert!(matches!(error.unwrap_err().kind, ErrorKind::DigestMismatch { .. }));
    let error = client.put_manifest(&fake.image("full:1"), media::INDEX, bytes).unwrap_err().to_string();
    assert!(error.ends_with("full:1: it answered with status 413: MANIFEST_INVALID"), "{error}");
    let seen = fake.seen();
    assert_eq!(seen.len(), 3, "what has another digest is not sent");
    assert_eq!(seen[1].line(), format!("PUT /v2/a/b/manifests/{digest}"));
    assert_eq!(
        (seen[0].line().as_str(), seen[0].body.as_slice()),
        ("PUT /v2/a/b/manifests/1", bytes.as_slice())
    );
    assert_eq!(seen[0].header("content-type"), Some(media::INDEX));
}

#[test]
fn referrers_are_listed_under_a_tag_where_there_is_no_interface() {
    let subject = Digest::of(b"subject");
    let manifest = format!(
        r#"{{"schemaVersion": 2, "artifactType": "x/y", "annotations": {{"a": "b"}}, "layers": [],
            "config": {{"mediaType": "c/d", "digest": "{subject}", "size": 1}},
            "subject": {{"mediaType": "{}", "digest": "{subject}", "size": 7}}}}"#,
        media::MANIFEST
    );
    for has_interface in [true, false] {
        let mut list = None;
        let tag = format!("/v2/a/b/manifests/sha256-{}", subject.hex());
        let fake = Fake::start(move |request, _| match (request.method.as_str(), request.path == tag) {
            ("GET", true) => {
                list.clone().map_or(Answer::new(404, ""), |list: Vec<u8>| Answer::new(200, list))
            }
            ("PUT", true) => {
                list = Some(request.body.clone());
                taking(request)
            }
            _ if has_interface => taking(request).with("OCI-Subject", subject),
            _ => taking(request),
        });
        let client = fake.client();
        for _ in 0..2 {
            client.put_manifest(&fake.image("a/b:1"), media::MANIFEST, manifest.as_bytes()).unwrap();
        }
        let found = client.referrers(&fake.image("a/b"), subject, 10).unwrap();
        if has_interface {
            assert_eq!((found.len(), fake.seen().len()), (0, 4), "{:?}", fake.lines());
            continue;
        }
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].digest, Digest::of(manifest.as_bytes()));
        assert_eq!(
            (&found[0].rest["artifactType"], &found[0].annotations["a"]),
            (&"x/y".into(), &"b".to_owned())
        );
    }
}
