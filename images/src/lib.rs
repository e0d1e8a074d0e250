//! Operations on images in a repository of layouts, for people: what the executable `drydock` does, without a terminal and
//! without a network.
//!
//! - [`Repository`] finds images by name; [`list`](mod@list), [`inspect`](mod@inspect), [`tree`](mod@tree),
//!   [`diff`](mod@diff), [`sbom`] and [`log`] look into them and return values that serialize as the documented JSON.
//! - [`verify`](mod@verify) reads everything.
//! - [`import`](mod@import) and [`export`] carry images from and to folders and archives, and from any [`import::Store`].
//! - [`builder`] makes builders and packages of buildpacks, and looks into them.
//! - [`assemble`](mod@assemble) makes an image of layers that a build has made.
//! - [`flatten`](mod@flatten), [`tag`](mod@tag) and [`clean`] write, through [`drydock_layout::Transaction`] and its
//!   sweep alone.
//!
//! Layers are read as streams ([`layer`]). What is kept of them in memory is the names of their files
//! ([`files`]), within limits:
//!
//! | what | limit |
//! |---|---|
//! | paths and attributes of an image's files | [`files::MAX_INDEX`] bytes |
//! | a path | [`files::MAX_PATH`] bytes |
//! | an SBOM file | [`sbom::MAX_FILE`] bytes |
//! | all SBOM files of an image | [`sbom::MAX_FILES`] |
//! | folders in folders of a repository | [`repository::MAX_DEPTH`] |

pub mod assemble;
pub mod builder;
pub mod built;
pub mod clean;
pub mod diff;
pub mod export;
pub mod files;
pub mod flatten;
pub mod import;
pub mod inspect;
pub mod layer;
pub mod list;
pub mod log;
pub mod repository;
pub mod sbom;
pub mod tag;
pub mod tree;
pub mod verify;
pub mod watch;
mod write;

pub use repository::{Name, Repository, Unknown};
pub use watch::Watch;
