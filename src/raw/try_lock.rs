//! A lock that nobody waits for: one gets it at once or does something else.
//!
//! # Semantics
//!
//! Mutual exclusion, Acquire on success and Release on unlock, as any lock. A failed attempt promises nothing: whoever
//! must not miss work needs a protocol of its own around it (`retire.rs`).

use std::ops::{Deref, DerefMut};

use crate::sync::{AtomicBool, MutPtr, Ordering, UnsafeCell};

/// See the module's documentation.
pub struct TryLock<T> {
    locked: AtomicBool,
    data: UnsafeCell<T>,
}

// SAFETY: the lock gives `&mut T` to one thread at a time, one after the other, which `T: Send` allows.
unsafe impl<T: Send> Sync for TryLock<T> {}

/// The lock's data while it is held; unlocks when dropped, also by a panic.
pub struct Guard<'a, T> {
    /// Goes before the lock is released: models see in it how long the data is in use.
    data: MutPtr<T>,
    _held: Held<'a>,
}

/// The lock while it is held.
struct Held<'a>(&'a AtomicBool);

impl<T> TryLock<T> {
    /// An unlocked lock.
    pub fn new(data: T) -> Self {
        TryLock { locked: AtomicBool::new(false), data: UnsafeCell::new(data) }
    }

    /// The lock, if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        // Relaxed first: a held lock is the common case under load, and reading does not take its cache line away.
        if self.locked.load(Ordering::Relaxed) {
            return None;
        }
        // Acquire: pairs with the unlock, so that what the last holder did is visible. An exchange that fails writes
        // nothing, so it cannot come between the holder and its unlock.
        self.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).ok()?;
        let held = Held(&self.locked);
        Some(Guard { data: self.data.get_mut(), _held: held })
    }

    /// The data, when nobody can hold the lock.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.data.with(|data| {
            // SAFETY: the lock is held by this guard, and the guard is borrowed.
            unsafe { &*data }
        })
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.data.with(|data| {
            // SAFETY: the lock is held by this guard, and the guard is borrowed mutably.
            unsafe { &mut *data }
        })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Release: pairs with the swap in `try_lock`.
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn held_once_and_free_after_a_panic() {
        let lock = TryLock::new(1);
        let guard = lock.try_lock().expect("free");
        assert!(lock.try_lock().is_none());
        drop(guard);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            *lock.try_lock().expect("free") = 2;
            let _guard = lock.try_lock();
            panic!("while held");
        }));
        assert!(panicked.is_err());
        assert_eq!(*lock.try_lock().expect("free again"), 2);
        assert_eq!(lock.into_inner(), 2);
    }
}
