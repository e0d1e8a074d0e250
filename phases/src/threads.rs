//! Work on two things at a time.

use std::thread;

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
