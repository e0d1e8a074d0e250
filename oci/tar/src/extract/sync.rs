//! Where those who make small files have their threads and locks from. In the tests of `model`, the same code has a model
//! checker's.

pub(super) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
pub(super) use std::thread;
