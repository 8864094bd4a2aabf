//! Asking the processor for a cache line ahead of time.
//!
//! # Semantics
//!
//! None: nothing is read and nothing is written. The processor may fetch the line; the caller goes on at once. Where the
//! instruction is not known, nothing happens.

/// Bytes of a cache line, on most machines.
pub const CACHE_LINE: usize = 64;

/// Asks for the cache line in which `item` begins, to read it.
#[inline(always)]
pub fn prefetch<T>(item: &T) {
    let line = std::ptr::from_ref(item);
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction, and it has no effect that a program can see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    {
        // SAFETY: as above.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) line, options(nostack, preserves_flags, readonly));
        }
    }
    #[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
    let _ = line;
}

/// Asks for the cache line in which `item` begins, to write to it: other cores give it away at once, instead of when it is written
/// to.
#[inline(always)]
pub fn prefetch_to_write<T>(item: &T) {
    let line = std::ptr::from_ref(item);
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        // SAFETY: it has no effect that a program can see. Processors that do not know it take it for one that does nothing, except
        // Intel's first with 64 bits (2004, 2005), which are not supported. The compiler's own function for it asks to read, unless
        // it may rely on newer processors.
        unsafe {
            std::arch::asm!("prefetchw [{0}]", in(reg) line, options(nostack, preserves_flags, readonly));
        }
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    {
        // SAFETY: as above.
        unsafe {
            std::arch::asm!("prfm pstl1keep, [{0}]", in(reg) line, options(nostack, preserves_flags, readonly));
        }
    }
    #[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
    let _ = line;
}

/// Asks for all cache lines in which `items` begin, to read them.
#[inline]
pub fn prefetch_all<T>(items: &[T]) {
    let step = (CACHE_LINE / size_of::<T>().max(1)).max(1);
    items.iter().step_by(step).chain(items.last()).for_each(prefetch);
}
