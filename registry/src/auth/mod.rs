//! Credentials: where they are found, and how they are shown to registries.

mod file;
mod helper;
mod keychain;
mod login;
mod token;

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

pub(crate) use keychain::Keychain;
pub use login::{Stored, keep, login, logout};
pub(crate) use token::{Access, Tokens};

/// Where the credentials for a host are found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// In the standard places: the files that `DOCKER_CONFIG` and `REGISTRY_AUTH_FILE` lead to, then
    /// `containers/auth.json` in `$XDG_RUNTIME_DIR` and `$XDG_CONFIG_HOME`, then `~/.docker/config.json`, and
    /// the helpers that they name.
    #[default]
    Default,
    /// In a file that holds `user:password` in one line.
    UserFile(PathBuf),
    /// In a variable of this name that holds `user:password`.
    Env(String),
    /// At a URL, whose answer is `user:password` in base64. HTTPS, or a host that is this machine or is said
    /// to have plain HTTP. Redirects are not followed.
    Webhook(String),
    /// These.
    #[serde(skip)]
    Given(Credentials),
}

/// What a registry is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user's name and password, or what stands for a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token that is exchanged for others (`identitytoken`).
    Identity(Secret),
}

impl Credentials {
    /// From `user:password`, and the end of its line if there is one; `None` if it is anything else.
    fn parse(text: &str) -> Option<Self> {
        let (user, password) = text.trim_end_matches(['\r', '\n']).split_once(':')?;
        (!user.is_empty())
            .then(|| Self::Password { user: user.to_owned(), password: Secret(password.to_owned()) })
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Credentials that cannot be found out or kept. The message never has them.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A file that cannot be read, understood or written.
    #[error("credentials in `{}`: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A helper that cannot be run, or fails.
    #[error("credential helper `{program}`: {reason}")]
    Helper {
        /// The program.
        program: String,
        /// Why not.
        reason: String,
    },
    /// A variable that does not hold credentials.
    #[error("the variable `{0}` must hold credentials as `user:password`")]
    Variable(String),
    /// A webhook that gives no credentials.
    #[error("credentials from {origin}: {reason}")]
    Webhook {
        /// Scheme and host.
        origin: String,
        /// Why not.
        reason: String,
    },
    /// There is no place for credentials.
    #[error("there is no place for credentials: set `DOCKER_CONFIG` or `HOME`")]
    NoPlace,
}
