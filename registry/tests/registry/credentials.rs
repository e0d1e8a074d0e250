//! Who gets to see credentials, and who does not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::fake::{Client as _, describe, some_bytes};
use drydock_fake_registry::{Answer, Fake, Request};
use drydock_registry::auth::{Auth, Credentials, Secret, Stored, login, logout};
use drydock_registry::{Environment, ErrorKind, Registry};

/// `user:hunter2`.
const BASIC: &str = "Basic dXNlcjpodW50ZXIy";

const MANIFEST: &str =
    r#"{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": []}"#;

fn given() -> Auth {
    Auth::Given(Credentials::Password { user: "user".to_owned(), password: Secret("hunter2".to_owned()) })
}

fn authorizations(fake: &Fake) -> Vec<Option<String>> {
    fake.seen().iter().map(|request| request.header("authorization").map(str::to_owned)).collect()
}

/// Gives manifests and blobs to those with this header, and says to others what it wants.
fn guarded(request: &Request, header: &str, challenge: &str) -> Answer {
    match request.header("authorization") {
        Some(found) if found == header => Answer::new(200, MANIFEST),
        _ => Answer::new(
            401,
            r#"{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}"#,
        )
        .with("WWW-Authenticate", challenge),
    }
}

#[test]
fn a_password_is_sent_only_when_it_is_asked_for() {
    let open = Fake::start(|_, _| Answer::new(200, MANIFEST));
    open.client_with(&[], given()).manifest(&open.image("a/b")).unwrap();
    assert_eq!(authorizations(&open), [None]);

    let fake = Fake::start(|request, _| guarded(request, BASIC, "Basic realm=\"r\""));
    let client = fake.client_with(&[], given());
    client.manifest(&fake.image("a/b")).unwrap();
    client.manifest(&fake.image("a/b")).unwrap();
    assert_eq!(authorizations(&fake), [None, Some(BASIC.to_owned()), Some(BASIC.to_owned())]);
}

#[test]
fn without_the_right_credentials_it_is_said_what_to_do() {
    let fake = Fake::start(|request, _| guarded(request, "Basic other", "Basic realm=\"r\""));
    for (auth, want) in [
        (Auth::Default, "wants credentials (authentication required): `drydock login 127.0.0.1:"),
        (
            given(),
            "does not allow it with the credentials that it got (authentication required); `drydock login",
        ),
    ] {
        let with_credentials = auth != Auth::Default;
        let error = fake.client_with(&[], auth).manifest(&fake.image("a/b")).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
        assert!(
            matches!(error.kind, ErrorKind::Unauthorized { with_credentials: found, .. } if found == with_credentials)
        );
        for shown in [format!("{error:?}"), error.to_string()] {
            assert!(!shown.contains("hunter2") && !shown.contains(BASIC), "{shown}");
        }
    }
    let denying = Fake::start(|_, _| Answer::new(403, ""));
    let error = denying.client().manifest(&denying.image("a/b")).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Unauthorized { .. }));
}

/// A registry that wants tokens from a server, which numbers them.
fn with_tokens(lifetime: u64, is_good: fn(&str, usize) -> bool) -> (Fake, Fake) {
    let tokens = Fake::start(move |request, before| {
        let is_known = request.header("authorization").is_none_or(|header| header == BASIC);
        let text = format!(r#"{{"token": "token-{before}", "expires_in": {lifetime}}}"#);
        if is_known { Answer::new(200, text) } else { Answer::new(401, "") }
    });
    let challenge =
        format!(r#"Bearer realm="http://{}/token?x=1",service="the registry",scope="ignored""#, tokens.host);
    let fake = Fake::start(move |request, before| {
        match request.header("authorization").and_then(|header| header.strip_prefix("Bearer ")) {
            Some(token) if is_good(token, before) => Answer::new(200, MANIFEST),
            _ => Answer::new(401, "").with("WWW-Authenticate", &challenge),
        }
    });
    (fake, tokens)
}

#[test]
fn tokens_are_kept_while_they_are_good() {
    let (fake, tokens) = with_tokens(300, |_, _| true);
    let client = fake.client_with(&[&tokens], given());
    for _ in 0..3 {
        client.manifest(&fake.image("a/b")).unwrap();
    }
    client.manifest(&fake.image("cc")).unwrap();
    let asked = ["a%2Fb", "cc"]
        .map(|name| format!("GET /token?x=1&service=the%20registry&scope=repository%3A{name}%3Apull"));
    assert_eq!(tokens.lines(), asked);
    // The password is for the token server, the token for the registry.
    assert_eq!(authorizations(&tokens), [Some(BASIC.to_owned()), Some(BASIC.to_owned())]);
    let sent: Vec<_> = authorizations(&fake).into_iter().flatten().collect();
    assert_eq!(sent, ["Bearer token-0", "Bearer token-0", "Bearer token-0", "Bearer token-1"]);
}

#[test]
fn anonymous_users_get_tokens_too() {
    let (fake, tokens) = with_tokens(300, |_, _| true);
    fake.client_with(&[&tokens], Auth::Default).manifest(&fake.image("a/b")).unwrap();
    assert_eq!(authorizations(&tokens), [None]);
}

#[test]
fn expired_tokens_are_replaced() {
    // One that is said to live no longer than a moment.
    let (fake, tokens) = with_tokens(0, |_, _| true);
    let client = fake.client_with(&[&tokens], given());
    client.manifest(&fake.image("a/b")).unwrap();
    client.manifest(&fake.image("a/b")).unwrap();
    assert_eq!(tokens.seen().len(), 2);
    // One that the registry does not take any longer.
    let (fake, tokens) =
        with_tokens(300, |token, before| token == "token-0" && before < 2 || token == "token-1");
    let client = fake.client_with(&[&tokens], given());
    client.manifest(&fake.image("a/b")).unwrap();
    client.manifest(&fake.image("a/b")).unwrap();
    let sent: Vec<_> = authorizations(&fake).into_iter().flatten().collect();
    assert_eq!(sent, ["Bearer token-0", "Bearer token-0", "Bearer token-1"]);
    // One that is never good ends it.
    let (fake, tokens) = with_tokens(300, |_, _| false);
    let error = fake.client_with(&[&tokens], given()).manifest(&fake.image("a/b")).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Unauthorized { with_credentials: true, .. }), "{error}");
    assert_eq!((fake.seen().len(), tokens.seen().len()), (2, 1));
}

#[test]
fn an_identity_token_is_exchanged() {
    let (fake, tokens) = with_tokens(300, |_, _| true);
    let auth = Auth::Given(Credentials::Identity(Secret("refresh&me".to_owned())));
    fake.client_with(&[&tokens], auth).manifest(&fake.image("a/b")).unwrap();
    let asked = &tokens.seen()[0];
    assert_eq!(asked.line(), "POST /token?x=1");
    assert_eq!(
        String::from_utf8_lossy(&asked.body),
        "grant_type=refresh_token&client_id=drydock&refresh_token=refresh%26me&service=the%20registry\
         &scope=repository%3Aa%2Fb%3Apull"
    );
}

#[test]
fn token_servers_that_make_no_sense() {
    for (answer, want) in [
        (Answer::new(200, r#"{"token": "hunter2"#), "a token is no valid JSON"),
        (Answer::new(200, r#"{"token": ["hunter2"]}"#), "a token is no valid JSON"),
        (Answer::new(200, "{}"), "an answer without a token"),
        (Answer::new(200, r#"{"token": "hunter2\n"}"#), "characters that none has"),
        (Answer::new(200, "hunter2".repeat(1000)).endless(), "more than 1048576 bytes"),
        (Answer::new(302, "").with("Location", "http://127.0.0.1:1/"), "status 302"),
        (Answer::new(404, ""), "no such place for tokens"),
        (Answer::new(401, ""), "does not allow it"),
    ] {
        let tokens = Fake::start(move |_, _| answer.clone());
        let challenge = format!(r#"Bearer realm="http://{}/token""#, tokens.host);
        let fake = Fake::start(move |request, _| guarded(request, "-", &challenge));
        let error = fake.client_with(&[&tokens], given()).manifest(&fake.image("a/b")).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(want) && !shown.contains("hunter2"), "{shown}");
        assert_eq!(tokens.seen().len(), 1);
    }
}

#[test]
fn a_password_goes_to_no_token_server_without_tls() {
    let tokens = Fake::start(|_, _| Answer::new(200, r#"{"token": "t"}"#));
    for challenge in [
        format!(r#"Bearer realm="http://{}/token""#, tokens.host),
        format!(r#"Bearer realm="http://user:password@{}/token""#, tokens.host),
        format!(r#"Bearer realm="ftp://{}/token""#, tokens.host),
        "Bearer realm=\"/token\"".to_owned(),
        "Negotiate".to_owned(),
        "\"".to_owned(),
    ] {
        let fake = Fake::start(move |request, _| guarded(request, "-", &challenge));
        // The token server is not said to have plain HTTP.
        fake.client_with(&[], given()).manifest(&fake.image("a/b")).unwrap_err();
        assert_eq!(authorizations(&fake), [None]);
    }
    assert_eq!(tokens.lines(), [""; 0]);
}

#[test]
fn redirects_to_another_host_take_no_credentials_along() {
    let bytes = some_bytes(1000);
    let sent = bytes.clone();
    let storage = Fake::start(move |_, _| Answer::new(200, sent.clone()));
    let place = format!("http://{}/storage?signature=s", storage.host);
    let fake = Fake::start(move |request, _| match guarded(request, BASIC, "Basic realm=\"r\"") {
        answer if request.header("authorization").is_none() => answer,
        _ => Answer::new(307, "").with("Location", &place),
    });
    let client = fake.client_with(&[&storage], given());
    let mut found = Vec::new();
    let mut blob = client.blob(&fake.image("a/b"), &describe(&bytes), 0).unwrap();
    std::io::copy(&mut blob, &mut found).unwrap();
    assert_eq!(found, bytes);
    assert_eq!(authorizations(&fake), [None, Some(BASIC.to_owned())]);
    assert_eq!(authorizations(&storage), [None]);
    assert_eq!(storage.lines(), ["GET /storage?signature=s"]);

    // Nor does one that then asks for them get any.
    let asking = Fake::start(|request, _| guarded(request, BASIC, "Basic realm=\"r\""));
    let place = format!("http://{}/storage", asking.host);
    let fake = Fake::start(move |_, _| Answer::new(302, "").with("Location", &place));
    let error = fake.client_with(&[&asking], given()).manifest(&fake.image("a/b")).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Status { status: 401, .. }), "{error}");
    assert_eq!(authorizations(&asking), [None]);
}

#[test]
fn an_upload_to_another_host_takes_no_credentials_along() {
    let storage = Fake::start(|_, _| Answer::new(201, ""));
    let place = format!("http://{}/upload?x=1", storage.host);
    let fake =
        Fake::start(move |request, _| match (request.header("authorization"), request.method.as_str()) {
            (None, _) => guarded(request, BASIC, "Basic realm=\"r\""),
            (_, "HEAD") => Answer::new(404, ""),
            _ => Answer::new(202, "").with("Location", &place),
        });
    let bytes = some_bytes(1000);
    let descriptor = describe(&bytes);
    let client = fake.client_with(&[&storage], given());
    client.put_blob(&fake.image("a/b"), &descriptor, None, &mut || Ok(bytes.as_slice())).unwrap();
    assert_eq!(authorizations(&storage), [None]);
    assert_eq!(storage.lines(), [format!("PUT /upload?x=1&digest={}", descriptor.digest)]);
    assert_eq!(storage.seen()[0].body, bytes);
}

#[test]
fn credentials_from_files_variables_and_webhooks() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    fs::write(&file, "user:hunter2\n").unwrap();
    let webhook = Fake::start(|_, _| Answer::new(200, "dXNlcjpodW50ZXIy\n"));
    let url = format!("http://{}/credentials", webhook.host);
    for auth in [Auth::UserFile(file), Auth::Env("SECRET".to_owned()), Auth::Webhook(url)] {
        let fake = Fake::start(|request, _| guarded(request, BASIC, "Basic realm=\"r\""));
        let mut options = fake.options(&[], auth);
        options.environment = [("SECRET", "user:hunter2")].into_iter().collect();
        assert!(!format!("{options:?}").contains("hunter2"));
        let client = Registry::new(&options).unwrap();
        client.manifest(&fake.image("a/b")).unwrap();
        client.manifest(&fake.image("a/b")).unwrap();
        assert!(!format!("{client:?}").contains("hunter2"));
    }
    assert_eq!(webhook.lines(), ["GET /credentials"], "it is asked once");
}

#[test]
fn places_without_credentials_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    fs::write(&file, "hunter2").unwrap();
    let plain = Fake::start(|_, _| Answer::new(200, "hunter2"));
    let forbidden = Fake::start(|_, _| Answer::new(403, "hunter2"));
    let elsewhere = Fake::start(|_, _| Answer::new(302, "").with("Location", "http://hunter2/"));
    let webhook = |fake: &Fake| Auth::Webhook(format!("http://{}/?key=hunter2", fake.host));
    for (auth, want) in [
        (Auth::UserFile(file.clone()), "secret`: it must hold `user:password`"),
        (Auth::UserFile(dir.path().join("gone")), "gone`: No such file"),
        (Auth::Env("SECRET".to_owned()), "the variable `SECRET` must hold credentials"),
        (Auth::Env("NONE".to_owned()), "the variable `NONE` must hold credentials"),
        (webhook(&plain), "its answer must be `user:password` in base64"),
        (webhook(&forbidden), "it answered with status 403"),
        (webhook(&elsewhere), "it answered with status 302"),
        (
            Auth::Webhook("http://webhook.example/?key=hunter2".to_owned()),
            "http://webhook.example: it must have HTTPS",
        ),
        (Auth::Webhook("hunter2".to_owned()), "it must have a URL of HTTPS"),
    ] {
        let fake = Fake::start(|request, _| guarded(request, BASIC, "Basic realm=\"r\""));
        let mut options = fake.options(&[], auth);
        options.environment = [("SECRET", "hunter2")].into_iter().collect();
        let error = Registry::new(&options).unwrap().manifest(&fake.image("a/b")).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(want) && !shown.contains("hunter2"), "{shown}");
    }
}

/// A helper `docker-credential-NAME` that keeps what it is given in a file, and where it is, for `PATH`.
fn helper(dir: &Path, name: &str) {
    let kept = dir.join("kept");
    let path = dir.join(format!("docker-credential-{name}"));
    let script = format!(
        "#!/bin/sh\nread -r input\ncase $1 in\n\
         get) cat {kept:?} 2>/dev/null || {{ echo 'credentials not found in native keychain'; exit 1; }} ;;\n\
         store) printf '%s' \"$input\" > {kept:?} ;;\nerase) rm {kept:?} ;;\nesac\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn login_checks_keeps_and_forgets() {
    let fake = Fake::start(|request, _| match request.path.as_str() {
        "/v2/" | "/v2/a/b/manifests/latest" => guarded(request, BASIC, "Basic realm=\"r\""),
        _ => Answer::new(404, ""),
    });
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    let mut options = fake.options(&[], Auth::Default);
    options.environment = [("DOCKER_CONFIG", dir.path())].into_iter().collect();
    let credentials = |password: &str| Credentials::Password {
        user: "user".to_owned(),
        password: Secret(password.to_owned()),
    };
    let error = login(&options, &fake.host, &credentials("wrong")).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Unauthorized { with_credentials: true, .. }), "{error}");
    assert!(!config.exists());

    let stored = login(&options, &fake.host, &credentials("hunter2")).unwrap();
    assert_eq!(stored, Stored::File(config.clone()));
    assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
    Registry::new(&options).unwrap().manifest(&fake.image("a/b")).unwrap();

    assert_eq!(logout(&options.environment, &fake.host).unwrap(), [Stored::File(config)]);
    let error = Registry::new(&options).unwrap().manifest(&fake.image("a/b")).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Unauthorized { with_credentials: false, .. }), "{error}");
}

/// Run by another test, with a `PATH` that has helpers.
#[test]
fn in_a_process_with_helpers() {
    let Ok(dir) = fs::canonicalize("docker") else { return };
    let fake = Fake::start(|request, _| guarded(request, BASIC, "Basic realm=\"r\""));
    let config = dir.join("config.json");
    for key in ["credsStore", "credHelpers"] {
        let value = if key == "credsStore" {
            r#""test""#.to_owned()
        } else {
            format!(r#"{{"{}": "test"}}"#, fake.host)
        };
        fs::write(&config, format!(r#"{{"auths": {{"{}": {{}}}}, "{key}": {value}}}"#, fake.host)).unwrap();
        let mut options = fake.options(&[], Auth::Default);
        options.environment = [("DOCKER_CONFIG", &dir)].into_iter().collect::<Environment>();
        let manifest = || Registry::new(&options).unwrap().manifest(&fake.image("a/b"));
        assert!(matches!(
            manifest().unwrap_err().kind,
            ErrorKind::Unauthorized { with_credentials: false, .. }
        ));
        let password = Secret("hunter2".to_owned());
        let credentials = Credentials::Password { user: "user".to_owned(), password };
        let stored = login(&options, &fake.host, &credentials).unwrap();
        assert_eq!(stored, Stored::Helper("docker-credential-test".to_owned()));
        assert!(!fs::read_to_string(&config).unwrap().contains("dXNlcjpodW50ZXIy"));
        manifest().unwrap();
        assert!(logout(&options.environment, &fake.host).unwrap().contains(&stored));
        manifest().unwrap_err();
    }
    for (name, want) in [("gone", "docker-credential-gone`: start it"), ("../x", "its name may only hold")] {
        fs::write(&config, format!(r#"{{"credsStore": "{name}"}}"#)).unwrap();
        let mut options = fake.options(&[], Auth::Default);
        options.environment = [("DOCKER_CONFIG", &dir)].into_iter().collect::<Environment>();
        let error = Registry::new(&options).unwrap().manifest(&fake.image("a/b")).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    println!("with helpers");
}

#[test]
fn helpers_keep_credentials() {
    let dir = tempfile::tempdir().unwrap();
    helper(dir.path(), "test");
    fs::create_dir(dir.path().join("docker")).unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["credentials::in_a_process_with_helpers", "--exact", "--nocapture"])
        .current_dir(dir.path())
        .env("PATH", format!("{}:/usr/bin:/bin", dir.path().display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("with helpers"), "{output:?}");
}
