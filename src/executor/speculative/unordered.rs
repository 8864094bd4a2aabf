//! Unordered requests on all threads.

use super::Speculative;
use crate::app::{Reply, Request, ScalableApp, answer};
use crate::batch::UnorderedBatch;
use crate::error::{Failure, panic_message};
use crate::raw::exchange::Exchange;
use crate::reply::BatchReplies;
use crate::state::CRUDState;

/// Unordered requests that a thread takes at once.
const CHUNK: usize = 16;

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
        let exchange = Exchange::new(batch.into_requests(), CHUNK);
        let work = |_| {
            exchange.work(|request| answer(request, |request| app.unordered_execution(state, request)));
        };
        self.pool
            .run(std::iter::empty(), &work)
            .map_err(|panic| Failure::UnorderedPanicked { message: panic_message(&*panic) })?;
        let replies = exchange.finish().expect("without a panic, every request was answered");
        Ok(replies.into())
    }
}
