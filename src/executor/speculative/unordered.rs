//! Unordered requests on all threads.

use super::Speculative;
use super::prefetch::{Part, Plan, Votes};
use crate::app::{Reply, Request, ScalableApp, answer};
use crate::batch::UnorderedBatch;
use crate::error::{Failure, panic_message};
use crate::metrics::Counter;
use crate::raw::exchange::Exchange;
use crate::reply::BatchReplies;
use crate::state::CRUDState;
use crate::sync::Mutex;

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
        let plan = self.prefetching.plan(batch.len());
        let exchange = Exchange::new(batch.into_requests(), CHUNK);
        let seen = Mutex::new((Votes::default(), 0));
        let work = |_| {
            let (mut part, mut prefetched) = (Part::new(plan), 0);
            exchange.work(
                |chunk| prefetched += part.begin::<A, S>(app, state, chunk.iter()),
                |request| answer(request, |request| app.unordered_execution(state, request)),
            );
            if plan != Plan::Leave {
                let mut seen = seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                seen.0.add(part.votes);
                seen.1 += prefetched;
            }
        };
        self.pool
            .run(std::iter::empty(), &work)
            .map_err(|panic| Failure::UnorderedPanicked { message: panic_message(&*panic) })?;
        let (votes, prefetched) = seen.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.prefetching.count(votes);
        self.metrics.add_alone(Counter::prefetched, prefetched);
        let replies = exchange.finish().expect("without a panic, every request was answered");
        Ok(replies.into())
    }
}
