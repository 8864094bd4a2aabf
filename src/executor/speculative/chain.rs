//! Batches that are most likely one chain.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::app::{Request, ScalableApp};
use crate::batch::UpdateBatch;
use crate::error::dispose;
use crate::schedule::hints::Planner;
use crate::state::CRUDState;
use crate::unit::Fingerprints;

/// A batch of no more operations is looked at as a whole.
const SHORT: usize = 64;
/// A longer one is looked at in so many stretches, which are a sixteenth of it together, but each at least so long.
const STRETCHES: usize = 4;
const LEAST_STRETCH: usize = 8;
/// From this share of the work in one chain on, all of it counts as one. Of a short batch, operations weigh what they say; how
/// the weight of a stretch is spread says nothing about the rest.
const CHAIN: f64 = 0.85;

/// True if the batch is most likely, by the application's hints, a chain of operations each of which waits for the one before:
/// then little can be run at once, and to plan it all would be in vain.
pub(super) fn is_chain<A: ScalableApp<S>, S: CRUDState>(
    planner: &mut Planner,
    app: &A,
    batch: &UpdateBatch<Request<A, S>>,
    fingerprints: &Fingerprints,
) -> bool {
    let short = batch.len() <= SHORT;
    let stretches = if short { 1 } else { STRETCHES };
    let part = batch.len() / stretches;
    let len = if short { part } else { (part / 16).max(LEAST_STRETCH) };
    let mut is_one = |start| {
        let stretch = &batch.updates()[start..start + len];
        planner.chain_share::<A, S>(app, stretch, fingerprints, short) >= CHAIN
    };
    // Unwind safety: the planner is replaced.
    let is_chain = catch_unwind(AssertUnwindSafe(|| (0..stretches).map(|n| n * part).all(&mut is_one)));
    is_chain.unwrap_or_else(|panic| {
        dispose(panic);
        *planner = Planner::default();
        false
    })
}
