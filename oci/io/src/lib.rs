//! What a store does with bytes: foreign files read within limits, own files that appear whole or not at all,
//! folders locked and found past the links of others, sinks that lend their buffers, and work shared by threads.

pub mod access;
pub mod dir;
pub mod file;
pub mod lines;
pub mod lock;
#[cfg(test)]
mod model;
pub mod read;
pub mod sink;
mod sync;
pub mod threads;
pub mod way;
