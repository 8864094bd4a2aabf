//! A handle to a bump arena that may travel with the unit that allocates in it.
//!
//! # Semantics
//!
//! `&Bump` cannot be sent to another thread, because two threads might allocate at once. An [`Arena`] is the *only*
//! handle to its bump arena for `'b`: it is made from a `&mut`, and it is not `Clone`. So it may be sent. What is
//! allocated lives for `'b` and is not dropped.

use bumpalo::Bump;

/// The only handle to a bump arena for `'b`.
pub struct Arena<'b> {
    bump: &'b Bump,
}

// SAFETY: `new` borrows the arena mutably for 'b and the handle is not `Clone`, so whichever thread holds the handle is
// the only one that can reach the arena.
unsafe impl Send for Arena<'_> {}

impl<'b> Arena<'b> {
    /// The handle to `bump`.
    pub fn new(bump: &'b mut Bump) -> Self {
        Arena { bump }
    }

    /// Moves `value` into the arena.
    #[inline]
    pub fn alloc<T>(&self, value: T) -> &'b mut T {
        self.bump.alloc(value)
    }

    /// Makes a value in the arena, where it stays.
    #[inline(always)]
    pub fn alloc_with<T>(&self, make: impl FnOnce() -> T) -> &'b mut T {
        self.bump.alloc_with(make)
    }

    /// Makes a default value in the arena, where it stays.
    #[inline(always)]
    pub fn alloc_default<T: Default>(&self) -> &'b mut T {
        self.bump.alloc_with(T::default)
    }

    /// Copies `items` into the arena.
    #[inline]
    pub fn copy<T: Copy>(&self, items: &[T]) -> &'b mut [T] {
        self.bump.alloc_slice_copy(items)
    }

    /// Copies `text` into the arena.
    #[inline]
    pub fn copy_str(&self, text: &str) -> &'b str {
        self.bump.alloc_str(text)
    }

    /// `len` items, made by `item` from their indexes.
    #[inline]
    pub fn fill<T>(&self, len: usize, item: impl FnMut(usize) -> T) -> &'b mut [T] {
        self.bump.alloc_slice_fill_with(len, item)
    }
}
