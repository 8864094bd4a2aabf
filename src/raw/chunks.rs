//! A mutable slice that several threads take apart, chunk by chunk.
//!
//! # Semantics
//!
//! Each chunk is handed out once, in ascending order, as `&mut`.

use std::marker::PhantomData;

use crate::sync::{AtomicUsize, Ordering};

/// See the module's documentation.
pub struct Chunks<'a, T> {
    items: *mut T,
    len: usize,
    chunk: usize,
    next: AtomicUsize,
    _items: PhantomData<&'a mut [T]>,
}

// SAFETY: a `Chunks` only ever moves `&mut T` of disjoint items to the thread that asks, which `T: Send` allows.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

impl<'a, T> Chunks<'a, T> {
    /// Takes `items` apart into chunks of `chunk` items; the last may be shorter.
    ///
    /// # Panics
    ///
    /// If `chunk` is zero.
    pub fn new(items: &'a mut [T], chunk: usize) -> Self {
        assert!(chunk > 0, "a chunk holds at least one item");
        Chunks {
            items: items.as_mut_ptr(),
            len: items.len(),
            chunk,
            next: AtomicUsize::new(0),
            _items: PhantomData,
        }
    }

    /// The next chunk and the index of its first item, or `None` when all are taken.
    pub fn next(&self) -> Option<(usize, &'a mut [T])> {
        // Relaxed: a hint. Who finds all taken does not count, so the count exceeds the number of chunks by at most the
        // number of threads that ask at once, and never comes around to an index that was handed out.
        if self.next.load(Ordering::Relaxed) >= self.len.div_ceil(self.chunk) {
            return None;
        }
        // Relaxed: the read-modify-write alone makes indexes unique; the items were published to this thread by
        // whatever published `self`.
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let start = index.checked_mul(self.chunk).filter(|&start| start < self.len)?;
        let len = self.chunk.min(self.len - start);
        // SAFETY: `start < self.len`, so the pointer stays inside the slice that `new` borrowed.
        let first = unsafe { self.items.add(start) };
        // SAFETY: `index` is unique, so no other chunk overlaps `start..start + len`; the slice stays borrowed for 'a.
        let items = unsafe { std::slice::from_raw_parts_mut(first, len) };
        Some((start, items))
    }
}
