//! Work on several threads, as many as can be had.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_done_once_and_come_in_order() {
        let items: Vec<usize> = (0..1000).collect();
        for threads in [1, 2, 8, 2000] {
            let threads = NonZeroUsize::new(threads).unwrap();
            assert_eq!(each(&items, threads, |item| Ok::<_, ()>(item * 2)).unwrap()[999], 1998);
            let made = each(&items, threads, |item| Ok::<_, ()>(*item)).unwrap();
            assert_eq!(made, items);
            assert_eq!(
                each(&items, threads, |item| if *item == 500 { Err(*item) } else { Ok(()) }),
                Err(500)
            );
            assert_eq!(each(&[], threads, |()| Ok::<_, ()>(())), Ok(Vec::new()));
        }
    }

    /// One thread goes on no further than to its error.
    #[test]
    fn nothing_is_begun_after_an_error() {
        let begun = AtomicUsize::new(0);
        let work = |item: &usize| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *item == 3 { Err(()) } else { Ok(()) }
        };
        let items: Vec<usize> = (0..1000).collect();
        assert_eq!(each(&items, NonZeroUsize::MIN, work), Err(()));
        assert_eq!(begun.into_inner(), 4);
    }
}
