//! OCI image layouts on disk: references and the paths that they stand for, digests, blobs, images, layer tars.
//!
//! Nothing here opens a network connection, reads the environment or prints.

pub mod compress;
pub mod config;
pub mod digest;
pub mod file;
mod hash;
pub mod layout;
pub mod manifest;
pub mod media;
pub mod pipeline;
pub mod platform;
pub mod reference;
pub mod sink;
pub mod tar;
