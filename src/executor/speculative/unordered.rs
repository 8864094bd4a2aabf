//! Unordered requests on all threads.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Speculative;
use crate::app::{Application, Reply, Request, ScalableApp, answer};
use crate::batch::{UnorderedBatch, Update};
use crate::error::{Failure, panic_message};
use crate::reply::{BatchReplies, UpdateReply};
use crate::state::{CRUDState, for_each_mut};

/// Unordered requests that a thread takes at once.
const CHUNK: usize = 16;

/// An unordered request on its way to its answer.
enum Cell<A: Application<S>, S> {
    Asked(Update<Request<A, S>>),
    Taken,
    Answered(UpdateReply<Reply<A, S>>),
}

impl<A, S> Speculative<A, S>
where
    A: ScalableApp<S>,
    S: CRUDState + Sync + 'static,
{
    /// Answers unordered requests, in their order.
    pub(super) fn answer_in_parallel(
        &mut self,
        app: &A,
        state: &S,
        batch: UnorderedBatch<Request<A, S>>,
    ) -> Result<BatchReplies<Reply<A, S>>, Failure> {
        let mut cells: Vec<Cell<A, S>> = batch.into_requests().into_iter().map(Cell::Asked).collect();
        // Unwind safety: the state is only read.
        catch_unwind(AssertUnwindSafe(|| {
            for_each_mut(&mut self.pool, &mut cells, CHUNK, |_, cell| {
                if let Cell::Asked(request) = std::mem::replace(cell, Cell::Taken) {
                    let answered = answer(request, |request| app.unordered_execution(state, request));
                    *cell = Cell::Answered(answered);
                }
            });
        }))
        .map_err(|panic| Failure::UnorderedPanicked { message: panic_message(&*panic) })?;
        let answered = |cell| match cell {
            Cell::Answered(reply) => Some(reply),
            Cell::Asked(_) | Cell::Taken => None,
        };
        Ok(cells.into_iter().filter_map(answered).collect::<Vec<_>>().into())
    }
}
