//! Several batches as one: which, and how.
//!
//! A governor of its own learns by their length what such batches gain. To it, one by one is one of the ways: the one that the
//! sequential loop is for a batch, although batches that are executed one by one may themselves run on all threads.

use std::time::{Duration, Instant};

use super::checked::Fate;
use super::{Plan, Speculative, Way, is_chain};
use crate::app::{Reply, Request, ScalableApp};
use crate::batch::UpdateBatch;
use crate::error::Failure;
use crate::executor::adaptive::Governor;
use crate::executor::engine::{Limit, Unjoined};
use crate::metrics::Counter;
use crate::reply::BatchReplies;
use crate::retire::Counts;
use crate::schedule::Aside;
use crate::state::CRUDState;

/// What an engine knows of batches that are executed together.
pub(super) struct Joint {
    pub(super) limit: Limit,
    governor: Governor,
    /// For those that are executed now, and how many requests had been answered beside batches before.
    plan: Option<(Plan, u64)>,
}

impl Joint {
    /// For batches within `limit`, of which `governor` knows nothing yet.
    pub(super) fn new(limit: Limit, governor: Governor) -> Self {
        Joint { limit, governor, plan: None }
    }

    /// Takes in how long so many operations took one by one, and how many requests have been answered beside batches.
    pub(super) fn executed_apart(&mut self, operations: usize, took: Duration, beside: u64) {
        match self.plan.take() {
            Some((_, before)) if before != beside => self.governor.pass_over(operations, took),
            Some((Plan { way, timed: true, .. }, _)) => {
                self.governor.record(operations, way, took, Counts::default());
            }
            _ => {}
        }
    }
}

impl<A, S> Speculative<A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync + 'static,
{
    /// Plans for several batches of so many operations. True if they are to be executed together: in memory only where that
    /// is not one after the other anyway.
    pub(super) fn plan_joined(&mut self, operations: usize) -> bool {
        let plan = Self::planned_by(self.mode, self.consent, &mut self.joint.governor, operations);
        self.joint.plan = Some((plan, self.metrics.get(Counter::unordered_beside)));
        plan.way != Way::Sequential || !S::IN_PLACE
    }

    /// Executes several batches as one, as planned.
    pub(super) fn execute_planned(
        &mut self,
        app: &A,
        state: &mut S,
        batch: &UpdateBatch<Request<A, S>>,
        batches: u64,
        aside: Aside<'_, S>,
    ) -> Result<BatchReplies<Reply<A, S>>, Unjoined> {
        let (len, start) = (batch.len(), Instant::now());
        let Some((mut plan, beside)) = self.joint.plan.take() else { return Err(Unjoined::Apart) };
        if plan.looks_for_chain && is_chain::<A, S>(&mut self.looker, app, batch, &self.fingerprints) {
            self.joint.governor.pass_over(len, start.elapsed());
            if S::IN_PLACE {
                return Err(Unjoined::Apart);
            }
            // One by one, but with one commit.
            plan = Plan { timed: false, ..self.joint.governor.plan_by(Way::Sequential, len) };
        }
        let (replies, counts) = match self.run(app, state, batch, plan, aside, |_| Ok(Fate::Commit)) {
            Ok(run) => run,
            // The state is as it was: whose fault it is shows when they are executed one by one.
            Err(failure @ (Failure::OperationPanicked { .. } | Failure::CommitRefused { .. })) => {
                tracing::warn!(%failure, batches, "batches are executed one by one, because together they failed");
                return Err(Unjoined::Apart);
            }
            Err(failure) => return Err(Unjoined::Failed(failure)),
        };
        if let Some(counter) = plan.way.counter() {
            self.metrics.add_alone(counter, batches);
        }
        let alone = self.metrics.get(Counter::unordered_beside) == beside;
        if !alone || (plan.timed && self.arenas.have_grown()) {
            self.joint.governor.pass_over(len, start.elapsed());
        } else if plan.timed {
            self.joint.governor.record(len, plan.way, start.elapsed(), counts);
        }
        Ok(replies)
    }
}
