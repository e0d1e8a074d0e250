//! Work on two things at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
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

/// What `work` makes of each item, in order, by at most so many threads; this one is one of them, and may be the only one that can
/// be had.
pub(crate) fn each<I: Sync, T: Send>(items: &[I], threads: usize, work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let some = || {
        let next = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < items.len());
        std::iter::from_fn(next).map(|at| (at, work(&items[at]))).collect::<Vec<_>>()
    };
    let mut done = thread::scope(|scope| {
        let start = |_| thread::Builder::new().spawn_scoped(scope, some).ok();
        let others: Vec<_> = (1..threads.min(items.len())).map_while(start).collect();
        let mut done = some();
        for other in others {
            done.extend(other.join().expect("it returns errors and does not panic"));
        }
        done
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, made)| made).collect()
}
