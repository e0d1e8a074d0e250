//! Where the pipeline has its threads and locks from. In the tests of `model`, the same code has a model checker's.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
pub(crate) use std::thread;
