//! Work on several threads.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use drydock_io::threads::each;

#[test]
fn all_are_done_once_and_come_in_order() {
    let items: Vec<usize> = (0..1000).collect();
    for threads in [1, 2, 8, 2000] {
        let threads = NonZeroUsize::new(threads).unwrap();
        assert_eq!(each(&items, threads, |item| Ok::<_, ()>(item * 2)).unwrap()[999], 1998);
        let made = each(&items, threads, |item| Ok::<_, ()>(*item)).unwrap();
        assert_eq!(made, items);
        assert_eq!(each(&items, threads, |item| if *item == 500 { Err(*item) } else { Ok(()) }), Err(500));
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
