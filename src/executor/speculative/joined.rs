//! Several batches as one: which, and how.
//!
//! A governor of its own learns by their length what such batches gain. To it, one by one is one of the ways: the one that the
//! sequential loop is for a batch.

use std::borrow::Borrow;
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
    /// For those that are executed now.
    plan: Option<Plan>,
}

impl Joint {
    /// For batches within `limit`, of which `governor` knows nothing yet.
    pub(super) fn new(limit: Limit, governor: Governor) -> Self {
        Joint { limit, governor, plan: None }
    }

    /// Takes in how long so many operations took one by one.
    pub(super) fn executed_apart(&mut self, operations: usize, took: Duration) {
        if let Some(Plan { way, timed: true, .. }) = self.plan.take() {
            self.governor.record(operations, way, took, Counts::default());
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
        self.joint.plan = Some(plan);
        plan.way != Way::Sequential || !S::IN_PLACE
    }

    /// Executes several batches as one, as planned.
    pub(super) fn execute_planned(
        &mut self,
        app: &A,
        state: &mut S,
        batch: &mut UpdateBatch<Request<A, S>>,
        batches: u64,
        aside: Aside<'_, S>,
    ) -> Result<BatchReplies<Reply<A, S>>, Unjoined> {
        let (len, start) = (batch.len(), Instant::now());
        let Some(plan) = self.joint.plan.take() else { return Err(Unjoined::Apart) };
        if plan.looks_for_chain && is_chain::<A, S>(&mut self.looker, app, batch, &self.fingerprints) {
            self.joint.governor.pass_over(len, start.elapsed());
            return Err(Unjoined::Apart);
        }
        let beside = self.metrics.get(Counter::unordered_beside);
        let (replies, counts) = match self.run(app, state, &mut *batch, plan, aside, |_| Ok(Fate::Commit)) {
            Ok(run) => run,
            // Nothing has been committed: whose fault it was shows when they are executed one by one.
            Err(Failure::OperationPanicked { .. }) if batch.len() == len => return Err(Unjoined::Apart),
            Err(failure) => return Err(Unjoined::Failed(failure)),
        };
        if let Some(counter) = plan.way.counter() {
            self.metrics.add_alone(counter, batches);
        }
        let alone = self.metrics.get(Counter::unordered_beside) == beside;
        if !alone || self.arenas.have_grown() {
            self.joint.governor.pass_over(len, start.elapsed());
        } else if plan.timed {
            self.joint.governor.record(len, plan.way, start.elapsed(), counts);
        }
        Ok(replies)
    }
}

/// How an engine holds a batch while it executes it.
pub(super) trait Held<O>: Borrow<UpdateBatch<O>> {
    /// Nothing of the batch is needed any more, if all went well. Destructors of its operations may panic.
    fn release(self, all_went_well: bool);
}

impl<O> Held<O> for UpdateBatch<O> {
    fn release(self, _: bool) {}
}

/// Somebody needs it again.
impl<O> Held<O> for &UpdateBatch<O> {
    fn release(self, _: bool) {}
}

/// It may have to be executed in another way, if that failed.
impl<O> Held<O> for &mut UpdateBatch<O> {
    fn release(self, all_went_well: bool) {
        if all_went_well {
            self.updates_mut().clear();
        }
    }
}
