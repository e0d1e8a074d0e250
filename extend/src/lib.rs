//! Dockerfiles: the language ([`language`]), what one comes to on an image ([`plan`]), and doing it where the image is the root of the
//! file system ([`in_place`]).
//!
//! Nothing here prints, exits, looks at the process's environment or opens a connection.

pub mod in_place;
pub mod language;
pub mod plan;
