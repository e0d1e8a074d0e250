//! Threads and locks of a model checker (shuttle), under the names that std gives them. Only tests use it.
//!
//! A module that threads meet in has its threads and locks from a module `sync` beside it, which is std's. For the tests it is
//! compiled once more (`#[path]`), in a module `model` in which `sync` is this crate. [`in_many_orders`] lets one of its threads
//! run at a time, and chooses at each lock and each atomic who is next; that all wait for one another is a failure.
//!
//! Not seen: what a panic does, which the checker takes for the failure of the test; and weak memory: atomics are in order.

pub use std::sync::PoisonError;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
pub use shuttle::sync::atomic::{AtomicUsize, Ordering};
pub use shuttle::sync::{Condvar, Mutex, MutexGuard};
use shuttle::{Config, Runner};

/// What there is of [`std::thread`].
pub mod thread {
    use std::io;

    use shuttle::rand::{Rng as _, thread_rng};
    pub use shuttle::thread::{Scope, ScopedJoinHandle, panicking, scope};

    /// Starts threads, but for one of sixteen, as a system does that has no more.
    #[derive(Debug, Default)]
    pub struct Builder;

    impl Builder {
        /// Names do not matter.
        pub fn new() -> Self {
            Self
        }

        /// Likewise.
        #[must_use]
        pub fn name(self, _: String) -> Self {
            self
        }

        /// Starts a thread in a scope.
        pub fn spawn_scoped<'scope, T: Send + 'scope>(
            self,
            scope: &'scope Scope<'scope, '_>,
            work: impl FnOnce() -> T + Send + 'scope,
        ) -> io::Result<ScopedJoinHandle<'scope, T>> {
            if thread_rng().gen_ratio(1, 16) {
                return Err(io::Error::other("there are no more threads"));
            }
            Ok(scope.spawn(work))
        }
    }
}

/// Does a test in twice so many orders: arbitrary ones, and those with few switches at places that are hard to hit.
pub fn in_many_orders(orders: usize, test: impl Fn() + Send + Sync + Copy + 'static) {
    let mut config = Config::new();
    // Threads here are not the system's, and encoders have tables there.
    config.stack_size = 1 << 20;
    Runner::new(RandomScheduler::new(orders), config.clone()).run(test);
    Runner::new(PctScheduler::new(3, orders), config).run(test);
}
