//! The engine that is the meaning of all others: one operation after the other, on the executor's thread.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::config::{ConfigReport, ExecutorConfig};
use super::engine::{Engine, Limit};
use crate::app::{Application, Reply, Request};
use crate::batch::{SeqNo, UnorderedBatch, UpdateBatch};
use crate::error::{Failure, InitError, caught};
use crate::metrics::{Counter, Metrics};
use crate::reply::BatchReplies;
use crate::schedule::Aside;
use crate::sync::Arc;

/// Runs whole batches through the application's own batch methods.
pub struct Sequential {
    limit: Limit,
    metrics: Arc<Metrics>,
}

impl<A, S> Engine<A, S> for Sequential
where
    A: Application<S>,
{
    fn new(config: &ExecutorConfig, _: &ConfigReport, metrics: Arc<Metrics>) -> Result<Self, InitError> {
        if config.check_every.is_some() {
            tracing::warn!("batches cannot be checked in place; a multi-threaded executor checks them");
        }
        Ok(Sequential { limit: Limit::in_memory(config.join), metrics })
    }

    fn execute(
        &mut self,
        app: &A,
        state: &mut S,
        batch: UpdateBatch<Request<A, S>>,
        _: Aside<'_, S>,
    ) -> Result<BatchReplies<Reply<A, S>>, Failure> {
        self.metrics.add_alone(Counter::sequential_batches, 1);
        update_in_place(app, state, batch)
    }

    fn limit(&self) -> Limit {
        self.limit
    }

    fn execute_unordered(
        &mut self,
        app: &A,
        state: &S,
        batch: UnorderedBatch<Request<A, S>>,
    ) -> Result<BatchReplies<Reply<A, S>>, Failure> {
        answer_in_place(app, state, batch)
    }
}

/// Runs an ordered batch through [`Application::update_batch`], directly on the state.
///
/// An empty batch does not reach the application: nothing is asked of it, and batch methods may rely on a first
/// operation.
///
/// # Errors
///
/// The application panicked, or returned a wrong number of replies. The state may then hold a part of the batch.
#[inline(always)]
pub(crate) fn update_in_place<A: Application<S>, S>(
    app: &A,
    state: &mut S,
    batch: UpdateBatch<Request<A, S>>,
) -> Result<BatchReplies<Reply<A, S>>, Failure> {
    let (seq, expected) = (batch.sequence_number(), batch.len());
    if expected == 0 {
        return Ok(BatchReplies::default());
    }
    // Unwind safety: after a panic the executor fails, and nobody looks at the state again.
    let replies = catch_unwind(AssertUnwindSafe(|| app.update_batch(state, batch))).map_err(|panic| {
        Failure::OperationPanicked { batch: seq, position: None, message: caught(panic), poisoned: true }
    })?;
    counted(replies, Some(seq), expected)
}

/// Answers unordered requests through [`Application::unordered_batched_execution`].
///
/// # Errors
///
/// The application panicked, or returned a wrong number of replies.
pub(crate) fn answer_in_place<A: Application<S>, S>(
    app: &A,
    state: &S,
    batch: UnorderedBatch<Request<A, S>>,
) -> Result<BatchReplies<Reply<A, S>>, Failure> {
    let expected = batch.len();
    if expected == 0 {
        return Ok(BatchReplies::default());
    }
    // Unwind safety: as above.
    let replies = catch_unwind(AssertUnwindSafe(|| app.unordered_batched_execution(state, batch)))
        .map_err(|panic| Failure::UnorderedPanicked { message: caught(panic) })?;
    counted(replies, None, expected)
}

#[inline]
fn counted<R>(
    replies: BatchReplies<R>,
    batch: Option<SeqNo>,
    expected: usize,
) -> Result<BatchReplies<R>, Failure> {
    match replies.len() {
        got if got == expected => Ok(replies),
        got => Err(Failure::WrongReplies { batch, expected, got }),
    }
}
