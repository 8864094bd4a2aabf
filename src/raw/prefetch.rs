//! Asking the processor for a cache line ahead of time.
//!
//! # Semantics
//!
//! None: nothing is read and nothing is written. The processor may fetch the line; the caller goes on at once. Where the
//! instruction is not known, nothing happens.

/// Asks for the cache line in which `item` begins.
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
