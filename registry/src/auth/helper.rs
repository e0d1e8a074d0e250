//! Credential helpers: programs `docker-credential-NAME`, found by `PATH`, that keep credentials for others.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::{AuthError, Credentials, Secret};
use crate::text::printable;

/// How much of what a helper prints is read.
const OUTPUT_LIMIT: u64 = 64 << 10;

/// The user that stands for a token.
const TOKEN_USER: &str = "<token>";

/// What helpers read and print. Holds secrets.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Message {
    #[serde(rename = "ServerURL", default)]
    server: String,
    username: String,
    secret: String,
}

/// The credentials that a helper has.
pub(super) fn get(helper: &str, key: &str) -> Result<Option<Credentials>, AuthError> {
    let answer = match run(helper, "get", key)? {
        Ok(answer) => answer,
        // What helpers print in place of credentials that they do not have.
        Err(reason) if reason.contains("credentials not found") => return Ok(None),
        Err(reason) => return Err(error(helper, reason)),
    };
    let Message { username, secret, .. } = serde_json::from_str(&answer)
        .map_err(|_| error(helper, "its answer is not what helpers say".to_owned()))?;
    Ok(Some(match username.as_str() {
        TOKEN_USER => Credentials::Identity(Secret(secret)),
        _ => Credentials::Password { user: username, password: Secret(secret) },
    }))
}

/// Has a helper keep credentials.
pub(super) fn store(helper: &str, key: &str, credentials: &Credentials) -> Result<(), AuthError> {
    let (username, secret) = match credentials {
        Credentials::Password { user, password } => (user.clone(), password.0.clone()),
        Credentials::Identity(token) => (TOKEN_USER.to_owned(), token.0.clone()),
    };
    let message = Message { server: key.to_owned(), username, secret };
    let message = serde_json::to_string(&message).expect("three texts are JSON");
    run(helper, "store", &message)?.map(drop).map_err(|reason| error(helper, reason))
}

/// Has a helper forget credentials. Says whether it had any.
pub(super) fn erase(helper: &str, key: &str) -> Result<bool, AuthError> {
    if get(helper, key)?.is_none() {
        return Ok(false);
    }
    run(helper, "erase", key)?.map(|_| true).map_err(|reason| error(helper, reason))
}

/// What the helper prints; or why it failed, in its words.
fn run(helper: &str, verb: &str, input: &str) -> Result<Result<String, String>, AuthError> {
    if !helper.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err(error(helper, "its name may only hold letters, digits, `-`, `_` and `.`".to_owned()));
    }
    let failed = |action: &str, e: std::io::Error| error(helper, format!("{action}: {e}"));
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| failed("start it", e))?;
    // One that does not read says why in what it prints. Its input ends here.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let mut output = Vec::new();
    let stdout = child.stdout.take().expect("it was asked for");
    let read = stdout.take(OUTPUT_LIMIT).read_to_end(&mut output);
    let status = child.wait().map_err(|e| failed("wait for it", e))?;
    read.map_err(|e| failed("read what it prints", e))?;
    let output = String::from_utf8_lossy(&output).into_owned();
    Ok(match status.success() {
        true => Ok(output),
        false if verb == "get" => Err(format!("{status}: {}", printable(&output))),
        // It may repeat what it was given.
        false => Err(status.to_string()),
    })
}

fn error(helper: &str, reason: String) -> AuthError {
    AuthError::Helper { program: format!("docker-credential-{}", printable(helper)), reason }
}
