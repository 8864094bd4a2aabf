//! The moment that a unit sees: the state after so many operations of its batch.
//!
//! A unit begins at the frontier, or a little behind it. Where it comes to a key that was written since, it could only fail:
//! whatever it reads there is not what it would read at its turn. But if nothing that it has observed so far was written in
//! between, it might as well have begun at the frontier of now; then it goes on as if it had. (Known from transactional
//! memories as the lazy snapshot algorithm: Riegel, Felber, Fetzer, DISC 2006.)

use super::Versions;
use super::reads::ReadSet;
use super::set::Fingerprinted;
use crate::sync::{Cell, RefCell};

/// How often a unit moves on: each time, all that it has observed is looked at.
const MOVES: u32 = 16;

/// The moment that one unit sees.
pub struct Moment<'u> {
    at: Cell<u32>,
    /// The same, for retirement.
    outcome: RefCell<&'u mut u32>,
    /// How often it may still move on.
    moves: Cell<u32>,
}

impl<'u> Moment<'u> {
    /// The state after `snapshot` operations; where it is in the end is left in `outcome`.
    #[inline]
    pub fn new(snapshot: u32, outcome: &'u mut u32) -> Self {
        *outcome = snapshot;
        Moment { at: Cell::new(snapshot), outcome: RefCell::new(outcome), moves: Cell::new(MOVES) }
    }

    /// The state after so many operations.
    #[inline(always)]
    pub fn get(&self) -> u32 {
        self.at.get()
    }

    /// Moves on to the newest moment, at most to that of `position`, if what was observed is the same there; true if it did.
    /// If it is not the same, the unit will be replayed, and stays where it is.
    #[inline(never)]
    pub fn moves_on<'b>(&self, position: u32, versions: impl Versions<'b>, reads: &ReadSet<'b>) -> bool {
        let before = self.at.get();
        // Before the look at the versions: it finds all those below.
        let now = versions.retired().min(position);
        if self.moves.get() == 0 || now <= before {
            return false;
        }
        let newest = |fingerprint| versions.newest(fingerprint);
        let same = reads.all(|read| newest(read.fingerprint()).is_none_or(|v| v.position < before));
        if same {
            self.at.set(now);
            **self.outcome.borrow_mut() = now;
        }
        self.moves.set(if same { self.moves.get() - 1 } else { 0 });
        same
    }
}
