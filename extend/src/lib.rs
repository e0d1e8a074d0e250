//! Dockerfiles: the language ([`language`]).
//!
//! Nothing here prints, exits, looks at the process's environment or opens a connection.

pub mod language;
