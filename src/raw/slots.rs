//! One word per position: from "nobody has started it" to a result that exactly one thread takes.
//!
//! # Semantics
//!
//! ```text
//! IDLE --claim--> CLAIMED --finish(&mut T)--> DONE(&mut T) --take--> CLAIMED
//! ```
//!
//! `claim` succeeds for one thread; a claim ends by `finish`, or stays for ever (the result was used on the spot). `take`
//! is the right of whoever holds the one [`Taker`], so it needs no exchange where there is a result: a `&mut T` put in by
//! `finish` comes out of one `take`, it is moved, not shared. Dropping the slots leaves the results where they are, in
//! their arena.

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

/// The words of a batch's positions. A handle: copies share the words.
///
/// Positions that a thread takes together share a line, and up to eight, no others do.
pub struct Slots<'a, T> {
    lines: &'a [Line<T>],
    len: usize,
    /// Logarithm of the number of positions on a line.
    shift: u32,
    _results: PhantomData<&'a mut T>,
}

// SAFETY: a slot moves a `&'a mut T` from one thread to another, which `T: Send` allows; nothing is shared.
unsafe impl<T: Send> Sync for Slots<'_, T> {}
// SAFETY: as above; a handle owns nothing.
unsafe impl<T: Send> Send for Slots<'_, T> {}

/// The right to take results. There is one per [`Slots`], and it is not `Clone`.
pub struct Taker<'a, T> {
    slots: Slots<'a, T>,
}

/// What was found in a slot.
pub enum Found<'a, T> {
    /// Nobody had started it; now this thread has.
    Idle(Claim<'a, T>),
    /// Somebody is running it, or has taken it.
    Claimed,
    /// It was run; the result is this thread's now, and so is the claim.
    Done(&'a mut T, Claim<'a, T>),
}

/// The right to finish one position. Not `Clone`.
pub struct Claim<'a, T> {
    word: &'a AtomicPtr<T>,
    _results: PhantomData<&'a mut T>,
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
    pub fn new(lines: &'a mut [Line<T>], len: usize, chunk: usize) -> (Self, Taker<'a, T>) {
        assert!(align_of::<T>() > 1, "address 1 must not be a result's");
        assert!(lines.len() >= Self::lines(len, chunk), "a word for each position");
        let slots = |lines| Slots { lines, len, shift: shift(chunk), _results: PhantomData };
        let lines = &*lines;
        (slots(lines), Taker { slots: slots(lines) })
    }

    fn word(&self, position: usize) -> &'a AtomicPtr<T> {
        &self.lines[position >> self.shift].words[position & ((1 << self.shift) - 1)]
    }

    /// Number of positions.
    pub fn positions(&self) -> usize {
        self.len
    }

    /// Claims `position` if nobody has.
    #[inline]
    pub fn claim(&self, position: usize) -> Option<Claim<'a, T>> {
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
}

impl<'a, T> Taker<'a, T> {
    /// Takes the result of `position` if there is one, or claims it if nobody has started it.
    #[inline]
    pub fn take(&mut self, position: usize) -> Found<'a, T> {
        let word = self.slots.word(position);
        // Acquire: pairs with `finish`, so that the result and all it refers to are visible. A result that arrives right
        // after this load is found by the caller's re-check (`retire.rs`, step R4).
        let seen = word.load(Ordering::Acquire);
        if seen == claimed() {
            return Found::Claimed;
        }
        if seen.is_null() {
            return match self.slots.claim(position) {
                Some(claim) => Found::Idle(claim),
                None => Found::Claimed,
            };
        }
        // Relaxed: nobody but the one taker touches a word that holds a result, and what it took carries no data for
        // others.
        word.store(claimed(), Ordering::Relaxed);
        // SAFETY: `seen` was made from a `&'a mut T` by `finish`, and only this taker takes results out, each once, so
        // this is the only reference to it.
        let result = unsafe { &mut *seen };
        Found::Done(result, Claim { word, _results: PhantomData })
    }
}

impl<'a, T> Claim<'a, T> {
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
        let (slots, mut taker) = Slots::new(&mut lines, 2, 3);
        let claim = slots.claim(0).expect("idle");
        assert!(slots.claim(0).is_none());
        assert!(matches!(taker.take(0), Found::Claimed));
        assert!(!slots.is_done(0));
        claim.finish(&mut result);
        assert!(slots.is_done(0));
        assert!(slots.claim(0).is_none());
        let Found::Done(taken, _claim) = taker.take(0) else { panic!("done") };
        assert_eq!(*taken, 7);
        assert!(matches!(taker.take(0), Found::Claimed));
        assert!(matches!(taker.take(1), Found::Idle(_)));
        assert!(slots.claim(1).is_none());
    }

    #[test]
    fn every_position_has_a_word_of_its_own() {
        for chunk in [1, 2, 3, 4, 7, 8, 31] {
            for len in [1, 7, 8, 9, 100] {
                let mut lines: Vec<Line<u64>> = Vec::new();
                lines.resize_with(Slots::<u64>::lines(len, chunk), Line::default);
                let (slots, _taker) = Slots::new(&mut lines, len, chunk);
                assert!((0..len).all(|position| slots.claim(position).is_some()));
                assert!((0..len).all(|position| slots.claim(position).is_none()));
            }
        }
    }
}
