//! An index of shared items that any thread adds to, newest first.
//!
//! # Semantics
//!
//! A fixed number of buckets, each a list that only grows at its head. [`Pending::push`] puts an item in front;
//! [`Pending::newest`] walks a bucket from its head at that moment. What was pushed before (in the sense of happens-before)
//! is found; what is pushed meanwhile may be. Items are shared for `'b`, and each lies beside its own link, so that nothing
//! is allocated. An item is pushed once: its link would lead from one list into another, which may live shorter.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr;

use crate::sync::{AtomicPtr, Ordering};

/// An item, and its link. The link is written before the item is pushed, and only read from then on. Nobody else gets at
/// it, so whatever is behind it was pushed.
#[derive(Debug)]
pub struct Linked<T> {
    item: T,
    link: AtomicPtr<Linked<T>>,
}

/// The address that stands for "not pushed"; no item lies there.
fn unlinked<T>() -> *mut T {
    ptr::without_provenance_mut(1)
}

impl<T> Linked<T> {
    /// An item that was not pushed yet.
    #[inline]
    pub fn new(item: T) -> Self {
        Linked { item, link: AtomicPtr::new(unlinked()) }
    }
}

impl<T> Deref for Linked<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.item
    }
}

impl<T> DerefMut for Linked<T> {
    /// As long as nobody shares it.
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.item
    }
}

/// The head of one bucket.
#[derive(Debug)]
pub struct Head<T>(AtomicPtr<Linked<T>>);

impl<T> Default for Head<T> {
    fn default() -> Self {
        Head(AtomicPtr::new(ptr::null_mut()))
    }
}

/// The index of one batch. A handle: copies share the buckets.
pub struct Pending<'b, T> {
    heads: &'b [Head<T>],
    /// Invariant in `'b`: items go in for `'b` and come out for `'b`.
    _items: PhantomData<fn(&'b T) -> &'b T>,
}

// SAFETY: a handle reaches atomics, and hands out `&'b Linked<T>`, which another thread put in (hence `T: Sync`).
unsafe impl<T: Sync> Send for Pending<'_, T> {}
// SAFETY: as above; a shared handle can do no more than a copy of it.
unsafe impl<T: Sync> Sync for Pending<'_, T> {}

impl<T> Clone for Pending<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Pending<'_, T> {}

impl<'b, T> Pending<'b, T> {
    /// An empty index of these buckets, a power of two of them.
    ///
    /// # Panics
    ///
    /// If their number is not a power of two.
    pub fn new(heads: &'b mut [Head<T>]) -> Self {
        assert!(heads.len().is_power_of_two(), "a bucket is chosen by the bits of a fingerprint");
        // What an earlier index left there is no item of this one.
        heads.fill_with(Head::default);
        Pending { heads, _items: PhantomData }
    }

    #[inline]
    fn head(&self, fingerprint: u64) -> &'b AtomicPtr<Linked<T>> {
        &self.heads[fingerprint as usize & (self.heads.len() - 1)].0
    }

    /// Puts `item` in front of its bucket.
    ///
    /// # Panics
    ///
    /// If it was pushed before, anywhere.
    #[inline]
    pub fn push(&self, fingerprint: u64, item: &'b Linked<T>) {
        let head = self.head(fingerprint);
        // Relaxed: the address is only stored; whoever follows it acquires through the head.
        let mut first = head.load(Ordering::Relaxed);
        let link = &item.link;
        // Relaxed: published by the exchange of the head, below. One push wins this one.
        let won = link.compare_exchange(unlinked(), first, Ordering::Relaxed, Ordering::Relaxed);
        assert!(won.is_ok(), "an item is pushed once");
        loop {
            // Release: publishes the item and its link. Later pushes are read-modify-writes and continue this release
            // sequence, so a walk that acquires a later head sees this item, too.
            let ours = ptr::from_ref(item).cast_mut();
            match head.compare_exchange_weak(first, ours, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => {
                    first = now;
                    // Relaxed: as above.
                    link.store(first, Ordering::Relaxed);
                }
            }
        }
    }

    /// The items of a bucket, the newest first.
    #[inline]
    pub fn newest(&self, fingerprint: u64) -> impl Iterator<Item = &'b Linked<T>> {
        // Acquire: pairs with `push`.
        let mut next = self.head(fingerprint).load(Ordering::Acquire);
        std::iter::from_fn(move || {
            // SAFETY: null, or made by `push` from a `&'b Linked<T>` (and never
            // `unlinked`: `push` gives an item a link before anybody finds it); the items behind the head are published by it, see `push`.
            let item: &'b Linked<T> = unsafe { next.as_ref() }?;
            // Relaxed: written before the item was pushed, which this thread has acquired.
            next = item.link.load(Ordering::Relaxed);
            Some(item)
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_newest_comes_first_and_buckets_are_apart() {
        let items: Vec<Linked<u64>> = (0..6).map(Linked::new).collect();
        let mut heads: [Head<u64>; 2] = Default::default();
        let pending = Pending::new(&mut heads);
        assert_eq!(pending.newest(0).count(), 0);
        for item in &items {
            pending.push(**item, item);
        }
        let numbers = |bucket| pending.newest(bucket).map(|item| **item).collect::<Vec<_>>();
        assert_eq!((numbers(0), numbers(1)), (vec![4, 2, 0], vec![5, 3, 1]));
    }

    #[test]
    #[should_panic(expected = "pushed once")]
    fn an_item_is_pushed_once() {
        let item = Linked::new(0);
        let mut heads: [[Head<u64>; 1]; 2] = Default::default();
        for heads in &mut heads {
            Pending::new(heads).push(0, &item);
        }
    }
}
