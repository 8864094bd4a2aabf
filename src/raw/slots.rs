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

/// The words of up to eight positions: one cache line.
#[repr(align(64))]
pub struct Line<T> {
    words: [AtomicPtr<T>; 8],
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Line { words: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())) }
    }
}

/// What results are to the borrow checker: moved, and for exactly `'a`.
type Results<'a, T> = (&'a mut T, fn(&'a ()) -> &'a ());

/// The words of a batch's positions.
///
/// Positions that a thread takes together share lines, and where they are a power of two up to eight, no others do.
pub struct Slots<'a, T> {
    lines: &'a [Line<T>],
    len: usize,
    /// Logarithm of the number of positions on a line.
    shift: u32,
    /// Invariant in `'a`: results go in for `'a` and come out for `'a`.
    _results: PhantomData<Results<'a, T>>,
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
    _results: PhantomData<Results<'a, T>>,
}

/// The address that stands for CLAIMED; no result lies there.
fn claimed<T>() -> *mut T {
    ptr::without_provenance_mut(1)
}

fn shift(chunk: usize) -> u32 {
    chunk.clamp(1, 8).ilog2()
}

impl<'a, T> Slots<'a, T> {
    /// How many lines `len` positions need, of which threads take `chunk` at once.
    pub fn lines(len: usize, chunk: usize) -> usize {
        len.div_ceil(1 << shift(chunk))
    }

    /// Slots for `len` positions, of which threads take `chunk` at once, all IDLE.
    ///
    /// # Panics
    ///
    /// If there are fewer than [`lines`](Slots::lines), or `T` could lie at address 1 (alignment 1).
    pub fn new(lines: &'a mut [Line<T>], len: usize, chunk: usize) -> Self {
        assert!(align_of::<T>() > 1, "address 1 must not be a result's");
        assert!(lines.len() >= Self::lines(len, chunk), "a word for each position");
        // What an earlier batch left there is no result of this one.
        lines.fill_with(Line::default);
        Slots { lines, len, shift: shift(chunk), _results: PhantomData }
    }

    #[inline]
    fn word(&self, position: usize) -> &'a AtomicPtr<T> {
        &self.lines[position >> self.shift].words[position & ((1 << self.shift) - 1)]
    }

    /// Number of positions.
    pub fn positions(&self) -> usize {
        self.len
    }

    /// Claims `position` if nobody has.
    #[inline]
    pub fn claim(&self, position: usize) -> Option<Claim<'_, 'a, T>> {
        let word = self.word(position);
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
        let word = self.word(position).load(Ordering::Relaxed);
        !word.is_null() && word != claimed()
    }

    /// True if nobody has started `position`.
    #[inline]
    pub fn is_idle(&self, position: usize) -> bool {
        // Relaxed: a hint; `claim` decides.
        self.word(position).load(Ordering::Relaxed).is_null()
    }

    /// Takes the result of `position`, if there is one.
    #[inline]
    pub fn take_done(&self, position: usize) -> Option<(&'a mut T, Claim<'_, 'a, T>)> {
        match self.is_done(position).then(|| self.take(position))? {
            Found::Done(result, claim) => Some((result, claim)),
            // A result does not become idle again.
            Found::Idle(_) | Found::Claimed => None,
        }
    }

    /// Takes the result of `position` if there is one, or claims it if nobody has started it.
    #[inline]
    pub fn take(&self, position: usize) -> Found<'_, 'a, T> {
        let word = self.word(position);
        // Relaxed: leaves the word's cache line to the thread that is running the unit. A result that arrives right after
        // this load is found by the caller's re-check (`retire.rs`, step R4).
        let seen = word.load(Ordering::Relaxed);
        if seen == claimed() {
            return Found::Claimed;
        }
        // Acquire: pairs with `finish`, so that the result and all it refers to are visible. It fails only if somebody
        // has claimed the position since.
        let Ok(seen) = word.compare_exchange(seen, claimed(), Ordering::Acquire, Ordering::Relaxed) else {
            return Found::Claimed;
        };
        let claim = Claim { word, _results: PhantomData };
        if seen.is_null() {
            return Found::Idle(claim);
        }
        // SAFETY: `seen` was made from a `&'a mut T` by `finish`, and the exchange took it out, so this is the only
        // reference to it.
        let result = unsafe { &mut *seen };
        Found::Done(result, claim)
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
        let mut lines = [Line::default()];
        let mut result = 7u64;
        let slots = Slots::new(&mut lines, 2, 3);
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

    #[test]
    fn every_position_has_a_word_of_its_own() {
        for chunk in [1, 2, 3, 4, 7, 8, 31] {
            for len in [1, 7, 8, 9, 100] {
                let mut lines: Vec<Line<u64>> = Vec::new();
                lines.resize_with(Slots::<u64>::lines(len, chunk), Line::default);
                let slots = Slots::new(&mut lines, len, chunk);
                assert!((0..len).all(|position| slots.claim(position).is_some()));
                assert!((0..len).all(|position| slots.claim(position).is_none()));
            }
        }
    }
}
