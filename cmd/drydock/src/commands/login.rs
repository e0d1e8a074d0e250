//! `drydock login`, `drydock logout`. A password comes from standard input or the terminal, never from the command line.

use std::io::{self, Read as _};

use anyhow::{Context as _, Result};
use drydock_registry::auth::{self, Credentials, Secret, Stored};
use serde_json::json;

use super::Context;
use crate::exit::Usage;
use crate::prompt::{self, MAX_ANSWER};
use crate::rules::Rules;

/// Where user and password come from, and whether they are checked.
pub(crate) struct Asked {
    pub(crate) user: Option<String>,
    pub(crate) from_stdin: bool,
    pub(crate) unchecked: bool,
}

pub(crate) fn login(context: &mut Context, rules: &Rules, registry: &str, asked: Asked) -> Result<u8> {
    let Asked { user, from_stdin, unchecked } = asked;
    let user = match user {
        Some(user) => user,
        None if from_stdin => {
            return Err(Usage("with --password-stdin, name the user with --user".to_owned()).into());
        }
        None => context.progress.signals.at_once(|| prompt::ask("user: "))?,
    };
    let password = if from_stdin {
        let mut text = String::new();
        let mut stdin = io::stdin().take(MAX_ANSWER as u64);
        stdin.read_to_string(&mut text).context("cannot read the password")?;
        text.trim_end_matches(['\r', '\n']).to_owned()
    } else {
        prompt::ask_secret("password: ")?
    };
    if user.is_empty() || password.is_empty() {
        return Err(Usage("a user and a password are needed".to_owned()).into());
    }
    let credentials = Credentials::Password { user, password: Secret(password) };
    let stored = if unchecked {
        auth::keep(rules.environment(), registry, &credentials)?
    } else {
        let login = || auth::login(&rules.options(None), registry, &credentials);
        context.progress.signals.at_once(login)?
    };
    let place = place(&stored);
    if context.json {
        context.out.json(&json!({"registry": registry, "stored": place}))?;
    } else if !context.quiet {
        context.out.line(&format!("the credentials for {registry} are in {place}"))?;
    }
    Ok(0)
}

pub(crate) fn logout(context: &mut Context, rules: &Rules, registry: &str) -> Result<u8> {
    let places: Vec<String> = auth::logout(rules.environment(), registry)?.iter().map(place).collect();
    if context.json {
        context.out.json(&json!({"registry": registry, "forgotten": places}))?;
    } else if !context.quiet {
        let text = match places.as_slice() {
            [] => format!("there are no credentials for {registry}"),
            places => format!("the credentials for {registry} are gone from {}", places.join(", ")),
        };
        context.out.line(&text)?;
    }
    Ok(0)
}

fn place(stored: &Stored) -> String {
    match stored {
        Stored::File(path) => path.display().to_string(),
        Stored::Helper(program) => program.clone(),
    }
}
