//! The checking mode: every n-th batch runs twice, and the runs are compared.
//!
//! An application that reads a clock, draws a number or walks over a randomly seeded map makes replicas diverge, and no
//! replica alone can see it. But it can run a batch twice on the same state. Both runs go through units, each operation at
//! its turn, so that nothing reaches the state before they have been found to be the same; then the second is committed.
//!
//! Compared are, position by position, the reply (if the application
//! [can compare replies](crate::app::ApplicationData::same_reply)) and all writes, with the order in which keys are first
//! touched, which states are promised to be the same on every replica. The first position that differs is the culprit: all
//! before it were the same in both runs, so it saw the same.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::ending::operation_panicked;
use super::{Plan, Run, Speculative, Way};
use crate::app::{Application, ApplicationData, Reply, Request, ScalableApp};
use crate::batch::UpdateBatch;
use crate::error::{Failure, Text};
use crate::metrics::Counter;
use crate::reply::BatchReplies;
use crate::retire::Tail;
use crate::state::CRUDState;
use crate::unit::version::Version;
use crate::unit::writes::Kind;

/// Says which batches are checked: the first, and then every n-th.
#[derive(Debug)]
pub(super) struct Schedule {
    every: Option<u32>,
    left: u32,
}

impl Schedule {
    /// Every `every`-th; `None`: none.
    pub(super) fn new(every: Option<u32>) -> Self {
        Schedule { every, left: 0 }
    }

    /// True if the next batch is to be checked.
    #[inline]
    pub(super) fn is_due(&mut self) -> bool {
        let Some(every) = self.every else { return false };
        let due = self.left == 0;
        self.left = if due { every - 1 } else { self.left - 1 };
        due
    }
}

/// Whether a run's changes reach the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Commit,
    Drop,
}

/// One write of a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Written {
    position: u32,
    /// Which of the batch's keys it is, in the order of first touch.
    rank: u32,
    column: String,
    key: Vec<u8>,
    kind: Kind,
    bytes: Vec<u8>,
}

impl Written {
    fn new(version: &Version<'_>) -> Self {
        let Version { record, position, rank, .. } = *version;
        Written {
            position,
            rank,
            column: record.column().to_owned(),
            key: record.key().to_vec(),
            kind: record.kind(),
            bytes: record.bytes().to_vec(),
        }
    }
}

/// All writes of a run, in the order of positions.
fn writes<R>(tail: &Tail<'_, R>) -> Vec<Written> {
    let mut writes: Vec<Written> = tail.overlay.versions().map(Written::new).collect();
    writes.sort_unstable();
    writes
}

/// The first position at which two runs wrote something else, and what.
fn different_write(first: &[Written], second: &[Written]) -> Option<(usize, String)> {
    let at = (0..first.len().max(second.len())).find(|&at| first.get(at) != second.get(at))?;
    // The earlier of the two is what the other run lacks there.
    let write = first.get(at).into_iter().chain(second.get(at)).min()?;
    let Written { position, column, key, .. } = write;
    let both = |writes: &[Written]| {
        let same = |other: &Written| (other.position, &other.column, &other.key) == (*position, column, key);
        writes.iter().any(same)
    };
    let how = match (both(first), both(second)) {
        (true, true) => "was written with another value, or in another order",
        _ => "was written by one of them only",
    };
    Some((*position as usize, format!("key \"{}\" of column \"{column}\" {how}", key.escape_ascii())))
}

/// The first position at which two runs replied something else.
fn different_reply<A: Application<S>, S>(
    first: &BatchReplies<Reply<A, S>>,
    second: &BatchReplies<Reply<A, S>>,
) -> Option<(usize, String)> {
    let mut pairs = first.replies().iter().zip(second.replies());
    let at = pairs.position(|(a, b)| !A::AppData::same_reply(a.payload(), b.payload()))?;
    Some((at, "the replies are not the same".to_owned()))
}

impl<A, S> Speculative<A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync + 'static,
{
    /// Executes a batch twice, and commits it if both runs were the same.
    ///
    /// # Errors
    ///
    /// Those of any batch; [`Failure::NotDeterministic`] if they were not. The state is as it was then.
    #[cold]
    pub(super) fn run_checked(
        &mut self,
        app: &A,
        state: &mut S,
        batch: UpdateBatch<Request<A, S>>,
    ) -> Result<Run<Reply<A, S>>, Failure> {
        let seq = batch.sequence_number();
        let differ = |(position, difference): (usize, String)| Failure::NotDeterministic {
            batch: seq,
            position,
            difference: Text::from(difference),
        };
        self.metrics.add_alone(Counter::sequential_batches, 1);
        self.metrics.add_alone(Counter::checked_batches, 1);
        let plan: Plan = self.governor.plan_by(Way::Sequential, batch.len());
        let mut first = Vec::new();
        let (replies, _) = self.run(app, state, &batch, plan, &mut |_| {}, |tail| {
            first = writes(tail);
            Ok(Fate::Drop)
        })?;
        let compare = |tail: &Tail<'_, Reply<A, S>>| {
            // Unwind safety: the batch is dropped.
            let reply = catch_unwind(AssertUnwindSafe(|| different_reply::<A, S>(&replies, &tail.replies)));
            let reply = reply.map_err(|panic| operation_panicked(seq, panic))?;
            let write = different_write(&first, &writes(tail));
            match reply.into_iter().chain(write).min_by_key(|(position, _)| *position) {
                Some(difference) => Err(differ(difference)),
                None => Ok(Fate::Commit),
            }
        };
        self.run(app, state, batch, plan, &mut |_| {}, compare).map_err(|failure| match failure {
            Failure::OperationPanicked { position: Some(position), message, .. } => {
                differ((position, format!("one of them panicked: {message}")))
            }
            failure => failure,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_due_and_then_every_nth() {
        let due = |every| {
            let mut schedule = Schedule::new(every);
            (0..7).map(|_| u8::from(schedule.is_due())).collect::<Vec<_>>()
        };
        assert_eq!(due(None), [0; 7]);
        assert_eq!(due(Some(1)), [1; 7]);
        assert_eq!(due(Some(3)), [1, 0, 0, 1, 0, 0, 1]);
    }
}
