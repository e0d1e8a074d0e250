//! OCI images as values: digests, descriptors, manifests, indexes, configurations, platforms, and references with the
//! paths that they stand for. Fields that these types do not know survive.
//!
//! Nothing here does I/O.

pub mod config;
pub mod digest;
pub mod hash;
pub mod json;
pub mod manifest;
pub mod media;
pub mod platform;
pub mod reference;
