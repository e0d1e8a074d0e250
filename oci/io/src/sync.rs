//! Where [`threads`](crate::threads) has its threads from. In the tests of `model`, the same code has a model checker's.

pub(crate) use std::sync::atomic::{AtomicUsize, Ordering};
pub(crate) use std::thread;
