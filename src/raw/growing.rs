//! A vector in an arena.
//!
//! # Semantics
//!
//! As a `Vec` of `Copy` items. Room that is not used yet is not touched either: it may lie in another core's cache.

use std::mem::MaybeUninit;
use std::slice;

use super::arena::Arena;

/// Room that one that had none begins with.
const LEAST: usize = 64;

/// See the module's documentation.
pub struct Growing<'b, T> {
    items: &'b mut [MaybeUninit<T>],
    /// So many of the items are there.
    len: usize,
}

impl<'b, T: Copy> Growing<'b, T> {
    /// An empty one with room for `capacity` items.
    pub fn with_capacity(arena: &Arena<'b>, capacity: usize) -> Self {
        Growing { items: arena.fill(capacity, |_| MaybeUninit::uninit()), len: 0 }
    }

    /// Appends an item; if there is no room, moves all to a place of twice the size.
    #[inline]
    pub fn push(&mut self, arena: &Arena<'b>, item: T) {
        if self.len == self.items.len() {
            self.grow(arena);
        }
        self.items[self.len] = MaybeUninit::new(item);
        self.len += 1;
    }

    #[cold]
    fn grow(&mut self, arena: &Arena<'b>) {
        let more = arena.fill((self.items.len() * 2).max(LEAST), |_| MaybeUninit::uninit());
        more[..self.len].copy_from_slice(&self.items[..self.len]);
        self.items = more;
    }

    /// Replaces the item at `index`.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[inline]
    pub fn set(&mut self, index: usize, item: T) {
        self.items[..self.len][index] = MaybeUninit::new(item);
    }

    /// The items.
    #[inline]
    pub fn as_slice(&self) -> &[T] {
        let items = &self.items[..self.len];
        // SAFETY: `MaybeUninit<T>` is laid out as `T`, and the first `len` items are there: `push` fills the next one before it
        // counts it, `grow` copies all that are counted, and `set` replaces one by another.
        unsafe { slice::from_raw_parts(items.as_ptr().cast(), items.len()) }
    }

    /// The items, for as long as the arena.
    pub fn into_slice(self) -> &'b [T] {
        let items = &self.items[..self.len];
        // SAFETY: as in `as_slice`.
        unsafe { slice::from_raw_parts(items.as_ptr().cast(), items.len()) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use bumpalo::Bump;

    #[test]
    fn it_holds_what_was_pushed_and_set_last() {
        let mut bump = Bump::new();
        let arena = Arena::new(&mut bump);
        for capacity in [0, 1, 100, 5000] {
            let mut growing = Growing::with_capacity(&arena, capacity);
            assert!(growing.as_slice().is_empty());
            for number in 0..1000_u32 {
                growing.push(&arena, number);
                growing.set(number as usize / 2, number);
            }
            let last = |index: u32| if index < 500 { 2 * index + 1 } else { index };
            assert!(growing.as_slice().iter().copied().eq((0..1000).map(last)));
            assert_eq!(growing.into_slice().len(), 1000);
        }
    }

    #[test]
    #[should_panic(expected = "out of bounds")]
    fn what_is_not_there_is_not_set() {
        let mut bump = Bump::new();
        let arena = Arena::new(&mut bump);
        let mut growing = Growing::with_capacity(&arena, 8);
        growing.push(&arena, 1);
        growing.set(1, 2);
    }
}
