//! Work on several things at a time.

use std::num::NonZeroUsize;
use std::thread;

use rayon::ThreadPoolBuilder;
use rayon::prelude::*;

/// More of them wait for each other in the kernel.
const MOST: usize = 8;

/// Does `work` on several threads, as far as it calls [`share`]; on this one, where no others can be had.
pub(crate) fn shared<T: Send>(threads: NonZeroUsize, work: impl FnOnce() -> T + Send) -> T {
    let pool =
        (threads.get() > 1).then(|| ThreadPoolBuilder::new().num_threads(threads.get().min(MOST)).build());
    match pool {
        Some(Ok(pool)) => pool.install(work),
        _ => work(),
    }
}

/// What `work` makes of each item, in order. Within [`shared`], and at any depth, all its threads do what is left to do.
pub(crate) fn share<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    if rayon::current_thread_index().is_some() {
        items.par_iter().map(&work).collect()
    } else {
        items.iter().map(&work).collect()
    }
}

/// Does `other` on another thread while this one does `own`; after it, where no thread can be had.
pub(crate) fn beside<A: Send, B>(other: impl FnOnce() -> A + Send, own: impl FnOnce() -> B) -> (A, B) {
    // Taken by whoever does it.
    let other = std::sync::Mutex::new(Some(other));
    let take = || other.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    thread::scope(|scope| {
        let started = thread::Builder::new().spawn_scoped(scope, || take().map(|other| other()));
        let own = own();
        let done =
            started.ok().and_then(|thread| thread.join().expect("it returns errors and does not panic"));
        let done = done.or_else(|| take().map(|other| other()));
        (done.expect("one of the two has done it"), own)
    })
}
