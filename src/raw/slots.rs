//! One word per position: from "nobody has started it" to a result that exactly one thread takes.
//!
//! # Semantics
//!
//! ```text
//! IDLE --claim--> CLAIMED --finish(&mut T)--> DONE(&mut T) --take--> CLAIMED
//! ```
//!
//! `claim` and `take` succeed for one thread each; a claim ends by `finish`, or stays for ever (the result was used on
//! the spot). A `&mut T` put in by `finish` comes out of one `take`, so it is moved, not shared. Dropping the slots
//! leaves the results where they are, in their arena.

use std::marker::PhantomData;
use std::ptr;

use crate::sync::{AtomicPtr, Ordering};

/// The words of a batch's positions.
pub struct Slots<'a, T> {
    words: &'a [AtomicPtr<T>],
    _results: PhantomData<&'a mut T>,
}

// SAFETY: a slot moves a `&'a mut T` from one thread to another, which `T: Send` allows; nothing is shared.
unsafe impl<T: Send> Sync for Slots<'_, T> {}

/// What was found in a slot.
pub enum Found<'s, 'a, T> {
    /// Nobody had started it; now this thread has.
    Idle(Claim<'s, 'a, T>),
    /// Somebody is running it, or has taken it.
    Claimed,
    /// It was run; the result is this thread's now, and so is the claim.
    Done(&'a mut T, Claim<'s, 'a, T>),
}

/// The right to finish one position. Not `Clone`.
pub struct Claim<'s, 'a, T> {
    word: &'s AtomicPtr<T>,
    _results: PhantomData<&'a mut T>,
}

/// The address that stands for CLAIMED; no result lies there.
fn claimed<T>() -> *mut T {
    ptr::without_provenance_mut(1)
}

impl<'a, T> Slots<'a, T> {
    /// Slots over `words`, all IDLE.
    ///
    /// # Panics
    ///
    /// If `T` could lie at address 1 (alignment 1), or a word is not null.
    pub fn new(words: &'a mut [AtomicPtr<T>]) -> Self {
        assert!(align_of::<T>() > 1, "address 1 must not be a result's");
        debug_assert!(words.iter().all(|word| word.load(Ordering::Relaxed).is_null()));
        Slots { words, _results: PhantomData }
    }

    /// Number of positions.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Claims `position` if nobody has.
    #[inline]
    pub fn claim(&self, position: usize) -> Option<Claim<'_, 'a, T>> {
        let word = &self.words[position];
        // Relaxed: a claim carries no data; uniqueness is the exchange's. The unit's inputs were published by the
        // gate (request, state) and by the frontier (overlay).
        word.compare_exchange(ptr::null_mut(), claimed(), Ordering::Relaxed, Ordering::Relaxed)
            .ok()
            .map(|_| Claim { word, _results: PhantomData })
    }

    /// True if `position` holds a result.
    #[inline]
    pub fn is_done(&self, position: usize) -> bool {
        // Relaxed: ordered by the caller's fence (`retire.rs`, step R4); `take` loads again.
        let word = self.words[position].load(Ordering::Relaxed);
        !word.is_null() && word != claimed()
    }

    /// Takes the result of `position` if there is one, or claims it if nobody has started it.
    #[inline]
    pub fn take(&self, position: usize) -> Found<'_, 'a, T> {
        let word = &self.words[position];
        // Relaxed: leaves the word's cache line to the thread that is running the unit; a result that arrives right
        // after this load is found by the caller's re-check (`retire.rs`, step R4).
        if word.load(Ordering::Relaxed) == claimed() {
            return Found::Claimed;
        }
        // Acquire: pairs with `finish`, so that the result and all it refers to are visible.
        match word.swap(claimed(), Ordering::Acquire) {
            seen if seen.is_null() => Found::Idle(Claim { word, _results: PhantomData }),
            seen if seen == claimed() => Found::Claimed,
            seen => {
                // SAFETY: `seen` was made from a `&'a mut T` by `finish`, and the swap took it out, so this is the
                // only reference to it.
                let result = unsafe { &mut *seen };
                Found::Done(result, Claim { word, _results: PhantomData })
            }
        }
    }
}

impl<'a, T> Claim<'_, 'a, T> {
    /// Hands the result to whoever takes it.
    #[inline]
    pub fn finish(self, result: &'a mut T) {
        // Release: publishes the result to `take`.
        self.word.store(ptr::from_mut(result), Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_claimed_once_and_its_result_taken_once() {
        let mut words = [AtomicPtr::new(ptr::null_mut()), AtomicPtr::new(ptr::null_mut())];
        let mut result = 7u64;
        let slots = Slots::new(&mut words);
        let claim = slots.claim(0).expect("idle");
        assert!(slots.claim(0).is_none());
        assert!(matches!(slots.take(0), Found::Claimed));
        assert!(!slots.is_done(0));
        claim.finish(&mut result);
        assert!(slots.is_done(0));
        assert!(slots.claim(0).is_none());
        let Found::Done(taken, _claim) = slots.take(0) else { panic!("done") };
        assert_eq!(*taken, 7);
        assert!(matches!(slots.take(0), Found::Claimed));
        assert!(matches!(slots.take(1), Found::Idle(_)));
        assert!(slots.claim(1).is_none());
    }
}
