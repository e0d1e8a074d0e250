//! Files of credentials, docker's and containers': what is in them is found for its host alone, kept beside new ones, and never shown.

use std::fs;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use drydock_fake_registry::{Answer, Fake};
use drydock_registry::auth::{Credentials, Secret, keep, logout};
use drydock_registry::{Environment, Host, Options, Registry, Retry};
use serde_json::{Map, Value as Json};

use super::Target;

pub(crate) const TARGET: Target = Target {
    name: "credentials",
    longest: 1 << 12,
    words: &[
        b"{\"auths\": {\"HOST\": {\"auth\": \"dXNlcjpodW50ZXIy\"}}}",
        b"\"https://HOST/v1/\": {\"auth\": \"dXNlcjpodW50ZXIy\"}",
        b"\"HOST/a\": {\"username\": \"user\", \"password\": \"hunter2\"}",
        b"\"identitytoken\": \"hunter2\"",
        b"\"credsStore\": \"none\"",
        b"\"credHelpers\": {\"HOST\": \"none\"}",
        b"\"HttpHeaders\": {}",
        b"null",
        b"{}",
        b"\"\"",
        b"=",
        b"\\u0000",
        b"\\n",
    ],
    can_use: |_, _| false,
    run,
};

/// Credentials that came to the registry.
static SHOWN: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn server() -> &'static Fake {
    static SERVER: OnceLock<Fake> = OnceLock::new();
    SERVER.get_or_init(|| {
        Fake::start(|request, _| match request.header("authorization") {
            Some(shown) => {
                SHOWN.lock().unwrap_or_else(PoisonError::into_inner).push(shown.to_owned());
                Answer::new(200, "")
            }
            None => Answer::new(401, "").with("WWW-Authenticate", "Basic realm=\"r\""),
        })
    })
}

fn run(input: &[u8]) -> String {
    let fake = server();
    fake.forget();
    let text = String::from_utf8_lossy(input).replace("HOST", &fake.host);
    let dir = tempfile::tempdir().expect("there is room");
    let file = dir.path().join("config.json");
    fs::write(&file, &text).expect("there is room");
    // No helper is found.
    let environment: Environment =
        [("DOCKER_CONFIG", dir.path().to_str().expect("it is UTF-8")), ("PATH", "/nowhere")]
            .into_iter()
            .collect();
    let plain = Host { plain_http: true, ..Host::default() };
    let retry = Retry {
        until: None,
        attempts: 1,
        first_wait: Duration::ZERO,
        longest_wait: Duration::ZERO,
        stalled: Duration::from_secs(2),
    };
    let options =
        Options { hosts: [(fake.host.clone(), plain)].into(), environment: environment.clone(), retry };
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let checked = Registry::new(&options).and_then(|client| client.check(&fake.host));
    let checked = checked.map_err(|error| error.to_string());
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut said = vec![format!("{checked:?} {}", shown.len())];
    let before: Option<Map<String, Json>> = serde_json::from_str(&text).ok();
    let password = Credentials::Password { user: "new".into(), password: Secret("kept-secret".into()) };
    match keep(&environment, "example.com", &password) {
        Ok(_) => {
            let now = fs::read_to_string(&file).expect("it is there");
            let now: Map<String, Json> = serde_json::from_str(&now).expect("it is JSON");
            let auth = &now["auths"]["example.com"]["auth"];
            // `new:kept-secret`
            assert_eq!(auth, "bmV3OmtlcHQtc2VjcmV0", "{now:?}");
            let kept = |all: &Map<String, Json>| {
                let mut all = all.clone();
                let auths = all.remove("auths");
                let mut auths = auths.and_then(|auths| auths.as_object().cloned()).unwrap_or_default();
                auths.retain(|key, _| !key.contains("example.com"));
                (all, auths)
            };
            assert_eq!(kept(&now), kept(&before.unwrap_or_default()), "something else has changed");
            let gone = logout(&environment, "example.com").map_err(|error| error.to_string());
            assert!(gone.as_ref().is_ok_and(|places| places.len() == 1), "{gone:?}");
            said.push("kept".into());
        }
        Err(error) => {
            let now = fs::read_to_string(&file).expect("it is there");
            assert_eq!(now, text, "it was not kept, and the file has changed");
            said.push(error.to_string());
        }
    }
    let said = said.join(";");
    let secrets = ["hunter2", "dXNlcjpodW50ZXIy", "kept-secret", "bmV3OmtlcHQtc2VjcmV0"];
    assert!(!secrets.iter().any(|secret| said.contains(secret)), "a secret is shown: {said}");
    assert!(!said.contains(char::is_control), "{said:?}");
    said.replace(&fake.host, "").replace(&*dir.path().to_string_lossy(), "")
}
