//! An allocator that counts what it is asked for, while somebody wants to know.
//!
//! Everything else is mimalloc's. Without a count under way the price is one load of a flag that nobody writes: the
//! ways of execution that allocate much must not pay for a shared counter while they are timed.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mimalloc::MiMalloc;

/// The allocator.
pub struct Counting;

static ENABLED: AtomicBool = AtomicBool::new(false);
static CALLS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// What was asked of the heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    /// Allocations, and changes of size.
    pub calls: u64,
    /// Bytes asked for.
    pub bytes: u64,
}

/// Counts what all threads allocate while `work` runs. One count at a time.
pub fn count<R>(work: impl FnOnce() -> R) -> (R, Allocations) {
    let now = || Allocations { calls: CALLS.load(Ordering::SeqCst), bytes: BYTES.load(Ordering::SeqCst) };
    let before = now();
    ENABLED.store(true, Ordering::SeqCst);
    let result = work();
    ENABLED.store(false, Ordering::SeqCst);
    let after = now();
    (result, Allocations { calls: after.calls - before.calls, bytes: after.bytes - before.bytes })
}

#[inline]
fn note(size: usize) {
    // Relaxed: statistics; whoever reads them has waited for the threads that count.
    if ENABLED.load(Ordering::Relaxed) {
        CALLS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(size as u64, Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on to mimalloc unchanged.
unsafe impl GlobalAlloc for Counting {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's duties are mimalloc's.
        unsafe { MiMalloc.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as above.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(at, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above.
        unsafe { MiMalloc.realloc(at, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_counted() {
        let (kept, counted) = count(|| vec![0u8; 1000]);
        assert!(counted.calls >= 1 && counted.bytes >= 1000, "{counted:?}");
        drop(kept);
    }
}
