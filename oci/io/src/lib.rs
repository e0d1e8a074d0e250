//! What a store does with bytes: foreign files read within limits, own files that appear whole or not at all,
//! folders locked, and sinks that lend their buffers.

pub mod file;
pub mod lock;
pub mod read;
pub mod sink;
