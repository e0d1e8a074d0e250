//! What a store does with bytes: foreign files read within limits, own files that appear whole or not at all,
//! folders locked and found past the links of others, sinks that lend their buffers, and work shared by threads.

pub mod file;
pub mod lines;
pub mod lock;
pub mod read;
pub mod sink;
pub mod threads;
pub mod way;
