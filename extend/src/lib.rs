//! Dockerfiles: the language ([`language`]), and what one comes to on an image ([`plan`]).
//!
//! Nothing here prints, exits, looks at the process's environment or opens a connection.

pub mod language;
pub mod plan;
