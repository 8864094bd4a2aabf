//! Working out who waits for whom while the batch already runs.
//!
//! The first thread that comes plans. Until it has, another one walks from the batch's start, since operations at their turn
//! wait for nobody; the plan finds out what it has done by then. The others wait: what they could start, they would start on
//! old values.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::hints::{Dependencies, Planner};
use super::{BatchRun, Pause, Stock};
use crate::app::{Reply, ScalableApp};
use crate::batch::SeqNo;
use crate::error::dispose;
use crate::state::CRUDState;
use crate::sync::{Mutex, OnceLock};

/// A batch's dependencies, which one of its threads works out.
#[derive(Debug)]
pub struct Planning<'r> {
    batch: SeqNo,
    /// For the first who comes.
    planner: Mutex<Option<&'r mut Planner>>,
    /// What he found out; `None` inside if hints panicked.
    planned: OnceLock<Option<Dependencies<'r>>>,
}

impl<'r> Planning<'r> {
    /// Dependencies of `batch`, which `planner` will know.
    pub fn new(batch: SeqNo, planner: &'r mut Planner) -> Self {
        Planning { batch, planner: Mutex::new(Some(planner)), planned: OnceLock::new() }
    }

    /// True if there is a plan. A planner that has none is not to be used again.
    pub fn has_succeeded(&self) -> bool {
        matches!(self.planned.get(), Some(Some(_)))
    }
}

impl<'r, 'b, A, S> BatchRun<'r, 'b, A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync,
{
    /// The plan, when it is there, or `None` if there is none: hints change no result, and neither does it that they panic,
    /// or that the batch has ended before they were needed.
    pub(super) fn planned(
        &self,
        planning: &Planning<'r>,
        stock: &mut Stock<'b, Reply<A, S>>,
    ) -> Option<Dependencies<'r>> {
        let planner = planning.planner.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(planner) = planner {
            let plan = move || {
                let planner = planner;
                planner.plan::<A, S>(self.app, self.updates, self.around.fingerprints)
            };
            // Unwind safety: the planner is dropped.
            let plan = catch_unwind(AssertUnwindSafe(plan));
            if plan.is_err() {
                tracing::warn!(batch = %planning.batch, "hints panicked; running without");
            }
            return *planning.planned.get_or_init(|| plan.map_err(dispose).ok());
        }
        let mut pause = Pause::default();
        loop {
            if let Some(planned) = planning.planned.get() {
                return *planned;
            }
            self.advance(stock);
            if self.retirement.frontier() == self.updates.len() || self.retirement.is_stopped() {
                return None;
            }
            pause.wait();
        }
    }
}
