//! The client of registries and of git repositories, credentials for them, and the file that says what may come from
//! where. The only package of the project that opens connections; everything is synchronous, and streams are read and
//! sent in pieces.
//!
//! - [`Registry`] resolves references, reads and writes blobs and manifests, and reads files at URLs.
//! - [`auth`] finds credentials, and writes them to the standard file (`login`, `logout`).
//! - [`git`] brings the files of a commit, by the installed program `git`.
//! - [`sources`] reads `sources.toml` and the lock file of digests.
//!
//! It reads no variable by itself (TLS roots of the system excepted: `SSL_CERT_FILE`, `SSL_CERT_DIR`): an
//! [`Environment`] is handed in. It prints nothing; [`Error`]s name registry, repository and tag or digest.
//!
//! Specification: OCI distribution-spec 1.1; `docker` registry token authentication.

pub mod auth;
mod call;
mod download;
mod environment;
mod error;
pub mod git;
mod options;
mod push;
mod registry;
mod retry;
pub mod sources;
mod text;
mod transport;
mod url;

pub use download::Download;
pub use environment::Environment;
pub use error::{Error, ErrorKind};
pub use options::{Host, Options, Retry};
pub use push::Pushed;
pub use registry::Registry;

/// How large a manifest or an index, a list of tags, or a list of referrers may be, in bytes.
pub const MANIFEST_LIMIT: u64 = 8 << 20;
/// How large any other answer that is not a blob may be (tokens, errors), in bytes.
pub const ANSWER_LIMIT: u64 = 1 << 20;
/// How many redirects lead to one blob.
pub const REDIRECT_LIMIT: u32 = 5;
/// How often one download may break off and go on, while each piece brings [`PROGRESS`] at least.
pub const BREAK_LIMIT: u32 = 100;
/// How many bytes between two breaks count as progress: less of them, and it is one more of
/// [`Retry::attempts`].
pub const PROGRESS: u64 = 1 << 20;
