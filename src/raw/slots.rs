//! One word per position: from "nobody has started it" to a result that exactly one thread takes.
//!
//! # Semantics
//!
//! ```text
//! IDLE --claim--> CLAIMED --finish(&mut T)--> DONE(&mut T) --take, reopen--> CLAIMED
//! ```
//!
//! `claim` succeeds for one thread. The result is then taken out by one thread at a time: by [`Slots::reopen`], which any thread may
//! call and which ends by `finish` again, or by [`Taker::take`], for good. So a `&mut T` put in by `finish` is moved, not shared.
//! Dropping the slots leaves the results where they are, in their arena.
//!
//! There is one [`Taker`], and whoever has it is the only one to take. So it takes a result by a load and a store, unless units
//! are reopened in this batch: an exchange would wait, at each unit, until all that was stored before it is in the cache, also
//! what another thread's cache has to give away first.

use std::marker::PhantomData;
use std::ptr;

use super::arena::Arena;
use crate::sync::{AtomicPtr, Ordering};

/// The words of up to eight positions: one cache line.
#[repr(align(64))]
struct Line<T> {
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
struct Words<'a, T> {
    lines: &'a [Line<T>],
    /// Logarithm of the number of positions on a line.
    shift: u32,
    /// Results may be reopened.
    reopens: bool,
    /// Invariant in `'a`: results go in for `'a` and come out for `'a`.
    _results: PhantomData<Results<'a, T>>,
}

impl<T> Clone for Words<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Words<'_, T> {}

impl<'a, T> Words<'a, T> {
    #[inline]
    fn of(self, position: usize) -> &'a AtomicPtr<T> {
        &self.lines[position >> self.shift].words[position & ((1 << self.shift) - 1)]
    }
}

/// The slots of a batch, for all threads.
pub struct Slots<'a, T> {
    words: Words<'a, T>,
    len: usize,
}

// SAFETY: a slot moves a `&'a mut T` from one thread to another, which `T: Send` allows; nothing is shared.
unsafe impl<T: Send> Sync for Slots<'_, T> {}

/// The right to take results for good. There is one per batch's slots, and it is not `Clone`.
pub struct Taker<'a, T> {
    words: Words<'a, T>,
}

/// What was found in a slot.
pub enum Found<'a, T> {
    /// Nobody had started it; now this thread has.
    Idle,
    /// Somebody is running it, or has taken it.
    Claimed,
    /// It was run; the result is this thread's now.
    Done(&'a mut T),
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

/// Slots for `len` positions, of which threads take `chunk` at once, all IDLE. Units can be reopened only if
/// `reopens`.
///
/// # Panics
///
/// If `T` could lie at address 1 (alignment 1).
pub fn slots<'a, T>(
    arena: &Arena<'a>,
    len: usize,
    chunk: usize,
    reopens: bool,
) -> (Slots<'a, T>, Taker<'a, T>) {
    assert!(align_of::<T>() > 1, "address 1 must not be a result's");
    let shift = chunk.clamp(1, 8).ilog2();
    let lines = arena.fill(len.div_ceil(1 << shift), |_| Line::default());
    let words = Words { lines, shift, reopens, _results: PhantomData };
    (Slots { words, len }, Taker { words })
}

impl<'a, T> Slots<'a, T> {
    /// Number of positions.
    pub fn positions(&self) -> usize {
        self.len
    }

    /// Claims `position` if nobody has.
    #[inline]
    pub fn claim(&self, position: usize) -> Option<Claim<'_, 'a, T>> {
        let word = self.words.of(position);
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
        let word = self.words.of(position).load(Ordering::Relaxed);
        !word.is_null() && word != claimed()
    }

    /// True if nobody has started `position`.
    #[inline]
    pub fn is_idle(&self, position: usize) -> bool {
        // Relaxed: a hint; `claim` decides.
        self.words.of(position).load(Ordering::Relaxed).is_null()
    }

    /// Takes the result of `position` to give it back by the claim; nothing if there is none, or if units are not reopened.
    #[inline]
    pub fn reopen(&self, position: usize) -> Option<(&'a mut T, Claim<'_, 'a, T>)> {
        if !self.words.reopens {
            return None;
        }
        let word = self.words.of(position);
        // Relaxed: a hint; the exchange decides.
        let seen = word.load(Ordering::Relaxed);
        if seen.is_null() || seen == claimed() {
            return None;
        }
        // Acquire: pairs with `finish`, so that the result and all it refers to are visible. It fails if somebody has taken the
        // result since.
        let taken = word.compare_exchange(seen, claimed(), Ordering::Acquire, Ordering::Relaxed).ok()?;
        // SAFETY: `taken` was made from a `&'a mut T` by `finish`, and the exchange took it out. The taker takes by exchange, too,
        // as units are reopened; so this is the only reference to it.
        let result = unsafe { &mut *taken };
        Some((result, Claim { word, _results: PhantomData }))
    }
}

impl<'a, T> Taker<'a, T> {
    /// Takes the result of `position` if there is one, or claims it if nobody has started it. Nobody finishes such a claim.
    #[inline]
    pub fn take(&mut self, position: usize) -> Found<'a, T> {
        let word = self.words.of(position);
        // Acquire: pairs with `finish`, so that the result and all it refers to are visible. A load leaves the word's cache line to
        // the thread that is running the unit. A result that arrives right after it is found by the caller's re-check (`retire.rs`,
        // step R4).
        let seen = word.load(Ordering::Acquire);
        if seen == claimed() {
            return Found::Claimed;
        }
        let taken = if seen.is_null() || self.words.reopens {
            // Others may claim the position, or reopen the unit. Acquire: as above; it may have been given back since.
            match word.compare_exchange(seen, claimed(), Ordering::Acquire, Ordering::Relaxed) {
                Ok(taken) => taken,
                Err(_) => return Found::Claimed,
            }
        } else {
            // Relaxed: only the taker's holders change the word of a finished unit, and whatever hands the taker on orders them.
            word.store(claimed(), Ordering::Relaxed);
            seen
        };
        if taken.is_null() {
            return Found::Idle;
        }
        // SAFETY: `taken` was made from a `&'a mut T` by `finish`, which only a claim's holder calls, and there is no claim of a
        // finished unit: it is reopened by exchange, or not at all. Now it was taken out, by exchange if units are reopened,
        // otherwise by the only taker; so this is the only reference to it.
        Found::Done(unsafe { &mut *taken })
    }
}

impl<'a, T> Claim<'_, 'a, T> {
    /// Hands the result to whoever takes it.
    #[inline]
    pub fn finish(self, result: &'a mut T) {
        // Release: publishes the result to `take` and `reopen`.
        self.word.store(ptr::from_mut(result), Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use bumpalo::Bump;

    #[test]
    fn a_position_is_claimed_once_and_its_result_taken_once() {
        for reopens in [false, true] {
            let mut bump = Bump::new();
            let mut result = 7u64;
            let (slots, mut taker) = slots(&Arena::new(&mut bump), 2, 3, reopens);
            let claim = slots.claim(0).expect("idle");
            assert!(slots.claim(0).is_none() && slots.reopen(0).is_none());
            assert!(matches!(taker.take(0), Found::Claimed));
            assert!(!slots.is_done(0));
            claim.finish(&mut result);
            assert!(slots.is_done(0) && slots.claim(0).is_none());
            if let Some((reopened, claim)) = slots.reopen(0) {
                assert!(reopens && matches!(taker.take(0), Found::Claimed));
                claim.finish(reopened);
            }
            let Found::Done(taken) = taker.take(0) else { panic!("done") };
            assert_eq!(*taken, 7);
            assert!(matches!(taker.take(0), Found::Claimed));
            assert!(matches!(taker.take(1), Found::Idle));
            assert!(slots.claim(1).is_none());
        }
    }

    #[test]
    fn every_position_has_a_word_of_its_own() {
        for chunk in [1, 2, 3, 4, 7, 8, 31] {
            for len in [1, 7, 8, 9, 100] {
                let mut bump = Bump::new();
                let (slots, _) = slots::<u64>(&Arena::new(&mut bump), len, chunk, false);
                assert!((0..len).all(|position| slots.claim(position).is_some()));
                assert!((0..len).all(|position| slots.claim(position).is_none()));
            }
        }
    }
}
