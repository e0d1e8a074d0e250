//! Work on several threads under a model checker ([`drydock_checker`]): all is done once and comes in order, or an error comes.

use std::num::NonZeroUsize;

use drydock_checker as sync;
use drydock_checker::in_many_orders;

#[path = "threads.rs"]
#[expect(clippy::duplicate_mod, reason = "it is compiled once more")]
#[allow(unreachable_pub, reason = "nobody but these tests uses it")]
mod threads;

const ORDERS: usize = 2000;
const THREADS: NonZeroUsize = NonZeroUsize::new(3).unwrap();

#[test]
fn all_is_done_once_in_every_order() {
    in_many_orders(ORDERS, || {
        let items = [0, 1, 2, 3, 4];
        assert_eq!(threads::each(&items, THREADS, |item| Ok::<_, ()>(*item)), Ok(items.to_vec()));
        let even = |item: &usize| if item.is_multiple_of(2) { Ok(*item) } else { Err(*item) };
        assert!(threads::each(&items, THREADS, even).is_err_and(|item| [1, 3].contains(&item)));
    });
}
