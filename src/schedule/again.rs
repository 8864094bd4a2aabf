//! Running stale units again before their turn.
//!
//! A finished unit whose observations have been replaced since will be replayed at its turn, by the walker, while all
//! behind it wait. Where many are, replays at the head are what limits the batch, the more the more threads there are. So a
//! thread that finds nothing to start looks at the units just ahead of the frontier, takes a stale one away from
//! retirement, runs it on what is known now, and gives it back.
//!
//! It is only a better guess: retirement validates it like any other. Each unit gets a bounded number of them.

use super::{BatchRun, Pause, Stock};
use crate::app::{Reply, ScalableApp};
use crate::state::CRUDState;

/// How far ahead of the frontier to look: those beyond have time.
const AHEAD: usize = 64;
/// How often a unit is run ahead of its turn.
const RUNS: u32 = 8;

impl<'b, A, S> BatchRun<'_, 'b, A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync,
{
    /// Runs stale units again until all have retired, where the batch is run so.
    pub(super) fn run_stale(&self, stock: &mut Stock<'b, Reply<A, S>>) {
        let mut pause = Pause::default();
        while self.spread.again
            && self.retirement.frontier() < self.updates.len()
            && !self.retirement.is_stopped()
        {
            if !self.run_one_again(stock) {
                pause.wait();
            }
        }
    }

    /// Runs the first stale unit ahead of the frontier again; false if there is none.
    pub fn run_one_again(&self, stock: &mut Stock<'b, Reply<A, S>>) -> bool {
        let frontier = self.retirement.frontier();
        // The unit at the frontier is the walker's.
        let ahead = frontier + 1..(frontier + 1 + AHEAD).min(self.updates.len());
        for position in ahead {
            let Some((finished, claim)) = self.retirement.reopen(position) else { continue };
            let stale = finished.outcome.runs < RUNS
                && self.around.versions.is_stale(&finished.outcome, position as u32);
            if stale {
                finished.clear();
                let snapshot = self.retirement.frontier().min(position);
                self.run_ahead(position, snapshot, stock, finished);
            }
            claim.finish(finished);
            // The walker may have been here in the meantime, and left.
            self.advance(stock);
            if stale {
                return true;
            }
        }
        false
    }
}
