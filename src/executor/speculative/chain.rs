//! Batches that are most likely one chain.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::app::{Request, ScalableApp};
use crate::batch::UpdateBatch;
use crate::schedule::hints::Planner;
use crate::state::CRUDState;
use crate::unit::Fingerprints;

/// Whether a batch is one chain is seen in so many stretches of it at most, which are an eighth of it together, but not shorter
/// than that.
const STRETCHES: usize = 4;
const LEAST_STRETCH: usize = 16;
/// From this share of operations in one chain on, a stretch counts as one.
const CHAIN: f64 = 0.85;

/// True if the batch is most likely, by the application's hints, a chain of operations each of which waits for the one before:
/// then nothing can be run at once, and to plan it all would be in vain.
pub(super) fn is_chain<A: ScalableApp<S>, S: CRUDState>(
    planner: &mut Planner,
    app: &A,
    batch: &UpdateBatch<Request<A, S>>,
    fingerprints: &Fingerprints,
) -> bool {
    let stretches = (batch.len() / (2 * LEAST_STRETCH)).min(STRETCHES);
    let part = batch.len() / stretches.max(1);
    let len = (part / 8).max(LEAST_STRETCH);
    let mut is_one = |start| {
        let stretch = &batch.updates()[start..start + len];
        planner.depth::<A, S>(app, stretch, fingerprints) as f64 >= CHAIN * len as f64
    };
    // Unwind safety: the planner is replaced.
    let is_chain =
        catch_unwind(AssertUnwindSafe(|| stretches > 0 && (0..stretches).map(|n| n * part).all(&mut is_one)));
    is_chain.unwrap_or_else(|_| {
        *planner = Planner::default();
        false
    })
}
