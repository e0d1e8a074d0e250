//! What a store does with bytes: foreign files read within limits, own files that appear whole or not at all,
//! folders locked, sinks that lend their buffers, and work shared by threads.

pub mod file;
pub mod lines;
pub mod lock;
#[cfg(test)]
mod model;
pub mod read;
pub mod sink;
mod sync;
pub mod threads;
