//! A vector whose items several threads exchange for others, each item for one.
//!
//! # Semantics
//!
//! [`Exchange::work`] takes chunks of items in ascending order, each once, shows each chunk to `before`, and puts what `f`
//! makes of an item where the item was. When all threads are done, [`Exchange::finish`] gives the results in the order of the
//! items, if every item was exchanged. If `before` or `f` panics, what is left of that chunk and all results are leaked:
//! nothing is dropped twice.

use std::mem::MaybeUninit;

use crate::sync::{AtomicUsize, Ordering, UnsafeCell};

/// See the module's documentation.
pub struct Exchange<T, R> {
    items: Box<[UnsafeCell<MaybeUninit<T>>]>,
    results: Box<[UnsafeCell<MaybeUninit<R>>]>,
    chunk: usize,
    next: AtomicUsize,
    exchanged: AtomicUsize,
}

// SAFETY: each item moves to the one thread that took its chunk, and each result comes from that thread, which
// `T: Send` and `R: Send` allow; nothing is shared.
unsafe impl<T: Send, R: Send> Sync for Exchange<T, R> {}

/// The items of a chunk that is about to be exchanged.
pub struct Waiting<'x, T>(&'x [UnsafeCell<MaybeUninit<T>>]);

impl<'x, T> Waiting<'x, T> {
    /// The items, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'x T> {
        self.0.iter().map(|item| {
            item.with(|item| {
                // SAFETY: the pointer comes from a cell that is alive for `'x`, and the chunk is this thread's alone.
                let item = unsafe { &*item };
                // SAFETY: `new` filled it in, and no item of the chunk is moved out before `'x` ends.
                unsafe { item.assume_init_ref() }
            })
        })
    }
}

impl<T, R> Exchange<T, R> {
    /// An exchange of `items`, `chunk` at once.
    ///
    /// # Panics
    ///
    /// If `chunk` is zero.
    pub fn new(items: Vec<T>, chunk: usize) -> Self {
        assert!(chunk > 0, "a chunk holds at least one item");
        // No more than there are, so that the count of items taken cannot come around.
        let chunk = chunk.min(items.len().max(1));
        let results = (0..items.len()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
        let items = items.into_iter().map(|item| UnsafeCell::new(MaybeUninit::new(item))).collect();
        Exchange { items, results, chunk, next: AtomicUsize::new(0), exchanged: AtomicUsize::new(0) }
    }

    /// Exchanges chunks until all are taken.
    pub fn work(&self, mut before: impl FnMut(Waiting<'_, T>), f: impl Fn(T) -> R) {
        loop {
            // Relaxed: the read-modify-write alone makes chunks unique; the items were published to this thread by
            // whatever published `self`.
            let start = self.next.fetch_add(self.chunk, Ordering::Relaxed);
            let end = start.saturating_add(self.chunk).min(self.items.len());
            if start >= end {
                return;
            }
            before(Waiting(&self.items[start..end]));
            for index in start..end {
                let item = self.items[index].with(|item| {
                    // SAFETY: the pointer comes from a cell that is alive, and the chunk is this thread's alone.
                    let item = unsafe { &*item };
                    // SAFETY: `new` filled it in, and each item of a chunk is read once.
                    unsafe { item.assume_init_read() }
                });
                let result = f(item);
                self.results[index].with_mut(|place| {
                    // SAFETY: the chunk is this thread's alone; nobody reads results before `finish`.
                    unsafe { *place = MaybeUninit::new(result) }
                });
            }
            // Relaxed: a sum; whatever ends the threads' work publishes it together with the results.
            self.exchanged.fetch_add(end - start, Ordering::Relaxed);
        }
    }

    /// The results, when nobody works any more; `None` if an item was not exchanged.
    pub fn finish(self) -> Option<Vec<R>> {
        if self.exchanged.load(Ordering::Relaxed) != self.results.len() {
            return None;
        }
        let result = |place: UnsafeCell<MaybeUninit<R>>| {
            // SAFETY: every place was filled: `exchanged` counts whole chunks, each once.
            unsafe { place.into_inner().assume_init() }
        };
        Some(self.results.into_iter().map(result).collect())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn every_item_is_exchanged_once_and_in_order() {
        for (len, chunk) in [(0, 1), (1, 16), (100, 16), (1000, 7)] {
            let exchange = Exchange::new((0..len).map(|n| n.to_string()).collect(), chunk);
            std::thread::scope(|scope| {
                (0..3).for_each(|_| drop(scope.spawn(|| exchange.work(|_| {}, |text| format!("<{text}>")))));
            });
            let expected: Vec<String> = (0..len).map(|n| format!("<{n}>")).collect();
            assert_eq!(exchange.finish(), Some(expected));
        }
    }

    #[test]
    fn a_panic_leaves_nothing_half_done() {
        let exchange = Exchange::new(vec![1, 2, 3], 2);
        let work = || exchange.work(|_| {}, |n| if n == 2 { panic!("two") } else { n });
        assert!(catch_unwind(AssertUnwindSafe(work)).is_err());
        work();
        assert_eq!(exchange.finish(), None);
    }
}
