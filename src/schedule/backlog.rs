//! Retiring what one has run.
//!
//! A unit's result is several cache lines: what it observed, what it wrote, its reply. Where another thread retires it, they
//! move from core to core, which is a noticeable part of what a short operation costs. So where little is stale, a thread
//! leaves the results of others to them, and retires a chunk of its own after a later one, when its turn has come. That is at
//! least a chunk later than it could be, and at most `MOST`, so that somewhat more is stale.
//!
//! A thread that is in a long operation keeps the others waiting, but not for ever: who has too many chunks that wait retires
//! whatever can be retired, and so does everybody who finds no more chunks. Nothing is left behind (`retire.rs`).

use std::ops::Range;

use smallvec::SmallVec;

use super::{BatchRun, Stock, Turn};
use crate::app::{Reply, ScalableApp};
use crate::state::CRUDState;

/// So many chunks of its own a thread leaves waiting for their turn.
const MOST: usize = 4;

/// The last chunks that a thread has run and that may not have retired, in ascending order.
#[derive(Debug, Default)]
pub struct Backlog(SmallVec<[Range<usize>; MOST]>);

impl Backlog {
    /// Adds a chunk, and forgets what has retired; of too many that are left, the first, too, and then returns true.
    fn push(&mut self, chunk: Range<usize>, frontier: usize) -> bool {
        self.forget(frontier);
        let full = self.0.len() == MOST;
        if full {
            self.0.remove(0);
        }
        self.0.push(chunk);
        full
    }

    fn forget(&mut self, frontier: usize) {
        self.0.retain(|chunk| chunk.end > frontier);
    }

    /// Forgets what has retired, and returns the end of the chunk whose turn it is.
    fn due(&mut self, frontier: usize) -> Option<usize> {
        self.forget(frontier);
        self.0.first().filter(|chunk| chunk.start <= frontier).map(|chunk| chunk.end)
    }
}

impl<'b, A, S> BatchRun<'_, 'b, A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync,
{
    /// Retires what can be retired now of the chunks in `backlog` and of `chunk`, which this thread has run, too; of too many,
    /// everything.
    pub(super) fn retire_own(
        &self,
        chunk: Range<usize>,
        backlog: &mut Backlog,
        stock: &mut Stock<'b, Reply<A, S>>,
    ) {
        if backlog.push(chunk, self.retirement.frontier()) {
            self.advance(stock);
        }
        while let Some(end) = backlog.due(self.retirement.frontier()) {
            self.retirement.advance_to(end, &mut Turn { run: self, stock });
            if self.retirement.frontier() < end {
                // Another thread is at it or has one of its units, or the batch has stopped.
                return;
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_due_when_all_before_it_has_retired() {
        let mut backlog = Backlog::default();
        assert!(!backlog.push(4..8, 0) && !backlog.push(12..16, 0));
        assert_eq!(backlog.due(3), None);
        assert_eq!(backlog.due(4), Some(8));
        assert_eq!(backlog.due(7), Some(8));
        assert_eq!(backlog.due(8), None);
        assert_eq!(backlog.due(12), Some(16));
        assert_eq!(backlog.due(16), None);
        assert_eq!(backlog.0.len(), 0);
    }

    #[test]
    fn of_too_many_the_first_is_forgotten() {
        let mut backlog = Backlog::default();
        assert!((0..MOST).all(|n| !backlog.push(2 * n..2 * n + 1, 0)));
        assert!(backlog.push(100..101, 0));
        assert_eq!(backlog.due(0), None);
        assert_eq!(backlog.due(2), Some(3));
        assert!(!backlog.0.spilled());
    }

    #[test]
    fn what_others_have_retired_does_not_count() {
        let mut backlog = Backlog::default();
        assert!((0..MOST).all(|n| !backlog.push(2 * n..2 * n + 1, 0)));
        assert!(!backlog.push(100..101, 2 * MOST));
        assert_eq!(backlog.0.len(), 1);
    }
}
