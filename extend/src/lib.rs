//! Dockerfiles: the language ([`language`]), what one comes to ([`plan`]), doing it ([`in_place`]), and what need not be done again
//! ([`cache`]).
//!
//! Nothing here prints, exits, looks at the process's environment or opens a connection.

pub mod cache;
pub mod in_place;
pub mod language;
pub mod plan;
