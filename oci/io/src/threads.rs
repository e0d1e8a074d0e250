//! Work on several threads, as many as can be had.

use std::num::NonZeroUsize;

use super::sync::{AtomicUsize, Ordering, thread};

/// What `work` makes of each item, in order, on at most so many threads. This one is one of them, and may be the only one that can be
/// had. A thread ends at its first error; that of this thread comes before those of others.
pub fn each<I: Sync, T: Send, E: Send>(
    items: &[I],
    threads: NonZeroUsize,
    work: impl Fn(&I) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let next = AtomicUsize::new(0);
    let some = || -> Result<Vec<(usize, T)>, E> {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return Ok(done) };
            done.push((at, work(item)?));
        }
    };
    let done = thread::scope(|scope| {
        let start = |_| thread::Builder::new().spawn_scoped(scope, some).ok();
        let others: Vec<_> = (1..threads.get().min(items.len())).map_while(start).collect();
        let own = some();
        let others =
            others.into_iter().map(|other| other.join().expect("it returns errors and does not panic"));
        std::iter::once(own).chain(others).collect::<Vec<_>>()
    });
    let mut all = Vec::with_capacity(items.len());
    for done in done {
        all.extend(done?);
    }
    all.sort_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, made)| made).collect())
}
